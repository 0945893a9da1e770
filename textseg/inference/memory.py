"""How much memory a prediction takes, said beforehand, and what to do when there is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import psutil
import torch

from textseg.errors import ResourceError
from textseg.inference.accumulator import slab_shape
from textseg.inference.windows import WindowGrid

# A U-Net with 32 channels at full resolution holds about five such maps in float32 at its peak; a
# model that knows better says so in ``activation_bytes_per_voxel``.
ACTIVATION_BYTES_PER_VOXEL = 640

_REMEDY = "Segment fewer prompts at once, use a smaller window, or a machine with more memory."


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes a prediction takes beyond the volume and the weights.

    Attributes:
        accumulators: Running totals of the active slab, on the model's device.
        output: Finished 8-bit probabilities, in host memory.
        logits: One pass of prompts over one window.
        activations: The backbone on one window; an estimate, the others are exact.
    """

    accumulators: int
    output: int
    logits: int
    activations: int

    @property
    def total(self) -> int:
        """All bytes together."""
        return self.accumulators + self.output + self.logits + self.activations

    def __str__(self) -> str:
        """One line for a log, in MiB."""
        parts = ("accumulators", "output", "logits", "activations")
        listed = ", ".join(f"{part} {getattr(self, part) / 2**20:.0f}" for part in parts)
        return f"{self.total / 2**20:.0f} MiB ({listed})"


def estimate_memory(
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
    *,
    num_prompts: int,
    prompts_per_pass: int = 32,
    activation_bytes_per_voxel: int = ACTIVATION_BYTES_PER_VOXEL,
) -> MemoryEstimate:
    """Bytes that ``segment_windows`` will take for a volume of this shape.

    Only the output grows with the longest axis of the volume; it takes one byte per voxel and
    prompt. The overlap of the windows does not matter.
    """
    grid = WindowGrid.plan(shape, window, 0.0)
    return MemoryEstimate(
        accumulators=4 * num_prompts * prod(slab_shape(grid)),
        output=num_prompts * prod(shape),
        logits=4 * min(prompts_per_pass, num_prompts) * prod(window),
        activations=activation_bytes_per_voxel * prod(window),
    )


def require_memory(estimate: MemoryEstimate, *, device: torch.device) -> None:
    """Refuses a prediction whose results alone cannot fit in host memory.

    A CPU allocation rarely fails; the process is killed later, when the pages are touched. So the
    parts that are known exactly are checked before they are taken.

    Raises:
        ResourceError: E501, with the bytes needed and available.
    """
    needed = estimate.output + (estimate.accumulators if device.type == "cpu" else 0)
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise ResourceError(
            f"The prediction needs {needed / 2**30:.1f} GiB for its results, "
            f"{available / 2**30:.1f} GiB are free.",
            code="E501",
            remedy=_REMEDY,
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
