"""Images made from label maps: plausible numbers in the right places, the same for a seed."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from fakes import torso_labels

from textseg.knowledge import load_tree
from textseg.training.body import body_distances
from textseg.training.synthesis import (
    AIR_HU,
    CT_PRIORS,
    MR_PRIORS,
    SOFT_TISSUE,
    TissuePrior,
    add_bone_shell,
    add_gas,
    draw_mr_means,
    mr_prior_of,
    prior_of,
    synthesise_ct,
    synthesise_mr,
    unlabelled_body,
)

CONCEPTS = ("spleen", "kidney.right", "kidney.left", "liver", "vertebra.l3", "colon")
RAW = {1: 1, 2: 2, 3: 3, 5: 4, 29: 5, 13: 6}
SPACING = (4.0, 4.5, 5.0)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", name="labels")
def _labels():
    raw = torch.from_numpy(torso_labels((40, 34, 30)).astype(int))
    labels = torch.zeros_like(raw)
    for value, label in RAW.items():
        labels[raw == value] = label
    return labels


@pytest.fixture(scope="module", name="distances")
def _distances(labels):
    return body_distances(labels, SPACING)


def ct(labels, distances, seed=0):
    return synthesise_ct(labels, distances, concepts=CONCEPTS, generator=rng(seed))


def test_ct_is_finite_plausible_and_follows_from_the_seed(labels, distances):
    for seed in range(6):
        image = ct(labels, distances, seed)
        assert image.shape == (1, *labels.shape)
        assert torch.isfinite(image).all()
        assert float(image.min()) > -1150
        assert float(image.max()) < 1500
        assert torch.equal(image, ct(labels, distances, seed))
    assert not torch.equal(ct(labels, distances, 1), ct(labels, distances, 2))


@pytest.mark.parametrize("concept", ["spleen", "kidney.left", "liver"])
def test_mean_of_a_soft_organ_stays_inside_its_prior(labels, distances, concept):
    prior = prior_of(concept)
    inside = labels == CONCEPTS.index(concept) + 1
    assert int(inside.sum()) > 100
    for seed in range(10):
        mean = float(ct(labels, distances, seed)[0][inside].mean())
        # smooth texture does not average out over a small organ
        slack = 1.5 * prior.texture
        assert prior.low - slack < mean < prior.high + prior.enhancement + slack


def test_an_organ_does_not_always_look_the_same(labels, distances):
    means = [float(ct(labels, distances, s)[0][labels == 3].mean()) for s in range(10)]
    assert max(means) - min(means) > 30  # kidneys with and without contrast agent


def test_beyond_the_body_there_is_air_but_for_a_couch(labels):
    outside = torch.full((2, *labels.shape), 500.0)
    outside[1] = 0
    for seed in range(6):
        image = ct(labels, outside, seed)[0]
        air = (labels == 0) & (torch.arange(labels.shape[1]) > labels.shape[1] // 2)[None, :, None]
        assert float((image[air] - AIR_HU).abs().max()) < 60


def test_deep_inside_the_body_there_is_none(labels):
    inside = torch.zeros(2, *labels.shape)
    inside[1] = 200
    for seed in range(6):
        image = ct(labels, inside, seed)[0][labels == 0]
        assert float(image.min()) > -220
        assert float(image.max()) < 160


def test_around_what_is_labelled_there_may_be_more_muscle_then_fat():
    labels = torch.zeros(40, 20, 20, dtype=torch.int64)
    distances = torch.zeros(2, *labels.shape)
    distances[0] = 0.5 + torch.arange(40.0)[:, None, None]  # every voxel lies beyond the core
    images = [unlabelled_body(labels, distances, rng(seed)) for seed in range(40)]
    at_the_core = torch.tensor([float(image[0].median()) for image in images])
    muscular = at_the_core > 20
    assert 0.5 < float(muscular.float().mean()) < 0.9
    assert (at_the_core[~muscular] < -60).sum() > 3  # fat or, in thin people, skin
    thick = [image for image, is_muscle in zip(images, muscular, strict=True) if is_muscle]
    ends = [int((image.median(-1).values.median(-1).values > 20).sum()) for image in thick]
    assert min(ends) < 8
    assert 15 < max(ends) < 35


def test_bone_has_a_denser_outer_layer(labels):
    image = torch.full(labels.shape, 150.0)
    priors = [prior_of(concept) for concept in CONCEPTS]
    found = add_bone_shell(image, labels, priors, rng())
    bone = labels == 5
    core = torch.nn.functional.avg_pool3d(bone[None].float(), 3, 1, 1)[0] > 0.999
    assert core.any()
    assert torch.equal(found[~bone], image[~bone])
    assert torch.equal(found[core], image[core])
    assert (found[bone & ~core] > 150).all()


def test_gas_fills_the_inside_of_hollow_organs_alone(labels):
    image = torch.full(labels.shape, 40.0)
    thick = labels.clone()
    thick[4:14, 20:30, 4:14] = 6
    priors = [TissuePrior(0, 1)] * 5 + [TissuePrior(0, 1, gas=0.9)]
    filled = [add_gas(image, thick, priors, rng(seed)) for seed in range(8)]
    assert any(float(found.min()) < -800 for found in filled)
    for found in filled:
        assert torch.equal(found[thick != 6], image[thick != 6])


def test_without_hollow_organs_there_is_no_gas(labels):
    image = torch.zeros(labels.shape)
    assert torch.equal(add_gas(image, labels, [TissuePrior(0, 1)] * 6, rng()), image)


def test_priors_are_physical():
    for prior in (*CT_PRIORS.values(), SOFT_TISSUE):
        assert -1024 <= prior.low < prior.high <= 1500
        assert 0 <= prior.gas < 1
        assert prior.texture > 0
        assert prior.shell is None or prior.shell > prior.high


def test_patterns_do_not_catch_what_they_do_not_mean():
    assert prior_of("lung.upper_lobe.left").high < -500
    assert prior_of("rib.4.left").shell is not None
    assert prior_of("vertebra.l3").shell is not None
    assert prior_of("portal_vein").enhancement > 100
    assert prior_of("kidney_cyst.left").high < 60
    assert prior_of("no_such_structure") is SOFT_TISSUE


def test_every_pattern_names_something_in_the_tree():
    ids = [concept.id for concept in load_tree()]
    assert [p for p in CT_PRIORS if not any(fnmatchcase(i, p) for i in ids)] == []


def any_contrast(labels, seed):
    means = draw_mr_means((), classes=7, generator=rng(seed))
    return synthesise_mr(means, labels, generator=rng(seed + 100))


def test_mr_gives_each_class_an_intensity_of_its_own(labels):
    image = any_contrast(labels, 3)
    means = [float(image[0][labels == k].mean()) for k in range(7)]
    assert image.shape == (1, *labels.shape)
    assert len({round(mean, 3) for mean in means}) == 7
    assert all(-0.1 < mean < 1.1 for mean in means)
    for k in range(7):
        assert float(image[0][labels == k].std()) < 0.2


def test_mr_follows_from_the_seed_and_varies_with_it(labels):
    assert torch.equal(any_contrast(labels, 1), any_contrast(labels, 1))
    means = torch.tensor([float(any_contrast(labels, s)[0][labels == 4].mean()) for s in range(8)])
    assert float(means.std()) > 0.1


def test_mr_may_be_given_means_with_partial_volume(labels):
    means = torch.linspace(0, 1, 7)
    base = torch.full(labels.shape, 0.37)
    image = synthesise_mr(means, labels, base=base, generator=rng(2))
    assert float(image.mean()) == pytest.approx(0.37, abs=0.02)


def test_head_structures_often_look_as_in_the_common_sequences():
    fluid, white = "lateral_ventricle.left", "cerebral_white_matter.left"
    drawn = torch.stack(
        [draw_mr_means((fluid, white), classes=4, generator=rng(s)) for s in range(300)]
    )
    white_is_brighter = drawn[:, 2] - drawn[:, 1]
    t1, t2 = (white_is_brighter > 0.6).float().mean(), (white_is_brighter < -0.4).float().mean()
    assert 0.45 < float(t1) < 0.75  # T1 and FLAIR, and some of the random ones
    assert 0.12 < float(t2) < 0.35
    assert 0.0 <= float(drawn.min()) <= float(drawn.max()) <= 1.0


def test_tissues_without_a_name_get_any_mean():
    drawn = torch.stack(
        [draw_mr_means(("liver",), classes=3, generator=rng(s)) for s in range(200)]
    )
    assert float(drawn[:, 1:].min()) < 0.05
    assert float(drawn[:, 1:].max()) > 0.95
    assert drawn[:, 1:].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.08)


def test_every_mr_pattern_names_something_in_the_tree():
    ids = [concept.id for concept in load_tree()]
    assert [p for p in MR_PRIORS if not any(fnmatchcase(i, p) for i in ids)] == []
    assert mr_prior_of("corpus_callosum.central").t1 > mr_prior_of("putamen.left").t1
    assert mr_prior_of("liver") is None


class TestBodyDistances:
    def test_are_zero_on_their_own_side_and_positive_on_the_other(self, labels, distances):
        outside, depth = distances
        assert distances.shape == (2, *labels.shape)
        assert float(distances.min()) >= 0
        assert float(outside[labels > 0].mean()) < 1.0
        assert float(depth[labels > 0].mean()) > 4.0
        assert float((outside * depth).max()) < 30  # both at once only within a voxel of the wall

    def test_outside_distance_is_in_millimetres(self):
        labels = torch.zeros(30, 20, 12, dtype=torch.int16)
        labels[8:12, 6:14, :] = 1
        outside, _ = body_distances(labels, (4.0, 4.0, 4.0))
        along = outside[11:26, 10, 6]
        assert torch.allclose(along.diff(), torch.full((14,), 4.0), atol=0.5)
        assert float(along[-1]) == pytest.approx((25 - 11) * 4.0, abs=5)

    def test_gaps_between_organs_of_a_slice_belong_to_the_body(self):
        labels = torch.zeros(40, 24, 10, dtype=torch.int16)
        labels[6:12, 8:16, 2:8] = 1
        labels[22:28, 8:16, 2:8] = 2
        outside, depth = body_distances(labels, (4.0, 4.0, 4.0))  # the gap is 40 mm wide
        assert float(outside[16, 12, 5]) == 0
        assert float(depth[16, 12, 5]) > 4
        assert float(outside[36, 12, 5]) > 20

    def test_spacing_is_respected(self):
        labels = torch.zeros(24, 24, 24, dtype=torch.int16)
        labels[8:16, 8:16, 8:16] = 1
        outside, _ = body_distances(labels, (2.0, 4.0, 8.0))
        far = [float(outside[t]) for t in ((20, 12, 12), (12, 20, 12), (12, 12, 20))]
        assert far[0] < far[1] < far[2]
        assert far[2] == pytest.approx(5 * 8.0, abs=10)
