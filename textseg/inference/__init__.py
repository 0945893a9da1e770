"""From a volume and queries to a probability per prompt: windows, streaming and memory."""

from textseg.inference.clock import StageClock
from textseg.inference.device import choose_device
from textseg.inference.islands import Cleaned, drop_islands
from textseg.inference.loaded_model import SCATTERED_KINDS, LoadedModel, Manner
from textseg.inference.localising import Localised, Roi
from textseg.inference.memory import (
    MemoryEstimate,
    MemoryPlan,
    estimate_memory,
    keep_freed_memory,
    peak_memory_bytes,
    plan_memory,
)
from textseg.inference.precision import Precision, cpu_has_fast_bfloat16, resolve_precision
from textseg.inference.probabilities import BoxedProbability, Probabilities, united
from textseg.inference.published import segment_as_published
from textseg.inference.sliding import WindowedPrediction, segment_windows
from textseg.inference.window_model import DecodedWindow, WindowModel
from textseg.inference.windows import plan_windows

__all__ = [
    "SCATTERED_KINDS",
    "BoxedProbability",
    "Cleaned",
    "DecodedWindow",
    "LoadedModel",
    "Localised",
    "Manner",
    "MemoryEstimate",
    "MemoryPlan",
    "Precision",
    "Probabilities",
    "Roi",
    "StageClock",
    "WindowModel",
    "WindowedPrediction",
    "choose_device",
    "cpu_has_fast_bfloat16",
    "drop_islands",
    "estimate_memory",
    "keep_freed_memory",
    "peak_memory_bytes",
    "plan_memory",
    "plan_windows",
    "resolve_precision",
    "segment_as_published",
    "segment_windows",
    "united",
]
