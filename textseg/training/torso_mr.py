"""MR-like contrast for a torso that was synthesised as if by CT.

Where tissues are is known from the CT; how bright they are is drawn anew: near what the common
sequences of the torso show, or any brightness at all, so that shape counts (Billot et al. 2023,
SynthSeg).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from textseg.training.augment import chance, uniform
from textseg.training.synthesis import draw_mr_means, first_match, prior_of, synthesise_mr

GAS_HU, CORTEX_HU = -300.0, 350.0
FAT_HU, MUSCLE_HU = -100.0, 40.0


class Brightness(NamedTuple):
    """Brightness of a tissue, 0 to 1, without contrast agent."""

    t1: float
    t2: float


FAT = Brightness(0.85, 0.72)
MUSCLE = Brightness(0.30, 0.15)
MARROW = Brightness(0.52, 0.38)
FLUID = Brightness(0.12, 0.95)
FLOW = Brightness(0.12, 0.08)
BOWEL = Brightness(0.32, 0.50)
ORGAN = Brightness(0.36, 0.42)

BRIGHTNESS: Mapping[str, Brightness] = {
    "liver*": Brightness(0.45, 0.28),
    "spleen*": Brightness(0.32, 0.52),
    "kidney*": Brightness(0.34, 0.60),
    "pancreas*": Brightness(0.50, 0.38),
    "gallbladder*": FLUID,
    "urinary_bladder*": FLUID,
    "spinal_cord*": Brightness(0.42, 0.40),
    "lung*": Brightness(0.03, 0.04),
    "trachea*": Brightness(0.01, 0.01),
    "stomach*": BOWEL,
    "duodenum*": BOWEL,
    "small_intestine*": BOWEL,
    "colon*": BOWEL,
    "heart*": MUSCLE,
    "*atri*": FLOW,
    "*artery*": FLOW,
    "*vein*": FLOW,
    "*vena_cava*": FLOW,
    "aorta*": FLOW,
    "*trunk*": FLOW,
    "*vertebra*": MARROW,
    "rib*": MARROW,
    "sternum*": MARROW,
    "sacrum*": MARROW,
    "*hip*": MARROW,
    "femur*": Brightness(0.65, 0.50),
    "humerus*": Brightness(0.65, 0.50),
    "scapula*": MARROW,
    "clavicle*": MARROW,
    "skull*": MARROW,
    "*glute*": MUSCLE,
    "*iliopsoas*": MUSCLE,
    "*back_muscle*": MUSCLE,
}
"""Brightness of each structure, by pattern of its concept id; the first match counts."""

SEQUENCES: Mapping[Literal["t1", "t2"], float] = {"t1": 0.4, "t2": 0.3}
"""How often an image resembles each sequence; otherwise every mean is drawn at random."""


def brightness_of(concept_id: str) -> Brightness:
    """Brightness of a concept, that of most organs where no pattern matches.

    >>> brightness_of("aorta").t2
    0.08
    """
    return first_match(BRIGHTNESS, concept_id) or ORGAN


def torso_mr(
    image: Tensor, labels: Tensor, *, concepts: Sequence[str], generator: Generator
) -> Tensor:
    """MR-like intensities ``1 X Y Z`` of a synthetic CT.

    Args:
        image: Hounsfield units ``1 X Y Z``.
        labels: ``X Y Z``, 0 for unlabelled, ``i`` for ``concepts[i - 1]``.
        concepts: Concept id of each label.
        generator: Source of randomness.
    """
    drawn = uniform(0.0, 1.0, generator)
    if drawn < SEQUENCES["t1"] + SEQUENCES["t2"]:
        sequence: Literal["t1", "t2"] = "t1" if drawn < SEQUENCES["t1"] else "t2"
        means, fat, muscle = _sequence_means(sequence, concepts, generator)
    else:
        means = draw_mr_means((), classes=len(concepts) + 1, generator=generator)
        flip = -1.0 if chance(0.5, generator) else 1.0
        contrast = flip * uniform(0.15, 0.5, generator)
        fat, muscle = 0.5 - contrast, 0.5 + contrast
    named = synthesise_mr(means, labels, generator=generator)
    fatness = ((MUSCLE_HU - image) / (MUSCLE_HU - FAT_HU)).clamp(0, 1)
    mixed = torch.where((labels == 0)[None], muscle + (fat - muscle) * fatness, named)
    noise = torch.rand(image.shape, generator=generator)
    # neither gas nor compact bone gives a signal
    mixed = torch.where(image > CORTEX_HU, 0.3 * mixed, mixed)
    return torch.where(image < GAS_HU, 0.02 * noise, mixed)


def _sequence_means(
    sequence: Literal["t1", "t2"], concepts: Sequence[str], generator: Generator
) -> tuple[Tensor, float, float]:
    """Mean of each label, and those of fat and muscle, as one sequence could show them.

    Fat may be suppressed, or so bright that everything else is dark beside it; on T1 a contrast
    agent may have been given, which brightens what it does on CT.
    """
    suppressed = chance(0.4, generator)
    dimmed = uniform(0.3, 1.0, generator) if not suppressed and chance(0.5, generator) else 1.0
    phase = uniform(0.3, 1.0, generator) if sequence == "t1" and chance(0.4, generator) else 0.0
    spread = uniform(0.03, 0.10, generator)
    means = torch.zeros(len(concepts) + 1)
    for label, concept in enumerate(concepts, start=1):
        brightness = brightness_of(concept)
        mean: float = getattr(brightness, sequence)
        if suppressed and brightness is MARROW:
            mean *= 0.5
        gain = phase * uniform(0.5, 1.0, generator) * prior_of(concept).enhancement / 250
        shift = spread * float(torch.randn((), generator=generator))
        dim = 1.0 if brightness is MARROW else dimmed  # which is half fat
        means[label] = min(1.0, max(0.0, dim * (mean + gain + shift)))
    fat = getattr(FAT, sequence) * (uniform(0.1, 0.3, generator) if suppressed else 1.0)
    muscle: float = dimmed * getattr(MUSCLE, sequence)
    return means, fat + uniform(-0.1, 0.1, generator), muscle
