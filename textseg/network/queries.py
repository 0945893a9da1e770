"""From a resolved concept to the vector the network is asked with.

The text encoder sees the name without its side; side and modality are switches of their own, so
that a similarity between words can never turn left into right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from textseg.imaging import Modality
from textseg.knowledge import Concept, LabelClass, load_classes

SIDES: tuple[str | None, ...] = (None, "left", "right")
SIDE_SCALE = 4.0
"""Size of the side switch; beside it a text vector has length ``features ** 0.5``."""
MODALITIES: tuple[Modality | None, ...] = (None, "ct", "mr", "pet")
_SHOWN_AS: Mapping[Modality | None, str] = {"ct": "CT", "mr": "MRI", "pet": "PET"}


class TextVectors(Protocol):
    """Any text encoder; unit vectors of one length."""

    @property
    def features(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str], /) -> Tensor:
        """Unit vectors ``K E``."""


@runtime_checkable
class NamingEncoder(TextVectors, Protocol):
    """A text encoder that is asked for whole names in a modality, and gives queries."""

    def queries(self, texts: Sequence[str], /, modality: Modality | None) -> Tensor:
        """Queries ``K Q``."""


def query_features(encoder_features: int) -> int:
    """Length of a query vector for an encoder that yields ``encoder_features`` numbers."""
    return encoder_features * len(SIDES) + len(SIDES) + len(MODALITIES)


def published_name(concept: Concept, modality: Modality | None) -> str:
    """The class name under which public data sets of a modality label a concept, else its name.

    Where two classes are one structure, one that is labelled in the modality comes first.
    """
    named = _classes_by_concept().get(concept.id, ())
    shown = [label.name for label in named if _SHOWN_AS.get(modality) in label.modalities]
    return next(iter((*shown, *(label.name for label in named))), concept.name)


@cache
def _classes_by_concept() -> Mapping[str, tuple[LabelClass, ...]]:
    found: dict[str, tuple[LabelClass, ...]] = {}
    for label in load_classes().values():
        if len(label.concepts) == 1:
            found[label.concepts[0]] = (*found.get(label.concepts[0], ()), label)
    return found


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
    concepts: Sequence[Concept],
    encoder: TextVectors | NamingEncoder,
    *,
    modality: Modality | None,
) -> Tensor:
    """Query vectors ``K Q`` in float32.

    An encoder with queries of its own is asked for the names under which public data sets label
    the concepts. For any other, text is in the slot of its side, then come the switches: a slot
    per side (none, left, right) lets even a linear layer treat left and right as structures of
    their own; the switches for side and modality are one-hot.
    """
    if isinstance(encoder, NamingEncoder):
        names = [published_name(concept, modality) for concept in concepts]
        return encoder.queries(names, modality).cpu()
    text = encoder.encode([unsided_name(concept) for concept in concepts]).cpu()
    scale = encoder.features**0.5  # unit text vectors have tiny entries beside a one-hot
    sides = torch.tensor([SIDES.index(concept.side) for concept in concepts], dtype=torch.long)
    side = functional.one_hot(sides, len(SIDES)).float()
    slots = (side[:, :, None] * text[:, None] * scale).flatten(1)  # K 3E
    kind = functional.one_hot(torch.tensor(MODALITIES.index(modality)), len(MODALITIES)).float()
    return torch.cat([slots, SIDE_SCALE * side, kind.expand(len(concepts), -1)], dim=1)
