"""Brains to put tumors into: of label maps with whole brains, or a phantom that needs no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Generator, Tensor

from textseg.datasets import Case, load_cases
from textseg.datasets.label_map import read_pair
from textseg.datasets.masks import on_grid
from textseg.errors import InputError, ModelError
from textseg.imaging import Grid, plan_grid, to_grid
from textseg.training.augment import smooth_noise, uniform
from textseg.training.synthesis import mr_prior_of

Side: TypeAlias = Literal["left", "right"]
Lobe: TypeAlias = Literal["frontal", "parietal", "temporal", "occipital", "cerebellum"]

SIDES: tuple[Side, ...] = ("left", "right")
LOBES: tuple[Lobe, ...] = ("frontal", "parietal", "temporal", "occipital", "cerebellum")
NEEDED = (
    *(f"cerebral_white_matter.{side}" for side in SIDES),
    *(f"lateral_ventricle.{side}" for side in SIDES),
)
"""Concepts by which a label map is known to hold a brain, with its sides told apart."""
FLUID = "cerebrospinal_fluid"
CHOROID = "choroid_plexus"

_GAP_MM = 3.0
"""Sulci narrower than twice this stay in the brain when the skull is stripped."""
_WHITE = 0.85


class Site(NamedTuple):
    """A lobe of one side, or one half of the cerebellum."""

    side: Side
    lobe: Lobe


SITES = tuple(Site(side, lobe) for side, lobe in product(SIDES, LOBES))


@dataclass(frozen=True, eq=False)
class Head:
    """A brain without its skull, in RAS axis order, cut to its box.

    Attributes:
        name: Where it comes from.
        values: ``X Y Z``, 0 outside, ``i`` for ``concepts[i - 1]``.
        concepts: Concept of each value.
        sites: ``X Y Z``, 0 for none, ``i`` for ``SITES[i - 1]``; see ``site_map``.
        spacing_mm: Voxel size along each axis.
        t1: ``X Y Z``, a real T1-weighted scan in which white matter is about 0.85.
    """

    name: str
    values: Tensor
    concepts: tuple[str, ...]
    sites: Tensor
    spacing_mm: tuple[float, float, float]
    t1: Tensor | None = None

    def holding(self, *parts: str) -> Tensor:
        """Whether a value, 0 to the last, names a concept whose id contains one of the parts."""
        held = [any(part in concept for part in parts) for concept in self.concepts]
        return torch.tensor([False, *held])


def find_heads(manifest: Path) -> tuple[Case, ...]:
    """The training cases of a case list whose masks hold a whole brain.

    Raises:
        ModelError: E404, the list is faulty, or holds no such case.
    """
    cases = load_cases(manifest)
    heads = tuple(c for c in cases if c.split == "train" and set(NEEDED) <= set(c.concepts))
    if not heads:
        raise ModelError(
            f"None of its {len(cases)} cases is a labelled brain to train on.",
            code="E404",
            path=manifest,
            remedy=f"It takes labels for {', '.join(NEEDED)}; leave out --heads for a phantom.",
        )
    return heads


def load_head(case: Case, *, spacing_mm: float) -> Head:
    """The brain of a label map, on voxels of about the given size.

    What the map leaves open inside the brain becomes fluid, and what it labels without a name
    becomes what is nearest.

    Raises:
        InputError: A file is damaged, or a lobe is missing.
    """
    scan, (seen, labels) = read_pair(case)
    grid = Grid((spacing_mm, spacing_mm, spacing_mm))
    raw = on_grid(labels, plan_grid(labels.geometry, grid).target).values
    named = {v: c[0] for v, c in seen.labels.items() if mr_prior_of(c[0]) or CHOROID in c[0]}
    concepts = tuple(dict.fromkeys((*named.values(), FLUID)))
    table = np.zeros(int(raw.max()) + 1, dtype=np.uint8)
    for value, concept in named.items():
        table[value] = concepts.index(concept) + 1
    values = _stripped(table[raw], raw, fluid=concepts.index(FLUID) + 1, step_mm=spacing_mm)
    box = ndimage.find_objects((values > 0).astype(np.uint8))[0]
    values = np.ascontiguousarray(values[box])
    t1 = None
    if scan is not None and "T1" in case.sequence.upper():
        t1 = _whitened(to_grid(scan, grid)[0][0].numpy()[box], values, concepts)
    sites = site_map(values, concepts)
    missing = set(range(1, len(SITES) + 1)) - set(np.unique(sites).tolist())
    if missing:
        lost = ", ".join(" ".join(SITES[number - 1]) for number in sorted(missing))
        raise InputError(f"The brain has no {lost}.", code="E322", path=labels.path)
    spacing = (spacing_mm, spacing_mm, spacing_mm)
    return Head(case.id, torch.from_numpy(values), concepts, torch.from_numpy(sites), spacing, t1)


def _stripped(
    values: NDArray[np.uint8], raw: NDArray[np.integer], *, fluid: int, step_mm: float
) -> NDArray[np.uint8]:
    """The values inside the brain's outline, without the fluid around it and with no hole."""
    tissue = (values > 0) & (values != fluid)
    steps = max(1, round(_GAP_MM / step_mm))
    padded = np.pad(tissue, steps)
    closed = ndimage.binary_closing(padded, iterations=steps)
    inside = ndimage.binary_fill_holes(closed)[(slice(steps, -steps),) * 3]
    open_ = inside & (values == 0)
    nearest = ndimage.distance_transform_edt(values == 0, return_distances=False, return_indices=1)
    filled = np.where(open_, np.where(raw > 0, values[tuple(nearest)], fluid), values)
    return np.where(inside, filled, 0).astype(np.uint8)


def _whitened(
    scan: NDArray[np.float32], values: NDArray[np.uint8], concepts: Sequence[str]
) -> Tensor:
    white = [i for i, name in enumerate(concepts, start=1) if "cerebral_white_matter" in name]
    scale = _WHITE / max(float(np.median(scan[np.isin(values, white)])), 1e-6)
    return torch.from_numpy(np.clip(scan * scale, 0, 1.2))


def site_map(values: NDArray[np.uint8], concepts: Sequence[str]) -> NDArray[np.uint8]:
    """The site of each voxel of cortex and white matter, ``i`` for ``SITES[i - 1]``, else 0.

    The lobes are approximate: told by where a voxel lies from the middle of the lateral ventricles,
    in lengths and heights of the cerebrum. What lies between two of them has no site, so that a
    site's name is never in doubt.
    """
    sites = np.zeros(values.shape, dtype=np.uint8)
    cerebrum = _voxels_of(values, concepts, "cerebral_white_matter", "cerebral_cortex")
    ventricles = np.argwhere(_voxels_of(values, concepts, "lateral_ventricle"))
    places = np.argwhere(cerebrum)
    low, high = places.min(axis=0), places.max(axis=0)
    from_middle = (places - ventricles.mean(axis=0)) / (high - low)
    ahead, above = from_middle[:, 1], from_middle[:, 2]
    from_back = (places[:, 1] - low[1]) / (high[1] - low[1])
    lobe_of: dict[Lobe, NDArray[np.bool_]] = {
        "frontal": (ahead > 0.14) & (above > -0.10),
        "parietal": (ahead < 0.0) & (from_back > 0.14) & (above > 0.14),
        "temporal": (above < -0.17) & (ahead > -0.12) & (ahead < 0.28),
        "occipital": (from_back < 0.22) & (above < 0.06),
    }
    for number, (side, lobe) in enumerate(SITES, start=1):
        own = [f"cerebral_white_matter.{side}", f"cerebral_cortex.{side}"]
        if lobe == "cerebellum":
            sites[_voxels_of(values, concepts, *(f"{part}.{side}" for part in _CEREBELLUM))] = (
                number
            )
            continue
        chosen = places[lobe_of[lobe] & _voxels_of(values, concepts, *own)[tuple(places.T)]]
        sites[tuple(chosen.T)] = number
    return sites


_CEREBELLUM = ("cerebellar_white_matter", "cerebellar_cortex")


def _voxels_of(
    values: NDArray[np.uint8], concepts: Sequence[str], *parts: str
) -> NDArray[np.bool_]:
    held = [any(part in concept for part in parts) for concept in concepts]
    return np.array([False, *held])[values]


class _Blob(NamedTuple):
    """An ellipsoid; millimetres to the right, front and top of the middle of the head."""

    concept: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]


_PAIRED = (
    _Blob("cerebral_cortex", (27, 0, 12), (41, 84, 54)),
    _Blob("cerebral_cortex", (44, 10, -28), (21, 36, 19)),
    _Blob("cerebellar_cortex", (23, -50, -40), (28, 25, 20)),
    _Blob("cerebellar_white_matter", (20, -46, -40), (16, 13, 9)),
    _Blob("putamen", (27, 4, 4), (7, 18, 10)),
    _Blob("thalamus", (11, -12, 4), (9, 14, 9)),
    _Blob("caudate_nucleus", (17, 20, 10), (5, 12, 9)),
    _Blob("lateral_ventricle", (11, 2, 16), (6, 32, 8)),
)
"""What each side has, on the right; the left is its mirror image. Later ones cover earlier."""
_SINGLE = (
    _Blob("brainstem", (0, -22, -42), (12, 12, 28)),
    _Blob("third_ventricle", (0, -4, 2), (2.5, 12, 9)),
    _Blob("fourth_ventricle", (0, -36, -36), (4, 5, 8)),
)
_PHANTOM_SHAPE, _PHANTOM_MM = (78, 92, 80), 2.0


def phantom_head(generator: Generator) -> Head:
    """A brain made of ellipsoids that differ a little each time, with a folded cortex."""
    concepts = tuple(
        dict.fromkeys(
            f"{name}.{side}"
            for name in ("cerebral_white_matter", *(blob.concept for blob in _PAIRED))
            for side in SIDES
        )
    ) + tuple(blob.concept for blob in _SINGLE)
    values = torch.zeros(_PHANTOM_SHAPE, dtype=torch.uint8)
    axes = [(torch.arange(n) - (n - 1) / 2) * _PHANTOM_MM for n in _PHANTOM_SHAPE]
    folds = 3.0 * smooth_noise(_PHANTOM_SHAPE, (15, 18, 15), generator)[0]
    for blob in _PAIRED:
        for side, sign in zip(SIDES, (-1, 1), strict=True):
            own = axes[0][:, None, None] * sign > 1.0
            depth = _depth_mm(blob, axes, generator, sign=sign)
            values[(depth > 0) & own] = concepts.index(f"{blob.concept}.{side}") + 1
            if blob.concept == "cerebral_cortex":
                white = concepts.index(f"cerebral_white_matter.{side}") + 1
                values[(depth > 5.0 + folds) & own] = white
    for blob in _SINGLE:
        values[_depth_mm(blob, axes, generator) > 0] = concepts.index(blob.concept) + 1
    sites = torch.from_numpy(site_map(values.numpy(), concepts))
    return Head("phantom", values, concepts, sites, (_PHANTOM_MM,) * 3)


def _depth_mm(
    blob: _Blob, axes: Sequence[Tensor], generator: Generator, *, sign: int = 1
) -> Tensor:
    """About how deep each voxel lies inside a blob, ``X Y Z``; negative outside."""
    squares = torch.zeros(())
    radii = [radius * uniform(0.94, 1.06, generator) for radius in blob.radii_mm]
    for axis, (centre, radius, place) in enumerate(zip(blob.centre_mm, radii, axes, strict=True)):
        middle = centre * (sign if axis == 0 else 1) + uniform(-1.5, 1.5, generator)
        view = [-1 if i == axis else 1 for i in range(3)]
        squares = squares + (((place - middle) / radius) ** 2).view(view)
    return (1 - squares.sqrt()) * min(radii)
