"""``restore`` as one Triton kernel: bytes of the mask are all that is written.

Imported only by a caller that asked for it, because Triton is not installed everywhere.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from textseg.kernels.backends import on_device_of

# A tile is one row of bytes in most scans; 8 voxels a thread with 4 warps. Not yet tuned on a
# device.
_BYTES = 128
_MOST_BYTES_A_ROW = 64


@triton.jit
def _axis(place_ptr: tl.tensor, index: tl.tensor, mask: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Lower neighbour and the upper one's weight; places far outside have no neighbour at all."""
    place = tl.load(place_ptr + index, mask=mask, other=-2.0)
    low = tl.floor(place)
    return tl.maximum(low, -2.0).to(tl.int64), (place - low).to(tl.float32)


@triton.jit
def _line(
    line_ptr: tl.tensor,
    stride: tl.tensor,
    low: tl.tensor,
    fraction: tl.tensor,
    Z: tl.tensor,
    mask: tl.tensor,
) -> tl.tensor:
    """Interpolates along z on the lines that start at ``line_ptr``, zero outside."""
    before_mask = mask & (low >= 0) & (low < Z)
    after_mask = mask & (low >= -1) & (low < Z - 1)
    before = tl.load(line_ptr + low * stride, mask=before_mask, other=0).to(tl.float32)
    after = tl.load(line_ptr + (low + 1) * stride, mask=after_mask, other=0).to(tl.float32)
    return before + fraction * (after - before)


@triton.jit
def _restore_kernel(
    bits_ptr: tl.tensor,
    probability_ptr: tl.tensor,
    place_x_ptr: tl.tensor,
    place_y_ptr: tl.tensor,
    place_z_ptr: tl.tensor,
    level: tl.tensor,
    X: tl.tensor,
    Y: tl.tensor,
    Z: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    num_bytes: tl.tensor,
    bits_stride_x: tl.tensor,
    bits_stride_y: tl.tensor,
    probability_stride_x: tl.tensor,
    probability_stride_y: tl.tensor,
    probability_stride_z: tl.tensor,
    BLOCK_Y: tl.constexpr,
    BLOCK_B: tl.constexpr,
) -> None:
    """Writes one tile of whole bytes in one plane.

    ``bit = interpolated(probability, places) > level``

    Neighbouring tiles read the same few working voxels, which the cache holds. Each byte belongs to
    one program: the result is the same in every run.
    """
    num_row_tiles = tl.cdiv(rows, BLOCK_Y)
    num_byte_tiles = tl.cdiv(num_bytes, BLOCK_B)
    tile = tl.program_id(0).to(tl.int64)
    byte = tile % num_byte_tiles * BLOCK_B + tl.arange(0, BLOCK_B)
    row = tile // num_byte_tiles % num_row_tiles * BLOCK_Y + tl.arange(0, BLOCK_Y)
    plane = tile // num_byte_tiles // num_row_tiles

    column = byte[:, None] * 8 + tl.arange(0, 8)[None, :]  # B 8
    planes = tl.full((1, 1, 1), plane, tl.int64)
    x, fraction_x = _axis(place_x_ptr, planes, planes >= 0)
    y, fraction_y = _axis(place_y_ptr, row[:, None, None], row[:, None, None] < rows)
    z, fraction_z = _axis(place_z_ptr, column[None, :, :], column[None, :, :] < columns)

    value = tl.zeros((BLOCK_Y, BLOCK_B, 8), dtype=tl.float32)
    for side_x in tl.static_range(2):
        is_x = (x + side_x >= 0) & (x + side_x < X)
        plane_ptr = probability_ptr + (x + side_x) * probability_stride_x
        first = _line(
            plane_ptr + y * probability_stride_y,
            probability_stride_z,
            z,
            fraction_z,
            Z,
            is_x & (y >= 0) & (y < Y),
        )
        second = _line(
            plane_ptr + (y + 1) * probability_stride_y,
            probability_stride_z,
            z,
            fraction_z,
            Z,
            is_x & (y >= -1) & (y < Y - 1),
        )
        across = first + fraction_y * (second - first)
        value = across if side_x == 0 else value + fraction_x * (across - value)

    is_bit = (value > level) & (column[None, :, :] < columns)
    packed = tl.sum(is_bit.to(tl.int32) << (7 - tl.arange(0, 8))[None, None, :], axis=2)  # Y B
    tl.store(
        bits_ptr + plane * bits_stride_x + row[:, None] * bits_stride_y + byte[None, :],
        packed.to(tl.uint8),
        mask=(row < rows)[:, None] & (byte < num_bytes)[None, :],
    )


def restore_triton(
    bits: Tensor, probability: Tensor, *, places: tuple[Tensor, Tensor, Tensor], level: float
) -> Tensor:
    """Fills ``bits`` and returns it; see ``restore``.

    Args:
        bits: uint8 X Y ceil(Z / 8), bytes of a row side by side; what it holds is overwritten.
        probability: X Y Z, uint8 or floating, any strides.
        places: float32 or float64, one vector per axis, on any device.
        level: What a value has to exceed.
    """
    planes, rows, num_bytes = bits.shape
    block_b = min(_MOST_BYTES_A_ROW, triton.next_power_of_2(max(1, num_bytes)))
    block_y = _BYTES // block_b
    programs = planes * triton.cdiv(rows, block_y) * triton.cdiv(num_bytes, block_b)
    if programs == 0:
        return bits
    with on_device_of(probability):
        _restore_kernel[(programs,)](
            bits,
            probability,
            *(place.to(probability.device).contiguous() for place in places),
            level,
            *probability.shape,
            rows,
            len(places[2]),
            num_bytes,
            *bits.stride()[:2],
            *probability.stride(),
            BLOCK_Y=block_y,
            BLOCK_B=block_b,
            enable_fp_fusion=True,  # Triton warns where this is left open
        )
    return bits
