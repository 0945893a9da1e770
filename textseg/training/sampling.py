"""From label maps and real pairs to training batches, one domain at a time.

A batch is a pure function of the seed and its number, so that a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from textseg.imaging import Modality, normalise_intensity
from textseg.training.augment import (
    GeometryConfig,
    QualityConfig,
    chance,
    change_contrast,
    crop_coordinates,
    cut_slab,
    degrade,
    sample_at,
    uniform,
)
from textseg.training.synthesis import AIR_HU, draw_mr_means, synthesise_ct, synthesise_mr
from textseg.training.torso_mr import torso_mr

IGNORE = -1
"""Label of voxels whose structure is not known; losses skip them."""


@dataclass(frozen=True)
class DomainConfig:
    """A family of scans that share a working grid.

    Attributes:
        name: Name in the model manifest.
        datasets: Registry names of the data sets it trains on.
        modality: Modality of its prompts.
        spacing_mm: Voxel size of the working grid, the same along each axis.
        window: Voxels of a training crop.
        batch: Crops per step.
        share: Share of the steps.
        skip: Concepts of the data sets that are not trained.
        real: Probability of the real image of a case that has one, rather than a synthetic one.
        random_contrast: Probability of MR-like contrast (as modality ``mr``) in a CT domain.
        strip: Probability that unnamed tissues around the structures are removed.
        negatives: Other domains whose scans show none of this domain's concepts.
        negative_share: Part of the MR batches that show such a scan, half of them as that domain's
            own modality looks.
        mirror: Probability of mirroring left and right.
        hold_out_every: Keep every n-th labelled case for validation; 0 keeps none.
        validation: Registry names of data sets whose ``val`` cases are scored during training.
        geometry: Strength of deformations.
        quality: Strength of image degradation.
    """

    name: str
    datasets: list[str]
    modality: Modality
    spacing_mm: float
    window: tuple[int, int, int]
    batch: int = 1
    share: float = 1.0
    skip: list[str] = field(default_factory=list)
    real: float = 0.5
    random_contrast: float = 0.0
    strip: float = 0.0
    negatives: list[str] = field(default_factory=list)
    negative_share: float = 0.0
    mirror: float = 0.5
    hold_out_every: int = 0
    validation: list[str] = field(default_factory=list)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Every modality its prompts may name: its own, and ``mr`` where CT looks like MR."""
        mixed = self.modality == "ct" and self.random_contrast > 0
        return (self.modality, "mr") if mixed else (self.modality,)


@dataclass(frozen=True)
class TrainingCase:
    """A case in memory, in RAS axis order at its own spacing.

    Attributes:
        id: Identifier of the case.
        labels: ``X Y Z`` int16; 0 unlabelled, 1..N concepts, above N unnamed tissues, IGNORE.
        known: ``N`` bool, the concepts annotated in this case.
        spacing_mm: Voxel size per axis.
        image: ``1 X Y Z`` raw intensities of the real scan, if there is one.
        distances: ``2 X Y Z`` body distances for CT synthesis.
    """

    id: str
    labels: Tensor
    known: Tensor
    spacing_mm: tuple[float, float, float]
    image: Tensor | None = None
    distances: Tensor | None = None


class Batch(NamedTuple):
    """Crops of one domain.

    Attributes:
        number: Number of the batch in the run; seeds every random choice made with it.
        domain: Index of the domain.
        modality: Modality the prompts should name.
        image: ``B 1 X Y Z`` model input.
        labels: ``B X Y Z`` int64: 0 unlabelled, 1..N concepts, IGNORE.
        known: ``B N`` bool.
    """

    number: int
    domain: int
    modality: Modality
    image: Tensor
    labels: Tensor
    known: Tensor


class DomainSampler:
    """Draws crops of one domain.

    Args:
        config: The domain.
        index: Its index in the mixture.
        concepts: Concept ids, in label order (label 1 is ``concepts[0]``).
        swap: Label of the other side for each label, background included; IGNORE where it has none.
        cases: The domain's cases.
    """

    def __init__(
        self,
        config: DomainConfig,
        *,
        index: int,
        concepts: Sequence[str],
        swap: Tensor,
        cases: Sequence[TrainingCase],
    ) -> None:
        self.config = config
        self.index = index
        self.concepts = tuple(concepts)
        self.swap = swap
        self.cases = tuple(cases)
        self._present = [_present_labels(case.labels, len(self.concepts)) for case in self.cases]

    def draw(
        self, number: int, generator: Generator, *, others: Sequence[DomainSampler] = ()
    ) -> Batch:
        """Batch ``number`` of the run: fresh crops, all with the same modality.

        Args:
            number: Number of the batch.
            generator: Source of randomness.
            others: Domains whose scans show none of this domain's concepts.
        """
        config = self.config
        modality = config.modality
        if modality == "ct" and chance(config.random_contrast, generator):
            modality = "mr"
        source = self
        if others and modality == "mr" and chance(config.negative_share, generator):
            source = others[int(torch.randint(len(others), (), generator=generator))]
        look = source.config.modality if source is not self and chance(0.5, generator) else modality
        crops = [source._crop(look, generator, grid=config) for _ in range(config.batch)]
        images, labels, known = (torch.stack(parts) for parts in zip(*crops, strict=True))
        if source is not self:
            labels = torch.where(labels == IGNORE, IGNORE, 0)
            known = torch.ones(config.batch, len(self.concepts), dtype=torch.bool)
        return Batch(number, self.index, modality, images, labels, known)

    def _crop(
        self, modality: Modality, generator: Generator, *, grid: DomainConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image, labels and known concepts of a crop, on the grid of a domain."""
        number = int(torch.randint(len(self.cases), (), generator=generator))
        case = self.cases[number]
        coordinates = crop_coordinates(
            self.config.geometry,
            centre=self._centre(number, generator, grid=grid),
            shape=grid.window,
            spacing_mm=torch.tensor(case.spacing_mm),
            target_mm=grid.spacing_mm,
            generator=generator,
        )
        case, coordinates = _cut_to(case, coordinates)
        labels = sample_at(case.labels[None].float(), coordinates, mode="nearest")[0].long()
        use_real = case.image is not None and modality == self.config.modality
        if use_real and chance(self.config.real, generator):
            image = self._real_image(case, coordinates, generator)
        else:
            image = self._synthetic_image(case, labels, coordinates, modality, generator)
        labels = torch.where(labels > len(self.concepts), 0, labels)
        if chance(grid.geometry.slab, generator):
            thickness = uniform(*grid.geometry.slab_mm, generator) / grid.spacing_mm
            axis = 2 if chance(0.7, generator) else int(torch.randint(2, (), generator=generator))
            image, labels = cut_slab(
                image, labels, voxels=max(1, round(thickness)), axis=axis, outside=IGNORE
            )
        if chance(self.config.mirror, generator):
            image, labels = image.flip(1), _swap_sides(labels.flip(0), self.swap)
            known = case.known[(self.swap[1:] - 1).clamp(min=0)] & (self.swap[1:] > 0)
        else:
            known = case.known
        return image.contiguous(), labels.contiguous(), known

    def _centre(self, number: int, generator: Generator, *, grid: DomainConfig) -> Tensor:
        """Voxel to centre a crop on: a random structure's or any, kept inside as windows are."""
        case = self.cases[number]
        size = torch.tensor(case.labels.shape, dtype=torch.float32)
        present = self._present[number]
        if present and chance(0.7, generator):
            label = present[int(torch.randint(len(present), (), generator=generator))]
            spots = (case.labels == label).nonzero()
            centre = spots[int(torch.randint(len(spots), (), generator=generator))].float()
        else:
            centre = torch.rand(3, generator=generator) * size
        extent = torch.tensor(grid.window) * grid.spacing_mm
        half = extent / torch.tensor(case.spacing_mm) / 2
        centre = centre + (torch.rand(3, generator=generator) - 0.5) * half
        inside = torch.where(size > 2 * half, centre.clamp(half, size - half), size / 2)
        return inside + (torch.rand(3, generator=generator) - 0.5) * half * 0.3

    def _real_image(self, case: TrainingCase, coordinates: Tensor, generator: Generator) -> Tensor:
        assert case.image is not None
        image = sample_at(case.image - case.image.min(), coordinates, mode="bilinear")
        image = normalise_intensity(image + case.image.min(), self.config.modality)
        if self.config.modality != "ct":
            image = change_contrast(image, self.config.quality, generator)
        return degrade(image, self.config.quality, generator)

    def _synthetic_image(
        self,
        case: TrainingCase,
        labels: Tensor,
        coordinates: Tensor,
        modality: Modality,
        generator: Generator,
    ) -> Tensor:
        if modality == "ct" or case.distances is not None:
            tissues = self._paired(labels.clamp(min=0))
            image = self._synthetic_torso(case, tissues, coordinates, modality, generator)
        else:
            image = self._synthetic_mr(case, labels.clamp(min=0), coordinates, generator)
        image = normalise_intensity(image, modality)
        if modality != "ct":
            image = change_contrast(image, self.config.quality, generator)
        return degrade(image, self.config.quality, generator)

    def _synthetic_mr(
        self, case: TrainingCase, labels: Tensor, coordinates: Tensor, generator: Generator
    ) -> Tensor:
        """MR-like image whose structures blend where a voxel holds several of them."""
        highest = max(int(case.labels.max()), len(self.concepts))
        means = draw_mr_means(self.concepts, classes=highest + 1, generator=generator)
        means = means[self._paired(torch.arange(highest + 1))]
        if chance(self.config.strip, generator):
            means[len(self.concepts) + 1 :] = means[0]
        source = means[case.labels.clamp(min=0).long()]
        base = sample_at(source[None], coordinates, mode="bilinear")[0]
        return synthesise_mr(means, labels, base=base, generator=generator)

    def _paired(self, labels: Tensor) -> Tensor:
        """Labels with right-hand structures renamed to left-hand ones: pairs look alike."""
        own = torch.arange(len(self.swap))
        pair = torch.where(self.swap == IGNORE, own, torch.minimum(self.swap, own))
        return torch.where(labels < len(pair), pair[labels.clamp(max=len(pair) - 1)], labels)

    def _synthetic_torso(
        self,
        case: TrainingCase,
        labels: Tensor,
        coordinates: Tensor,
        modality: Modality,
        generator: Generator,
    ) -> Tensor:
        assert case.distances is not None
        distances = sample_at(case.distances.float(), coordinates, mode="bilinear")
        named = torch.where(labels > len(self.concepts), 0, labels)
        image = synthesise_ct(named, distances, concepts=self.concepts, generator=generator)
        size = torch.tensor(case.labels.shape)
        scanned = ((coordinates > -0.5) & (coordinates < size - 0.5)).all(-1)
        image = torch.where(scanned, image, AIR_HU)
        if modality == "ct":
            return image
        return torso_mr(image, named, concepts=self.concepts, generator=generator)


def _cut_to(case: TrainingCase, coordinates: Tensor) -> tuple[TrainingCase, Tensor]:
    """The part of a case that sampling at these voxels reads, and the voxels counted in it."""
    size = torch.tensor(case.labels.shape)
    first = torch.minimum((coordinates.amin((0, 1, 2)).floor() - 1).clamp(min=0).long(), size - 1)
    last = torch.maximum((coordinates.amax((0, 1, 2)).ceil() + 2).long(), first + 1)
    x, y, z = (slice(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True))
    part = replace(
        case,
        labels=case.labels[x, y, z],
        image=None if case.image is None else case.image[:, x, y, z],
        distances=None if case.distances is None else case.distances[:, x, y, z],
    )
    return part, coordinates - first


def _present_labels(labels: Tensor, count: int) -> list[int]:
    held = torch.bincount(labels.flatten().clamp(min=0), minlength=count + 1)
    return [label for label in range(1, count + 1) if held[label]]


def _swap_sides(labels: Tensor, swap: Tensor) -> Tensor:
    return torch.where(labels > 0, swap[labels.clamp(min=0)], labels)


class MixtureDataset(torch.utils.data.Dataset[Batch]):
    """Batches of the mixture; item ``i`` depends on the seed and ``i`` alone.

    Args:
        samplers: One per domain.
        seed: Seed of the whole run.
        start: Number of the first batch.
        length: Number of batches.
    """

    def __init__(
        self, samplers: Sequence[DomainSampler], *, seed: int, start: int, length: int
    ) -> None:
        self.samplers = tuple(samplers)
        self.seed, self.start, self.length = seed, start, length
        self._shares = torch.tensor([s.config.share for s in samplers], dtype=torch.float64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Batch:
        number = self.start + item
        generator = Generator().manual_seed(self.seed * 1_000_003 + number)
        domain = int(torch.multinomial(self._shares, 1, generator=generator))
        sampler = self.samplers[domain]
        others = [s for s in self.samplers if s.config.name in sampler.config.negatives]
        return sampler.draw(number, generator, others=others)
