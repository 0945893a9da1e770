"""Text to vectors: a bag of hashed words and character n-grams, then a small perceptron.

Deterministic, a few megabytes, and quick to train from scratch on the knowledge tree; in place of
tokenisers and downloads it has a stable hash.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from textseg.network.layers import Perceptron


class TextEncoderConfig(BaseModel):
    """Size of the text encoder.

    Attributes:
        rows: Rows of the hashed embedding table.
        width: Length of a row.
        hidden: Width of the perceptron.
        features: Length of the vector a text becomes.
        ngrams: Lengths of the character n-grams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = 16384
    width: int = 96
    hidden: int = 256
    features: int = 128
    ngrams: tuple[int, ...] = (3, 4, 5)


class TextEncoder(nn.Module):
    """Maps each text to a unit vector; equal texts after case and space folding are equal."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.EmbeddingBag(config.rows, config.width, mode="sum")
        nn.init.normal_(self.table.weight, std=config.width**-0.5)
        self.perceptron = Perceptron(config.width, config.hidden, config.features)

    @property
    def features(self) -> int:
        """Length of the vector a text becomes."""
        return self.config.features

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``K E``, differentiable."""
        bags = [hashed_pieces(text, self.config) for text in texts]
        flat = torch.tensor([row for bag in bags for row in bag])
        lengths = torch.tensor([len(bag) for bag in bags])
        offsets = functional.pad(lengths.cumsum(0)[:-1], (1, 0))
        device = self.table.weight.device
        summed = self.table(flat.to(device), offsets.to(device))
        mean = summed / lengths.to(device).sqrt()[:, None]
        return functional.normalize(self.perceptron(mean), dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``K E`` in float32, without gradient; ``0 E`` for no text."""
        if not texts:
            return torch.zeros(0, self.config.features)
        vectors: Tensor = self(texts)
        return vectors.float()


@lru_cache(maxsize=65536)
def hashed_pieces(text: str, config: TextEncoderConfig) -> tuple[int, ...]:
    """Table rows of a text's words and n-grams; words count three times, so that they outweigh.

    >>> config = TextEncoderConfig(rows=100)
    >>> hashed_pieces("Left  Kidney", config) == hashed_pieces("left kidney", config)
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.findall(r"\w+", folded) or [""]
    pieces = [f"<{word}>" for word in words for _ in range(3)]
    for word in words:
        marked = f"<{word}>"
        pieces += [marked[i : i + n] for n in config.ngrams for i in range(len(marked) - n + 1)]
    return tuple(zlib.crc32(piece.encode()) % config.rows for piece in pieces)
