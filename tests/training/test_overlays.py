from __future__ import annotations

import dataclasses
import logging
import random
import sys

import lightning
import matplotlib.image
import muted
import numpy as np
import pytest
import torch
from fakes import (
    LIVER,
    SPLEEN,
    contrast,
    seeded,
    tiny_domains,
    tiny_network,
    torso_labels,
    write_case_list,
    write_model,
)
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger
from matplotlib.colors import to_rgb

from textseg.imaging import Geometry, Source, Volume
from textseg.outputs.preview import COLOURS
from textseg.training.datamodule import MixtureDataModule
from textseg.training.overlays import Compared, SampleOverlays, write_overlay
from textseg.training.segmentation_task import OptimiserConfig, SegmentationTask

pytestmark = muted.TRAINING


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write_case_list(folder)
    write_model(folder / "words")
    return folder


TORSO, HEAD = tiny_domains()
# so that the real head pair is scored too
SCORED_HEAD = dataclasses.replace(HEAD, hold_out_every=2)


def train(folder, *callbacks, epochs=1, domains=(TORSO,), steps=2, logger=False, sanity=0):
    data = MixtureDataModule(
        folder / "manifest.json",
        list(domains),
        encoder=str(folder / "words"),
        steps=steps,
        seed=3,
        workers=0,
    )
    task = seeded(
        lambda: SegmentationTask(tiny_network(), OptimiserConfig(lr=2e-3, warmup_steps=1))
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=sanity,
        callbacks=list(callbacks),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer.fit(task, datamodule=data)
        state = torch.get_rng_state()
    return task, state


def ink(picture, colour):
    """Pixels of a colour."""
    return np.abs(picture[..., :3] - to_rgb(colour)).max(axis=2) < 0.08


def halves(path):
    """The rows of a picture with reference and predicted masks."""
    picture = matplotlib.image.imread(path)
    # between them, the title above and the legend below
    return picture[60 : len(picture) // 2 - 10], picture[len(picture) // 2 + 10 : -70]


def test_a_validation_leaves_a_picture_of_the_first_scan_of_each_domain(folder, tmp_path):
    train(folder, SampleOverlays(str(tmp_path)), domains=[TORSO, SCORED_HEAD])
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == [
        "epoch=0000-ts_example_ct.png",
        "epoch=0000-voxelmorph_test_scan.png",
    ]
    reference, _ = halves(tmp_path / "overlays" / "epoch=0000-ts_example_ct.png")
    # five of the six structures are seen: the planes suit most of them
    assert sum(ink(reference, colour).sum() > 20 for colour in COLOURS[:6]) >= 5


def test_pictures_go_beside_the_log(folder, tmp_path):
    train(folder, SampleOverlays(), logger=CSVLogger(tmp_path, name="log"))
    (picture,) = (tmp_path / "log" / "version_0" / "overlays").iterdir()
    assert picture.name == "epoch=0000-ts_example_ct.png"


def test_the_largest_structures_are_drawn(folder, tmp_path):
    train(folder, SampleOverlays(str(tmp_path), prompts=1))
    reference, _ = halves(tmp_path / "overlays" / "epoch=0000-ts_example_ct.png")
    assert not ink(reference, COLOURS[1]).any()
    axial = reference[:, : reference.shape[1] // 3]
    _, columns = np.nonzero(ink(axial, COLOURS[0]))
    # the liver, on the patient's right, not the spleen
    assert columns.mean() < axial.shape[1] / 2


def test_drawing_changes_nothing_about_the_training(folder, tmp_path):
    plain, state = train(folder)
    before = random.getstate(), np.random.get_state()[1].tolist()
    drawn, state_drawn = train(folder, SampleOverlays(str(tmp_path)))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert torch.equal(state, state_drawn)
    assert drawn.network.training
    for (name, a), b in zip(plain.state_dict().items(), drawn.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


class Board(Logger):
    """A logger with a place for pictures, as TensorBoard's (``experiment``) or W&B's has."""

    def __init__(self):
        self.images = []

    name = version = save_dir = None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass


class TensorBoardLike(Board):
    @property
    def experiment(self):
        return self

    def add_image(self, name, image, step, dataformats):
        assert dataformats == "HWC"
        self.images.append((name, step, image.shape[2]))


class WandbLike(Board):
    def log_image(self, key, images, step):
        self.images.append((key, step, [matplotlib.image.imread(i).ndim for i in images]))


def test_loggers_that_show_pictures_get_them_once_a_validation(folder, tmp_path):
    tensorboard, wandb = TensorBoardLike(), WandbLike()
    loggers = [CSVLogger(tmp_path), tensorboard, wandb]
    train(folder, SampleOverlays(str(tmp_path)), epochs=2, logger=loggers, sanity=2)
    name = "overlays/ts_example_ct"
    assert tensorboard.images == [(name, 2, 3), (name, 4, 3)]
    assert wandb.images == [(name, 2, [3]), (name, 4, [3])]


class Witness(WandbLike):
    """Notes some weights of the network when it is shown a picture of what the network does."""

    task = shown = None

    def log_image(self, key, images, step):
        self.shown = some_weights(self.task)


class Scored(lightning.Callback):
    """Notes the same weights when a scan is scored, and those that training goes on with."""

    def on_validation_batch_start(self, trainer, pl_module, *rest):
        trainer.logger.task = pl_module
        self.weights = some_weights(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.trained = some_weights(pl_module)


def some_weights(task):
    return next(task.network.parameters()).detach().clone()


def test_averaged_weights_are_drawn_where_they_are_scored(folder, tmp_path):
    witness, scored = Witness(), Scored()
    average = EMAWeightAveraging(decay=0.9)
    drawing = SampleOverlays(str(tmp_path))
    train(folder, average, scored, drawing, steps=3, logger=witness)
    assert torch.equal(witness.shown, scored.weights)
    assert not torch.equal(witness.shown, scored.trained)


def test_without_matplotlib_there_is_one_warning_and_no_picture(
    folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.WARNING, "textseg"):
        train(folder, SampleOverlays(str(tmp_path)), epochs=2)
    (record,) = [r for r in caplog.records if r.name == "textseg.training.overlays"]
    assert 'pip install "textseg[viewer]"' in record.getMessage()
    assert not (tmp_path / "overlays").exists()


def test_what_was_missed_and_what_was_found_are_told_apart(tmp_path):
    labels = torso_labels((26, 25, 24))
    image = contrast(labels, air=-1000.0)[None]
    volume = Volume(
        image, Geometry(labels.shape, np.diag([4, 4.5, 5, 1.0])), "ct", Source(None, "array")
    )
    liver, spleen = labels == LIVER, labels == SPLEEN
    path = tmp_path / "o.png"
    write_overlay(
        path,
        volume,
        [Compared("$liver", liver, liver), Compared("spleen", spleen, np.zeros_like(spleen))],
        title="$case",
    )
    reference, prediction = halves(path)
    liver_colour, spleen_colour = COLOURS[:2]
    assert ink(prediction, liver_colour).sum() > 0.9 * ink(reference, liver_colour).sum()
    # of what was missed there is a dashed line, where else there is a line and a fill
    missed = ink(prediction, spleen_colour).sum()
    assert 100 < missed < 0.8 * ink(reference, spleen_colour).sum()
