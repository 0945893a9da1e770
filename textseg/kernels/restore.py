"""Brings one prompt's probability to the scan's grid as a bit-packed mask.

With ``i = floor(px[x])``, ``f = px[x] - i`` and likewise for y and z, scan voxel ``x y z`` is::

    value = sum over the 8 neighbours of probability[i + 0|1, j + 0|1, k + 0|1]
            weighted by (1 - f | f) * (1 - g | g) * (1 - h | h), neighbours outside counting as zero
    bit   = value > level

Bits are packed along the last axis, most significant first, as ``numpy.packbits`` does; no float
volume of the scan's size exists. Places outside count as zero because the rest of a cropped grid
belongs to no mask; a caller that wants the edge voxels repeated clamps the places to them.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from textseg.errors import ModelError
from textseg.kernels.backends import Backend, check_backend

Places: TypeAlias = tuple[Tensor, Tensor, Tensor]
Box: TypeAlias = tuple[slice, slice, slice]


def restore_reference(probability: Tensor, *, places: Places, level: float) -> Tensor:
    """The packed mask in plain float32: the specification.

    Args:
        probability: X Y Z, uint8 or floating, axes in the order of the scan's.
        places: One vector per axis of the scan's grid: where its voxels lie, in voxels of
            ``probability``.
        level: What a value has to exceed, in the units of ``probability``.
    """
    values = functional.pad(probability.float(), (2, 2) * 3)  # voxel i is at i + 2
    for axis, place in enumerate(places):
        start = torch.floor(place)
        fraction = (place - start).to(values)
        index = (start.clamp(-2, probability.shape[axis]) + 2).long().to(values.device)
        beside = [-1 if other == axis else 1 for other in range(3)]
        low, high = values.index_select(axis, index), values.index_select(axis, index + 1)
        values = low + fraction.view(beside) * (high - low)
    return _packed(values, level=level)


def restore(
    probability: Tensor, *, places: Places, level: float, backend: Backend = "auto"
) -> Tensor:
    """The mask on the scan's grid: uint8 X Y ceil(Z / 8), most significant bit first.

    Args:
        probability: X Y Z, uint8 or floating, axes in the order of the scan's; any strides, so a
            permuted view is as good.
        places: float32 or float64, one vector per axis of the scan's grid: where its voxels lie, in
            voxels of ``probability``. A flipped axis has falling places.
        level: What a value has to exceed, in the units of ``probability``; 0 or above.
        backend: ``auto`` takes the fastest that is known to be right on the probability's device.

    Raises:
        ModelError: The backend cannot run here or the arguments do not belong together.
    """
    check_backend("restore", backend, probability.device)
    _check(probability, places, level=level)
    x, y, z = map(len, places)
    shape = (x, y, -(-z // 8))
    if backend == "triton":
        from textseg.kernels.restore_triton import restore_triton

        bits = torch.empty(shape, dtype=torch.uint8, device=probability.device)
        return restore_triton(bits, probability, places=places, level=level)
    bits = torch.zeros(shape, dtype=torch.uint8, device=probability.device)
    return _restore_torch(bits, probability, places=places, level=level)


def _check(probability: Tensor, places: Places, *, level: float) -> None:
    """Refuses shapes, types and levels that do not belong together."""
    if probability.ndim != 3 or probability.is_complex():
        raise ModelError(
            f"Cannot restore {probability.dtype} of shape {tuple(probability.shape)}.",
            remedy="Give the X Y Z of one prompt.",
        )
    if len(places) != 3 or any(
        place.ndim != 1 or place.dtype not in (torch.float32, torch.float64) for place in places
    ):
        given = ", ".join(f"{place.dtype} {tuple(place.shape)}" for place in places)
        raise ModelError(
            f"Cannot restore at the places {given}.",
            remedy="Give three vectors of float32 or float64.",
        )
    if not level >= 0:
        raise ModelError(
            f"Cannot restore above the level {level}.",
            remedy="Give 0 or more; what lies outside the probability counts as 0.",
        )


def _restore_torch(bits: Tensor, probability: Tensor, *, places: Places, level: float) -> Tensor:
    """Plane by plane of the scan, where the mask can be; ``bits`` is all zero before.

    Interpolated values never exceed their neighbours, so scan voxels without a neighbour above the
    level cannot be in the mask and are not visited. A working plane is brought to the scan's
    spacing once, for all scan planes beside it.
    """
    box = bounding_box(probability, level=level)
    if box is None:
        return bits
    rows = [
        _span((place > part.start - 1) & (place < part.stop))
        for place, part in zip(places, box, strict=True)
    ]
    if any(part.start == part.stop for part in rows):
        return bits
    whole_bytes = slice(rows[2].start // 8, -(-rows[2].stop // 8))
    rows[2] = slice(8 * whole_bytes.start, 8 * whole_bytes.stop)
    region = _surrounded(probability, box)
    x, y, z = (
        _neighbours(place[part], around, device=region.device)
        for place, part, around in zip(places, rows, box, strict=True)
    )
    pack = _packed_by_numpy if region.device.type == "cpu" else _packed
    planes: dict[int, Tensor] = {}
    value = torch.empty(len(y[0]), len(z[0]), device=region.device)
    for row, low, fraction in zip(
        range(rows[0].start, rows[0].stop), x[0].tolist(), x[1].tolist(), strict=True
    ):
        planes = {
            index: planes[index] if index in planes else _widened(region[index], y, z)
            for index in (low, low + 1)
        }
        torch.lerp(planes[low], planes[low + 1], fraction, out=value)
        bits[row, rows[1], whole_bytes] = pack(value, level=level)
    return bits


def bounding_box(values: Tensor, *, level: float = 0) -> Box | None:
    """The smallest box that holds every voxel above the level; None if there is none.

    Maxima along the axes that are neighbours in memory take a tenth of the time of comparisons.

    Args:
        values: X Y Z, bool, uint8 or floating.
        level: What a value has to exceed.
    """
    if values.numel() == 0:
        return None
    memory = sorted(range(3), key=values.stride, reverse=True)
    stored = values.permute(memory)
    slow = _span(stored.amax(dim=(1, 2)) > level)
    if slow.start == slow.stop:
        return None
    plane = stored[slow].amax(dim=0) > level
    spans = slow, _span(plane.any(dim=1)), _span(plane.any(dim=0))
    x, y, z = (spans[memory.index(axis)] for axis in range(3))
    return x, y, z


def _span(chosen: Tensor) -> slice:
    """From the first True of a vector to the last; of length 0 if there is none."""
    indices = chosen.nonzero()
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def _surrounded(probability: Tensor, box: Box) -> Tensor:
    """The box and the voxels around it, zeros where there are none; contiguous."""
    region = probability.new_zeros([part.stop - part.start + 2 for part in box])
    there = tuple(
        slice(max(0, part.start - 1), min(size, part.stop + 1))
        for part, size in zip(box, probability.shape, strict=True)
    )
    here = tuple(
        slice(known.start - part.start + 1, known.stop - part.start + 1)
        for part, known in zip(box, there, strict=True)
    )
    region[here] = probability[there]
    return region


def _neighbours(place: Tensor, box: slice, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Index of the lower neighbour among the box and what surrounds it, and the upper's weight.

    Nothing beyond what surrounds the box is above the level, so that stands for it.
    """
    inside = place.double().clamp(box.start - 1, box.stop) - (box.start - 1)
    low = inside.floor().clamp(max=box.stop - box.start)
    return low.long().to(device), (inside - low).float().to(device)


def _widened(plane: Tensor, y: tuple[Tensor, Tensor], z: tuple[Tensor, Tensor]) -> Tensor:
    """One working plane, interpolated along both axes: Y Z of the scan."""
    values = plane.float()
    (low_y, fraction_y), (low_z, fraction_z) = y, z
    values = torch.lerp(
        values.index_select(1, low_z), values.index_select(1, low_z + 1), fraction_z
    )
    return torch.lerp(
        values.index_select(0, low_y), values.index_select(0, low_y + 1), fraction_y[:, None]
    )


def _packed(values: Tensor, *, level: float) -> Tensor:
    """Whether each value is above the level: bits along the last axis, most significant first."""
    bits = functional.pad((values > level).to(torch.uint8), (0, -values.shape[-1] % 8))
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=values.device)
    eights = bits.view(*bits.shape[:-1], bits.shape[-1] // 8, 8)
    return (eights << shifts).sum(-1, dtype=torch.uint8)


def _packed_by_numpy(values: Tensor, *, level: float) -> Tensor:
    """The same on a processor, in a fraction of the time."""
    return torch.from_numpy(np.packbits(values.numpy() > np.float32(level), axis=-1))
