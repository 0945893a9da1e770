"""From label maps and real pairs to training batches, one domain at a time.

A batch is a pure function of the seed and its number, so that a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from textseg.datasets import PATIENT
from textseg.imaging import Modality, channel_name
from textseg.network.report_tokens import ReportTokens
from textseg.training.augment import (
    GeometryConfig,
    QualityConfig,
    chance,
    crop_coordinates,
    cut_slab,
    uniform,
)
from textseg.training.conditions import in_order, join_reports, keep_channels
from textseg.training.domain_labels import IGNORE, DomainLabels
from textseg.training.painting import Cut, Painter, cut_to
from textseg.training.resampling import sample_nearest
from textseg.training.training_case import TrainingCase


@dataclass(frozen=True)
class DomainConfig:
    """A family of scans that share a working grid.

    Attributes:
        name: Name in the model manifest.
        datasets: Registry names of the data sets it trains on.
        modality: Modality of its prompts.
        spacing_mm: Voxel size of the working grid, one number or one per axis.
        window: Voxels of a training crop.
        batch: Crops per step.
        share: Share of the steps; domains without one share as their cases weigh.
        weights: How much more often than others scans of a data set are drawn; 1 where not given.
        size_power: A scan's chance falls with its data set's size to this power: at 0 every scan is
            as likely, at 1 every data set, and 0.5 lies between.
        repeats: List a scan once per this many annotated structures, and more often the larger it
            is against the window; 0 lists each once.
        foreground: Probability that a crop is centred near a random structure rather than anywhere.
        skip: Concepts of the data sets that are not trained.
        real: Probability of the real image of a case that has one, rather than a synthetic one.
        random_contrast: Probability of MR-like contrast (as modality ``mr``) in a CT domain.
        jitter: How far a crop's middle strays from that structure, in quarters of the window.
        strip: Probability that unnamed tissues around the structures are removed.
        negatives: Other domains whose scans show none of this domain's concepts.
        negative_share: Part of the MR batches that show such a scan, half of them as that domain's
            own modality looks.
        mirror: Probability of mirroring left and right; a case whose report is given as features
            keeps its sides.
        hold_out_every: Keep every n-th patient's labelled cases for validation; 0 keeps none.
        patient: Regular expression for the part of a case's id that names the patient; by default
            that of BIDS. Where it matches nothing, a patient has one scan, in all its sequences.
        validation: Registry names of data sets whose ``val`` cases are scored during training.
        test: Registry names of data sets whose ``test`` cases `textseg test` scores, or their
            ``val`` cases if they have no others.
        geometry: Strength of deformations.
        quality: Strength of image degradation.
        channels: Names of the channels of its scans, in the order of the network; none for scans
            of a single image.
        channel_dropout: Probability that a crop lacks a channel; one is always there.
        report_dropout: Probability that a crop comes without its report.
        told: More crops a step of which only labels and report are drawn: what reports say of
            places is learned from them without an image.
    """

    name: str
    datasets: list[str]
    modality: Modality
    spacing_mm: float | tuple[float, float, float]
    window: tuple[int, int, int]
    batch: int = 1
    share: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    size_power: float = 0.0
    repeats: int = 0
    foreground: float = 0.7
    jitter: float = 1.0
    skip: list[str] = field(default_factory=list)
    real: float = 0.5
    random_contrast: float = 0.0
    strip: float = 0.0
    negatives: list[str] = field(default_factory=list)
    negative_share: float = 0.0
    mirror: float = 0.5
    hold_out_every: int = 0
    patient: str = PATIENT
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    channels: list[str] = field(default_factory=list)
    channel_dropout: float = 0.0
    report_dropout: float = 0.0
    told: int = 0

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The one name of each channel, however it is spelled."""
        return tuple(map(channel_name, self.channels))

    @property
    def grid_mm(self) -> tuple[float, float, float]:
        """Voxel size of the working grid along X Y Z."""
        spacing = self.spacing_mm
        return spacing if isinstance(spacing, tuple) else (spacing, spacing, spacing)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Every modality its prompts may name: its own, and ``mr`` where CT looks like MR."""
        mixed = self.modality == "ct" and self.random_contrast > 0
        return (self.modality, "mr") if mixed else (self.modality,)


class Told(NamedTuple):
    """What reports said of crops that may have no image.

    Attributes:
        report: The reports.
        labels: ``B X Y Z`` as in ``Batch``.
    """

    report: ReportTokens
    labels: Tensor


class Batch(NamedTuple):
    """Crops of one domain.

    Attributes:
        number: Number of the batch in the run; seeds every random choice made with it.
        domain: Index of the domain.
        modality: Modality the prompts should name.
        image: ``B C X Y Z`` model input; a channel that is not shown is NaN.
        labels: ``B X Y Z`` int64: 0 unlabelled, 1..L, IGNORE; see ``DomainLabels``.
        known: ``B K`` bool, the prompts annotated in each crop.
        report: What was reported of each crop's scan; None where the domain has no reports.
        told: Those reports and further ones, with the labels they speak of.
    """

    number: int
    domain: int
    modality: Modality
    image: Tensor
    labels: Tensor
    known: Tensor
    report: ReportTokens | None = None
    told: Told | None = None


class Crop(NamedTuple):
    """A crop of one case, as ``Batch`` has several; the image may be left out."""

    image: Tensor | None
    labels: Tensor
    known: Tensor
    report: Tensor | None


class DomainSampler:
    """Draws crops of one domain.

    Args:
        config: The domain.
        index: Its index in the mixture.
        labels: Its prompts and labels.
        cases: Its cases.
    """

    def __init__(
        self,
        config: DomainConfig,
        *,
        index: int,
        labels: DomainLabels,
        cases: Sequence[TrainingCase],
    ) -> None:
        self.config = config
        self.index = index
        self.labels = labels
        self.concepts = labels.label_concepts
        self.cases = tuple(cases)
        self.weights = case_weights(config, self.cases)
        self.painter = Painter(
            labels, modality=config.modality, quality=config.quality, strip=config.strip
        )
        reports = (case.report for case in self.cases if case.report is not None)
        self.token_features = next((report.tokens.shape[1] for report in reports), None)

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
        labels = torch.stack([crop.labels for crop in crops])
        known = torch.stack([crop.known for crop in crops])
        if source is not self:
            labels = torch.where(labels == IGNORE, IGNORE, 0)
            known = torch.ones(config.batch, len(self.labels.prompts), dtype=torch.bool)
        images = torch.stack([crop.image for crop in crops if crop.image is not None])
        batch = Batch(number, self.index, modality, images, labels, known)
        if self.token_features is None:
            return batch
        report = join_reports([crop.report for crop in crops], self.token_features)
        more = [self._crop(None, generator, grid=config) for _ in range(config.told)]
        reports = join_reports([crop.report for crop in (*crops, *more)], self.token_features)
        told = Told(reports, torch.cat([labels, *(crop.labels[None] for crop in more)]))
        return batch._replace(report=report, told=told)

    def _crop(self, modality: Modality | None, generator: Generator, *, grid: DomainConfig) -> Crop:
        """A crop of a random case, on the grid of a domain; without a modality no image."""
        case = self.cases[int(torch.multinomial(self.weights, 1, generator=generator))]
        coordinates = crop_coordinates(
            self.config.geometry,
            centre=self._centre(case, generator, grid=grid),
            shape=grid.window,
            spacing_mm=torch.tensor(case.spacing_mm),
            target_mm=grid.grid_mm,
            generator=generator,
        )
        cut = cut_to(case, coordinates)
        labels = sample_nearest(cut.labels, cut.coordinates).long()
        image = None
        if modality is not None:
            image = self._image(case, cut, labels, modality, generator)
        labels = torch.where(labels > len(self.concepts), 0, labels)
        if image is not None and chance(grid.geometry.slab, generator):
            image, labels = _shortened(image, labels, grid, generator)
        known = case.known
        report = None if case.report is None else case.report.tokens
        if chance(self.config.mirror, generator) and case.can_be_mirrored:
            image = None if image is None else image.flip(1).contiguous()
            labels = _swap_sides(labels.flip(0), self.labels.swap)
            swap = self.labels.prompt_swap
            known = case.known[swap.clamp(min=0)] & (swap >= 0)
            report = None if case.report is None else case.report.mirrored
        if report is not None and chance(self.config.report_dropout, generator):
            report = None
        return Crop(image, labels.contiguous(), known, report)

    def _image(
        self,
        case: TrainingCase,
        cut: Cut,
        labels: Tensor,
        modality: Modality,
        generator: Generator,
    ) -> Tensor:
        """Model input ``C X Y Z`` of a crop; a channel that is not there is NaN."""
        use_real = bool(case.scan) and modality == self.config.modality
        use_real = use_real and chance(self.config.real, generator)
        channels = self.config.channel_names
        there = [n for n in channels or ("",) if n in case.scan or not use_real]
        names = keep_channels(there, self.config.channel_dropout, generator)
        images = [
            self.painter.real(case.scan[name], cut, generator)
            if use_real
            else self.painter.synthetic(cut, labels, modality, generator)
            for name in names
        ]
        return in_order(torch.cat(images), names, channels)

    def _centre(self, case: TrainingCase, generator: Generator, *, grid: DomainConfig) -> Tensor:
        """Voxel to centre a crop on: a random structure's or any, kept inside as windows are."""
        size = torch.tensor(case.shape, dtype=torch.float32)
        if case.spots and chance(self.config.foreground, generator):
            present = sorted(case.spots)
            spots = case.spots[present[int(torch.randint(len(present), (), generator=generator))]]
            centre = spots[int(torch.randint(len(spots), (), generator=generator))].float()
        else:
            centre = torch.rand(3, generator=generator) * size
        extent = torch.tensor(grid.window) * torch.tensor(grid.grid_mm)
        half = extent / torch.tensor(case.spacing_mm) / 2
        jitter = self.config.jitter * half
        centre = centre + (torch.rand(3, generator=generator) - 0.5) * jitter
        inside = torch.where(size > 2 * half, centre.clamp(half, size - half), size / 2)
        return inside + (torch.rand(3, generator=generator) - 0.5) * jitter * 0.3


def case_weights(config: DomainConfig, cases: Sequence[TrainingCase]) -> Tensor:
    """How often each case of a domain is drawn, up to a factor, float64.

    A scan of a data set with ``n`` scans and weight ``w`` has the chance ``w / n ** size_power``
    (Zhao et al. 2023), times how often it is listed.
    """
    sizes = Counter(case.dataset for case in cases)
    weights = [
        config.weights.get(case.dataset, 1.0)
        / sizes[case.dataset] ** config.size_power
        * _listed(config, case)
        for case in cases
    ]
    return torch.tensor(weights, dtype=torch.float64)


def _listed(config: DomainConfig, case: TrainingCase) -> int:
    """How often a scan is listed: more with more structures, and with more crops to cover it."""
    if config.repeats == 0:
        return 1
    crops = math.prod(
        max(1.0, size * own / (window * step))
        for size, own, window, step in zip(
            case.shape, case.spacing_mm, config.window, config.grid_mm, strict=True
        )
    )
    return max(1, round(max(1.0, int(case.known.sum()) / config.repeats) * crops))


def _swap_sides(labels: Tensor, swap: Tensor) -> Tensor:
    # IGNORE is -1 and so takes the last entry
    return torch.cat([swap, torch.tensor([IGNORE])])[labels]


def _shortened(
    image: Tensor, labels: Tensor, grid: DomainConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A crop ``C X Y Z`` and its labels as if the scan ended before the crop does."""
    axis = 2 if chance(0.7, generator) else int(torch.randint(2, (), generator=generator))
    thickness = uniform(*grid.geometry.slab_mm, generator) / grid.grid_mm[axis]
    voxels = max(1, round(thickness))
    # what is not scanned is as dark as the darkest of its channel
    slabs = [
        cut_slab(channel[None], labels, voxels=voxels, axis=axis, outside=IGNORE)
        for channel in image
    ]
    return torch.cat([slab for slab, _ in slabs]), slabs[0][1]


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
        self._shares = torch.tensor([share_of(s) for s in samplers], dtype=torch.float64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Batch:
        number = self.start + item
        generator = Generator().manual_seed(self.seed * 1_000_003 + number)
        domain = int(torch.multinomial(self._shares, 1, generator=generator))
        sampler = self.samplers[domain]
        others = [s for s in self.samplers if s.config.name in sampler.config.negatives]
        return sampler.draw(number, generator, others=others)


def share_of(sampler: DomainSampler) -> float:
    """Share of the steps that a domain has, up to a factor."""
    share = sampler.config.share
    return float(sampler.weights.sum()) if share is None else share
