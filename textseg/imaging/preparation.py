"""What a network is given of a scan: prepared as textseg does, or as the scans SAT learned from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from textseg.errors import InputError
from textseg.imaging.grid import Grid, GridTransform, to_grid
from textseg.imaging.intensity import body_mask, normalise_intensity
from textseg.imaging.volume import Modality, Volume
from textseg.kernels.restore import bounding_box

Preparation: TypeAlias = Literal["textseg", "sat"]

_SAT_RANGE_HU = (-500.0, 1000.0)
_SAT_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as a network takes it.

    Attributes:
        data: ``C X Y Z`` network input; voxels beyond the transform's shape are padding, and a
            channel that the scan lacks is NaN throughout.
        transform: From its voxels back to the scan's.
        body: ``X Y Z`` bool, where the patient may be; None for everywhere.
    """

    data: Tensor
    transform: GridTransform
    body: Tensor | None


def prepare(
    volume: Volume,
    grid: Grid,
    *,
    how: Preparation,
    window: tuple[int, int, int] = (1, 1, 1),
    device: str | torch.device = "cpu",
) -> Prepared:
    """The scan on a working grid, in the range of intensities that the network learned.

    Each channel is scaled by itself; the body is where any of those that are there shows one.

    Args:
        volume: The scan.
        grid: The working grid.
        how: ``textseg``: see ``normalise_intensity`` and ``body_mask``. ``sat``: sampled at points
            from the scan's first voxel on, cut to the box of voxels above 0, see ``standardise``;
            short axes are padded with 0 at their end.
        window: Least voxels of ``sat``.
        device: Where the result lies.

    Raises:
        InputError: ``sat``, and no voxel is above 0 (E300).
    """
    if how == "sat":
        grid = replace(grid, aligned="first")
    data, transform = to_grid(volume, grid, device=device)
    there = ~data[:, 0, 0, 0].isnan()
    if not bool(there.all()):
        data = data[there]
    if how == "textseg":
        body = body_mask(data, volume.modality)
        scaled = normalise_intensity(data, volume.modality)
        return Prepared(_among_missing(scaled, there), transform, body)
    box = bounding_box((data > 0).any(dim=0))
    if box is None:
        raise InputError(
            "no voxel is above 0, where scans are cut to what is.",
            path=volume.source.path,
            remedy="Check that CT is in Hounsfield units, or use another model.",
        )
    cut = standardise(data[:, *box].contiguous(), volume.modality)
    missing = [max(0, w - n) for w, n in zip(window, cut.shape[1:], strict=True)]
    padding = [pad for n in reversed(missing) for pad in (0, n)]
    padded = functional.pad(cut, padding)
    return Prepared(_among_missing(padded, there), transform.cropped(box), None)


def _among_missing(data: Tensor, there: Tensor) -> Tensor:
    """The channels that are there in their places among all, of which the others are NaN."""
    if len(data) == len(there):
        return data
    whole = data.new_full((len(there), *data.shape[1:]), float("nan"))
    whole[there] = data
    return whole


def standardise(data: Tensor, modality: Modality | None) -> Tensor:
    """Intensities of mean 0 and deviation 1 after clipping; float32, same shape.

    CT is clipped to -500..1000 HU, anything else to its 0.5 and 99.5 percentiles, each channel by
    itself (Zhao et al. 2023, SAT).

    >>> standardise(torch.tensor([[[[-9000.0, 1000.0]]]]), "ct").tolist()
    [[[[-1.0, 1.0]]]]
    """
    return torch.stack([_standardised(channel, modality) for channel in data])


def _standardised(channel: Tensor, modality: Modality | None) -> Tensor:
    low, high = _SAT_RANGE_HU if modality == "ct" else _percentiles(channel)
    # sums of many millions of float32 drift
    clipped = channel.clamp(low, high).double()
    mean, deviation = clipped.mean(), clipped.std(correction=0)
    if deviation == 0:
        return torch.zeros_like(channel)
    return ((clipped - mean) / deviation).float()


def _percentiles(channel: Tensor) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles, interpolated as numpy does."""
    values = channel.flatten().sort().values
    low, high = (
        _interpolated(values, share / 100 * (len(values) - 1)) for share in _SAT_PERCENTILES
    )
    return low, high


def _interpolated(values: Tensor, rank: float) -> float:
    below = int(rank)
    first, second = (float(values[min(i, len(values) - 1)]) for i in (below, below + 1))
    return first + (second - first) * (rank - below)
