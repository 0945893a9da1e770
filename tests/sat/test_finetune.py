"""Training SAT further: what comes along, what is new, and a model like any other in the end."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import muted
import numpy as np
import pytest
import torch
import yaml
from fakes import case_entry, one_thread, tiny_sat_encoder, tiny_segmenter, write_model, write_nifti
from test_configs import shrunk

from tests.sat.filled import save_checkpoint
from tests.zoo.published import save_pieces
from textseg import Segmenter
from textseg.cli import main
from textseg.datasets import LabelSpace, load_cases
from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.network.model import NetworkConfig
from textseg.network.queries import build_queries
from textseg.network.weights import (
    PIECES_FILE,
    load_model,
    load_weights,
    read_model_manifest,
)
from textseg.training.checkpoint import LAST, read_checkpoint
from textseg.training.cli import find_config, fit
from textseg.training.validation import answer_case, load_validation_case
from textseg.zoo.sat import import_sat

__all__ = ["one_thread"]

pytestmark = [
    pytest.mark.slow,
    *muted.TRAINING,
]

CONFIG = "finetune/sat-nano"
RUN = Path("runs/sat-nano-finetune")
PARTS = {1: ("hippocampus.anterior",), 2: ("hippocampus.posterior",)}
NEW = {"evidence", *(f"presence_head.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias"))}
"""What the configuration trains and SAT has not."""


def settings():
    return yaml.safe_load(find_config(CONFIG).read_text(encoding="utf-8"))


def small():
    """The network of the configuration, as small as it goes."""
    return shrunk(settings()["model"]["network"])


def write_crops(folder, count=3):
    """A case list of crops, each with two structures on top of each other."""
    entries = []
    for number in range(count):
        labels = np.zeros((34 + number, 40, 33), np.int16)
        labels[8:24, 6:20, 10:26], labels[8:24, 20:34, 10:26] = 1, 2
        image = np.random.default_rng(number).normal(60, 9, labels.shape) + 50 * labels
        files = {"image": f"{number}_image.nii.gz", "label": f"{number}_label.nii.gz"}
        place = folder / "msd-hippocampus"
        write_nifti(place / files["image"], image.astype(np.float32), (1.0, 1.0, 1.0))
        write_nifti(place / files["label"], labels, (1.0, 1.0, 1.0))
        entry = case_entry(f"crop_{number}", place.name, "MR-T1", "train", **files)
        entries.append({**entry, "concepts": {str(v): list(ids) for v, ids in PARTS.items()}})
    (folder / "cases.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder / "cases.json"


def write_plan(folder, window, *, cases, network=None, **trainer):
    """What a user gives besides the configuration, and settings of the trainer."""
    domain = {
        "name": "hippocampus-mr",
        "datasets": ["msd-hippocampus"],
        "modality": "mr",
        "spacing_mm": 1.0,
        "window": window,
        "batch": 1,
        "real": 1.0,
        "mirror": 0.5,
        "hold_out_every": 3,
    }
    plan = {
        "trainer": {
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "max_epochs": 1,
            "check_val_every_n_epoch": 1,
            **trainer,
        },
        "data": {"cases": str(cases), "steps": 2, "workers": 0, "domains": [domain]},
    }
    if network is not None:
        plan["model"] = {"network": network}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    return path


def words_of(model, *more):
    return ["-c", CONFIG, "--init-from", str(model), "-c", "plan.yaml", *more]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a tiny SAT, crops and a plan, in which commands run."""
    folder = tmp_path_factory.mktemp("desk")
    shape = NetworkConfig(**{**small(), "presence_head": False})
    write_model(
        folder / "sat-tiny",
        network=tiny_segmenter(shape),
        encoder=tiny_sat_encoder(shape.embedding),
        preparation="sat",
    )
    write_plan(
        folder,
        [64, 32, 32],
        cases=write_crops(folder),
        network=small(),
        precision="32-true",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["textseg"])
        yield folder


@pytest.fixture(scope="module")
def done(desk):
    """The finished run."""
    return fit(words_of("sat-tiny", "--data.encoder=sat-tiny"))


def test_everything_but_the_head_for_presence_starts_from_the_model(done):
    start = done.model.start
    assert set(start.missing) == NEW
    assert (start.reshaped, start.mismatched, start.unused) == ((), (), ())
    assert set(start.loaded) | NEW == set(done.model.network.state_dict())
    assert start.fraction > 0.9


def figures(folder):
    """The columns of a run's log, without its gaps."""
    (path,) = sorted(folder.glob("version_*/metrics.csv"))[-1:]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def unchanged(model, checkpoint):
    """Weights that are still the model's; a bias before a normalisation has no gradient."""
    state = checkpoint["current_model_state"]
    before = load_weights(model).network.items()
    return [n for n, t in before if n.endswith("weight") and torch.equal(t, state[f"network.{n}"])]


def test_a_run_learns_and_is_scored_on_scans_it_does_not_see(done, desk):
    assert done.trainer.global_step == 2
    found = figures(desk / RUN)
    assert len(found["loss"]) == 2
    assert all(map(math.isfinite, found["loss"]))
    assert {"loss/full_dice", "loss/full_bce", "loss/presence"} <= set(found)
    (score,) = found["val/hippocampus-mr"]
    assert 0 <= score <= 1
    assert unchanged("sat-tiny", read_checkpoint(RUN / LAST)) == []


def test_a_run_is_gone_on_with(done, desk):
    words = words_of("sat-tiny", "--data.encoder=sat-tiny", "--trainer.max_epochs=2")
    assert main(["fit", *words, "--resume", str(RUN)]) == 0
    assert read_checkpoint(RUN / LAST)["global_step"] == 4


@pytest.fixture(scope="module")
def exported(done, desk):
    kept = RUN / "version_0/config.yaml"
    words = ["export", RUN / LAST, "-c", kept, "-o", "mine", "--licence", "CC-BY-SA-4.0"]
    assert main(list(map(str, words))) == 0
    return desk / "mine"


def test_the_exported_model_keeps_the_text_encoder(exported):
    manifest, before = read_model_manifest(exported), read_model_manifest(Path("sat-tiny"))
    assert manifest.text_encoder == before.text_encoder
    assert manifest.text_encoder["kind"] == "sat"
    assert manifest.files == before.files
    assert set(manifest.files) == {PIECES_FILE}
    pieces = [(folder / PIECES_FILE).read_bytes() for folder in (exported, Path("sat-tiny"))]
    assert pieces[0] == pieces[1]
    words = [load_weights(folder).text_encoder for folder in (exported, "sat-tiny")]
    assert words[0].keys() == words[1].keys()
    assert all(torch.equal(words[0][name], words[1][name]) for name in words[0])


def test_the_exported_model_takes_scans_as_it_learned_from_them(exported):
    network, encoder, manifest = load_model(exported)
    assert manifest.preparation == "textseg"
    assert network.config.presence_head
    assert not network.config.whiten_queries
    (domain,) = manifest.domains
    assert domain.concepts == ("hippocampus.anterior", "hippocampus.posterior")
    # the segmenter gives the masks that validation scores, which prepares scans as training does
    case = load_cases(Path("cases.json"))[0]
    tree = load_tree()
    space = LabelSpace(domain.concepts, tree)
    scored = load_validation_case(case, space, domain=0, spacing_mm=domain.spacing_mm)
    queries = build_queries([tree[c] for c in domain.concepts], encoder, modality="mr")
    answers = dict(answer_case(network, scored, queries, window=domain.window))
    segmenter = Segmenter.from_pretrained(exported, device="cpu")
    segmenter.manifest = manifest.model_copy(update={"presence_threshold": 0.0})
    prompts = ["anterior hippocampus", "posterior hippocampus"]
    result = segmenter(case.read_image(), prompts, keep_islands=True)
    for row, prompt in enumerate(prompts):
        assert 0 < answers[row].mask.mean() < 1
        assert result[prompt].presence == pytest.approx(answers[row].presence, abs=1e-5)
        np.testing.assert_array_equal(result[prompt].mask, answers[row].mask)


def refused(*words):
    with pytest.raises(ModelError) as caught:
        fit(words)
    return caught.value


def test_a_text_encoder_of_another_width_is_refused(desk):
    write_model(Path("words"))
    error = refused(*words_of("sat-tiny", "--data.encoder=words"))
    assert error.code == "E400"
    assert "makes queries of 67 numbers; the network takes 18" in error.cause


def test_another_text_encoder_of_the_same_width_is_refused(desk):
    write_model(Path("sat-other"), encoder=tiny_sat_encoder(18, seed=1))
    error = refused(*words_of("sat-tiny", "--data.encoder=sat-other"))
    assert error.code == "E400"
    assert error.remedy == "Set data.encoder to sat-tiny."


def test_the_same_text_encoder_under_another_name_will_do(desk):
    shutil.copytree("sat-tiny", "copy")
    words = words_of("sat-tiny", "--data.encoder=copy", "--trainer.callbacks=null")
    assert fit([*words, "--data.steps=1"]).trainer.global_step == 1


def test_a_model_can_be_trained_without_a_head_for_presence(desk):
    words = words_of("sat-tiny", "--data.encoder=sat-tiny", "--model.network.presence_head=false")
    error = refused(*words)
    assert error.code == "E400"
    assert "no head for presence" in error.cause
    done = fit([*words, "--model.losses.presence=0", "--trainer.callbacks=null"])
    assert done.model.start.complete
    assert torch.isfinite(done.trainer.callback_metrics["loss"])
    assert 0 <= done.trainer.callback_metrics["val/dice"] <= 1


@pytest.fixture(scope="module")
def nano(tmp_path_factory, nano_state, text_state):
    """SAT-Nano at its full size with filled weights, imported from its two files; a gigabyte."""
    folder = tmp_path_factory.mktemp("nano")
    files = folder / "nano.pth", folder / "text.pth", folder / "vocab.txt"
    save_checkpoint(files[0], "nano", state=nano_state)
    save_checkpoint(files[1], "text", state=text_state)
    save_pieces(files[2])
    import_sat(*files, folder / "sat-nano", name="sat-nano")
    for path in files:
        path.unlink()
    yield folder / "sat-nano"
    shutil.rmtree(folder)  # or it would stay for three runs


RUN_AND_MEASURE = """
import sys
from pathlib import Path
from textseg.cli import main
code = main(sys.argv[1:])
Path("status.txt").write_text(Path("/proc/self/status").read_text())
raise SystemExit(code)
"""


def run_alone(folder, *words):
    """Runs a command in a process of its own; the most memory it had, in GB."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_MEASURE, *map(str, words)],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (folder / "status.txt").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e9


def assert_trained(folder, model):
    """Two steps were made, of finite losses, and every weight has changed."""
    found = figures(folder / RUN)
    assert len(found["loss"]) == 2
    assert all(0 < loss < 20 for loss in found["loss"])
    checkpoint = read_checkpoint(folder / RUN / LAST)
    assert checkpoint["global_step"] == 2
    assert unchanged(model, checkpoint) == []
    assert checkpoint["current_model_state"].keys() >= {f"network.{name}" for name in NEW}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells memory on Linux alone")
def test_sat_nano_is_trained_further_in_less_than_6_gigabytes(nano, tmp_path):
    write_plan(tmp_path, [64, 64, 32], cases=write_crops(tmp_path), check_val_every_n_epoch=5)
    words = words_of(nano, f"--data.encoder={nano}", "--trainer.precision=32-true")
    peak = run_alone(tmp_path, "fit", *words)
    assert_trained(tmp_path, nano)
    assert 1.7 < peak < 6  # weights, gradients and two moments are 1.7 by themselves


def copy_crops(folder, data):
    """A case list of the first crops of the real hippocampus."""
    listed = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    mine = [e for e in listed if str(e["image"]).startswith("msd-hippocampus/")][:4]
    (folder / "msd-hippocampus").mkdir()
    for entry in mine:
        for key in ("image", "label"):
            shutil.copy(data / entry[key], folder / entry[key])
    (folder / "cases.json").write_text(json.dumps(mine), encoding="utf-8")
    return folder / "cases.json"


@pytest.mark.shared
def test_sat_nano_is_trained_further_on_real_crops(nano, tmp_path, shared_data):
    cases = copy_crops(tmp_path, shared_data)
    write_plan(tmp_path, [64, 64, 32], cases=cases, check_val_every_n_epoch=5)
    words = words_of(nano, f"--data.encoder={nano}", "--trainer.precision=bf16-mixed")
    run_alone(tmp_path, "fit", *words)
    assert_trained(tmp_path, nano)
