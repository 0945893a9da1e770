"""The crops that textseg is compared with, by dictionary transforms as MONAI documents them.

What is not random is cached in memory, class indices included, without copies and without metadata.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import monai.transforms as mt
from monai.data import CacheDataset, set_track_meta
from torch import Tensor

from tests.bench.phantom_scans import STRUCTURES, Phantoms
from textseg.datasets import Case

Deformation = Literal["Rand3DElastic", "RandAffine + RandSmoothDeform"]
KEYS = ("image", "label")
MODES = ("bilinear", "nearest")
ROTATION_RAD, SCALE = math.radians(12), (-0.2, 0.25)
ELASTIC_MM, KNOTS_MM = 5.0, 45.0


def cached(cases: Sequence[Case], phantoms: Phantoms) -> CacheDataset:
    """The scans on the crops' grid and cut to the body; nothing random has happened to them."""
    scale = (
        mt.ScaleIntensityRanged("image", -1000, 1000, -4, 4, clip=True)
        if phantoms.modality == "ct"
        else mt.ScaleIntensityRangePercentilesd("image", 0.5, 99.5, -1, 1, clip=True)
    )
    steps = [
        mt.LoadImaged(KEYS, reader="NibabelReader"),
        mt.EnsureChannelFirstd(KEYS),
        mt.Orientationd(KEYS, axcodes="RAS", labels=None),
        mt.Spacingd(KEYS, pixdim=(phantoms.grid_mm,) * 3, mode=MODES),
        mt.CropForegroundd(
            KEYS, "image", select_fn=lambda x: x > -900, margin=4, allow_smaller=True
        ),
        scale,
        mt.ClassesToIndicesd("label", num_classes=STRUCTURES + 1, max_samples_per_class=400),
        mt.EnsureTyped(KEYS, track_meta=False),
    ]
    files = [{"image": str(case.image), "label": str(case.masks[""])} for case in cases]
    return CacheDataset(files, mt.Compose(steps), progress=False, copy_cache=False)


def random_transforms(phantoms: Phantoms, deformation: Deformation) -> mt.Compose:
    """Crop, deformation and image quality, within the ranges of textseg's defaults."""
    crop = mt.RandCropByLabelClassesd(
        KEYS,
        label_key="label",
        spatial_size=phantoms.window,
        ratios=[0.3, *[0.7 / STRUCTURES] * STRUCTURES],
        num_classes=STRUCTURES + 1,
        indices_key="label_cls_indices",
        warn=False,
    )
    contrast = [
        mt.RandAdjustContrastd("image", prob=1.0, gamma=(0.74, 1.35)),
        mt.ScaleIntensityRanged("image", -1, 1, 0, 1),
        mt.RandBiasFieldd("image", prob=1.0, degree=3, coeff_range=(-0.1, 0.1)),
        mt.ScaleIntensityRanged("image", 0, 1, -1, 1),
    ]
    return mt.Compose(
        [
            crop,
            *_deformation(phantoms, deformation),
            mt.RandFlipd(KEYS, prob=0.5, spatial_axis=0),
            *(contrast if phantoms.modality == "mr" else []),
            mt.RandGaussianSmoothd("image", *[(0.1, 0.8)] * 3, prob=1.0),
            mt.RandGaussianNoised("image", prob=1.0, std=0.15),
        ]
    )


def _deformation(phantoms: Phantoms, kind: Deformation) -> list[Any]:
    """Affine and elastic; the first kind resamples once, the second twice but fills its field fast.

    MONAI sizes the one by the noise before it is smoothed and the other by the window.
    """
    moved = {
        "prob": 1.0,
        "spatial_size": phantoms.window,
        "mode": MODES,
        "padding_mode": "border",
        "rotate_range": (ROTATION_RAD,) * 3,
        "scale_range": (SCALE,) * 3,
    }
    voxels = ELASTIC_MM / phantoms.grid_mm
    if kind == "Rand3DElastic":
        # smoothness of noise that is interpolated between knots, and what smoothing leaves of it
        sigma = KNOTS_MM / phantoms.grid_mm / math.sqrt(6)
        most = voxels * math.sqrt(3) * (4 * math.pi * sigma**2) ** 0.75
        return [
            mt.Rand3DElasticd(
                KEYS, sigma_range=(sigma, sigma), magnitude_range=(0.2 * most, most), **moved
            )
        ]
    knots = [max(2, math.ceil(n * phantoms.grid_mm / KNOTS_MM) + 1) for n in phantoms.window]
    deform = mt.RandSmoothDeformd(
        KEYS,
        spatial_size=phantoms.window,
        rand_size=knots,
        prob=1.0,
        field_mode="trilinear",
        align_corners=True,
        def_range=2 * math.sqrt(3) * 0.6 * voxels / max(phantoms.window),
        grid_mode=MODES,
        grid_align_corners=True,
    )
    return [mt.RandAffined(KEYS, **moved), deform]


def crops(
    scans: CacheDataset, phantoms: Phantoms, deformation: Deformation
) -> Iterator[tuple[Tensor, Tensor]]:
    """Image ``1 X Y Z`` and labels ``1 X Y Z``, scan after scan, for ever."""
    transforms = random_transforms(phantoms, deformation).set_random_state(0)
    while True:
        for scan in scans:
            set_track_meta(False)
            try:
                (crop,) = transforms(scan)
            finally:
                set_track_meta(True)
            yield crop["image"], crop["label"]
