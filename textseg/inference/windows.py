"""Where windows go, and how much each one counts at each voxel.

Windows form a product grid, so the importance of a window is a product of one vector per axis,
and normalising each axis to one normalises the product: for Gaussians ``g`` and window starts
``i j k``, ``sum_ijk g_i g_j g_k = (sum_i g_i) (sum_j g_j) (sum_k g_k)``. A voxel's weights
therefore sum to one without a weight volume and without a division afterwards.

A volume shorter than the window is padded equally on both sides (the extra voxel of an odd
difference goes to the end), which keeps the anatomy where the window sees it best. Such an axis has
one window with a negative start: starts always count in voxels of the volume itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
import numpy.typing as npt
from torch import Tensor

from textseg.errors import ModelError
from textseg.kernels.restore import Box

# Half a step of an 8-bit probability: below it a window cannot move a voxel by more than rounding.
CORE_WEIGHT = 1 / 510


def plan_windows(
    shape: tuple[int, int, int], window: tuple[int, int, int], overlap: float = 0.5
) -> npt.NDArray[np.int64]:
    """First voxel of every window, W 3, slab by slab along the longest axis.

    Windows step by ``window * (1 - overlap)`` voxels, rounded down; the last one of an axis is
    shifted back to end with the volume. An axis shorter than the window has one negative start.

    Raises:
        ModelError: A size is not positive or the overlap is outside [0, 1).

    >>> plan_windows((5, 16, 4), (8, 8, 4)).tolist()
    [[-1, 0, 0], [-1, 4, 0], [-1, 8, 0]]
    """
    grid = WindowGrid.plan(shape, window, overlap)
    starts = [[grid.starts[axis][i] for axis, i in enumerate(index)] for index in grid.indices()]
    return np.asarray(starts, dtype=np.int64)


def longest_axis(shape: tuple[int, int, int]) -> int:
    """The first of the longest axes: a slab across it is the smallest."""
    return shape.index(max(shape))


def axis_starts(length: int, window: int, *, overlap: float) -> tuple[int, ...]:
    """Window starts along one axis, ascending and distinct.

    >>> axis_starts(20, 8, overlap=0.5)
    (0, 4, 8, 12)
    >>> axis_starts(21, 8, overlap=0.5)
    (0, 4, 8, 12, 13)
    """
    if length <= window:
        return (-((window - length) // 2),)
    step = max(1, int(window * (1 - overlap)))
    count = ceil((length - window) / step) + 1
    return tuple(min(i * step, length - window) for i in range(count))


def axis_weights(length: int, window: int, *, starts: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Weight of each window at each of its own voxels, ``len(starts)`` x ``window``.

    A Gaussian of sigma ``window / 8`` about the window's centre (the importance of nnU-Net),
    divided by the sum over the windows that share the voxel. Zero at voxels outside the volume.
    """
    offset = np.arange(window) - (window - 1) / 2
    importance = np.exp(-0.5 * (offset / (window / 8)) ** 2)
    weights = np.zeros((len(starts), window))
    total = np.zeros(length)
    for row, start in enumerate(starts):
        first, last = _inside(start, window, length)
        weights[row, first - start : last - start] = importance[first - start : last - start]
        total[first:last] += importance[first - start : last - start]
    for row, start in enumerate(starts):
        first, last = _inside(start, window, length)
        weights[row, first - start : last - start] /= total[first:last]
    return weights


@dataclass(frozen=True, eq=False)
class WindowGrid:
    """All windows of one volume.

    Attributes:
        shape: Voxels of the volume.
        window: Voxels of a window.
        overlap: Part of a window shared with the next.
        starts: Per axis, the first voxel of each window.
        weights: Per axis, ``axis_weights`` of those starts.
        slab_axis: The axis along which windows are streamed.
    """

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    overlap: float
    starts: tuple[tuple[int, ...], ...]
    weights: tuple[npt.NDArray[np.float64], ...]
    slab_axis: int

    @classmethod
    def plan(
        cls, shape: tuple[int, int, int], window: tuple[int, int, int], overlap: float
    ) -> WindowGrid:
        """The grid that covers a volume of this shape."""
        if len(shape) != 3 or len(window) != 3 or min(*shape, *window) < 1:
            raise ModelError(f"Cannot plan windows of {window} voxels on a volume of {shape}.")
        if not 0 <= overlap < 1:
            raise ModelError(f"The window overlap is {overlap}; it must be at least 0, below 1.")
        sizes = tuple(zip(shape, window, strict=True))
        starts = tuple(axis_starts(n, w, overlap=overlap) for n, w in sizes)
        weights = tuple(
            axis_weights(n, w, starts=s) for (n, w), s in zip(sizes, starts, strict=True)
        )
        return cls(shape, window, overlap, starts, weights, longest_axis(shape))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Windows along each axis."""
        x, y, z = (len(starts) for starts in self.starts)
        return x, y, z

    def indices(self) -> list[tuple[int, int, int]]:
        """Every window as its number on each axis, slab by slab."""
        x, y, z = (range(count) for count in self.counts)
        return sorted(product(x, y, z), key=lambda index: index[self.slab_axis])

    def inside(self, axis: int, number: int) -> tuple[int, int]:
        """The part of the volume, first and past-last voxel, that a window covers on an axis."""
        return _inside(self.starts[axis][number], self.window[axis], self.shape[axis])

    def core(self, axis: int, number: int) -> tuple[int, int]:
        """The part of ``inside`` where the window's weight reaches ``CORE_WEIGHT``."""
        row = self.weights[axis][number]
        kept = np.flatnonzero(row >= min(CORE_WEIGHT, row.max()))
        start = self.starts[axis][number]
        return start + int(kept[0]), start + int(kept[-1]) + 1


def occupied_windows(grid: WindowGrid, body: Tensor | None) -> npt.NDArray[np.bool_]:
    """Which windows, by their number on each axis, have body in their core; all without a mask.

    A window that is left out counts as probability 0 under its usual weight, so weights still sum
    to one. Where its core holds no body, every body voxel it covers has a weight below
    ``CORE_WEIGHT`` in it: leaving it out moves no body voxel by more than half an 8-bit step.
    """
    occupied = np.ones(grid.counts, dtype=np.bool_)
    if body is None:
        return occupied
    for index in grid.indices():
        box = tuple(slice(*grid.core(axis, number)) for axis, number in enumerate(index))
        occupied[index] = bool(body[box].any())
    return occupied


def touching_windows(grid: WindowGrid, region: Box) -> npt.NDArray[np.bool_]:
    """Which windows, by their number on each axis, have some of the region in their core.

    Every other window has a weight below ``CORE_WEIGHT`` at each voxel of the region.
    """
    x, y, z = (
        np.array([a < part.stop and part.start < b for a, b in _cores(grid, axis)])
        for axis, part in enumerate(region)
    )
    touching: npt.NDArray[np.bool_] = x[:, None, None] & y[:, None] & z
    return touching


def settled_box(grid: WindowGrid, region: Box) -> Box:
    """The largest box around the region that the same windows touch."""
    spans = []
    for axis, part in enumerate(region):
        cores = _cores(grid, axis)
        below = [last for _, last in cores if last <= part.start]
        above = [first for first, _ in cores if first >= part.stop]
        spans.append(slice(max(below, default=0), min(above, default=grid.shape[axis])))
    x, y, z = spans
    return x, y, z


def _cores(grid: WindowGrid, axis: int) -> list[tuple[int, int]]:
    return [grid.core(axis, number) for number in range(grid.counts[axis])]


def _inside(start: int, window: int, length: int) -> tuple[int, int]:
    """First and past-last voxel of the volume that a window at ``start`` covers."""
    return max(start, 0), min(start + window, length)
