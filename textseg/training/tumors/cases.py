"""Scans of made-up brain tumors, some of which cannot be told without their report.

Four sequences of one head show tumors of several kinds, with a swelling around them. Two kinds of
case leave the answer to the report: two lesions of one look of which one is the tumor, and a
swelling that no sequence shows. Nothing in the images depends on that answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from textseg.imaging import Geometry
from textseg.training.augment import chance, uniform
from textseg.training.tumors.canvas import Canvas
from textseg.training.tumors.heads import LOBES, SIDES, Head, Site
from textseg.training.tumors.lesions import Kind, Place, grow_lesion, uneven_width

Ambiguity: TypeAlias = Literal["none", "which", "extent"]
Extent: TypeAlias = Literal["none", "mild", "moderate", "marked"]

KINDS: tuple[Kind, ...] = get_args(Kind)
EDEMA_MM: Mapping[Extent, float] = {"none": 0.0, "mild": 5.0, "moderate": 10.0, "marked": 18.0}
"""How far the swelling around a tumor reaches, by the word that reports have for it."""
DIAMETER_MM: Mapping[Ambiguity, tuple[float, float]] = {
    "none": (10.0, 45.0),
    "which": (14.0, 28.0),
    "extent": (14.0, 30.0),
}

_SPREAD_MM = (10.0, 30.0)


@dataclass(frozen=True)
class TumorPlan:
    """What a case is to show.

    Attributes:
        seed: Of all that chance decides in the images.
        kind: What the tumor, or each of two candidates, is like.
        sites: Where it lies; two if the report has to say which of them is the tumor.
        diameter_mm: About how large the tumor is without its swelling.
        edema: How far the swelling reaches.
        ambiguous: What only the report tells: ``which`` of two, or the ``extent`` of the swelling.
        named: Which of the sites is that of the tumor.
        pushing: It pushes aside what surrounds it.
    """

    seed: int
    kind: Kind
    sites: tuple[Site, ...]
    diameter_mm: float
    edema: Extent
    ambiguous: Ambiguity = "none"
    named: int = 0
    pushing: bool = False

    @property
    def site(self) -> Site:
        """Where the tumor lies."""
        return self.sites[self.named]


@dataclass(frozen=True, eq=False)
class TumorCase:
    """A case as it will be stored.

    Attributes:
        images: ``C X Y Z``, one for each of ``CHANNELS``; 0 outside the brain.
        labels: ``X Y Z``, as in BraTS: 1 necrotic core, 2 edema, 4 enhancing tumor.
        geometry: Where the voxels lie.
        pressed: The ventricles are pressed aside.
        sizes_mm: Greatest extent of each candidate along an axis, without its swelling.
    """

    images: NDArray[np.int16]
    labels: NDArray[np.uint8]
    geometry: Geometry
    pressed: bool
    sizes_mm: tuple[float, ...]


def draw_plan(generator: Generator, *, ambiguous: Ambiguity) -> TumorPlan:
    """A plan with a kind, place, size and swelling drawn at random."""

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    seed = pick(2**62)
    kinds = KINDS if ambiguous == "none" else tuple(kind for kind in KINDS if kind != "metastases")
    kind = kinds[pick(len(kinds))]
    # the swellings of two candidates must not meet
    extents = tuple(EDEMA_MM)[: 3 if ambiguous == "which" else 4]
    sites = _draw_sites(generator, two=ambiguous == "which")
    return TumorPlan(
        seed=seed,
        kind=kind,
        sites=sites,
        diameter_mm=uniform(*DIAMETER_MM[ambiguous], generator),
        edema=extents[pick(len(extents))],
        ambiguous=ambiguous,
        named=pick(len(sites)),
        pushing=chance(0.4, generator) and kind != "metastases",
    )


def _draw_sites(generator: Generator, *, two: bool) -> tuple[Site, ...]:
    """One site; or two, on both sides of a lobe, on one side, or quite apart."""
    side, other = SIDES if chance(0.5, generator) else SIDES[::-1]
    order = torch.randperm(4, generator=generator).tolist()
    first, second = LOBES[order[0]], LOBES[order[1]]
    if chance(0.08, generator):
        first = "cerebellum"
    drawn = uniform(0.0, 1.0, generator)
    if not two:
        return (Site(side, first),)
    if drawn < 0.45:
        return Site(side, first), Site(other, first)
    return Site(side, first), Site(side if drawn < 0.8 else other, second)


def make_case(plan: TumorPlan, head: Head, *, spacing_mm: float) -> TumorCase:
    """The images and the reference of a plan in a head, on cubic voxels in RAS axis order.

    The images are the same whichever site is named, and whatever the extent of a hidden swelling.
    """
    generator = Generator().manual_seed(plan.seed)
    canvas = Canvas(head, spacing_mm, generator)
    radius = plan.diameter_mm / 2
    chosen = _places(plan, canvas, generator)
    push = uniform(0.15, 0.3, generator) * radius
    pressed = plan.pushing and canvas.push_aside(
        [centres[0] for centres in chosen], radius_mm=radius, push_mm=push
    )
    hidden = plan.ambiguous == "extent"
    shown = torch.zeros(canvas.shape, dtype=torch.uint8)
    told = torch.zeros_like(shown)
    sizes = []
    for number, (site, centres) in enumerate(zip(plan.sites, chosen, strict=True)):
        lesion = grow_lesion(
            plan.kind,
            room=canvas.room(site),
            centres=centres,
            radius_mm=radius,
            step_mm=canvas.step_mm,
            reach_mm=max(EDEMA_MM.values()),
            generator=generator,
        )
        width_mm = EDEMA_MM[plan.edema]
        uneven = lesion.swollen(uneven_width(lesion, width_mm, generator))
        (lesion if hidden else uneven).paint(shown)
        if number == plan.named:
            (lesion.swollen(width_mm) if hidden else uneven).paint(told)
        sizes.append(lesion.size_mm)
    return TumorCase(
        images=canvas.render(shown, generator),
        labels=canvas.reference(told),
        geometry=canvas.geometry(generator),
        pressed=pressed,
        sizes_mm=tuple(sizes),
    )


def _places(plan: TumorPlan, canvas: Canvas, generator: Generator) -> list[list[Place]]:
    """Voxels in which each candidate begins to grow, in its site and apart from the other."""
    chosen: list[list[Place]] = []
    # a hidden swelling must not decide anything that shows
    width_mm = 0.0 if plan.ambiguous == "extent" else EDEMA_MM[plan.edema]
    apart_mm = plan.diameter_mm + 2 * width_mm + 4
    for site in plan.sites:
        spots = canvas.spots(site, canvas.room(site), diameter_mm=plan.diameter_mm)
        if chosen:
            gaps = _gaps_mm(spots, chosen[0][0], canvas.step_mm)
            spots = spots[gaps >= min(apart_mm, float(gaps.max()))]
        centres = [_drawn(spots, generator)]
        if plan.kind == "metastases":
            gaps = _gaps_mm(spots, centres[0], canvas.step_mm)
            near = spots[(gaps > _SPREAD_MM[0]) & (gaps < _SPREAD_MM[1])]
            more = 1 + int(torch.randint(3, (1,), generator=generator))
            centres += [_drawn(near if len(near) else spots, generator) for _ in range(more)]
        chosen.append(centres)
    return chosen


def _gaps_mm(spots: Tensor, centre: Place, step_mm: float) -> Tensor:
    offsets = (spots - torch.tensor(centre)) * step_mm
    return offsets.square().sum(dim=1).sqrt()


def _drawn(spots: Tensor, generator: Generator) -> Place:
    x, y, z = spots[int(torch.randint(len(spots), (1,), generator=generator))].tolist()
    return x, y, z
