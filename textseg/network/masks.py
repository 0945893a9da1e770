"""Masks as dot products of a feature map with mask vectors."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

_ROWS = 16384  # a block of logits stays in the processor's cache


def mask_logits(features: Tensor, vectors: Tensor) -> Tensor:
    """Dot product of a map ``B C X Y Z`` with mask vectors ``B K C+1``, ``B K X Y Z``."""
    vectors = vectors.to(features.dtype)
    # With channels last the rows are a view; einsum would copy the map, ten times slower.
    rows = rearrange(features, "b c x y z -> b (x y z) c")
    logits = rows @ vectors[..., :-1].mT + vectors[:, None, :, -1]
    return logits.mT.reshape(*vectors.shape[:2], *features.shape[2:])


def largest_logits(features: Tensor, vectors: Tensor) -> Tensor:
    """The largest of ``mask_logits`` over space, float32 ``B K``, without holding them all."""
    vectors = vectors.to(features.dtype)
    largest = [
        torch.stack([(each[:, :-1] @ block.T).amax(-1) for block in torch.split(rows, _ROWS)])
        for each, rows in zip(vectors, rearrange(features, "b c x y z -> b (x y z) c"), strict=True)
    ]
    return torch.stack(largest).amax(1).float() + vectors[..., -1].float()
