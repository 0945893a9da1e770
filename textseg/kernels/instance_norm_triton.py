"""``instance_norm_act`` as two Triton kernels: moments by chunks of voxels, then the result.

Imported only by a caller that asked for it, because Triton is not installed everywhere.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from textseg.kernels.backends import on_device_of

# Chunks of voxels depend on the sizes alone, so a map gives the same bits whatever the device's
# number of processors is. Not yet tuned on a device.
_MOST_CHUNKS = 256
_MOST_CHANNELS = 64
_ELEMENTS = 4096
_NUM_WARPS = 8


@triton.jit
def _moments_kernel(
    x_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    square_ptr: tl.tensor,
    N: tl.tensor,
    C: tl.tensor,
    chunks: tl.tensor,
    tiles: tl.tensor,
    x_stride_b: tl.tensor,
    x_stride_n: tl.tensor,
    x_stride_c: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Writes the mean of one chunk of one map, and the sum of squared distances from it.

    A chunk is ``tiles`` tiles of ``BLOCK_N`` voxels; one program takes ``BLOCK_C`` channels of it.
    Sums run about the mean of the chunk's first tile, so a large mean costs no digits. The order is
    fixed and there are no atomics: the result is the same in every run.
    """
    chunk = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.program_id(2).to(tl.int64)
    is_channel = channel < C
    columns_ptr = x_ptr + b * x_stride_b + channel[None, :] * x_stride_c

    first = chunk * tiles * BLOCK_N
    voxel = first + tl.arange(0, BLOCK_N)
    mask = (voxel < N)[:, None] & is_channel[None, :]
    value = tl.load(columns_ptr + voxel[:, None] * x_stride_n, mask=mask, other=0.0)  # N C
    pivot = tl.sum(value.to(tl.float32), axis=0) / tl.minimum(N - first, BLOCK_N).to(tl.float32)

    total = tl.zeros((BLOCK_N, BLOCK_C), dtype=tl.float32)
    total_square = tl.zeros((BLOCK_N, BLOCK_C), dtype=tl.float32)
    for tile in range(tiles):
        voxel = first + tile * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = (voxel < N)[:, None] & is_channel[None, :]
        value = tl.load(columns_ptr + voxel[:, None] * x_stride_n, mask=mask, other=0.0)
        distance = tl.where(mask, value.to(tl.float32) - pivot[None, :], 0.0)
        total += distance
        total_square += distance * distance
    count = tl.minimum(N - first, tiles * BLOCK_N).to(tl.float32)
    offset = tl.sum(total, axis=0) / count
    square = tl.maximum(tl.sum(total_square, axis=0) - count * offset * offset, 0.0)
    place = (b * chunks + chunk) * C + channel
    tl.store(mean_ptr + place, pivot + offset, mask=is_channel)
    tl.store(square_ptr + place, square, mask=is_channel)


@triton.jit
def _normalise_kernel(
    out_ptr: tl.tensor,
    x_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    square_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    N: tl.tensor,
    C: tl.tensor,
    chunks: tl.tensor,
    tiles: tl.tensor,
    eps: tl.tensor,
    slope: tl.tensor,
    out_stride_b: tl.tensor,
    out_stride_n: tl.tensor,
    out_stride_c: tl.tensor,
    x_stride_b: tl.tensor,
    x_stride_n: tl.tensor,
    x_stride_c: tl.tensor,
    weight_stride: tl.tensor,
    bias_stride: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
) -> None:
    """Writes one chunk of one map, chunks as in the first pass.

    ``out = act((x - mean) / sqrt(variance + eps) * weight + bias)``

    Every program merges the moments of all chunks of its map in the same order, so all use the same
    bits. Each element belongs to one program, which reads it before it writes it: ``out`` may be
    ``x``.
    """
    chunk = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.program_id(2).to(tl.int64)
    is_channel = channel < C

    part = tl.arange(0, CHUNKS).to(tl.int64)
    is_part = (part < chunks)[:, None] & is_channel[None, :]
    place = (b * chunks + part)[:, None] * C + channel[None, :]
    means = tl.load(mean_ptr + place, mask=is_part, other=0.0)  # CHUNKS C
    squares = tl.load(square_ptr + place, mask=is_part, other=0.0)
    size = tiles * BLOCK_N
    counts = tl.minimum(tl.maximum(N - part * size, 0), size).to(tl.float32)[:, None]
    pivot = tl.load(mean_ptr + b * chunks * C + channel, mask=is_channel, other=0.0)
    mean = pivot + tl.sum(counts * (means - pivot[None, :]), axis=0) / N
    distance = tl.where(is_part, means - mean[None, :], 0.0)
    variance = tl.sum(squares + counts * distance * distance, axis=0) / N

    weight = tl.load(weight_ptr + channel * weight_stride, mask=is_channel, other=0.0)
    bias = tl.load(bias_ptr + channel * bias_stride, mask=is_channel, other=0.0).to(tl.float32)
    scale = weight.to(tl.float32) * tl.rsqrt(variance + eps)
    for tile in range(tiles):
        voxel = (chunk * tiles + tile) * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = (voxel < N)[:, None] & is_channel[None, :]
        from_ptrs = x_ptr + b * x_stride_b + voxel[:, None] * x_stride_n
        value = tl.load(from_ptrs + channel[None, :] * x_stride_c, mask=mask, other=0.0)
        scaled = (value.to(tl.float32) - mean[None, :]) * scale[None, :] + bias[None, :]
        activated = tl.where(scaled > 0, scaled, scaled * slope)
        to_ptrs = out_ptr + b * out_stride_b + voxel[:, None] * out_stride_n
        tl.store(
            to_ptrs + channel[None, :] * out_stride_c,
            activated.to(out_ptr.dtype.element_ty),
            mask=mask,
        )


def instance_norm_act_triton(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, slope: float
) -> Tensor:
    """Fills ``out`` and returns it; see ``instance_norm_act``.

    A map in which X Y Z do not lie as one axis is copied first.

    Args:
        out: B C X Y Z, any strides, what it holds is overwritten; may be ``x``.
        x: B C X Y Z, any floating type, any strides.
        weight: C.
        bias: C.
        eps: Added to the variance.
        slope: Factor of negative results.
    """
    rows, target = _rows(x), _rows(out)
    b, n, c = rows.shape
    if x.numel() == 0:
        return out
    block_c = min(_MOST_CHANNELS, triton.next_power_of_2(c))
    block_n = _ELEMENTS // block_c
    tiles = triton.cdiv(triton.cdiv(n, block_n), _MOST_CHUNKS)
    chunks = triton.cdiv(n, tiles * block_n)
    programs = (chunks, triton.cdiv(c, block_c), b)
    moments = torch.empty((2, b, chunks, c), dtype=torch.float32, device=x.device)
    sizes = (n, c, chunks, tiles)
    settings = {
        "BLOCK_N": block_n,
        "BLOCK_C": block_c,
        "num_warps": _NUM_WARPS,
        "enable_fp_fusion": True,  # Triton warns where this is left open
    }
    with on_device_of(x):
        _moments_kernel[programs](rows, *moments, *sizes, *rows.stride(), **settings)
        _normalise_kernel[programs](
            target,
            rows,
            *moments,
            weight,
            bias,
            *sizes,
            eps,
            slope,
            *target.stride(),
            *rows.stride(),
            weight.stride(0),
            bias.stride(0),
            CHUNKS=triton.next_power_of_2(chunks),
            **settings,
        )
    if target.data_ptr() != out.data_ptr():
        out.copy_(target.view(b, *x.shape[2:], c).permute(0, 4, 1, 2, 3))
    return out


def _rows(x: Tensor) -> Tensor:
    """The map as B N C: a view where X Y Z lie as one axis, else a copy."""
    return x.permute(0, 2, 3, 4, 1).reshape(x.shape[0], x.shape[2:].numel(), x.shape[1])
