"""Whether left structures lie to the left: of their counterparts, and of the middle of the body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textseg.datasets.checks.report import Finding, listed
from textseg.knowledge import KnowledgeTree

Centroids = Mapping[str, NDArray[np.float64]]

_PAIR_MARGIN_MM = 5.0
_PAIR_MARGIN_SHARE = 0.1
"""Pairs that differ less across the body, in mm or as a share of their distance, lie behind or
above one another and say nothing about sides."""
_LONE_MARGIN_MM = 15.0
"""How far beyond the middle is wrong; the left atrium reaches it, a lying patient may be turned."""


class _Pair(NamedTuple):
    left: str
    right: str
    apart_mm: float  # how far the left one lies to the left of the right one
    middle_mm: float

    def __str__(self) -> str:
        return f"{self.left} and {self.right}"


def check_sides(
    centroids: Centroids, tree: KnowledgeTree, *, case: str, file: Path
) -> Iterator[Finding]:
    """Pairs on swapped sides; where there are none, structures without counterpart.

    Args:
        centroids: Centroid of each concept in world mm, RAS+.
        tree: Says which concepts are counterparts.
        case: Id of the case, for the findings.
        file: The mask, for the findings.
    """
    pairs = [pair for pair in _pairs(centroids, tree) if pair.apart_mm]
    swapped = [pair for pair in pairs if pair.apart_mm < 0]
    if len(swapped) * 2 > len(pairs):
        message = (
            f"shows {len(swapped)} of {len(pairs)} pairs on the wrong sides ({listed(swapped)}): "
            "the orientation of the scan or the table of labels is wrong. Compare them with the "
            "source of the data."
        )
        yield Finding("error", "sides-swapped", case, file, message)
    else:
        for pair in swapped:
            message = (
                f"shows {pair.left} {-pair.apart_mm:.0f} mm to the right of {pair.right}, while "
                "other pairs lie as they should. Are their two labels exchanged?"
            )
            yield Finding("error", "pair-swapped", case, file, message)
    if pairs and not swapped:
        middle_mm = float(np.median([pair.middle_mm for pair in pairs]))
        yield from _lone(centroids, tree, middle_mm, case=case, file=file)


def _pairs(centroids: Centroids, tree: KnowledgeTree) -> Iterator[_Pair]:
    """Every structure that is there on both sides; apart by 0 where sides cannot be told."""
    for left, place in centroids.items():
        right = tree.counterpart(left)
        if tree[left].side != "left" or right is None or right not in centroids:
            continue
        across_mm, *_ = offset = centroids[right] - place  # x grows to the patient's right
        margin_mm = max(_PAIR_MARGIN_MM, _PAIR_MARGIN_SHARE * float(np.linalg.norm(offset)))
        apart_mm = float(across_mm) if abs(across_mm) > margin_mm else 0.0
        yield _Pair(left, right, apart_mm, float(place[0] + across_mm / 2))


def _lone(
    centroids: Centroids, tree: KnowledgeTree, middle_mm: float, *, case: str, file: Path
) -> Iterator[Finding]:
    """Structures without counterpart that lie beyond the middle between the sides of others."""
    for concept, place in centroids.items():
        side = tree[concept].side
        if side is None or tree.counterpart(concept) in centroids:
            continue
        beyond_mm = (float(place[0]) - middle_mm) * (1 if side == "left" else -1)
        if beyond_mm > _LONE_MARGIN_MM:
            message = (
                f"shows {concept} {beyond_mm:.0f} mm beyond the middle of the body, on the other "
                "side. Is it labelled as its counterpart?"
            )
            yield Finding("warning", "wrong-side", case, file, message)
