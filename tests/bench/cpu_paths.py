"""Which way of running the backbone on a CPU is fastest: one window of ``nano``, 96^3.

    python -m tests.bench.cpu_paths

Ways take turns, so that a busy moment strikes all of them; each is compared with ``float32``,
which is what PyTorch does when nothing is asked of it. ``compiled`` needs a C++ compiler, and the
last two need packages: openvino; onnxruntime, onnx and onnxscript. What is not there is left out.
``error`` is the largest difference from ``float32``, relative to the largest number.
"""

from __future__ import annotations

import csv
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch
from torch import Tensor, nn

from textseg.network.layers import channels_last, round_weights
from textseg.network.model import PromptedSegmenter
from textseg.network.weights import find_model, load_model

RECORD = Path(__file__).parent / "results" / "cpu_paths.csv"
COLUMNS = ("way", "first_s", "median_s", "times_faster", "error")
WINDOW = (96, 96, 96)
ROUNDS = 7

Run = Callable[[Tensor], Tensor]


class Finest(nn.Module):
    """The map at full resolution of a window."""

    def __init__(self, network: PromptedSegmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        finest: Tensor = self.network.encode(window).finest
        return finest


def backbone() -> Finest:
    """The embedded model's, freshly loaded."""
    network, _, _ = load_model(find_model("nano"))
    return Finest(network.eval())


def eager(*, last: bool, rounded: bool) -> Run:
    """PyTorch as it is: channels last or not, in bfloat16 or not."""
    model = backbone()
    if last:
        channels_last(model)
    if rounded:
        round_weights(model, torch.bfloat16)

    def run(window: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16) if rounded else nullcontext():
            return model(_last(window) if last else window)

    return run


def compiled() -> Run:
    """``torch.compile`` of the fastest of these."""
    model = round_weights(channels_last(backbone()), torch.bfloat16)
    fast = torch.compile(model)

    def run(window: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return fast(_last(window))

    return run


def openvino() -> Run:
    """OpenVINO's CPU plug-in in bfloat16."""
    import openvino as ov

    model = ov.convert_model(backbone(), example_input=torch.zeros(1, 1, *WINDOW))
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    fast = ov.compile_model(model, "CPU", hints)
    return lambda window: torch.from_numpy(fast(window.numpy())[0])


def onnxruntime() -> Run:
    """ONNX Runtime in float32; its CPU provider has no bfloat16 convolutions."""
    import onnxruntime as ort

    file = io.BytesIO()
    torch.onnx.export(backbone(), (torch.zeros(1, 1, *WINDOW),), file, dynamo=False)
    session = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: torch.from_numpy(session.run(None, {name: window.numpy()})[0])


def _last(window: Tensor) -> Tensor:
    return window.to(memory_format=torch.channels_last_3d)


def ways() -> Iterator[tuple[str, Callable[[], Run]]]:
    """Those that can run here."""
    yield "float32", lambda: eager(last=False, rounded=False)
    yield "float32 channels last", lambda: eager(last=True, rounded=False)
    yield "bfloat16", lambda: eager(last=False, rounded=True)
    yield "bfloat16 channels last", lambda: eager(last=True, rounded=True)
    if which("g++") or which("clang++"):
        yield "compiled", compiled
    if find_spec("openvino"):
        yield "openvino", openvino
    if find_spec("onnxruntime"):
        yield "onnxruntime float32", onnxruntime


@torch.inference_mode()
def main() -> None:
    window = torch.randn(1, 1, *WINDOW, generator=torch.Generator().manual_seed(0))
    runs, first, answers = {}, {}, {}
    for way, make in ways():
        started = time.perf_counter()
        runs[way] = make()
        answers[way] = runs[way](window).float()
        first[way] = time.perf_counter() - started
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(ROUNDS):
        for way, run in runs.items():
            started = time.perf_counter()
            run(window)
            seconds[way].append(time.perf_counter() - started)
    plain = answers["float32"]
    about = (datetime.now(UTC).date().isoformat(), os.cpu_count(), torch.__version__)
    print("  ".join(f"{column:>22}" for column in COLUMNS))
    with RECORD.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(("date", "cores", "torch_version", *COLUMNS))
        for way, each in seconds.items():
            median = statistics.median(each)
            faster = statistics.median(seconds["float32"]) / median
            error = float((answers[way] - plain).abs().max() / plain.abs().max())
            row = (way, round(first[way], 1), round(median, 3), round(faster, 2), f"{error:.1e}")
            writer.writerow((*about, *row))
            print("  ".join(f"{value!s:>22}" for value in row), flush=True)


if __name__ == "__main__":
    main()
