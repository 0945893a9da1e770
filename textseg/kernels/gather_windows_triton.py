"""``gather_windows`` as one Triton kernel: each voxel is read once and written once.

Imported only by a caller that asked for it, because Triton is not installed everywhere.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from textseg.kernels.backends import on_device_of

# Elements of a tile, all channels included. Not yet tuned on a device.
_ELEMENTS = 1024


@triton.jit
def _gather_windows_kernel(
    windows_ptr: tl.tensor,
    volume_ptr: tl.tensor,
    starts_ptr: tl.tensor,
    fill_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    shift_ptr: tl.tensor,
    C: tl.tensor,
    X: tl.tensor,
    Y: tl.tensor,
    Z: tl.tensor,
    V: tl.tensor,
    WY: tl.tensor,
    WZ: tl.tensor,
    windows_stride_w: tl.tensor,
    windows_stride_v: tl.tensor,
    volume_stride_c: tl.tensor,
    volume_stride_x: tl.tensor,
    volume_stride_y: tl.tensor,
    volume_stride_z: tl.tensor,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Writes one tile of voxels of one window, all channels.

    ``windows[w, v, c] = (volume[c, starts[w] + v] or fill[c]) * scale[c] + shift[c]``

    Channels are last in the result, so a tile is one run of memory there. Each element belongs to
    one program: the result is the same in every run.
    """
    num_voxel_tiles = tl.cdiv(V, BLOCK_V)
    tile = tl.program_id(0).to(tl.int64)
    window = tile // num_voxel_tiles
    voxel = tile % num_voxel_tiles * BLOCK_V + tl.arange(0, BLOCK_V)
    channel = tl.arange(0, BLOCK_C).to(tl.int64)
    is_voxel = voxel < V
    is_channel = channel < C

    start_ptr = starts_ptr + window * 3
    x = tl.load(start_ptr) + voxel // WZ // WY
    y = tl.load(start_ptr + 1) + voxel // WZ % WY
    z = tl.load(start_ptr + 2) + voxel % WZ
    is_inside = (x >= 0) & (x < X) & (y >= 0) & (y < Y) & (z >= 0) & (z < Z)

    fill = tl.load(fill_ptr + channel, mask=is_channel, other=0.0)
    scale = tl.load(scale_ptr + channel, mask=is_channel, other=0.0)
    shift = tl.load(shift_ptr + channel, mask=is_channel, other=0.0)
    place = x * volume_stride_x + y * volume_stride_y + z * volume_stride_z
    value = tl.load(
        volume_ptr + place[:, None] + channel[None, :] * volume_stride_c,
        mask=(is_voxel & is_inside)[:, None] & is_channel[None, :],
        other=0,
    ).to(tl.float32)  # V C
    value = tl.where(is_inside[:, None], value, fill[None, :])
    value = value * scale[None, :] + shift[None, :]
    tl.store(
        windows_ptr
        + window * windows_stride_w
        + voxel[:, None] * windows_stride_v
        + channel[None, :],
        value.to(windows_ptr.dtype.element_ty),
        mask=is_voxel[:, None] & is_channel[None, :],
    )


def gather_windows_triton(
    windows: Tensor, volume: Tensor, starts: Tensor, *, fill: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    """Fills ``windows`` and returns it; see ``gather_windows``.

    Args:
        windows: W C wx wy wz, channels last in memory; what it holds is overwritten.
        volume: C X Y Z, any real type, any strides, same device.
        starts: int64 W 3, contiguous, same device.
        fill: float32 C, contiguous, same device; so are ``scale`` and ``shift``.
        scale: See ``fill``.
        shift: See ``fill``.
    """
    w, c, wx, wy, wz = windows.shape
    channels = triton.next_power_of_2(max(c, 1))
    voxels = max(1, _ELEMENTS // channels)
    programs = w * triton.cdiv(wx * wy * wz, voxels)
    if programs == 0 or c == 0:
        return windows
    with on_device_of(volume):
        _gather_windows_kernel[(programs,)](
            windows,
            volume,
            starts,
            fill,
            scale,
            shift,
            *volume.shape,
            wx * wy * wz,
            wy,
            wz,
            windows.stride(0),
            windows.stride(4),
            *volume.stride(),
            BLOCK_V=voxels,
            BLOCK_C=channels,
            enable_fp_fusion=True,  # Triton warns where this is left open
        )
    return windows
