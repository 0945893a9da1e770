"""From a case list to label spaces, prompts and batches."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import TINY_QUERY, tiny_domains, torso_labels, write_case_list, write_model

from textseg.datasets import LabelSpace, load_cases
from textseg.errors import InputError, ModelError
from textseg.knowledge import load_tree
from textseg.training.datamodule import (
    MixtureDataModule,
    domain_space,
    load_case,
    side_swap,
    training_cases,
    union_concepts,
    validation_cases,
)
from textseg.training.sampling import IGNORE

TORSO, HEAD = tiny_domains()


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    write_case_list(folder)
    write_model(folder / "words")
    return folder


@pytest.fixture(scope="module", name="data")
def _data(folder):
    data = MixtureDataModule(
        folder / "manifest.json",
        tiny_domains(),
        encoder=str(folder / "words"),
        steps=3,
        seed=1,
        workers=0,
    )
    data.setup("fit")
    return data


@pytest.fixture(scope="module", name="cases")
def _cases(folder):
    return load_cases(folder / "manifest.json")


def test_a_space_holds_what_its_training_cases_hold(data):
    torso, head = data.spaces
    assert set(torso.concepts) == {
        "spleen",
        "kidney.right",
        "kidney.left",
        "liver",
        "lung.middle_lobe.right",
        "vertebra.l3",
    }
    assert "hippocampus.left" in head.concepts
    assert "corpus_callosum.central" in head.concepts


def test_skipped_concepts_leave_the_space(cases):
    tree = load_tree()
    skipping = dataclasses.replace(TORSO, skip=["liver"])
    mine = training_cases(skipping, cases)
    space = domain_space(skipping, mine, tree)
    assert "liver" not in space.concepts
    labels = load_case(mine[0], space, with_body=False).labels
    assert (labels == IGNORE).any()  # where the liver is, no other concept may be ruled out
    assert int((labels == IGNORE).sum()) == int((torso_labels() == 5).sum())


def test_a_union_joins_exactly_its_members(data):
    space, prompts = data.spaces[0], data.prompts[0]
    unions = union_concepts(space)
    assert "kidney" in unions
    table = prompts.membership
    assert table.shape == (len(space.concepts) + len(unions), len(space.concepts) + 1)
    assert not table[:, 0].any()  # the background belongs to nothing
    names = [*space.concepts, *unions]
    joined = {
        name: {space.concepts[i] for i in row[1:].nonzero()[:, 0]}
        for name, row in zip(names, table, strict=True)
    }
    assert joined["kidney"] == {"kidney.left", "kidney.right"}
    assert all(joined[concept] == {concept} for concept in space.concepts)
    assert all(len(joined[union]) > 1 for union in unions)
    assert "lung.right" not in unions  # two of its three lobes are not in the space


def test_there_is_a_query_for_every_prompt_and_modality(data):
    torso, head = data.prompts
    assert set(torso.queries) == {"ct", "mr"}
    assert set(head.queries) == {"mr"}
    for prompts in (torso, head):
        for queries in prompts.queries.values():
            assert queries.shape == (len(prompts.membership), TINY_QUERY)
    assert not torch.equal(torso.queries["ct"], torso.queries["mr"])


def test_sides_swap_and_come_back(data):
    for space in data.spaces:
        swap = side_swap(space)
        assert swap[0] == 0
        paired = swap != IGNORE
        assert torch.equal(swap[swap[paired]], torch.arange(len(swap))[paired])
        for concept, place in space.index.items():
            other = swap[place + 1]
            if space.tree[concept].side is None:
                assert other == place + 1
            elif other != IGNORE:
                assert space.concepts[other - 1] == space.tree.counterpart(concept)


def test_a_side_without_counterpart_has_no_label_in_the_mirror(data):
    space = data.spaces[0]
    assert side_swap(space)[space.index["lung.middle_lobe.right"] + 1] == IGNORE
    assert side_swap(space)[space.index["liver"] + 1] == space.index["liver"] + 1


def test_validation_cases_are_never_trained_on(data, cases):
    scored = {case.id for case in data.validation}
    assert "ts_example_ct" in scored
    assert "synthseg_01" not in scored  # held out, but a label map without a scan cannot be scored
    for domain, sampler in zip((TORSO, HEAD), data._samplers, strict=True):
        trained = {case.id for case in sampler.cases}
        assert trained
        assert not trained & scored
        assert not trained & {case.id for case in validation_cases(domain, cases)}
        assert all(c.split == "train" for c in cases if c.id in trained)


def test_every_nth_labelled_case_is_held_out(cases):
    every = dataclasses.replace(HEAD, hold_out_every=3)
    assert [c.id for c in training_cases(every, cases)] == ["synthseg_02", "voxelmorph_test_scan"]
    second = dataclasses.replace(HEAD, hold_out_every=2)
    assert [c.id for c in training_cases(second, cases)] == ["synthseg_02"]
    assert [c.id for c in validation_cases(second, cases)] == ["voxelmorph_test_scan"]
    none = dataclasses.replace(HEAD, hold_out_every=0)
    assert len(training_cases(none, cases)) == 3


def test_a_domain_without_cases_is_refused(cases):
    with pytest.raises(ModelError, match="no training case") as caught:
        training_cases(dataclasses.replace(HEAD, datasets=["mial-fetal"]), cases)
    assert caught.value.code == "E404"


def test_labels_are_exact_in_ras_order_whichever_way_the_file_runs(data, cases):
    space = data.spaces[0]
    flipped = next(c for c in cases if c.id == "torso_b")
    assert nib.aff2axcodes(nib.load(flipped.masks[""]).affine)[0] == "L"
    case = load_case(flipped, space, with_body=False)
    expected = torso_labels((26, 25, 24), shift=0.03)
    raw = {1: "spleen", 2: "kidney.right", 3: "kidney.left", 5: "liver", 29: "vertebra.l3"}
    for value, concept in raw.items():
        found = (case.labels == space.index[concept] + 1).numpy()
        np.testing.assert_array_equal(found, expected == value)
    assert case.spacing_mm == pytest.approx((4.0, 4.5, 5.0))
    assert case.known.all()


def test_what_a_data_set_does_not_label_is_unknown(data, cases):
    space = data.spaces[1]
    callosum = space.index["corpus_callosum.central"]
    for name, known in (("synthseg_02", False), ("voxelmorph_test_scan", True)):
        case = load_case(next(c for c in cases if c.id == name), space, with_body=False)
        assert bool(case.known[callosum]) is known
        assert bool(case.known[space.index["hippocampus.left"]])


def test_unnamed_values_become_tissues_beyond_the_concepts(data, cases):
    space = data.spaces[1]
    case = load_case(next(c for c in cases if c.id == "synthseg_02"), space, with_body=False)
    assert int(case.labels.max()) == len(space.concepts) + 1
    assert int((case.labels > len(space.concepts)).sum()) > 100


def test_a_list_may_name_values_that_the_mask_lacks(data, cases):
    case = next(c for c in cases if c.id == "torso_a")
    stale = dataclasses.replace(case, labels={**case.labels, 90: "brain"}, unnamed=(200,))
    loaded = load_case(stale, data.spaces[0], with_body=False)
    assert torch.equal(loaded.labels, load_case(case, data.spaces[0], with_body=False).labels)


def test_scans_are_read_as_they_are(folder, cases):
    case = next(c for c in cases if c.id == "voxelmorph_test_scan")
    space = domain_space(HEAD, [case], load_tree())
    read = load_case(case, space, with_body=False)
    stored = nib.load(case.image).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(read.image[0].numpy(), stored)
    assert read.spacing_mm == pytest.approx((4.0, 4.5, 5.0))


def test_a_mask_that_does_not_lie_on_its_scan_is_refused(folder, cases):
    case = next(c for c in cases if c.id == "voxelmorph_test_scan")
    other = next(c for c in cases if c.id == "synthseg_02")
    space = domain_space(HEAD, [case], load_tree())
    with pytest.raises(InputError, match=r"E321.*synthseg_02.*grid of its scan"):
        load_case(dataclasses.replace(case, masks=other.masks), space, with_body=False)


def test_a_concept_whose_every_voxel_is_named_more_closely_is_not_learned_as_absent(cases):
    case = next(c for c in cases if c.id == "synthseg_01")
    labels = {v: (*concepts, "brain") for v, concepts in case.labels.items()}
    case = dataclasses.replace(case, labels=labels, annotated=(*case.annotated, "brain"))
    space = LabelSpace(tuple(i for i in load_tree().ids if i in case.concepts), load_tree())
    read = load_case(case, space, with_body=False)
    assert not read.known[space.index["brain"]]
    assert read.known.sum() == len(space.concepts) - 1


def test_a_loader_yields_the_batches_of_its_epoch(data):
    batches = list(data.train_dataloader())
    assert [batch.number for batch in batches] == [0, 1, 2]
    again = list(data.train_dataloader())
    for a, b in zip(batches, again, strict=True):
        assert torch.equal(a.image, b.image)
        assert a.image.shape[2:] == tiny_domains()[a.domain].window


def test_validation_cases_are_numbered_one_at_a_time(data):
    numbers = [int(batch) for batch in data.val_dataloader()]
    assert numbers == list(range(len(data.validation)))
    case = data.validation[0]
    assert case.domain == 0
    held = set(np.unique(case.reference)) - {0}
    assert {v for values in case.values.values() for v in values} == held


def test_setting_up_twice_reads_once(data):
    before = list(data.spaces)
    data.setup("fit")
    assert data.spaces == before
