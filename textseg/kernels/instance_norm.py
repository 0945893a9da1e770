"""Instance normalisation, the channel's weight and bias, and a LeakyReLU in one operation.

For each map ``b`` and channel ``c``, over its N = X Y Z voxels::

    mean     = sum(x) / N
    variance = sum((x - mean) ** 2) / N
    y        = (x - mean) / sqrt(variance + eps) * weight[c] + bias[c]
    result   = y if y > 0 else slope * y

Meant for channels-last maps, where the voxels are rows and the channels lie side by side. Each map
is read twice and written once, whatever follows it. Sums are merged in an order that depends on the
sizes only, so the same map always gives the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from textseg.errors import ModelError
from textseg.kernels.backends import Backend, check_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

# 0.5 to 4 MiB of float32 for 16 to 128 channels: in the cache for all passes over it
_ROWS_IN_CACHE = 8192
# A mean of this many deviations costs a variance from float32 squares two of its seven digits.
_LARGE_MEAN = 8.0


def instance_norm_act_reference(
    x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5, slope: float = 0.01
) -> Tensor:
    """The normalised and activated map in plain float32: the specification.

    Args:
        x: B C X Y Z, any floating type.
        weight: C.
        bias: C.
        eps: Added to the variance.
        slope: Factor of negative results; 1 leaves them as they are.
    """
    values = x.float()
    variance, mean = torch.var_mean(values, dim=(2, 3, 4), correction=0, keepdim=True)
    normalised = (values - mean) * torch.rsqrt(variance + eps)
    scaled = normalised * weight.float().view(-1, 1, 1, 1) + bias.float().view(-1, 1, 1, 1)
    return functional.leaky_relu(scaled, slope)


def instance_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    slope: float = 0.01,
    out: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """The normalised and activated map, computed in float32 and of the type of ``x``.

    Args:
        x: B C X Y Z, any floating type.
        weight: C, on the device of ``x``.
        bias: C, on the device of ``x``.
        eps: Added to the variance.
        slope: Factor of negative results; 1 leaves them as they are.
        out: Where the result goes and what is returned, like ``x`` in shape and type; ``x`` itself
            to work in place. No gradient flows through it.
        backend: ``auto`` takes the fastest that is known to be right on the tensors' device.
            ``triton`` computes no gradients.

    Raises:
        ModelError: The backend cannot run here or the tensors do not belong together.
    """
    check_backend("instance_norm_act", backend, x.device)
    _check(x, weight, bias, out=out)
    gradient = torch.is_grad_enabled() and any(each.requires_grad for each in (x, weight, bias))
    if backend == "triton":
        from textseg.kernels.instance_norm_triton import instance_norm_act_triton

        if gradient:
            raise ModelError(
                "The triton backend of instance_norm_act computes no gradients.",
                remedy="Call it under torch.no_grad(), or use backend='auto'.",
            )
        out = torch.empty_like(x) if out is None else out
        return instance_norm_act_triton(out, x, weight, bias, eps=eps, slope=slope)
    if gradient or not all(_in_cache_order(each) for each in (x, out) if each is not None):
        return _composed(x, weight, bias, eps=eps, slope=slope, out=out)
    out = torch.empty_like(x) if out is None else out
    for source, target in zip(_rows(x), _rows(out), strict=True):
        _normalise(source, weight, bias, eps=eps, slope=slope, out=target)
    return out


def _check(x: Tensor, weight: Tensor, bias: Tensor, *, out: Tensor | None) -> None:
    """Refuses shapes and types that do not belong together."""
    channels = x.shape[1:2]
    if x.ndim != 5 or weight.shape != channels or bias.shape != channels:
        raise ModelError(
            f"Cannot normalise a map {tuple(x.shape)} with weight {tuple(weight.shape)} and bias "
            f"{tuple(bias.shape)}.",
            remedy="Give B C X Y Z, C and C.",
        )
    if not x.is_floating_point():
        raise ModelError(f"Cannot normalise a map of {x.dtype}.", remedy="Give a floating type.")
    if out is not None and (out.shape, out.dtype, out.device) != (x.shape, x.dtype, x.device):
        raise ModelError(
            f"Cannot write {x.dtype} {tuple(x.shape)} on '{x.device}' "
            f"into {out.dtype} {tuple(out.shape)} on '{out.device}'.",
            remedy="Give an out like the map, or none.",
        )


def _in_cache_order(x: Tensor) -> bool:
    """Whether a map's voxels are rows in a processor's memory."""
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last_3d)


def _rows(x: Tensor) -> Tensor:
    """A view of a channels-last map as B N C."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _composed(
    x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, slope: float, out: Tensor | None
) -> Tensor:
    """PyTorch's own operations, for any device and layout, with gradients."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    scaled = torch.instance_norm(
        x,
        weight.to(dtype),
        bias.to(dtype),
        running_mean=None,
        running_var=None,
        use_input_stats=True,
        momentum=0.0,
        eps=eps,
        cudnn_enabled=torch.backends.cudnn.enabled,
    )
    activated = scaled if slope == 1 else functional.leaky_relu(scaled, slope)
    return activated if out is None else out.copy_(activated.detach())


def _normalise(
    rows: Tensor, weight: Tensor, bias: Tensor, *, eps: float, slope: float, out: Tensor
) -> None:
    """Normalises voxels by channels (N C) in blocks that stay in cache; ``out`` may be ``rows``."""
    blocks = torch.split(rows, _ROWS_IN_CACHE)
    mean, variance = _moments(blocks)
    scale = weight.float() * (variance + eps).rsqrt().float()
    shift = bias.float() - mean.float() * scale
    scratch = None if out.dtype == torch.float32 else torch.empty(blocks[0].shape)
    for block, target in zip(blocks, torch.split(out, _ROWS_IN_CACHE), strict=True):
        scaled = target if scratch is None else scratch[: len(block)]
        torch.mul(block, scale, out=scaled).add_(shift)
        if slope != 1:
            functional.leaky_relu_(scaled, slope)
        if scratch is not None:
            target.copy_(scaled)


def _moments(blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel: float64 totals of float32 sums."""
    num = sum(map(len, blocks))
    total = torch.zeros(2, blocks[0].shape[1], dtype=torch.float64)
    for block in blocks:
        values = block.float()
        total += torch.stack([values.sum(0), (values * values).sum(0)])
    mean, square = total / num
    variance = square - mean**2
    # the difference of large squares has lost its digits; distances from the mean keep theirs
    if (mean**2 > _LARGE_MEAN**2 * variance).any():
        variance = torch.zeros_like(mean)
        for block in blocks:
            variance += (block.float() - mean.float()).square_().sum(0)
        variance /= num
    return mean, variance
