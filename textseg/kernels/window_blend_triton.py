"""``window_blend`` as one Triton kernel: logits live in registers only, totals are touched once.

Imported only by a caller that asked for it, because Triton is not installed everywhere.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from textseg.kernels.backends import on_device_of

# One thread per voxel with 4 warps; a row of a tile is 512 bytes of float32 totals. Not yet tuned
# on a device.
_VOXELS = 128
_MOST_PROMPTS = 64
_MOST_CHANNELS = 64
# The smallest side of a matrix product that tensor cores take.
_LEAST = 16


@triton.jit
def _window_blend_kernel(
    total_ptr: tl.tensor,
    features_ptr: tl.tensor,
    vectors_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    wx_ptr: tl.tensor,
    wy_ptr: tl.tensor,
    wz_ptr: tl.tensor,
    K: tl.tensor,
    V: tl.tensor,
    Y: tl.tensor,
    Z: tl.tensor,
    total_stride_k: tl.tensor,
    total_stride_x: tl.tensor,
    total_stride_y: tl.tensor,
    total_stride_z: tl.tensor,
    features_stride_c: tl.tensor,
    features_stride_x: tl.tensor,
    features_stride_y: tl.tensor,
    features_stride_z: tl.tensor,
    vectors_stride_k: tl.tensor,
    vectors_stride_c: tl.tensor,
    wx_stride: tl.tensor,
    wy_stride: tl.tensor,
    wz_stride: tl.tensor,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_V: tl.constexpr,
) -> None:
    """Adds one tile of prompts and voxels to the totals.

    ``total[k, v] += sigmoid(sum_c vectors[k, c] * features[c, v] + bias[k]) * wx * wy * wz``

    Programs that share a tile of voxels are neighbours, so its features come from memory once and
    then from cache. Each element of the totals belongs to one program and there are no atomics:
    the result is the same in every run.
    """
    num_prompt_tiles = tl.cdiv(K, BLOCK_K)
    tile = tl.program_id(0).to(tl.int64)
    prompt = tile % num_prompt_tiles * BLOCK_K + tl.arange(0, BLOCK_K)
    voxel = tile // num_prompt_tiles * BLOCK_V + tl.arange(0, BLOCK_V)
    is_prompt = prompt < K
    is_voxel = voxel < V
    z = voxel % Z
    y = voxel // Z % Y
    x = voxel // Z // Y

    bias = tl.load(bias_ptr + prompt * vectors_stride_k, mask=is_prompt, other=0.0)
    logit = tl.zeros((BLOCK_K, BLOCK_V), dtype=tl.float32) + bias[:, None]
    place = x * features_stride_x + y * features_stride_y + z * features_stride_z
    for first in range(0, C, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C).to(tl.int64)
        is_channel = channel < C
        vector = tl.load(
            vectors_ptr + prompt[:, None] * vectors_stride_k + channel[None, :] * vectors_stride_c,
            mask=is_prompt[:, None] & is_channel[None, :],
            other=0.0,
        )  # K C
        feature = tl.load(
            features_ptr + channel[:, None] * features_stride_c + place[None, :],
            mask=is_channel[:, None] & is_voxel[None, :],
            other=0.0,
        )  # C V
        # Vectors are float32, and rounding them to the features' type would move the masks. Three
        # products in TF32 are as good as one in float32, and totals remain what takes the time.
        logit = tl.dot(vector, feature.to(tl.float32), logit, input_precision="tf32x3")  # K V

    wx = tl.load(wx_ptr + x * wx_stride, mask=is_voxel, other=0.0)
    wy = tl.load(wy_ptr + y * wy_stride, mask=is_voxel, other=0.0)
    wz = tl.load(wz_ptr + z * wz_stride, mask=is_voxel, other=0.0)
    place = x * total_stride_x + y * total_stride_y + z * total_stride_z
    total_ptrs = total_ptr + prompt[:, None] * total_stride_k + place[None, :]
    mask = is_prompt[:, None] & is_voxel[None, :]
    before = tl.load(total_ptrs, mask=mask, other=0.0).to(tl.float32)
    after = before + tl.sigmoid(logit) * (wx * wy * wz)[None, :]
    tl.store(total_ptrs, after.to(total_ptr.dtype.element_ty), mask=mask)


def window_blend_triton(
    total: Tensor, features: Tensor, vectors: Tensor, *, weights: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Adds a window to ``total`` in place and returns ``total``; see ``window_blend``.

    Args:
        total: float16 or float32 K X Y Z; any strides that do not overlap.
        features: float32, float16 or bfloat16 C X Y Z; any strides.
        vectors: float32 K C+1, the bias last; any strides.
        weights: float32, one vector per axis.
    """
    k, x, y, z = total.shape
    c = features.shape[0]
    wx, wy, wz = weights
    prompts = min(_MOST_PROMPTS, max(_LEAST, triton.next_power_of_2(k)))
    channels = min(_MOST_CHANNELS, max(_LEAST, triton.next_power_of_2(c)))
    programs = triton.cdiv(k, prompts) * triton.cdiv(x * y * z, _VOXELS)
    if programs == 0:
        return total
    with on_device_of(total):
        _window_blend_kernel[(programs,)](
            total,
            features,
            vectors,
            vectors[:, c],
            wx,
            wy,
            wz,
            k,
            x * y * z,
            y,
            z,
            *total.stride(),
            *features.stride(),
            *vectors.stride(),
            wx.stride(0),
            wy.stride(0),
            wz.stride(0),
            C=c,
            BLOCK_K=prompts,
            BLOCK_C=channels,
            BLOCK_V=_VOXELS,
            num_warps=4 if prompts < _MOST_PROMPTS else 8,
            enable_fp_fusion=True,  # Triton warns where this is left open
        )
    return total
