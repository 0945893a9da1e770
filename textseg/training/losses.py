"""Losses for prompts over partly annotated label maps.

Logits of all concepts of a domain compete with a background whose logit is fixed at zero, so the
same numbers serve the softmax here and the per-prompt sigmoid at inference: a prompt wins a voxel
only if its own logit is positive.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from textseg.network.report_fusion_parts import grid_of
from textseg.network.report_place import Stated

IMPOSSIBLE = -30.0
"""Logit given to concepts that a case does not annotate: they cannot explain any voxel."""


def competition_loss(
    logits: Tensor,
    labels: Tensor,
    known: Tensor,
    *,
    columns: Tensor,
    also: Tensor,
    ignore: int,
    balanced: bool = False,
) -> Tensor:
    """Cross-entropy of ``B V N`` logits plus a zero background against ``B V`` labels.

    Args:
        logits: One column per concept.
        labels: 0 for background, ``ignore`` for voxels to skip.
        known: ``B N``, concepts annotated in each case.
        columns: Concept of each label counted from 1, 0 for background, ``L+1``.
        also: Concepts that hold a label besides that one and do not compete for it, ``L+1 N``.
        ignore: The label to skip.
        balanced: Weigh each voxel with one over the root of its concept's number of voxels, so that
            small structures are learned sooner; their masks come out a little too large.
    """
    masked = logits.float().masked_fill(~known[:, None], IMPOSSIBLE)
    if bool(also.any()):
        masked = masked.masked_fill(also[labels.clamp(min=0)], IMPOSSIBLE)
    scores = functional.pad(masked, (1, 0)).flatten(0, 1)  # B*V N+1
    skipped = labels == ignore
    if bool(skipped.all()):
        return scores.sum() * 0
    targets = torch.where(skipped, ignore, columns[labels.clamp(min=0)]).flatten()
    weight = None
    if balanced:
        counts = torch.bincount(targets[targets != ignore], minlength=scores.shape[1])
        weight = counts.clamp(min=1).float().rsqrt()
    return functional.cross_entropy(scores, targets, weight=weight, ignore_index=ignore)


def exclusion_loss(logits: Tensor, labels: Tensor, known: Tensor, *, holders: Tensor) -> Tensor:
    """What masks claim of voxels that belong to another structure: they overlap where none should.

    The competition settles which logit is the largest, not that the others are negative. A claim
    counts as far as the voxel's own structure is found there: two that cannot be told apart yet,
    such as neighbouring ribs, may both keep the voxel, and learn.

    Args:
        logits: ``B V N``, one column per concept.
        labels: ``B V``; only voxels above 0 count, those of a structure.
        known: ``B N``, concepts annotated in each case.
        holders: Concepts that a label belongs to, ``L+1 N`` bool.

    Returns:
        Cross-entropy of the masks of all other concepts, summed over these, mean over the voxels.
    """
    inside = labels > 0
    asked = known[:, None].expand(logits.shape)[inside]
    held = holders[labels[inside]] & asked
    rows = logits[inside].float()
    sure = rows.detach().masked_fill(~held, IMPOSSIBLE).amax(1, keepdim=True).sigmoid()
    claims = sure * functional.softplus(rows).masked_fill(held | ~asked, 0)
    return claims.sum() / inside.sum().clamp(min=1)


def dice_loss(logits: Tensor, targets: Tensor, valid: Tensor, *, squared: bool = True) -> Tensor:
    """One minus soft Dice of each mask, ``B K`` from ``B V K``.

    Args:
        logits: Mask logits.
        targets: Zeros and ones.
        valid: ``B V 1`` or ``B V K``; voxels outside do not count.
        squared: Denominator of squares (Milletari et al. 2016), which lets unsure voxels count
            less, or of plain sums (Sudre et al. 2017).
    """
    probability = logits.float().sigmoid() * valid
    target = targets * valid
    overlap = (probability * target).sum(1)
    size = probability.square() if squared else probability
    return 1 - (2 * overlap + 1) / (size.sum(1) + target.sum(1) + 1)


def mask_bce(logits: Tensor, targets: Tensor, valid: Tensor, *, focal_gamma: float = 0.0) -> Tensor:
    """Binary cross-entropy of each mask over valid voxels, ``B K`` from ``B V K``.

    Args:
        logits: Mask logits.
        targets: Zeros and ones.
        valid: ``B V 1`` or ``B V K``; voxels outside do not count.
        focal_gamma: Each voxel counts by how far it is from right, to this power (Lin et al. 2017,
            focal loss); 0 counts all alike.
    """
    loss = functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    if focal_gamma > 0:
        loss = loss * (logits.float().sigmoid() - targets).abs() ** focal_gamma
    return (loss * valid).sum(1) / valid.sum(1).clamp(min=1)


def presence_loss(logits: Tensor, voxels: Tensor, known: Tensor, *, enough: int) -> Tensor:
    """Binary cross-entropy of presence; structures barely inside the crop are left out.

    Args:
        logits: ``B K``.
        voxels: ``B K`` number of voxels of each prompt in the crop.
        known: ``B K`` whether the prompt is annotated.
        enough: Voxels from which a structure counts as present; between 1 and this, as neither.
    """
    target = (voxels >= enough).float()
    clear = known & ((voxels == 0) | (voxels >= enough))
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (loss * clear).sum() / clear.sum().clamp(min=1)


def union_masks(labels: Tensor, membership: Tensor) -> Tensor:
    """Masks ``B V K`` of prompts that join labels.

    Args:
        labels: ``B V`` int64 with background 0; ignored voxels count as background.
        membership: ``B K L+1`` bool, the labels (background included) each prompt is made of.
    """
    tables = membership.mT.float()  # B L+1 K
    return torch.stack([table[row] for table, row in zip(tables, labels.clamp(min=0), strict=True)])


def place_loss(stated: Stated, labels: Tensor, told: Tensor) -> Tensor:
    """How far off reports are about where the structures of a crop lie, and how much they fill.

    Args:
        stated: What they say of ``B`` crops.
        labels: ``B X Y Z``; above 0 there is a structure.
        told: ``B`` bool, which crops have a report; others count 0, as those without a structure.

    Returns:
        Cross-entropy in nats more than where the structures are said to be anywhere, and the
        error of the logarithm of their size.
    """
    there = (labels > 0).float()[:, None]
    filled = functional.adaptive_avg_pool3d(there, grid_of(stated.places[:, None])).flatten(1)
    shares = filled / filled.sum(1, keepdim=True).clamp(min=1e-6)
    place = -(stated.places.flatten(1) * shares).sum(1)
    size = filled.mean(1)
    error = functional.smooth_l1_loss(stated.size, size.clamp(min=1e-6).log(), reduction="none")
    return (place + error).where(told & (size > 0), 0).mean()
