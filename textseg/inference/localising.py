"""Full resolution only where prompts can be: a coarse pass says where, the mask says whether so.

Inside the region the answer is that of the full pass, but for windows that weigh less than
``CORE_WEIGHT`` there. A mask that ends at the region's wall, or a structure that is not found in
the region, shows that the coarse pass was wrong; then the region grows, or everything is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, TypeAlias

from textseg.imaging import GridTransform
from textseg.inference.clock import StageClock
from textseg.inference.domain_pass import DomainPass
from textseg.inference.region import CoarseView, grown, touched_walls
from textseg.inference.sliding import WindowedPrediction
from textseg.inference.windows import settled_box
from textseg.kernels.restore import Box

Roi: TypeAlias = Literal["off", "auto"]

MOST_GROWTHS = 2


@dataclass(frozen=True, eq=False)
class Localised:
    """The answer of a pass, and how it was confined.

    Attributes:
        prediction: 0 outside the region.
        transform: From its voxels to the scan.
        account: What happened, for the manifest; None if no region was wanted.
        region: Voxels of the working grid; None if all of it was run.
    """

    prediction: WindowedPrediction
    transform: GridTransform
    account: str | None = None
    region: Box | None = None

    @property
    def corners(self) -> tuple[tuple[int, int], ...] | None:
        """First and past-last voxel of the region on each axis."""
        return None if self.region is None else tuple((s.start, s.stop) for s in self.region)


@dataclass(frozen=True)
class Sought:
    """What is looked for.

    Attributes:
        names: Of the structures, in the order of the queries.
        threshold: Of their masks.
        presence_threshold: Presence below which a structure is not found.
    """

    names: Sequence[str]
    threshold: float
    presence_threshold: float

    def missing(self, prediction: WindowedPrediction) -> str | None:
        """The first structure that a prediction does not find."""
        for row, (name, presence) in enumerate(
            zip(self.names, prediction.presence.tolist(), strict=True)
        ):
            values = prediction.probability.boxed(row).values
            if presence < self.presence_threshold or not bool(
                (values > 255 * self.threshold).any()
            ):
                return name
        return None


def run_everywhere(full: DomainPass, *, why: str | None = None) -> Localised:
    """The full pass; with a reason where a region was wanted."""
    account = None if why is None else f"off: {why}"
    return Localised(full.run(), full.prepared.transform, account)


def run_where_likely(full: DomainPass, coarse: DomainPass, sought: Sought) -> Localised:
    """The pass confined to where a coarse one finds the structures; the full pass if in doubt.

    Args:
        full: The pass whose answer is wanted.
        coarse: A pass over the same scan for the same structures, with larger voxels.
        sought: The structures.
    """
    search = _Search(full, coarse, sought)
    found = search.result()
    search.clock.add(found.prediction.timings_s)
    return replace(found, prediction=replace(found.prediction, timings_s=search.clock.seconds))


class _Search:
    """The way to a region in which no mask ends at a wall, and the time it takes."""

    def __init__(self, full: DomainPass, coarse: DomainPass, sought: Sought) -> None:
        self._full, self._coarse, self._sought = full, coarse, sought
        self.clock = StageClock()

    def result(self) -> Localised:
        with self.clock.stage("prepare"):
            self._num_windows = self._full.num_windows()
        if not self._may_pay():
            why = f"{self._num_windows} windows, too few to save any"
            return run_everywhere(self._full, why=why)
        with self.clock.stage("localise"):
            seen = self._coarse.run()
        view = CoarseView(
            self._sought.names, seen.probability, seen.presence, self._coarse.prepared.transform
        )
        doubt = view.doubt(self._sought.threshold)
        if doubt is not None:
            return run_everywhere(self._full, why=doubt)
        region = view.region(self._full.prepared.transform, self._sought.threshold)
        return self._confined(region, num_coarse=seen.windows - seen.skipped)

    def _may_pay(self) -> bool:
        """Whether the coarse pass and one window are less to compute than the full pass."""
        full, coarse = self._full, self._coarse
        least = coarse.most_windows * prod(coarse.window) + prod(full.window)
        return least < self._num_windows * prod(full.window)

    def _confined(self, region: Box, *, num_coarse: int) -> Localised:
        """The answer inside the region, which grows while masks end at its walls."""
        threshold, transform = self._sought.threshold, self._full.prepared.transform
        run: list[str] = []
        for _ in range(1 + MOST_GROWTHS):
            region = self._settled(region)
            num_windows = self._full.num_windows(region)
            if num_windows >= self._num_windows:
                return run_everywhere(self._full, why=f"the region needs all {num_windows} windows")
            run.append(str(num_windows))
            prediction = self._full.run(region)
            missing = self._sought.missing(prediction)
            walls = touched_walls(
                prediction.probability, region, threshold=threshold, shape=transform.shape
            )
            if missing is None and not any(below or above for below, above in walls):
                done = f"{' then '.join(run)} of {self._num_windows} windows"
                return Localised(
                    prediction, transform, f"auto: {done}, {num_coarse} coarse ones", region
                )
            self.clock.add({"localise": sum(prediction.timings_s.values())})
            if missing is not None:
                return run_everywhere(
                    self._full, why=f"{missing} is not where the coarse pass saw it"
                )
            region = grown(region, transform, walls)
        return run_everywhere(self._full, why="masks ended at the walls of each region")

    def _settled(self, region: Box) -> Box:
        """The largest region that the same windows touch, on what is segmented."""
        settled = settled_box(self._full.windows, region)
        shape = self._full.prepared.transform.shape
        x, y, z = (
            slice(part.start, min(part.stop, size))
            for part, size in zip(settled, shape, strict=True)
        )
        return x, y, z
