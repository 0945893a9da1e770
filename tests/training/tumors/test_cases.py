"""Scans with tumors: consistent with their reference, and silent on what only the report tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from textseg.training.tumors.canvas import CHANNELS
from textseg.training.tumors.cases import EDEMA_MM, KINDS, TumorPlan, draw_plan, make_case
from textseg.training.tumors.heads import LOBES, Site, phantom_head

SPACING = 6.0
TISSUES = {"ring": {1, 4}, "solid": {4}, "infiltrative": {1}, "cystic": {1, 4}, "metastases": {4}}
LARGE = TumorPlan(
    seed=5, kind="solid", sites=(Site("left", "frontal"),), diameter_mm=34.0, edema="moderate"
)
TWO = replace(
    LARGE,
    kind="ring",
    sites=(Site("left", "parietal"), Site("right", "parietal")),
    diameter_mm=26.0,
    edema="mild",
    ambiguous="which",
)


def rng(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def head():
    return phantom_head(rng(1))


def drawn(ambiguous, count):
    return [draw_plan(rng(seed), ambiguous=ambiguous) for seed in range(1000, 1000 + count)]


@pytest.mark.parametrize("spacing", [SPACING, 3.0])
def test_naming_the_other_lesion_changes_no_voxel_of_the_images(head, spacing):
    plans = [TWO, *drawn("which", 4 if spacing == SPACING else 0)]
    for plan in plans:
        one, other = (make_case(replace(plan, named=n), head, spacing_mm=spacing) for n in (0, 1))
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.geometry.affine, other.geometry.affine)
        assert one.sizes_mm == other.sizes_mm
        assert one.labels.any()
        assert other.labels.any()
        assert not (one.labels.astype(bool) & other.labels.astype(bool)).any()


def test_the_extent_of_a_hidden_swelling_changes_no_voxel_of_the_images(head):
    for plan in drawn("extent", 4):
        cases = {e: make_case(replace(plan, edema=e), head, spacing_mm=SPACING) for e in EDEMA_MM}
        images = [case.images for case in cases.values()]
        assert all(np.array_equal(images[0], other) for other in images[1:])
        volumes = [int((case.labels > 0).sum()) for case in cases.values()]
        assert volumes == sorted(volumes)
        assert volumes[3] > 2 * volumes[0]
        assert not (cases["none"].labels == 2).any()
        cores = [np.isin(case.labels, (1, 4)) for case in cases.values()]
        assert all(np.array_equal(cores[0], core) for core in cores)


def test_a_hidden_swelling_is_as_wide_as_its_word_says(head):
    plan = replace(LARGE, ambiguous="extent", edema="marked", diameter_mm=20.0)
    labels = make_case(plan, head, spacing_mm=3.0).labels
    core = np.isin(labels, (1, 4))
    distance = ndimage.distance_transform_edt(~core, sampling=3.0)
    widest = float(distance[labels == 2].max())
    assert widest == pytest.approx(EDEMA_MM["marked"], abs=3.0)  # the grid is no finer


def test_a_visible_swelling_does_show(head):
    plain = make_case(replace(LARGE, edema="none"), head, spacing_mm=SPACING)
    swollen = make_case(LARGE, head, spacing_mm=SPACING)
    where = swollen.labels == 2
    flair = CHANNELS.index("flair")
    assert where.any()
    assert swollen.images[flair][where].mean() > 1.2 * plain.images[flair][where].mean()
    assert not (plain.labels == 2).any()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_kind(head, kind):
    case = make_case(replace(LARGE, kind=kind), head, spacing_mm=3.0)
    assert set(np.unique(case.labels)) == {0, 2} | TISSUES[kind]


def test_enhancing_tissue_is_brightest_on_contrast_enhanced_t1_alone(head):
    case = make_case(LARGE, head, spacing_mm=3.0)
    white = np.isin(case.labels, 0) & (case.images[0] > 0)
    bright = {
        name: case.images[c][case.labels == 4].mean() / np.quantile(case.images[c][white], 0.9)
        for c, name in enumerate(CHANNELS)
    }
    assert bright["t1ce"] > 1.05
    assert bright["t1"] < 0.8


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lobe", LOBES)
def test_a_tumor_lies_where_its_site_says(head, side, lobe):
    labels, brain = [], []
    for seed in range(2):
        plan = replace(LARGE, seed=seed, sites=(Site(side, lobe),), diameter_mm=22.0)
        case = make_case(plan, head, spacing_mm=SPACING)
        labels.append(np.argwhere(case.labels > 0).mean(axis=0))
        brain.append(np.argwhere(case.images[0] > 0).mean(axis=0))
    right, ahead, above = np.mean(labels, axis=0) - np.mean(brain, axis=0)
    assert (right > 0) == (side == "right")
    assert abs(right) > 1
    expected = {
        "frontal": ahead > 3,
        "parietal": ahead < 2 and above > 2,
        "temporal": above < 0,
        "occipital": ahead < -6,
        "cerebellum": above < -4 and ahead < -3,
    }
    assert expected[lobe]


def test_channels_share_an_outline_and_are_empty_around_it(head):
    case = make_case(TWO, head, spacing_mm=SPACING)
    brain = case.images > 0
    assert case.images.dtype == np.int16
    assert all(np.array_equal(brain[0], other) for other in brain[1:])
    assert 0.15 < brain[0].mean() < 0.6
    assert not case.labels[~brain[0]].any()
    assert not case.images[:, 0].any()


def test_the_grid_covers_a_head_in_ras_order(head):
    geometry = make_case(TWO, head, spacing_mm=3.0).geometry
    assert geometry.shape == (56, 64, 56)
    assert geometry.orientation == "RAS"
    assert geometry.spacing_mm == (3.0, 3.0, 3.0)
    corners = geometry.to_world(np.array([[0, 0, 0], [55, 63, 55]]))
    assert (corners[0] < -50).all()
    assert (corners[1] > 50).all()


def test_a_case_follows_from_its_plan(head):
    first, again = (make_case(TWO, head, spacing_mm=SPACING) for _ in range(2))
    other = make_case(replace(TWO, seed=6), head, spacing_mm=SPACING)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)


def test_only_a_tumor_that_pushes_presses_the_ventricles(head):
    plan = replace(LARGE, diameter_mm=45.0, edema="none")
    calm = make_case(plan, head, spacing_mm=SPACING)
    pushing = [
        make_case(replace(plan, seed=seed, pushing=True), head, spacing_mm=SPACING)
        for seed in range(4)
    ]
    assert not calm.pressed
    assert any(case.pressed for case in pushing)


def test_plans_leave_no_cue_which_lesion_is_named():
    plans = drawn("which", 600)
    named_left = [
        plan.site.side == "left" for plan in plans if len({s.side for s in plan.sites}) == 2
    ]
    assert 0.43 < np.mean([plan.named for plan in plans]) < 0.57
    assert 0.43 < np.mean(named_left) < 0.57
    ways = Counter(tuple(a == b for a, b in zip(*plan.sites, strict=True)) for plan in plans)
    assert set(ways) == {(False, True), (True, False), (False, False)}
    assert {plan.edema for plan in plans} == {"none", "mild", "moderate"}


def test_plans_hold_every_kind_side_lobe_and_size():
    plans = drawn("none", 400)
    assert {plan.kind for plan in plans} == set(KINDS)
    assert Counter(plan.site.lobe for plan in plans)["cerebellum"] < 70
    assert {plan.site for plan in plans} == {Site(s, b) for s in ("left", "right") for b in LOBES}
    assert {plan.edema for plan in plans} == set(EDEMA_MM)
    sizes = [plan.diameter_mm for plan in plans]
    assert 10 <= min(sizes) < 12
    assert 43 < max(sizes) <= 45
