"""Corrupted scans keep every voxel's place and label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.imaging import as_volume
from textseg.training.corruptions import (
    CORRUPTIONS,
    ScanPair,
    noise,
    oriented,
    small_field,
    thick_slices,
)

SHAPE = (9, 8, 11)
AFFINE = np.array([[0, -1.5, 0, 30], [2, 0, 0, -7], [0, 0, 3, 5], [0, 0, 0, 1]], float)


def pair_of(affine=AFFINE, shape=SHAPE):
    """A scan whose every voxel is its own label."""
    labels = np.arange(np.prod(shape)).reshape(shape)
    return ScanPair(as_volume((labels.astype(np.float32), affine), modality="mr"), labels)


def places(pair):
    """World point of each label that is there."""
    index = np.argwhere(pair.labels >= 0)
    points = pair.scan.geometry.to_world(index)
    return dict(zip(pair.labels[tuple(index.T)].tolist(), points.round(6).tolist(), strict=True))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("codes", ["RAS", "PLI", "SAR"])
def test_what_is_kept_stays_where_it_was(name, codes):
    before = oriented(codes)(pair_of())
    after = CORRUPTIONS[name](before)
    assert after.scan.data.shape[1:] == after.labels.shape == after.scan.geometry.shape
    known = places(before)
    assert after.labels.size
    assert {label: known[label] for label in places(after)} == places(after)


@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_turning_moves_voxels_and_their_values_alone(order, flipped):
    letters = [("R", "L"), ("A", "P"), ("S", "I")]
    codes = "".join(letters[axis][flipped[axis]] for axis in order)
    before = pair_of()
    after = oriented(codes)(before)
    assert after.scan.geometry.orientation == codes
    assert places(after) == places(before)
    assert np.array_equal(after.scan.data[0], after.labels)
    back = oriented(before.scan.geometry.orientation)(after)
    assert np.array_equal(back.labels, before.labels)
    assert np.allclose(back.scan.geometry.affine, AFFINE)


def test_slices_along_head_and_feet_become_twice_as_thick():
    before = oriented("SAR")(pair_of())
    after = thick_slices(before)
    assert after.labels.shape == (6, *before.labels.shape[1:])
    assert after.scan.geometry.spacing_mm == (6.0, *before.scan.geometry.spacing_mm[1:])
    assert np.array_equal(after.labels, before.labels[::2])
    inner = before.scan.data[0]
    by_hand = inner[1] / 4 + inner[2] / 2 + inner[3] / 4
    np.testing.assert_allclose(after.scan.data[0][1], by_hand, rtol=1e-6)


def test_a_smaller_field_is_the_middle():
    after = small_field(pair_of())
    assert after.labels.shape == (6, 6, 8)
    assert np.array_equal(after.labels, pair_of().labels[1:7, 1:7, 1:9])


def test_noise_is_the_same_each_time_and_as_strong_as_said():
    pair = pair_of(shape=(30, 30, 30))
    one, other = noise(pair), noise(pair)
    assert np.array_equal(one.scan.data, other.scan.data)
    added = one.scan.data - pair.scan.data
    low, high = np.percentile(pair.scan.data, (1, 99))
    assert added.std() == pytest.approx(0.08 * (high - low), rel=0.02)
    assert np.array_equal(one.scan.geometry.affine, pair.scan.geometry.affine)


def test_several_channels_are_corrupted_alike():
    pair = pair_of()
    double = replace(pair.scan, data=np.concatenate([pair.scan.data, 2 * pair.scan.data]))
    for name in ("slices twice as thick", "smaller field of view", "stored as SAL"):
        after = CORRUPTIONS[name](ScanPair(double, pair.labels))
        np.testing.assert_allclose(after.scan.data[1], 2 * after.scan.data[0])


def test_noise_is_as_strong_as_each_channel_asks_for():
    pair = pair_of(shape=(30, 30, 30))
    weak = replace(pair.scan, data=np.concatenate([pair.scan.data, pair.scan.data / 1000]))
    added = noise(ScanPair(weak, pair.labels)).scan.data - weak.data
    assert added[1].std() == pytest.approx(added[0].std() / 1000, rel=0.02)
