"""From a case list to label spaces, prompts and batches."""

from __future__ import annotations

import dataclasses
import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import TINY_QUERY, tiny_domains, torso_labels, write_case_list, write_model

from textseg.datasets import load_cases, load_registry
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.errors import InputError, ModelError
from textseg.knowledge import load_tree
from textseg.training.datamodule import (
    MixtureDataModule,
    domain_space,
    training_cases,
    validation_cases,
)
from textseg.training.domain_labels import IGNORE, DomainLabels
from textseg.training.training_case import load_case

TORSO, HEAD = tiny_domains()
EVERYTHING = (slice(None), slice(None), slice(None))


def whole(case):
    """All labels of a case."""
    return case.read_labels(EVERYTHING)


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
    torso, head = [labels.space for labels in data.labels]
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
    labels = whole(load_case(mine[0], DomainLabels.of(mine, space)))
    assert (labels == IGNORE).any()  # where the liver is, no other concept may be ruled out
    assert int((labels == IGNORE).sum()) == int((torso_labels() == 5).sum())


def test_a_union_joins_exactly_its_members(data):
    labels = data.labels[0]
    table = labels.membership
    assert table.shape == (len(labels.prompts), len(labels.labels) + 1)
    assert not table[:, 0].any()  # the background belongs to nothing
    joined = {
        prompt: {labels.label_concepts[i] for i in row[1:].nonzero()[:, 0]}
        for prompt, row in zip(labels.prompts, table, strict=True)
    }
    unions = labels.prompts[len(labels.space.concepts) :]
    assert joined["kidney"] == {"kidney.left", "kidney.right"}
    assert all(joined[concept] == {concept} for concept in labels.space.concepts)
    assert all(len(joined[union]) > 1 for union in unions)
    assert "lung.right" not in unions  # two of its three lobes are not in the space


def test_there_is_a_query_for_every_prompt_and_modality(data):
    torso, head = data.prompts
    assert set(torso.queries) == {"ct", "mr"}
    assert set(head.queries) == {"mr"}
    for prompts in (torso, head):
        for queries in prompts.queries.values():
            assert queries.shape == (len(prompts.labels.prompts), TINY_QUERY)
    assert not torch.equal(torso.queries["ct"], torso.queries["mr"])


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


@pytest.mark.parametrize(
    ("ids", "sequence", "patient", "kept"),
    [
        (["sub-01_ses-1", "sub-02_ses-1", "sub-01_ses-2"], "", None, [0, 2]),
        (["a-t1", "b-t1", "c-t1"], "t1", None, [0, 2]),
        (["p1_x", "p1_y", "p2_x"], "", "^[^_]+", [0, 1]),
    ],
)
def test_all_scans_of_a_patient_are_held_out_together(cases, ids, sequence, patient, kept):
    domain = dataclasses.replace(HEAD, hold_out_every=2, validation=[])
    if patient is not None:
        domain = dataclasses.replace(domain, patient=patient)
    template = next(case for case in cases if case.dataset in HEAD.datasets and case.image)
    mine = [dataclasses.replace(template, id=name, sequence=sequence) for name in ids]
    held = [ids.index(case.id) for case in validation_cases(domain, mine)]
    assert held == kept
    assert [c.id for c in training_cases(domain, mine)] == [
        name for i, name in enumerate(ids) if i not in kept
    ]


def test_sequences_of_one_scan_are_held_out_together(cases):
    template = next(case for case in cases if case.dataset in HEAD.datasets and case.image)
    mine = [
        dataclasses.replace(template, id=f"{name}-{sequence}", sequence=sequence)
        for name in "ab"
        for sequence in ("t1", "t2")
    ]
    domain = dataclasses.replace(HEAD, hold_out_every=2, validation=[])
    assert [case.id for case in validation_cases(domain, mine)] == ["a-t1", "a-t2"]


def test_a_domain_without_cases_is_refused(cases):
    with pytest.raises(ModelError, match="no training case") as caught:
        training_cases(dataclasses.replace(HEAD, datasets=["mial-fetal"]), cases)
    assert caught.value.code == "E404"


def test_labels_are_exact_in_ras_order_whichever_way_the_file_runs(data, cases):
    labels = data.labels[0]
    flipped = next(c for c in cases if c.id == "torso_b")
    assert nib.aff2axcodes(nib.load(flipped.masks[""]).affine)[0] == "L"
    case = load_case(flipped, labels)
    expected = torso_labels((26, 25, 24), shift=0.03)
    raw = {1: "spleen", 2: "kidney.right", 3: "kidney.left", 5: "liver", 29: "vertebra.l3"}
    for value, concept in raw.items():
        found = (whole(case) == labels.label_concepts.index(concept) + 1).numpy()
        np.testing.assert_array_equal(found, expected == value)
    assert case.spacing_mm == pytest.approx((4.0, 4.5, 5.0))
    assert case.known.all()
    assert {label: len(places) > 0 for label, places in case.spots.items()} == {
        labels.label_concepts.index(concept) + 1: True
        for concept in (*raw.values(), "lung.middle_lobe.right")
    }


def test_what_a_data_set_does_not_label_is_unknown(data, cases):
    labels = data.labels[1]
    callosum = labels.prompts.index("corpus_callosum.central")
    for name, known in (("synthseg_02", False), ("voxelmorph_test_scan", True)):
        case = load_case(next(c for c in cases if c.id == name), labels)
        assert bool(case.known[callosum]) is known
        assert bool(case.known[labels.prompts.index("hippocampus.left")])


def test_unnamed_values_become_tissues_beyond_the_labels(data, cases):
    labels = data.labels[1]
    case = load_case(next(c for c in cases if c.id == "synthseg_02"), labels)
    assert int(whole(case).max()) == len(labels.labels) + 1
    assert int((whole(case) > len(labels.labels)).sum()) > 100


def test_a_list_may_name_values_that_the_mask_lacks(data, cases):
    case = next(c for c in cases if c.id == "torso_a")
    stale = dataclasses.replace(case, labels={**case.labels, 90: ("brain",)}, unnamed=(200,))
    loaded = load_case(stale, data.labels[0])
    assert torch.equal(whole(loaded), whole(load_case(case, data.labels[0])))


def test_scans_are_read_as_they_are(folder, cases):
    case = next(c for c in cases if c.id == "voxelmorph_test_scan")
    read = load_case(case, DomainLabels.of([case], domain_space(HEAD, [case], load_tree())))
    stored = nib.load(case.image).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(read.scan[""].read_image(EVERYTHING).numpy(), stored)
    assert read.spacing_mm == pytest.approx((4.0, 4.5, 5.0))


def test_a_mask_that_does_not_lie_on_its_scan_is_refused(cases):
    case = next(c for c in cases if c.id == "voxelmorph_test_scan")
    other = next(c for c in cases if c.id == "synthseg_02")
    labels = DomainLabels.of([case], domain_space(HEAD, [case], load_tree()))
    with pytest.raises(InputError, match=r"E321.*synthseg_02.*grid of its scan"):
        load_case(dataclasses.replace(case, masks=other.masks), labels)


def test_a_prepared_case_is_the_same_case_read_from_disk(folder, cases, tmp_path):
    source = next(c for c in cases if c.id == "voxelmorph_test_scan")
    registry = load_registry()
    done = prepare(
        [source],
        tmp_path,
        specs=[registry[source.dataset]],
        config=PrepareConfig(crop=False),
    )
    (stored,) = load_cases(done.path)
    labels = DomainLabels.of([source], domain_space(HEAD, [source], load_tree()))
    one, other = load_case(source, labels), load_case(stored, labels)
    assert torch.equal(whole(one), whole(other))
    assert torch.equal(one.known, other.known)
    assert set(one.spots) == set(other.spots)
    for label, places in other.spots.items():
        assert {int(whole(one)[tuple(place)]) for place in places} == {label}
    part = (slice(2, 9), slice(0, 5), slice(3, 20))
    assert torch.equal(one.read_labels(part), other.read_labels(part))
    image, compressed = (case.scan[""].read_image(part) for case in (one, other))
    torch.testing.assert_close(image, compressed, rtol=2**-12, atol=0)
    assert other.scale.apply(image).aminmax().max <= 1
    again = pickle.loads(pickle.dumps(other))
    assert torch.equal(again.read_labels(part), other.read_labels(part))


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
    before = list([labels.space for labels in data.labels])
    data.setup("fit")
    assert [labels.space for labels in data.labels] == before
