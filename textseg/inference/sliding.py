"""Streams windows of a volume through a model and blends what comes out, for any number of prompts.

Read ``segment_windows``: plan, then per window encode once, decode a few prompts at a time, blend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from textseg.errors import Cancelled, ModelError
from textseg.inference.accumulator import SlabAccumulator
from textseg.inference.memory import (
    ACTIVATION_BYTES_PER_VOXEL,
    MemoryEstimate,
    estimate_memory,
    is_out_of_memory,
    reporting_shortage,
    require_memory,
)
from textseg.inference.precision import Precision, resolve_precision
from textseg.inference.windows import WindowGrid, occupied_windows

logger = logging.getLogger(__name__)


class DecodedWindow(Protocol):
    """What a model says about one window."""

    @property
    def logits(self) -> Tensor:
        """B K X Y Z, one mask per query."""

    @property
    def presence(self) -> Tensor:
        """B K, one logit per query: is the structure in this window."""


class WindowModel(Protocol):
    """What the engine asks of a model.

    It must be in evaluation mode, on the volume's device, and decode each query by itself. It may
    have an ``activation_bytes_per_voxel``, which makes the memory estimate exact.
    """

    @property
    def granularity(self) -> int:
        """Every window size is a multiple of this."""

    def encode(self, volume: Tensor, /) -> Any:
        """Features of a window B C X Y Z, in whatever form ``decode`` takes."""

    def decode(self, features: Any, queries: Tensor, /) -> DecodedWindow:
        """Answers for queries B K E; its memory may be reused once the next call begins."""


@dataclass(frozen=True, eq=False)
class WindowedPrediction:
    """What the windows of a volume say about each prompt.

    Attributes:
        probability: uint8 K X Y Z in host memory, ``round(255 * p)``.
        presence: float32 K in host memory, 0..1: how sure the surest window is that the structure
            is in it. 0 if every window was skipped.
        windows: Windows that cover the volume.
        skipped: How many of them hold no body and were not run.
        precision: What the network ran in.
        prompts_per_pass: Prompts decoded at once in the end.
        memory: The estimate made beforehand.
        warnings: What had to be done differently, in words.
    """

    probability: Tensor
    presence: Tensor
    windows: int
    skipped: int
    precision: Precision
    prompts_per_pass: int
    memory: MemoryEstimate
    warnings: tuple[str, ...] = ()


def segment_windows(
    model: WindowModel,
    volume: Tensor,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
    overlap: float = 0.5,
    body: Tensor | None = None,
    precision: str = "float32",
    prompts_per_pass: int = 32,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> WindowedPrediction:
    """Probability and presence of every query over the whole volume.

    Runs on the volume's device. Prompts never interact: each gets the same answer alone, among
    others and in any order. Accumulators hold one slab (see ``estimate_memory``).

    Args:
        model: See ``WindowModel``.
        volume: float C X Y Z in the model's input range; padded on both sides with the minimum
            of each channel where the window is larger.
        queries: K E, one vector per prompt.
        window: Voxels of a window.
        overlap: Part of a window shared with the next, at least 0 and below 1.
        body: bool X Y Z; windows without any are skipped and count as 0 (``occupied_windows``).
        precision: ``auto``, ``float32`` or ``bfloat16`` (autocast).
        prompts_per_pass: Prompts decoded at once; halved as often as needed if memory runs out.
        progress: Called after each window: windows done, windows to do (without those skipped).
        cancel: Asked before each window; true stops the run.

    Raises:
        ModelError: Arguments do not fit together, or the model's answer is not finite.
        ResourceError: E501, out of memory even with one prompt at a time.
        Cancelled: As asked.
    """
    _check_arguments(model, volume, queries, window, body, prompts_per_pass)
    grid = WindowGrid.plan(_spatial_shape(volume), window, overlap)
    occupied = occupied_windows(grid, body)
    todo = [index for index in grid.indices() if occupied[index]]
    memory = _estimate(model, grid, num_prompts=len(queries), prompts_per_pass=prompts_per_pass)
    require_memory(memory, device=volume.device)
    logger.info("%d of %d windows to run, memory %s", len(todo), occupied.size, memory)
    with reporting_shortage(memory):
        stream = _WindowStream(
            model,
            volume,
            queries,
            grid=grid,
            precision=resolve_precision(precision, volume.device),
            prompts_per_pass=min(prompts_per_pass, max(1, len(queries))),
        )
        for done, index in enumerate(todo):
            if cancel is not None and cancel():
                raise Cancelled(f"Stopped after {done} of {len(todo)} windows.")
            stream.run(index)
            if progress is not None:
                progress(done + 1, len(todo))
        return stream.result(memory=memory, skipped=occupied.size - len(todo))


class _WindowStream:
    """One pass over a volume: the state between one window and the next."""

    def __init__(
        self,
        model: WindowModel,
        volume: Tensor,
        queries: Tensor,
        *,
        grid: WindowGrid,
        precision: Precision,
        prompts_per_pass: int,
    ) -> None:
        device = volume.device
        self._model = model
        self._volume = volume
        self._queries = queries.to(device)[None]  # 1 K E
        self._grid = grid
        self._precision = precision
        self._prompts_per_pass = prompts_per_pass
        self._warnings: list[str] = []
        self._num_finished = 0
        # Made outside inference mode, so that callers may change what they are given.
        self._accumulator = SlabAccumulator(grid, num_prompts=len(queries), device=device)
        self._presence = torch.zeros(len(queries), device=device)
        self._input = _padded_window(volume, grid)

    @torch.inference_mode()
    def run(self, index: tuple[int, int, int]) -> None:
        """Encodes one window, and decodes and blends every prompt; windows come in slab order."""
        self._finish_slabs(index[self._grid.slab_axis])
        if len(self._presence) == 0:
            return
        self._gather(index)
        with self._autocast():
            features = self._model.encode(self._input)
        first = 0
        while first < len(self._presence):
            prompts = slice(first, min(first + self._prompts_per_pass, len(self._presence)))
            if self._try_prompts(features, prompts, index):
                first = prompts.stop
            else:
                self._halve_prompts_per_pass()

    def result(self, *, memory: MemoryEstimate, skipped: int) -> WindowedPrediction:
        """The prediction, once every window has run."""
        self._finish_slabs(self._grid.counts[self._grid.slab_axis])
        return WindowedPrediction(
            probability=self._accumulator.probability,
            presence=self._presence.cpu(),
            windows=prod(self._grid.counts),
            skipped=skipped,
            precision=self._precision,
            prompts_per_pass=self._prompts_per_pass,
            memory=memory,
            warnings=tuple(self._warnings),
        )

    def _finish_slabs(self, end: int) -> None:
        """Hands over every slab before ``end``, also those in which no window ran."""
        for slab in range(self._num_finished, end):
            self._accumulator.finish(slab)
        self._num_finished = end

    def _gather(self, index: tuple[int, int, int]) -> None:
        """Copies a window of the volume into the network's input; padding stays as it was."""
        source, target = self._volume, self._input[0]
        for axis, number in enumerate(index):
            first, last = self._grid.inside(axis, number)
            start = self._grid.starts[axis][number]
            source = source.narrow(axis + 1, first, last - first)
            target = target.narrow(axis + 1, first - start, last - first)
        target.copy_(source)

    def _try_prompts(self, features: Any, prompts: slice, index: tuple[int, int, int]) -> bool:
        """Decodes and blends some prompts; false, with nothing added, if memory ran out."""
        try:
            with self._autocast():
                decoded = self._model.decode(features, self._queries[:, prompts])
            logits, presence = self._checked(decoded, prompts)
            self._accumulator.add(logits, prompts=prompts, index=index)
        except (MemoryError, RuntimeError) as error:
            if self._prompts_per_pass == 1 or not is_out_of_memory(error):
                raise
            return False
        surest = self._presence[prompts]
        torch.maximum(surest, presence.float().sigmoid(), out=surest)
        return True

    def _checked(self, decoded: DecodedWindow, prompts: slice) -> tuple[Tensor, Tensor]:
        """Logits K X Y Z and presence K of one window, of the right shape and finite."""
        num = prompts.stop - prompts.start
        logits, presence = decoded.logits, decoded.presence
        if logits.shape != (1, num, *self._grid.window) or presence.shape != (1, num):
            raise ModelError(
                f"The model answered {num} prompts on a window of {self._grid.window} with logits "
                f"{tuple(logits.shape)} and presence {tuple(presence.shape)}."
            )
        # A sum passes infinities and NaN on, at a thirtieth of the cost of looking at each voxel.
        # float16 sums overflow by themselves; bfloat16 has the range of float32.
        dtype = torch.float32 if logits.dtype == torch.float16 else None
        checksum = logits.sum(dtype=dtype) + presence.float().sum()
        if not bool(torch.isfinite(checksum)):
            raise ModelError(
                "The model answered with numbers that are not finite.",
                remedy="Run with --precision float32; if that fails too, the weights are damaged.",
            )
        return logits[0], presence[0]

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


def _estimate(
    model: WindowModel, grid: WindowGrid, *, num_prompts: int, prompts_per_pass: int
) -> MemoryEstimate:
    activation = getattr(model, "activation_bytes_per_voxel", ACTIVATION_BYTES_PER_VOXEL)
    return estimate_memory(
        grid.shape,
        grid.window,
        num_prompts=num_prompts,
        prompts_per_pass=prompts_per_pass,
        activation_bytes_per_voxel=int(activation),
    )


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
    prompts_per_pass: int,
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
    if prompts_per_pass < 1:
        raise ModelError(f"prompts_per_pass is {prompts_per_pass}; it must be at least 1.")
