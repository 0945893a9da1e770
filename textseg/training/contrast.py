"""Contrastive losses between two views of the same things, as alternatives by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Contrast = Callable[[Tensor, Tensor], Tensor]


def info_nce(similarity: Tensor, positive: Tensor) -> Tensor:
    """Symmetric InfoNCE with any number of positives per row (van den Oord et al. 2018).

    Each positive competes with the negatives of its row and column, never with other positives.

    Args:
        similarity: ``N M``, already divided by the temperature; minus infinity where a pair is
            neither positive nor negative.
        positive: ``N M`` bool; rows and columns without any do not count.
    """
    return _one_way(similarity, positive) + _one_way(similarity.T, positive.T)


def _one_way(similarity: Tensor, positive: Tensor) -> Tensor:
    against = similarity.masked_fill(positive, float("-inf")).logsumexp(1, keepdim=True)
    # log(e^s / (e^s + sum of negatives)) of each positive
    loss = functional.softplus(against - similarity)
    per_row = (loss.masked_fill(~positive, 0)).sum(1) / positive.sum(1).clamp(min=1)
    return per_row.sum() / positive.any(1).sum().clamp(min=1)


def dhn_nce(
    similarity: Tensor, positive: Tensor, *, beta_row: float = 0.15, beta_column: float = 0.15
) -> Tensor:
    """Decoupled InfoNCE with hard negatives weighted up (Koleilat et al. 2024, MedCLIP-SAM).

    For a pair i and its negatives j, with similarities s divided by the temperature::

        L = mean over i of  log(sum over j of w_ij exp(s_ij)) - s_ii
        w_ij = n exp(beta s_ij) / sum over k of exp(beta s_ik),   n negatives

    once along rows and once along columns; the positive is not in the denominator.

    Args:
        similarity: As for ``info_nce``.
        positive: As for ``info_nce``.
        beta_row: How much hard negatives weigh along rows; 0 weighs all alike.
        beta_column: The same along columns.
    """
    rows = _one_way_decoupled(similarity, positive, beta=beta_row)
    return rows + _one_way_decoupled(similarity.T, positive.T, beta=beta_column)


def _one_way_decoupled(similarity: Tensor, positive: Tensor, *, beta: float) -> Tensor:
    negatives = similarity.masked_fill(positive, float("-inf"))
    count = torch.isfinite(negatives).sum(1)
    emphasis = (beta * similarity).masked_fill(~torch.isfinite(negatives), float("-inf"))
    weights = count.clamp(min=1).log()[:, None] + emphasis.log_softmax(1)
    # rows without a negative have nothing to be pushed from, and no gradient of NaN
    lonely = count == 0
    against = (negatives + weights).masked_fill(lonely[:, None], 0).logsumexp(1, keepdim=True)
    pull = (against - similarity).masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp(min=1)
    counted = positive.any(1) & ~lonely
    return pull.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


CONTRASTS: Mapping[str, Contrast] = MappingProxyType({"info_nce": info_nce, "dhn_nce": dhn_nce})
"""Every contrastive loss by name."""
