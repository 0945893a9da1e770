"""From a volume and queries to a probability per prompt: windows, streaming and memory."""

from textseg.inference.memory import MemoryEstimate, estimate_memory
from textseg.inference.precision import Precision, cpu_has_fast_bfloat16, resolve_precision
from textseg.inference.sliding import (
    DecodedWindow,
    WindowedPrediction,
    WindowModel,
    segment_windows,
)
from textseg.inference.windows import plan_windows

__all__ = [
    "DecodedWindow",
    "MemoryEstimate",
    "Precision",
    "WindowModel",
    "WindowedPrediction",
    "cpu_has_fast_bfloat16",
    "estimate_memory",
    "plan_windows",
    "resolve_precision",
    "segment_windows",
]
