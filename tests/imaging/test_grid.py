"""Resampling values against scipy and torch, memory, and what restore refuses."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from textseg.imaging import Geometry, Grid, Source, Volume, plan_grid, to_grid
from textseg.imaging.resample import apply_along, linear_weights, sample_affine


def volume(data: np.ndarray, affine: np.ndarray) -> Volume:
    if data.ndim == 3:
        data = data[None]
    return Volume(data, Geometry(data.shape[1:], affine), "mr", Source(None, "array"))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_finer_grid_is_linear_interpolation():
    data = noise((7, 5, 9))
    source = volume(data, np.diag([3.0, 2.0, 2.5, 1.0]))
    on_grid, transform = to_grid(source, Grid((1.3, 1.1, 0.9)))

    index = np.argwhere(np.ones(transform.target.shape))
    where = source.geometry.to_voxel(transform.target.to_world(index))
    expected = ndimage.map_coordinates(data, where.T, order=1, mode="nearest")
    # float32 sums against float64
    assert np.allclose(on_grid[0].numpy().ravel(), expected, atol=1e-5)


def test_a_coarser_grid_averages_like_antialiased_interpolation():
    data = noise((24, 18, 12))
    on_grid, _ = to_grid(volume(data, np.eye(4)), Grid((1.0, 3.0, 2.0)))
    images = torch.from_numpy(data)[None]
    expected = functional.interpolate(images, size=(6, 6), mode="bilinear", antialias=True)
    assert np.allclose(on_grid.numpy(), expected.numpy(), atol=1e-5)


def test_fine_stripes_do_not_alias():
    stripes = np.zeros((60, 6, 6), dtype=np.float32)
    stripes[::2] = 1.0
    on_grid, _ = to_grid(volume(stripes, np.eye(4)), Grid((5.0, 1.0, 1.0)))
    assert np.allclose(on_grid[0, 1:-1].numpy(), 0.5, atol=0.03)


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(2, 15), st.integers(2, 70), st.integers(2, 11)),
    spacing=st.tuples(*[st.floats(0.3, 30.0)] * 3),
    sheared=st.booleans(),
)
def test_a_constant_stays_constant(shape, spacing, sheared):
    affine = np.diag([1.0, 0.8, 2.0, 1.0])
    affine[0, 1] = 0.2 if sheared else 0.0
    on_grid, transform = to_grid(volume(np.full(shape, 7.0, np.float32), affine), Grid(spacing))
    assert np.allclose(on_grid.numpy(), 7.0, atol=1e-4)
    assert transform.restore(torch.ones(transform.target.shape)).all()
    assert not transform.restore(torch.zeros(transform.target.shape)).any()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    spacing=st.tuples(*[st.floats(0.6, 4.0)] * 3),
    sheared=st.booleans(),
    as_bytes=st.booleans(),
)
def test_restore_is_interpolation_then_threshold(seed, spacing, sheared, as_bytes):
    affine = np.diag([-1.0, 1.2, 2.0, 1.0])
    affine[2, 1] = 0.3 if sheared else 0.0
    transform = plan_grid(Geometry((11, 13, 7), affine), Grid(spacing))
    blurred = ndimage.gaussian_filter(noise(transform.target.shape, seed), 1.0)
    values = np.clip(0.5 + 2 * blurred, 0.0, 1.0)
    probability = torch.from_numpy((values * 255).astype(np.uint8) if as_bytes else values)

    index = np.argwhere(np.ones(transform.source.shape))
    where = transform.target.to_voxel(transform.source.to_world(index))
    expected = ndimage.map_coordinates(
        probability.double().numpy(), where.T, order=1, mode="nearest"
    ).reshape(transform.source.shape)
    level = 0.4 * (255 if as_bytes else 1)
    # float32 rounding decides only exact ties
    clear = np.abs(expected - level) > 1e-3 * level
    restored = transform.restore(probability, threshold=0.4)
    assert np.array_equal(restored[clear], expected[clear] > level)


def test_channels_do_not_mix():
    data = noise((2, 6, 7, 5))
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    both, _ = to_grid(volume(data, affine), Grid((1.5, 0.9, 1.0)))
    for channel in range(2):
        alone, _ = to_grid(volume(data[channel], affine), Grid((1.5, 0.9, 1.0)))
        assert torch.equal(both[channel], alone[0])


def test_memory_order_does_not_matter():
    data = noise((9, 14, 6))
    grid = Grid((2.0, 1.5, 0.7))
    results = [
        to_grid(volume(np.array(data, order=order), np.diag([1, -1, 1, 1.0])), grid)[0]
        for order in "CF"
    ]
    assert torch.allclose(*results, atol=1e-5)


def test_the_input_is_not_touched():
    data = noise((6, 7, 5))
    before = data.copy()
    on_grid, _ = to_grid(volume(data, np.eye(4)), Grid((1.0, 1.0, 1.0)))
    assert np.array_equal(data, before)
    assert np.array_equal(on_grid[0].numpy(), before)


def test_restore_names_both_shapes_if_they_differ():
    transform = plan_grid(Geometry((4, 5, 6), np.eye(4)), Grid((2.0, 2.0, 2.0)))
    with pytest.raises(ValueError, match=r"\(4, 5, 6\).*\(2, 2, 3\)"):
        transform.restore(torch.zeros((4, 5, 6)))


def test_restore_allocates_little_beyond_the_mask():
    transform = plan_grid(Geometry((200, 180, 160), np.diag([1, 1, 1, 1.0])), Grid((3, 3, 3)))
    probability = torch.full(transform.target.shape, 200, dtype=torch.uint8)
    tracemalloc.start()
    mask = transform.restore(probability)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mask.all()
    # numpy's share only; torch works in slabs of 16 MB
    assert peak < mask.nbytes * 1.2 + 20e6


def test_masks_are_laid_out_like_image_files():
    transform = plan_grid(Geometry((4, 5, 6), np.eye(4)), Grid((2.0, 2.0, 2.0)))
    assert transform.restore(torch.ones(transform.target.shape)).flags.f_contiguous


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_weights_apply_along_one_axis_only(axis):
    data = torch.from_numpy(noise((5, 130, 7) if axis == 1 else (131, 6, 140)))
    weights = linear_weights(np.linspace(0, data.shape[axis] - 1, 97), data.shape[axis])
    expected = torch.tensordot(weights.double(), data.double(), dims=([1], [axis])).movedim(0, axis)
    assert torch.allclose(apply_along(data, axis, weights).double(), expected, atol=1e-5)


def test_sampling_outside_reads_the_fill_value_or_the_edge():
    data = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    far = np.eye(4)
    far[0, 3] = 50.0
    filled = sample_affine(data, to_input=far, shape=(1, 3, 4), fill=-5.0)
    edge = sample_affine(data, to_input=far, shape=(1, 3, 4), fill=None)
    assert torch.equal(filled, torch.full((1, 3, 4), -5.0))
    assert torch.allclose(edge[0], data[1], atol=1e-5)


def test_a_probability_at_the_threshold_is_not_in_the_mask():
    transform = plan_grid(Geometry((4, 5, 6), np.eye(4)), Grid((1.0, 1.0, 1.0)))
    probability = torch.full((4, 5, 6), 0.5)
    probability[0, 0, 0] = probability[3, 4, 5] = 0.51
    assert np.argwhere(transform.restore(probability)).tolist() == [[0, 0, 0], [3, 4, 5]]


def test_a_sheared_scan_of_several_slabs_is_restored_without_seams():
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.4
    transform = plan_grid(Geometry((230, 260, 90), affine), Grid((3.0, 3.0, 3.0)))
    index = np.argwhere(np.ones(transform.target.shape))
    height = transform.target.to_world(index)[:, 2].reshape(transform.target.shape)
    mask = transform.restore(torch.from_numpy(0.5 + (height - 91.0) / 500.0).float())
    # world height of a scan voxel is 2 k here, and 91 lies between two slices
    assert np.array_equal(mask, np.broadcast_to(2 * np.arange(90) > 91, mask.shape))
