"""Climbs back from coarse to fine maps with skip connections, optionally steered by a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from textseg.network.layers import ConvBlock, NormName, channels_last_strides

Block: TypeAlias = tuple[slice, slice, slice]
"""Part of a volume, with both ends given."""
Refinement: TypeAlias = Callable[[Tensor], Tensor]
"""Makes of a map another one of the same shape."""


class UpStage(nn.Module):
    """Upsample by two, join the skip map, convolve."""

    def __init__(
        self, coarse: int, skip: int, outputs: int, *, blocks: int, extra: int, norm: NormName
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(coarse, skip, 2, stride=2)
        widths = [2 * skip + extra] + [outputs] * blocks
        self.held = widths[0] + 2 * outputs
        """Channels that exist at once: what is joined, and a convolution's input and output."""
        self.blocks = nn.Sequential(*(ConvBlock(a, b, norm=norm) for a, b in pairwise(widths)))

    def forward(self, coarse: Tensor, skip: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map at the skip's resolution; ``extra`` maps join before the convolutions."""
        steering = [extra] if extra is not None else []
        out: Tensor = self.blocks(torch.cat([self.up(coarse), skip, *steering], dim=1))
        return out


class LightUpStage(nn.Module):
    """The cheap last stage: upsampled features meet the thin skip map by addition, then mix once.

    Its middle is too narrow for what half resolution knows of a hundred structures, so the last
    ``half`` of its ``outputs`` are that map, through one linear layer, between its voxels as they
    lie. The stage has no normalisation, so what it says of a voxel depends on the voxels around it
    alone and it can be run on a block of a volume; see ``PixelDecoder.finest``.
    """

    REACH = 1
    """Coarse voxels around a block that its answer depends on."""

    def __init__(self, coarse: int, skip: int, outputs: int, *, half: int = 0) -> None:
        super().__init__()
        mixed = outputs - half
        inner = max(4, mixed // 2)
        self.up = nn.ConvTranspose3d(coarse, inner, 2, stride=2)
        self.skip = nn.Conv3d(skip, inner, 3, padding=1, bias=False)
        self.mix = nn.Conv3d(inner, mixed, 3, padding=1)
        self.direct = nn.Conv3d(coarse, half, 1) if half else None
        # a copy takes nothing for itself, as convolutions do
        self.held = max(inner + mixed, round(0.875 * (mixed + outputs)) if half else 0)
        """Channels that exist at once: what is mixed, and what it is made of or where it goes."""

    def forward(self, coarse: Tensor, skip: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map at the skip's resolution; the cheap stage takes no ``extra`` maps."""
        del extra
        mixed = self._mixed(coarse, skip)
        if self.direct is None:
            return mixed
        half = self.direct(coarse)
        mixes = mixed.shape[1]
        shape = (len(mixed), mixes + half.shape[1], *mixed.shape[2:])
        # not joined by `cat`, which would hold both parts and the whole
        whole = torch.empty(
            shape, dtype=mixed.dtype, device=mixed.device, memory_format=torch.channels_last_3d
        )
        whole[:, :mixes] = mixed
        del mixed
        whole[:, mixes:] = functional.interpolate(half, scale_factor=2, mode="trilinear")
        return whole

    def _mixed(self, coarse: Tensor, skip: Tensor) -> Tensor:
        # in place: a map at full resolution takes longer to allocate than to change
        joined = self.up(coarse).add_(self.skip(channels_last_strides(skip)))
        return functional.leaky_relu_(self.mix(functional.leaky_relu_(joined, 0.01)), 0.01)


class PixelDecoder(nn.Module):
    """U-Net decoder over a pyramid.

    Args:
        channels: Channels of the pyramid, fine to coarse.
        blocks: Convolution blocks per stage.
        light: Use ``LightUpStage`` at full resolution.
        full_channels: Channels of the finest map.
        half_channels: How many of them that stage takes from half resolution as they are.
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
        half_channels: int = 0,
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
                stage: UpStage | LightUpStage = LightUpStage(
                    coarse, channels[0], outputs[0], half=half_channels
                )
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
            self.held = stage.held
            """Channels at full resolution that exist at once while the finest map is made."""

    def forward(
        self,
        maps: Sequence[Tensor],
        extras: Sequence[Tensor | None] | None = None,
        refinements: Mapping[int, Refinement] | None = None,
    ) -> list[Tensor]:
        """Decoded maps from half resolution down, fine to coarse, without the coarsest level.

        Args:
            maps: Backbone pyramid, fine to coarse.
            extras: Prompt maps per decoder level, fine to coarse; ``None`` where there are none.
            refinements: What happens to a decoded map before the next stage climbs from it, by
                level: 1 is the coarsest decoded map, the one above the bottleneck.
        """
        extras = extras if extras is not None else [None] * (len(maps) - 1)
        decoded = [maps[-1]]
        levels = zip(self.stages, reversed(maps[:-1]), reversed(extras), strict=True)
        refinements = refinements or {}
        for level, (stage, skip, extra) in enumerate(list(levels)[:-1], start=1):
            climbed = stage(decoded[-1], skip, extra)
            decoded.append(refinements[level](climbed) if level in refinements else climbed)
        return decoded[:0:-1]

    def finest(self, half: Tensor, skip: Tensor, block: Block | None = None) -> Tensor:
        """Map at full resolution, ``B C X Y Z``.

        Args:
            half: Decoded map at half resolution.
            skip: Finest map of the pyramid.
            block: Voxels of ``half`` to answer for, per axis; ``None`` for all of them. Exactly
                the part of the whole answer that lies there, and much cheaper with the light stage.
        """
        stage = self.stages[-1]
        if block is None:
            return stage(half, skip)  # type: ignore[no-any-return]
        if not isinstance(stage, LightUpStage):
            return stage(half, skip)[:, :, *doubled(block)]  # type: ignore[no-any-return]
        reach = stage.REACH
        around = _block((max(0, s.start - reach), s.stop + reach) for s in block)
        inside = _block(
            (s.start - a.start, s.stop - a.start) for s, a in zip(block, around, strict=True)
        )
        seen: Tensor = stage(half[:, :, *around], skip[:, :, *doubled(around)])
        return seen[:, :, *doubled(inside)]


def _block(bounds: Iterable[tuple[int, int]]) -> Block:
    x, y, z = (slice(*ends) for ends in bounds)
    return x, y, z


def doubled(block: Block) -> Block:
    """The same block in voxels of half the size."""
    return _block((2 * s.start, 2 * s.stop) for s in block)
