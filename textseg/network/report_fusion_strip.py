"""Reports weigh the image at several scales at once, along thin strips."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from textseg.network.report_fusion_parts import (
    Attention,
    FusionBlock,
    ImageTokens,
    grid_of,
    opening,
)
from textseg.network.report_tokens import ReportTokens

STRIPS = (7, 11, 21)
"""Lengths of the strips, in voxels of the map."""


class Strip(nn.Sequential):
    """A wide depth-wise kernel as three thin ones in turn, one along each axis."""

    def __init__(self, channels: int, length: int) -> None:
        kernels = ((length, 1, 1), (1, length, 1), (1, 1, length))
        super().__init__(
            *(
                nn.Conv3d(channels, channels, kernel, padding="same", groups=channels)
                for kernel in kernels
            )
        )


class StripFusion(FusionBlock):
    """Scale-aware attention after LSMS (arXiv 2408.17347), in three dimensions.

    A depth-wise 5x5x5 convolution feeds strips of 7, 11 and 21 voxels; thin kernels suit voxels
    that are longer along one axis. Beside them each voxel reads the text, through a ``tanh`` gate
    that starts open. The sum, mixed across channels, multiplies the map through a gate per channel
    that starts shut: ``x * (1 + tanh(gate) * attention)``. What a voxel asks the text with is
    normalised over its channels, not over space, so that maps of any size do.

    Args:
        channels: Channels of the map.
        width: Width of the text.
        heads: Attention heads.
    """

    def __init__(self, channels: int, width: int, *, heads: int) -> None:
        super().__init__()
        self.local = nn.Conv3d(channels, channels, 5, padding=2, groups=channels)
        self.strips = nn.ModuleList(Strip(channels, length) for length in STRIPS)
        self.see = ImageTokens(channels, width)
        self.text_norm = nn.LayerNorm(width)
        self.image_reads = Attention(width, heads=heads)
        self.told_norm = nn.LayerNorm(width)
        self.heard = nn.Linear(width, channels)
        self.heard_gate = nn.Parameter(torch.ones(channels))
        self.mix = nn.Conv3d(channels, channels, 1)
        self.gate = nn.Parameter(torch.zeros(channels))
        self.held = 6 * channels + 4 * width

    def forward(self, image: Tensor, text: ReportTokens) -> Tensor:
        """The refined map ``B C X Y Z``."""
        local = self.local(image)
        branches = local + self._heard(image, text)
        for strip in self.strips:
            branches = branches + strip(local)
        attention = opening(self.gate)[:, None, None, None] * self.mix(branches)
        weighed: Tensor = image * (1 + attention).to(image.dtype)
        return weighed

    def _heard(self, image: Tensor, text: ReportTokens) -> Tensor:
        """What the text says to each voxel, ``B C X Y Z``."""
        x, y, z = grid = grid_of(image)
        seen = self.see(rearrange(image, "b c x y z -> b (x y z) c"), grid)
        told = self.told_norm(self.image_reads(seen, self.text_norm(text.tokens), text.mask))
        heard: Tensor = self.heard_gate.tanh() * self.heard(told)
        return rearrange(heard, "b (x y z) c -> b c x y z", x=x, y=y, z=z)
