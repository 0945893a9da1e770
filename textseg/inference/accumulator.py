"""The running totals of the active slab, and the finished probabilities behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from textseg.inference.windows import WindowGrid
from textseg.kernels import window_blend


class SlabAccumulator:
    """Blends windows slab by slab and hands over planes that no later window can touch.

    Totals are float32 and as thick as one window along ``grid.slab_axis``, however long the volume
    is. Finished planes leave as ``round(255 * probability)``.

    Attributes:
        probability: uint8 K X Y Z in host memory; complete once every slab is finished.
    """

    def __init__(self, grid: WindowGrid, *, num_prompts: int, device: torch.device) -> None:
        self._grid = grid
        self._axis = grid.slab_axis
        self._base = 0
        self._weights = tuple(
            torch.from_numpy(weights).to(device, torch.float32) for weights in grid.weights
        )
        self._total = torch.zeros((num_prompts, *slab_shape(grid)), device=device)
        self.probability = torch.empty((num_prompts, *grid.shape), dtype=torch.uint8)

    def add(self, logits: Tensor, *, prompts: slice, index: tuple[int, int, int]) -> None:
        """Adds one window's logits (K X Y Z, K as many as ``prompts``) to the totals."""
        total = self._total[prompts]
        weights = []
        for axis, number in enumerate(index):
            first, last = self._grid.inside(axis, number)
            start = self._grid.starts[axis][number]
            base = self._base if axis == self._axis else 0
            total = total.narrow(axis + 1, first - base, last - first)
            logits = logits.narrow(axis + 1, first - start, last - first)
            weights.append(self._weights[axis][number, first - start : last - start])
        wx, wy, wz = weights
        window_blend(total, logits, weights=(wx, wy, wz))

    def finish(self, slab: int) -> None:
        """Hands over the planes before the next slab; call once per slab, in order."""
        dim = self._axis + 1
        if slab + 1 < self._grid.counts[self._axis]:
            upcoming, _ = self._grid.inside(self._axis, slab + 1)
        else:
            upcoming = self._grid.shape[self._axis]
        planes = upcoming - self._base
        done = self._total.narrow(dim, 0, planes).mul_(255).round_()
        self.probability.narrow(dim, self._base, planes).copy_(done)
        self._shift(planes)
        self._base = upcoming

    def _shift(self, planes: int) -> None:
        """Moves the unfinished planes to the front, piecewise so that no copy overlaps itself."""
        dim = self._axis + 1
        kept = self._total.shape[dim] - planes
        for first in range(0, kept, planes):
            count = min(planes, kept - first)
            moved = self._total.narrow(dim, first + planes, count)
            self._total.narrow(dim, first, count).copy_(moved)
        self._total.narrow(dim, kept, planes).zero_()


def slab_shape(grid: WindowGrid) -> tuple[int, int, int]:
    """Voxels of the active slab: the volume's, but one window thick along the slab axis."""
    x, y, z = (
        min(n, grid.window[axis]) if axis == grid.slab_axis else n
        for axis, n in enumerate(grid.shape)
    )
    return x, y, z
