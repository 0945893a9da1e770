"""What a step asks of the network: which prompts, at which resolutions, by which losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from textseg.errors import ModelError
from textseg.network.model import PromptedSegmenter
from textseg.training.domain_labels import IGNORE, DomainLabels
from textseg.training.losses import (
    competition_loss,
    dice_loss,
    exclusion_loss,
    mask_bce,
    union_masks,
)


@dataclass(frozen=True)
class LossConfig:
    """How much each loss counts.

    Attributes:
        levels: Weight of each decoder level, from full resolution down, each half as fine as the
            one before. ``multiscale`` fusion is judged at full resolution alone.
        block: Side, in voxels, of the block that is judged at full resolution; 0 for the whole
            crop. Half the crop's side saves most of the time and memory.
        competition: Cross-entropy among all concepts of the domain (``late`` fusion only); without
            it training from scratch on many small structures tends to find none of them.
        exclusion: What masks claim of voxels that belong to another structure, as far as that one
            is found there (``late`` fusion only).
        dice: Dice of the masks of prompts that are there.
        squared: Take squares in Dice's denominator (Milletari et al. 2016), not plain sums.
        absent_dice: Ask Dice of absent prompts too, whose masks should be empty.
        bce: Cross-entropy of the masks of all chosen prompts.
        focal_gamma: Exponent by which easy voxels count less in it (Lin et al. 2017); 0 for none.
        presence: Cross-entropy of every prompt's presence.
        place: How far off reports alone are about where the structures are and how large (gated
            fusion only).
    """

    levels: tuple[float, ...] = (1.0, 1.0)
    block: int = 40
    competition: float = 1.0
    exclusion: float = 0.0
    dice: float = 1.0
    squared: bool = True
    absent_dice: bool = False
    bce: float = 1.0
    focal_gamma: float = 0.0
    presence: float = 0.2
    place: float = 0.3


@dataclass(frozen=True)
class PromptConfig:
    """Which prompts of a crop get a mask of their own to learn.

    Attributes:
        masks: How many.
        absent: Part of them kept for prompts that are annotated and not in the crop.
        absent_per_present: At most so many absent ones for each present one, where any is present;
            None for no limit.
        enough_voxels: Voxels from which a structure counts as present.
    """

    masks: int = 24
    absent: float = 0.17
    absent_per_present: float | None = None
    enough_voxels: int = 20


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with warm-up and a decay to zero.

    Attributes:
        lr: Largest learning rate.
        weight_decay: Weight decay.
        warmup_steps: Steps of linear warm-up.
        decay: ``linear`` stays at the largest rate and then falls in a line; ``cosine`` falls from
            the end of the warm-up on.
        decay_fraction: Part of all steps, at the end, over which a linear decay falls to zero.
    """

    lr: float = 6e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    decay: Literal["linear", "cosine"] = "linear"
    decay_fraction: float = 0.3


class ChosenPrompts(NamedTuple):
    """Prompts of a batch whose own masks are trained.

    Attributes:
        refined: Their refined queries ``B R E+Q``.
        membership: Labels (background first) each joins, ``B R L+1`` bool.
        known: Whether each is annotated and asked for, ``B R`` bool.
    """

    refined: Tensor
    membership: Tensor
    known: Tensor


def check_presence(network: PromptedSegmenter, losses: LossConfig) -> None:
    """Refuses a loss of presence where the network has no head for it.

    Raises:
        ModelError: It has none (E400).
    """
    if losses.presence > 0 and not network.config.presence_head:
        raise ModelError(
            f"losses.presence is {losses.presence}; the network has no head for presence.",
            code="E400",
            remedy="Set losses.presence to 0, or network.presence_head to true.",
        )


def rate_factor(step: int, *, total: int, config: OptimiserConfig) -> float:
    """Learning rate at a step as a fraction of the largest.

    >>> config = OptimiserConfig(warmup_steps=10, decay_fraction=0.5)
    >>> [rate_factor(step, total=100, config=config) for step in (0, 9, 40, 75, 100)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay == "cosine":
        done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
        return warm * (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2
    left = (total - step) / max(1.0, config.decay_fraction * total)
    return max(0.0, min(warm, left))


def choose_prompts(
    voxels: Tensor, known: Tensor, twins: Tensor, config: PromptConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Prompts to train masks of: mostly present ones, some absent ones.

    Absent ones that are easily taken for a present one come first half of the time.

    Args:
        voxels: Voxels of each prompt in the crop, ``K``.
        known: Whether each is annotated, ``K`` bool.
        twins: Which are easily confused, ``K K`` bool.
        config: How many of which.
        generator: Source of randomness.

    Returns:
        Places ``R`` and whether to ask for each, ``R`` bool; what is unknown is never asked for.
    """
    draw = torch.rand(2, len(voxels), device=voxels.device, generator=generator)
    there = known & (voxels > 0)
    order = draw[0] + 10.0 * ~known + 2.0 * ~there
    alike = twins[voxels > 0].any(0)
    last = draw[1] + 10.0 * (~known | there) - 0.5 * alike
    few = max(1, round(config.masks * config.absent))
    rows = torch.cat([order.argsort()[: config.masks - few], last.argsort()[:few]])
    asked = known[rows]
    limit = config.absent_per_present
    if limit is not None and bool(there.any()):
        absent = asked & ~there[rows]
        allowed = max(1, int(limit * there[rows].sum()))
        # the last ones of the list were drawn as absent prompts, the others to fill it up
        asked = asked & ~(absent & (absent.flip(0).cumsum(0).flip(0) > allowed))
    return rows, asked


def concept_losses(
    logits: Tensor,
    labels: Tensor,
    known: Tensor,
    domain: DomainLabels,
    config: LossConfig,
    *,
    balanced: bool,
) -> dict[str, Tensor]:
    """Which concept a voxel belongs to, and that it belongs to no other, weighted.

    Args:
        logits: ``B V N`` of all concepts of the domain.
        labels: ``B V``.
        known: Whether each is annotated, ``B N`` bool.
        domain: What the labels mean.
        config: Weights; a loss of weight 0 is left out.
        balanced: See ``competition_loss``.
    """
    device = logits.device
    found = {}
    if config.competition > 0:
        also = domain.also.to(device)
        columns = domain.columns.to(device)
        found["ce"] = config.competition * competition_loss(
            logits, labels, known, columns=columns, also=also, ignore=IGNORE, balanced=balanced
        )
    if config.exclusion > 0:
        holders = domain.membership[: logits.shape[-1]].T.to(device)
        claims = exclusion_loss(logits, labels, known, holders=holders)
        found["exclusion"] = config.exclusion * claims
    return found


def mask_losses(
    logits: Tensor, labels: Tensor, chosen: ChosenPrompts, config: LossConfig
) -> dict[str, Tensor]:
    """Dice and cross-entropy of the chosen prompts' masks, weighted.

    Args:
        logits: ``B V R`` of the chosen prompts.
        labels: ``B V``.
        chosen: The prompts.
        config: Weights and forms.
    """
    targets = union_masks(labels, chosen.membership)
    valid = (labels != IGNORE).float()[..., None]
    asked = chosen.known
    judged = asked if config.absent_dice else asked & (targets.sum(1) > 0)
    dice = dice_loss(logits, targets, valid, squared=config.squared)
    bce = mask_bce(logits, targets, valid, focal_gamma=config.focal_gamma)
    return {
        "dice": config.dice * (dice * judged).sum() / judged.sum().clamp(min=1),
        "bce": config.bce * (bce * asked).sum() / asked.sum().clamp(min=1),
    }


def count_voxels(labels: Tensor, membership: Tensor) -> Tensor:
    """Voxels of each prompt, ``B K``."""
    count = membership.shape[1]
    per_label = torch.stack(
        [torch.bincount(row.flatten().clamp(min=0), minlength=count) for row in labels]
    )
    return per_label.float() @ membership.T.float()
