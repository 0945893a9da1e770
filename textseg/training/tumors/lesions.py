"""Shapes of brain tumors: an irregular core, what it is made of, and the swelling around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Generator, Tensor

from textseg.training.augment import GeometryConfig, random_affine, smooth_noise, uniform

Kind: TypeAlias = Literal["ring", "solid", "infiltrative", "cystic", "metastases"]
Place: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[slice, slice, slice]

CLOSED, FLUID_ROOM, TISSUE_ROOM = 0, 1, 2
"""Where a tumor may not grow; where its core may; where its swelling may as well."""


class Part(NamedTuple):
    """What a tumor is made of: its value in BraTS, and brightness, 0 to 1, in each sequence."""

    label: int
    flair: float
    t1: float
    t1ce: float
    t2: float


PARTS = {
    "necrosis": Part(1, flair=0.42, t1=0.26, t1ce=0.24, t2=0.86),
    "cyst": Part(1, flair=0.22, t1=0.14, t1ce=0.14, t2=0.96),
    "infiltrating": Part(1, flair=0.84, t1=0.46, t1ce=0.46, t2=0.80),
    "enhancing": Part(4, flair=0.72, t1=0.52, t1ce=1.05, t2=0.60),
    "edema": Part(2, flair=0.92, t1=0.60, t1ce=0.60, t2=0.74),
}
NECROSIS, CYST, INFILTRATING, ENHANCING, EDEMA = range(1, len(PARTS) + 1)
"""Values of a map of parts; 0 is where there is no tumor."""

_SHAPES = GeometryConfig(rotation_deg=180.0, scale=(1.0, 1.0), stretch=0.2)
_RAGGED = 0.3
_SHRUNK = 0.88
"""So that an irregular shape reaches about as far as a ball of the radius would."""
_UNEVEN = 0.4
_SPOT_MM = (4.0, 7.0)


@dataclass(frozen=True, eq=False)
class Lesion:
    """A tumor in its box.

    Attributes:
        box: The part of the canvas it may reach.
        parts: ``X Y Z`` of the box, 0 or a number such as ``ENHANCING``.
        distance_mm: ``X Y Z``, from the nearest voxel of the core; 0 in it.
        tissue: ``X Y Z``, where there may be a swelling.
        size_mm: Greatest extent of the core along an axis.
    """

    box: Box
    parts: Tensor
    distance_mm: Tensor
    tissue: Tensor
    size_mm: float

    def swollen(self, width_mm: float | Tensor) -> Lesion:
        """The lesion with swelling wherever the core is no further than the width."""
        swelling = self.tissue & (self.parts == 0) & (self.distance_mm <= width_mm)
        return replace(self, parts=torch.where(swelling, EDEMA, self.parts).to(torch.uint8))

    def paint(self, canvas: Tensor) -> None:
        """Writes the lesion where the canvas is still empty."""
        place = canvas[self.box]
        canvas[self.box] = torch.where(place == 0, self.parts, place)


def grow_lesion(
    kind: Kind,
    *,
    room: Tensor,
    centres: Sequence[Place],
    radius_mm: float,
    step_mm: float,
    reach_mm: float,
    generator: Generator,
) -> Lesion:
    """A lesion without swelling.

    Args:
        kind: What it is like.
        room: ``X Y Z`` of ``CLOSED``, ``FLUID_ROOM`` and ``TISSUE_ROOM``.
        centres: Voxel in the middle of it; of each spot for metastases, the first counting most.
        radius_mm: About half its extent; spots have a size of their own.
        step_mm: Voxel size.
        reach_mm: How wide the widest swelling will be.
        generator: Source of randomness.
    """
    spread = max(np.abs(np.subtract(centres, centres[0])).max() * step_mm, 0.0)
    reach = round((1.4 * radius_mm + spread + 1.5 * reach_mm) / step_mm)
    sizes = zip(centres[0], room.shape, strict=True)
    x, y, z = (slice(max(0, c - reach), min(n, c + reach + 1)) for c, n in sizes)
    box = (x, y, z)
    near = room[box]
    places = [torch.arange(part.start, part.stop) for part in box]
    level = torch.full(near.shape, torch.inf)
    for centre in centres:
        radius = uniform(*_SPOT_MM, generator) if kind == "metastases" else radius_mm
        depth = _irregular_mm(places, centre, radius / step_mm, generator) * step_mm
        level = torch.minimum(level, depth)
    core = ((level < 0) & (near > CLOSED)).numpy()
    if kind != "metastases":
        core = _largest(core)
    distance = ndimage.distance_transform_edt(~core, sampling=step_mm).astype(np.float32)
    parts = _composed(kind, core, radius_mm, step_mm, generator)
    extent = np.ptp(np.argwhere(core), axis=0).max() + 1 if core.any() else 0
    return Lesion(
        box,
        torch.from_numpy(parts),
        torch.from_numpy(distance),
        near == TISSUE_ROOM,
        float(extent * step_mm),
    )


def uneven_width(lesion: Lesion, width_mm: float, generator: Generator) -> Tensor:
    """A width of swelling that wavers about the given one, ``X Y Z``."""
    x, y, z = lesion.parts.shape
    return width_mm * (1 + _UNEVEN * smooth_noise((x, y, z), (6, 6, 6), generator)[0])


def _irregular_mm(
    places: Sequence[Tensor], centre: Place, radius: float, generator: Generator
) -> Tensor:
    """Voxels from the surface of a ragged ellipsoid, negative inside, ``X Y Z``."""
    shape = random_affine(_SHAPES, generator)
    axes = [place.float() - c for place, c in zip(places, centre, strict=True)]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    distance = torch.einsum("ij,jxyz->ixyz", shape, offsets).square_().sum(dim=0).sqrt()
    x, y, z = distance.shape
    knots = 7 if radius > 6 else 5
    noise = smooth_noise((x, y, z), (knots, knots, knots), generator)[0]
    return distance * (1 + _RAGGED * noise.clamp(-1.2, 1.2)) - _SHRUNK * radius


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected component."""
    numbers, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    return np.asarray(numbers == sizes.argmax())


def _composed(
    kind: Kind, core: NDArray[np.bool_], radius_mm: float, step_mm: float, generator: Generator
) -> NDArray[np.uint8]:
    """What each voxel of a core is made of."""
    wall_mm = uniform(0.25, 0.4, generator) * radius_mm
    nodule_mm = uniform(0.7, 1.0, generator) * radius_mm
    where = uniform(0.0, 1.0, generator)
    whole = {"infiltrative": INFILTRATING, "solid": ENHANCING, "metastases": ENHANCING}
    if kind in whole:
        return np.where(core, whole[kind], 0).astype(np.uint8)
    depth = ndimage.distance_transform_edt(core, sampling=step_mm)
    if kind == "ring":
        inner, outer = NECROSIS, depth <= max(wall_mm, 3.0)
    else:
        inner = CYST
        surface = np.argwhere(core & (depth <= step_mm))
        root = surface[int(where * len(surface))] if len(surface) else np.zeros(3)
        axes = [np.arange(n) - c for n, c in zip(core.shape, root, strict=True)]
        squares = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True))
        outer = squares * step_mm**2 <= nodule_mm**2
    return np.where(core, np.where(outer, ENHANCING, inner), 0).astype(np.uint8)
