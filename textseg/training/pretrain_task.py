"""Trains the text encoder on the knowledge tree: names, synonyms and definitions that agree."""

from __future__ import annotations

from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from textseg.network.text_encoder import TextEncoder, TextEncoderConfig
from textseg.training.contrast import CONTRASTS
from textseg.training.tree_texts import TextBatch


class PretrainTask(lightning.LightningModule):
    """Contrast between two texts of the same concept and those of others.

    Args:
        encoder: Size of the encoder.
        contrast: The loss, by its name in ``textseg.training.contrast``.
        temperature: Divides cosine similarities.
        lr: Learning rate, decaying to zero along a cosine.
    """

    def __init__(
        self,
        encoder: TextEncoderConfig | None = None,
        contrast: Literal["info_nce", "dhn_nce"] = "info_nce",
        temperature: float = 0.07,
        lr: float = 3e-3,
    ) -> None:
        super().__init__()
        self.encoder = TextEncoder(encoder or TextEncoderConfig())
        self.contrast = CONTRASTS[contrast]
        self.temperature = temperature
        self.lr = lr

    def training_step(self, batch: TextBatch, batch_index: int) -> Tensor:
        """Contrast of one batch; relatives are no negatives."""
        anchors, partners = self.encoder(batch.anchors), self.encoder(batch.partners)
        logits = anchors @ partners.T / self.temperature
        eye = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(batch.related.to(logits.device) & ~eye, float("-inf"))
        loss = self.contrast(logits, eye)
        hits = (logits.argmax(1) == eye.int().argmax(1)).float().mean()
        self.log_dict({"loss": loss, "top1": hits}, prog_bar=True, batch_size=len(logits))
        return loss

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
