"""Reports meet the image through gates that start shut."""

from __future__ import annotations

from math import ceil, prod

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from textseg.network.layers import Perceptron
from textseg.network.report_fusion_parts import (
    Attention,
    FusionBlock,
    ImageTokens,
    grid_of,
    opening,
    start_small,
)
from textseg.network.report_place import StatedPlace
from textseg.network.report_tokens import ReportTokens

MOST_IMAGE_TOKENS = 4096
"""Text reads a map of more voxels than this after pooling."""


class GatedLayer(nn.Module):
    """Text reads the image, the image reads the text, and each voxel thinks it over.

    What comes of it is added to the image through two gates per channel, ``tanh`` of weights that
    start at 0: a new layer changes nothing, and learns at once how far to open. Each voxel is also
    told what the report alone says of its place, and of the size (``StatedPlace``).
    """

    def __init__(self, channels: int, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.see = ImageTokens(channels, width)
        self.asking_norm = nn.LayerNorm(width)
        self.text_reads = Attention(width, heads=heads)
        start_small(self.text_reads.answer)
        self.text_norm = nn.LayerNorm(width)
        self.image_reads = Attention(width, heads=heads)
        self.told_norm = nn.LayerNorm(width)
        self.heard = nn.Linear(width, channels)
        self.heard_gate = nn.Parameter(torch.zeros(channels))
        self.thought_norm = nn.LayerNorm(width)
        self.thought = Perceptron(width + 2, hidden, channels)
        self.thought_gate = nn.Parameter(torch.zeros(channels))

    def forward(
        self, rows: Tensor, text: ReportTokens, *, stated: Tensor, grid: tuple[int, int, int]
    ) -> tuple[Tensor, ReportTokens]:
        """Voxels ``B N C`` that have read the text, and the text that has read them.

        Args:
            rows: The voxels.
            text: Tokens ``B T W``.
            stated: What the text alone says of each voxel, ``B N 2``.
            grid: Voxels along each axis.
        """
        seen = self.see(rows, grid)
        tokens = text.tokens + self.text_reads(self.asking_norm(text.tokens), _pooled(seen, grid))
        # an average of many words is small beside what a voxel is, hence the norm
        told = self.told_norm(self.image_reads(seen, self.text_norm(tokens), text.mask))
        rows = _gated(rows, self.heard(told), self.heard_gate)
        # image and text meet here as well, whatever the first gate lets through
        met = self.thought_norm(seen + told)
        thought = self.thought(torch.cat([met, stated.to(met.dtype)], dim=-1))
        return _gated(rows, thought, self.thought_gate), ReportTokens(tokens, text.mask)


class GatedFusion(FusionBlock):
    """A map that has read a report; the default, see ``GatedLayer``. For maps of any size.

    Args:
        channels: Channels of the map.
        width: Width of the text.
        layers: Times that text and image read each other.
        heads: Attention heads.
        hidden: Width of the feed-forward part.
    """

    def __init__(self, channels: int, width: int, *, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.place = StatedPlace(width)
        self.layers = nn.ModuleList(
            GatedLayer(channels, width, heads=heads, hidden=hidden) for _ in range(layers)
        )
        self.held = 3 * channels + 5 * width + hidden

    def forward(self, image: Tensor, text: ReportTokens) -> Tensor:
        """The refined map ``B C X Y Z``."""
        grid = grid_of(image)
        rows = rearrange(image, "b c x y z -> b (x y z) c")
        stated = self.place(text, grid).by_place()
        for layer in self.layers:
            rows, text = layer(rows, text, stated=stated, grid=grid)
        x, y, z = grid
        return rearrange(rows, "b (x y z) c -> b c x y z", x=x, y=y, z=z)


def _gated(rows: Tensor, change: Tensor, gate: Tensor) -> Tensor:
    """Rows with a change let in as far as the gate is open; exactly as they were if it is shut."""
    return rows + (opening(gate) * change).to(rows.dtype)


def _pooled(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Image tokens ``B N W``, averaged over neighbours if they are very many."""
    if prod(grid) <= MOST_IMAGE_TOKENS:
        return tokens
    side = ceil((prod(grid) / MOST_IMAGE_TOKENS) ** (1 / 3))
    x, y, z = grid
    volume = rearrange(tokens, "b (x y z) w -> b w x y z", x=x, y=y, z=z)
    pooled = functional.avg_pool3d(volume, [min(side, size) for size in grid], ceil_mode=True)
    return rearrange(pooled, "b w x y z -> b (x y z) w")
