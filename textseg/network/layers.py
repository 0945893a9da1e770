"""Building blocks shared by the backbones and decoders."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textseg.kernels import instance_norm_act

NormName = Literal["group", "instance"]


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
        return instance_norm_act(x, self.weight, self.bias, eps=self.eps, slope=1.0, out=x)


def make_norm(name: NormName, channels: int) -> nn.Module:
    """Affine normalisation over space, per group of about 8 channels or per channel."""
    if name == "instance":
        return InstanceNorm(channels, affine=True)
    return nn.GroupNorm(max(1, channels // 8), channels)


class StridedConv(nn.Conv3d):
    """A convolution whose result may be a single voxel wide along the last axis.

    There oneDNN's strided bfloat16 kernels for AMX read memory that nobody has written, and answer
    NaN at times (oneDNN 3.x; results two voxels wide are right). So a second voxel is computed from
    zeros beyond the end, which padding puts there anyway, and left out again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The features at the stride."""
        stride, beyond = self.stride[-1], 2 * int(self.padding[-1]) - self.kernel_size[-1]
        if x.device.type != "cpu" or x.shape[-1] + beyond >= stride:
            return super().forward(x)
        return super().forward(functional.pad(x, (0, stride)))[..., :1]


class ConvBlock(nn.Sequential):
    """3x3x3 convolution, normalisation, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, *, norm: NormName, stride: int = 1) -> None:
        super().__init__(
            StridedConv(inputs, outputs, 3, stride=stride, padding=1),
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


_Module = TypeVar("_Module", bound=nn.Module)


def channels_last(network: _Module) -> _Module:
    """The network with 3-D weights laid out for fast convolutions; in place."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def round_weights(network: _Module, dtype: torch.dtype) -> _Module:
    """The network with weights of convolutions in another type; in place.

    Autocast would round the same weights for every window; in half precision they take half the
    memory.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(dtype)
    return network


def channels_last_strides(x: Tensor) -> Tensor:
    """A map of one channel with strides that say so; others as they are.

    Memory with one channel is both contiguous and channels last. PyTorch takes it for the former
    and answers in that layout, which makes what follows copy.
    """
    if x.shape[1] != 1 or not x.is_contiguous():
        return x
    _, _, y, z = x.shape[1:]
    return x.as_strided(x.shape, (x.stride(0), 1, y * z, z, 1))


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
