"""Training from end to end on a tiny network: it learns, it resumes, it exports."""

from __future__ import annotations

import json
from types import SimpleNamespace

import lightning
import muted
import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import seeded, tiny_domains, tiny_encoder, tiny_network, write_case_list, write_model
from lightning.pytorch.callbacks import EMAWeightAveraging

from textseg.errors import ModelError
from textseg.network.weights import find_model
from textseg.segmenter import Segmenter
from textseg.training.adaptation import AdaptationConfig
from textseg.training.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    ResumableCheckpoint,
    read_checkpoint,
    write_checkpoint,
)
from textseg.training.cli import fit, resume_arguments
from textseg.training.datamodule import MixtureDataModule
from textseg.training.export import export_model
from textseg.training.objectives import OptimiserConfig, PromptConfig
from textseg.training.segmentation_task import SegmentationTask

pytestmark = muted.TRAINING


class Killed(BaseException):
    """Stands for the end of the process."""


class Recorder(lightning.Callback):
    """Notes the loss of every step; may end the run before an epoch, as a kill would."""

    def __init__(self, *, kill_before_epoch=None):
        self.losses = {}
        self.kill_before_epoch = kill_before_epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.kill_before_epoch:
            raise Killed

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses[batch.number] = float(outputs["loss"].detach())


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write_case_list(folder)
    write_model(folder / "words")
    return folder


def make_task():
    return seeded(
        lambda: SegmentationTask(
            tiny_network(), OptimiserConfig(lr=3e-3, warmup_steps=3), prompts=PromptConfig(masks=5)
        )
    )


def make_data(folder, *, steps=3, domains=None):
    return MixtureDataModule(
        folder / "manifest.json",
        domains or tiny_domains(),
        encoder=str(folder / "words"),
        steps=steps,
        seed=3,
        workers=0,
    )


def train(folder, *callbacks, epochs=4, steps=3, resume=None, data=None, **options):
    settings = {"limit_val_batches": 0, "check_val_every_n_epoch": 1, **options}
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        callbacks=list(callbacks),
        **settings,
    )
    task = make_task()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if resume is None else 1)  # nothing of a resumed run is drawn anew
        trainer.fit(task, datamodule=data or make_data(folder, steps=steps), ckpt_path=resume)
    return task, trainer


def test_the_loss_of_a_phantom_falls(folder, tmp_path):
    torso = tiny_domains()[:1]
    recorder = Recorder()
    train(
        folder,
        recorder,
        ResumableCheckpoint(tmp_path),
        epochs=2,
        steps=15,
        data=make_data(folder, steps=15, domains=torso),
    )
    losses = [recorder.losses[n] for n in range(30)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-6:]) < 0.85 * np.mean(losses[:6])


@pytest.mark.parametrize("averaged", [False, True], ids=["plain", "averaged"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(folder, tmp_path, averaged):
    def callbacks(run=tmp_path):
        average = [EMAWeightAveraging(decay=0.8, update_starting_at_step=2)] if averaged else []
        return [*average, ResumableCheckpoint(run, minutes=0)]

    whole = Recorder()
    straight, _ = train(folder, whole, *callbacks(tmp_path / "whole"))
    first = Recorder(kill_before_epoch=2)
    with pytest.raises(Killed):
        train(folder, first, *callbacks())
    second = Recorder()
    resumed, _ = train(folder, second, *callbacks(), resume=tmp_path / LAST)

    assert sorted(whole.losses) == list(range(12))
    assert sorted(first.losses) == list(range(6))
    assert sorted(second.losses) == list(range(6, 12))
    assert {**first.losses, **second.losses} == whole.losses
    for (name, a), b in zip(
        straight.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_averaging_puts_the_average_into_the_checkpoint(folder, tmp_path):
    ema = EMAWeightAveraging(decay=0.8)
    train(folder, ema, ResumableCheckpoint(tmp_path), epochs=1)
    held = read_checkpoint(tmp_path / LAST)
    name = "network.mask_heads.0.0.weight"
    assert not torch.equal(held["state_dict"][name], held["current_model_state"][name])


def test_validation_scores_whole_scans_and_keeps_the_best(folder, tmp_path):
    data = make_data(folder, steps=2, domains=tiny_domains())
    keeper = ResumableCheckpoint(tmp_path, minutes=1000)
    task, trainer = train(folder, keeper, epochs=2, data=data, limit_val_batches=1.0)
    assert len(data.validation) == 1
    scores = {name: float(v) for name, v in trainer.callback_metrics.items() if "val" in name}
    assert set(scores) == {"val/torso-ct", "val/dice"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert keeper.best >= scores["val/dice"]
    assert task.network.training
    best = read_checkpoint(tmp_path / BEST)
    assert best["callbacks"][keeper.state_key]["best"] == keeper.best
    assert (tmp_path / LAST).is_file()  # the last epoch writes, however long the interval


class FakeTrainer(SimpleNamespace):
    """Writes what it is told in place of a checkpoint."""

    def save_checkpoint(self, path):
        self.content(path)


def saves(value):
    return FakeTrainer(content=lambda path: torch.save({"value": value}, path))


def test_the_checkpoint_before_is_kept(tmp_path):
    for value in (1, 2, 3):
        write_checkpoint(saves(value), tmp_path)
    assert read_checkpoint(tmp_path / LAST) == {"value": 3}
    assert read_checkpoint(tmp_path / PREVIOUS) == {"value": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == [LAST, PREVIOUS]


def torn(path):
    torch.save({"value": 9}, path)
    path.write_bytes(path.read_bytes()[:-300])


def interrupted(path):
    path.write_bytes(b"half")
    raise Killed


@pytest.mark.parametrize("content", [torn, interrupted])
def test_a_checkpoint_that_failed_never_takes_the_name(tmp_path, content):
    write_checkpoint(saves(1), tmp_path)
    with pytest.raises((RuntimeError, Killed)):
        write_checkpoint(FakeTrainer(content=content), tmp_path)
    assert read_checkpoint(tmp_path / LAST) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == [LAST]


def test_the_partial_file_has_another_name_in_the_same_folder(tmp_path):
    seen = []

    def note(path):
        seen.append((path.parent, path.name, (tmp_path / LAST).exists()))
        torch.save({}, path)

    write_checkpoint(FakeTrainer(content=note), tmp_path)
    ((parent, name, existed),) = seen
    assert parent == tmp_path
    assert name not in {LAST, PREVIOUS, BEST}
    assert not existed


def test_only_a_better_score_replaces_the_best(tmp_path):
    keeper = ResumableCheckpoint(tmp_path)
    for score, kept in ((0.2, 0.2), (0.5, 0.5), (0.4, 0.5), (0.5, 0.5)):
        trainer = saves(score)
        trainer.callback_metrics = {"val/dice": torch.tensor(score)}
        trainer.sanity_checking = False
        keeper.on_validation_end(trainer, None)
        assert read_checkpoint(tmp_path / BEST)["value"] == kept
    fresh = ResumableCheckpoint(tmp_path)
    fresh.load_state_dict(keeper.state_dict())
    trainer = saves(0.45)
    trainer.callback_metrics, trainer.sanity_checking = {"val/dice": torch.tensor(0.45)}, False
    fresh.on_validation_end(trainer, None)
    assert read_checkpoint(tmp_path / BEST)["value"] == 0.5


def test_resuming_from_nothing_is_an_error_not_a_new_start(tmp_path):
    for place in (tmp_path, tmp_path / "gone", tmp_path / "gone.ckpt"):
        with pytest.raises(ModelError) as caught:
            resume_arguments(["-c", "x.yaml", "--resume", str(place)])
        assert caught.value.code == "E405"
        assert caught.value.exit_code == 4


def test_resume_names_the_last_checkpoint_or_the_one_before(tmp_path):
    (tmp_path / PREVIOUS).touch()
    words = ["-c", "x.yaml", "--resume", str(tmp_path), "--data.steps=2"]
    wanted = "--ckpt_path={}"
    found = resume_arguments(words)
    assert found == ["-c", "x.yaml", wanted.format(tmp_path / PREVIOUS), "--data.steps=2"]
    (tmp_path / LAST).touch()
    assert resume_arguments(words)[2] == wanted.format(tmp_path / LAST)
    assert resume_arguments(["--data.steps=2"]) == ["--data.steps=2"]


def test_a_new_run_does_not_overwrite_the_checkpoints_of_another(folder, tmp_path):
    train(folder, ResumableCheckpoint(tmp_path), epochs=1, steps=1)
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(ModelError, match=r"E405.*another run.*--resume"):
        train(folder, ResumableCheckpoint(tmp_path), epochs=1, steps=1)
    assert (tmp_path / LAST).read_bytes() == before


def spaces_of(data):
    return [(d, labels.space) for d, labels in zip(data.domains, data.labels, strict=True)]


def test_an_exported_model_segments_on_the_grid_of_the_scan(folder, tmp_path):
    data = make_data(folder)
    train(folder, ResumableCheckpoint(tmp_path), epochs=1, steps=1, data=data)
    manifest = export_model(
        tmp_path / LAST,
        tmp_path / "toy",
        network=tiny_network(),
        adaptation=AdaptationConfig(),
        spaces=spaces_of(data),
        encoder=tiny_encoder(),
        name="toy",
        version="0.0.1",
        licence="CC0-1.0",
        omit=["spleen"],
    )
    torso, head = manifest.domains
    assert torso.modalities == ("ct", "mr")
    assert torso.window == (16, 20, 12)
    assert "spleen" not in torso.concepts
    assert "kidney" not in torso.concepts  # a union is spelled out by the resolver
    assert head.spacing_mm == (4.5, 4.5, 4.5)

    scan = folder / "totalsegmentator" / "ts_example_ct_image.nii.gz"
    result = Segmenter.from_pretrained(tmp_path / "toy", device="cpu")(
        scan, ["liver", "kidneys", "spleen"]
    )
    shape = nib.load(scan).shape
    assert result["liver"].status in {"ok", "not_found"}
    assert result["kidneys"].status in {"ok", "not_found"}
    assert result["spleen"].status == "unsupported"
    assert {result[p].mask.shape for p in result} == {shape}


def test_a_checkpoint_of_another_network_is_not_exported(folder, tmp_path):
    data = make_data(folder)
    train(folder, ResumableCheckpoint(tmp_path), epochs=1, steps=1, data=data)
    with pytest.raises(ModelError) as caught:
        export_model(
            tmp_path / LAST,
            tmp_path / "toy",
            network=tiny_network("multiscale"),
            adaptation=AdaptationConfig(),
            spaces=spaces_of(data),
            encoder=tiny_encoder(),
            name="toy",
            version="0",
            licence="CC0-1.0",
        )
    assert caught.value.code == "E402"
    with pytest.raises(ModelError):
        find_model(tmp_path / "toy")


def test_the_command_trains_logs_and_resumes(folder, tmp_path):
    plain = tiny_domains()[0]
    config = {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path), "name": "log"},
            },
            "callbacks": [
                {
                    "class_path": "textseg.training.checkpoint.ResumableCheckpoint",
                    "init_args": {"folder": str(tmp_path / "run")},
                }
            ],
        },
        "model": {"network": json.loads(tiny_network().model_dump_json()), "losses": {"block": 8}},
        "data": {
            "cases": str(folder / "manifest.json"),
            "encoder": str(folder / "words"),
            "steps": 2,
            "workers": 0,
            "domains": [
                {
                    "name": plain.name,
                    "datasets": plain.datasets,
                    "modality": "ct",
                    "spacing_mm": 5.0,
                    "window": list(plain.window),
                }
            ],
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    done = fit(["-c", str(path)])
    assert done.trainer.global_step == 4
    rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    assert "loss/full_ce" in rows[0]

    more = ["--trainer.max_epochs=3", "--resume", str(tmp_path / "run")]
    resumed = fit(["-c", str(path), *more])
    assert resumed.trainer.global_step == 6
    assert read_checkpoint(tmp_path / "run" / LAST)["global_step"] == 6
