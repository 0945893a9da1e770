"""What the engine asks of a model."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class DecodedWindow(Protocol):
    """What a model says about one window: masks are dot products of a map and mask vectors."""

    @property
    def features(self) -> Tensor:
        """B C X Y Z, shared by all queries; fastest with channels last."""

    @property
    def vectors(self) -> Tensor:
        """B K C+1, one per query, the bias last."""

    @property
    def logits(self) -> Tensor:
        """B K X Y Z, the products themselves; ``segment_windows`` never asks for them."""

    @property
    def presence(self) -> Tensor:
        """B K, one logit per query: is the structure in this window."""


class WindowModel(Protocol):
    """What the engine asks of a model.

    It must be in evaluation mode, on the volume's device, and decode each query by itself. It may
    have ``activations_per_voxel``, the numbers it holds for each voxel of a window at its peak, and
    ``prompts_per_pass``, how many queries it takes at once.
    """

    @property
    def granularity(self) -> int:
        """Every window size is a multiple of this."""

    def encode(self, volume: Tensor, /) -> Any:
        """Features of a window B C X Y Z, in whatever form ``decode`` takes."""

    def decode(self, features: Any, queries: Tensor, /) -> DecodedWindow:
        """Answers for queries B K E; its memory may be reused once the next call begins."""
