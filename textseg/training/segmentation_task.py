"""Trains the prompted segmenter on a mixture of domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor

from textseg.network.model import (
    Features,
    NetworkConfig,
    PromptedSegmenter,
    channels_last,
    mask_logits,
)
from textseg.network.pixel_decoder import Block
from textseg.network.weights import load_encoder, load_weights
from textseg.training.adaptation import AdaptationConfig, adapt
from textseg.training.domain_labels import IGNORE, DomainLabels
from textseg.training.losses import (
    competition_loss,
    dice_loss,
    mask_bce,
    presence_loss,
    union_masks,
)
from textseg.training.sampling import Batch
from textseg.training.starting import StartReport, start_from
from textseg.training.validation import score_case

_WHITENING = "query_whitening"


class DomainPrompts(NamedTuple):
    """The prompts of a domain.

    Attributes:
        queries: Query vectors per modality, each ``K Q``.
        labels: What the prompts are and which labels each joins.
    """

    queries: dict[str, Tensor]
    labels: DomainLabels


class ChosenPrompts(NamedTuple):
    """Prompts of a batch whose own masks are trained.

    Attributes:
        refined: Their refined queries ``B R E+Q``.
        membership: Labels (background first) each joins, ``B R L+1`` bool.
        known: Whether each is annotated, ``B R`` bool.
    """

    refined: Tensor
    membership: Tensor
    known: Tensor


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


class View(NamedTuple):
    """One resolution at which a batch is judged.

    Attributes:
        features: Prompt-free map ``B C X Y Z``.
        labels: Labels of its voxels, ``B V``.
        level: Decoder level whose mask vectors belong to the map.
    """

    features: Tensor
    labels: Tensor
    level: int


class SegmentationTask(lightning.LightningModule):
    """Training at two resolutions: the whole crop at half, a block of it at full resolution.

    With ``late`` fusion all concepts of the domain compete for every voxel of both, and a few
    prompts, unions and absent ones among them, get Dice and cross-entropy of their masks. With
    ``multiscale`` fusion those few prompts are judged on the whole crop at full resolution. Every
    prompt's presence is trained.

    Args:
        network: Shape of the network.
        optimiser: Optimiser settings.
        mask_prompts: Prompts per crop whose own mask is trained.
        block: Side, in voxels, of the block that is trained at full resolution.
        enough_voxels: Voxels from which a structure counts as present in a crop.
        init_from: Name or folder of a model whose weights to start from.
        init_least: Part of the network's numbers that must come from it.
        adaptation: What of the network is trained; all of it by default.
    """

    def __init__(
        self,
        network: NetworkConfig,
        optimiser: OptimiserConfig | None = None,
        mask_prompts: int = 24,
        block: int = 40,
        enough_voxels: int = 20,
        init_from: str | None = None,
        init_least: float = 0.9,
        adaptation: AdaptationConfig | None = None,
    ) -> None:
        super().__init__()
        self.network = PromptedSegmenter(network)
        self.optimiser = optimiser or OptimiserConfig()
        self.mask_prompts = mask_prompts
        self.block = block
        self.enough_voxels = enough_voxels
        self.init_from = init_from
        self._domains: tuple[DomainPrompts, ...] = ()
        self._scores: dict[str, list[float]] = {}
        self.start: StartReport | None = None
        if init_from is not None:
            weights = load_weights(init_from).network
            self.start = start_from(self.network, weights, least=init_least)
        self.adaptation = adaptation or AdaptationConfig()
        adapt(self.network, self.adaptation)

    def setup(self, stage: str) -> None:
        """Tunes the network to its queries: those of a fresh one are whitened.

        One that comes from a model with another text encoder hears them as that model heard its
        own.
        """
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        queries = _joined(domain.queries for domain in datamodule.prompts)
        if self.init_from is None or self.start is None or _WHITENING not in self.start.loaded:
            if self.network.config.whiten_queries:
                self.network.whiten(queries)
            return
        before = _joined(datamodule.queries(load_encoder(self.init_from)))
        if not torch.allclose(before, queries, atol=1e-4):
            self.network.translate(queries, before)

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
        generator = torch.Generator(self.device).manual_seed(batch.number)
        image = batch.image.contiguous(memory_format=torch.channels_last_3d)
        queries = domain.queries[batch.modality].to(self.device)
        features = self.network.encode_coarse(image)
        refined = self.network.refine(features, queries.expand(len(image), -1, -1))
        labels = domain.labels
        membership = labels.membership.to(self.device)
        voxels = _count_voxels(batch.labels, membership)
        known = batch.known
        rows = torch.stack(
            [
                self._choose(v, k, labels.twins.to(self.device), generator)
                for v, k in zip(voxels, known, strict=True)
            ]
        )
        chosen = ChosenPrompts(
            refined.gather(1, rows[..., None].expand(-1, -1, refined.shape[-1])),
            membership[rows],
            known.gather(1, rows),
        )
        losses: dict[str, Tensor] = {}
        if self.network.config.fusion == "late":
            for name, view in self._views(features, batch.labels, generator).items():
                losses |= self._competition(name, view, refined, known, labels)
                logits = self._logits(view, chosen.refined)
                losses |= _mask_losses(name, logits, view.labels, chosen)
        else:
            logits = self.network.masks(features, chosen.refined).flatten(2).mT
            losses |= _mask_losses("full", logits, batch.labels.flatten(1), chosen)
        presence = self.network.presence(features, refined)
        losses["presence"] = 0.2 * presence_loss(presence, voxels, known, enough=self.enough_voxels)
        return losses

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

    def _views(
        self, features: Features, labels: Tensor, generator: torch.Generator
    ) -> dict[str, View]:
        """The whole crop at half resolution and a block of it at full resolution."""
        block = self._block(labels, generator)
        x, y, z = (slice(2 * s.start, 2 * s.stop) for s in block)
        return {
            "half": View(features.decoded[0], labels[:, ::2, ::2, ::2].flatten(1), 1),
            "full": View(self.network.finest(features, block), labels[:, x, y, z].flatten(1), 0),
        }

    def _block(self, labels: Tensor, generator: torch.Generator) -> Block:
        """Half-resolution voxels around a voxel of a random structure of a random crop."""

        def any_of(rows: Tensor) -> Tensor:
            number = torch.randint(len(rows), (), generator=generator, device=rows.device)
            return rows[number]

        crop = any_of(labels).clamp(min=0)
        label = any_of(crop.flatten().bincount().nonzero())
        centre = any_of((crop == label).nonzero()) // 2
        slices = []
        for middle, size in zip(centre.tolist(), crop.shape, strict=True):
            side = min(self.block, size) // 2
            start = min(max(0, middle - side // 2), size // 2 - side)
            slices.append(slice(start, start + side))
        return slices[0], slices[1], slices[2]

    def _logits(self, view: View, refined: Tensor) -> Tensor:
        """Logits ``B V K`` of refined queries."""
        vectors = self.network.mask_vectors(refined, level=view.level)
        return mask_logits(view.features, vectors).flatten(2).mT

    def _competition(
        self, name: str, view: View, refined: Tensor, known: Tensor, labels: DomainLabels
    ) -> dict[str, Tensor]:
        """Cross-entropy among all concepts of the domain.

        The view that masks are made of is not balanced, so that their size is right.
        """
        count = len(labels.space.concepts)
        loss = competition_loss(
            self._logits(view, refined[:, :count]),
            view.labels,
            known[:, :count],
            columns=labels.columns.to(self.device),
            also=labels.also.to(self.device),
            ignore=IGNORE,
            balanced=view.level > 0,
        )
        return {f"{name}_ce": loss}

    def _choose(
        self, voxels: Tensor, known: Tensor, twins: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Prompts to train masks of: mostly present ones, some absent ones.

        Half of the absent ones are easily taken for a present one, as far as there are such.
        """
        draw = torch.rand(2, len(voxels), device=voxels.device, generator=generator)
        order = draw[0] + 10.0 * ~known + 2.0 * (voxels == 0)
        alike = twins[voxels > 0].any(0)
        absent = draw[1] + 10.0 * (~known | (voxels > 0)) - 0.5 * alike
        few = max(1, self.mask_prompts // 5)
        return torch.cat([order.argsort()[: self.mask_prompts - few], absent.argsort()[:few]])

    def configure_optimizers(self) -> Any:
        """AdamW and the warm-up, plateau, decay schedule over the trainer's own step count."""
        optimiser = torch.optim.AdamW(
            (parameter for parameter in self.parameters() if parameter.requires_grad),
            lr=self.optimiser.lr,
            weight_decay=self.optimiser.weight_decay,
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: rate_factor(step, total=total, config=self.optimiser)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _joined(domains: Iterable[Mapping[str, Tensor]]) -> Tensor:
    """All queries of all domains, ``N Q``."""
    return torch.cat([queries for domain in domains for queries in domain.values()])


def _mask_losses(
    name: str, logits: Tensor, labels: Tensor, chosen: ChosenPrompts
) -> dict[str, Tensor]:
    """Dice of the chosen prompts that are there, and cross-entropy of all that are known.

    Args:
        name: Prefix of the losses.
        logits: ``B V R`` of the chosen prompts.
        labels: ``B V``.
        chosen: The prompts.
    """
    targets = union_masks(labels, chosen.membership)
    valid = (labels != IGNORE).float()[..., None]
    present = (targets.sum(1) > 0) & chosen.known
    dice = (dice_loss(logits, targets, valid) * present).sum() / present.sum().clamp(min=1)
    bce = (mask_bce(logits, targets, valid) * chosen.known).sum() / chosen.known.sum().clamp(min=1)
    return {f"{name}_dice": dice, f"{name}_bce": bce}


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
