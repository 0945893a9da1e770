"""Masks of SAT-shaped models lie where they belong, whatever the scan's axes, spacing and size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import one_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sat.reference import dice
from tests.sat.tiny import (
    BOX,
    SPACING,
    WINDOW,
    box_of,
    bright,
    domain,
    everywhere,
    phantom,
    stand_in,
    stored,
    tilted,
)
from textseg.errors import InputError

__all__ = ["one_thread"]

ORIENTATIONS = ("RAS", "LPS", "PSL", "IAR", "SLA", "ARI")
SHAPES = {
    "smaller than the window": (11, 9, 5),
    "longer than the window along one axis": (37, 9, 5),
    "larger than the window": (25, 22, 19),
    "as large as the window, in air": (18, 14, 10),
}


@pytest.mark.parametrize("averaging", ["streamed", "published"])
@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_mask_lies_on_the_voxels_of_the_scan_whatever_its_size(name, modality, averaging):
    values = phantom(SHAPES[name], BOX, modality)
    scan = stored(values, SPACING, orientation="LPS")
    segmenter = stand_in(bright, averaging=averaging)
    found = segmenter(scan, "liver", modality=modality)
    assert found["liver"].status == "ok"
    wanted, _ = stored(box_of(values.shape, BOX).astype(np.uint8), SPACING, orientation="LPS")
    np.testing.assert_array_equal(found["liver"].mask, wanted.astype(bool))
    (grid,) = found.manifest.run.grids
    inner = tuple(size - 2 for size in values.shape)
    assert grid.shape == inner
    assert (grid.windows > 1) == any(a > b for a, b in zip(inner, WINDOW, strict=True))
    assert {window.shape for window in segmenter.network.seen} == {(1, 1, *WINDOW)}


@settings(max_examples=25)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    degrees=st.tuples(*[st.floats(-20, 20)] * 3),
    shape=st.tuples(st.integers(9, 33), st.integers(8, 21), st.integers(5, 17)),
    modality=st.sampled_from(["ct", "mr"]),
)
def test_an_oblique_scan_stays_oblique(orientation, degrees, shape, modality):
    values = phantom(shape, BOX, modality)  # which keeps the box clear of the air around
    place = {"orientation": orientation, "turn": tilted(degrees)}
    result = stand_in(bright)(stored(values, SPACING, **place), "liver", modality=modality)
    wanted, affine = stored(box_of(shape, BOX).astype(np.uint8), SPACING, **place)
    np.testing.assert_array_equal(result["liver"].mask, wanted.astype(bool))
    np.testing.assert_allclose(result.geometry.affine, affine)


@pytest.mark.parametrize("orientation", ["RAS", "PSL"])
@pytest.mark.parametrize("spacing", [(0.8, 1.3, 2.2), (2.5, 0.6, 5.0)])
def test_a_scan_of_another_spacing_gets_its_ball_back(spacing, orientation):
    shape = tuple(round(48 / step) for step in spacing)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    ball = (x - 4) ** 2 + (y + 3) ** 2 + z**2 < 12**2
    values = np.where(ball, 900.0, 40.0).astype(np.float32)
    place = {"orientation": orientation, "turn": tilted((9, -14, 5))}
    mask = stand_in(bright)(stored(values, spacing, **place), "liver", modality="ct")["liver"].mask
    wanted, affine = stored(ball.astype(np.uint8), spacing, **place)
    assert mask.shape == wanted.shape
    found, there = np.argwhere(mask), np.argwhere(wanted)
    shift = affine[:3, :3] @ (found.mean(0) - there.mean(0))
    # samples every 1 x 1 x 3 mm, which a mirrored or swapped axis would miss by 8 mm
    assert np.linalg.norm(shift) < 1
    assert dice(mask, wanted.astype(bool)) > 0.85


@pytest.mark.parametrize("averaging", ["streamed", "published"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_nothing_is_found_outside_the_box_that_scans_are_cut_to(shape, averaging):
    values = np.full(shape, -1000, dtype=np.float32)
    # above 0 in two corners alone, and the box is between them
    values[2, 1, 1] = values[-3, -2, -2] = 100
    scan = stored(values, SPACING, orientation="PSL")
    mask = stand_in(everywhere, averaging=averaging)(scan, "liver", modality="ct")["liver"].mask
    box = box_of(shape, (slice(2, -2), slice(1, -1), slice(1, -1)))
    wanted, _ = stored(box.astype(np.uint8), SPACING, orientation="PSL")
    np.testing.assert_array_equal(mask, wanted.astype(bool))


def test_what_is_found_in_the_padding_alone_is_not_found():
    def padding(window):
        return torch.where(window == 0, 9.0, -9.0)

    scan = stored(phantom(SHAPES["smaller than the window"], BOX, "ct"), SPACING)
    segmenter = stand_in(padding)
    result = segmenter(scan, "liver", modality="ct")["liver"]
    assert segmenter.network.seen[0].eq(0).any()
    assert result.status == "not_found"
    assert "no voxel" in (result.reason or "")
    assert not result.mask.any()


@pytest.mark.parametrize("axes", ["RAS", "ASR"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_network_sees_the_axes_that_its_domain_names(axes, axis):
    def first_three(window):
        index = torch.arange(window.shape[2 + axis])
        view = [-1 if place == 2 + axis else 1 for place in range(5)]
        return torch.where(index < 3, 9.0, -9.0).view(view).expand_as(window)

    order = ["RAS".index(letter) for letter in axes]
    spacing = tuple(SPACING[axes.index(letter)] for letter in "RAS")
    shape = (7, 9, 6)
    values = np.full(shape, 40, dtype=np.float32)
    values[:2, :, 4:] = 700
    near = [slice(None)] * 3
    near[order[axis]] = slice(0, 3)
    segmenter = stand_in(first_three, [domain("mr", "mr", "vertebra.l5", axes=axes)])
    scan = stored(values, spacing, orientation="LPS")
    mask = segmenter(scan, "L5 vertebra", modality="mr")["L5 vertebra"].mask
    wanted, _ = stored(box_of(shape, tuple(near)).astype(np.uint8), spacing, orientation="LPS")
    np.testing.assert_array_equal(mask, wanted.astype(bool))
    (window,) = segmenter.network.seen
    seen = window[0, 0, *(slice(0, shape[place]) for place in order)]
    assert torch.equal(seen > 0, torch.from_numpy(values > 100).permute(order))


def test_every_concept_is_segmented_on_the_grid_of_its_own_domain():
    # the spine's grid is the scan's; along S the other one samples every third slice
    shape, spacing = (9, 14, 23), (3.0, 1.0, 1.0)
    box = (slice(3, 6), slice(4, 11), slice(5, 14))
    scan = stored(phantom(shape, box, "mr"), spacing, orientation="PIR", turn=tilted((8, 4, -9)))
    segmenter = stand_in(bright)
    found = segmenter(scan, ["liver", "L5 vertebra", "spleen"], modality="mr")
    wanted, _ = stored(box_of(shape, box).astype(np.uint8), spacing, orientation="PIR")
    for prompt in found:
        assert found[prompt].status == "ok"
        np.testing.assert_array_equal(found[prompt].mask, wanted.astype(bool), prompt)
    body, spine = found.manifest.run.grids
    assert (body.domain, spine.domain) == ("body-mr", "spine-mr")
    # cut to the box above 0: R A S in voxels of 1 x 1 x 3 mm, and A S R as the scan has them
    assert body.shape == (8 * 3 - 1, 12, 21 // 3)
    assert spine.shape == (12, 21, 7)


def test_a_scan_without_anything_above_zero_is_refused():
    dark = np.random.default_rng(0).normal(-500, 9, (9, 8, 7))
    with pytest.raises(InputError, match="no voxel is above 0"):
        stand_in(everywhere)((dark, np.eye(4)), "liver", modality="ct")
