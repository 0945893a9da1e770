"""Convolutional U-Net encoder, plain or residual."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from textseg.network.backbones.base import Backbone
from textseg.network.layers import ConvBlock, NormName, ResidualBlock


class UNetBackbone(Backbone):
    """U-Net encoder: stages of convolutions, each but the first starting with stride 2.

    Args:
        in_channels: Channels of the volume.
        channels: Width of each stage, fine to coarse.
        blocks: Blocks in each stage; a first stage of none passes the volume on as it is.
        residual: Residual blocks (two convolutions each) instead of plain ones. The first stage
            stays plain: at full resolution every convolution is dear.
        norm: Kind of normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        blocks: Sequence[int],
        residual: bool = False,
        norm: NormName = "instance",
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = tuple(2**level for level in range(len(channels)))
        widths = [in_channels, *channels]
        self.stages = nn.ModuleList()
        for level, count in enumerate(blocks):
            if count == 0:
                self.stages.append(nn.Identity())
                continue
            block = ResidualBlock if residual and level else ConvBlock
            first = block(widths[level], widths[level + 1], norm=norm, stride=2 if level else 1)
            rest = [
                block(widths[level + 1], widths[level + 1], norm=norm) for _ in range(count - 1)
            ]
            self.stages.append(nn.Sequential(first, *rest))

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Maps of every stage, fine to coarse."""
        maps = []
        for stage in self.stages:
            volume = stage(volume)
            maps.append(volume)
        return maps
