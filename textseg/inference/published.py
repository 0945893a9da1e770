"""Windows averaged as the published SAT averages them: to compare with, not to work with.

Every prompt keeps float32 totals of the whole volume, and the Gaussian is the half-precision one
of the original: its corners are raised to the smallest number above zero, and its peak is a voxel,
half a voxel behind the middle. What ``segment_windows`` does in their place takes a fraction of the
memory, weighs both ends of a window alike, and differs where neighbouring windows do.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import Tensor

from textseg.errors import Cancelled, ModelError, ResourceError
from textseg.inference.memory import (
    ACTIVATIONS_PER_VOXEL,
    MemoryEstimate,
    MemoryPlan,
    free_memory,
    reporting_shortage,
)
from textseg.inference.probabilities import Probabilities
from textseg.inference.sliding import WindowedPrediction
from textseg.inference.window_model import WindowModel
from textseg.inference.windows import plan_windows

_PEAK = 10.0


def segment_as_published(
    model: WindowModel,
    volume: Tensor,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
    body: Tensor | None = None,
    precision: str = "float32",
    prompts_per_pass: int = 32,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> WindowedPrediction:
    """What ``segment_windows`` answers, averaged as published.

    Args:
        model: See ``WindowModel``.
        volume: float C X Y Z, no axis shorter than the window.
        queries: K E, one vector per prompt.
        window: Voxels of a window; windows overlap by half.
        body: Not used: no window is skipped.
        precision: Only ``float32``.
        prompts_per_pass: Prompts decoded at once.
        progress: Called after each window: windows done, windows to do.
        cancel: Asked before each window; true stops the run.

    Raises:
        ModelError: Another precision.
        ResourceError: E501, the totals do not fit in memory.
        Cancelled: As asked.
    """
    del body
    if precision != "float32":
        raise ModelError("the published averaging is made of float32 numbers.")
    x, y, z = volume.shape[1:]
    room = free_memory(volume.device)
    plan = _plan((x, y, z), window, len(queries), prompts_per_pass, room=room)
    with reporting_shortage(plan.estimate):
        probability = average_as_published(
            model,
            volume,
            queries,
            window=window,
            prompts_per_pass=prompts_per_pass,
            progress=progress,
            cancel=cancel,
        )
    return WindowedPrediction(
        probability=Probabilities.of((255 * probability).round().to(torch.uint8).cpu()),
        presence=probability.flatten(1).amax(1).cpu(),
        windows=len(plan_windows((x, y, z), window)),
        skipped=0,
        precision="float32",
        prompts_per_pass=prompts_per_pass,
        memory=plan,
    )


def _plan(
    shape: tuple[int, int, int],
    window: tuple[int, int, int],
    num_prompts: int,
    prompts_per_pass: int,
    *,
    room: int,
) -> MemoryPlan:
    """Totals and one weight of the whole volume, and what one window takes, if there is room."""
    estimate = MemoryEstimate(
        accumulators=4 * (num_prompts + 1) * prod(shape),
        output=num_prompts * prod(shape),
        output_before_last=0,
        logits=4 * min(prompts_per_pass, num_prompts) * prod(window),
        activations=4 * ACTIVATIONS_PER_VOXEL * prod(window),
    )
    if estimate.working > room:
        raise ResourceError(
            f"The published averaging needs {estimate.working / 2**30:.1f} GiB for its totals, "
            f"{room / 2**30:.1f} GiB are free.",
            code="E501",
            remedy="Segment fewer prompts at once, or use the default averaging.",
        )
    return MemoryPlan(num_prompts, prompts_per_pass, estimate)


@torch.inference_mode()
def average_as_published(
    model: WindowModel,
    volume: Tensor,
    queries: Tensor,
    *,
    window: tuple[int, int, int],
    prompts_per_pass: int = 32,
    progress: Callable[[int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Tensor:
    """Probabilities ``K X Y Z`` in float32; see ``segment_as_published``."""
    x, y, z = volume.shape[1:]
    importance = published_importance(window).to(volume.device)
    starts = plan_windows((x, y, z), window)
    total = torch.zeros(len(queries), x, y, z, device=volume.device)
    weight = torch.zeros(x, y, z, device=volume.device)
    for done, start in enumerate(starts):
        if cancel is not None and cancel():
            raise Cancelled(f"Stopped after {done} of {len(starts)} windows.")
        box = tuple(slice(a, a + n) for a, n in zip(start.tolist(), window, strict=True))
        features = model.encode(volume[:, *box][None])
        for first in range(0, len(queries), prompts_per_pass):
            part = queries[first : first + prompts_per_pass].to(volume.device)
            logits = model.decode(features, part[None]).logits[0]
            total[first : first + len(part), *box] += logits.float().sigmoid() * importance
        weight[box] += importance
        if progress is not None:
            progress(done + 1, len(starts))
    return total.div_(weight)


def published_importance(window: tuple[int, int, int]) -> Tensor:
    """The Gaussian of sigma ``window / 8`` and peak 10, rounded to half precision, as float32."""
    axes = [np.exp(-0.5 * ((np.arange(n) - n // 2) / (n / 8)) ** 2) for n in window]
    product = axes[0][:, None, None] * axes[1][None, :, None] * axes[2]
    importance = torch.from_numpy(_PEAK * product).half().float()
    importance[importance == 0] = importance[importance > 0].min()
    return importance
