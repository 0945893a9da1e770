"""A pass of a model over a scan, everywhere or in a region of the working grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

from torch import Tensor

from textseg.imaging import Grid, Volume
from textseg.imaging.grid import plan_grid
from textseg.imaging.preparation import Preparation, Prepared, prepare
from textseg.inference.clock import StageClock
from textseg.inference.published import segment_as_published
from textseg.inference.sliding import WindowedPrediction, chosen_windows, segment_windows
from textseg.inference.window_model import WindowModel
from textseg.inference.windows import WindowGrid
from textseg.kernels.restore import Box

OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class DomainPass:
    """What a pass needs; the scan is prepared when that is first asked for.

    Attributes:
        network: The model.
        queries: K E, one per concept, on the model's device.
        volume: The scan.
        grid: The working grid.
        window: Voxels of a window.
        preparation: How the model wants scans.
        precision: What the model runs in.
        averaging: ``streamed`` or ``published``, which knows no regions.
        progress: See ``segment_windows``.
        cancel: See ``segment_windows``.
    """

    network: WindowModel
    queries: Tensor
    volume: Volume
    grid: Grid
    window: tuple[int, int, int]
    preparation: Preparation
    precision: str
    averaging: str = "streamed"
    progress: Callable[[int, int], None] | None = None
    cancel: Callable[[], bool] | None = None

    @property
    def most_windows(self) -> int:
        """Windows that cover the whole working grid, told without preparing the scan."""
        shape = plan_grid(self.volume.geometry, self.grid).shape
        return prod(WindowGrid.plan(shape, self.window, OVERLAP).counts)

    @cached_property
    def prepared(self) -> Prepared:
        """The scan on the working grid."""
        return prepare(
            self.volume,
            self.grid,
            how=self.preparation,
            window=self.window,
            device=self.queries.device,
        )

    @cached_property
    def windows(self) -> WindowGrid:
        """All windows of the prepared scan."""
        x, y, z = self.prepared.data.shape[1:]
        return WindowGrid.plan((x, y, z), self.window, OVERLAP)

    def num_windows(self, region: Box | None = None) -> int:
        """Windows that ``run`` goes through."""
        return len(chosen_windows(self.windows, self.prepared.body, region))

    def run(self, region: Box | None = None) -> WindowedPrediction:
        """Probability and presence of each concept on what is segmented of the working grid."""
        clock = StageClock()
        with clock.stage("prepare"):
            prepared = self.prepared
        if self.averaging == "published":
            average = segment_as_published
        else:
            average = partial(segment_windows, overlap=OVERLAP, region=region)
        prediction = average(
            self.network,
            prepared.data,
            self.queries,
            window=self.window,
            body=prepared.body,
            precision=self.precision,
            progress=self.progress,
            cancel=self.cancel,
        )
        clock.add(prediction.timings_s)
        inside = prediction.probability.trimmed(prepared.transform.shape)
        return replace(prediction, probability=inside, timings_s=clock.seconds)
