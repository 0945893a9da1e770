from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from textseg.imaging.grid import Grid, plan_grid
from textseg.imaging.volume import Geometry, Source, Volume
from textseg.outputs.manifest import GridRecord, ModelRecord, RunRecord
from textseg.outputs.segmentation import Prediction, PromptResult, Segmentation

SHAPE = (13, 9, 7)


def oblique_affine():
    """Axes P, L, S, turned by 17 degrees about the last, unequal spacing."""
    turn = np.radians(17)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    axes = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 1]], dtype=float)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ axes * [0.7, 0.8, 3.1]
    affine[:3, 3] = [12.5, -31.25, 7.75]
    return affine


@pytest.fixture
def make_volume():
    def make(affine=None, *, shape=SHAPE, modality="ct", header=None, path=None):
        affine = oblique_affine() if affine is None else affine
        x, y, z = np.indices(shape)
        data = (100 * x + 10 * y + z).astype(np.float32)
        source = Source(path, "nifti" if header is not None else "array", header, {}, "ab" * 32)
        return Volume(data[None], Geometry(shape, affine), modality, source)

    return make


@pytest.fixture
def box_mask():
    """An asymmetric box with one corner voxel missing, so every flip and swap shows."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:9, 1:5, 3:6] = True
    mask[2, 1, 3] = False
    return mask


@pytest.fixture
def run_record():
    grid = GridRecord(
        domain="torso",
        spacing_mm=(3, 3, 3),
        shape=(4, 5, 6),
        window=(96, 96, 96),
        windows=8,
        windows_skipped=3,
    )
    model = ModelRecord(name="nano", version="0.1.0", sha256="0" * 64)
    return RunRecord(model=model, device="cpu", precision="float32", grids=(grid,))


@pytest.fixture
def make_result(make_volume):
    """A result whose working grid is the scan's own, turned to RAS, so a mask survives exactly."""

    def make(prompt, mask=None, *, volume=None, status="ok", **fields):
        volume = volume or make_volume()
        if status != "ok":
            return PromptResult(prompt, status, volume, **fields)
        spacing = volume.geometry.spacing_mm
        permutation = plan_grid(volume.geometry, Grid(spacing)).permutation
        transform = plan_grid(volume.geometry, Grid(tuple(spacing[a] for a in permutation)))
        turned = np.transpose(mask, transform.permutation)
        flipped = [axis for axis in range(3) if transform.flips[axis]]
        probability = torch.from_numpy(np.flip(turned, flipped).astype(np.uint8) * 255)
        return PromptResult(
            prompt, status, volume, prediction=Prediction(probability, transform), **fields
        )

    return make


@pytest.fixture
def make_segmentation(make_volume, make_result, run_record):
    def make(masks, *, absent=(), volume=None, **options):
        volume = volume or make_volume()
        results = [make_result(prompt, mask, volume=volume) for prompt, mask in masks.items()]
        results += [
            make_result(p, volume=volume, status="not_found", reason="Not in the scan.")
            for p in absent
        ]
        return Segmentation(volume, results, run=run_record, **options)

    return make


@pytest.fixture
def nifti_header():
    """A header with everything in it that a rebuilt header would lose or round."""

    def make(kind=nib.Nifti1Header, *, shape=SHAPE, endianness="<"):
        header = kind(endianness=endianness)
        header.set_data_dtype(np.int16)
        header.set_data_shape(shape)
        header.set_sform(oblique_affine(), code=2)
        header.set_qform(oblique_affine(), code=1)
        header["quatern_b"] += 1e-6
        header["pixdim"][4:] = [2.5, 0.25, 0, 7]
        header["pixdim"][1] += 1e-6
        header["scl_slope"], header["scl_inter"] = 2, -1024
        header["descrip"] = b"made by a scanner"
        header.set_xyzt_units("mm", "sec")
        return header

    return make
