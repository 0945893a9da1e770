"""From a resolved concept to the vector the network is asked with.

The text encoder sees the name without its side; side and modality are switches of their own, so
that a similarity between words can never turn left into right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from textseg.imaging import Modality
from textseg.knowledge import Concept

SIDES: tuple[str | None, ...] = (None, "left", "right")
SIDE_SCALE = 4.0
"""Size of the side switch; beside it a text vector has length ``features ** 0.5``."""
MODALITIES: tuple[Modality | None, ...] = (None, "ct", "mr", "pet")


class TextVectors(Protocol):
    """Any text encoder; unit vectors of one length."""

    @property
    def features(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str], /) -> Tensor:
        """Unit vectors ``K E``."""


def query_features(encoder_features: int) -> int:
    """Length of a query vector for an encoder that yields ``encoder_features`` numbers."""
    return encoder_features * len(SIDES) + len(SIDES) + len(MODALITIES)


def unsided_name(concept: Concept) -> str:
    """Name of a concept with its side taken out, so that a left-right pair shares one text."""
    return strip_side(concept.name, concept.side)


def strip_side(name: str, side: str | None) -> str:
    """A name without the word for its side.

    >>> strip_side("left upper lobe of left lung", "left")
    'upper lobe of lung'
    """
    return " ".join(word for word in name.split() if word != side)


def build_queries(
    concepts: Sequence[Concept], encoder: TextVectors, *, modality: Modality | None
) -> Tensor:
    """Query vectors ``K Q`` in float32: text in the slot of its side, then the switches.

    A slot per side (none, left, right) lets even a linear layer treat left and right as structures
    of their own; the switches for side and modality are one-hot.
    """
    text = encoder.encode([unsided_name(concept) for concept in concepts]).cpu()
    scale = encoder.features**0.5  # unit text vectors have tiny entries beside a one-hot
    sides = torch.tensor([SIDES.index(concept.side) for concept in concepts], dtype=torch.long)
    side = functional.one_hot(sides, len(SIDES)).float()
    slots = (side[:, :, None] * text[:, None] * scale).flatten(1)  # K 3E
    kind = functional.one_hot(torch.tensor(MODALITIES.index(modality)), len(MODALITIES)).float()
    return torch.cat([slots, SIDE_SCALE * side, kind.expand(len(concepts), -1)], dim=1)
