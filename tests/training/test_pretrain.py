"""The text encoder learns which texts belong together, and what their structures look like."""

from __future__ import annotations

import random

import lightning
import muted
import numpy as np
import pytest
import torch
from fakes import TINY_ENCODER, noise, seeded, tiny_domains, write_case_list, write_model

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.network.weights import load_encoder
from textseg.training.checkpoint import LAST, ResumableCheckpoint
from textseg.training.datamodule import MixtureDataModule
from textseg.training.export import export_encoder
from textseg.training.sampling import Batch
from textseg.training.text_atlas import Regions, TextAtlasTask, pooled
from textseg.training.text_text import TextTextTask
from textseg.training.tree_texts import TextBatch, TreeTexts

pytestmark = muted.TRAINING


@pytest.fixture(scope="module", name="data")
def _data():
    return TreeTexts(batch=48, steps=20, seed=4)


class Recorder(lightning.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"].detach()))


def train(data, *callbacks, epochs, resume=None, task=None):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        reload_dataloaders_every_n_epochs=1,
        callbacks=list(callbacks),
    )
    task = task or seeded(lambda: TextTextTask(TINY_ENCODER, lr=1e-2))
    trainer.fit(task, datamodule=data, ckpt_path=resume)
    return task


def test_the_loss_falls_and_the_encoder_can_be_exported(data, tmp_path):
    recorder = Recorder()
    task = train(data, recorder, ResumableCheckpoint(tmp_path), epochs=2)
    assert len(recorder.losses) == 40
    assert np.mean(recorder.losses[-8:]) < 0.8 * np.mean(recorder.losses[:8])

    folder = tmp_path / "words"
    manifest = export_encoder(
        tmp_path / LAST, folder, config=TINY_ENCODER, name="words", version="0.1", licence="CC0-1.0"
    )
    assert manifest.network is None
    assert manifest.supported == frozenset()
    close = load_encoder(folder).encode(["liver"]) @ task.encoder.encode(["liver"]).T
    assert float(close) == pytest.approx(1, abs=1e-4)


def test_a_checkpoint_of_another_encoder_is_not_exported(data, tmp_path):
    train(data, ResumableCheckpoint(tmp_path), epochs=1)
    other = TINY_ENCODER.model_copy(update={"width": 16})
    with pytest.raises(ModelError) as caught:
        export_encoder(
            tmp_path / LAST,
            tmp_path / "words",
            config=other,
            name="words",
            version="0.1",
            licence="CC0-1.0",
        )
    assert caught.value.code == "E402"


def test_relatives_do_not_count_in_the_loss():
    task = seeded(lambda: TextTextTask(TINY_ENCODER))
    task.log_dict = lambda *args, **kwargs: None
    apart = torch.eye(2, dtype=torch.bool)
    texts = (["liver", "hepatic lobe"], ["liver", "hepatic lobe"])
    blamed = task.training_step(TextBatch(*texts, apart), 0)
    spared = task.training_step(TextBatch(*texts, torch.ones(2, 2).bool()), 0)
    assert float(spared.detach()) == pytest.approx(0, abs=1e-5)  # nothing is left to tell apart
    assert float(blamed.detach()) > 1e-3


def test_an_encoder_may_start_from_a_model_of_its_size_only(tmp_path):
    write_model(tmp_path / "words")
    started = TextTextTask(TINY_ENCODER, init_from=str(tmp_path / "words")).encoder
    there = load_encoder(tmp_path / "words").encode(["liver"])
    assert torch.equal(started.encode(["liver"]), there)
    other = TINY_ENCODER.model_copy(update={"width": 16})
    with pytest.raises(ModelError, match="of another size") as caught:
        TextTextTask(other, init_from=str(tmp_path / "words"))
    assert caught.value.code == "E402"


SMALL = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1))


def atlas_task(**settings):
    return seeded(lambda: TextAtlasTask(TINY_ENCODER, SMALL, texts=16, **settings))


@pytest.mark.parametrize("steps", [(2, 2, 2), (4, 4, 4), (2, 4, 1)])
def test_a_pooled_map_is_the_mean_over_the_voxels_of_each_label(steps):
    labels = torch.randint(0, 4, (8, 8, 8), generator=torch.Generator().manual_seed(1))
    level = noise(5, *(8 // step for step in steps))
    fine = level
    for axis, step in enumerate(steps, start=1):
        fine = fine.repeat_interleave(step, axis)
    expected = torch.stack([fine[:, labels == label].mean(1) for label in (1, 3)])
    torch.testing.assert_close(pooled(level, labels, torch.tensor([1, 3])), expected)


def test_regions_are_the_structures_of_each_crop_that_are_large_enough():
    task = atlas_task(least_voxels=20)
    labels = torch.zeros(2, 16, 16, 16, dtype=torch.long)
    labels[0, :4, :4, :4] = 2
    labels[0, 8:10, :2, :2] = 1  # 8 voxels
    labels[1, :4, :4, :4], labels[1, 8:] = 3, -1
    batch = Batch(0, 0, "ct", noise(2, 1, 16, 16, 16), labels, torch.ones(2, 3).bool())
    regions = task.regions(batch)
    assert regions.labels.tolist() == [2, 3]
    assert regions.features.shape == (2, 16)


def test_looks_of_a_pair_share_their_text_and_relatives_are_spared():
    task = atlas_task()
    task.set_domains([["kidney.left", "kidney.right", "spleen", "renal_cortex.left"]])
    seen = []
    task.contrast = lambda logits, positive: seen.append((logits, positive)) or logits.sum()
    regions = Regions(noise(4, 16), torch.tensor([1, 2, 3, 4]))
    task.atlas_loss(regions, 0, random.Random(0))
    logits, positive = seen[0]
    assert positive.tolist() == [
        [True, False, False],
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    part_of = torch.isinf(logits)
    assert part_of.nonzero().tolist() == [[0, 2], [1, 2], [3, 0]]


def test_the_atlas_stage_brings_texts_near_to_the_looks_of_their_structures(tmp_path):
    write_case_list(tmp_path)
    write_model(tmp_path / "words")
    data = MixtureDataModule(
        tmp_path / "manifest.json",
        tiny_domains(),
        encoder=str(tmp_path / "words"),
        steps=50,
        workers=0,
    )
    task = atlas_task(lr=1e-2, init_from=str(tmp_path / "words"))
    recorder = Recorder()
    train(data, recorder, ResumableCheckpoint(tmp_path), epochs=2, task=task)
    # crops differ more than a few steps teach
    assert np.mean(recorder.losses[-25:]) < 0.85 * np.mean(recorder.losses[:25])
    export_encoder(
        tmp_path / LAST,
        tmp_path / "seen",
        config=TINY_ENCODER,
        name="seen",
        version="0.1",
        licence="CC0-1.0",
    )
    assert load_encoder(tmp_path / "seen").config == TINY_ENCODER
