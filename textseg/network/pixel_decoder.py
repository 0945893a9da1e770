"""Climbs back from coarse to fine maps with skip connections, optionally steered by a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from textseg.network.layers import ConvBlock, NormName, make_norm


class UpStage(nn.Module):
    """Upsample by two, join the skip map, convolve."""

    def __init__(
        self, coarse: int, skip: int, outputs: int, *, blocks: int, extra: int, norm: NormName
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(coarse, skip, 2, stride=2)
        widths = [2 * skip + extra] + [outputs] * blocks
        self.blocks = nn.Sequential(*(ConvBlock(a, b, norm=norm) for a, b in pairwise(widths)))

    def forward(self, coarse: Tensor, skip: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map at the skip's resolution; ``extra`` maps join before the convolutions."""
        parts = [self.up(coarse), skip] + ([extra] if extra is not None else [])
        out: Tensor = self.blocks(torch.cat(parts, dim=1))
        return out


class LightUpStage(nn.Module):
    """The cheap last stage: coarse features are projected, then upsampled, then added.

    One 3x3x3 convolution runs over the thin skip map alone, which costs about a third of
    convolving the joined maps at full resolution.
    """

    def __init__(self, coarse: int, skip: int, outputs: int, *, norm: NormName) -> None:
        super().__init__()
        self.project = nn.Conv3d(coarse, outputs, 1)
        self.skip = nn.Conv3d(skip, outputs, 3, padding=1, bias=False)
        self.norm = make_norm(norm, outputs)

    def forward(self, coarse: Tensor, skip: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map at the skip's resolution; the cheap stage takes no ``extra`` maps."""
        del extra
        up = functional.interpolate(self.project(coarse), size=skip.shape[2:], mode="trilinear")
        return functional.leaky_relu(self.norm(up + self.skip(skip)), 0.01)


class PixelDecoder(nn.Module):
    """U-Net decoder over a pyramid.

    Args:
        channels: Channels of the pyramid, fine to coarse.
        blocks: Convolution blocks per stage.
        light: Use ``LightUpStage`` at full resolution.
        full_channels: Channels of the finest map.
        least_channels: The other maps have as many channels as the pyramid, but at least these.
        extra: Channels of the prompt maps that join each stage (0 for prompt-free decoding).
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        blocks: int,
        light: bool,
        full_channels: int,
        least_channels: int = 0,
        extra: int = 0,
        norm: NormName,
    ) -> None:
        super().__init__()
        outputs = [full_channels, *(max(width, least_channels) for width in channels[1:-1])]
        self.channels = tuple(outputs)
        self.stages = nn.ModuleList()
        for level in reversed(range(len(channels) - 1)):
            coarse = channels[-1] if level == len(channels) - 2 else outputs[level + 1]
            if light and level == 0:
                stage: nn.Module = LightUpStage(coarse, channels[0], outputs[0], norm=norm)
            else:
                stage = UpStage(
                    coarse,
                    channels[level],
                    outputs[level],
                    blocks=blocks,
                    extra=extra if level else 0,
                    norm=norm,
                )
            self.stages.append(stage)

    def forward(
        self, maps: Sequence[Tensor], extras: Sequence[Tensor | None] | None = None
    ) -> list[Tensor]:
        """Decoded maps, fine to coarse, without the coarsest level.

        Args:
            maps: Backbone pyramid, fine to coarse.
            extras: Prompt maps per decoder level, fine to coarse; ``None`` where there are none.
        """
        extras = extras if extras is not None else [None] * (len(maps) - 1)
        decoded = [maps[-1]]
        levels = zip(self.stages, reversed(maps[:-1]), reversed(extras), strict=True)
        for stage, skip, extra in levels:
            decoded.append(stage(decoded[-1], skip, extra))
        return decoded[:0:-1]
