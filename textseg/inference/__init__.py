"""From a volume and queries to a probability per prompt: windows, streaming and memory."""

from textseg.inference.device import choose_device
from textseg.inference.islands import Cleaned, drop_islands
from textseg.inference.memory import MemoryEstimate, estimate_memory
from textseg.inference.precision import Precision, cpu_has_fast_bfloat16, resolve_precision
from textseg.inference.published import segment_as_published
from textseg.inference.sliding import (
    DecodedWindow,
    WindowedPrediction,
    WindowModel,
    segment_windows,
)
from textseg.inference.windows import plan_windows

__all__ = [
    "Cleaned",
    "DecodedWindow",
    "MemoryEstimate",
    "Precision",
    "WindowModel",
    "WindowedPrediction",
    "choose_device",
    "cpu_has_fast_bfloat16",
    "drop_islands",
    "estimate_memory",
    "plan_windows",
    "resolve_precision",
    "segment_as_published",
    "segment_windows",
]
