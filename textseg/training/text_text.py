"""Trains the text encoder on the knowledge tree: names, synonyms and definitions that agree.

The first of the two stages of knowledge pretraining (Zhao et al. 2023, SAT); ``text_atlas`` is the
second.
"""

from __future__ import annotations

from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from textseg.errors import ModelError
from textseg.network.text_encoder import TextEncoder, TextEncoderConfig
from textseg.network.weights import load_encoder
from textseg.training.contrast import CONTRASTS
from textseg.training.tree_texts import TextBatch


class PretrainTask(lightning.LightningModule):
    """What both stages share: the encoder, the contrast and the schedule.

    Args:
        encoder: Size of the encoder.
        contrast: The loss, by its name in ``textseg.training.contrast``.
        temperature: Divides cosine similarities.
        lr: Learning rate, decaying to zero along a cosine.
        init_from: Name or folder of a model whose text encoder to start from.

    Raises:
        ModelError: That model's text encoder is of another size.
    """

    def __init__(
        self,
        encoder: TextEncoderConfig | None = None,
        contrast: Literal["info_nce", "dhn_nce"] = "info_nce",
        temperature: float = 0.07,
        lr: float = 3e-3,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = TextEncoder(encoder or TextEncoderConfig())
        self.contrast = CONTRASTS[contrast]
        self.temperature = temperature
        self.lr = lr
        if init_from is not None:
            started = load_encoder(init_from)
            if started.config != self.encoder.config:
                raise ModelError(
                    f"the text encoder of {init_from} is of another size than `encoder` says.",
                    code="E402",
                    remedy=f"Use: {started.config}",
                )
            self.encoder.load_state_dict(started.state_dict())

    def text_loss(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Contrast of two texts per structure, and the share that found its partner first."""
        anchors, partners = self.encoder(batch.anchors), self.encoder(batch.partners)
        logits = anchors @ partners.T / self.temperature
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(batch.related.to(logits.device) & ~own, float("-inf"))
        hits = (logits.argmax(1) == own.int().argmax(1)).float().mean()
        return self.contrast(logits, own), hits

    def configure_optimizers(self) -> Any:
        """AdamW with a cosine decay over the trainer's own step count."""
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimiser, int(self.trainer.estimated_stepping_batches)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class TextTextTask(PretrainTask):
    """Contrast between two texts of the same concept and those of others."""

    def training_step(self, batch: TextBatch, batch_index: int) -> Tensor:
        """Contrast of one batch; relatives are no negatives."""
        loss, hits = self.text_loss(batch)
        self.log_dict({"loss": loss, "top1": hits}, prog_bar=True, batch_size=len(batch.anchors))
        return loss
