"""Counts what a tree holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from textseg.knowledge.classes import load_classes
from textseg.knowledge.concept import Concept
from textseg.knowledge.loading import RELATION_KEYS
from textseg.knowledge.tree import KnowledgeTree, normalise


@dataclass(frozen=True, slots=True)
class TreeStatistics:
    """How much a tree knows.

    Attributes:
        concepts: Concepts, those of one side included.
        adult_gross: Those a dissector of an adult would point at; see ``Concept.is_adult_gross``.
        synonyms: Different texts that are understood besides the concepts' own names.
        classes_mapped: Class names of the public data sets whose concepts are all there.
        relations: Stated relations of every sort between two concepts; adjacency and pairs of
            sides count once.
    """

    concepts: int
    adult_gross: int
    synonyms: int
    classes_mapped: int
    relations: int


def tree_statistics(tree: KnowledgeTree) -> TreeStatistics:
    """The counts of a tree."""
    own = {normalise(concept.name) for concept in tree}
    mapped = [all(i in tree for i in label.concepts) for label in load_classes().values()]
    return TreeStatistics(
        concepts=len(tree),
        adult_gross=sum(concept.is_adult_gross for concept in tree),
        synonyms=sum(name not in own for name in tree.names),
        classes_mapped=sum(mapped),
        relations=sum(1 for concept in tree for _ in relations(tree, concept)),
    )


def relations(tree: KnowledgeTree, concept: Concept) -> Iterator[tuple[str, str]]:
    """Every relation that starts at a concept, as its name and the id of the other.

    A relation that holds both ways, ``adjacent_to`` or ``other_side``, is told by one of the two.
    """
    # what a lesion's site repeats of its parents is told once
    repeated = set(concept.site) & set(concept.part_of)
    for key in RELATION_KEYS:
        for other in getattr(concept, key):
            if not (key == "part_of" and other in repeated):
                yield key, other
    yield from (("adjacent_to", other) for other in concept.adjacent_to if concept.id < other)
    other_side = tree.counterpart(concept.id)
    if other_side is not None and concept.side == "left":
        yield "other_side", other_side
