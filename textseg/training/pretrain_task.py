"""Trains the text encoder on the knowledge tree: names, synonyms and definitions that agree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import lightning
import torch
from torch import Tensor

from textseg.knowledge import KnowledgeTree, load_tree
from textseg.network.queries import strip_side, unsided_name
from textseg.network.text_encoder import TextEncoder, TextEncoderConfig
from textseg.training.contrast import CONTRASTS


class TextBatch(NamedTuple):
    """Two texts of each of several concepts, and which other concepts are too close to repel.

    Attributes:
        anchors: One text per concept.
        partners: Another text of the same concept.
        related: ``N N`` bool, pairs that are neither positive nor negative.
    """

    anchors: list[str]
    partners: list[str]
    related: Tensor


class TreeTexts(lightning.LightningDataModule):
    """Random batches of concepts of the tree, each with two of its texts.

    Sides are left out: a left-right pair shares one entry, as it shares one query text.

    Args:
        batch: Concepts per batch.
        steps: Batches per epoch.
        seed: Seed of the choices.
    """

    def __init__(self, batch: int = 256, steps: int = 200, seed: int = 0) -> None:
        super().__init__()
        self.batch, self.steps, self.seed = batch, steps, seed
        self.texts, self.related = concept_texts(load_tree())

    def train_dataloader(self) -> Iterator[TextBatch]:
        """A new epoch of batches."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        chooser = random.Random(self.seed * 7919 + epoch)
        return _Repeat(self, chooser)  # type: ignore[return-value]

    def draw(self, chooser: random.Random) -> TextBatch:
        """One batch."""
        size = min(self.batch, len(self.texts))
        picked = chooser.sample(range(len(self.texts)), size)
        pairs = [_two_texts(self.texts[i], chooser) for i in picked]
        index = torch.tensor(picked)
        return TextBatch(
            [a for a, _ in pairs], [b for _, b in pairs], self.related[index][:, index]
        )


class _Repeat:
    """Iterable over an epoch's batches with a length, as the trainer wants."""

    def __init__(self, texts: TreeTexts, chooser: random.Random) -> None:
        self._texts, self._chooser = texts, chooser

    def __len__(self) -> int:
        return self._texts.steps

    def __iter__(self) -> Iterator[TextBatch]:
        for _ in range(self._texts.steps):
            yield self._texts.draw(self._chooser)


def concept_texts(tree: KnowledgeTree) -> tuple[list[list[str]], Tensor]:
    """Texts of each unsided concept (name first), and which pairs of concepts are relatives."""
    bases = [concept for concept in tree if concept.side is None or concept.base == concept.id]
    place = {concept.id: i for i, concept in enumerate(bases)}
    texts = []
    related = torch.eye(len(bases), dtype=torch.bool)
    for i, concept in enumerate(bases):
        names = [unsided_name(concept), *(strip_side(s, concept.side) for s in concept.synonyms)]
        texts.append([*dict.fromkeys(names), tree.definition(concept.id)])
        for parent in tree.parents(concept.id):
            j = place.get(parent)
            if j is not None:
                related[i, j] = related[j, i] = True
    return texts, related


def _two_texts(texts: list[str], chooser: random.Random) -> tuple[str, str]:
    first = texts[0] if chooser.random() < 0.5 else chooser.choice(texts)
    return first, chooser.choice(texts)


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
        hits = eye[torch.arange(len(eye)), logits.argmax(1)].float().mean()
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
