"""How many voxels each structure of a mask has, and where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textseg.datasets.label_map import LabelledCase


@dataclass(frozen=True, eq=False)
class Measures:
    """Sizes and centroids.

    Attributes:
        num_voxels: Voxels of each value that names concepts.
        centroids: Centroid of each concept with voxels, ``X Y Z`` in world mm, RAS+.
    """

    num_voxels: Mapping[int, int]
    centroids: Mapping[str, NDArray[np.float64]]


def measure(mask: LabelledCase) -> Measures:
    """The measures of a mask; parts and what a structure contains count on their own."""
    case, labels = mask
    values = tuple(case.labels)
    if not values:
        return Measures({}, {})
    sums = _sums(labels.values, values)
    centroids = {}
    for concept in case.concepts:
        rows = [values.index(value) for value in case.values(concept)]
        count, *totals = sums[rows].sum(axis=0)
        centroids[concept] = labels.geometry.to_world(np.array([totals]) / count)[0]
    num_voxels = dict(zip(values, sums[:, 0].astype(int).tolist(), strict=True))
    return Measures(num_voxels, centroids)


def _sums(data: NDArray[np.int32], values: tuple[int, ...]) -> NDArray[np.float64]:
    """For each value its number of voxels and the sums of their indices, ``N 4``."""
    place = np.full(data.max() + 1, len(values))
    place[list(values)] = np.arange(len(values))
    sums = np.zeros((len(values) + 1, 4))
    # plane by plane, as indices of all voxels at once take six times the memory of the map
    for z in range(data.shape[2]):
        x, y = np.nonzero(data[:, :, z] > 0)
        row = place[data[x, y, z]]
        count = np.bincount(row, minlength=len(sums))
        sums[:, 0] += count
        sums[:, 1] += np.bincount(row, weights=x, minlength=len(sums))
        sums[:, 2] += np.bincount(row, weights=y, minlength=len(sums))
        sums[:, 3] += z * count
    return sums[:-1]
