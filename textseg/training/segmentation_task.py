"""Trains the prompted segmenter on a mixture of domains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor

from textseg.network.layers import channels_last
from textseg.network.masks import mask_logits
from textseg.network.model import Features, NetworkConfig, PromptedSegmenter
from textseg.network.pixel_decoder import Block
from textseg.network.report_fusion_parts import grid_of
from textseg.network.weights import load_encoder, load_weights
from textseg.training.adaptation import AdaptationConfig, adapt
from textseg.training.aggregation import summarise
from textseg.training.domain_labels import DomainLabels
from textseg.training.evaluation import EvaluationRow, EvaluationTable
from textseg.training.losses import place_loss, presence_loss
from textseg.training.objectives import (
    ChosenPrompts,
    LossConfig,
    OptimiserConfig,
    PromptConfig,
    check_presence,
    choose_prompts,
    concept_losses,
    count_voxels,
    mask_losses,
    rate_factor,
)
from textseg.training.sampling import Batch
from textseg.training.starting import (
    StartReport,
    check_alike,
    check_conditions,
    check_levels,
    check_origin,
    check_width,
    keeps_hearing,
    start_from,
)
from textseg.training.validation import judge_case, score_case

TEST_FILE = "test.csv"
"""Figures of every structure and scan that `textseg test` writes beside the log."""
_LEVELS = ("full", "half", "quarter", "eighth", "sixteenth")


class DomainPrompts(NamedTuple):
    """The prompts of a domain.

    Attributes:
        queries: Query vectors per modality, each ``K Q``.
        labels: What the prompts are and which labels each joins.
    """

    queries: dict[str, Tensor]
    labels: DomainLabels


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
    """Training on crops of a mixture of domains.

    With ``late`` fusion all concepts of a domain compete for every voxel, and a few prompts, unions
    and absent ones among them, get Dice and cross-entropy of their masks, at every resolution that
    ``losses.levels`` names. With ``multiscale`` fusion those few prompts are judged on the whole
    crop at full resolution. Every prompt's presence is trained.

    Args:
        network: Shape of the network.
        optimiser: Optimiser settings.
        losses: Which losses, and how much each counts.
        prompts: Which prompts of a crop get a mask to learn.
        init_from: Name or folder of a model whose weights to start from.
        init_least: Part of the network's numbers that must come from it.
        adaptation: What of the network is trained; all of it by default.
        recompute: Compute the backbone again for the backward pass: half the memory, a third more
            time.
        compile: Compile the backbone (torch.compile); worth it in long runs on a GPU.
    """

    def __init__(
        self,
        network: NetworkConfig,
        optimiser: OptimiserConfig | None = None,
        losses: LossConfig | None = None,
        prompts: PromptConfig | None = None,
        init_from: str | None = None,
        init_least: float = 0.9,
        adaptation: AdaptationConfig | None = None,
        recompute: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.network = PromptedSegmenter(network)
        self.network.recompute = recompute
        self.optimiser = optimiser or OptimiserConfig()
        self.loss_config = losses or LossConfig()
        self.prompt_config = prompts or PromptConfig()
        check_levels(self.network, num_levels=len(self.loss_config.levels))
        self.init_from = init_from
        self._domains: tuple[DomainPrompts, ...] = ()
        self._scores: dict[int, float] = {}
        self._rows: dict[int, list[EvaluationRow]] = {}
        self.start: StartReport | None = None
        if init_from is not None:
            weights = load_weights(init_from).network
            self.start = start_from(self.network, weights, least=init_least)
        self.adaptation = adaptation or AdaptationConfig()
        adapt(self.network, self.adaptation)
        if compile:
            self.network.backbone.compile()

    def setup(self, stage: str) -> None:
        """Takes the prompts and tunes the network to them: those of a fresh one are whitened.

        One that comes from a model with another text encoder hears them as that model heard its
        own.

        Raises:
            ModelError: The text encoder is none that the network can be asked by, the network
                takes other channels or reports than the data have, or presence is to be trained
                without a head for it (E400).
        """
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.set_domains(datamodule.prompts)
        config = self.network.config
        check_conditions(config, datamodule.domains, token_features=datamodule.token_features)
        if self.init_from is not None:
            check_origin(config, self.init_from, report_encoder=datamodule.report_encoder)
        if stage == "fit":
            check_presence(self.network, self.loss_config)
        # before processes agree on how gradients lie in memory
        channels_last(self.network)
        queries = _joined(domain.queries for domain in datamodule.prompts)
        check_width(queries, self.network, encoder=datamodule.encoder)
        if self.init_from is None or not keeps_hearing(self.network, self.start):
            if config.whiten_queries:
                self.network.whiten(queries)
            return
        if self.init_from == datamodule.encoder:
            return
        before = _joined(datamodule.queries(load_encoder(self.init_from)))
        if not config.whiten_queries:
            check_alike(queries, before, init_from=self.init_from)
        elif not torch.allclose(before, queries, atol=1e-4):
            self.network.translate(queries, before)

    def set_domains(self, domains: Sequence[DomainPrompts]) -> None:
        """Gives the task the prompts of each domain, in the order the batches count them."""
        self._domains = tuple(domains)

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
        image = self.network.with_stand_ins(batch.image)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        queries = domain.queries[batch.modality].to(self.device)
        features = self.network.encode_coarse(image, batch.report)
        refined = self.network.refine(features, queries.expand(len(image), -1, -1))
        labels = domain.labels
        membership = labels.membership.to(self.device)
        voxels = count_voxels(batch.labels, membership)
        chosen = self._chosen(refined, voxels, batch.known, labels, generator)
        losses: dict[str, Tensor] = {}
        if self.network.config.fusion == "late":
            for name, view in self._views(features, batch.labels, generator).items():
                weight = self.loss_config.levels[view.level]
                parts = self._among_concepts(view, refined, batch.known, labels)
                logits = self._logits(view, chosen.refined)
                parts |= mask_losses(logits, view.labels, chosen, self.loss_config)
                losses |= {f"{name}_{part}": weight * loss for part, loss in parts.items()}
        else:
            logits = self.network.masks(features, chosen.refined).flatten(2).mT
            parts = mask_losses(logits, batch.labels.flatten(1), chosen, self.loss_config)
            losses |= {f"full_{part}": loss for part, loss in parts.items()}
        losses |= self._place(batch, features)
        if self.loss_config.presence > 0:
            losses["presence"] = self.loss_config.presence * presence_loss(
                self.network.presence(features, refined),
                voxels,
                batch.known,
                enough=self.prompt_config.enough_voxels,
            )
        return losses

    def _place(self, batch: Batch, features: Features) -> dict[str, Tensor]:
        """The loss of where reports say that structures are, if the network asks itself that."""
        fusion, told, weight = self.network.report_fusion, batch.told, self.loss_config.place
        if fusion is None or told is None or weight == 0:
            return {}
        stated = fusion.stated(told.report, grid_of(features.maps[-2]))
        loss = [place_loss(each, told.labels, told.report.mask.any(1)) for each in stated]
        return {"place": weight * torch.stack(loss).mean()} if loss else {}

    def _chosen(
        self,
        refined: Tensor,
        voxels: Tensor,
        known: Tensor,
        labels: DomainLabels,
        generator: torch.Generator,
    ) -> ChosenPrompts:
        """The prompts of each crop whose masks are trained."""
        twins = labels.twins.to(self.device)
        drawn = [
            choose_prompts(v, k, twins, self.prompt_config, generator)
            for v, k in zip(voxels, known, strict=True)
        ]
        rows, asked = (torch.stack(part) for part in zip(*drawn, strict=True))
        return ChosenPrompts(
            refined.gather(1, rows[..., None].expand(-1, -1, refined.shape[-1])),
            labels.membership.to(self.device)[rows],
            asked,
        )

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
        self._scores[int(batch)] = sum(scores.values()) / len(scores)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean Dice of each domain's scans, and of the domains."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        by_domain: dict[str, list[float]] = {}
        for number, score in self._of_all_processes(self._scores).items():
            domain = datamodule.domains[datamodule.validation[number].domain]
            by_domain.setdefault(domain.name, []).append(score)
        means = {name: sum(values) / len(values) for name, values in by_domain.items()}
        for name, mean in means.items():
            self.log(f"val/{name}", mean, sync_dist=True)
        if means:
            dice = sum(means.values()) / len(means)
            self.log("val/dice", dice, prog_bar=True, sync_dist=True)

    def _of_all_processes(self, mine: dict[int, Any]) -> dict[int, Any]:
        """What every process found, by the number of the scan; one may have come to two of them."""
        if self.trainer.world_size == 1:
            return mine
        parts: list[dict[int, Any]] = [{}] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, mine)
        return dict(sorted((number, found) for part in parts for number, found in part.items()))

    def on_test_epoch_start(self) -> None:
        """Forgets the rows of the last test."""
        self._rows = {}

    def test_step(self, batch: Tensor, batch_index: int) -> None:
        """Judges one whole scan with the engine that users run."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        case = datamodule.testing[int(batch)]
        domain, prompts = datamodule.domains[case.domain], self._domains[case.domain]
        space = prompts.labels.space
        self._rows[int(batch)] = judge_case(
            self.network,
            case,
            prompts.queries[domain.modality],
            window=domain.window,
            concepts=[space.tree[concept] for concept in space.concepts],
            modality=domain.modality,
        )

    def on_test_epoch_end(self) -> None:
        """Logs the means of all structures and of each region; writes every figure to a table."""
        judged = self._of_all_processes(self._rows)
        rows = [row for number in judged for row in judged[number]]
        if not rows:
            return
        summary = summarise(rows, generator=np.random.default_rng(0))
        for means in (*summary.regions, summary.overall):
            for metric in ("dice", "nsd", "hd95_mm"):
                mean = getattr(means, metric).mean
                value = math.nan if mean is None else mean
                self.log(f"test/{means.name}/{metric}", value, sync_dist=True)
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            table = EvaluationTable(tuple(rows), (), tolerance_mm=2.0)
            table.write_csv(folder / TEST_FILE, overwrite=True)

    def _views(
        self, features: Features, labels: Tensor, generator: torch.Generator
    ) -> dict[str, View]:
        """The crop at every level that counts; at full resolution perhaps only a block of it."""
        views = {}
        for level in reversed(range(1, len(self.loss_config.levels))):
            step = 2**level
            coarse = labels[:, ::step, ::step, ::step].flatten(1)
            views[_LEVELS[level]] = View(features.decoded[level - 1], coarse, level)
        if self.loss_config.block == 0:
            views["full"] = View(self.network.finest(features), labels.flatten(1), 0)
            return views
        block = self._block(labels, generator)
        x, y, z = (slice(2 * s.start, 2 * s.stop) for s in block)
        finest = self.network.finest(features, block)
        views["full"] = View(finest, labels[:, x, y, z].flatten(1), 0)
        return views

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
            side = min(self.loss_config.block, size) // 2
            start = min(max(0, middle - side // 2), size // 2 - side)
            slices.append(slice(start, start + side))
        return slices[0], slices[1], slices[2]

    def _logits(self, view: View, refined: Tensor) -> Tensor:
        """Logits ``B V K`` of refined queries."""
        vectors = self.network.mask_vectors(refined, level=view.level)
        return mask_logits(view.features, vectors).flatten(2).mT

    def _among_concepts(
        self, view: View, refined: Tensor, known: Tensor, labels: DomainLabels
    ) -> dict[str, Tensor]:
        """Losses among all concepts of the domain.

        The view that masks are made of is not balanced, so that their size is right.
        """
        config, count = self.loss_config, len(labels.space.concepts)
        if config.competition == config.exclusion == 0:
            return {}
        logits = self._logits(view, refined[:, :count])
        return concept_losses(
            logits, view.labels, known[:, :count], labels, config, balanced=view.level > 0
        )

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
