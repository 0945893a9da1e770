"""Trains the prompted segmenter on a mixture of domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning
import torch
from einops import rearrange
from torch import Tensor, nn

from textseg.network.model import (
    Features,
    NetworkConfig,
    PromptedSegmenter,
    channels_last,
    mask_logits,
)
from textseg.training.losses import (
    competition_loss,
    dice_loss,
    mask_bce,
    presence_loss,
    union_masks,
)
from textseg.training.sampling import IGNORE, Batch
from textseg.training.validation import score_case


class DomainPrompts(NamedTuple):
    """The prompts of a domain.

    Attributes:
        queries: Query vectors per modality, each ``N+U Q``: N concepts, then U unions of them.
        membership: ``N+U N+1`` bool, labels (background first) that each prompt joins.
    """

    queries: dict[str, Tensor]
    membership: Tensor


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with warm-up, a plateau and a linear decay to zero.

    Attributes:
        lr: Learning rate on the plateau.
        weight_decay: Weight decay.
        warmup_steps: Steps of linear warm-up.
        decay_fraction: Part of all steps, at the end, over which the rate falls to zero.
    """

    lr: float = 6e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    decay_fraction: float = 0.3


class SegmentationTask(lightning.LightningModule):
    """Training with all concepts of a domain competing for samples of voxels.

    With ``late`` fusion every concept competes at half and at full resolution. A few prompts,
    unions and absent ones among them, get Dice and cross-entropy of their whole mask. Every
    prompt's presence is trained.

    Args:
        network: Shape of the network.
        optimiser: Optimiser settings.
        mask_prompts: Prompts per crop whose full-resolution mask is trained.
        points: Voxels per crop for competition at full resolution.
        enough_voxels: Voxels from which a structure counts as present in a crop.
        init_from: Folder of a model whose weights to start from.
    """

    def __init__(
        self,
        network: NetworkConfig,
        optimiser: OptimiserConfig | None = None,
        mask_prompts: int = 6,
        points: int = 24_000,
        enough_voxels: int = 20,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        self.network = PromptedSegmenter(network)
        self.optimiser = optimiser or OptimiserConfig()
        self.mask_prompts = mask_prompts
        self.points = points
        self.enough_voxels = enough_voxels
        self.classifiers = nn.ModuleList()
        self._domains: tuple[DomainPrompts, ...] = ()
        self._scores: dict[str, list[float]] = {}
        if init_from is not None:
            from textseg.network.weights import load_weights

            self.network.load_state_dict(load_weights(init_from).network)

    def setup(self, stage: str) -> None:
        """Makes a plain classifier per domain, which teaches the trunk faster than queries do."""
        if self.network.config.fusion != "late" or len(self.classifiers):
            return
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        width = self.network.pixel_decoder.channels[1]
        for domain in datamodule.prompts:
            self.classifiers.append(nn.Linear(width, domain.membership.shape[1] - 1))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights; only the classifiers may be missing.

        Weight averaging copies the task before ``setup`` makes the classifiers, so the averaged
        weights of a checkpoint come without them.
        """
        own = {k: v for k, v in self.state_dict().items() if k.startswith("classifiers.")}
        return super().load_state_dict({**own, **state_dict}, strict=strict, assign=assign)

    def set_domains(self, domains: Sequence[DomainPrompts]) -> None:
        """Gives the task the prompts of each domain, in the order the batches count them."""
        self._domains = tuple(domains)

    def on_fit_start(self) -> None:
        """Takes the prompts from the data module."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.set_domains(datamodule.prompts)
        channels_last(self.network)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Weighted sum of the losses of one batch."""
        losses = self.losses(batch)
        for name, value in losses.items():
            self.log(f"loss/{name}", value.detach(), batch_size=1)
        total = torch.stack(list(losses.values())).sum()
        self.log("loss", total.detach(), prog_bar=True, batch_size=1)
        return total

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of a batch, already weighted."""
        domain = self._domains[batch.domain]
        image = batch.image.contiguous(memory_format=torch.channels_last_3d)
        queries = domain.queries[batch.modality].to(self.device)
        features = self.network.encode(image)
        refined = self.network.refine(features, queries.expand(len(image), -1, -1))
        membership = domain.membership.to(self.device)
        voxels = _count_voxels(batch.labels, membership)
        known = _known_prompts(batch.known, membership)
        generator = torch.Generator(self.device).manual_seed(batch.number)
        rows = torch.stack(
            [self._choose(v, k, generator) for v, k in zip(voxels, known, strict=True)]
        )
        dense = self.network.config.fusion == "late"
        return {
            **(self._dense_losses(features, refined, batch, generator) if dense else {}),
            **self._mask_losses(features, refined, batch, rows=rows, voxels=voxels, known=known),
            "presence": 0.2
            * presence_loss(
                self.network.presence(features, refined), voxels, known, enough=self.enough_voxels
            ),
        }

    def on_validation_epoch_start(self) -> None:
        """Forgets the scores of the last validation."""
        self._scores = {}

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Scores one whole scan with the engine that users run."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        case = datamodule.validation[int(batch)]
        domain = datamodule.domains[case.domain]
        queries = self._domains[case.domain].queries[domain.modality]
        scores = score_case(self.network, case, queries, window=domain.window)
        self._scores.setdefault(domain.name, []).append(sum(scores.values()) / len(scores))

    def on_validation_epoch_end(self) -> None:
        """Logs the mean Dice of each domain's scans, and of the domains."""
        means = {name: sum(values) / len(values) for name, values in self._scores.items()}
        for name, mean in means.items():
            self.log(f"val/{name}", mean)
        if means:
            self.log("val/dice", sum(means.values()) / len(means), prog_bar=True)

    def _dense_losses(
        self, features: Features, refined: Tensor, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Competition of all concepts, and Dice of the present ones, on samples of voxels.

        At half resolution the sample is every other voxel along each axis, from a random start;
        at full resolution it is drawn half anywhere, half on labelled voxels.
        """
        concepts = refined[:, : batch.known.shape[1]]
        x, y, z = (int(i) for i in torch.randint(2, (3,), generator=generator, device=self.device))
        coarse = features.decoded[1][:, :, x::2, y::2, z::2]
        half = mask_logits(coarse, self.network.mask_vectors(concepts, level=1)).flatten(2)
        half_labels = batch.labels[:, 2 * x :: 4, 2 * y :: 4, 2 * z :: 4].flatten(1)
        spots = self._points(batch.labels, generator)
        rows = rearrange(features.decoded[0], "b c x y z -> b (x y z) c")
        picked = rows.gather(1, spots[..., None].expand(-1, -1, rows.shape[2]))
        vectors = self.network.mask_vectors(concepts).to(picked.dtype)
        points = vectors[..., :-1] @ picked.mT + vectors[..., -1:]
        point_labels = batch.labels.flatten(1).gather(1, spots)
        return {
            **self._trunk_loss(coarse, half_labels, batch),
            **_compete("half", half, half_labels, batch.known),
            **_compete("points", points, point_labels, batch.known),
        }

    def _trunk_loss(self, coarse: Tensor, labels: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Competition of plain per-concept classifiers, without any query."""
        if not len(self.classifiers):
            return {}
        rows = rearrange(coarse, "b c x y z -> b (x y z) c")
        return _compete("trunk", self.classifiers[batch.domain](rows).mT, labels, batch.known)

    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Voxel numbers ``B P``: half anywhere, half on labelled voxels."""
        flat = labels.flatten(1)
        size = (len(flat), self.points // 2)
        anywhere = torch.randint(flat.shape[1], size, device=flat.device, generator=generator)
        chosen = []
        for row, spare in zip(flat, anywhere, strict=True):
            labelled = (row > 0).nonzero()[:, 0]
            pick = torch.randint(
                max(1, len(labelled)), size[1:], device=row.device, generator=generator
            )
            chosen.append(labelled[pick] if len(labelled) else spare)
        return torch.cat([anywhere, torch.stack(chosen)], dim=1)

    def _mask_losses(
        self,
        features: Features,
        refined: Tensor,
        batch: Batch,
        *,
        rows: Tensor,
        voxels: Tensor,
        known: Tensor,
    ) -> dict[str, Tensor]:
        """Dice and cross-entropy of the chosen prompts ``B R`` at full resolution."""
        membership = self._domains[batch.domain].membership.to(self.device)
        chosen = refined.gather(1, rows[..., None].expand(-1, -1, refined.shape[-1]))
        logits = self.network.masks(features, chosen).flatten(2)
        flat = batch.labels.flatten(1)
        targets = torch.cat(
            [
                union_masks(labels[None], membership[prompts])
                for labels, prompts in zip(flat, rows, strict=True)
            ]
        )
        valid = (flat != IGNORE).float()[:, None]
        known = known.gather(1, rows)
        present = (voxels.gather(1, rows) > 0) & known
        dice = (dice_loss(logits, targets, valid) * present).sum() / present.sum().clamp(min=1)
        bce = (mask_bce(logits, targets, valid) * known).sum() / known.sum().clamp(min=1)
        return {"dice": dice, "bce": 2 * bce}

    def _choose(self, voxels: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Prompts to train masks of: mostly present ones, some absent ones."""
        draw = torch.rand(2, len(voxels), device=voxels.device, generator=generator)
        order = draw[0] + 10.0 * ~known + 2.0 * (voxels == 0)
        absent = draw[1] + 10.0 * (~known | (voxels > 0))
        few = max(1, self.mask_prompts // 5)
        return torch.cat([order.argsort()[: self.mask_prompts - few], absent.argsort()[:few]])

    def configure_optimizers(self) -> Any:
        """AdamW and the warm-up, plateau, decay schedule over the trainer's own step count."""
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=self.optimiser.lr, weight_decay=self.optimiser.weight_decay
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: rate_factor(step, total=total, config=self.optimiser)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _compete(name: str, logits: Tensor, labels: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of logits ``B N V`` against labels ``B V``, and Dice of the rows present."""
    logits = logits.float()
    count = logits.shape[1] + 1
    present = torch.stack([torch.bincount(row.clamp(min=0), minlength=count) for row in labels])
    crop, row = ((present[:, 1:] > 0) & known).nonzero(as_tuple=True)
    targets = (labels[crop] == (row + 1)[:, None]).float()
    dice = dice_loss(logits[crop, row], targets, (labels[crop] != IGNORE).float())
    return {
        name: competition_loss(logits, labels, known, ignore=IGNORE),
        f"{name}_dice": 0.5 * dice.mean() if len(crop) else logits.sum() * 0,
    }


def rate_factor(step: int, *, total: int, config: OptimiserConfig) -> float:
    """Learning rate at a step as a fraction of the plateau.

    >>> config = OptimiserConfig(warmup_steps=10, decay_fraction=0.5)
    >>> [rate_factor(step, total=100, config=config) for step in (0, 9, 40, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (total - step) / max(1.0, config.decay_fraction * total)
    return max(0.0, min(warm, left))


def _count_voxels(labels: Tensor, membership: Tensor) -> Tensor:
    """Voxels of each prompt, ``B K``."""
    count = membership.shape[1]
    per_label = torch.stack(
        [torch.bincount(row.flatten().clamp(min=0), minlength=count) for row in labels]
    )
    return per_label.float() @ membership.T.float()


def _known_prompts(known: Tensor, membership: Tensor) -> Tensor:
    """Whether every label a prompt joins is annotated, ``B K`` from ``B N``."""
    missing = (~known).float() @ membership[:, 1:].T.float()
    return missing == 0
