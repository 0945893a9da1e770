"""A body around the organs: where it probably ends, given only labelled structures."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

WORKING_MM = 4.0
CLOSING_MM = 60.0


def body_distances(labels: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
    """Distances in mm, ``2 X Y Z``: outside the core of the body, and depth inside it.

    The core is each axial slice's labelled structures, closed over gaps of up to ``CLOSING_MM``
    and filled. It misses skin, subcutaneous fat and the outermost muscles; the synthesis adds
    those at random thickness.

    Args:
        labels: Label map ``X Y Z`` in RAS axis order; anything positive is part of the body.
        spacing_mm: Voxel size per axis.
    """
    occupied = labels.numpy() > 0
    zoom = [s / WORKING_MM for s in spacing_mm]
    small = ndimage.zoom(occupied.astype(np.float32), zoom, order=1) > 0.3
    core = _close_slices(small, round(CLOSING_MM / WORKING_MM))
    outside = ndimage.distance_transform_edt(~core, sampling=WORKING_MM)
    depth = ndimage.distance_transform_edt(core, sampling=WORKING_MM)
    field = torch.from_numpy(np.stack([outside, depth]).astype(np.float32))
    full = torch.nn.functional.interpolate(
        field[None], size=tuple(labels.shape), mode="trilinear", align_corners=False
    )
    return full[0]


def _close_slices(mask: np.ndarray, radius: int) -> np.ndarray:
    """Binary closing and hole filling of every axial slice, by distance thresholds."""
    padded = np.pad(mask, ((radius + 1,) * 2, (radius + 1,) * 2, (0, 0)))
    closed = np.zeros_like(padded)
    for z in range(padded.shape[2]):
        if not padded[..., z].any():
            continue
        grown = ndimage.distance_transform_edt(~padded[..., z]) <= radius
        shrunk = ndimage.distance_transform_edt(grown) > radius
        closed[..., z] = ndimage.binary_fill_holes(shrunk | padded[..., z])
    inner = closed[radius + 1 : -radius - 1, radius + 1 : -radius - 1]
    return np.asarray(ndimage.binary_closing(inner, iterations=2) | inner)
