"""Where a report says that something is, told before the image is looked at."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from textseg.network.layers import Perceptron
from textseg.network.report_fusion_parts import Attention
from textseg.network.report_tokens import ReportTokens

_SLOTS = 8
_OCTAVES = 5


class StatedPlace(nn.Module):
    """How likely each place of a window is, going by the report alone.

    What "left frontal" means is hard to learn from masks alone, where the image tells most; it is
    learned soon if the places themselves are asked for, see ``textseg.training.losses.place_loss``.

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

    def forward(self, text: ReportTokens, grid: tuple[int, int, int]) -> Tensor:
        """Logarithm of each place's share times the number of places, float32 ``B N``.

        It is 0 everywhere where the report leaves the place open.

        Args:
            text: Tokens ``B T W``.
            grid: Places along each axis of a window; N is their product.
        """
        slots = self.slots.expand(len(text.tokens), -1, -1)
        read = self.read_norm(self.reads(slots, text.tokens, text.mask))
        stated = self.state(read.flatten(1))  # B W
        pointed = self.point(_place_code(grid, like=text.tokens))  # N W
        scores = (stated @ pointed.T).float() / math.sqrt(pointed.shape[1])
        shares: Tensor = scores.log_softmax(dim=-1)
        return shares + math.log(len(pointed))


def _place_code(grid: tuple[int, int, int], *, like: Tensor) -> Tensor:
    """Sine and cosine of each place's position in the window, ``N 30``, whatever the grid."""
    axes = [(torch.arange(size, device=like.device) + 0.5) / size for size in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)  # N 3
    rates = math.pi / 2 * 2.0 ** torch.arange(_OCTAVES, device=like.device)
    angles = (places[..., None] * rates).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)
