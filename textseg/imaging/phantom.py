"""A generated CT of a torso, to measure and to try things with where no scan is at hand.

Ellipsoids in a cylinder, in the places, sizes and Hounsfield units of organs, with noise. It is no
anatomy to judge a model by.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.int16]
Place: TypeAlias = tuple[float, float, float]

AIR_HU, FAT_HU, MUSCLE_HU = -1000, -100, 50
NOISE_HU = 12.0
_SKIN_MM, _MUSCLE_MM = (175.0, 125.0), (160.0, 110.0)


class _Organ(NamedTuple):
    """An ellipsoid; millimetres to the right, front and top of the middle of the scan."""

    hu: int
    centre_mm: Place
    radii_mm: Place


_VERTEBRA_MM = 30
_SPINE_MM = 600

_ORGANS = (
    *(_Organ(-850, (side * 78.0, 0.0, 110.0), (62.0, 88.0, 125.0)) for side in (-1, 1)),
    _Organ(130, (-18.0, 38.0, 62.0), (55.0, 46.0, 52.0)),  # heart
    _Organ(-990, (0.0, -22.0, 225.0), (9.0, 9.0, 80.0)),  # trachea
    _Organ(115, (78.0, 12.0, -42.0), (76.0, 78.0, 64.0)),  # liver
    _Organ(10, (58.0, 50.0, -84.0), (16.0, 16.0, 30.0)),  # gallbladder
    _Organ(120, (-112.0, -38.0, -36.0), (26.0, 42.0, 50.0)),  # spleen
    _Organ(25, (-58.0, 42.0, -40.0), (44.0, 36.0, 48.0)),  # stomach
    _Organ(100, (-8.0, 14.0, -84.0), (62.0, 14.0, 16.0)),  # pancreas
    *(_Organ(180, (side * 62.0, -56.0, -110.0), (27.0, 25.0, 54.0)) for side in (-1, 1)),
    *(_Organ(60, (side * 40.0, -66.0, -170.0), (19.0, 22.0, 80.0)) for side in (-1, 1)),
    *(_Organ(-600, (side * 112.0, 8.0, -160.0), (22.0, 24.0, 80.0)) for side in (-1, 1)),
    *(_Organ(350, (side * 84.0, -48.0, -225.0), (16.0, 46.0, 52.0)) for side in (-1, 1)),
    *(_Organ(450, (side * 96.0, -6.0, -292.0), (25.0, 25.0, 25.0)) for side in (-1, 1)),
    _Organ(5, (0.0, 30.0, -272.0), (46.0, 40.0, 36.0)),  # urinary bladder
    _Organ(160, (-12.0, -46.0, 0.0), (12.0, 12.0, 230.0)),  # aorta
    _Organ(140, (18.0, -42.0, -60.0), (12.0, 11.0, 150.0)),  # inferior vena cava
    *(
        _Organ(280, (0.0, -76.0, float(z)), (23.0, 18.0, 13.0))
        for z in range(-_SPINE_MM, _SPINE_MM + 1, _VERTEBRA_MM)
    ),
    _Organ(15, (0.0, -102.0, 0.0), (9.0, 8.0, 2.0 * _SPINE_MM)),  # spinal canal
)


def torso_phantom(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, seed: int = 0
) -> Image:
    """Hounsfield units of a torso whose middle is the middle of the scan, ``X Y Z`` in RAS.

    The organs keep their size in millimetres: a short scan shows some of them, a long one goes on
    as a spine in a cylinder.

    Args:
        shape: Voxels along each axis.
        spacing_mm: Voxel size along each axis.
        seed: Of the noise.

    >>> image = torso_phantom((41, 33, 25), (9.0, 9.0, 9.0))
    >>> int(image[0, 0, 0]) < -900, int(image[29, 17, 8]) > 60
    (True, True)
    """
    image = np.empty(shape, dtype=np.int16, order="F")
    places = [
        (np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing_mm, strict=True)
    ]
    x, y = places[0][:, None], places[1][None, :]
    body = np.full(shape[:2], AIR_HU, dtype=np.int16)
    for hu, (a, b) in ((FAT_HU, _SKIN_MM), (MUSCLE_HU, _MUSCLE_MM)):
        body[(x / a) ** 2 + (y / b) ** 2 < 1] = hu
    image[...] = body[:, :, None]
    for organ in _ORGANS:
        _draw(image, organ, places)
    noise = np.random.default_rng(seed)
    for z in range(shape[2]):
        image[:, :, z] += (NOISE_HU * noise.standard_normal(shape[:2], np.float32)).astype(np.int16)
    return image


def write_torso_phantom(
    path: Path,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    seed: int = 0,
) -> Path:
    """Writes ``torso_phantom`` as NIfTI, its first axis running to the left as in most CT files."""
    import nibabel as nib

    image = torso_phantom(shape, spacing_mm, seed=seed)
    affine = np.diag([-spacing_mm[0], spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = [
        -sign * (n - 1) / 2 * step
        for sign, n, step in zip((-1, 1, 1), shape, spacing_mm, strict=True)
    ]
    scan: Any = nib.Nifti1Image(image[::-1], affine)  # type: ignore[no-untyped-call]
    scan.header.set_xyzt_units("mm")
    nib.save(scan, path)
    return path


def _draw(image: Image, organ: _Organ, places: Sequence[npt.NDArray[np.floating[Any]]]) -> None:
    """Fills the voxels whose middle lies in the organ."""
    spans = []
    for place, centre, radius in zip(places, organ.centre_mm, organ.radii_mm, strict=True):
        first, last = np.searchsorted(place, (centre - radius, centre + radius))
        spans.append((slice(first, last), ((place[first:last] - centre) / radius) ** 2))
    (i, x), (j, y), (k, z) = spans
    # plane by plane, so that a large organ in a large scan takes no memory to speak of
    across = x[:, None] + y[None, :]
    for plane, height in zip(range(k.start, k.stop), z, strict=True):
        image[i, j, plane][across + height < 1] = organ.hu
