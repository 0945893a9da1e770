"""``textseg evaluate --sensitivity`` and the gate of ``textseg export``, on tiny report models."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import fakes
import numpy as np
import pytest
import torch
import yaml

from textseg.network.backbones import BackboneConfig
from textseg.network.report_fusion import ReportConfig
from textseg.network.weights import Domain

SHAPE, SPACING = (17, 15, 13), (4.0, 4.5, 5.0)
WINDOW = (16, 16, 12)
ENCODER = {"kind": "word", "features": 8}
GROUPS = ("none", "which", "none", "which", "extent", "none")


def report_network(*, hears: bool):
    """Random weights; the gates to the report are shut, or wide open."""
    report = ReportConfig(token_features=8, levels=(0, 1), width=12, heads=2, layers=1, hidden=12)
    backbone = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), in_channels=2)
    config = fakes.tiny_network(backbone=backbone, channels=("flair", "t1ce"), report=report)
    network = fakes.tiny_segmenter(config)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if name.endswith("_gate"):
                weights.fill_(3.0 * hears)
            elif name.endswith("heard.weight") or ".thought." in name:
                weights.mul_(100)
    return network


@pytest.fixture
def write_model(tmp_path):
    def write(name: str, *, hears: bool) -> Path:
        """A model that sees something everywhere."""
        domain = Domain(
            name="brain-mr",
            spacing_mm=(5.0, 5.0, 5.0),
            window=WINDOW,
            modalities=("mr",),
            concepts=("brain_tumor", "brain_edema"),
        )
        fakes.write_model(
            tmp_path / name,
            domains=[domain],
            network=report_network(hears=hears),
            report_encoder=ENCODER,
            mask_threshold=0.5,
            presence_threshold=0.0,
        )
        return tmp_path / name

    return write


@pytest.fixture
def cases(tmp_path) -> Path:
    """One case to train on, six to validate on with other reports, and one without a report."""
    entries = []
    for number, group in enumerate(("", *GROUPS, "")):
        name, side = f"case{number}", ("left", "right")[number % 2]
        labels = np.zeros(SHAPE, dtype=np.int16)
        x = 2 if side == "left" else 9
        labels[x : x + 5, 4:10, 3:9] = 2
        labels[x + 1 : x + 4, 5:8, 4:7] = 4
        entry = {"id": name, "modality": "MR", "split": "val" if number else "train"}
        entry |= {"dataset": "textbrats", "labels": {"2": "", "4": ""}, "label": f"t/{name}.nii"}
        entry["channels"] = {c: f"t/{name}_{c}.nii" for c in ("flair", "t1ce")}
        fakes.write_nifti(tmp_path / entry["label"], labels, SPACING)
        for seed, file in enumerate(entry["channels"].values()):
            fakes.write_nifti(tmp_path / file, fakes.contrast(labels, seed=seed), SPACING)
        if group:
            other = "right" if side == "left" else "left"
            entry["report"] = f"A large mass in the {side} lobe. There is edema."
            entry["swapped_report"] = f"A large mass in the {other} lobe. There is edema."
            entry["ambiguous"] = group
        entries.append(entry)
    (tmp_path / "cases.json").write_text(json.dumps(entries))
    return tmp_path / "cases.json"


def test_a_model_that_hears_the_report_is_told_from_one_that_does_not(
    textseg, write_model, cases, tmp_path
):
    answers = {}
    # five scans are the fewest that have an interval
    for name, hears, limit in (("hears", True, 5), ("deaf", False, 2)):
        words = ("--model", write_model(name, hears=hears), "--cases", cases, "--limit", limit)
        said = textseg("evaluate", "--sensitivity", *words, "--json")
        assert said.code == 0, said.err
        answers[name] = json.loads(said.out)
        assert ("warning[report-ignored] THE REPORT IS IGNORED: " in said.err) != hears
    groups = answers["hears"]["groups"]
    assert {g["name"]: g["scans"] for g in groups} == {"all": 5, "none": 2, "which": 2, "extent": 1}
    swapped = groups[0]["effects"][0]
    assert swapped["change"] == "swapped"
    assert swapped["changed"]["low"] <= swapped["changed"]["mean"] <= swapped["changed"]["high"]
    assert swapped["changed"]["mean"] > 0.01
    for effect in answers["deaf"]["groups"][0]["effects"]:
        # shut gates leave the network as it is without a report, bit for bit
        assert (effect["difference"]["mean"], effect["changed"]["mean"]) == (0, 0)


def test_figures_are_shown_by_report_and_group(textseg, write_model, cases, tmp_path):
    target = tmp_path / "rows.csv"
    words = ("--model", write_model("hears", hears=True), "--cases", cases, "--limit", 3)
    said = textseg("evaluate", "--sensitivity", *words, "--csv", target)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    headings = [line.split("  ") for line in lines if line.strip().startswith("report")]
    shown = [[cell.strip() for cell in heading if cell.strip()] for heading in headings]
    assert shown == [["report", "all (3)", "none (1)", "which (1)", "extent (1)"]] * 3
    firsts = [line.split()[0] for line in lines if line.strip()]
    changes = ["swapped", "dropped", "shuffled", "negated"]
    assert [word for word in firsts if word in {"right", *changes}] == ["right", *changes * 3]
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert len(rows) == 3 * 5
    assert {row["case"] for row in rows} == {"case1", "case2", "case5"}
    again = textseg("evaluate", "--sensitivity", *words, "--csv", target)
    assert (again.code, again.err.partition("]")[0]) == (5, "error[E504 output-exists")


def test_a_model_without_reports_and_cases_without_them_are_told(
    textseg, write_model, model, cases
):
    said = textseg("evaluate", "--sensitivity", "--model", model, "--cases", cases)
    assert (said.code, said.err.partition("]")[0]) == (4, "error[E400 unusable-model")
    assert "tiny does not read reports" in said.err
    hears = write_model("hears", hears=True)
    options = ("--model", hears, "--cases", cases, "--split", "train")
    said = textseg("evaluate", "--sensitivity", *options)
    assert (said.code, said.err.partition("]")[0]) == (4, "error[E404 bad-case-list")
    assert "none of 1 cases has a report" in said.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "give PRED and REF, or --sensitivity with --model and --cases"),
        (("pred",), "give PRED and REF, or --sensitivity"),
        (("--sensitivity",), "--sensitivity needs --model and --cases"),
        (("--sensitivity", "--model", "nano"), "--sensitivity needs --model and --cases"),
        (("a", "b", "--sensitivity"), "PRED cannot be used with --sensitivity"),
        (("--sensitivity", "--by", "sex"), "--by cannot be used with --sensitivity"),
        (("a", "b", "-m", "nano", "--limit", 2), "--model and --limit cannot be used without"),
        (("--sensitivity", "--limit", 0), "--limit"),
        (("--sensitivity", "--split", "all"), "--split"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(textseg, words, why):
    said = textseg("evaluate", *words)
    assert (said.code, len(said.lines)) == (2, 1)
    assert why in said.err


@pytest.fixture
def run(tmp_path, cases):
    """Makes a checkpoint, and the configuration of the run that could have written it."""

    def make(*, hears: bool) -> tuple[Path, Path]:
        fakes.write_model(tmp_path / "words")
        network = report_network(hears=hears)
        state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "last.ckpt")
        domain = {
            "name": "brain-mr",
            "datasets": ["textbrats"],
            "validation": ["textbrats"],
            "channels": ["flair", "t1ce"],
            "modality": "mr",
            "spacing_mm": 5.0,
            "window": list(WINDOW),
        }
        data = {"cases": str(cases), "encoder": str(tmp_path / "words"), "domains": [domain]}
        settings = {
            "model": {"network": network.config.model_dump(mode="json")},
            "data": {**data, "report_encoder": ENCODER},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        return tmp_path / "last.ckpt", tmp_path / "config.yaml"

    return make


lightning = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.pytorch.cli")


@lightning
@pytest.mark.parametrize("hears", [True, False], ids=["hears", "deaf"])
def test_export_measures_what_reports_do_and_keeps_it(textseg, run, tmp_path, hears):
    checkpoint, config = run(hears=hears)
    out = tmp_path / "mine"
    words = ("export", checkpoint, "-o", out, "-c", config, "--licence", "CC0-1.0")
    said = textseg(*words, "--sensitivity-cases", 4)
    assert said.code == 0, said.err
    loud = [line for line in said.lines if line.startswith("warning[report-ignored] ")]
    assert [line.partition("] ")[2].partition(":")[0] for line in loud] == [
        "THE REPORT IS IGNORED"
    ] * (not hears)
    assert said.err.count("a report that says something else changes ") == hears
    text = (out / "sensitivity.json").read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["files"] == {"sensitivity.json": hashlib.sha256(text).hexdigest()}
    kept = json.loads(text)
    assert (kept["model"], kept["sha256"]) == ("mine", manifest["sha256"])
    assert [case["group"] for case in kept["cases"]] == ["none", "which", "none", "extent"]
    assert textseg("models", "verify", out).code == 0

    # what was measured of an earlier model is not said of the next
    said = textseg(*words, "--sensitivity-cases", 0, "--overwrite")
    assert said.code == 0
    assert said.lines[0].startswith("warning[report-not-measured] ")
    assert not (out / "sensitivity.json").exists()
    assert json.loads((out / "manifest.json").read_text())["files"] == {}


@lightning
def test_a_strict_export_leaves_a_model_that_ignores_reports_out(textseg, run, tmp_path):
    out = tmp_path / "mine"
    options = ("--licence", "CC0-1.0", "--strict", "--sensitivity-cases")
    checkpoint, config = run(hears=False)
    words = ("export", checkpoint, "-o", out, "-c", config, *options)
    said = textseg(*words, 2)
    assert said.code == 4
    assert said.lines[-1].startswith("error[E400 unusable-model] THE REPORT IS IGNORED: ")
    assert not out.exists()
    assert textseg(*words, 0).code == 2
    run(hears=True)
    assert textseg(*words, 2).code == 0
    assert (out / "sensitivity.json").exists()
