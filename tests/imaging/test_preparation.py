"""Scans as networks take them, and masks of a cut working grid on the scan's own voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import InputError
from textseg.imaging import Geometry, Grid, Source, Volume, plan_grid, to_grid
from textseg.imaging.preparation import prepare, standardise

SHAPE = (11, 7, 9)
TILT = np.radians(12)
OBLIQUE = np.array(
    [
        [0.0, -1.1 * np.cos(TILT), 2.4 * np.sin(TILT), 4],
        [-0.9, 0.0, 0.0, -3],
        [0.0, 1.1 * np.sin(TILT), 2.4 * np.cos(TILT), 9],
        [0, 0, 0, 1.0],
    ]
)
SHEARED = np.array([[1.0, 0.3, 0, 4], [0, 1.2, 0, -3], [0, 0, 2.4, 9], [0, 0, 0, 1.0]])
SAT_GRID = Grid((1.0, 1.0, 3.0), aligned="first")


def volume(affine=OBLIQUE, modality="ct", seed=0, shape=SHAPE):
    values = np.random.default_rng(seed).normal(-300, 200, shape).astype(np.float32)
    values[3:8, 2:6, 1:7] += 500
    return Volume(values[None], Geometry(shape, affine), modality, Source(None, "array"))


@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED], ids=["oblique", "sheared"])
@given(data=st.data())
@settings(max_examples=15)
def test_a_cut_grid_restores_as_the_whole_one_with_nothing_outside_the_cut(affine, data):
    whole = plan_grid(Geometry(SHAPE, affine), Grid((1.0, 1.5, 2.0)))
    box = tuple(
        slice(first, data.draw(st.integers(first + 1, size)))
        for size in whole.target.shape
        for first in [data.draw(st.integers(0, size - 1))]
    )
    cut = whole.cropped(box)
    probability = torch.rand(cut.shape, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(whole.shape)
    padded[box] = probability
    assert np.array_equal(cut.restore(probability), whole.restore(padded))


def test_a_cut_grid_refuses_probabilities_of_the_whole_one():
    cut = plan_grid(Geometry(SHAPE, OBLIQUE), SAT_GRID).cropped((slice(0, 2),) * 3)
    with pytest.raises(ValueError, match=r"the working grid is \(2, 2, 2\)"):
        cut.restore(torch.zeros(cut.target.shape))


@pytest.mark.parametrize("axes", ["RAS", "ASR", "LPI"])
def test_axes_run_where_they_are_told_to(axes):
    turned, transform = to_grid(volume(), replace(SAT_GRID, axes=axes))
    assert transform.target.orientation == axes
    # the first voxels coincide: of each grid, its own corner
    assert turned.shape[1:] == transform.shape
    corner = transform.source.to_voxel(transform.target.to_world(np.zeros((1, 3))))[0]
    ends = [(0.0, size - 1.0) for size in SHAPE]
    assert all(min(abs(c - a), abs(c - b)) < 1e-6 for c, (a, b) in zip(corner, ends, strict=True))


def test_aligned_at_the_first_voxel_values_are_taken_at_points():
    ramp = np.tile(np.arange(9, dtype=np.float32), (4, 5, 1))
    scan = Volume(ramp[None], Geometry((4, 5, 9), np.eye(4)), "ct", Source(None, "array"))
    data, transform = to_grid(scan, SAT_GRID)
    assert data[0, 0, 0].tolist() == [0, 3, 6, 8]  # 9 lies beyond
    assert transform.shape == (4, 5, 4)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_sat_gets_the_box_above_zero_with_mean_0_and_deviation_1(modality):
    scan = volume(modality=modality)
    whole, _ = to_grid(scan, SAT_GRID)
    found = prepare(scan, SAT_GRID, how="sat")
    inside = np.argwhere(whole[0].numpy() > 0)
    box = tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))
    assert found.transform.crop == box
    cut = whole[0][box].numpy().astype(np.float64)
    low, high = (-500, 1000) if modality == "ct" else np.percentile(cut, (0.5, 99.5))
    clipped = cut.clip(low, high)
    wanted = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(found.data[0].numpy(), wanted, atol=1e-5)
    assert found.body is None


def test_a_constant_channel_becomes_zero():
    assert standardise(torch.full((1, 3, 2, 2), 7.0), "mr").eq(0).all()


def test_a_scan_with_nothing_above_zero_is_refused_where_it_would_be_cut_to_that():
    dark = replace(volume(), data=np.full((1, *SHAPE), -1000, np.float32))
    with pytest.raises(InputError, match="no voxel is above 0"):
        prepare(dark, SAT_GRID, how="sat")
