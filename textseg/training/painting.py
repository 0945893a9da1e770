"""What a crop looks like: its scan as it was taken, or an image made of its labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from textseg.imaging import Modality, normalise_intensity
from textseg.training.augment import QualityConfig, chance, change_contrast, degrade
from textseg.training.domain_labels import IGNORE, DomainLabels
from textseg.training.resampling import sample_linear
from textseg.training.synthesis import AIR_HU, draw_mr_means, synthesise_ct, synthesise_mr
from textseg.training.torso_mr import torso_mr
from textseg.training.training_case import Part, ScanVoxels, TrainingCase


class Cut(NamedTuple):
    """The part of a case that a crop reads.

    Attributes:
        part: Which part.
        labels: Its labels ``x y z``.
        distances: Its body distances ``2 x y z``, if the case has them.
        coordinates: Voxels of the part for every voxel of the crop, ``3 X Y Z``.
    """

    part: Part
    labels: Tensor
    distances: Tensor | None
    coordinates: Tensor


def cut_to(case: TrainingCase, coordinates: Tensor) -> Cut:
    """The part of a case that sampling at these voxels reads."""
    size = torch.tensor(case.shape)
    first = torch.minimum((coordinates.amin((1, 2, 3)).floor() - 1).clamp(min=0).long(), size - 1)
    last = torch.maximum((coordinates.amax((1, 2, 3)).ceil() + 2).long(), first + 1)
    x, y, z = (
        slice(a, min(b, n))
        for a, b, n in zip(first.tolist(), last.tolist(), case.shape, strict=True)
    )
    distances = None if case.distances is None else case.distances[:, x, y, z]
    return Cut(
        (x, y, z), case.read_labels((x, y, z)), distances, coordinates - first.view(3, 1, 1, 1)
    )


class Painter:
    """Gives the crops of a domain their images.

    Args:
        labels: The domain's labels.
        modality: Modality of its scans.
        quality: Strength of image degradation.
        strip: Probability that unnamed tissues are removed from a synthetic MR image.
    """

    def __init__(
        self, labels: DomainLabels, *, modality: Modality, quality: QualityConfig, strip: float
    ) -> None:
        self.labels = labels
        self.concepts = labels.label_concepts
        self.modality, self.quality, self.strip = modality, quality, strip

    def real(self, scan: ScanVoxels, cut: Cut, generator: Generator) -> Tensor:
        """A channel of the scan as model input ``1 X Y Z``."""
        # what lies beyond the scan is as dark as its darkest
        least = scan.scale.least
        image = sample_linear(scan.read_image(cut.part)[None] - least, cut.coordinates)
        return self._taken(scan.scale.apply(image + least), self.modality, generator)

    def synthetic(
        self, cut: Cut, labels: Tensor, modality: Modality, generator: Generator
    ) -> Tensor:
        """An image of the labels ``X Y Z`` as if of that modality, as model input ``1 X Y Z``."""
        if modality == "ct" or cut.distances is not None:
            tissues = self._paired(labels.clamp(min=0))
            image = self._torso(cut, tissues, modality, generator)
        else:
            image = self._mr(cut, labels.clamp(min=0), generator)
        return self._taken(normalise_intensity(image, modality), modality, generator)

    def _taken(self, image: Tensor, modality: Modality, generator: Generator) -> Tensor:
        """The image as another scanner, or a worse one, would have taken it."""
        if modality != "ct":
            image = change_contrast(image, self.quality, generator)
        return degrade(image, self.quality, generator)

    def _mr(self, cut: Cut, labels: Tensor, generator: Generator) -> Tensor:
        """MR-like image whose structures blend where a voxel holds several of them."""
        highest = max(int(cut.labels.max()), len(self.concepts))
        means = draw_mr_means(self.concepts, classes=highest + 1, generator=generator)
        means = means[self._paired(torch.arange(highest + 1))]
        if chance(self.strip, generator):
            means[len(self.concepts) + 1 :] = means[0]
        source = means[cut.labels.clamp(min=0).long()]
        base = sample_linear(source[None], cut.coordinates)[0]
        return synthesise_mr(means, labels, base=base, generator=generator)

    def _paired(self, labels: Tensor) -> Tensor:
        """Labels with right-hand structures renamed to left-hand ones: pairs look alike."""
        swap = self.labels.swap
        own = torch.arange(len(swap))
        pair = torch.where(swap == IGNORE, own, torch.minimum(swap, own))
        return torch.where(labels < len(pair), pair[labels.clamp(max=len(pair) - 1)], labels)

    def _torso(self, cut: Cut, labels: Tensor, modality: Modality, generator: Generator) -> Tensor:
        assert cut.distances is not None
        distances = sample_linear(cut.distances.float(), cut.coordinates)
        named = torch.where(labels > len(self.concepts), 0, labels)
        image = synthesise_ct(named, distances, concepts=self.concepts, generator=generator)
        size = torch.tensor(cut.labels.shape).view(3, 1, 1, 1)
        scanned = ((cut.coordinates > -0.5) & (cut.coordinates < size - 0.5)).all(0)
        image = torch.where(scanned, image, AIR_HU)
        if modality == "ct":
            return image
        return torso_mr(image, named, concepts=self.concepts, generator=generator)
