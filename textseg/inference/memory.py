"""What a prediction will take in memory, told, planned and checked before it is taken."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import psutil
import torch

from textseg.errors import ResourceError
from textseg.inference.accumulator import slab_shape, total_dtype
from textseg.inference.precision import Precision
from textseg.inference.windows import WindowGrid
from textseg.kernels.window_blend import scratch_bytes

# A U-Net with 32 channels at full resolution holds about five such maps at its peak; a model that
# knows better says so in ``activations_per_voxel``.
ACTIVATIONS_PER_VOXEL = 160
PROMPTS_PER_PASS = 32
# Measured with nano on a CPU: on top of the numbers themselves comes what convolutions take for
# themselves, and what is freed between layers and not used again.
BYTES_PER_ACTIVATION: Mapping[Precision, float] = {"bfloat16": 2 * 1.25, "float32": 4 * 1.5}

# M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h: no blocks apart from the heap, which never shrinks
_KEEP_FREED = {-4: 0, -1: 2**31 - 1}
_LEAST_FREE = 256 * 2**20
_REMEDY = "Segment fewer prompts at once, use a smaller window, or a machine with more memory."


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes a prediction takes beyond the volume and the weights.

    Attributes:
        accumulators: Running totals of the active slab, on the model's device.
        output: Finished 8-bit probabilities, in host memory, if every prompt were everywhere;
            only the box of each is kept.
        output_before_last: Those that are there while the last slab is worked on.
        logits: One block of prompts by voxels.
        activations: The backbone on one window; an estimate, the others are exact.
    """

    accumulators: int
    output: int
    output_before_last: int
    logits: int
    activations: int

    @property
    def working(self) -> int:
        """Bytes on the model's device."""
        return self.accumulators + self.logits + self.activations

    @property
    def total(self) -> int:
        """Bytes at the peak: the last slab is handed over when its activations are gone."""
        return (
            self.working
            - self.activations
            + max(self.activations + self.output_before_last, self.output)
        )

    def __str__(self) -> str:
        """One line for a log, in MiB."""
        parts = ("accumulators", "logits", "activations")
        listed = ", ".join(f"{part} {getattr(self, part) / 2**20:.0f}" for part in parts)
        return (
            f"{self.working / 2**20:.0f} MiB ({listed}) and at most {self.output / 2**20:.0f} MiB "
            "of probabilities"
        )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How many prompts are dealt with together.

    Attributes:
        prompts_per_run: Prompts whose totals are held at once; each run goes through all windows.
        prompts_per_pass: Prompts decoded at once.
        estimate: What that takes.
    """

    prompts_per_run: int
    prompts_per_pass: int
    estimate: MemoryEstimate

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.prompts_per_run} prompts per run, {self.estimate}"


def estimate_memory(
    grid: WindowGrid,
    *,
    num_prompts: int,
    prompts_per_run: int | None = None,
    prompts_per_pass: int = PROMPTS_PER_PASS,
    activation_bytes_per_voxel: int = 4 * ACTIVATIONS_PER_VOXEL,
    device_type: str = "cpu",
) -> MemoryEstimate:
    """Bytes that ``segment_windows`` will take for the windows of a volume.

    Only the output grows with the longest axis of the volume; it takes at most one byte per voxel
    and prompt.
    """
    held = min(num_prompts, prompts_per_run or num_prompts)
    passed = max(1, min(prompts_per_pass, held))
    return MemoryEstimate(
        accumulators=total_dtype(grid.overlap).itemsize * held * prod(slab_shape(grid)),
        output=num_prompts * prod(grid.shape),
        output_before_last=num_prompts * (prod(grid.shape) - prod(slab_shape(grid))),
        logits=scratch_bytes(passed, grid.window, device_type=device_type),
        activations=activation_bytes_per_voxel * prod(grid.window),
    )


def plan_memory(grid: WindowGrid, *, num_prompts: int, room: int, **options: Any) -> MemoryPlan:
    """The fewest runs whose work fits into ``room`` bytes.

    Args:
        grid: The windows.
        num_prompts: Prompts in all.
        room: Bytes that may be taken on the model's device.
        options: As in ``estimate_memory``; fewer prompts per pass are planned if fewer are held.

    Raises:
        ResourceError: E501, not even one prompt fits, with the bytes needed and available.
    """
    most = options.pop("prompts_per_pass", PROMPTS_PER_PASS)
    held = max(1, num_prompts)
    while True:
        passed = min(most, held)
        estimate = estimate_memory(
            grid,
            num_prompts=num_prompts,
            prompts_per_run=held,
            prompts_per_pass=passed,
            **options,
        )
        if estimate.working <= room:
            return MemoryPlan(held, passed, estimate)
        if held == 1:
            raise ResourceError(
                f"The prediction needs {estimate.working / 2**30:.1f} GiB even for one prompt at a "
                f"time, {room / 2**30:.1f} GiB are free.",
                code="E501",
                remedy="Use a smaller window, or a machine with more memory.",
            )
        held = ceil(held / 2)


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken on a device, within the limit of a container if there is one."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    """Bytes up to the memory limit of this control group (Linux); a great many if none is set."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        return limit - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return 2**62


def require_host_memory() -> None:
    """Stops while there is memory left to stop in.

    A CPU allocation rarely fails; the process is killed later, when the pages are touched.

    Raises:
        ResourceError: E501, next to nothing is free.
    """
    free = free_memory(torch.device("cpu"))
    if free < _LEAST_FREE:
        raise ResourceError(
            f"Only {free / 2**20:.0f} MiB of memory are left.", code="E501", remedy=_REMEDY
        )


@contextmanager
def reporting_shortage(estimate: MemoryEstimate) -> Iterator[None]:
    """Turns an allocation that fails inside into a ``ResourceError`` E501."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"Out of memory during a prediction estimated at {estimate}.",
            code="E501",
            remedy=_REMEDY,
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a failed allocation; torch reports those of a CPU by text alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
    )


def keep_freed_memory() -> bool:
    """Lets this process use freed memory again before it asks the system for more.

    Every window takes and frees blocks of hundreds of megabytes. The C library of Linux (glibc)
    returns such blocks at once, and taking new ones costs a good part of the backbone's time. The
    whole process is affected, so this is for programs to call: with few and very large windows
    its peak may rise by a quarter.

    Returns:
        Whether the C library has such a switch.
    """
    if sys.platform != "linux":
        return False
    switch = getattr(ctypes.CDLL(None), "mallopt", None)
    if switch is None:
        return False
    return all(bool(switch(option, value)) for option, value in _KEEP_FREED.items())


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far, where the system tells."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
