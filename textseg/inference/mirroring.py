"""A second look at a scan, in a mirror: left is asked for where right was, and both are averaged.

The first look is down to 8 bits before the second begins, and of the averages only that of one
structure is in the making, so memory holds one byte more per voxel and prompt, and a second copy
of the prepared scan.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from textseg.inference.clock import StageClock
from textseg.inference.memory import MemoryPlan
from textseg.inference.probabilities import Probabilities, Shape, averaged, flipped_box
from textseg.inference.sliding import WindowedPrediction
from textseg.inference.window_model import WindowModel
from textseg.kernels.restore import Box
from textseg.knowledge import KnowledgeTree


@dataclass(frozen=True, eq=False)
class Mirror:
    """How a pass takes its second look.

    Attributes:
        axis: That of the working grid which runs between left and right.
        network: The model that looks; one that reads a report has it with its sides swapped.
        rows: Places, among the queries of the pass, of those that are asked again.
        queries: K E, for each of these its counterpart's.
        warnings: What is not asked again, in words.
    """

    axis: int
    network: WindowModel
    rows: tuple[int, ...]
    queries: Tensor
    warnings: tuple[str, ...] = ()

    def image(self, volume: Tensor, shape: Shape) -> Tensor:
        """``... X Y Z`` of which this many first voxels are mirrored, and padding behind is not."""
        x, y, z = shape
        image = volume.clone()
        image[..., :x, :y, :z] = volume[..., :x, :y, :z].flip(self.axis - 3)
        return image

    def box(self, box: Box, shape: Shape) -> Box:
        """Where a box of voxels lies in the mirror image."""
        return flipped_box(box, self.axis, shape[self.axis])

    def averaged(
        self, seen: WindowedPrediction, mirrored: WindowedPrediction
    ) -> WindowedPrediction:
        """The average of what was seen of the scan and of its mirror image; it uses both up.

        Probabilities are averaged in 8 bits, halves rounded up, presence in logits. What was not
        asked again stays as it was seen.
        """
        clock = StageClock()
        clock.add(seen.timings_s)
        clock.add(mirrored.timings_s)
        return replace(
            seen,
            probability=self._probability(seen.probability, mirrored.probability),
            presence=self._presence(seen.presence, mirrored.presence),
            prompts_per_pass=min(seen.prompts_per_pass, mirrored.prompts_per_pass),
            memory=_beside(seen.memory, mirrored.memory),
            warnings=(*seen.warnings, *mirrored.warnings, *self.warnings),
            timings_s=dict(clock.seconds),
        )

    def _probability(self, seen: Probabilities, mirrored: Probabilities) -> Probabilities:
        places = {row: place for place, row in enumerate(self.rows)}
        result = Probabilities(len(seen), seen.shape)
        for row in range(len(seen)):
            part = seen.taken(row)
            if row in places:
                image = mirrored.taken(places[row])
                part = averaged(part, image.flipped(self.axis, seen.shape[self.axis]))
            x, y, z = (span.start for span in part.box)
            result.add(row, part.values, start=(x, y, z))
        return result

    def _presence(self, seen: Tensor, mirrored: Tensor) -> Tensor:
        result, rows = seen.clone(), list(self.rows)
        result[rows] = averaged_presence(seen[rows], mirrored)
        return result


def left_right_axis(axes: str) -> int:
    """The axis of a working grid that runs between left and right.

    >>> left_right_axis("RAS"), left_right_axis("ASL")
    (0, 2)
    """
    return next(axis for axis, letter in enumerate(axes) if letter in "RL")


def counterparts(
    concepts: Sequence[str], *, offered: Collection[str], tree: KnowledgeTree
) -> dict[int, str]:
    """What a mirror shows in place of concepts, by their place; without those it cannot show.

    A concept without a side is its own counterpart. The other side of one that has a side must be
    on offer.
    """
    found = {}
    for place, concept in enumerate(concepts):
        other = concept if tree[concept].side is None else tree.counterpart(concept)
        if other is not None and other in offered:
            found[place] = other
    return found


def averaged_presence(one: Tensor, other: Tensor) -> Tensor:
    """The probability whose logit is the mean of two logits, which count as 16 at most.

    >>> averaged_presence(torch.tensor([0.5, 0.9]), torch.tensor([0.5, 0.1])).tolist()
    [0.5, 0.5]
    """
    epsilon = torch.finfo(torch.float32).eps
    return ((one.logit(epsilon) + other.logit(epsilon)) / 2).sigmoid()


def _beside(first: MemoryPlan, second: MemoryPlan) -> MemoryPlan:
    """The plan of the second look, with what the first has left."""
    estimate, held = second.estimate, first.estimate.output
    more = replace(
        estimate,
        output=estimate.output + held,
        output_before_last=estimate.output_before_last + held,
    )
    return replace(second, estimate=more)
