"""Trains the text encoder on labelled scans: a text should lie near what its structure looks like.

The second of the two stages of knowledge pretraining (Zhao et al. 2023, SAT), after ``text_text``.
A backbone sees the crops; its maps, averaged over a label, are the look of a structure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from textseg.knowledge import load_tree
from textseg.network.backbones import BackboneConfig, make_backbone
from textseg.network.text_encoder import TextEncoderConfig
from textseg.training.sampling import Batch
from textseg.training.text_text import PretrainTask
from textseg.training.tree_texts import TreeTexts, any_text


class Regions(NamedTuple):
    """What the structures of a batch look like.

    Attributes:
        features: One row per structure and crop, ``N C``.
        labels: The structure of each row, ``N``; 1 is the first concept of the domain.
    """

    features: Tensor
    labels: Tensor


class TextAtlasTask(PretrainTask):
    """Contrast between the looks of structures and texts of their concepts.

    Left and right of a structure share their texts, as they do in queries. Beside each batch of
    crops goes one of texts alone, so that the thousands of concepts without labels are not
    forgotten. The data module is that of ``textseg fit``.

    Args:
        encoder: Size of the encoder.
        backbone: What sees the crops; it is left behind after training.
        contrast: The loss, by its name in ``textseg.training.contrast``.
        temperature: Divides cosine similarities.
        lr: Learning rate, decaying to zero along a cosine.
        least_voxels: Smaller pieces of a structure are not looked at.
        texts: Rows of the batch of texts alone.
        hold_out: Keep the test texts of ``textseg text-benchmark`` from training.
        init_from: Name or folder of a model whose text encoder to start from.

    Raises:
        ModelError: That model's text encoder is of another size.
    """

    def __init__(
        self,
        encoder: TextEncoderConfig | None = None,
        backbone: BackboneConfig | None = None,
        contrast: Literal["info_nce", "dhn_nce"] = "info_nce",
        temperature: float = 0.07,
        lr: float = 1e-3,
        least_voxels: int = 20,
        texts: int = 256,
        hold_out: bool = False,
        init_from: str | None = None,
    ) -> None:
        super().__init__(encoder, contrast, temperature, lr, init_from)
        self.backbone = make_backbone(backbone or BackboneConfig())
        self.look = nn.Linear(sum(self.backbone.channels[1:]), self.encoder.features)
        self.least_voxels = least_voxels
        self.texts = TreeTexts(batch=texts, hold_out=hold_out)
        self._places: tuple[tuple[int, ...], ...] = ()

    def on_fit_start(self) -> None:
        """Takes the concepts of each domain's labels from the data module."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.set_domains([labels.label_concepts for labels in datamodule.labels])

    def set_domains(self, domains: Sequence[Sequence[str]]) -> None:
        """Gives the task the concepts of each domain, in label order."""
        tree = load_tree()
        self._places = tuple(
            tuple(self.texts.place[tree[concept].base] for concept in concepts)
            for concepts in domains
        )

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Contrast of one batch of crops, and of as many texts alone."""
        chooser = random.Random(batch.number)
        regions = self.regions(batch)
        text_loss, hits = self.text_loss(self.texts.draw(chooser))
        losses = {"text": text_loss, "atlas": self.atlas_loss(regions, batch.domain, chooser)}
        total = torch.stack(list(losses.values())).sum()
        self.log_dict(losses, batch_size=1)
        self.log_dict({"loss": total, "top1": hits}, prog_bar=True, batch_size=1)
        return total

    def regions(self, batch: Batch) -> Regions:
        """Maps of every level below full resolution, averaged over each structure of each crop."""
        maps = self.backbone(batch.image.contiguous(memory_format=torch.channels_last_3d))
        rows, labels = [], []
        for number, crop in enumerate(batch.labels):
            counts = crop.flatten().clamp(min=0).bincount()
            counts[0] = 0
            present = (counts >= self.least_voxels).nonzero().flatten()
            levels = [pooled(level[number], crop, present) for level in maps[1:]]
            rows.append(torch.cat(levels, dim=1))
            labels.append(present)
        return Regions(torch.cat(rows), torch.cat(labels))

    def atlas_loss(self, regions: Regions, domain: int, chooser: random.Random) -> Tensor:
        """Contrast of each structure's look with one text of each structure there.

        A text has as many positives as there are rows of its structure; relatives do not count,
        nor do structures held out.
        """
        rows = [self._places[domain][label - 1] for label in regions.labels.tolist()]
        kept = [row for row, place in enumerate(rows) if self.texts.entries[place] is not None]
        places = [rows[row] for row in kept]
        asked = list(dict.fromkeys(places))
        if len(asked) < 2:
            return regions.features.sum() * 0
        entries = [entry for place in asked if (entry := self.texts.entries[place]) is not None]
        texts = self.encoder([any_text(entry, chooser) for entry in entries])
        looks = functional.normalize(self.look(regions.features[kept]).float(), dim=-1)
        logits = looks @ texts.float().T / self.temperature
        pairs = torch.tensor([[place == other for other in asked] for place in places])
        related = torch.tensor([[self.texts.are_related(p, q) for q in asked] for p in places])
        positive = pairs.to(logits.device)
        neither = related.to(logits.device) & ~positive
        return self.contrast(logits.masked_fill(neither, float("-inf")), positive)


def pooled(level: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Mean of a map over each label's voxels, ``L C``.

    Args:
        level: Map ``C x y z`` of a coarser grid over the same crop.
        labels: Labels ``X Y Z`` of the crop.
        present: Labels to average over, ``L``.
    """
    coarse = level.shape[1:]
    steps = [
        torch.arange(size, device=labels.device) * small // size
        for size, small in zip(labels.shape, coarse, strict=True)
    ]
    x, y, z = torch.meshgrid(*steps, indexing="ij")
    cell = (x * coarse[1] + y) * coarse[2] + z
    # how many voxels of each label a coarse cell holds
    count = int(torch.tensor(coarse).prod())
    shares = torch.stack([cell[labels == label].bincount(minlength=count) for label in present])
    shares = shares.to(level.dtype)
    return (shares @ level.flatten(1).T) / shares.sum(1, keepdim=True)
