"""Text encoders by name: those of models, and two that know nothing, to compare with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from textseg.network.queries import TextVectors
from textseg.network.text_encoder import TextEncoder, TextEncoderConfig
from textseg.network.weights import load_encoder

UNTRAINED, RANDOM = "untrained", "random"


class RandomVectors:
    """A random vector for each text, unrelated to that of any other text.

    Args:
        features: Length of a vector.
    """

    def __init__(self, features: int = TextEncoderConfig().features) -> None:
        self.features = features

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``K E``, the same for the same text."""
        rows = [self._vector(text) for text in texts]
        return torch.stack(rows) if rows else torch.zeros(0, self.features)

    def _vector(self, text: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return functional.normalize(torch.randn(self.features, generator=generator), dim=0)


def untrained_encoder() -> TextEncoder:
    """The encoder as it is before training: alike spelling gives alike vectors, no more."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextEncoder(TextEncoderConfig()).eval()


def named_encoder(name: str) -> TextVectors:
    """``untrained``, ``random``, or the text encoder of the model with this name or folder.

    Raises:
        ModelError: There is no such model.
    """
    if name == UNTRAINED:
        return untrained_encoder()
    return RandomVectors() if name == RANDOM else load_encoder(name)
