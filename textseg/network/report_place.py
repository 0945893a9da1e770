"""Where a report says that something is, and how large, before the image is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from textseg.network.layers import Perceptron
from textseg.network.report_fusion_parts import GATE_SPEED, Attention
from textseg.network.report_tokens import ReportTokens

_SLOTS = 8
_OCTAVES = 5
_USUAL_SIZE = -6.0  # a quarter of a percent of the window


class Stated(NamedTuple):
    """What reports alone say of the structures of a window.

    Attributes:
        places: Logarithm of each place's share of them times the number of places, float32
            ``B X Y Z``; 0 everywhere where the report leaves the place open.
        size: Logarithm of the part of the window that they fill, float32 ``B``.
    """

    places: Tensor
    size: Tensor

    def by_place(self) -> Tensor:
        """Both of each place, ``B X*Y*Z 2``, about 0 where nothing is said."""
        places = self.places.flatten(1)
        size = (self.size - _USUAL_SIZE)[:, None].expand_as(places)
        return torch.stack([places, size], dim=-1)


class StatedPlace(nn.Module):
    """How likely each place of a window is, and how much is filled, going by the report alone.

    What "left frontal" or "extensive edema" means is hard to learn from masks alone, where the
    image tells most; it is learned soon if places and size are asked for themselves, see
    ``textseg.training.losses.place_loss``.

    Args:
        width: Width of the text.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(_SLOTS, width))
        self.reads = Attention(width, heads=1)
        self.read_norm = nn.LayerNorm(width)
        self.state = Perceptron(_SLOTS * width, 2 * width, width)
        self.point = Perceptron(6 * _OCTAVES, width, width)
        self.weigh = nn.Linear(width, 1)

    def forward(self, text: ReportTokens, grid: tuple[int, int, int]) -> Stated:
        """What the reports say of each place of a window.

        Args:
            text: Tokens ``B T W``.
            grid: Places along each axis of a window.
        """
        slots = self.slots.expand(len(text.tokens), -1, -1)
        read = self.read_norm(self.reads(slots, text.tokens, text.mask))
        stated = self.state(read.flatten(1))  # B W
        pointed = self.point(_place_code(grid, like=text.tokens))  # X*Y*Z W
        scores = (stated @ pointed.T).float() / math.sqrt(pointed.shape[1])
        places = scores.log_softmax(dim=-1) + math.log(len(pointed))
        size = self.weigh(stated)[:, 0].float() + _USUAL_SIZE
        return Stated(places.unflatten(1, grid), size)


class StatedPrior(nn.Module):
    """What the report alone says of each voxel, added to the maps that masks are made of.

    A mask is a product with its map, so each prompt weighs the places on its own: of two lesions
    that look alike, the one at the stated place wins. The weights start at 0.

    Args:
        width: Width of the text.
        channels: Those of the maps, from full resolution down.
    """

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.place = StatedPlace(width)
        self.weights = nn.ModuleList(nn.Conv3d(2, each, 1, bias=False) for each in channels)
        for weight in self.weights.parameters():
            nn.init.zeros_(weight)
        self.held = 2 * channels[0]
        """Numbers that exist at once per voxel: the finest map, and what is added to it."""

    def stated_map(self, text: ReportTokens, grid: tuple[int, int, int]) -> Tensor:
        """Place and size as a map ``B 2 X Y Z`` of a coarse grid."""
        x, y, z = grid
        by_place = self.place(text, grid).by_place()
        stated: Tensor = rearrange(by_place, "b (x y z) said -> b said x y z", x=x, y=y, z=z)
        return stated

    def forward(self, stated: Tensor, shape: Sequence[int], level: int) -> Tensor:
        """What is added to the map of a level, ``B C X Y Z`` of that shape."""
        fine = functional.interpolate(stated, size=tuple(shape), mode="trilinear")
        added: Tensor = GATE_SPEED * self.weights[level](fine)
        return added


def _place_code(grid: tuple[int, int, int], *, like: Tensor) -> Tensor:
    """Sine and cosine of each place's position in the window, ``X*Y*Z 30``, whatever the grid."""
    axes = [(torch.arange(size, device=like.device) + 0.5) / size for size in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)  # N 3
    rates = math.pi / 2 * 2.0 ** torch.arange(_OCTAVES, device=like.device)
    angles = (places[..., None] * rates).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)
