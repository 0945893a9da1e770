"""Queries read the image: cross-attention from each prompt to pooled image tokens.

There is no attention among queries, so a prompt's answer does not depend on the other prompts
(Zhao et al., "One model to rule them all", 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from textseg.network.layers import Perceptron, sine_position_code


class TokenPool(nn.Module):
    """Every map of the pyramid, average-pooled to the coarsest grid, as one set of tokens."""

    def __init__(
        self, channels: Sequence[int], embedding: int, *, hidden: int, gelu_end: bool = False
    ) -> None:
        super().__init__()
        self.project = Perceptron(sum(channels), hidden, embedding, gelu_end=gelu_end)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Tokens ``B N E`` and their position code ``N E``, for N places of the coarsest map."""
        x, y, z = maps[-1].shape[2:]
        grid = (int(x), int(y), int(z))
        pooled = torch.cat([functional.adaptive_avg_pool3d(m, grid) for m in maps], dim=1)
        tokens = self.project(rearrange(pooled, "b c x y z -> b (x y z) c"))
        return tokens, sine_position_code(grid, tokens.shape[-1], tokens)


class CrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention and feed-forward, each with a residual path."""

    def __init__(self, embedding: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embedding)
        self.attention = nn.MultiheadAttention(embedding, heads, batch_first=True)
        self.feed_forward_norm = nn.LayerNorm(embedding)
        self.feed_forward = nn.Sequential(
            nn.Linear(embedding, hidden), nn.ReLU(), nn.Linear(hidden, embedding)
        )

    def forward(self, queries: Tensor, tokens: Tensor, position: Tensor) -> Tensor:
        """Refined queries ``B K E``."""
        attended, _ = self.attention(
            self.attention_norm(queries), tokens + position, tokens, need_weights=False
        )
        queries = queries + attended
        refined: Tensor = queries + self.feed_forward(self.feed_forward_norm(queries))
        return refined


class QueryDecoder(nn.Module):
    """A stack of cross-attention layers; each query is refined on its own."""

    def __init__(self, embedding: int, *, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossAttentionLayer(embedding, heads=heads, hidden=hidden) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(embedding)

    def forward(self, queries: Tensor, tokens: Tensor, position: Tensor) -> Tensor:
        """Refined queries ``B K E`` from queries ``B K E`` and tokens ``B N E``."""
        for layer in self.layers:
            queries = layer(queries, tokens, position)
        refined: Tensor = self.norm(queries)
        return refined
