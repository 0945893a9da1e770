"""What a mask measures: volume, intensities under it, where it lies, and whether it is cut off."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from textseg.imaging.volume import Geometry, Volume

__all__ = ["Statistics", "mask_statistics", "plane_counts", "unmeasured"]

Mask = NDArray[np.bool_]

_DIRECTIONS = {
    "L": "left",
    "R": "right",
    "P": "posterior",
    "A": "anterior",
    "I": "inferior",
    "S": "superior",
}
_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))


class Statistics(TypedDict):
    """Measurements of one mask; None where there is nothing to measure.

    ``centroid_mm`` is in world coordinates (RAS+), ``bbox`` in voxels with exclusive ends, and
    ``touches_border`` lists the ends of the field of view that may have cut the structure off.
    """

    voxels: int | None
    volume_ml: float | None
    intensity_unit: str | None
    intensity_mean: float | None
    intensity_sd: float | None
    intensity_p5: float | None
    intensity_p95: float | None
    centroid_mm: list[float] | None
    bbox: list[list[int]] | None
    touches_border: list[str] | None
    presence: float | None


def mask_statistics(mask: Mask, volume: Volume, *, presence: float | None = None) -> Statistics:
    """Measurements of a mask on the volume's grid; an empty one has 0 voxels and no intensities.

    Args:
        mask: X Y Z, the volume's own axis order.
        volume: The scan; intensities are those of its first channel.
        presence: The model's probability that the structure is there.
    """
    counts = plane_counts(mask)
    num_voxels = int(counts[0].sum())
    result = unmeasured(presence=presence)
    result["voxels"] = num_voxels
    result["volume_ml"] = num_voxels * volume.geometry.voxel_volume_ml
    result["intensity_unit"] = "HU" if volume.modality == "ct" else "arbitrary"
    result["touches_border"] = []
    if not num_voxels:
        return result
    bounds = [np.flatnonzero(count)[[0, -1]] for count in counts]
    bbox = [[int(first), int(last) + 1] for first, last in bounds]
    result["bbox"] = bbox
    result["touches_border"] = _touched_ends(bbox, volume.geometry)
    result["centroid_mm"] = _centroid_mm(counts, volume.geometry)
    box = tuple(slice(start, stop) for start, stop in bbox)
    values = volume.data[0][box][mask[box]].astype(np.float64)
    p5, p95 = np.percentile(values, [5, 95])
    result["intensity_mean"], result["intensity_sd"] = float(values.mean()), float(values.std())
    result["intensity_p5"], result["intensity_p95"] = float(p5), float(p95)
    return result


def unmeasured(*, presence: float | None = None) -> Statistics:
    """The record of a prompt that was never segmented: every measurement is None."""
    return Statistics(
        voxels=None,
        volume_ml=None,
        intensity_unit=None,
        intensity_mean=None,
        intensity_sd=None,
        intensity_p5=None,
        intensity_p95=None,
        centroid_mm=None,
        bbox=None,
        touches_border=None,
        presence=presence,
    )


def plane_counts(mask: Mask) -> list[NDArray[np.int64]]:
    """Mask voxels in each plane across each of the three axes."""
    columns = np.count_nonzero(mask, axis=2)  # X Y
    across_z = np.count_nonzero(mask, axis=(0, 1))
    return [columns.sum(axis=1), columns.sum(axis=0), across_z]


def _centroid_mm(counts: list[NDArray[np.int64]], geometry: Geometry) -> list[float]:
    centre = [float(np.average(np.arange(len(count)), weights=count)) for count in counts]
    return [float(value) for value in geometry.to_world(np.array([centre]))[0]]


def _touched_ends(bbox: list[list[int]], geometry: Geometry) -> list[str]:
    """Anatomical names of the ends of the field of view that the box reaches."""
    ends = []
    for (start, stop), size, letter in zip(bbox, geometry.shape, geometry.orientation, strict=True):
        if start == 0:
            ends.append(_DIRECTIONS[_OPPOSITE[letter]])
        if stop == size:
            ends.append(_DIRECTIONS[letter])
    return ends
