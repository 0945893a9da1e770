"""What every kind of report fusion is made of."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from textseg.network.layers import Perceptron, sine_position_code
from textseg.network.report_tokens import ReportTokens

# Optimisers like Adam move every weight by about the learning rate, so that a gate that is the tanh
# of its weight would take a thousand steps to open.
GATE_SPEED = 10.0
_ORDER = 0.3  # of the words, beside what they say


class FusionBlock(nn.Module):
    """Refines one map of a network by what reports say.

    Attributes:
        held: Numbers that exist at once per voxel of the map.
    """

    held: int

    def forward(self, image: Tensor, text: ReportTokens) -> Tensor:
        """A map ``B C X Y Z`` of the same shape and type."""
        raise NotImplementedError


class Attention(nn.Module):
    """Multi-head attention of vectors to others of the same width."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.offer = nn.Linear(width, 2 * width)
        self.answer = nn.Linear(width, width)

    def forward(
        self,
        asking: Tensor,
        read: Tensor,
        mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
    ) -> Tensor:
        """What each of ``B N W`` finds among ``B M W``.

        Args:
            asking: Vectors that ask.
            read: Vectors that are asked.
            mask: ``B M`` bool, which may be read; all if left out.
            bias: Added to what decides who reads whom, ``heads N M``; needs ``mask``.
        """
        queries = rearrange(self.ask(asking), "b n (h d) -> b h n d", h=self.heads)
        offered = rearrange(self.offer(read), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        keys, values = offered.unbind()
        allowed = None if mask is None else mask[:, None, None]
        if allowed is not None and bias is not None:
            allowed = torch.where(allowed, bias.to(queries.dtype), -torch.inf)
        # on a CPU the backward pass of the fused kernel takes most of a training step
        plain = queries.requires_grad and queries.device.type == "cpu"
        with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)
        answer: Tensor = self.answer(rearrange(seen, "b h n d -> b n (h d)"))
        return answer


class ContextLayer(nn.Module):
    """The tokens of a report read one another: pre-norm self-attention and feed-forward.

    All heads but the last read near words rather than far ones (attention with linear biases, Press
    et al. 2022): what is said of one lesion is soon kept apart from what is said of another.
    """

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads=heads)
        self.slopes = [2.0**-head for head in range(heads - 1)] + [0.0]
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = Perceptron(width, hidden, width)
        start_small(self.attention.answer)
        start_small(self.feed_forward[-1])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens ``B T W`` that know of those around them."""
        normal = self.attention_norm(tokens)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        apart = (place[:, None] - place).abs()
        bias = -torch.tensor(self.slopes, device=tokens.device)[:, None, None] * apart
        tokens = tokens + self.attention(normal, normal, mask, bias=bias)
        read: Tensor = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return read


class TextContext(nn.Module):
    """Tokens of any encoder at the width of the fusion, each knowing its place and its sentence.

    "no", "left" and the name of a site mean little apart; here they are bound to one another.
    """

    def __init__(self, features: int, width: int, *, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, width)
        nn.init.normal_(self.project.weight, std=features**-0.5)  # as large as what they meet
        self.layers = nn.ModuleList(
            ContextLayer(width, heads=heads, hidden=hidden) for _ in range(layers)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens ``B T W`` from tokens ``B T F``."""
        text: Tensor = self.project(self.norm(tokens))
        length, width = text.shape[1:]
        # the first third, which belongs to the first axis, is a code of one axis and full width
        order = sine_position_code((length, 1, 1), 3 * width, text)[:, :width]
        text = text + _ORDER * order
        for layer in self.layers:
            text = layer(text, mask)
        return text


class ImageTokens(nn.Module):
    """Voxels of a map as vectors of the text's width, each saying where it is."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)

    def forward(self, rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Tokens ``B N W`` of the voxels ``B N C`` of a map of shape ``grid``."""
        tokens: Tensor = self.project(self.norm(rows))
        return tokens + sine_position_code(grid, tokens.shape[2], tokens)


def start_small(layer: nn.Module) -> None:
    """Makes the linear layer at the end of a residual path say little at first; in place.

    What it adds would only blur the words until the network has found a use for them.
    """
    for weight in layer.parameters():
        weight.data.mul_(0.1)


def opening(gate: Tensor) -> Tensor:
    """How far gates are open, from -1 to 1, by their weights; exactly 0 for 0."""
    return torch.tanh(GATE_SPEED * gate)


def grid_of(image: Tensor) -> tuple[int, int, int]:
    """Shape in space of a map ``B C X Y Z``."""
    x, y, z = image.shape[2:]
    return int(x), int(y), int(z)
