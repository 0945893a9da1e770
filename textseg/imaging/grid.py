"""From the scan's own voxels to the model's working grid, and back again.

The working grid has the model's spacing and axes that run closest to right, anterior, superior.
Nothing is rotated: an oblique scan stays oblique, its axes are only permuted and flipped, so both
directions are separable and a mask comes back on exactly the voxels it was computed from. Only a
scan whose axes are not at right angles takes the general path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textseg.imaging import affine as affines
from textseg.imaging.resample import apply_along, linear_weights, sample_affine
from textseg.imaging.volume import Geometry, Volume
from textseg.kernels.restore import Box, bounding_box, restore

if TYPE_CHECKING:
    from collections.abc import Sequence

Affine: TypeAlias = npt.NDArray[np.float64]
Aligned: TypeAlias = Literal["centre", "first"]
Mask: TypeAlias = npt.NDArray[np.bool_]

_SLAB_VOXELS = 4_000_000
_SAME_VOXEL = 1e-3


@dataclass(frozen=True)
class Grid:
    """A working grid.

    Attributes:
        spacing_mm: Voxel size along each axis.
        axes: World direction that each axis runs closest to.
        aligned: ``centre`` covers the scan's field of view and averages where the grid is coarser;
            ``first`` puts the first voxel on the scan's first and samples at points, as MONAI's
            ``Spacing`` does.
    """

    spacing_mm: tuple[float, float, float]
    axes: str = "RAS"
    aligned: Aligned = "centre"


@dataclass(frozen=True, eq=False)
class GridTransform:
    """How a scan's grid and a working grid correspond; built by ``to_grid``.

    Attributes:
        source: The scan's own geometry.
        target: The whole working grid.
        permutation: The source axis behind each target axis.
        flips: Whether that source axis runs the other way.
        sheared: The source axes are not at right angles, so the correspondence is a full affine.
        aligned: Which voxels of the two grids coincide; see ``Grid``.
        crop: The part of the working grid that is segmented; the rest belongs to no mask.
    """

    source: Geometry
    target: Geometry
    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    sheared: bool
    aligned: Aligned = "centre"
    crop: Box | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the working grid that are segmented."""
        if self.crop is None:
            return self.target.shape
        x, y, z = (part.stop - part.start for part in self.crop)
        return x, y, z

    def cropped(self, box: Box) -> GridTransform:
        """The same correspondence for a part of what is segmented, in its voxels."""
        if self.crop is None:
            return replace(self, crop=box)
        x, y, z = (
            slice(whole.start + part.start, whole.start + part.stop)
            for whole, part in zip(self.crop, box, strict=True)
        )
        return replace(self, crop=(x, y, z))

    def restore(self, probability: Tensor, *, threshold: float = 0.5) -> Mask:
        """The mask on the scan's own voxels, in the scan's own axis order.

        Probabilities are interpolated linearly, then compared, plane by plane: no float volume of
        the scan's size exists.

        Args:
            probability: Working-grid ``X Y Z``, of ``shape``; uint8 0..255 or floating 0..1.
            threshold: A voxel belongs to the mask if its probability is above this.

        Returns:
            bool ``X0 Y0 Z0`` (Fortran order, as image files store it).
        """
        if tuple(probability.shape) != self.shape:
            raise ValueError(
                f"probability has shape {tuple(probability.shape)}, "
                f"but the working grid is {self.shape}"
            )
        level = threshold if probability.is_floating_point() else threshold * 255.0
        restored = _restore_sheared if self.sheared else _restore_separable
        return restored(self, probability, level=level)


def to_grid(
    volume: Volume, grid: Grid, *, device: str | torch.device = "cpu"
) -> tuple[Tensor, GridTransform]:
    """The volume on a working grid, and the transform that brings masks back.

    Same field of view, same centre; averaging (triangle filter) where the grid is coarser.

    Returns:
        float32 ``C X Y Z`` on ``device``, and its ``GridTransform``.
    """
    transform = plan_grid(volume.geometry, grid)
    data = torch.from_numpy(volume.data).to(device)
    resample = _resample_sheared if transform.sheared else _resample_separable
    # each channel stands alone, so only one is in flight
    channels = [resample(channel, transform) for channel in data]
    stacked = channels[0][None] if len(channels) == 1 else torch.stack(channels)
    return stacked, transform  # C X Y Z


def ras_spacing_mm(geometry: Geometry) -> tuple[float, float, float]:
    """Voxel size along the axes nearest to X Y Z of RAS."""
    permutation, _ = affines.closest_axes(geometry.affine)
    x, y, z = (geometry.spacing_mm[axis] for axis in permutation)
    return x, y, z


def plan_grid(source: Geometry, grid: Grid) -> GridTransform:
    """The correspondence between a scan's geometry and a working grid.

    >>> source = Geometry((10, 20, 8), np.diag([-1.0, -1.5, 2.5, 1.0]))
    >>> plan = plan_grid(source, Grid((3.0, 3.0, 3.0)))
    >>> plan.target.shape, plan.target.orientation, plan.flips
    ((3, 10, 7), 'RAS', (True, True, False))
    >>> plan.target.to_world(np.array([[1.0, 4.5, 3.0]])).tolist()
    [[-4.5, -14.25, 8.75]]
    >>> source.to_world(np.array([[4.5, 9.5, 3.5]])).tolist()
    [[-4.5, -14.25, 8.75]]
    """
    permutation, flips = affines.closest_axes(source.affine, grid.axes)
    turned = Geometry(
        _permuted(source.shape, permutation),
        affines.reorient(source.affine, source.shape, permutation=permutation, flips=flips),
    )
    if affines.shear_rad(source.affine) > affines.MAX_SNAPPED_SHEAR_RAD:
        target = _enclosing_target(turned, grid.spacing_mm)
        return GridTransform(source, target, permutation, flips, sheared=True)
    placed = _centred_target if grid.aligned == "centre" else _first_target
    target = placed(turned, grid.spacing_mm)
    return GridTransform(source, target, permutation, flips, sheared=False, aligned=grid.aligned)


def _permuted(sizes: Sequence[int], permutation: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (sizes[axis] for axis in permutation)
    return x, y, z


def _centred_target(turned: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The working grid around the same centre; rounding shear is snapped to right angles."""
    extent = np.array(turned.shape) * turned.spacing_mm
    shape = [max(1, round(size / step)) for size, step in zip(extent, spacing_mm, strict=True)]
    middle = (np.array(turned.shape) - 1.0) / 2.0
    return _placed(turned, shape, spacing_mm, centre=turned.to_world(middle[None])[0])


def _first_target(turned: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The working grid whose first voxel is the first voxel, up to the last one or thereabouts."""
    steps = np.asarray(spacing_mm) / turned.spacing_mm
    shape = np.round((np.array(turned.shape) - 1.0) / steps + 1.0).astype(int)
    middle = (shape - 1.0) / 2.0 * steps
    return _placed(turned, shape.tolist(), spacing_mm, centre=turned.to_world(middle[None])[0])


def _enclosing_target(turned: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The smallest right-angled working grid that holds every voxel of a sheared one."""
    edges = [(-0.5, size - 0.5) for size in turned.shape]
    corners = turned.to_world(np.array(list(product(*edges)))) @ affines.directions(turned.affine)
    low, high = corners.min(axis=0), corners.max(axis=0)
    shape = [max(1, int(np.ceil(size))) for size in (high - low) / spacing_mm]
    centre = affines.directions(turned.affine) @ ((low + high) / 2.0)
    return _placed(turned, shape, spacing_mm, centre=centre)


def _placed(
    turned: Geometry, shape: Sequence[int], spacing_mm: Sequence[float], *, centre: Affine
) -> Geometry:
    """A right-angled grid along the given geometry's directions, centred on a world point."""
    matrix = np.eye(4)
    matrix[:3, :3] = affines.directions(turned.affine) * np.asarray(spacing_mm)
    matrix[:3, 3] = centre - matrix[:3, :3] @ ((np.array(shape) - 1.0) / 2.0)
    x, y, z = shape
    return Geometry((x, y, z), matrix)


def _resample_separable(data: Tensor, transform: GridTransform) -> Tensor:
    """One channel on the working grid; axes are visited in memory order, never copied about."""
    strides = data.stride()
    memory = sorted(range(3), key=lambda axis: strides[axis], reverse=True)
    stored = data.permute(memory).contiguous()
    weights = [_forward_weights(transform, target) for target in range(3)]
    # the axis that shrinks most goes first, so that the others have least to do
    for target in sorted(range(3), key=lambda target: _growth(weights[target])):
        axis_weights = weights[target]
        if axis_weights is not None:
            axis = memory.index(transform.permutation[target])
            stored = apply_along(stored, axis, axis_weights)
    turned = stored.permute([memory.index(axis) for axis in transform.permutation])
    left_to_flip = [axis for axis in range(3) if transform.flips[axis] and weights[axis] is None]
    return turned.flip(left_to_flip).contiguous()  # X Y Z


def _growth(weights: Tensor | None) -> float:
    """How many values an axis has after its weights for each one before."""
    return 1.0 if weights is None else weights.shape[0] / weights.shape[1]


def _forward_weights(transform: GridTransform, target: int) -> Tensor | None:
    """Weights (working, scan) along one target axis with its flip; None where voxels coincide."""
    num_source, num_target, ratio = _sizes(transform, target)
    if _coincide(num_source, num_target, ratio):
        return None
    here, there = _anchors(transform, target)
    centres = here + (np.arange(num_target) - there) * ratio
    width = ratio if transform.aligned == "centre" else 1.0
    weights = linear_weights(centres, num_source, width=width)
    return weights.flip(1) if transform.flips[target] else weights


def _backward_places(transform: GridTransform, source: int) -> Tensor:
    """Where the scan's voxels along one of its axes lie, in working voxels that are segmented.

    Beyond the wall of the working grid its last voxels go on.
    """
    target = transform.permutation.index(source)
    num_source, num_target, ratio = _sizes(transform, target)
    places = np.arange(num_source, dtype=np.float64)
    if not _coincide(num_source, num_target, ratio):
        here, there = _anchors(transform, target)
        places = np.clip(there + (places - here) / ratio, 0.0, num_target - 1.0)
    if transform.crop is not None:
        places -= transform.crop[target].start
    return torch.from_numpy(places[::-1].copy() if transform.flips[target] else places)


def _anchors(transform: GridTransform, target: int) -> tuple[float, float]:
    """The scan voxel and the working voxel in the same place along one target axis."""
    if transform.aligned == "first":
        return 0.0, 0.0
    num_source, num_target, _ = _sizes(transform, target)
    return (num_source - 1.0) / 2.0, (num_target - 1.0) / 2.0


def _sizes(transform: GridTransform, target: int) -> tuple[int, int, float]:
    """Scan voxels, working voxels, and scan voxels per working voxel along one target axis."""
    source = transform.permutation[target]
    ratio = transform.target.spacing_mm[target] / transform.source.spacing_mm[source]
    return transform.source.shape[source], transform.target.shape[target], ratio


def _coincide(num_source: int, num_target: int, ratio: float) -> bool:
    """Whether both grids put every voxel of this axis in the same place, but for rounding."""
    return num_source == num_target and abs(ratio - 1.0) * num_source / 2.0 < _SAME_VOXEL


def _restore_separable(transform: GridTransform, probability: Tensor, *, level: float) -> Mask:
    """The mask where each scan axis runs along one of the working grid's."""
    axes = (2, 1, 0)  # Z0 Y0 X0, as image files store voxels
    z, y, x = (_backward_places(transform, axis) for axis in axes)
    order = [transform.permutation.index(axis) for axis in axes]
    bits = restore(probability.permute(order), places=(z, y, x), level=level)
    count = transform.source.shape[0]
    storage = np.unpackbits(bits.cpu().numpy(), axis=-1, count=count).view(np.bool_)
    return storage.transpose(2, 1, 0)


def _resample_sheared(data: Tensor, transform: GridTransform) -> Tensor:
    """One channel on the working grid: average along the scan's own axes, then straighten."""
    spacing = transform.target.spacing_mm
    turned = Geometry(
        _permuted(transform.source.shape, transform.permutation),
        affines.reorient(
            transform.source.affine,
            transform.source.shape,
            permutation=transform.permutation,
            flips=transform.flips,
        ),
    )
    coarse = _centred_target(turned, spacing)
    # same centre and same axes as the scan, but the working spacing
    axes = np.eye(4)
    axes[:3, :3] = turned.affine[:3, :3] / turned.spacing_mm * np.asarray(spacing)
    middle = (np.array(coarse.shape) - 1.0) / 2.0
    axes[:3, 3] = coarse.to_world(middle[None])[0] - axes[:3, :3] @ middle
    stage = GridTransform(
        transform.source,
        Geometry(coarse.shape, axes),
        transform.permutation,
        transform.flips,
        sheared=False,
    )
    averaged = _resample_separable(data, stage)
    return sample_affine(
        averaged,
        to_input=np.linalg.inv(axes) @ transform.target.affine,
        shape=transform.target.shape,
        fill=float(averaged.min()),
    )


def _restore_sheared(transform: GridTransform, probability: Tensor, *, level: float) -> Mask:
    """The mask through the full affine, slab by slab along Z0."""
    out = np.zeros(transform.source.shape, dtype=np.bool_, order="F")
    box = bounding_box(probability, level=level)
    if box is None:
        return out
    values = probability.to(torch.float32)
    if transform.crop is not None:
        cut, values = values, torch.zeros(transform.target.shape, device=values.device)
        values[transform.crop] = cut
        box = bounding_box(values, level=level) or box
    to_working = np.linalg.inv(transform.target.affine) @ transform.source.affine
    x, y, z = _reached(transform, box)
    depth = max(1, _SLAB_VOXELS // ((x.stop - x.start) * (y.stop - y.start)))
    for start in range(z.start, z.stop, depth):
        planes = slice(start, min(z.stop, start + depth))
        corner = np.eye(4)
        corner[:3, 3] = (x.start, y.start, start)
        slab = sample_affine(
            values,
            to_input=to_working @ corner,
            shape=(x.stop - x.start, y.stop - y.start, planes.stop - start),
            fill=None,
        )
        out[x, y, planes] = (slab > level).cpu().numpy()
    return out


def _reached(transform: GridTransform, box: Box) -> Box:
    """The scan voxels that can have a working voxel of the box as a neighbour."""
    # a box at the wall of the working grid also colours everything beyond the wall
    edges = [
        (part.start - 1 if part.start > 0 else -size, part.stop if part.stop < size else 2 * size)
        for part, size in zip(box, transform.target.shape, strict=True)
    ]
    corners = transform.target.to_world(np.array(list(product(*edges)), dtype=np.float64))
    voxels = transform.source.to_voxel(corners)
    low = np.maximum(0, np.floor(voxels.min(axis=0))).astype(int)
    high = np.minimum(transform.source.shape, np.ceil(voxels.max(axis=0)) + 1).astype(int)
    x, y, z = (slice(int(a), max(int(a), int(b))) for a, b in zip(low, high, strict=True))
    return x, y, z
