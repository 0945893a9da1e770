"""What the training engine promises: processes, accumulation, kills and workers change nothing."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys

import lightning
import muted
import pytest
import torch
from fakes import seeded, tiny_domains, tiny_network, write_case_list, write_model

from textseg.datasets import load_cases, load_registry
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.errors import InputError
from textseg.training.checkpoint import BEST, LAST, read_checkpoint
from textseg.training.cli import fit
from textseg.training.datamodule import MixtureDataModule
from textseg.training.segmentation_task import OptimiserConfig, SegmentationTask

pytestmark = [
    # workers are forked
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    *muted.TRAINING,
]

TORSO, HEAD = tiny_domains()
# so that two scans are scored: a CT and the real head pair
DOMAINS = [TORSO, dataclasses.replace(HEAD, hold_out_every=2)]

OVERLAYS = {"class_path": "textseg.training.overlays.SampleOverlays"}
KILLER = '''
import os, signal
import lightning

class Killer(lightning.Callback):
    """Ends the process as an out-of-memory kill does, in the middle of an epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 2:
            os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write_case_list(folder)
    write_model(folder / "words")
    return folder


def write_config(folder, run, *callbacks, epochs, steps, **trainer):
    """A configuration whose run logs and keeps its checkpoints in ``run``."""
    keeper = {
        "class_path": "textseg.training.checkpoint.ResumableCheckpoint",
        "init_args": {"folder": str(run), "minutes": 0},
    }
    config = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": epochs,
            "num_sanity_val_steps": 0,
            "gradient_clip_val": 1.0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {
                    "save_dir": str(run),
                    "name": "log",
                    "flush_logs_every_n_steps": 1,
                },
            },
            "callbacks": [keeper, *callbacks],
            **trainer,
        },
        "model": {
            "network": json.loads(tiny_network().model_dump_json()),
            "optimiser": {"lr": 3e-3, "warmup_steps": 2},
        },
        "data": {
            "cases": str(folder / "manifest.json"),
            "encoder": str(folder / "words"),
            "steps": steps,
            "workers": 0,
            "domains": [
                {k: v for k, v in dataclasses.asdict(domain).items() if v is not None}
                for domain in DOMAINS
            ],
        },
    }
    run.mkdir(exist_ok=True)
    path = run / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def fit_apart(config, *, code=0):
    """Runs ``textseg fit -c CONFIG`` in a process of its own, which ends with ``code``."""
    script = config.with_name("train.py")
    script.write_text("from textseg.cli import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, str(script), "fit", "-c", str(config)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def logged(run, prefix, *, version=0):
    """Logged figures of a run by step, as written."""
    with (run / "log" / f"version_{version}" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        figures = {name: text for name, text in row.items() if name.startswith(prefix) and text}
        if figures:
            found[int(row["step"])] = figures
    return found


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batches(folder, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    sizes = {"epochs": 2, "steps": 4}
    fit_apart(write_config(folder, two, OVERLAYS, **sizes, devices=2, strategy="ddp"))
    fit(["-c", str(write_config(folder, one, **sizes, accumulate_grad_batches=2))])

    alone, shared = read_checkpoint(one / LAST), read_checkpoint(two / LAST)
    assert alone["global_step"] == shared["global_step"] == 4
    for (name, a), b in zip(
        alone["state_dict"].items(), shared["state_dict"].values(), strict=True
    ):
        # the two gradients are summed in another order
        assert float((a - b).abs().max()) < 1e-5, name

    # each process scored one scan, and both count
    (scores,) = {tuple(row) for row in logged(two, "val/").values()}
    assert scores == ("val/dice", "val/head-mr", "val/torso-ct")
    for step, row in logged(one, "val/").items():
        for name, value in row.items():
            assert float(logged(two, "val/")[step][name]) == pytest.approx(float(value), abs=1e-3)
    assert (two / BEST).is_file()
    assert len(list((two / "log" / "version_0" / "overlays").iterdir())) == 2 * 2
    assert not [path.name for path in two.iterdir() if path.name.startswith(".")]


class Gradients(lightning.Callback):
    """Keeps the gradient of every step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({n: p.grad.clone() for n, p in pl_module.named_parameters()})


def train(data, *callbacks, **options):
    """Trains an epoch with a rate of zero, so that the weights stay as they are."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **options,
    )
    task = seeded(lambda: SegmentationTask(tiny_network(), OptimiserConfig(lr=0, weight_decay=0)))
    trainer.fit(task, datamodule=data)


def test_accumulated_gradients_are_the_mean_of_those_of_the_batches(folder):
    def gradients(**options):
        data = MixtureDataModule(
            folder / "manifest.json", DOMAINS, encoder=str(folder / "words"), steps=3, workers=0
        )
        noted = Gradients()
        train(data, noted, **options)
        return noted.steps

    batches = gradients()
    (accumulated,) = gradients(accumulate_grad_batches=3)
    assert len(batches) == 3
    for name, gradient in accumulated.items():
        mean = torch.stack([batch[name] for batch in batches]).mean(0)
        torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=1e-6)
    moved = [name for name in accumulated if not torch.equal(batches[0][name], batches[1][name])]
    assert len(moved) > len(accumulated) / 2


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_goes_on_from_its_last_checkpoint(folder, tmp_path):
    sizes = {"epochs": 4, "steps": 3, "limit_val_batches": 0}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fit(["-c", str(write_config(folder, whole, **sizes))])
    expected = logged(whole, "loss")
    assert sorted(expected) == list(range(12))

    config = write_config(folder, killed, {"class_path": "killer.Killer"}, **sizes)
    (killed / "killer.py").write_text(KILLER)
    fit_apart(config, code=-signal.SIGKILL)
    before = logged(killed, "loss")
    assert sorted(before) == list(range(8))
    checkpoint = read_checkpoint(killed / LAST)
    assert checkpoint["global_step"] == 6

    fit(["-c", str(write_config(folder, killed, **sizes)), "--resume", str(killed)])
    after = logged(killed, "loss", version=1)
    # steps 6 and 7 had been taken since that checkpoint
    assert sorted(after) == list(range(6, 12))
    assert {**before, **after} == {**after, **before} == expected
    ended, straight = read_checkpoint(killed / LAST), read_checkpoint(whole / LAST)
    for name, weights in straight["state_dict"].items():
        assert torch.equal(weights, ended["state_dict"][name]), name


def test_a_worker_that_fails_says_where_and_on_which_file(folder, tmp_path):
    source = next(c for c in load_cases(folder / "manifest.json") if c.id == "voxelmorph_test_scan")
    prepared = prepare(
        [source],
        tmp_path,
        specs=[load_registry()[source.dataset]],
        config=PrepareConfig(crop=False),
    )
    head = dataclasses.replace(HEAD, datasets=[source.dataset], hold_out_every=0, real=1.0)
    data = MixtureDataModule(prepared.path, [head], encoder=str(folder / "words"), workers=1)
    data.setup("fit")
    (image,) = tmp_path.rglob("image.b2nd")
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(InputError) as caught:
        train(data)
    text = str(caught.value)
    assert "worker process 0" in text
    assert str(image) in text
    assert "in read_image" in text
