"""Batches: reproducible, geometrically consistent, honest about sides and about what is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fakes import CLEAN, STILL, apart, contrast, torso_labels, training_case

from textseg.imaging import intensity_scale
from textseg.training.body import body_distances
from textseg.training.conditions import CaseReport
from textseg.training.domain_labels import IGNORE
from textseg.training.sampling import (
    DomainConfig,
    DomainSampler,
    MixtureDataset,
    case_weights,
    share_of,
)
from textseg.training.training_case import ScanVoxels

CONCEPTS = ("spleen", "kidney.right", "kidney.left", "liver", "lung.middle_lobe.right")
LABELS = apart(CONCEPTS)
RAW = {1: 1, 2: 2, 3: 3, 5: 4, 13: 5, 29: 6}  # the vertebra is an unnamed tissue here
SPACING = (4.0, 4.5, 5.0)


def relabelled(raw):
    labels = torch.zeros(raw.shape, dtype=torch.int16)
    for value, label in RAW.items():
        labels[torch.from_numpy(raw == value)] = label
    return labels


def make_case(
    name="a",
    *,
    image=True,
    body=False,
    known=(1, 1, 1, 1, 1),
    shape=(28, 24, 22),
    change=lambda labels: None,
    **about,
):
    raw = torso_labels(shape)
    labels = relabelled(raw)
    change(labels)
    both = known[1] and known[2]  # a sixth prompt is both kidneys
    return training_case(
        labels,
        count=len(CONCEPTS),
        id=name,
        known=torch.tensor((*known, both)).bool(),
        spacing_mm=SPACING,
        image=torch.from_numpy(contrast(raw)) if image else None,
        distances=body_distances(labels, SPACING).half() if body else None,
        **about,
    )


def make_sampler(*cases, **changes):
    settings = {
        "name": "test",
        "datasets": ["none"],
        "modality": "mr",
        "spacing_mm": 4.0,
        "window": (16, 20, 12),
    }
    config = DomainConfig(**{**settings, **changes})
    return DomainSampler(config, index=3, labels=LABELS, cases=cases)


def draw(sampler, number=0, seed=5):
    return sampler.draw(number, torch.Generator().manual_seed(seed))


def same(a, b):
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(a, b, strict=True)
    )


MIXED = {
    "ct": make_sampler(make_case(image=False, body=True), modality="ct", random_contrast=0.5),
    "mr": make_sampler(make_case(), make_case("b", image=False), strip=0.5),
}


@pytest.mark.parametrize("kind", MIXED)
def test_a_batch_has_the_stated_shapes_and_finite_values(kind):
    sampler = MIXED[kind]
    modalities = set()
    for seed in range(8):
        batch = draw(sampler, number=seed, seed=seed)
        assert batch.number == seed
        assert batch.domain == 3
        assert batch.image.shape == (1, 1, 16, 20, 12)
        assert batch.labels.shape == (1, 16, 20, 12)
        assert batch.labels.dtype == torch.int64
        assert batch.known.shape == (1, len(LABELS.prompts))
        assert torch.isfinite(batch.image).all()
        assert int(batch.labels.max()) <= len(CONCEPTS)  # unnamed tissues end with the synthesis
        modalities.add(batch.modality)
    assert modalities == ({"ct", "mr"} if kind == "ct" else {"mr"})


def test_a_batch_is_a_function_of_seed_and_number():
    samplers = list(MIXED.values())
    early = MixtureDataset(samplers, seed=7, start=0, length=6)
    late = MixtureDataset(samplers, seed=7, start=4, length=2)
    assert len(late) == 2
    assert same(late[0], early[4])
    assert same(late[1], early[5])
    again = [early[i] for i in (5, 0, 5)]  # in any order, any number of times
    assert same(again[0], again[2])
    assert not same(early[0], early[1])
    assert not same(early[0], MixtureDataset(samplers, seed=8, start=0, length=1)[0])


def test_domains_are_drawn_by_their_shares():
    rare = make_sampler(make_case(), share=0.0)
    common = make_sampler(make_case(), share=2.0)
    common.index = 1
    drawn = MixtureDataset([rare, common], seed=0, start=0, length=12)
    assert {drawn[i].domain for i in range(12)} == {1}


def mirrored_pair(**changes):
    plain = {"geometry": STILL, "quality": CLEAN, "real": 1.0, **changes}
    return (
        draw(make_sampler(make_case(known=(1, 1, 0, 1, 1)), mirror=mirror, **plain))
        for mirror in (0.0, 1.0)
    )


def test_mirroring_swaps_left_and_right_together_with_the_image():
    straight, mirrored = mirrored_pair(window=(36, 36, 36))
    assert torch.equal(mirrored.image[0, 0], straight.image[0, 0].flip(0))
    there = straight.labels[0].flip(0)
    for label, other in ((1, 1), (4, 4), (2, 3), (3, 2), (5, IGNORE), (0, 0)):
        assert (there == label).any()
        assert torch.equal(there == label, mirrored.labels[0] == other), label


def test_after_mirroring_the_left_kidney_still_lies_left():
    for batch in mirrored_pair(window=(24, 24, 20)):
        x = {label: (batch.labels[0] == label).nonzero()[:, 0].float().mean() for label in (2, 3)}
        assert x[3] < x[2]  # RAS: left has the lower X


def test_known_follows_the_sides():
    straight, mirrored = mirrored_pair()
    assert straight.known[0].tolist() == [True, True, False, True, True, False]
    # the right middle lobe has no left counterpart: in a mirrored image nothing is known of it
    assert mirrored.known[0].tolist() == [True, False, True, True, False, False]


def channelled(*names, image=True, seed=0, **about):
    """A case with a scan of named channels; each has the contrast of its place, and its unit."""
    raw = torso_labels((28, 24, 22))
    scans = {
        name: torch.from_numpy(contrast(raw, seed=seed)) * (place + 1)
        for place, name in enumerate(names)
    }
    channels = {n: ScanVoxels(s.numpy(), intensity_scale(s, "mr")) for n, s in scans.items()}
    return make_case(image=False, channels=channels if image else {}, **about)


def report(length=3, *, mirrored=True):
    tokens = torch.arange(2.0 * length).view(length, 2)
    return CaseReport(tokens, -tokens if mirrored else None)


CHANNELS = {"channels": ["flair", "T1CE"], "real": 1.0}


def test_one_named_channel_is_sampled_as_an_unnamed_one():
    case = make_case()
    named = make_case(image=False, channels={"flair": case.scan[""]})
    for seed in range(4):
        batch = draw(make_sampler(case, batch=2), seed=seed)
        again = draw(make_sampler(named, batch=2, channels=["FLAIR"]), seed=seed)
        assert same(batch, again)


def test_channels_come_in_the_order_of_the_domain_on_one_cut_and_each_on_its_scale():
    case = channelled("t1ce", "flair", "adc")
    settings = {**CHANNELS, "geometry": STILL, "quality": CLEAN, "mirror": 0}
    batch = draw(make_sampler(case, **settings))
    assert batch.image.shape == (1, 2, 16, 20, 12)
    # one contrast in another unit: the same once each is scaled, so the same places were cut
    torch.testing.assert_close(batch.image[0, 0], batch.image[0, 1])
    single = make_case(channels={}, image=True)
    expected = draw(make_sampler(single, **{**settings, "channels": []})).image[0, 0]
    torch.testing.assert_close(batch.image[0, 0], expected)
    assert torch.equal(
        batch.labels, draw(make_sampler(single, **settings | {"channels": []})).labels
    )


def test_each_channel_is_degraded_on_its_own():
    batch = draw(make_sampler(channelled("flair", "t1ce"), **CHANNELS))
    assert not torch.allclose(batch.image[0, 0], batch.image[0, 1], atol=0.05)


def test_a_channel_that_the_scan_lacks_is_nan():
    image = draw(make_sampler(channelled("t1ce"), **CHANNELS)).image[0]
    assert image[0].isnan().all()
    assert image[1].isfinite().all()


@pytest.mark.parametrize(("dropout", "shown"), [(0.0, {3}), (0.5, {1, 2, 3}), (1.0, {1})])
def test_channels_are_dropped_but_never_all(dropout, shown):
    sampler = make_sampler(
        channelled("flair", "t1", "t2"),
        channels=["flair", "t1", "t2"],
        channel_dropout=dropout,
        real=1.0,
        window=(8, 8, 4),
    )
    kept = []
    for seed in range(20):
        image = draw(sampler, seed=seed).image[0]
        dropped = image.isnan().all(dim=(1, 2, 3))
        assert image[~dropped].isfinite().all()
        kept.append(tuple((~dropped).tolist()))
    assert {sum(each) for each in kept} == shown
    assert len({each for each in kept if sum(each) == 1}) == (0 if dropout == 0 else 3)


def test_a_scan_that_ends_early_is_dark_in_each_channel_beyond():
    short = dataclasses.replace(STILL, slab=1.0, slab_mm=(16.0, 16.0))
    case = channelled("t1ce", change=lambda labels: labels.fill_(4))
    sampler = make_sampler(case, **CHANNELS, geometry=short, window=(24, 24, 20))
    batch = draw(sampler)
    missing = batch.labels[0] == IGNORE
    assert 0.5 < float(missing.float().mean()) < 1
    assert len(batch.image[0, 1][missing].unique()) == 1
    assert batch.image[0, 0].isnan().all()


def test_a_label_map_alone_gets_an_image_for_every_channel():
    image = draw(make_sampler(channelled(image=False), **CHANNELS)).image[0]
    assert image.isfinite().all()
    assert not torch.allclose(image[0], image[1], atol=0.05)


def test_a_batch_has_the_reports_of_its_crops_and_none_without():
    cases = (make_case("a", report=report(3)), make_case("b", report=None))
    batch = draw(make_sampler(*cases, batch=8, mirror=0))
    lengths = batch.report.mask.sum(1).tolist()
    assert set(lengths) == {0, 3}
    for tokens, length in zip(batch.report.tokens, lengths, strict=True):
        assert torch.equal(tokens[:length], report(3).tokens[:length])
    assert draw(make_sampler(make_case())).report is None


def test_a_mirrored_crop_has_the_report_with_its_sides_swapped():
    for mirror, expected in ((0.0, report().tokens), (1.0, report().mirrored)):
        sampler = make_sampler(make_case(report=report()), mirror=mirror)
        assert torch.equal(draw(sampler).report.tokens[0], expected)


def test_a_case_whose_report_cannot_be_mirrored_keeps_its_sides():
    fixed = make_case(report=report(mirrored=False))
    mirrored, straight = (draw(make_sampler(fixed, mirror=mirror)) for mirror in (1.0, 0.0))
    assert torch.equal(mirrored.image, straight.image)
    assert torch.equal(mirrored.labels, straight.labels)
    assert torch.equal(mirrored.report.tokens[0], report().tokens)


def test_dropped_reports_say_nothing():
    batch = draw(make_sampler(make_case(report=report()), report_dropout=1.0, batch=2))
    assert batch.report.mask.shape[0] == 2
    assert not batch.report.mask.any()
    some = make_sampler(make_case(report=report()), report_dropout=0.5)
    assert {bool(draw(some, seed=s).report.mask.any()) for s in range(12)} == {True, False}


def test_image_and_labels_are_cut_from_the_same_place():
    batch = draw(make_sampler(make_case(), real=1.0, quality=CLEAN, window=(20, 20, 16)))
    image, labels = batch.image[0, 0], batch.labels[0]
    inner = torch.nn.functional.avg_pool3d((labels == 4)[None].float(), 3, 1, 1)[0] > 0.999
    assert inner.any()
    spread = float(image[inner].std())
    assert spread < 0.1  # the liver is one grey; a shifted cut would mix it with its surroundings


def test_both_sides_of_a_pair_get_one_intensity_in_synthetic_images():
    sampler = make_sampler(
        make_case(image=False), geometry=STILL, quality=CLEAN, mirror=0, window=(28, 24, 20)
    )
    gaps, differences = [], []
    for seed in range(8):
        batch = draw(sampler, seed=seed)
        image, labels = batch.image[0, 0], batch.labels[0]
        right, left, liver = (float(image[labels == k].median()) for k in (2, 3, 4))
        gaps.append(abs(right - left))
        differences.append(abs(right - liver))
    assert max(gaps) < 0.25
    assert max(differences) > 0.5


def test_unnamed_tissues_can_be_stripped_away():
    case = make_case(image=False)
    bare, full = (
        make_sampler(
            case, geometry=STILL, quality=CLEAN, mirror=0, strip=strip, window=(28, 24, 20)
        )
        for strip in (1.0, 0.0)
    )
    assert (relabelled(torso_labels((28, 24, 22))) == 6).any()  # the spine
    shown = 0
    for seed in range(6):
        stripped, kept = draw(bare, seed=seed), draw(full, seed=seed)
        assert torch.equal(stripped.labels, kept.labels)
        shown += not torch.allclose(stripped.image, kept.image)
    assert shown >= 4


def test_ignored_voxels_stay_ignored():
    def hide(labels):
        labels[labels == 4] = IGNORE

    case = make_case(change=hide)
    for mirror in (0.0, 1.0):
        batch = draw(make_sampler(case, mirror=mirror, window=(24, 24, 20)))
        assert (batch.labels == IGNORE).any()
        assert not (batch.labels == 4).any()


def test_crops_lie_mostly_inside_the_scan():
    case = make_case(shape=(40, 36, 32), change=lambda labels: labels.fill_(4))
    sampler = make_sampler(case, geometry=STILL, window=(16, 12, 20))
    inside = [float((draw(sampler, seed=s).labels == 4).float().mean()) for s in range(25)]
    assert min(inside) > 0.75
    assert float(np.mean(inside)) > 0.9


def test_crops_reach_every_part_of_the_scan():
    def halve(labels):
        labels[:] = 1 + (torch.arange(40) >= 20)[:, None, None].short()

    case = make_case(shape=(40, 36, 32), change=halve)
    sampler = make_sampler(case, geometry=STILL, window=(12, 12, 12), mirror=0)
    halves = {int(v) for s in range(20) for v in draw(sampler, seed=s).labels.unique()}
    assert {1, 2} <= halves


def test_small_structures_are_visited_more_often_than_chance():
    def corner(labels):
        labels[:] = 0
        labels[3:6, 3:6, 3:6] = 1

    case = make_case(image=False, shape=(48, 48, 40), change=corner)
    sampler = make_sampler(case, geometry=STILL, window=(12, 12, 12), mirror=0)
    hits = sum(bool((draw(sampler, seed=s).labels == 1).any()) for s in range(40))
    assert hits > 20


def test_every_case_is_used():
    cases = [make_case(str(k), change=lambda x, k=k: x.fill_(k + 1)) for k in range(3)]
    sampler = make_sampler(*cases, mirror=0, geometry=STILL)
    seen = {int(draw(sampler, seed=s).labels.max()) for s in range(30)}
    assert seen == {1, 2, 3}


def test_several_crops_of_a_batch_differ():
    batch = draw(make_sampler(make_case(), batch=2))
    assert batch.image.shape[0] == 2
    assert not torch.equal(batch.image[0], batch.image[1])


def test_outside_a_ct_label_map_there_is_air():
    sampler = make_sampler(
        make_case(image=False, body=True),
        modality="ct",
        geometry=STILL,
        quality=CLEAN,
        window=(60, 60, 60),
    )
    corner = draw(sampler).image[0, 0, :6, :6, :6]
    torch.testing.assert_close(corner, torch.full_like(corner, -4.0))  # -1000 HU as model input


@pytest.mark.parametrize(
    ("modality", "share", "expected"),
    [("ct", 0.0, ("ct",)), ("ct", 0.2, ("ct", "mr")), ("mr", 0.2, ("mr",)), ("pet", 0, ("pet",))],
)
def test_a_domain_names_the_modalities_it_trains(modality, share, expected):
    config = DomainConfig(
        name="x",
        datasets=[],
        modality=modality,
        spacing_mm=1.0,
        window=(4, 4, 4),
        random_contrast=share,
    )
    assert config.modalities == expected


def negative_pair(share, *, modality="mr", random_contrast=0.0):
    strange = make_sampler(make_case("strange"), name="strange", window=(8, 8, 8), spacing_mm=6.0)
    own = make_sampler(
        make_case(known=(1, 0, 1, 1, 1), body=modality == "ct"),
        negatives=["strange"],
        negative_share=share,
        modality=modality,
        random_contrast=random_contrast,
    )
    return MixtureDataset([own, strange], seed=0, start=0, length=1), own, strange


def test_a_scan_of_another_kind_shows_that_nothing_is_there():
    _, own, strange = negative_pair(1.0)
    batch = own.draw(0, torch.Generator().manual_seed(0), others=[strange])
    assert batch.domain == own.index
    assert batch.image.shape == (1, 1, 16, 20, 12)  # on the grid of the domain that asks
    assert float(batch.image.std()) > 0.1
    assert not batch.labels.any()
    assert batch.known.all()


def test_without_a_share_no_negative_is_drawn():
    _, own, strange = negative_pair(0.0)
    for seed in range(6):
        batch = own.draw(0, torch.Generator().manual_seed(seed), others=[strange])
        assert batch.labels.any()


def test_half_the_negatives_look_as_their_own_domain_does():
    _, own, _ = negative_pair(1.0)
    torso = make_sampler(make_case("torso", body=True), name="torso", modality="ct")
    looks = {
        bool(own.draw(0, torch.Generator().manual_seed(s), others=[torso]).image.min() < -2)
        for s in range(16)
    }
    assert looks == {True, False}  # CT is scaled so that air lies far below what MR reaches


def test_ct_batches_are_never_negatives():
    _, own, strange = negative_pair(1.0, modality="ct")
    for seed in range(4):
        batch = own.draw(0, torch.Generator().manual_seed(seed), others=[strange])
        assert batch.modality == "ct"
        assert batch.labels.any()


def test_a_mixture_finds_the_negatives_a_domain_names():
    mixture, own, strange = negative_pair(1.0)
    own.index, strange.index = 0, 1
    drawn = [MixtureDataset(mixture.samplers, seed=s, start=0, length=1)[0] for s in range(12)]
    assert {batch.domain for batch in drawn} == {0, 1}
    shown = {
        domain: any((b.labels > 0).any() for b in drawn if b.domain == domain) for domain in (0, 1)
    }
    assert shown == {0: False, 1: True}


def weighed(**settings):
    cases = [make_case(str(k), dataset="many") for k in range(4)]
    cases.append(make_case("one", dataset="single"))
    config = make_sampler(make_case(), **settings).config
    return case_weights(config, cases)


def test_a_scan_is_drawn_by_the_weight_and_the_size_of_its_data_set():
    assert weighed().tolist() == [1, 1, 1, 1, 1]
    assert weighed(size_power=0.5).tolist() == [0.5, 0.5, 0.5, 0.5, 1]
    assert weighed(size_power=1.0, weights={"many": 3.0}).tolist() == [0.75] * 4 + [1]


def test_scans_with_more_structures_or_more_room_are_listed_more_often():
    case = make_case()  # six prompts, 112 x 108 x 110 mm
    small = make_sampler(case, repeats=2, window=(64, 64, 64)).config
    assert case_weights(small, [case]).tolist() == [3]
    large = make_sampler(case, repeats=32, window=(14, 27, 55), spacing_mm=(4.0, 4.0, 1.0)).config
    assert case_weights(large, [case]).tolist() == [4]


def test_domains_without_a_share_divide_the_steps_as_their_cases_weigh():
    two = make_sampler(make_case(), make_case(), size_power=0.0)
    assert share_of(two) == 2
    assert share_of(make_sampler(make_case(), share=0.25)) == 0.25


def test_the_working_grid_may_be_finer_along_one_axis():
    shown = {}
    for spacing in (4.0, (4.0, 4.5, 2.5)):
        sampler = make_sampler(
            make_case(), geometry=STILL, quality=CLEAN, mirror=0, real=1.0, spacing_mm=spacing
        )
        shown[spacing] = draw(sampler).labels
    assert shown[4.0].shape == shown[4.0, 4.5, 2.5].shape
    assert not torch.equal(shown[4.0], shown[4.0, 4.5, 2.5])


def test_further_reports_come_with_the_labels_they_speak_of_and_change_no_crop():
    cases = (
        make_case("a", report=report(3)),
        make_case("b", report=report(5), change=lambda labels: labels.fill_(4)),
    )
    settings = {"batch": 2, "geometry": STILL, "window": (24, 24, 20), "report_dropout": 0.3}
    few, many = (draw(make_sampler(*cases, told=told, **settings)) for told in (0, 12))
    assert same(few.report, many.report)
    assert same(few[:6], many[:6])
    for batch, count in ((few, 2), (many, 14)):
        assert batch.told.labels.shape == (count, 24, 24, 20)
        assert torch.equal(batch.told.labels[:2], batch.labels)
        lengths = batch.told.report.mask.sum(1)
        assert lengths[:2].tolist() == batch.report.mask.sum(1).tolist()
        labels = batch.told.labels.flatten(1)
        filled = ((labels == 4) | (labels <= 0)).all(1)
        assert set(lengths[filled].tolist()) <= {0, 5}
        assert set(lengths[~filled].tolist()) <= {0, 3}
    assert set(many.told.report.mask.sum(1).tolist()) == {0, 3, 5}
    # where a crop is mirrored, so is what is told of it
    tokens = many.told.report.tokens[:, 1, 0]
    mirrored = {bool(value < 0) for value in tokens[tokens != 0]}
    assert mirrored == {False, True}
