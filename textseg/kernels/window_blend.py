"""Adds the masks of one window to running totals: dot product, sigmoid, separable weights, sum.

For prompts ``k`` with mask vectors ``v`` and the voxels ``x y z`` of a window's feature map ``f``::

    logit[k, x, y, z]  = sum_c v[k, c] * f[c, x, y, z] + v[k, C]
    total[k, x, y, z] += sigmoid(logit[k, x, y, z]) * wx[x] * wy[y] * wz[z]

The weights are normalised per axis beforehand, so the total is the answer: nothing is divided later
and no weight volume exists. Logits exist only for a block at a time, so prompts cost no memory but
their totals. Every element is written by one window at a time and summed in float32; the result
does not depend on the number of threads.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from textseg.errors import ModelError
from textseg.kernels.backends import Backend, check_backend

AxisWeights: TypeAlias = tuple[Tensor, Tensor, Tensor]

# One block (4 MiB of float32) stays in the processor's shared cache through its passes. Smaller
# blocks gain nothing and wait at more thread barriers, each of which costs a time slice when other
# processes use the cores.
_CPU_BLOCK = 1 << 20
# Elsewhere each launch costs more than the cache gains, so blocks only bound the scratch (256 MiB).
_DEVICE_BLOCK = 1 << 26


def window_blend_reference(
    total: Tensor, features: Tensor, vectors: Tensor, *, weights: AxisWeights
) -> Tensor:
    """``total`` after the window is added, as a new float32 tensor: the specification.

    Args:
        total: K X Y Z, the sum so far.
        features: C X Y Z, any floating type.
        vectors: K C+1, the bias last.
        weights: One vector per axis, of lengths X, Y and Z.
    """
    wx, wy, wz = (axis.float() for axis in weights)
    weight = wx[:, None, None] * wy[None, :, None] * wz[None, None, :]  # X Y Z
    logits = torch.einsum("kc,cxyz->kxyz", vectors[:, :-1].float(), features.float())
    logits = logits + vectors[:, -1].float()[:, None, None, None]
    return total.float() + torch.sigmoid(logits) * weight


def window_blend(
    total: Tensor,
    features: Tensor,
    vectors: Tensor,
    *,
    weights: AxisWeights,
    backend: Backend = "auto",
) -> Tensor:
    """Adds a window to ``total`` in place and returns ``total``.

    All scratch memory (``scratch_bytes``) is taken before the first element changes, so a caller
    that runs out of memory can try again with fewer prompts.

    Args:
        total: float16 or float32 K X Y Z, usually a view into a larger accumulator; any strides.
            Half precision holds a sum of 8 windows to within half a step of 8 bits.
        features: C X Y Z, any floating type, same device; fastest with channels last.
        vectors: float32 K C+1, the bias last; the product is made in the type of ``features``.
        weights: float32, one vector per axis, of lengths X, Y and Z.
        backend: ``auto`` takes the fastest that is known to be right on the tensors' device.

    Raises:
        ModelError: The backend does not exist or cannot run, or shapes do not belong together.
    """
    check_backend("window_blend", backend, total.device)
    lengths = tuple(len(axis) for axis in weights)
    num, width = total.shape[0], features.shape[0]
    if vectors.shape != (num, width + 1) or not (
        tuple(total.shape[1:]) == tuple(features.shape[1:]) == lengths
    ):
        raise ModelError(
            f"Cannot blend features {tuple(features.shape)} by vectors {tuple(vectors.shape)} "
            f"with weights {lengths} into a total {tuple(total.shape)}."
        )
    if total.numel() == 0:
        return total
    if backend == "triton":
        from textseg.kernels.window_blend_triton import window_blend_triton

        return window_blend_triton(total, features, vectors, weights=weights)
    return _window_blend_torch(total, features, vectors, weights=weights)


def scratch_bytes(num_prompts: int, shape: tuple[int, int, int], *, device_type: str) -> int:
    """Bytes that a blend takes for logits, at most: one block in two number formats."""
    _, y, z = shape
    return 6 * num_prompts * y * z * _planes(num_prompts, shape, device_type=device_type)


def _planes(num_prompts: int, shape: tuple[int, int, int], *, device_type: str) -> int:
    """How many x planes make a block."""
    x, y, z = shape
    block = _CPU_BLOCK if device_type == "cpu" else _DEVICE_BLOCK
    return min(x, max(1, block // (num_prompts * y * z)))


def _window_blend_torch(
    total: Tensor, features: Tensor, vectors: Tensor, *, weights: AxisWeights
) -> Tensor:
    """Blocks of x planes over all prompts: a small matrix product, then three passes in cache."""
    k, x, y, z = total.shape
    wx, wy, wz = weights
    planes = _planes(k, (x, y, z), device_type=total.device.type)
    plane_weight = (wy[:, None] * wz[None, :]).flatten()  # Y*Z
    product = vectors[:, :-1].to(features.dtype)  # K C
    bias = vectors[:, -1:].float()
    logits = torch.empty(k * planes * y * z, dtype=features.dtype, device=total.device)
    probability = logits
    if features.dtype != torch.float32:
        probability = torch.empty(logits.shape, dtype=torch.float32, device=total.device)
    weight = torch.empty((planes, y * z), dtype=torch.float32, device=total.device)
    columns = features.flatten(2)  # C X Y*Z
    for first in range(0, x, planes):
        last = min(first + planes, x)
        size = k * (last - first) * y * z
        block = logits[:size].view(k, -1)
        torch.mm(product, columns[:, first:last].flatten(1), out=block)
        chance = probability[:size].view(k, -1)
        if chance is not block:
            chance.copy_(block)
        chance.add_(bias).sigmoid_()
        weighted = chance.view(k, last - first, y * z)
        torch.mul(wx[first:last, None], plane_weight, out=weight[: last - first])
        weighted.mul_(weight[: last - first])
        total[:, first:last].add_(weighted.view(k, last - first, y, z))
    return total
