"""Brains to put tumors into: sides and lobes where they belong, skulls and fluid left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.training.tumors.brains import UNNAMED, brain_values, write_brains
from textseg.errors import InputError, ModelError
from textseg.training.tumors.heads import (
    FLUID,
    LOBES,
    SITES,
    Site,
    find_heads,
    load_head,
    phantom_head,
    site_map,
)


def phantom(seed=0):
    return phantom_head(torch.Generator().manual_seed(seed))


def middle(head, *site):
    """Mean voxel of a site."""
    return (head.sites == SITES.index(Site(*site)) + 1).nonzero().float().mean(0)


@pytest.mark.parametrize("lobe", LOBES)
def test_the_left_is_at_low_x_and_its_voxels_are_of_the_left(lobe):
    head = phantom()
    assert middle(head, "left", lobe)[0] < middle(head, "right", lobe)[0] - 10
    for site in (Site("left", lobe), Site("right", lobe)):
        values = head.values[head.sites == SITES.index(site) + 1].unique()
        assert all(head.concepts[v - 1].endswith(f".{site.side}") for v in values.tolist())


def test_lobes_lie_about_the_ventricles_as_in_a_head():
    head = phantom()
    ventricle = head.holding("lateral_ventricle")[head.values.long()].nonzero().float().mean(0)
    frontal, parietal, temporal, occipital, below = (middle(head, "right", lobe) for lobe in LOBES)
    assert frontal[1] > ventricle[1] > parietal[1] > occipital[1]
    assert parietal[2] > ventricle[2] > temporal[2] > below[2]


def test_a_voxel_between_two_lobes_has_no_site():
    values = np.zeros((7, 101, 41), np.uint8)
    values[:3], values[4:], values[3, 45:56, 18:23] = 1, 2, 3
    concepts = ("cerebral_cortex.left", "cerebral_cortex.right", "lateral_ventricle.left")
    top = site_map(values, concepts)[0, :, 40]
    named = [SITES[number - 1].lobe if number else None for number in top]
    assert named[40] == "parietal"
    assert named[50:64] == [None] * 14  # up to 0.14 of the length ahead of the ventricle
    assert named[65] == "frontal"
    assert site_map(values, concepts)[6, 65, 40] == SITES.index(Site("right", "frontal")) + 1


def test_phantoms_follow_from_the_seed_and_vary_with_it():
    assert torch.equal(phantom(3).values, phantom(3).values)
    assert not torch.equal(phantom(3).values, phantom(4).values)
    assert set(phantom(5).sites.unique().tolist()) == set(range(len(SITES) + 1))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return find_heads(write_brains(tmp_path_factory.mktemp("brains"), count=1))


def test_a_loaded_brain_is_turned_stripped_and_whole(cases):
    head = load_head(cases[0], spacing_mm=2.0)
    values, concepts = brain_values(seed=0)
    tissue = np.argwhere((values > 0) & (values < len(concepts)))
    low, high = tissue.min(axis=0), tissue.max(axis=0) + 1
    assert head.values.shape == tuple(high - low)
    expected = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    named = (expected > 0) & (expected < len(concepts))
    assert UNNAMED in values
    assert (head.values.numpy()[named] == expected[named]).mean() > 0.999
    white = concepts.index("cerebral_white_matter.left") + 1
    assert (head.values.numpy()[expected == UNNAMED] == white).all()
    assert head.concepts == concepts


def test_a_hole_in_a_brain_is_fluid(cases):
    head = load_head(cases[0], spacing_mm=2.0)
    values, concepts = brain_values(seed=0)
    low = np.argwhere((values > 0) & (values < len(concepts))).min(axis=0)
    ((x, y, z),) = np.argwhere(values == 0) - low
    assert head.concepts[head.values[x, y, z] - 1] == FLUID
    assert head.concepts[head.values[x - 1, y, z] - 1] == "cerebral_white_matter.left"


def test_a_case_list_without_brains_is_refused(tmp_path):
    path = write_brains(tmp_path / "data", count=1)
    (entry,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, "split": "val"}]))
    with pytest.raises(ModelError, match=r"E404.*None of its 1 cases.*lateral_ventricle\.left"):
        find_heads(path)


def test_a_brain_without_cerebellum_is_refused(tmp_path):
    path = write_brains(tmp_path / "data", count=1)
    (entry,) = json.loads(path.read_text())
    for value, (concept,) in list(entry["concepts"].items()):
        if "cerebell" in concept:
            del entry["concepts"][value], entry["labels"][value]
    path.write_text(json.dumps([entry]))
    spec = path.parent / "datasets" / "brains.yaml"
    spec.write_text("\n".join(t for t in spec.read_text().splitlines() if "cerebell" not in t))
    with pytest.raises(InputError, match=r"E322.*no left cerebellum, right cerebellum"):
        load_head(find_heads(path)[0], spacing_mm=3.0)


@pytest.mark.shared
def test_a_real_label_map_has_every_lobe_and_a_real_scan_its_t1(shared_data):
    found = {case.id: case for case in find_heads(shared_data / "manifest.json")}
    head = load_head(found["vxm_test_scan"], spacing_mm=4.0)
    white = head.holding("cerebral_white_matter")[head.values.long()]
    assert float(head.t1[white].median()) == pytest.approx(0.85, abs=1e-3)
    assert load_head(found["synthseg_03"], spacing_mm=4.0).t1 is None
