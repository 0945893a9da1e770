"""Several structures as one: the mask of the kidneys is that of the left and of the right one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from textseg.inference.islands import drop_islands
from textseg.inference.probabilities import BoxedProbability, Probabilities, united


def united_rows(
    probability: Probabilities, rows: Mapping[int, bool], *, threshold: float
) -> tuple[BoxedProbability, int]:
    """Largest probability of some structures at each voxel, and the islands left out of them.

    Args:
        probability: Of all structures.
        rows: Which of them, and whether its small pieces stay.
        threshold: Of the masks.
    """
    parts, islands = [], 0
    for row, keeps_islands in rows.items():
        part = probability.boxed(row)
        if not keeps_islands:
            cleaned = drop_islands(part.values, threshold=threshold)
            part = replace(part, values=cleaned.probability)
            islands += cleaned.islands
        parts.append(part)
    return united(parts), islands
