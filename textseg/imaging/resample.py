"""Linear resampling of 3D arrays: one small banded matrix per axis, or a general affine.

A separable resampling is three matrix products. Each matrix has a few non-zero columns per row, so
rows are applied in blocks that read only the columns they need; the data are never permuted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

_ROWS_PER_BLOCK = 64
_SAMPLES_PER_BLOCK = 1_000_000


def linear_weights(centres: FloatArray, num_input: int, *, width: float = 1.0) -> Tensor:
    """Weights (outputs, inputs) of a triangle filter around each output's position.

    Args:
        centres: Position of each output in input indices; positions outside read the edge voxel.
        num_input: Number of input voxels.
        width: Half-width of the triangle in input voxels. 1 is linear interpolation; the ratio of
            the spacings averages the voxels that merge, so fine detail does not alias.

    >>> linear_weights(np.array([0.25, 2.0, 9.0]), 3).tolist()
    [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    >>> linear_weights(np.array([1.0]), 3, width=2.0).tolist()
    [[0.25, 0.5, 0.25]]
    """
    clamped = np.clip(centres, 0.0, num_input - 1.0)
    distance = np.abs(clamped[:, None] - np.arange(num_input))
    weights = np.maximum(0.0, 1.0 - distance / max(1.0, width))
    weights /= weights.sum(axis=1, keepdims=True)
    return torch.from_numpy(weights.astype(np.float32))


def apply_along(data: Tensor, axis: int, weights: Tensor) -> Tensor:
    """``data`` (contiguous) with one axis replaced by its weighted sums, float32."""
    before = data.shape[:axis].numel()
    after = data.shape[axis + 1 :].numel()
    blocks = data.reshape(before, data.shape[axis], after)  # P N Q
    result = torch.empty((before, weights.shape[0], after), dtype=torch.float32, device=data.device)
    weights = weights.to(data.device)
    for rows, columns in _bands(weights):
        part = weights[rows, columns]
        source = blocks[:, columns].to(torch.float32)
        if after == 1:
            result[:, rows, 0] = source[..., 0] @ part.mT
        elif before == 1:
            torch.mm(part, source[0], out=result[0, rows])
        else:
            result[:, rows] = torch.bmm(part.expand(before, -1, -1), source)
    return result.reshape(*data.shape[:axis], weights.shape[0], *data.shape[axis + 1 :])


def _bands(weights: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows, each with the range of columns that any of its rows uses."""
    for start in range(0, weights.shape[0], _ROWS_PER_BLOCK):
        rows = slice(start, min(start + _ROWS_PER_BLOCK, weights.shape[0]))
        used = weights[rows].any(dim=0).nonzero()
        yield rows, slice(int(used[0]), int(used[-1]) + 1)


def sample_affine(
    data: Tensor, *, to_input: FloatArray, shape: tuple[int, int, int], fill: float | None
) -> Tensor:
    """Linear samples of ``data`` (X Y Z) on another grid.

    Args:
        data: float32 volume.
        to_input: 4x4, output voxel indices to input voxel indices.
        shape: Output shape.
        fill: Value outside the input; None repeats the edge voxels.
    """
    offset = 0.0 if fill is None else fill
    shifted = (data - offset)[None, None]
    steps, origin = _normalised_steps(to_input, data.shape)
    axes = [
        (torch.arange(size, dtype=torch.float64)[:, None] * step).to(data)
        for size, step in zip(shape, steps, strict=True)
    ]
    first = axes[0] + origin.to(data)
    plane = axes[1][:, None] + axes[2]  # Y Z 3
    result = torch.empty(shape, dtype=data.dtype, device=data.device)
    depth = max(1, _SAMPLES_PER_BLOCK // (shape[1] * shape[2]))
    for start in range(0, shape[0], depth):
        rows = slice(start, start + depth)
        sampled = functional.grid_sample(
            shifted,
            (first[rows, None, None] + plane)[None],  # 1 X Y Z 3
            mode="bilinear",
            padding_mode="border" if fill is None else "zeros",
            align_corners=False,
        )
        result[rows] = sampled[0, 0]
    return result + offset


def _normalised_steps(to_input: FloatArray, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One row per output axis, and the origin, in the coordinates ``grid_sample`` wants.

    Those run from -1 to 1 across the outer voxel edges, innermost axis first.
    """
    matrix = torch.from_numpy(np.array(to_input, dtype=np.float64))
    extents = torch.tensor(tuple(sizes), dtype=torch.float64)
    steps = (2.0 * matrix[:3, :3] / extents[:, None]).mT
    origin = (2.0 * matrix[:3, 3] + 1.0) / extents - 1.0
    return steps.flip(-1), origin.flip(-1)
