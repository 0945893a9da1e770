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
def folders(tmp_path):
    """Arguments that score twelve label maps: the liver is right in six and half in the others."""
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    reference = np.zeros((11, 9, 7), dtype=np.uint8)
    reference[1:5, 2:7, 2:6] = 1
    reference[6:10, 2:7, 2:6] = 2
    half = reference.copy()
    half[3:5] = 0
    for side in ("pred", "ref"):
        (tmp_path / side).mkdir()
        for number in range(12):
            labels = half if side == "pred" and number % 2 else reference
            nib.save(nib.Nifti1Image(labels, affine), tmp_path / side / f"s{number}.nii.gz")
    (tmp_path / "names.json").write_text(json.dumps({"liver": 1, "left femur": 2}))
    lines = [f"s{n},{'fm'[n % 2]},{'B' if n > 9 else 'A'}" for n in range(12)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,sex,scanner", *lines]))
    return tmp_path / "pred", tmp_path / "ref", "--labels", tmp_path / "names.json"


def test_evaluate_gives_means_by_structure_region_and_overall_with_intervals(textseg, folders):
    answer = json.loads(textseg("evaluate", *folders, "--json").out)
    assert answer["bootstrap"] == {"samples": 1000, "level": 0.95, "seed": 0}
    liver, femur = answer["concepts"]
    assert (liver["concept"], femur["region"], liver["scans"]) == ("liver", "lower_limb", 12)
    assert liver["dice"]["mean"] == pytest.approx(5 / 6)
    assert 2 / 3 < liver["dice"]["low"] < 5 / 6 < liver["dice"]["high"] < 1
    assert femur["dice"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "count": 12, "left_out": 0}
    assert [region["name"] for region in answer["regions"]] == ["abdomen", "lower_limb"]
    assert answer["overall"]["dice"]["mean"] == pytest.approx(11 / 12)
    assert [entry["dice"]["mean"] for entry in answer["datasets"]] == [pytest.approx(11 / 12)]
    assert answer["groups"] == []


def test_evaluate_draws_the_same_scans_again_with_the_same_seed(textseg, folders):
    few = ("--bootstrap", "5", "--seed")
    runs = [(*few, "1"), (*few, "1"), (*few, "2"), ("--bootstrap", "0")]
    first, again, other, without = (
        json.loads(textseg("evaluate", *folders, "--json", *run).out)["regions"] for run in runs
    )
    assert first == again
    assert first != other
    assert without[0]["dice"]["low"] is None


def test_evaluate_compares_groups_of_scans(textseg, folders, tmp_path):
    options = ("--cases", tmp_path / "cases.csv", "--by", "sex, scanner")
    answer = json.loads(textseg("evaluate", *folders, *options, "--json").out)
    groups = {(group["column"], group["value"]): group for group in answer["groups"]}
    assert list(groups) == [("sex", "f"), ("sex", "m"), ("scanner", "A"), ("scanner", "B")]
    male = groups["sex", "m"]
    assert (male["scans"], male["is_small"]) == (6, False)
    assert male["dice"]["mean"] == pytest.approx(5 / 6)
    # every scan of a sex is the same, so no sample differs from another
    assert list(male["dice_difference"].values())[:3] == pytest.approx([-1 / 6] * 3)
    few = groups["scanner", "B"]
    assert (few["scans"], few["is_small"], few["dice"]["low"]) == (2, True, None)


def test_evaluate_shows_means_and_groups_to_people(textseg, folders, tmp_path):
    options = ("--cases", tmp_path / "cases.csv", "--by", "scanner", "--bootstrap", "200")
    said = textseg("evaluate", *folders, *options, "--seed", "5")
    assert (said.code, said.err) == (0, "")
    assert "95 % intervals of 200 resamples, seed 5" in said.out
    shown = {line.split("  ")[1].strip(): line for line in said.out.splitlines() if "  " in line}
    assert "0.833 in 0." in shown["liver"]
    assert "1.000 in 1.000..1.000" in shown["lower limb"]
    assert "0.917 in 0." in shown["overall"]
    assert "2 (few)" in shown["B"]


def test_evaluate_tells_present_from_absent_structures(textseg, predict, write_scan, tmp_path):
    (tmp_path / "ref").mkdir()
    for seed, case in enumerate("ab"):
        out = tmp_path / "out" / case
        predict(write_scan(tmp_path / f"{case}.nii.gz", seed=seed), "liver", "spleen", "-o", out)
        liver = nib.load(out / "liver.nii.gz")
        nib.save(liver, tmp_path / "ref" / f"{case}.nii.gz")
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"liver": 1, "spleen": 2}))
    arguments = ("evaluate", tmp_path / "out", tmp_path / "ref", "--labels", names)
    answer = json.loads(textseg(*arguments, "--json").out)
    scores = [
        [row["presence"] for row in answer["rows"] if row["structure"] == name]
        for name in ("liver", "spleen")
    ]
    in_order = [(p > n) + (p == n) / 2 for p in scores[0] for n in scores[1]]
    assert answer["overall"]["presence_auroc"] == sum(in_order) / 4
    assert (answer["overall"]["absent"], answer["overall"]["absent_correct"]) == (2, 0)
    said = textseg(*arguments)
    assert "AUROC" in said.out
    assert "0 of 2" in said.out


def test_evaluate_shows_no_means_of_a_single_scan(textseg, masks):
    said = textseg("evaluate", *masks)
    assert "Means" not in said.out


def test_evaluate_names_the_scans_that_the_table_lacks(textseg, folders, tmp_path):
    table = tmp_path / "short.csv"
    table.write_text("case,sex\n" + "".join(f"s{n},f\n" for n in range(10)))
    said = textseg("evaluate", *folders, "--cases", table)
    assert (said.code, said.err.partition("]")[0]) == (3, "error[E300 unusable-input")
    assert "lacks 's10', 's11'" in said.err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--by", "sex"), "--by needs --cases"),
        (("--cases", "cases.csv", "--by", "age,sex"), "no column 'age', but scanner, sex"),
        (("--cases", "cases.csv", "--bootstrap", "-1"), "bootstrap"),
    ],
)
def test_evaluate_refuses_groups_it_cannot_make(textseg, folders, monkeypatch, options, why):
    monkeypatch.chdir(folders[0].parent)
    said = textseg("evaluate", *folders, *options)
    assert said.code == 2
    assert why in said.err


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.pytorch.cli")
def test_export_without_a_folder_makes_a_model_that_is_listed(
    textseg, trained, tmp_path, monkeypatch
):
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    checkpoint, config = trained
    options = ["-c", config, "--licence", "CC0-1.0"]
    said = textseg("export", checkpoint, "--name", "mine", *options)
    assert said.code == 0, said.err
    listed = {model["name"]: model for model in json.loads(textseg("models", "list", "--json").out)}
    assert listed["mine"]["state"] == "installed"
    assert listed["mine"]["folder"] == str(tmp_path / "home" / "models" / "mine")
    again = textseg("export", checkpoint, "--name", "mine", *options)
    assert (again.code, again.err.partition("]")[0]) == (5, "error[E504 output-exists")


@pytest.mark.parametrize(
    ("name", "code"), [([], 2), (["--name", "nano"], 4), (["--name", "../mine"], 4)]
)
def test_export_without_a_folder_needs_a_name_that_is_free(textseg, trained, name, code):
    said = textseg("export", trained[0], "-c", trained[1], "--licence", "CC0-1.0", *name)
    assert (said.code, len(said.lines)) == (code, 1)


def test_export_of_a_checkpoint_that_is_not_there_exits_with_4(textseg, trained, tmp_path):
    options = ["-c", trained[1], "--licence", "CC0-1.0"]
    said = textseg("export", tmp_path / "none.ckpt", "-o", tmp_path / "mine", *options)
    assert (said.code, said.err.partition("]")[0]) == (4, "error[E405 missing-checkpoint")
