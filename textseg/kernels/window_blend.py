"""Adds the probabilities of one window to a running total, under separable weights.

For prompts ``k`` and the voxels ``x y z`` that a window and the total share::

    total[k, x, y, z] += sigmoid(logits[k, x, y, z]) * wx[x] * wy[y] * wz[z]

The weights are normalised per axis beforehand, so the total is the answer: nothing is divided later
and no weight volume exists. Every element is written by one window at a time and summed in float32;
the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from textseg.errors import ModelError

Backend: TypeAlias = Literal["auto", "torch", "triton"]
AxisWeights: TypeAlias = tuple[Tensor, Tensor, Tensor]

# One block (4 MiB of float32) stays in the processor's shared cache through its three passes, which
# is four to eight times faster than whole-window operations. Smaller blocks gain nothing and wait
# at more thread barriers, each of which costs a time slice when other processes use the cores.
_CPU_BLOCK = 1 << 20
# Elsewhere each launch costs more than the cache gains, so blocks only bound the scratch (256 MiB).
_DEVICE_BLOCK = 1 << 26


def window_blend_reference(total: Tensor, logits: Tensor, *, weights: AxisWeights) -> Tensor:
    """``total`` after the window is added, as a new float32 tensor: the specification.

    Args:
        total: K X Y Z, the sum so far.
        logits: K X Y Z, any floating type.
        weights: One vector per axis, of lengths X, Y and Z.
    """
    wx, wy, wz = (axis.float() for axis in weights)
    weight = wx[:, None, None] * wy[None, :, None] * wz[None, None, :]  # X Y Z
    return total.float() + torch.sigmoid(logits.float()) * weight


def window_blend(
    total: Tensor, logits: Tensor, *, weights: AxisWeights, backend: Backend = "auto"
) -> Tensor:
    """Adds a window to ``total`` in place and returns ``total``.

    All scratch memory is taken before the first element changes, so a caller that runs out of
    memory can try again with fewer prompts.

    Args:
        total: float32 K X Y Z, usually a view into a larger accumulator; any strides.
        logits: K X Y Z, any floating type, any strides, same device; left as it is.
        weights: float32, one vector per axis, of lengths X, Y and Z.
        backend: ``auto`` takes the fastest that is known to be right on the tensors' device.

    Raises:
        ModelError: The backend does not exist or the shapes do not belong together.
    """
    if backend == "triton":
        raise ModelError(
            "The triton backend of window_blend is not available in this version.",
            remedy="Use backend='auto' or 'torch'.",
        )
    if backend not in ("auto", "torch"):
        raise ModelError(f"Unknown backend '{backend}'.", remedy="Use 'auto' or 'torch'.")
    lengths = tuple(len(axis) for axis in weights)
    if total.shape != logits.shape or tuple(total.shape[1:]) != lengths:
        raise ModelError(
            f"Cannot blend logits {tuple(logits.shape)} with weights {lengths} "
            f"into a total {tuple(total.shape)}."
        )
    return _window_blend_torch(total, logits, weights=weights)


def _window_blend_torch(total: Tensor, logits: Tensor, *, weights: AxisWeights) -> Tensor:
    """Blocks of x planes over all prompts, so channels-last logits are read in memory order."""
    k, x, y, z = logits.shape
    if logits.numel() == 0:
        return total
    wx, wy, wz = weights
    block = _CPU_BLOCK if logits.device.type == "cpu" else _DEVICE_BLOCK
    planes = min(x, max(1, block // (k * y * z)))
    plane_weight = wy[:, None] * wz[None, :]  # Y Z
    scratch = torch.empty((k, planes, y, z), dtype=torch.float32, device=logits.device)
    weight = torch.empty((planes, y, z), dtype=torch.float32, device=logits.device)
    for first in range(0, x, planes):
        last = min(first + planes, x)
        probability = scratch[:, : last - first].copy_(logits[:, first:last]).sigmoid_()
        block_weight = weight[: last - first]
        torch.mul(wx[first:last, None, None], plane_weight, out=block_weight)
        total[:, first:last].addcmul_(probability, block_weight)
    return total
