"""A smoke test on real lesions: training with reports runs from scans to masks and is told apart.

A few steps on two scans teach nothing; what is tested is that real scans go all the way through.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import muted
import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy import ndimage

from textseg.cli import main
from textseg.network.model import NetworkConfig

pytestmark = [
    pytest.mark.slow,
    *muted.TRAINING,
]

SETS = {
    "open-ms": {"folder": "open-ms", "prompt": "white matter lesion", "cases": "openms_"},
    "pyradiomics-brain": {"folder": "pyradiomics", "prompt": "brain tumor", "cases": "pyrad_brain"},
}
STEPS = 12


def report_of(label: Path) -> str:
    """What is true of a mask: how many lesions, and on which side each of the largest lies."""
    image = nib.load(label)
    mask = np.asarray(image.dataobj) > 0
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())[1:]
    middle = (mask.shape[0] - 1) / 2
    sentences = [f"There {'is one lesion' if count == 1 else f'are {count} lesions'}."]
    for piece in sizes.argsort()[::-1][:2] + 1:
        x = np.argwhere(pieces == piece)[:, 0].mean()
        right = (x > middle) == (image.affine[0, 0] > 0)
        extent = 5 * round(float(np.cbrt(sizes[piece - 1] * np.prod(image.header.get_zooms()))) / 5)
        sentences.append(f"A lesion of {max(5, extent)} mm on the {'right' if right else 'left'}.")
    return " ".join([*sentences, "No hemorrhage."])


def config(folder: Path, dataset: str) -> Path:
    """A network and a training that are over soon."""
    network = NetworkConfig(
        backbone={"channels": (1, 8, 16, 16), "blocks": (0, 1, 1, 1)},
        full_channels=8,
        embedding=24,
        layers=1,
        heads=2,
        hidden=32,
        report={"token_features": 32, "width": 24, "heads": 2, "hidden": 32, "layers": 1},
    )
    domain = {
        "name": "lesion-mr",
        "datasets": [dataset],
        "modality": "mr",
        "spacing_mm": 4.0,
        "window": [48, 56, 48],
        "real": 1.0,
        "report_dropout": 0.2,
        "validation": [dataset],
    }
    checkpoint = "textseg.training.checkpoint.ResumableCheckpoint"
    settings = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(folder / "logs"), "name": None, "version": ""},
            },
            "callbacks": [{"class_path": checkpoint, "init_args": {"folder": str(folder / "run")}}],
        },
        "model": {"network": json.loads(network.model_dump_json()), "optimiser": {"lr": 3e-3}},
        "data": {
            "cases": str(folder / "cases.json"),
            "encoder": "nano",
            "steps": STEPS,
            "workers": 0,
            "report_encoder": {"kind": "word", "features": 32},
            "domains": [domain],
        },
    }
    path = folder / "smoke.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=SETS)
def trained(request, shared_data, tmp_path_factory):
    """The folder of a run over real scans, each of which has a report that its mask bears out."""
    dataset = request.param
    about = SETS[dataset]
    folder = tmp_path_factory.mktemp(dataset)
    (folder / about["folder"]).symlink_to(shared_data / about["folder"])
    listed = json.loads((shared_data / "manifest.json").read_text(encoding="utf-8"))
    cases = [case for case in listed if case["id"].startswith(about["cases"])]
    for case in cases:
        case |= {"dataset": dataset, "report": report_of(shared_data / case["label"])}
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["textseg"])  # LightningCLI warns of pytest's own arguments
        made = config(folder, dataset)
        assert main(["fit", "-c", str(made)]) == 0
        export = ["export", str(folder / "run/last.ckpt"), "-c", str(made)]
        export += ["--cases", str(folder / "cases.json"), "-o", str(folder / "model")]
        assert main([*export, "--licence", "CC-BY-4.0", "--sensitivity-cases", "1"]) == 0
    return folder, about, cases


def test_every_step_has_a_loss(trained):
    folder, _, _ = trained
    with (folder / "logs/metrics.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()


def test_the_scan_is_segmented_with_its_report_on_its_own_grid(trained):
    folder, about, cases = trained
    case = next(case for case in cases if case["split"] == "val")
    words = case["report"]
    answers = {}
    for name, report in (("with", ["--report", words]), ("without", [])):
        out = folder / name
        command = ["predict", str(folder / case["image"]), about["prompt"], *report]
        assert main([*command, "-m", str(folder / "model"), "-o", str(out), "--quiet"]) == 0
        written = (out / "textseg.json").read_text(encoding="utf-8")
        answers[name] = json.loads(written)
        assert words not in written
        scan = nib.load(folder / case["image"])
        for mask in map(nib.load, out.glob("*.nii.gz")):
            assert mask.shape == scan.shape
            assert np.allclose(mask.affine, scan.affine, atol=1e-4)
    assert answers["with"]["run"]["report"]["is_read"]
    assert answers["without"]["run"]["report"] is None
    (entry,) = answers["with"]["prompts"]
    assert entry["status"] in {"ok", "not_found"}


def test_what_the_reports_do_is_measured(trained, capsys):
    folder, _, _ = trained
    capsys.readouterr()
    command = ["evaluate", "--sensitivity", "--model", str(folder / "model"), "--json"]
    assert main([*command, "--cases", str(folder / "cases.json"), "--split", "train"]) == 0
    report = json.loads(capsys.readouterr().out)
    told = {effect["change"]: effect for effect in report["groups"][0]["effects"]}
    assert {"dropped", "shuffled", "negated"} <= set(told)
    assert told["dropped"]["dice"]["mean"] is not None


def test_the_findings_of_a_report_become_prompts_on_a_real_scan(trained):
    folder, about, cases = trained
    if about["prompt"] != "white matter lesion":
        pytest.skip("the embedded model knows lesions of the white matter alone")
    case = next(case for case in cases if case["split"] == "val")
    words = "White matter lesions in both hemispheres. No hemorrhage."
    command = ["predict", str(folder / case["image"]), "--report", words, "--modality", "mr"]
    assert main([*command, "-o", str(folder / "findings"), "--quiet"]) == 0
    written = json.loads((folder / "findings/textseg.json").read_text(encoding="utf-8"))
    (entry,) = written["prompts"]
    assert entry["concepts"] == ["white_matter_lesion"] and entry["status"] == "ok"
    assert written["run"]["findings"]["num_denied"] == 1
