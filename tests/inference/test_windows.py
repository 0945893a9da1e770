"""The window grid: coverage, weights, order and which windows the body needs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import ModelError
from textseg.inference.windows import (
    CORE_WEIGHT,
    WindowGrid,
    axis_starts,
    axis_weights,
    longest_axis,
    occupied_windows,
    plan_windows,
)

lengths = st.integers(1, 70)
windows = st.integers(1, 24)
overlaps = st.floats(0, 0.95)
sizes3 = st.tuples(*[st.integers(1, 13)] * 3)


def full_gaussian(window):
    """Importance of a whole window, made as a volume."""
    axes = [(np.arange(w) - (w - 1) / 2) / (w / 8) for w in window]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.exp(-0.5 * sum(axis**2 for axis in grid))


@given(length=lengths, window=windows, overlap=overlaps)
def test_windows_cover_every_voxel_of_an_axis(length, window, overlap):
    starts = axis_starts(length, window, overlap=overlap)
    covered = {voxel for start in starts for voxel in range(start, start + window)}
    assert covered >= set(range(length))
    assert list(starts) == sorted(set(starts))
    if length >= window:
        assert starts[0] == 0
        assert starts[-1] == length - window


@given(length=lengths, window=windows, overlap=overlaps)
def test_weights_of_an_axis_sum_to_one_at_every_voxel(length, window, overlap):
    starts = axis_starts(length, window, overlap=overlap)
    weights = axis_weights(length, window, starts=starts)
    total = np.zeros(length + 2 * window)
    for start, row in zip(starts, weights, strict=True):
        total[window + start : 2 * window + start] += row
    np.testing.assert_allclose(total[window:-window], 1, atol=1e-12)
    assert not total[:window].any()
    assert not total[-window:].any()


@settings(max_examples=30)
@given(shape=sizes3, window=sizes3, overlap=overlaps)
def test_axis_weights_multiply_to_the_normalised_gaussian_volume(shape, window, overlap):
    grid = WindowGrid.plan(shape, window, overlap)
    gaussian = full_gaussian(window)
    pad = max(window)
    total = np.zeros(tuple(n + 2 * pad for n in shape))
    boxes = [
        tuple(slice(pad + start, pad + start + w) for start, w in zip(starts, window, strict=True))
        for starts in plan_windows(shape, window, overlap).tolist()
    ]
    for box in boxes:
        total[box] += gaussian
    inside = np.zeros(total.shape, dtype=bool)
    inside[tuple(slice(pad, pad + n) for n in shape)] = True
    for box, index in zip(boxes, grid.indices(), strict=True):
        wx, wy, wz = (grid.weights[axis][number] for axis, number in enumerate(index))
        separable = wx[:, None, None] * wy[None, :, None] * wz[None, None, :]
        expected = np.where(inside[box], gaussian / total[box], 0)
        np.testing.assert_allclose(separable, expected, atol=1e-12)


@given(half=st.integers(1, 12), steps=st.integers(0, 6))
def test_an_axis_that_the_steps_fit_looks_the_same_from_both_ends(half, steps):
    length, window = half * (2 + steps), 2 * half
    starts = axis_starts(length, window, overlap=0.5)
    assert starts == tuple(half * i for i in range(steps + 1))
    weights = axis_weights(length, window, starts=starts)
    np.testing.assert_allclose(weights[::-1, ::-1], weights, atol=1e-12)


@pytest.mark.parametrize(
    ("length", "window", "expected"),
    [
        (288, 288, (0,)),
        (289, 288, (0, 1)),
        (432, 288, (0, 144)),
        (433, 288, (0, 144, 145)),
        (100, 288, (-94,)),
        (101, 288, (-93,)),
        (5, 1, (0, 1, 2, 3, 4)),
    ],
)
def test_the_last_window_is_shifted_back_and_short_axes_are_centred(length, window, expected):
    assert axis_starts(length, window, overlap=0.5) == expected


def test_without_overlap_each_voxel_has_one_window_except_where_the_last_is_shifted():
    weights = axis_weights(11, 4, starts=axis_starts(11, 4, overlap=0))
    assert weights[0].tolist() == [1, 1, 1, 1]
    assert (weights[1] == 1).tolist() == [True, True, True, False]
    assert (weights[2] == 1).tolist() == [False, True, True, True]


def test_windows_come_slab_by_slab_along_the_longest_axis():
    starts = plan_windows((9, 7, 23), (8, 4, 8), 0.5)
    assert starts.shape == (2 * 3 * 5, 3)
    assert starts.dtype == np.int64
    assert (np.diff(starts[:, 2]) >= 0).all()
    assert len(np.unique(starts, axis=0)) == len(starts)
    assert sorted(set(starts[:, 2].tolist())) == [0, 4, 8, 12, 15]


def test_the_longest_axis_is_the_first_of_equals():
    assert [longest_axis(shape) for shape in [(5, 9, 9), (3, 2, 1), (1, 1, 2)]] == [1, 0, 2]


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [
        ((5, 0, 3), (4, 4, 4), 0.5),
        ((5, 7, 3), (4, -4, 4), 0.5),
        ((5, 7), (4, 4, 4), 0.5),
        ((5, 7, 3), (4, 4, 4), 1.0),
        ((5, 7, 3), (4, 4, 4), -0.1),
        ((5, 7, 3), (4, 4, 4), float("nan")),
    ],
)
def test_impossible_plans_are_refused(shape, window, overlap):
    with pytest.raises(ModelError):
        plan_windows(shape, window, overlap)


def test_without_a_body_mask_every_window_is_occupied():
    grid = WindowGrid.plan((20, 9, 31), (8, 8, 8), 0.5)
    assert occupied_windows(grid, None).all()
    assert not occupied_windows(grid, torch.zeros(20, 9, 31, dtype=torch.bool)).any()


@settings(max_examples=30)
@given(voxel=st.tuples(st.integers(0, 39), st.integers(0, 8), st.integers(0, 25)))
def test_windows_left_out_cannot_move_a_body_voxel_by_half_an_eight_bit_step(voxel):
    grid = WindowGrid.plan((40, 9, 26), (16, 16, 8), 0.5)
    body = torch.zeros(grid.shape, dtype=torch.bool)
    body[voxel] = True
    occupied = occupied_windows(grid, body)
    kept = 0.0
    for index in grid.indices():
        weight = 1.0
        for axis, number in enumerate(index):
            at = voxel[axis] - grid.starts[axis][number]
            inside = 0 <= at < grid.window[axis]
            weight *= grid.weights[axis][number][at] if inside else 0.0
        if occupied[index]:
            kept += weight
        else:
            assert weight < CORE_WEIGHT
    assert kept > 0.99
    assert not occupied.all()


@given(length=lengths, window=windows, overlap=overlaps)
def test_the_cores_of_an_axis_cover_it(length, window, overlap):
    grid = WindowGrid.plan((length, 1, 1), (window, 1, 1), overlap)
    cores = [grid.core(0, number) for number in range(grid.counts[0])]
    assert {voxel for core in cores for voxel in range(*core)} == set(range(length))
