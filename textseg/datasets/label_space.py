"""One ordered list of concepts over many data sets, and what each mask says about each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from textseg.datasets.cases import Case
from textseg.errors import ModelError
from textseg.knowledge import KnowledgeTree


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of concepts; a concept's index is its place.

    Attributes:
        concepts: Concept ids in the order of the tree.
        tree: The tree that says which concepts add up to which.
    """

    concepts: tuple[str, ...]
    tree: KnowledgeTree

    @classmethod
    def of(
        cls, cases: Iterable[Case], *, tree: KnowledgeTree, also: Sequence[str] = ()
    ) -> LabelSpace:
        """The space of every concept with voxels in some case, and of the ids in ``also``.

        ``also`` names concepts that no mask labels but some mask can express, such as both kidneys
        together.

        Raises:
            ModelError: A concept in ``also`` that none of the cases can express.
        """
        cases = tuple(cases)
        used = {concept for case in cases for concept in case.concepts}
        space = cls(tuple(i for i in tree.ids if i in used | set(also)), tree)
        reached = {concept for case in cases for concept in space.values(case)}
        if lost := [concept for concept in also if concept not in reached]:
            raise ModelError(f"no case can express {', '.join(lost)}.", code="E404")
        return space

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each concept."""
        return MappingProxyType({concept: k for k, concept in enumerate(self.concepts)})

    def values(self, case: Case) -> dict[str, tuple[Any, ...]]:
        """Labels whose union is the concept, for every concept the mask speaks about.

        An empty tuple means that the concept is truly absent. Concepts the mask says nothing about
        are not among the keys: for them every voxel is unknown, not background.
        """
        found = ((c, concept_values(c, case, tree=self.tree)) for c in self.concepts)
        return {concept: values for concept, values in found if values is not None}


def concept_values(concept_id: str, case: Case, *, tree: KnowledgeTree) -> tuple[Any, ...] | None:
    """Labels of a case's mask whose union is the concept.

    Combines the concept's own label or the labels of a complete partition with those of the
    structures it contains.

    Returns:
        The labels, in the order of the case; empty if the concept is truly absent; None if the mask
        does not tell, which is so when the concept cannot be expressed by annotated ones, and when
        a part of it has no voxels although its annotation is not complete.
    """
    leaves = tree.leaves(concept_id, case.annotated)
    if not leaves:
        return None
    values = [case.values(leaf) for leaf in leaves]
    if any(not v and leaf not in case.complete for leaf, v in zip(leaves, values, strict=True)):
        return None
    inside = (case.values(i) for i in contained(concept_id, tree=tree))
    members = {value for group in (*values, *inside) for value in group}
    return tuple(value for value in case.labels if value in members)


def contained(concept_id: str, *, tree: KnowledgeTree) -> tuple[str, ...]:
    """Everything the tree says lies wholly within a concept, even where masks name it apart."""
    found: dict[str, None] = {}
    open_ids = [concept_id]
    while open_ids:
        outer = tree[open_ids.pop()]
        members = (member for partition in outer.made_of for member in partition)
        inner = [i for i in (*outer.contains, *members) if i not in found]
        found |= dict.fromkeys(inner)
        open_ids += inner
    return tuple(found)
