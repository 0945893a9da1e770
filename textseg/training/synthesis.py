"""Images from label maps: every structure gets an intensity, then a scanner gets in the way.

MR-like images draw each structure's mean at random, so that the network learns shape and not
contrast (Billot et al. 2023, SynthSeg), or near what the common sequences show, which most scans
are. CT-like images draw from ranges of Hounsfield units, with
a random contrast phase, cortical bone, bowel content and a body around the organs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torch.nn import functional

from textseg.training.augment import chance, smooth_noise, uniform

Prior = TypeVar("Prior")


@dataclass(frozen=True)
class TissuePrior:
    """Hounsfield units of a family of structures.

    Attributes:
        low: Smallest mean without contrast agent.
        high: Largest mean without contrast agent.
        enhancement: Largest gain at full contrast.
        texture: Standard deviation inside one structure.
        shell: Mean of the outer layer where it differs (cortical bone), else ``None``.
        gas: Largest fraction filled with gas.
    """

    low: float
    high: float
    enhancement: float = 0.0
    texture: float = 10.0
    shell: float | None = None
    gas: float = 0.0


BONE = TissuePrior(80, 280, 20, 60, shell=480)
VESSEL = TissuePrior(30, 50, 230, 10)
MUSCLE = TissuePrior(40, 65, 15, 12)
BOWEL = TissuePrior(5, 50, 60, 25, gas=0.5)
LUNG = TissuePrior(-900, -720, 20, 45)

CT_PRIORS: Mapping[str, TissuePrior] = {
    "lung*": LUNG,
    "trachea*": TissuePrior(-1000, -950, 0, 15),
    "liver*": TissuePrior(40, 68, 70, 10),
    "spleen*": TissuePrior(40, 60, 90, 10),
    "kidney*": TissuePrior(25, 40, 170, 18),
    "adrenal*": TissuePrior(5, 45, 50, 12),
    "pancreas*": TissuePrior(25, 50, 75, 15),
    "gallbladder*": TissuePrior(0, 20, 5, 8),
    "urinary_bladder*": TissuePrior(-3, 15, 10, 8),
    "prostate*": TissuePrior(25, 50, 50, 12),
    "thyroid*": TissuePrior(70, 130, 90, 15),
    "stomach*": TissuePrior(5, 50, 60, 25, gas=0.5),
    "duodenum*": TissuePrior(10, 45, 60, 20, gas=0.2),
    "small_intestine*": TissuePrior(10, 45, 80, 22, gas=0.2),
    "colon*": TissuePrior(-80, 60, 60, 60, gas=0.6),
    "esophagus*": TissuePrior(20, 50, 30, 15, gas=0.2),
    "heart*": TissuePrior(30, 50, 150, 20),
    "*atrium*": TissuePrior(30, 50, 180, 15),
    "*atrial*": TissuePrior(30, 50, 180, 15),
    "*artery*": VESSEL,
    "*vein*": VESSEL,
    "*vena_cava*": VESSEL,
    "aorta*": VESSEL,
    "*trunk*": VESSEL,
    "spinal_cord*": TissuePrior(20, 45, 5, 8),
    "*disc*": TissuePrior(60, 110, 0, 12),
    "costal_cartilage*": TissuePrior(70, 160, 0, 40),
    "*vertebra*": BONE,
    "rib*": TissuePrior(150, 350, 20, 80, shell=550),
    "sternum*": TissuePrior(80, 220, 20, 50, shell=350),
    "sacrum*": BONE,
    "*hip*": BONE,
    "femur*": TissuePrior(100, 300, 0, 60, shell=900),
    "humerus*": TissuePrior(100, 300, 0, 60, shell=800),
    "scapula*": TissuePrior(150, 350, 0, 80, shell=600),
    "clavicle*": TissuePrior(150, 350, 0, 80, shell=600),
    "skull*": TissuePrior(300, 700, 0, 120, shell=900),
    "*glute*": MUSCLE,
    "*iliopsoas*": MUSCLE,
    "*back_muscle*": MUSCLE,
    "*autochthon*": MUSCLE,
    "brain*": TissuePrior(25, 40, 5, 6),
}
"""Prior of each structure, by pattern of its concept id; the first match counts."""

SOFT_TISSUE = TissuePrior(20, 60, 40, 15)
FAT_HU = (-120.0, -85.0)
MUSCLE_HU = (35.0, 65.0)
SKIN_HU = (-10.0, 40.0)
AIR_HU = -1000.0


def prior_of(concept_id: str) -> TissuePrior:
    """Hounsfield prior of a concept; soft tissue where no pattern matches.

    >>> prior_of("liver").low
    40
    """
    return first_match(CT_PRIORS, concept_id) or SOFT_TISSUE


def first_match(priors: Mapping[str, Prior], concept_id: str) -> Prior | None:
    """The prior of the first pattern that a concept's id matches, ``None`` where none does."""
    matches = (prior for pattern, prior in priors.items() if fnmatchcase(concept_id, pattern))
    return next(matches, None)


def synthesise_ct(
    labels: Tensor, distances: Tensor, *, concepts: Sequence[str], generator: Generator
) -> Tensor:
    """Hounsfield units ``1 X Y Z`` for a crop of labels.

    Args:
        labels: ``X Y Z``, 0 for unlabelled, ``i`` for ``concepts[i - 1]``.
        distances: ``2 X Y Z`` in mm: outside the core of the body, and depth inside it.
        concepts: Concept id of each label.
        generator: Source of randomness.
    """
    phase = uniform(0.0, 1.0, generator) if chance(0.75, generator) else 0.0
    priors = [prior_of(concept) for concept in concepts]
    image = unlabelled_body(labels, distances, generator)
    means = torch.zeros(len(priors) + 1)
    textures = torch.zeros(len(priors) + 1)
    for number, prior in enumerate(priors, start=1):
        gain = phase * uniform(0.3, 1.0, generator) * prior.enhancement
        means[number] = uniform(prior.low, prior.high, generator) + gain
        textures[number] = prior.texture * uniform(0.3, 1.2, generator)
    index = labels.long()
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    grain = 0.6 * torch.randn(shape, generator=generator)
    grain = grain + 0.8 * smooth_noise(shape, (24, 24, 24), generator)[0]
    image = torch.where(labels > 0, means[index] + textures[index] * grain, image)
    image = add_bone_shell(image, labels, priors, generator)
    return add_gas(image, labels, priors, generator)[None]


def unlabelled_body(labels: Tensor, distances: Tensor, generator: Generator) -> Tensor:
    """Hounsfield units of fat, muscle, skin and air where no structure is labelled.

    A muscle wall of random thickness lines the core, fat fills it, and both are broken up by
    smooth noise. Outside there may be more muscle, as around bowel that reaches the core's edge;
    then subcutaneous fat of random thickness ends in skin.
    """
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    outside, depth = distances
    fat = uniform(*FAT_HU, generator) + 12 * torch.randn(shape, generator=generator)
    muscle = uniform(*MUSCLE_HU, generator) + 12 * torch.randn(shape, generator=generator)
    wobble = smooth_noise(shape, (5, 5, 5), generator)[0]
    islands = smooth_noise(shape, (22, 22, 22), generator)[0]
    wall_mm = uniform(4.0, 25.0, generator) * (1 + 0.4 * wobble)
    muscular = (depth < wall_mm) | (islands > uniform(0.2, 1.6, generator))
    if chance(0.3, generator):  # limbs, buttocks and thin people are mostly muscle inside
        muscular |= islands > uniform(-0.8, 0.2, generator)
    inside = torch.where(muscular & (islands > -1.3), muscle, fat)
    outer_mm = uniform(3.0, 22.0, generator) if chance(0.7, generator) else 0.0
    around = outside - outer_mm * (1 + 0.4 * smooth_noise(shape, (6, 6, 6), generator)[0])
    skin_mm = uniform(2.0, 40.0, generator) * (1 + 0.35 * wobble).clamp(min=0.2)
    skin = torch.full(shape, uniform(*SKIN_HU, generator))
    air = AIR_HU + 8 * torch.randn(shape, generator=generator)
    beyond = torch.where(around < skin_mm - 3, fat, torch.where(around < skin_mm, skin, air))
    beyond = torch.where(around < 0, muscle, beyond)
    if chance(0.6, generator):
        beyond = add_table(beyond, around > skin_mm + 4, generator)
    return torch.where(outside > 0, beyond, inside)


def add_table(image: Tensor, free: Tensor, generator: Generator) -> Tensor:
    """A thin curved couch behind the body (low Y), where there is air."""
    x = torch.linspace(-1, 1, image.shape[0])[:, None, None]
    y = torch.arange(image.shape[1])[None, :, None]
    surface = uniform(0.0, 0.25, generator) * image.shape[1] + uniform(0.0, 8.0, generator) * x**2
    thickness = uniform(0.7, 2.5, generator)
    couch = ((y - surface).abs() < thickness).expand_as(image) & free
    return torch.where(couch, torch.full_like(image, uniform(-700, 150, generator)), image)


def add_bone_shell(
    image: Tensor, labels: Tensor, priors: Sequence[TissuePrior], generator: Generator
) -> Tensor:
    """Denser outer layer of bones, one voxel thick."""
    shells = torch.zeros(len(priors) + 1)
    for index, prior in enumerate(priors, start=1):
        if prior.shell is not None:
            shells[index] = prior.shell * uniform(0.5, 1.2, generator)
    shell = shells[labels.long()]
    bone = (shell > 0).float()[None, None]
    interior = -functional.max_pool3d(-bone, 3, stride=1, padding=1)[0, 0]
    edge = (bone[0, 0] > 0) & (interior == 0)
    weight = uniform(0.3, 0.9, generator)
    return torch.where(edge, image * (1 - weight) + shell * weight, image)


def add_gas(
    image: Tensor, labels: Tensor, priors: Sequence[TissuePrior], generator: Generator
) -> Tensor:
    """Gas inside hollow organs, as large as they are or in bubbles, and dense oral contrast."""
    hollow = torch.zeros(len(priors) + 1)
    for index, prior in enumerate(priors, start=1):
        hollow[index] = prior.gas * uniform(0.0, 1.0, generator)
    fraction = hollow[labels.long()]
    if not bool((fraction > 0).any()):
        return image
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    knots = 40 if chance(0.35, generator) else 14  # stool is full of bubbles
    blobs = smooth_noise(shape, (knots, knots, knots), generator)[0]
    lumen = (fraction > 0).float()[None, None]
    core = -functional.max_pool3d(-lumen, 3, stride=1, padding=1)[0, 0] > 0
    level = torch.erfinv((1 - 2 * fraction).clamp(-0.999, 0.999)) * 2**0.5
    gas = core & (blobs > level)
    image = torch.where(gas, torch.full_like(image, uniform(-1000, -850, generator)), image)
    if chance(0.25, generator):
        dense = core & ~gas & (smooth_noise(shape, (10, 10, 10), generator)[0] > 0.3)
        image = torch.where(dense, image + uniform(50, 250, generator), image)
    return image


@dataclass(frozen=True)
class SequencePrior:
    """Brightness of a tissue, 0 to 1, in the common MR sequences of the head."""

    t1: float
    t2: float
    flair: float


FLUID = SequencePrior(0.08, 0.95, 0.08)
GREY = SequencePrior(0.50, 0.62, 0.68)
DEEP_GREY = SequencePrior(0.60, 0.55, 0.62)
WHITE = SequencePrior(0.85, 0.42, 0.50)
MIXED = SequencePrior(0.74, 0.48, 0.55)

MR_PRIORS: Mapping[str, SequencePrior] = {
    "*ventricle*": FLUID,
    "cavum_septi*": FLUID,
    "cerebrospinal*": FLUID,
    "*cortex*": GREY,
    "hippocampus*": GREY,
    "amygdala*": GREY,
    "caudate*": DEEP_GREY,
    "putamen*": DEEP_GREY,
    "nucleus_accumbens*": DEEP_GREY,
    "thalamus*": SequencePrior(0.68, 0.50, 0.58),
    "globus_pallidus*": SequencePrior(0.76, 0.38, 0.48),
    "ventral_diencephalon*": MIXED,
    "brainstem*": MIXED,
    "optic_chiasm*": SequencePrior(0.55, 0.45, 0.50),
    "*white_matter.*": WHITE,
    "corpus_callosum*": SequencePrior(0.90, 0.38, 0.45),
    "white_matter_hypointensity*": SequencePrior(0.60, 0.75, 0.92),
}
"""Prior of each head structure, by pattern of its concept id; the first match counts."""

SEQUENCES = {"t1": 0.5, "t2": 0.15, "flair": 0.1}
"""How often an image resembles each sequence; otherwise every mean is drawn at random."""


def draw_mr_means(concepts: Sequence[str], *, classes: int, generator: Generator) -> Tensor:
    """Mean of each label in an MR-like image, one of ``classes``, background included.

    Args:
        concepts: Concept id of each label but the background; labels beyond are tissues without
            a name, which get any mean.
        classes: Number of label values.
        generator: Source of randomness.
    """
    means = torch.rand(classes, generator=generator)
    drawn = uniform(0.0, 1.0, generator)
    for sequence, share in SEQUENCES.items():
        if 0 <= drawn < share:
            spread = uniform(0.02, 0.08, generator)
            for label, prior in enumerate(map(mr_prior_of, concepts), start=1):
                if prior is not None and label < classes:
                    shift = spread * float(torch.randn((), generator=generator))
                    means[label] = min(1.0, max(0.0, getattr(prior, sequence) + shift))
        drawn -= share
    if chance(0.85, generator):
        means[0] = 0.0
    return means


def mr_prior_of(concept_id: str) -> SequencePrior | None:
    """Prior of a concept, ``None`` where no pattern matches.

    >>> mr_prior_of("cerebral_white_matter.left").t1
    0.85
    """
    return first_match(MR_PRIORS, concept_id)


def synthesise_mr(
    means: Tensor, labels: Tensor, *, generator: Generator, base: Tensor | None = None
) -> Tensor:
    """MR-like intensities ``1 X Y Z``, each class with its own mean and texture.

    Args:
        means: Mean of each label value; see ``draw_mr_means``.
        labels: ``X Y Z``, background 0.
        generator: Source of randomness.
        base: ``X Y Z``, means with partial volume, in place of those of the labels.
    """
    textures = torch.rand(len(means), generator=generator) * 0.08
    if means[0] == 0:
        textures[0] = 0.01
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    grain = 0.7 * torch.randn(shape, generator=generator)
    grain = grain + 0.7 * smooth_noise(shape, (16, 16, 16), generator)[0]
    clean = means[labels] if base is None else base
    return (clean + textures[labels] * grain)[None]
