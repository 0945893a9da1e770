"""One numbering for what the masks of many data sets say, overlaps and unions included.

Masks of different data sets name the same voxel at different levels: one says left kidney, another
kidney, a third tumor. A *label* here is a set of prompts that a voxel belongs to; every case
translates the values of its mask to labels. So a prompt's mask is a union of labels whichever data
set the case is of, and asking for "kidney" on a scan with left and right kidneys gives both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from textseg.datasets import Case, LabelSpace, concept_values

IGNORE = -1
"""Label of voxels whose structure is not known; losses skip them."""

Told = Mapping[str, tuple[int, ...]]
"""Values of a mask whose union is a prompt, for every prompt the mask speaks about."""


@dataclass(frozen=True, eq=False)
class DomainLabels:
    """The prompts of a domain and the labels its masks are translated to.

    Attributes:
        space: The concepts that some mask of the domain names.
        prompts: Those concepts, then the unions of several of them; ``K`` in all.
        labels: Prompts (their places) that the voxels of each label belong to; label ``i`` is
            ``labels[i - 1]``, 0 is background. ``L`` in all.
        own: The most specific concept of each label, its place in ``space``.
    """

    space: LabelSpace
    prompts: tuple[str, ...]
    labels: tuple[frozenset[int], ...]
    own: tuple[int, ...]

    @classmethod
    def of(cls, cases: Iterable[Case], space: LabelSpace) -> DomainLabels:
        """The labels that these cases need, and their mirror images."""
        prompts = (*space.concepts, *union_concepts(space))
        place = {prompt: k for k, prompt in enumerate(prompts)}
        swap = _counterparts(prompts, space)
        sets: dict[frozenset[int], int] = {}
        seen = set()
        for case in cases:
            key = (case.dataset, tuple(case.labels.items()), case.complete)
            if key in seen:
                continue
            seen.add(key)
            told = tell(case, prompts, space)
            for value in case.labels:
                members = frozenset(place[p] for p, values in told.items() if value in values)
                inside = [p for p in told if place[p] in members and p in space.index]
                if inside:
                    nearest = min(inside, key=lambda prompt: len(told[prompt]))
                    sets.setdefault(members, place[nearest])
        for members, own in list(sets.items()):
            mirrored = _mirrored(members, swap)
            if mirrored is not None:
                sets.setdefault(mirrored, swap[own])
        ordered = sorted(sets.items(), key=lambda item: (item[1], sorted(item[0])))
        return cls(space, prompts, tuple(s for s, _ in ordered), tuple(own for _, own in ordered))

    @property
    def label_concepts(self) -> tuple[str, ...]:
        """The most specific concept of each label."""
        return tuple(self.space.concepts[place] for place in self.own)

    @cached_property
    def membership(self) -> Tensor:
        """Whether each prompt holds each label, ``K L+1`` bool; nothing holds the background."""
        table = torch.zeros(len(self.prompts), len(self.labels) + 1, dtype=torch.bool)
        for label, members in enumerate(self.labels, start=1):
            table[sorted(members), label] = True
        return table

    @cached_property
    def columns(self) -> Tensor:
        """Each label's own concept counted from 1, with 0 for background, ``L+1``."""
        return torch.tensor([0, *(place + 1 for place in self.own)])

    @cached_property
    def also(self) -> Tensor:
        """Concepts that hold a label besides its own and do not compete for it, ``L+1 N`` bool."""
        table = self.membership[: len(self.space.concepts)].T.clone()
        for label, own in enumerate(self.own, start=1):
            table[label, own] = False
        return table

    @cached_property
    def swap(self) -> Tensor:
        """Each label in a mirrored image, ``L+1``.

        IGNORE where a structure of the label has no counterpart on the other side.
        """
        swap = _counterparts(self.prompts, self.space)
        number = {members: label for label, members in enumerate(self.labels, start=1)}
        mirrored = (_mirrored(members, swap) for members in self.labels)
        return torch.tensor([0, *(IGNORE if m is None else number[m] for m in mirrored)])

    @cached_property
    def prompt_swap(self) -> Tensor:
        """Each prompt's counterpart on the other side, ``K``; -1 where it has none."""
        return torch.tensor(_counterparts(self.prompts, self.space))

    @cached_property
    def twins(self) -> Tensor:
        """Pairs that are easily taken for one another, ``K K`` bool.

        The other side, the next of a row such as vertebrae or ribs, an organ and its lesion.
        """
        place = {prompt: k for k, prompt in enumerate(self.prompts)}
        tree, pairs = self.space.tree, set()
        for prompt in self.prompts:
            concept = tree[prompt]
            pairs |= {(prompt, other) for other in (tree.counterpart(prompt), *concept.contains)}
            pairs |= {pair for partition in concept.made_of for pair in pairwise(partition)}
        table = torch.zeros(len(self.prompts), len(self.prompts), dtype=torch.bool)
        for one, other in pairs:
            if one in place and other in place:
                table[place[one], place[other]] = table[place[other], place[one]] = True
        return table

    def translate(self, case: Case, *, values: Sequence[int]) -> tuple[Tensor, Tensor]:
        """How the values of a case's mask read as labels, and which prompts are annotated.

        Values that name a concept outside the space are ignored, because a concept of the space may
        contain them; unnamed values become labels above ``L``, one each.

        Args:
            case: A case of the domain, with the labels its mask holds.
            values: Values to translate, those the mask holds at least.

        Returns:
            A table of labels, int16, indexed by the value; and ``K`` bool.
        """
        told = tell(case, self.prompts, self.space)
        place = {prompt: k for k, prompt in enumerate(self.prompts)}
        number = {members: label for label, members in enumerate(self.labels, start=1)}
        table = torch.zeros(max(values, default=0) + 1, dtype=torch.int16)
        for value in values:
            if value in case.labels:
                members = frozenset(place[p] for p, held in told.items() if value in held)
                table[value] = number.get(members, IGNORE)
        strange = [value for value in values if value and value not in case.labels]
        for label, value in enumerate(strange, start=len(self.labels) + 1):
            table[value] = label
        return table, torch.tensor([prompt in told for prompt in self.prompts])


def tell(case: Case, prompts: Sequence[str], space: LabelSpace) -> Told:
    """Values of each prompt that the case's mask speaks about; none for what is truly absent."""
    found = ((p, concept_values(p, case, tree=space.tree)) for p in prompts)
    return {prompt: values for prompt, values in found if values is not None}


def union_concepts(space: LabelSpace) -> tuple[str, ...]:
    """Concepts of the tree that are exactly a union of several concepts of the space."""
    held = set(space.concepts)
    return tuple(
        concept.id
        for concept in space.tree
        if concept.id not in held and len(space.tree.leaves(concept.id, held)) > 1
    )


def _counterparts(prompts: Sequence[str], space: LabelSpace) -> list[int]:
    """Place of each prompt's counterpart: itself if it has no side, -1 if it has none here."""
    place = {prompt: k for k, prompt in enumerate(prompts)}
    return [
        k
        if space.tree[prompt].side is None
        else place.get(space.tree.counterpart(prompt) or "", -1)
        for k, prompt in enumerate(prompts)
    ]


def _mirrored(members: frozenset[int], swap: Sequence[int]) -> frozenset[int] | None:
    """The prompts of the mirrored voxels; None if one of them has no counterpart."""
    mirrored = frozenset(swap[member] for member in members)
    return None if -1 in mirrored else mirrored
