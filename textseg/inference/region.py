"""Where on the working grid prompts can be, judged from a coarse pass over the same scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from torch import Tensor

from textseg.imaging import GridTransform
from textseg.inference.probabilities import Probabilities, Shape, enclosing
from textseg.kernels.restore import Box, bounding_box

COARSENING = 1.5
"""A coarse pass has voxels of this many times the working spacing; at 2 small organs get lost."""

SURE_PRESENCE = 0.9
"""Least presence in the coarse pass of a structure whose place is believed."""

LIKELY = 0.05
"""Coarse probability above which a structure may be there."""

MARGIN_MM = 30.0
"""How far around that the full pass may find it."""


@dataclass(frozen=True, eq=False)
class CoarseView:
    """What a coarse pass says.

    Attributes:
        names: Of the structures.
        probability: One per structure.
        presence: One per structure, 0..1.
        transform: From the coarse grid to the scan.
    """

    names: Sequence[str]
    probability: Probabilities
    presence: Tensor
    transform: GridTransform

    def doubt(self, threshold: float) -> str | None:
        """Why it cannot say where every structure is; None if it can."""
        for row, (name, presence) in enumerate(zip(self.names, self.presence, strict=True)):
            if presence < SURE_PRESENCE:
                return f"{name}: coarse presence {presence:.2f} is below {SURE_PRESENCE:.2f}"
            if self._likely(row, threshold) is None:
                return f"{name}: no voxel of the coarse pass is likely"
        return None

    def region(self, fine: GridTransform, threshold: float) -> Box:
        """The box of a finer grid of the same scan that holds every structure, with a margin.

        Args:
            fine: The finer grid, of any axes and crop.
            threshold: Of the mask that is wanted.
        """
        boxes = [self._likely(row, threshold) for row in range(len(self.names))]
        likely = enclosing([box for box in boxes if box is not None])
        return grown(carried_over(likely, self.transform, fine), fine)

    def _likely(self, row: int, threshold: float) -> Box | None:
        """Where a structure may be, in voxels of the coarse grid."""
        part = self.probability.boxed(row)
        inner = bounding_box(part.values, level=255 * min(LIKELY, threshold))
        if inner is None:
            return None
        x, y, z = (
            slice(outer.start + span.start, outer.start + span.stop)
            for outer, span in zip(part.box, inner, strict=True)
        )
        return x, y, z


def carried_over(box: Box, coarse: GridTransform, fine: GridTransform) -> Box:
    """The voxels of one working grid of a scan that a box of another one reaches.

    It may stick out of what is segmented of the finer grid.
    """
    edges = [
        (part.start + first - 0.5, part.stop + first - 0.5)
        for part, first in zip(box, _first_voxel(coarse), strict=True)
    ]
    corners = fine.target.to_voxel(coarse.target.to_world(np.array(list(product(*edges)))))
    corners -= _first_voxel(fine)
    # a corner that rounding moved does not bring another voxel in
    low = np.floor(corners.min(axis=0) + 0.5 + 1e-6).astype(int)
    high = np.ceil(corners.max(axis=0) + 0.5 - 1e-6).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return x, y, z


def grown(box: Box, grid: GridTransform, sides: Sequence[tuple[bool, bool]] = ()) -> Box:
    """The box with ``MARGIN_MM`` more on the given sides (all by default), kept in the grid."""
    spans = []
    for axis, (part, size) in enumerate(zip(box, grid.shape, strict=True)):
        below, above = sides[axis] if sides else (True, True)
        margin = int(np.ceil(MARGIN_MM / grid.target.spacing_mm[axis]))
        start = max(0, part.start - margin * below)
        stop = min(size, part.stop + margin * above)
        spans.append(slice(min(start, size - 1), max(stop, 1)))
    x, y, z = spans
    return x, y, z


def touched_walls(
    probability: Probabilities, region: Box, *, threshold: float, shape: Shape
) -> tuple[tuple[bool, bool], ...]:
    """Per axis, whether some mask ends at the region's lower and upper wall.

    A wall of the volume itself is none of the region.
    """
    touched = [[False, False] for _ in range(3)]
    for row in range(len(probability)):
        part = probability.boxed(row)
        mask = bounding_box(part.values, level=255 * threshold)
        if mask is None:
            continue
        for axis, (outer, span) in enumerate(zip(part.box, mask, strict=True)):
            wall = region[axis]
            start, stop = outer.start + span.start, outer.start + span.stop
            touched[axis][0] |= 0 < wall.start >= start
            touched[axis][1] |= stop >= wall.stop < shape[axis]
    return tuple((below, above) for below, above in touched)


def _first_voxel(grid: GridTransform) -> tuple[int, int, int]:
    """Where in the whole working grid that starts which is segmented."""
    if grid.crop is None:
        return 0, 0, 0
    x, y, z = (part.start for part in grid.crop)
    return x, y, z
