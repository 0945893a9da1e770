"""The data set on disk: complete, repeatable, split by heads and by wordings."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.training.tumors.brains import write_brains
from textseg.datasets import Case
from textseg.errors import ResourceError
from textseg.training.tumors import dataset
from textseg.training.tumors.canvas import CHANNELS
from textseg.training.tumors.dataset import (
    FOLDS,
    HeadSource,
    TumorDatasetConfig,
    make_tumor,
    write_tumor_dataset,
)

SMALL = TumorDatasetConfig(cases=6, test=2, spacing_mm=8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tumors") / "new"
    write_tumor_dataset(out, SMALL)
    return out


def entries(folder, name="Train.json"):
    return json.loads((folder / name).read_text())["training"]


def test_lists_name_every_file_and_no_file_is_left_over(folder):
    listed = entries(folder) + entries(folder, "Test.json")
    named = {f for e in listed for f in (*e["image"], e["label"], e["report"], e["swapped_report"])}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file()}
    assert there == named | {"Train.json", "Test.json"}
    assert (len(entries(folder)), len(listed)) == (6, 8)


def test_channels_come_in_the_order_of_textbrats_on_one_grid(folder):
    for entry in entries(folder):
        assert [name.split("_")[-1] for name in entry["image"]] == [
            f"{channel}.nii.gz" for channel in ("flair", "t1", "t1ce", "t2")
        ]
        scans = [nib.load(folder / name) for name in (*entry["image"], entry["label"])]
        assert {scan.shape for scan in scans} == {(24, 24, 24)}
        assert all(np.array_equal(scan.affine, scans[0].affine) for scan in scans)
        assert nib.aff2axcodes(scans[0].affine) == tuple("RAS")
        assert [str(scan.get_data_dtype()) for scan in scans] == ["int16"] * 4 + ["uint8"]
        assert set(np.unique(scans[-1].dataobj)) <= {0, 1, 2, 4}


def test_what_is_stored_is_what_was_made(folder):
    made, entry = make_tumor(SMALL, "train", 3), entries(folder)[3]
    for channel, name in enumerate(entry["image"]):
        assert np.array_equal(nib.load(folder / name).dataobj, made.case.images[channel])
    assert np.array_equal(nib.load(folder / entry["label"]).dataobj, made.case.labels)
    assert (folder / entry["report"]).read_text() == f"{made.report}\n"
    assert (folder / entry["swapped_report"]).read_text() == f"{made.swapped_report}\n"
    assert (entry["kind"], entry["ambiguous"]) == (made.plan.kind, made.plan.ambiguous)
    assert (entry["side"], entry["lobe"]) == made.plan.site
    assert made.report != made.swapped_report


def test_a_case_hangs_on_seed_and_number_alone(folder, tmp_path):
    fewer = TumorDatasetConfig(cases=2, test=1, spacing_mm=8.0)
    write_tumor_dataset(tmp_path / "fewer", fewer)
    for path in (tmp_path / "fewer").rglob("*_*"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "fewer")).read_bytes()
    other = make_tumor(TumorDatasetConfig(seed=1, spacing_mm=8.0), "train", 0)
    assert not np.array_equal(other.case.images, make_tumor(SMALL, "train", 0).case.images)


def test_the_share_of_ambiguous_cases_is_met_and_its_kinds_take_turns():
    def kinds(share, count):
        config = TumorDatasetConfig(ambiguous=share, spacing_mm=8.0)
        return [make_tumor(config, "train", n).plan.ambiguous for n in range(count)]

    assert kinds(0.0, 2) == ["none"] * 2
    assert kinds(1.0, 3) == ["which", "extent", "which"]
    assert kinds(0.5, 4) == ["none", "which", "none", "extent"]


@pytest.mark.parametrize("share", [0.4, 0.5])
def test_validation_has_its_share_of_ambiguous_cases(share):
    config = TumorDatasetConfig(ambiguous=share, spacing_mm=8.0)
    made = [make_tumor(config, "train", number) for number in range(25)]
    kept = [one.plan.ambiguous != "none" for one in made if one.fold == 0]
    assert len(kept) == 5
    assert sum(kept) == pytest.approx(5 * share, abs=0.5)


def test_it_is_not_overwritten_unasked(folder, tmp_path):
    before = (folder / "Train.json").read_bytes()
    with pytest.raises(ResourceError, match=r"E504.*Train\.json"):
        write_tumor_dataset(folder, SMALL)
    out = tmp_path / "again"
    one = TumorDatasetConfig(cases=1, test=0, spacing_mm=8.0)
    write_tumor_dataset(out, one)
    (out / "Train.json").unlink()
    (out / "Test.json").unlink()
    with pytest.raises(ResourceError, match=r"E504.*train0000_flair"):
        write_tumor_dataset(out, one)
    write_tumor_dataset(out, one, overwrite=True)
    assert (folder / "Train.json").read_bytes() == before


def test_progress_counts_every_case(tmp_path):
    steps = []
    config = TumorDatasetConfig(cases=2, test=1, spacing_mm=8.0)
    write_tumor_dataset(tmp_path, config, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_test_cases_have_heads_of_their_own_and_so_does_validation(tmp_path):
    heads = write_brains(tmp_path / "brains", count=7)
    config = TumorDatasetConfig(cases=10, test=3, spacing_mm=8.0)
    write_tumor_dataset(tmp_path / "out", config, heads=heads)
    training, test = entries(tmp_path / "out"), entries(tmp_path / "out", "Test.json")
    assert {entry["head"] for entry in test} == {"brain3"}
    assert {entry["head"] for entry in training} == {f"brain{n}" for n in (0, 1, 2, 4, 5, 6)}
    validation = {entry["head"] for entry in training if entry["fold"] == 0}
    assert validation == {"brain0", "brain6"}
    assert not validation & {entry["head"] for entry in training if entry["fold"] != 0}
    assert {entry["fold"] for entry in training} == set(range(FOLDS))
    assert {entry["fold"] for entry in test} == {0}


def brain(name):
    """A case of which only the name is looked at."""
    return Case(
        id=name,
        dataset="brains",
        split="train",
        modality="mr",
        sequence="",
        image=None,
        masks={"": Path(name)},
        holds="values",
        labels={},
        unnamed=(),
        annotated=(),
        complete=frozenset(),
        licence="CC0-1.0",
    )


def heads_of(source, split, count):
    """The names and folds that so many cases of a split get."""
    return {source.of(split, number, torch.Generator()) for number in range(count)}


def test_heads_of_one_patient_are_all_for_training_or_all_for_tests(monkeypatch, caplog):
    monkeypatch.setattr(dataset, "load_head", lambda case, spacing_mm: case.id)
    names = [f"sub-{patient}_ses-{visit}" for patient in range(7) for visit in (1, 2)]
    source = HeadSource([brain(name) for name in names])
    test = {name for name, _ in heads_of(source, "test", 4)}
    training = heads_of(source, "train", 24)
    assert test == {"sub-3_ses-1", "sub-3_ses-2"}
    assert {name for name, _ in training} == set(names) - test
    # a fold has whole patients as well
    folds = {name: fold for name, fold in training}
    assert len(folds) == len(training)
    assert [folds[f"sub-{n}_ses-1"] for n in (0, 1, 2, 4, 5, 6)] == [0, 1, 2, 3, 4, 0]
    assert all(folds[name] == folds[name.replace("ses-1", "ses-2")] for name in folds)
    assert "patient" not in caplog.text


def test_heads_of_a_single_patient_serve_all_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr(dataset, "load_head", lambda case, spacing_mm: case.id)
    source = HeadSource([brain("sub-1_ses-1"), brain("sub-1_ses-2")])
    for split in ("train", "test"):
        assert {name for name, _ in heads_of(source, split, 4)} == {"sub-1_ses-1", "sub-1_ses-2"}
    assert "All heads are of one patient" in caplog.text


def test_a_single_head_serves_all_and_that_is_said(tmp_path, caplog):
    heads = write_brains(tmp_path / "brains", count=1)
    config = TumorDatasetConfig(cases=1, test=1, spacing_mm=8.0)
    write_tumor_dataset(tmp_path / "out", config, heads=heads)
    assert "only one head" in caplog.text
    assert entries(tmp_path / "out", "Test.json")[0]["head"] == "brain0"


def test_channels_are_those_that_are_written():
    assert CHANNELS == ("flair", "t1", "t1ce", "t2")
