"""A deformed head on a fine grid, and the scans that are drawn of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from textseg.imaging import Geometry
from textseg.training.augment import (
    GeometryConfig,
    chance,
    crop_coordinates,
    smooth_noise,
    uniform,
)
from textseg.training.synthesis import DEEP_GREY, SequencePrior, mr_prior_of
from textseg.training.tumors.heads import CHOROID, SITES, Head, Site
from textseg.training.tumors.lesions import CLOSED, FLUID_ROOM, PARTS, TISSUE_ROOM

Place: TypeAlias = tuple[int, int, int]

CHANNELS = ("flair", "t1", "t1ce", "t2")
FIELD_MM = (168.0, 192.0, 168.0)
"""What a scan covers along X Y Z."""

_MULTIPLE = 8
_MIDDLE_MM = (0.0, -18.0, 10.0)
_DEFORMATION = GeometryConfig(
    rotation_deg=8.0, scale=(0.92, 1.04), stretch=0.04, elastic_mm=4.0, elastic_spacing_mm=45.0
)
_SHIFT_MM, _FADING_MM, _PRESSED_MM = 4.0, 15.0, 2.0
_SPREAD = 0.025
_REAL = 0.7


class Canvas:
    """A head, turned and bent at random, on a grid finer than coarse scans.

    Attributes:
        shape: Voxels of the fine grid.
        step_mm: Its voxel size.
        values: ``X Y Z``, the head's values.
    """

    def __init__(self, head: Head, spacing_mm: float, generator: Generator) -> None:
        self._head, self._spacing_mm = head, spacing_mm
        self._factor = fineness(spacing_mm)
        self.step_mm = spacing_mm / self._factor
        x, y, z = (
            math.ceil(mm / spacing_mm / _MULTIPLE) * _MULTIPLE * self._factor for mm in FIELD_MM
        )
        self.shape = (x, y, z)
        shift = [uniform(-_SHIFT_MM, _SHIFT_MM, generator) for _ in range(3)]
        size = torch.tensor(head.values.shape)
        centre = (size - 1) / 2 + torch.tensor(shift) / torch.tensor(head.spacing_mm)
        self._coordinates = crop_coordinates(
            _DEFORMATION,
            centre=centre,
            shape=self.shape,
            spacing_mm=torch.tensor(head.spacing_mm),
            target_mm=(self.step_mm,) * 3,
            generator=generator,
        )
        self.values = self._sampled(head.values)

    def push_aside(self, centres: Sequence[Place], *, radius_mm: float, push_mm: float) -> bool:
        """Moves what surrounds the centres outward, and tells whether the ventricles were reached.

        At the radius everything moves by the push; the movement fades to nothing at the centre, and
        with the distance outside.
        """
        moved = torch.zeros(3, *self.shape)
        for centre in centres:
            places = zip(self.shape, centre, strict=True)
            axes = [(torch.arange(n) - c) * self.step_mm for n, c in places]
            x, y, z = torch.meshgrid(*axes, indexing="ij")
            distance = (x * x + y * y + z * z).sqrt()
            outside = torch.exp((radius_mm - distance) / _FADING_MM) / distance.clamp(min=1e-3)
            stretch = push_mm * torch.where(distance < radius_mm, 1 / radius_mm, outside)
            moved += torch.stack([x * stretch, y * stretch, z * stretch])
        ventricles = self._head.holding("lateral_ventricle")[self.values.long()]
        reached = bool((moved[:, ventricles].norm(dim=0) >= _PRESSED_MM).any())
        self._coordinates -= torch.einsum("ij,jxyz->ixyz", self._source_per_mm(), moved)
        self.values = self._sampled(self._head.values)
        return reached

    def room(self, site: Site) -> Tensor:
        """Where a tumor of this site may grow, ``X Y Z``.

        That is tissue of its half of the cerebrum or the cerebellum; its core also fills the sulci
        of that half, and neither reaches into the ventricles.
        """
        head = self._head
        below = site.lobe == "cerebellum"
        own = head.holding(f".{site.side}") & (head.holding("cerebell") == below)
        tissue = own & ~head.holding("ventricle", CHOROID)
        white = head.holding("cerebral_white_matter")[head.values.long()]
        middle = float(white.nonzero()[:, 0].float().mean())
        beyond = self._coordinates[0] > middle
        half = beyond if site.side == "right" else ~beyond
        values = self.values.long()
        room = torch.where(tissue[values], TISSUE_ROOM, CLOSED)
        sulci = head.holding("cerebrospinal_fluid")[values] & half
        return torch.where(sulci, FLUID_ROOM, room).to(torch.uint8)

    def spots(self, site: Site, room: Tensor, *, diameter_mm: float) -> Tensor:
        """Voxels of a site, those with most room for a tumor around them, ``N 3``."""
        stride = (slice(None, None, self._factor),) * 3
        coarse = self._coordinates[(slice(None), *stride)]
        sites = _nearest(self._head.sites, coarse) == SITES.index(site) + 1
        free = (room[stride] > CLOSED).float()
        width = 2 * round(diameter_mm / self._spacing_mm / 2) + 1
        space = free[None]
        for axis in range(3):  # one axis after the other takes a fraction of the time
            size = [width if i == axis else 1 for i in range(3)]
            half = [width // 2 if i == axis else 0 for i in range(3)]
            space = functional.avg_pool3d(space, size, stride=1, padding=half)
        sites &= free > 0
        roomy = space[0] >= space[0][sites].median()
        return (sites & roomy).nonzero() * self._factor

    def render(self, parts: Tensor, generator: Generator) -> NDArray[np.int16]:
        """A scan for each of ``CHANNELS`` that shows these parts of tumors, ``C X Y Z``."""
        values = self.values.long()
        clean = _tissue_means(self._head.concepts, generator).T[:, values]  # C X Y Z
        if self._head.t1 is not None and chance(_REAL, generator):
            real = self._sampled(self._head.t1)
            for name in ("t1", "t1ce"):
                clean[CHANNELS.index(name)] = real
        ill = _part_means(generator).T[:, parts.long()]
        clean = self._coarse(torch.where(parts > 0, ill, clean))
        sick = self._coarse((parts > 0).float()[None])
        brain = self._coarse((values > 0).float()[None]) >= 0.5
        scans = [_scanned(channel, sick[0], generator) for channel in clean]
        image = torch.where(brain, torch.stack(scans).round().clamp(1, 30_000), 0)
        return image.to(torch.int16).numpy()

    def reference(self, parts: Tensor) -> NDArray[np.uint8]:
        """The label of each voxel that is at least half tumor.

        A voxel is edema where less than half of it is core, so the core's labels do not depend on
        what surrounds it.
        """
        label_of = torch.tensor([0, *(part.label for part in PARTS.values())])
        labels = label_of[parts.long()]
        necrotic, edema, enhancing = self._coarse(
            torch.stack([(labels == value).float() for value in (1, 2, 4)])
        )
        core = torch.where(enhancing > necrotic, 4, 1)
        whole = torch.where(necrotic + enhancing >= 0.5, core, 2)
        inside = necrotic + edema + enhancing >= 0.5
        return torch.where(inside, whole, 0).to(torch.uint8).numpy()

    def geometry(self, generator: Generator) -> Geometry:
        """Where the scans lie, about as a scanner would place them."""
        shape = tuple(n // self._factor for n in self.shape)
        affine = np.diag([*(self._spacing_mm,) * 3, 1.0])
        for axis, (n, middle) in enumerate(zip(shape, _MIDDLE_MM, strict=True)):
            corner = middle + uniform(-12.0, 12.0, generator) - (n - 1) / 2 * self._spacing_mm
            affine[axis, 3] = round(corner, 1)
        return Geometry((shape[0], shape[1], shape[2]), affine)

    def _sampled(self, volume: Tensor) -> Tensor:
        return _nearest(volume, self._coordinates)

    def _coarse(self, volume: Tensor) -> Tensor:
        for axis in (1, 2, 3) if self._factor == 2 else ():
            halves = volume.unfold(axis, 2, 2)
            volume = (halves[..., 0] + halves[..., 1]) / 2
        return volume

    def _source_per_mm(self) -> Tensor:
        """About how many of the head's voxels lie along each mm of the canvas, 3x3."""
        places = self._coordinates
        corner = places[:, 0, 0, 0]
        ends = (places[:, -1, 0, 0], places[:, 0, -1, 0], places[:, 0, 0, -1])
        steps = zip(ends, self.shape, strict=True)
        return torch.stack([(end - corner) / (n - 1) / self.step_mm for end, n in steps], dim=1)


def fineness(spacing_mm: float) -> int:
    """How many voxels of the canvas lie along one of the scan."""
    return 2 if spacing_mm >= 2 else 1


def _nearest(volume: Tensor, coordinates: Tensor) -> Tensor:
    """The voxel nearest to each place, 0 beyond the volume."""
    index = coordinates.round().long()
    size = torch.tensor(volume.shape)[:, None, None, None]
    inside = ((index >= 0) & (index < size)).all(dim=0)
    x, y, z = torch.minimum(index.clamp_(min=0), size - 1)
    return torch.where(inside, volume[x, y, z], 0).to(volume.dtype)


def _tissue_means(concepts: Sequence[str], generator: Generator) -> Tensor:
    """Brightness of each value of a head in each channel, ``N C``; background 0.

    Tissues of one prior look alike on both sides. A contrast agent brightens the choroid plexus.
    """
    shifts: dict[SequencePrior, Tensor] = {}
    rows = [torch.zeros(len(CHANNELS))]
    for concept in concepts:
        prior = mr_prior_of(concept) or DEEP_GREY
        if prior not in shifts:
            shifts[prior] = _SPREAD * torch.randn(3, generator=generator)
        flair, t1, t2 = (torch.tensor([prior.flair, prior.t1, prior.t2]) + shifts[prior]).tolist()
        rows.append(torch.tensor([flair, t1, t1 + 0.4 * (CHOROID in concept), t2]))
    return torch.stack(rows).clamp(min=0)


def _part_means(generator: Generator) -> Tensor:
    """Brightness of each part of a tumor in each channel, ``N C``; the first row is no part."""
    means = torch.tensor([[0.0] * 4, *([p.flair, p.t1, p.t1ce, p.t2] for p in PARTS.values())])
    shifts = 1.5 * _SPREAD * torch.randn(means.shape, generator=generator)
    return (means + shifts).clamp(min=0)


def _scanned(clean: Tensor, sick: Tensor, generator: Generator) -> Tensor:
    """A channel as a scanner shows it: uneven tissue, tumors more so, bias, noise, any scale."""
    x, y, z = clean.shape
    mottle = smooth_noise((x, y, z), (14, 16, 14), generator)[0]
    image = clean + (uniform(0.005, 0.02, generator) + 0.05 * sick) * mottle
    image = image.clamp(min=0) ** math.exp(uniform(-0.15, 0.15, generator))
    bias = smooth_noise((x, y, z), (3, 3, 3), generator)[0]
    image = image * torch.exp(uniform(0.0, 0.12, generator) * bias)
    noise = torch.randn(image.shape, generator=generator)
    image = image + uniform(0.008, 0.03, generator) * noise
    return image.clamp(min=0) * uniform(300.0, 1200.0, generator)
