"""Structures of one mask that share voxels although the tree keeps them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from textseg.datasets.cases import Case
from textseg.datasets.checks.report import Finding, listed
from textseg.datasets.label_space import contained
from textseg.knowledge import KnowledgeTree

_LEAST_SHARE = 0.1
"""Outlines drawn one by one share a rim of voxels; less of the smaller structure is no fault."""


def check_overlaps(
    case: Case, seen: Case, num_voxels: Mapping[int, int], *, tree: KnowledgeTree, file: Path
) -> Iterator[Finding]:
    """One finding that names the unrelated structures which overlap, most first.

    Args:
        case: The case by the labels of its data set. Concepts that one label joins overlap by
            declaration.
        seen: The same case by the values of its mask.
        num_voxels: Voxels of each value.
        tree: Says which structures are related.
        file: The mask, for the finding.
    """
    sizes: Counter[str] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    for value, concepts in seen.labels.items():
        sizes.update(dict.fromkeys(concepts, num_voxels[value]))
        shared.update(dict.fromkeys(_couples(concepts), num_voxels[value]))
    declared = {couple for concepts in case.labels.values() for couple in _couples(concepts)}
    shares = {
        couple: count / min(sizes[concept] for concept in couple)
        for couple, count in shared.items()
        if couple not in declared and not _related(*couple, tree)
    }
    large = sorted((c for c in shares if shares[c] >= _LEAST_SHARE), key=shares.__getitem__)
    if large:
        texts = (f"{a} and {b} by {shares[a, b]:.0%} of the smaller" for a, b in reversed(large))
        message = (
            f"shows structures that overlap without containing each other: {listed(texts)}. "
            "Correct the masks, or give a label both concepts if they do overlap."
        )
        yield Finding("warning", "overlap", case.id, file, message)


def _couples(concepts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every two of the concepts, always in the same order."""
    return combinations(sorted(concepts), 2)


def _related(first: str, second: str, tree: KnowledgeTree) -> bool:
    """Whether both may have the same voxels: whole and part, kinds, or a lesion of any place."""
    wholes = [{concept, *contained(concept, tree=tree)} for concept in (first, second)]
    return (
        first in tree.ancestors(second)
        or second in tree.ancestors(first)
        or not wholes[0].isdisjoint(wholes[1])
        or any(tree[i].kind == "lesion" and not tree[i].site for i in (first, second))
    )
