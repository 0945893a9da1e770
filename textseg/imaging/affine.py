"""Pure questions about 4x4 voxel-to-world matrices: spacing, direction, shear, disagreement."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Affine: TypeAlias = npt.NDArray[np.float64]

MAX_SNAPPED_SHEAR_RAD = 1e-3
"""Shear up to here is rounding of a stored matrix; beyond, the grid really is sheared."""

LPS_TO_RAS: tuple[float, float, float, float] = (-1.0, -1.0, 1.0, 1.0)
"""Row signs between ITK and DICOM (LPS+) and this package (RAS+) world axes."""


def spacing_mm(affine: Affine) -> tuple[float, float, float]:
    """Length of each column.

    >>> spacing_mm(np.array([[0, 3.0, 0, 9], [-4.0, 0, 0, 9], [0, 0, 5.0, 9], [0, 0, 0, 1]]))
    (4.0, 3.0, 5.0)
    """
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def orientation(affine: Affine) -> str:
    """World direction of each array axis as letters.

    >>> orientation(np.array([[0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]]))
    'AIL'
    """
    # nibabel costs 0.1 s to import, which commands that only resolve text should not pay
    from nibabel.orientations import aff2axcodes

    codes = aff2axcodes(affine)  # type: ignore[no-untyped-call]
    return "".join(str(code) for code in codes)


def is_singular(affine: Affine) -> bool:
    """Whether the three axes span no volume (or no finite one).

    >>> is_singular(np.diag([1.0, 2.0, 3.0, 1.0])), is_singular(np.ones((4, 4)))
    (False, True)
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
        return True
    # the determinant of unit columns does not depend on the voxel size
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-4)


def shear_rad(affine: Affine) -> float:
    """Largest deviation from a right angle between two axes.

    >>> shear_rad(np.diag([0.7, 0.7, 5.0, 1.0]))
    0.0
    >>> sheared = np.array([[1, 0.05, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    >>> round(shear_rad(sheared), 3)
    0.05
    """
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = (columns.T @ columns)[np.triu_indices(3, k=1)]
    return float(np.abs(np.arcsin(np.clip(cosines, -1.0, 1.0))).max())


def directions(affine: Affine) -> Affine:
    """The orthonormal 3x3 matrix closest to the affine's unit columns (polar decomposition)."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(columns)
    return np.asarray(left @ right, dtype=np.float64)


def closest_axes(
    affine: Affine, axes: str = "RAS"
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How array axes must be permuted and flipped to run closest to the named directions.

    Args:
        affine: Of the array.
        axes: A letter of R L, A P and S I for each wanted axis.

    Returns:
        The source axis of each of the three target axes, and whether it must be reversed.

    >>> closest_axes(np.array([[0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]]))
    ((2, 0, 1), (True, False, True))
    >>> closest_axes(np.eye(4), "ASR")
    ((1, 2, 0), (False, False, False))
    """
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    targets = ornt_transform(  # type: ignore[no-untyped-call]
        io_orientation(affine),  # type: ignore[no-untyped-call]
        axcodes2ornt(tuple(axes)),  # type: ignore[no-untyped-call]
    )
    order = np.argsort(targets[:, 0])  # one row per source axis
    x, y, z = (int(axis) for axis in order)
    flip_x, flip_y, flip_z = (bool(targets[axis, 1] < 0) for axis in order)
    return (x, y, z), (flip_x, flip_y, flip_z)


def reorient(
    affine: Affine,
    shape: Sequence[int],
    *,
    permutation: Sequence[int],
    flips: Sequence[bool],
) -> Affine:
    """The affine of the same voxels after permuting and flipping their axes."""
    result = np.array(affine, dtype=np.float64)
    for target, (source, flipped) in enumerate(zip(permutation, flips, strict=True)):
        column = affine[:3, source]
        result[:3, target] = -column if flipped else column
        if flipped:
            result[:3, 3] += column * (shape[source] - 1)
    return result


def angle_degrees(first: Affine, second: Affine) -> float:
    """Rotation between two affines' directions, ignoring mirroring.

    >>> turned = np.array([[0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]])
    >>> round(angle_degrees(np.eye(4), turned), 6)
    90.0
    """
    between = directions(first).T @ directions(second)
    if np.linalg.det(between) < 0:
        between = -between
    # the skew part keeps precision for small angles, where arccos of the trace does not
    sine = np.linalg.norm(between - between.T) / np.sqrt(8.0)
    cosine = (np.trace(between) - 1.0) / 2.0
    return float(np.degrees(np.arctan2(sine, cosine)))


def largest_shift_mm(first: Affine, second: Affine, shape: Sequence[int]) -> float:
    """How far apart two affines place the same voxel, at the worst corner of the volume.

    >>> moved = np.diag([1.0, 1.0, 1.5, 1.0])
    >>> largest_shift_mm(np.eye(4), moved, (3, 3, 11))
    5.0
    """
    corners = np.array(list(product(*((0, size - 1) for size in shape))), dtype=np.float64)
    difference: npt.NDArray[Any] = first - second
    shifts = corners @ difference[:3, :3].T + difference[:3, 3]
    return float(np.linalg.norm(shifts, axis=1).max())
