"""The running totals of the active slab, and the finished probabilities behind it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from textseg.inference.hand_over import HandOver
from textseg.inference.probabilities import Probabilities
from textseg.inference.windows import WindowGrid
from textseg.kernels import window_blend


class SlabAccumulator:
    """Blends windows slab by slab and hands over planes that no later window can touch.

    Totals are as thick as one window along ``grid.slab_axis``, however long the volume is.
    Finished planes leave as ``round(255 * probability)``.

    Attributes:
        probability: In host memory; complete once every slab is finished.
    """

    def __init__(self, grid: WindowGrid, *, num_prompts: int, device: torch.device) -> None:
        self._grid = grid
        self._axis = grid.slab_axis
        self._base = 0
        self._weights = tuple(
            torch.from_numpy(weights).to(device, torch.float32) for weights in grid.weights
        )
        self._total = torch.zeros(
            (num_prompts, *slab_shape(grid)), dtype=total_dtype(grid.overlap), device=device
        )
        self.probability = Probabilities(num_prompts, grid.shape)
        self._hand_over = HandOver.of(device)

    def add(
        self, features: Tensor, vectors: Tensor, *, prompts: slice, index: tuple[int, int, int]
    ) -> None:
        """Adds one window's masks, of features C X Y Z and vectors K C+1, to the totals."""
        total = self._total[prompts]
        weights = []
        for axis, number in enumerate(index):
            first, last = self._grid.inside(axis, number)
            start = self._grid.starts[axis][number]
            base = self._base if axis == self._axis else 0
            total = total.narrow(axis + 1, first - base, last - first)
            features = features.narrow(axis + 1, first - start, last - first)
            weights.append(self._weights[axis][number, first - start : last - start])
        wx, wy, wz = weights
        window_blend(total, features, vectors, weights=(wx, wy, wz))

    def finish(self, slab: int) -> None:
        """Hands over the planes before the next slab; call once per slab, in order."""
        if slab + 1 < self._grid.counts[self._axis]:
            upcoming, _ = self._grid.inside(self._axis, slab + 1)
        else:
            upcoming = self._grid.shape[self._axis]
        planes = upcoming - self._base
        start = [0, 0, 0]
        start[self._axis] = self._base
        x, y, z = start
        for prompt, total in enumerate(self._total):
            done = total.narrow(self._axis, 0, planes).float().mul_(255).add_(0.5).clamp_(max=255)
            keep = partial(self.probability.add, prompt, start=(x, y, z))
            self._hand_over.send(done.to(torch.uint8), keep)
            self._shift(total, planes)
        self._hand_over.finish()
        self._base = upcoming

    def _shift(self, total: Tensor, planes: int) -> None:
        """Moves the unfinished planes to the front, piecewise so that no copy overlaps itself."""
        kept = total.shape[self._axis] - planes
        for first in range(0, kept, planes):
            count = min(planes, kept - first)
            moved = total.narrow(self._axis, first + planes, count)
            total.narrow(self._axis, first, count).copy_(moved)
        total.narrow(self._axis, kept, planes).zero_()


def total_dtype(overlap: float) -> torch.dtype:
    """Half precision where it keeps the sum of windows to within half a step of 8 bits.

    With an overlap of one half, 8 windows share a voxel; each rounds the sum by 2^-12 at most.
    """
    return torch.float16 if overlap <= 0.5 else torch.float32


def slab_shape(grid: WindowGrid) -> tuple[int, int, int]:
    """Voxels of the active slab: the volume's, but one window thick along the slab axis."""
    x, y, z = (
        min(n, grid.window[axis]) if axis == grid.slab_axis else n
        for axis, n in enumerate(grid.shape)
    )
    return x, y, z
