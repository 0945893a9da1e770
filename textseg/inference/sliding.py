"""Streams windows of a volume through a model and blends what comes out, for any number of prompts.

Read ``segment_windows``: plan, then stream: per window encode once, decode a few prompts at a time,
blend; a slab that no later window can touch is handed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from math import ceil, prod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from textseg.errors import Cancelled, ModelError
from textseg.inference.accumulator import SlabAccumulator
from textseg.inference.clock import StageClock
from textseg.inference.memory import (
    ACTIVATIONS_PER_VOXEL,
    BYTES_PER_ACTIVATION,
    PROMPTS_PER_PASS,
    MemoryPlan,
    free_memory,
    is_out_of_memory,
    plan_memory,
    reporting_shortage,
    require_host_memory,
)
from textseg.inference.precision import Precision, resolve_precision
from textseg.inference.probabilities import Probabilities
from textseg.inference.window_model import DecodedWindow, WindowModel
from textseg.inference.windows import WindowGrid, occupied_windows, touching_windows
from textseg.kernels.restore import Box

logger = logging.getLogger(__name__)

Index: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class WindowedPrediction:
    """What the windows of a volume say about each prompt.

    Attributes:
        probability: Per prompt uint8 X Y Z in host memory, ``round(255 * p)``.
        presence: float32 K in host memory, 0..1: how sure the surest window is that the structure
            is in it. 0 if every window was skipped.
        windows: Windows that cover the volume.
        skipped: How many of them were not run: those without body, or beyond the region.
        precision: What the network ran in.
        prompts_per_pass: Prompts decoded at once in the end.
        memory: The plan made beforehand.
        warnings: What had to be done differently, in words.
        timings_s: Seconds by stage: ``backbone``, ``decode``, ``blend``.
    """

    probability: Probabilities
    presence: Tensor
    windows: int
    skipped: int
    precision: Precision
    prompts_per_pass: int
    memory: MemoryPlan
    warnings: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)


def segment_windows(
    model: WindowModel,
    volume: Tensor,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
    overlap: float = 0.5,
    body: Tensor | None = None,
    region: Box | None = None,
    precision: str = "float32",
    prompts_per_pass: int | None = None,
    memory_limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> WindowedPrediction:
    """Probability and presence of every query over the whole volume.

    Runs on the volume's device. Prompts never interact: each gets the same answer alone, among
    others and in any order. Totals hold one slab (``plan_memory``).

    Args:
        model: See ``WindowModel``.
        volume: float C X Y Z in the model's input range; short axes are padded with the minimum.
        queries: K E, one vector per prompt.
        window: Voxels of a window.
        overlap: Part of a window shared with the next, at least 0 and below 1.
        body: bool X Y Z; windows without any are skipped and count as 0 (``occupied_windows``).
        region: The answer is 0 outside; windows of other places are skipped (``touching_windows``).
        precision: ``auto``, ``float32`` or ``bfloat16`` (autocast).
        prompts_per_pass: Prompts decoded at once (None: as the model says), fewer if memory ends.
        memory_limit: Bytes to work in; what is free if None. Where the totals of all prompts do
            not fit, the windows run again for the next prompts.
        progress: Called after each window: windows done, windows to do (without those skipped).
        cancel: Asked before each window; true stops the run.

    Raises:
        ModelError: Arguments do not fit together, or the model's answer is not finite.
        ResourceError: E501, out of memory even with one prompt at a time.
        Cancelled: As asked.
    """
    _check_arguments(model, volume, queries, window, body)
    grid = WindowGrid.plan(_spatial_shape(volume), window, overlap)
    todo = chosen_windows(grid, body, region)
    runs_in = resolve_precision(precision, volume.device)
    plan = plan_memory(
        grid,
        num_prompts=len(queries),
        room=free_memory(volume.device) if memory_limit is None else memory_limit,
        prompts_per_pass=_prompts_per_pass(model, prompts_per_pass),
        activation_bytes_per_voxel=_activation_bytes(model, runs_in),
        device_type=volume.device.type,
    )
    logger.info("%d of %d windows to run, %s", len(todo), prod(grid.counts), plan)
    runs = torch.split(queries, plan.prompts_per_run)
    steps = _Steps(len(todo) * len(runs), progress, cancel)
    with reporting_shortage(plan.estimate):
        streams = (_WindowStream(model, volume, run, grid, runs_in, plan) for run in runs)
        parts = [stream.run(steps.taken(todo)) for stream in streams]
    return _joined(parts, region=region, skipped=prod(grid.counts) - len(todo))


def chosen_windows(grid: WindowGrid, body: Tensor | None, region: Box | None) -> list[Index]:
    """The windows to run, slab by slab: those with body that touch the region."""
    chosen = occupied_windows(grid, body)
    if region is not None:
        chosen &= touching_windows(grid, region)
    return [index for index in grid.indices() if chosen[index]]


class _Steps:
    """Tells how far the windows are, and asks whether to go on."""

    def __init__(
        self,
        total: int,
        progress: Callable[[int, int], None] | None,
        cancel: Callable[[], bool] | None,
    ) -> None:
        self._total, self._progress, self._cancel = total, progress, cancel
        self._done = 0

    def taken(self, windows: Iterable[Index]) -> Iterator[Index]:
        """The windows, one at a time; each counts as done when the next is asked for."""
        for window in windows:
            if self._cancel is not None and self._cancel():
                raise Cancelled(f"Stopped after {self._done} of {self._total} windows.")
            yield window
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)


def _joined(
    parts: Sequence[WindowedPrediction], *, region: Box | None, skipped: int
) -> WindowedPrediction:
    """The prediction of several runs over the same windows."""
    probability = Probabilities.joined([part.probability for part in parts])
    clock = StageClock()
    for part in parts:
        clock.add(part.timings_s)
    return replace(
        parts[-1],
        probability=probability if region is None else probability.within(region),
        presence=torch.cat([part.presence for part in parts]),
        skipped=skipped,
        warnings=tuple(warning for part in parts for warning in part.warnings),
        timings_s=dict(clock.seconds),
    )


class _WindowStream:
    """One pass over a volume: the state between one window and the next."""

    def __init__(
        self,
        model: WindowModel,
        volume: Tensor,
        queries: Tensor,
        grid: WindowGrid,
        precision: Precision,
        plan: MemoryPlan,
    ) -> None:
        device = volume.device
        self._model = model
        self._volume = volume
        self._queries = queries.to(device)[None]  # 1 K E
        self._grid = grid
        self._precision = precision
        self._plan = plan
        self._prompts_per_pass = plan.prompts_per_pass
        self._warnings: list[str] = []
        self._clock = StageClock()
        self._num_finished = 0
        # Made outside inference mode, so that callers may change what they are given.
        self._accumulator = SlabAccumulator(grid, num_prompts=len(queries), device=device)
        self._presence = torch.zeros(len(queries), device=device)
        self._input = _padded_window(volume, grid)

    def run(self, windows: Iterable[Index]) -> WindowedPrediction:
        """What some windows, in slab order, say about the prompts."""
        for index in windows:
            self._take(index)
        return self._result()

    @torch.inference_mode()
    def _take(self, index: Index) -> None:
        """Encodes one window, and decodes and blends every prompt."""
        self._finish_slabs(index[self._grid.slab_axis])
        if len(self._presence) == 0:
            return
        self._gather(index)
        with self._clock.stage("backbone"), self._autocast():
            features = self._model.encode(self._input)
        first = 0
        while first < len(self._presence):
            prompts = slice(first, min(first + self._prompts_per_pass, len(self._presence)))
            if self._try_prompts(features, prompts, index):
                first = prompts.stop
            else:
                self._halve_prompts_per_pass()

    def _result(self) -> WindowedPrediction:
        """The prediction, once every window has run."""
        self._finish_slabs(self._grid.counts[self._grid.slab_axis])
        return WindowedPrediction(
            probability=self._accumulator.probability,
            presence=self._presence.cpu(),
            windows=prod(self._grid.counts),
            skipped=0,
            precision=self._precision,
            prompts_per_pass=self._prompts_per_pass,
            memory=self._plan,
            warnings=tuple(self._warnings),
            timings_s=dict(self._clock.seconds),
        )

    def _finish_slabs(self, end: int) -> None:
        """Hands over every slab before ``end``, also those in which no window ran."""
        with self._clock.stage("blend"):
            for slab in range(self._num_finished, end):
                require_host_memory()
                self._accumulator.finish(slab)
        self._num_finished = end

    def _gather(self, index: Index) -> None:
        """Copies a window of the volume into the network's input; padding stays as it was."""
        source, target = self._volume, self._input[0]
        for axis, number in enumerate(index):
            first, last = self._grid.inside(axis, number)
            start = self._grid.starts[axis][number]
            source = source.narrow(axis + 1, first, last - first)
            target = target.narrow(axis + 1, first - start, last - first)
        target.copy_(source)

    def _try_prompts(self, features: Any, prompts: slice, index: Index) -> bool:
        """Decodes and blends some prompts; false, with nothing added, if memory ran out."""
        try:
            with self._clock.stage("decode"), self._autocast():
                decoded = self._model.decode(features, self._queries[:, prompts])
                self._check(decoded, prompts)
            with self._clock.stage("blend"):
                self._accumulator.add(
                    decoded.features[0], decoded.vectors[0], prompts=prompts, index=index
                )
        except (MemoryError, RuntimeError) as error:
            if self._prompts_per_pass == 1 or not is_out_of_memory(error):
                raise
            return False
        surest = self._presence[prompts]
        torch.maximum(surest, decoded.presence[0].float().sigmoid(), out=surest)
        return True

    def _check(self, decoded: DecodedWindow, prompts: slice) -> None:
        """Refuses an answer of the wrong shape or with numbers that are not finite."""
        num = prompts.stop - prompts.start
        features, vectors, presence = decoded.features, decoded.vectors, decoded.presence
        if (
            features.shape != (1, features.shape[1], *self._grid.window)
            or vectors.shape != (1, num, features.shape[1] + 1)
            or presence.shape != (1, num)
        ):
            raise ModelError(
                f"The model answered {num} prompts on a window of {self._grid.window} with "
                f"features {tuple(features.shape)}, vectors {tuple(vectors.shape)} and presence "
                f"{tuple(presence.shape)}."
            )
        # A sum passes infinities and NaN on, at a thirtieth of the cost of looking at each number.
        # float16 sums overflow by themselves; bfloat16 has the range of float32.
        dtype = torch.float32 if features.dtype == torch.float16 else None
        checksum = features.sum(dtype=dtype) + vectors.float().sum() + presence.float().sum()
        if not bool(torch.isfinite(checksum)):
            raise ModelError(
                "The model answered with numbers that are not finite.",
                remedy="Run with --precision float32; if that fails too, the weights are damaged.",
            )

    def _halve_prompts_per_pass(self) -> None:
        self._prompts_per_pass //= 2
        if self._volume.device.type == "cuda":
            torch.cuda.empty_cache()
        message = f"Out of memory: continuing with {self._prompts_per_pass} prompts per pass."
        logger.warning(message)
        self._warnings.append(message)

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self._volume.device.type,
            dtype=torch.bfloat16,
            enabled=self._precision == "bfloat16",
        )


def _activation_bytes(model: WindowModel, precision: Precision) -> int:
    numbers = int(getattr(model, "activations_per_voxel", ACTIVATIONS_PER_VOXEL))
    return ceil(numbers * BYTES_PER_ACTIVATION[precision])


def _prompts_per_pass(model: WindowModel, asked: int | None) -> int:
    if asked is None:
        return int(getattr(model, "prompts_per_pass", PROMPTS_PER_PASS))
    if asked < 1:
        raise ModelError(f"prompts_per_pass is {asked}; it must be at least 1.")
    return asked


def _padded_window(volume: Tensor, grid: WindowGrid) -> Tensor:
    """An input buffer 1 C X Y Z, channels last, that holds the padding value everywhere.

    One buffer serves every window: on an axis that needs padding there is only one start, so the
    padded voxels are the same each time.
    """
    lowest = volume.amin(dim=(1, 2, 3))
    buffer = torch.empty(
        (1, len(volume), *grid.window),
        device=volume.device,
        memory_format=torch.channels_last_3d,
    )
    return buffer.copy_(lowest[None, :, None, None, None].expand_as(buffer))


def _spatial_shape(volume: Tensor) -> tuple[int, int, int]:
    _, x, y, z = volume.shape
    return x, y, z


def _check_arguments(
    model: WindowModel,
    volume: Tensor,
    queries: Tensor,
    window: tuple[int, int, int],
    body: Tensor | None,
) -> None:
    """Refuses what cannot work, before anything is allocated."""
    if volume.ndim != 4 or volume.numel() == 0 or not volume.is_floating_point():
        raise ModelError(
            f"The volume is {volume.dtype} {tuple(volume.shape)}; expected float C X Y Z."
        )
    if queries.ndim != 2:
        raise ModelError(f"The queries are {tuple(queries.shape)}; expected K E.")
    if body is not None and body.shape != volume.shape[1:]:
        raise ModelError(
            f"The body mask is {tuple(body.shape)}, the volume {tuple(volume.shape[1:])}."
        )
    if len(window) != 3 or any(size < 1 or size % model.granularity for size in window):
        raise ModelError(
            f"The window {window} does not suit the model.",
            remedy=f"Each size must be a positive multiple of {model.granularity}.",
        )
