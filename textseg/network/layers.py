"""Building blocks shared by the backbones and decoders."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

NormName = Literal["group", "instance"]


_ROWS_IN_CACHE = 8192


class InstanceNorm(nn.InstanceNorm3d):
    """Affine instance normalisation; without gradients it works in place on a CPU.

    There, with channels last, PyTorch's own copies the map to another layout and back, which takes
    most of its time. In place is safe for what a convolution has just made.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over space, then the channel's weight and bias."""
        last = x.is_contiguous(memory_format=torch.channels_last_3d)
        if torch.is_grad_enabled() or x.device.type != "cpu" or not last:
            normalised: Tensor = super().forward(x)
            return normalised
        for rows in rearrange(x, "b c x y z -> b (x y z) c"):
            self._normalise(rows)
        return x

    def _normalise(self, rows: Tensor) -> None:
        """Normalises voxels by channels, in float32 and in blocks that stay in the cache."""
        blocks = torch.split(rows, _ROWS_IN_CACHE)
        total = torch.zeros(2, rows.shape[1], dtype=torch.float64)
        for block in blocks:
            values = block.float()
            total += torch.stack([values.sum(0), (values * values).sum(0)])
        mean, square = total / len(rows)
        scale = self.weight * (square - mean**2 + self.eps).rsqrt().float()
        shift = self.bias - mean.float() * scale
        for block in blocks:
            block.copy_(block.float().mul_(scale).add_(shift))


def make_norm(name: NormName, channels: int) -> nn.Module:
    """Affine normalisation over space, per group of about 8 channels or per channel."""
    if name == "instance":
        return InstanceNorm(channels, affine=True)
    return nn.GroupNorm(max(1, channels // 8), channels)


class ConvBlock(nn.Sequential):
    """3x3x3 convolution, normalisation, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, *, norm: NormName, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1),
            make_norm(norm, outputs),
            nn.LeakyReLU(0.01, inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions around an identity path (projected where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, *, norm: NormName, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, norm=norm, stride=stride)
        self.second = nn.Sequential(
            nn.Conv3d(outputs, outputs, 3, padding=1), make_norm(norm, outputs)
        )
        self.identity: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.identity = nn.Sequential(
                nn.AvgPool3d(stride) if stride != 1 else nn.Identity(),
                nn.Conv3d(inputs, outputs, 1),
            )
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features at the stride of the block."""
        out: Tensor = self.activation(self.second(self.first(x)) + self.identity(x))
        return out


class Perceptron(nn.Sequential):
    """Linear, GELU, Linear, and perhaps a GELU at the end."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, gelu_end: bool = False) -> None:
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs),
            *([nn.GELU()] if gelu_end else []),
        )


def sine_position_code(shape: tuple[int, int, int], channels: int, like: Tensor) -> Tensor:
    """Fixed sine and cosine code of each token's place, (x y z) by ``channels``.

    Each axis owns a third of the channels, in which sine and cosine alternate with frequency
    ``10000 ** (-2 i / block)``; odd remainders are zero. Works for any shape.
    """
    block = channels // 6 * 2
    rate = torch.exp(
        torch.arange(0, block, 2, device=like.device, dtype=torch.float32)
        * (-math.log(10000.0) / block)
    )
    code = torch.zeros(*shape, channels, device=like.device)
    for axis, length in enumerate(shape):
        angle = torch.arange(length, device=like.device)[:, None] * rate
        wave = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # length block
        view = [1, 1, 1, block]
        view[axis] = length
        code[..., axis * block : (axis + 1) * block] = wave.view(view)
    return code.flatten(0, 2).to(like.dtype)
