"""How well two masks agree: Dice, surface Dice (NSD) and the 95 % Hausdorff distance.

A mask's surface is cut into surface elements, one for each 2 x 2 x 2 block of voxels that holds
both inside and outside. An element sits at the centre of its block and weighs as much as the piece
of surface that runs through the block (marching cubes through the edge midpoints), so anisotropic
voxels count by area, not by number. This is the definition of NSD and robust Hausdorff distance
of Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and neck
anatomy for radiotherapy" (2018), which most published results use.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "agreement", "dice", "hd95", "nsd"]

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Dice and NSD in 0..1, HD95 in mm (infinite when exactly one mask is empty)."""

    dice: float
    nsd: float
    hd95_mm: float


def dice(pred: NDArray[np.generic], ref: NDArray[np.generic]) -> float:
    """Twice the shared voxels over the sum of both; 1.0 for two empty masks.

    >>> dice(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0]))
    0.5
    """
    first, second = _as_masks(pred, ref)
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


def nsd(
    pred: NDArray[np.generic],
    ref: NDArray[np.generic],
    *,
    spacing_mm: Spacing,
    tolerance_mm: float = 2.0,
) -> float:
    """Share of both surfaces' area that lies within the tolerance of the other surface.

    1.0 for two empty masks, 0.0 when exactly one is empty.
    """
    return agreement(pred, ref, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm).nsd


def hd95(pred: NDArray[np.generic], ref: NDArray[np.generic], *, spacing_mm: Spacing) -> float:
    """Distance in mm that 95 % of each surface's area keeps from the other, the worse of the two.

    0.0 for two empty masks, infinite when exactly one is empty.
    """
    return agreement(pred, ref, spacing_mm=spacing_mm).hd95_mm


def agreement(
    pred: NDArray[np.generic],
    ref: NDArray[np.generic],
    *,
    spacing_mm: Spacing,
    tolerance_mm: float = 2.0,
) -> Agreement:
    """All three figures for one pair of masks, cheaper than one call for each.

    Args:
        pred: Predicted mask, X Y Z; anything non-zero is inside.
        ref: Reference mask of the same shape.
        spacing_mm: Voxel size along X, Y, Z.
        tolerance_mm: Largest surface distance that NSD counts as agreement.

    Raises:
        ValueError: The shapes differ.
    """
    first, second = _as_masks(pred, ref)
    if not first.any() or not second.any():
        both_empty = first.any() == second.any()
        return Agreement(1.0, 1.0, 0.0) if both_empty else Agreement(0.0, 0.0, math.inf)
    box = _bounding_box(first | second)
    first, second = first[box], second[box]
    surfaces = _surface_distances(first, second, spacing_mm)
    return Agreement(
        dice=dice(first, second),
        nsd=_area_within(surfaces, tolerance_mm),
        hd95_mm=max(_weighted_percentile(d, area, 0.95) for d, area in surfaces),
    )


def _as_masks(pred: NDArray[np.generic], ref: NDArray[np.generic]) -> tuple[Mask, Mask]:
    if pred.shape != ref.shape:
        raise ValueError(f"Masks of shapes {pred.shape} and {ref.shape} cannot be compared.")
    return pred.astype(bool, copy=False), ref.astype(bool, copy=False)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Smallest box of slices that holds every true voxel of a mask that has some."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _surface_distances(
    first: Mask, second: Mask, spacing_mm: Spacing
) -> tuple[tuple[Points, Points], tuple[Points, Points]]:
    """For each mask's surface elements: distance to the other surface in mm, and area in mm²."""
    from scipy.ndimage import distance_transform_edt

    codes = [_block_codes(mask) for mask in (first, second)]
    on_surface = [(code != 0) & (code != 255) for code in codes]
    areas = _element_areas(spacing_mm)
    to_surface = [
        np.asarray(distance_transform_edt(~surface, sampling=spacing_mm)) for surface in on_surface
    ]
    return (
        (to_surface[1][on_surface[0]], areas[codes[0][on_surface[0]]]),
        (to_surface[0][on_surface[1]], areas[codes[1][on_surface[1]]]),
    )


def _block_codes(mask: Mask) -> NDArray[np.uint8]:
    """One bit for each corner of every 2 x 2 x 2 block; the mask is closed by a layer of zeros."""
    padded = np.pad(mask, 1)
    code = np.zeros([n - 1 for n in padded.shape], dtype=np.uint8)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=3)):
        block = tuple(slice(c, c + n) for c, n in zip(corner, code.shape, strict=True))
        code |= padded[block].astype(np.uint8) << np.uint8(bit)
    return code


def _area_within(surfaces: Sequence[tuple[Points, Points]], tolerance_mm: float) -> float:
    near = sum(float(area[distance <= tolerance_mm].sum()) for distance, area in surfaces)
    return near / sum(float(area.sum()) for _, area in surfaces)


def _weighted_percentile(values: Points, weights: Points, fraction: float) -> float:
    """Smallest value at which the weights of all values up to it reach the fraction."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    at = int(np.searchsorted(cumulative / cumulative[-1], fraction))
    return float(values[order][min(at, len(order) - 1)])


def _element_areas(spacing_mm: Spacing) -> Points:
    """Area in mm² of the surface through a block, for each of its 256 codes."""
    sx, sy, sz = spacing_mm
    scaled = _unit_normals() * np.array([sy * sz, sx * sz, sx * sy])
    areas: Points = np.linalg.norm(scaled, axis=2).sum(axis=1)
    return areas


@functools.cache
def _unit_normals() -> Points:
    """Area-weighted normals of the triangles through a unit block: 256 codes x 4 triangles x 3."""
    normals = np.zeros((256, 4, 3))
    for code in range(256):
        for index, (a, b, c) in enumerate(_triangles(code)):
            normals[code, index] = np.cross(b - a, c - a) / 2
    normals.setflags(write=False)
    return normals


def _triangles(code: int) -> Iterator[tuple[Points, Points, Points]]:
    """Corner points of the triangles that separate a block's inside from its outside."""
    corners = list(itertools.product((0, 1), repeat=3))
    inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
    # the rarer kind of corner is the one cut off, so a mask and its complement share a surface
    if len(inside) > 4:
        inside = set(corners) - inside
    for loop in _loops(inside):
        points = [np.array(point, dtype=np.float64) for point in loop]
        for i, j, k in _widest_triangulation(points):
            yield points[i], points[j], points[k]


Corner = tuple[int, ...]
Point = tuple[float, ...]


def _loops(inside: set[Corner]) -> Iterator[list[Point]]:
    """Closed polygons through the midpoints of the block's edges that cross the surface."""
    links: dict[Point, list[Point]] = {}
    for start, stop in _face_segments(inside):
        links.setdefault(start, []).append(stop)
        links.setdefault(stop, []).append(start)
    while links:
        loop = [next(iter(links))]
        while loop[-1] in links:
            onward = [point for point in links.pop(loop[-1]) if point in links]
            loop.extend(onward[:1])
            if not onward:
                break
        yield loop


def _face_segments(inside: set[Corner]) -> Iterator[tuple[Point, Point]]:
    """Where the surface cuts each of the six faces, as pairs of edge midpoints."""
    for axis, side in itertools.product(range(3), (0, 1)):
        face = [c for c in itertools.product((0, 1), repeat=3) if c[axis] == side]
        crossings: dict[Point, Corner] = {}
        for a, b in itertools.combinations(face, 2):
            is_edge = sum(x != y for x, y in zip(a, b, strict=True)) == 1
            if is_edge and (a in inside) != (b in inside):
                middle = tuple((x + y) / 2 for x, y in zip(a, b, strict=True))
                crossings[middle] = a if a in inside else b
        if len(crossings) == 2:
            first, second = crossings
            yield first, second
        elif len(crossings) == 4:
            # two inside corners on a diagonal are kept apart
            for corner in set(crossings.values()):
                first, second = (m for m, owner in crossings.items() if owner == corner)
                yield first, second


def _widest_triangulation(points: Sequence[Points]) -> list[tuple[int, int, int]]:
    """The division of a polygon into triangles with the largest total area."""

    def area(triangle: tuple[int, int, int]) -> float:
        a, b, c = (points[i] for i in triangle)
        return float(np.linalg.norm(np.cross(b - a, c - a))) / 2

    def divisions(first: int, last: int) -> Iterator[list[tuple[int, int, int]]]:
        if last - first < 2:
            yield []
            return
        for middle in range(first + 1, last):
            for left in divisions(first, middle):
                for right in divisions(middle, last):
                    yield [*left, *right, (first, middle, last)]

    return max(divisions(0, len(points) - 1), key=lambda ts: sum(map(area, ts)))
