"""``textseg evaluate`` and ``textseg export``, from files to what they print."""

from __future__ import annotations

import csv
import json
import sys

import fakes
import nibabel as nib
import numpy as np
import pytest

from textseg.cli import train

NUM_CONCEPTS = 5
"""Of the torso phantom's six structures, one is left out of the export."""


@pytest.fixture
def masks(tmp_path):
    """A prediction that covers half of the reference: Dice 2/3."""
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    reference = np.zeros((11, 9, 7), dtype=np.uint8)
    reference[2:8, 2:7, 2:6] = 1
    predicted = reference.copy()
    predicted[5:8] = 0
    nib.save(nib.Nifti1Image(predicted, affine), tmp_path / "pred.nii.gz")
    nib.save(nib.Nifti1Image(reference, affine), tmp_path / "ref.nii.gz")
    return tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz"


def test_evaluate_prints_a_row_per_structure_and_the_mean(textseg, masks):
    said = textseg("evaluate", *masks)
    assert (said.code, said.err) == (0, "")
    assert said.out.count("0.667") == 2
    assert "NSD at 2 mm" in said.out


def test_evaluate_prints_json_with_the_same_figures(textseg, masks):
    said = textseg("evaluate", *masks, "--json", "--tolerance", "1")
    answer = json.loads(said.out)
    assert answer["nsd_tolerance_mm"] == 1
    assert answer["rows"][0]["dice"] == pytest.approx(2 / 3)
    assert answer["summary"]["structures"] == 1


def test_evaluate_writes_csv_once(textseg, masks, tmp_path):
    target = tmp_path / "rows.csv"
    assert textseg("evaluate", *masks, "--csv", target, "-q").code == 0
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    assert float(rows[0]["dice"]) == pytest.approx(2 / 3)
    said = textseg("evaluate", *masks, "--csv", target)
    assert (said.code, said.err.partition("]")[0]) == (5, "error[E504 output-exists")
    assert textseg("evaluate", *masks, "--csv", target, "--overwrite").code == 0


def test_evaluate_refuses_grids_that_differ(textseg, masks, tmp_path):
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((11, 9, 8), np.uint8), np.eye(4)), other)
    said = textseg("evaluate", masks[0], other)
    assert (said.code, said.err.partition("]")[0]) == (3, "error[E321 geometry-mismatch")


def test_a_result_folder_is_scored_against_a_label_map(textseg, predict, scan, tmp_path):
    predict(scan, "liver", "spleen", "-o", tmp_path / "out")
    labels = nib.load(tmp_path / "out" / "liver.nii.gz")
    nib.save(
        nib.Nifti1Image(np.asarray(labels.dataobj) * np.uint8(5), labels.affine),
        tmp_path / "ref.nii.gz",
    )
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"liver": 5}))
    said = textseg("evaluate", tmp_path / "out", tmp_path / "ref.nii.gz", "--labels", names)
    assert said.code == 0
    assert "1.000" in said.out
    assert all(line.startswith("warning[unmatched] ") for line in said.lines)
    assert any("spleen" in line for line in said.lines)


@pytest.fixture
def without_lightning(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "lightning" or name == "textseg.training.cli":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch.cli", None)


@pytest.mark.parametrize("command", [("fit",), ("pretrain", "text-text")], ids=lambda c: c[0])
def test_training_without_its_packages_names_the_extra(textseg, without_lightning, command):
    said = textseg(*command, "-c", "configs/none.yaml")
    assert said.code == 4
    assert said.err.startswith("error[E403 missing-extra] ")
    assert "textseg[train]" in said.err
    assert len(said.lines) == 1


def test_fit_hands_its_arguments_on(textseg, monkeypatch):
    seen = []
    fake = type("Training", (), {"fit": staticmethod(seen.extend)})
    monkeypatch.setattr(train, "_training", lambda: fake)
    assert textseg("fit", "-c", "a.yaml", "--trainer.max_epochs=2", "--debug", "--help").code == 0
    assert seen == ["-c", "a.yaml", "--trainer.max_epochs=2", "--help"]


def test_pretrain_hands_on_what_follows_the_stage(textseg, monkeypatch):
    seen = []
    fake = type("Training", (), {"pretrain": staticmethod(lambda *given: seen.append(given))})
    monkeypatch.setattr(train, "_training", lambda: fake)
    assert textseg("pretrain", "text-atlas", "-c", "a.yaml", "--help").code == 0
    assert seen == [("text-atlas", ["-c", "a.yaml", "--help"])]
    assert textseg("pretrain", "--help").out.startswith("Usage: textseg pretrain")
    assert "'text-text', 'text-atlas'" in textseg("pretrain", "-c", "a.yaml").err


def test_resuming_without_a_checkpoint_is_an_error(textseg, tmp_path):
    said = textseg("fit", "-c", "a.yaml", "--resume", tmp_path)
    assert said.code == 4
    assert said.err.startswith("error[E405 missing-checkpoint] ")


@pytest.fixture
def trained(tmp_path):
    """A checkpoint and the configuration of the run that could have written it."""
    import torch
    import yaml

    fakes.write_model(tmp_path / "encoder")
    (tmp_path / "data").mkdir()
    cases = fakes.write_case_list(tmp_path / "data")
    network = fakes.tiny_segmenter()
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    domain = {
        "name": "torso-ct",
        "datasets": ["totalsegmentator-dataset"],
        "modality": "ct",
        "spacing_mm": 5.0,
        "window": [16, 20, 12],
    }
    settings = {
        "seed_everything": 0,
        "ckpt_path": None,
        "trainer": {"max_epochs": 3},
        "model": {"network": network.config.model_dump(mode="json"), "init_from": "gone"},
        "data": {
            "cases": str(cases),
            "encoder": str(tmp_path / "encoder"),
            "domains": [domain],
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "last.ckpt", tmp_path / "config.yaml"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.pytorch.cli")
def test_export_makes_a_model_that_predicts(textseg, trained, scan, tmp_path):
    checkpoint, config = trained
    out = tmp_path / "mine"
    options = ["-c", config, "--licence", "CC0-1.0", "--version", "7.1", "--omit", "spleen"]
    said = textseg("export", checkpoint, "-o", out, *options)
    assert (said.code, said.lines) == (0, [f"wrote {out}: mine 7.1, {NUM_CONCEPTS} concepts"])
    shown = json.loads(textseg("models", "show", out, "--json").out)
    ids = [concept["id"] for concept in shown["domains"][0]["concepts"]]
    assert (shown["name"], shown["version"]) == ("mine", "7.1")
    assert "liver" in ids
    assert "spleen" not in ids
    predicted = textseg("predict", scan, "liver", "-m", out, "-q", "--modality", "ct")
    assert predicted.code == 0, predicted.err
    again = textseg("export", checkpoint, "-o", out, *options)
    assert (again.code, again.err.partition("]")[0]) == (5, "error[E504 output-exists")


def test_export_of_a_checkpoint_that_is_not_there_exits_with_4(textseg, trained, tmp_path):
    options = ["-c", trained[1], "--licence", "CC0-1.0"]
    said = textseg("export", tmp_path / "none.ckpt", "-o", tmp_path / "mine", *options)
    assert (said.code, said.err.partition("]")[0]) == (4, "error[E405 missing-checkpoint")
