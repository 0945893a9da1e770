"""A pass of a model over a scan, everywhere or in a region of the working grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

import torch
from torch import Tensor

from textseg.imaging import Grid, Volume
from textseg.imaging.grid import plan_grid
from textseg.imaging.preparation import Preparation, Prepared, prepare
from textseg.inference.clock import StageClock
from textseg.inference.mirroring import Mirror
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
        mirror: How it looks a second time, in a mirror; None if it does not.
        fill: Puts the network's stand-ins into ``B C X Y Z`` where a scan lacks channels; None for
            a network whose channels have no names.
        progress: See ``segment_windows``; the second look begins anew.
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
    mirror: Mirror | None = None
    fill: Callable[[Tensor], Tensor] | None = None
    progress: Callable[[int, int], None] | None = None
    cancel: Callable[[], bool] | None = None

    @property
    def most_windows(self) -> int:
        """Windows that cover the whole working grid, told without preparing the scan."""
        shape = plan_grid(self.volume.geometry, self.grid).shape
        return prod(WindowGrid.plan(shape, self.window, OVERLAP).counts)

    @cached_property
    def prepared(self) -> Prepared:
        """The scan on the working grid, with stand-ins for the channels it lacks."""
        prepared = prepare(
            self.volume,
            self.grid,
            how=self.preparation,
            window=self.window,
            device=self.queries.device,
        )
        if self.fill is None:
            return prepared
        with torch.inference_mode():
            return replace(prepared, data=self.fill(prepared.data[None])[0])

    @cached_property
    def windows(self) -> WindowGrid:
        """All windows of the prepared scan."""
        x, y, z = self.prepared.data.shape[1:]
        return WindowGrid.plan((x, y, z), self.window, OVERLAP)

    def num_windows(self, region: Box | None = None) -> int:
        """Windows that ``run`` goes through in one look."""
        return len(chosen_windows(self.windows, self.prepared.body, region))

    def run(self, region: Box | None = None) -> WindowedPrediction:
        """Probability and presence of each concept on what is segmented of the working grid."""
        clock = StageClock()
        with clock.stage("prepare"):
            prepared = self.prepared
        prediction = self._seen(
            prepared.data, self.network, self.queries, body=prepared.body, region=region
        )
        if self.mirror is not None:
            prediction = self._seen_twice(prediction, self.mirror, region)
        clock.add(prediction.timings_s)
        return replace(prediction, timings_s=clock.seconds)

    def _seen(
        self,
        data: Tensor,
        network: WindowModel,
        queries: Tensor,
        *,
        body: Tensor | None,
        region: Box | None,
    ) -> WindowedPrediction:
        """What a model sees in the prepared scan or its mirror image, without the padding."""
        if self.averaging == "published":
            average = segment_as_published
        else:
            average = partial(segment_windows, overlap=OVERLAP, region=region)
        prediction = average(
            network,
            data,
            queries,
            window=self.window,
            body=body,
            precision=self.precision,
            progress=self.progress,
            cancel=self.cancel,
        )
        inside = prediction.probability.trimmed(self.prepared.transform.shape)
        return replace(prediction, probability=inside)

    def _seen_twice(
        self, seen: WindowedPrediction, mirror: Mirror, region: Box | None
    ) -> WindowedPrediction:
        """What was seen, averaged with what is seen in a mirror."""
        shape, body = self.prepared.transform.shape, self.prepared.body
        mirrored = self._seen(
            mirror.image(self.prepared.data, shape),
            mirror.network,
            mirror.queries,
            body=None if body is None else mirror.image(body, shape),
            region=None if region is None else mirror.box(region, shape),
        )
        return mirror.averaged(seen, mirrored)
