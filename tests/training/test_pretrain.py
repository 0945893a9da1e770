"""The text encoder learns that names, synonyms and definitions of one concept belong together."""

from __future__ import annotations

import lightning
import numpy as np
import pytest
import torch
from fakes import TINY_ENCODER, seeded

from textseg.errors import ModelError
from textseg.network.weights import load_encoder
from textseg.training.checkpoint import LAST, ResumableCheckpoint
from textseg.training.export import export_encoder
from textseg.training.pretrain_task import PretrainTask
from textseg.training.tree_texts import TextBatch, TreeTexts

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]


@pytest.fixture(scope="module", name="data")
def _data():
    return TreeTexts(batch=48, steps=20, seed=2)


class Recorder(lightning.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"].detach()))


def train(data, *callbacks, epochs, resume=None):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=list(callbacks),
    )
    task = seeded(lambda: PretrainTask(TINY_ENCODER, lr=1e-2))
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
    task = seeded(lambda: PretrainTask(TINY_ENCODER))
    task.log_dict = lambda *args, **kwargs: None
    apart = torch.eye(2, dtype=torch.bool)
    texts = (["liver", "hepatic lobe"], ["liver", "hepatic lobe"])
    blamed = task.training_step(TextBatch(*texts, apart), 0)
    spared = task.training_step(TextBatch(*texts, torch.ones(2, 2).bool()), 0)
    assert float(spared.detach()) == pytest.approx(0, abs=1e-5)  # nothing is left to tell apart
    assert float(blamed.detach()) > 1e-3
