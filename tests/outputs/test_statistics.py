from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.imaging.volume import Geometry, Source, Volume
from textseg.outputs.statistics import mask_statistics, unmeasured


@pytest.fixture
def ramp():
    """4 x 3 x 5 voxels of 1 x 2 x 3 mm, value 100 x + 10 y + z, axes running L, A, S."""
    x, y, z = np.indices((4, 3, 5))
    data = (100 * x + 10 * y + z).astype(np.float32)[None]
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    return Volume(data, Geometry((4, 3, 5), affine), "ct", Source(None, "array"))


def test_a_hand_counted_mask_measures_as_counted(ramp):
    mask = np.zeros((4, 3, 5), dtype=bool)
    mask[1, 0, 2] = mask[2, 0, 2] = mask[2, 1, 2] = True
    found = mask_statistics(mask, ramp, presence=0.75)
    assert found["voxels"] == 3
    assert found["volume_ml"] == pytest.approx(3 * 6 / 1000)
    assert found["bbox"] == [[1, 3], [0, 2], [2, 3]]
    assert found["centroid_mm"] == pytest.approx([10 - 5 / 3, 20 + 2 / 3, 36])
    assert found["touches_border"] == ["posterior"]
    assert found["intensity_mean"] == pytest.approx((102 + 202 + 212) / 3)
    assert found["intensity_sd"] == pytest.approx(np.std([102, 202, 212]))
    # linear interpolation between order statistics: 102 + 0.1 * 100, 202 + 0.9 * 10
    assert (found["intensity_p5"], found["intensity_p95"]) == pytest.approx((112, 211))
    assert found["intensity_unit"] == "HU"
    assert found["presence"] == 0.75


def test_every_end_of_the_field_of_view_has_its_anatomical_name(ramp):
    ends = {
        (0, 1, 1): ["right"],
        (3, 1, 1): ["left"],
        (1, 0, 1): ["posterior"],
        (1, 2, 1): ["anterior"],
        (1, 1, 0): ["inferior"],
        (1, 1, 4): ["superior"],
        (1, 1, 1): [],
        (3, 2, 0): ["left", "anterior", "inferior"],
    }
    for voxel, expected in ends.items():
        mask = np.zeros((4, 3, 5), dtype=bool)
        mask[voxel] = True
        assert mask_statistics(mask, ramp)["touches_border"] == expected


def test_an_empty_mask_has_no_voxels_and_no_intensities(ramp):
    found = mask_statistics(np.zeros((4, 3, 5), dtype=bool), ramp)
    assert (found["voxels"], found["volume_ml"], found["touches_border"]) == (0, 0.0, [])
    assert found["intensity_mean"] is found["centroid_mm"] is found["bbox"] is None


def test_what_was_never_looked_for_has_no_numbers():
    found = unmeasured(presence=0.1)
    assert found.pop("presence") == 0.1
    assert set(found.values()) == {None}


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
def test_figures_agree_with_listing_every_voxel(seed, density):
    rng = np.random.default_rng(seed)
    shape = (5, 4, 7)
    mask = rng.random(shape) < density
    mask[tuple(rng.integers(0, shape))] = True
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    volume = Volume(
        rng.normal(size=(1, *shape)).astype(np.float32),
        Geometry(shape, affine),
        "mr",
        Source(None, "array"),
    )
    found = mask_statistics(mask, volume)
    voxels = np.argwhere(mask)
    values = volume.data[0][mask].astype(np.float64)
    assert found["voxels"] == len(voxels)
    assert found["centroid_mm"] == pytest.approx(volume.geometry.to_world(voxels).mean(axis=0))
    assert found["bbox"] == [[a, b + 1] for a, b in zip(voxels.min(0), voxels.max(0), strict=True)]
    assert found["intensity_mean"] == pytest.approx(values.mean())
    assert found["intensity_p95"] == pytest.approx(np.percentile(values, 95))
