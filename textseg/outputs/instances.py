"""The single lesions of a mask: a map that numbers them by size, and what each measures."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from textseg.imaging.volume import Geometry, Volume
from textseg.outputs.nifti import COMPRESSION_LEVEL, mask_header

__all__ = [
    "InstanceStatistics",
    "Instances",
    "find_instances",
    "label_instances",
    "write_instances",
]

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

_BOX_FACES = np.array([(x, 0, 0) for x in (-0.5, 0.5)])
_FACES = np.concatenate([np.roll(_BOX_FACES, axis, axis=1) for axis in range(3)])
_PLANES_PER_WRITE = 64
_NO_EXTENSIONS = bytes(4)


class InstanceStatistics(TypedDict):
    """Measurements of one connected piece of a mask.

    ``number`` is its value in the map, ``centroid_mm`` in world coordinates (RAS+), ``bbox`` in
    voxels with exclusive ends; ``longest_diameter_mm`` is the largest distance between the faces
    of any two voxels.
    """

    number: int
    voxels: int
    volume_ml: float
    centroid_mm: list[float]
    longest_diameter_mm: float
    bbox: list[list[int]]


class Instances(NamedTuple):
    """The pieces of a mask.

    Attributes:
        labels: ``X Y Z`` of the scan's grid, 0 outside, 1 in the largest.
        statistics: One per number.
    """

    labels: Labels
    statistics: tuple[InstanceStatistics, ...]


def label_instances(
    mask: Mask, spacing_mm: tuple[float, float, float], least_ml: float = 0.0
) -> Labels:
    """The connected pieces of a mask, numbered from 1 by size, 0 elsewhere.

    Pieces hang together by faces, edges and corners. Of two of one size, that comes first whose
    first voxel does in the order of the array's axes.

    Args:
        mask: X Y Z.
        spacing_mm: Of its voxels.
        least_ml: Smaller pieces are left out.
    """
    from scipy import ndimage

    labels = np.zeros(mask.shape, dtype=np.int32)
    found = ndimage.find_objects(mask.astype(np.int8))
    if not found:
        return labels
    pieces, count = ndimage.label(mask[found[0]], structure=np.ones((3, 3, 3)))
    inside = pieces[pieces > 0]
    _, first, sizes = np.unique(inside, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    # rounding must not lose a piece of exactly the least volume
    volumes_ml = sizes[order] * float(np.prod(spacing_mm)) / 1000
    order = order[volumes_ml >= least_ml * (1 - 1e-9)]
    numbers = np.zeros(count + 1, dtype=np.int32)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    labels[found[0]] = numbers[pieces]
    return labels


def find_instances(mask: Mask, geometry: Geometry, *, least_ml: float = 0.0) -> Instances:
    """The pieces of a mask on a grid and what each measures.

    Args:
        mask: X Y Z.
        geometry: Its grid.
        least_ml: Smaller pieces are left out.
    """
    from scipy import ndimage

    labels = label_instances(mask, geometry.spacing_mm, least_ml)
    boxes = ndimage.find_objects(labels)
    measured = (_measured(n, labels, box, geometry) for n, box in enumerate(boxes, start=1))
    return Instances(labels, tuple(measured))


def write_instances(path: Path, labels: Labels, volume: Volume, *, label: str) -> None:
    """Writes ``.nii.gz`` on the volume's grid, of the smallest unsigned type that holds them."""
    count = int(labels.max(initial=0))
    header = mask_header(volume, label=label)
    kind = np.min_scalar_type(count)
    header.set_data_dtype(kind)
    header["cal_max"] = count
    stored = np.dtype(kind).newbyteorder(header.endianness)
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0) as stream,
    ):
        stream.write(header.binaryblock)
        stream.write(_NO_EXTENSIONS)
        for start in range(0, labels.shape[2], _PLANES_PER_WRITE):
            planes = labels[:, :, start : start + _PLANES_PER_WRITE].astype(stored)
            # transposed, C order is the order of the file, first axis fastest
            stream.write(planes.T.tobytes())


def _measured(
    number: int, labels: Labels, box: tuple[slice, ...], geometry: Geometry
) -> InstanceStatistics:
    inside = labels[box] == number
    start = np.array([part.start for part in box])
    voxels = np.argwhere(inside) + start
    centroid = geometry.to_world(voxels.mean(axis=0)[None])[0]
    return InstanceStatistics(
        number=number,
        voxels=len(voxels),
        volume_ml=len(voxels) * geometry.voxel_volume_ml,
        centroid_mm=[float(value) for value in centroid],
        longest_diameter_mm=_longest_mm(_ends(inside) + start, geometry),
        bbox=[[part.start, part.stop] for part in box],
    )


def _ends(inside: Mask) -> NDArray[np.int64]:
    """The first and last voxel of each line along the last axis; no other can be an extreme."""
    lines = np.argwhere(inside.any(axis=2))
    rows = inside[lines[:, 0], lines[:, 1]]
    first = rows.argmax(axis=1)
    last = rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    ends = [np.column_stack([lines, end]) for end in (first, last)]
    return np.unique(np.concatenate(ends), axis=0)


def _longest_mm(voxels: NDArray[np.int64], geometry: Geometry) -> float:
    """Largest distance between the centers of the faces of some voxels."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    points = geometry.to_world((voxels[:, None] + _FACES).reshape(-1, 3))
    corners = points[ConvexHull(points).vertices]
    return float(pdist(corners).max())
