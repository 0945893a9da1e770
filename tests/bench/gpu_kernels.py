"""What the kernels gain on a GPU: each operation against PyTorch's and against copying its bytes.

    python -m tests.bench.gpu_kernels

For every operation in ``OPS``, at realistic sizes: milliseconds of the composition of PyTorch
operations and of the Triton kernel, their ratio, and the share of the kernel's time in which the
device would copy the bytes that have to be read and written. Nothing is timed before both agree
with the specification. Rows are appended to ``results/gpu_kernels.csv``.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tests.kernels.examples import EXAMPLES, Example, Size
from textseg.kernels import OPS, Op

RECORD = Path(__file__).parent / "results" / "gpu_kernels.csv"
COLUMNS = ("op", "shape", "K", "torch_ms", "triton_ms", "ratio", "copy_share")
DTYPE = torch.bfloat16
COPIED = 1 << 30


def milliseconds(run: Any) -> float:
    """Median time of a call, each with an empty cache."""
    from triton.testing import do_bench

    return float(do_bench(run, return_mode="median"))


def copy_bandwidth(device: torch.device) -> float:
    """Bytes that the device reads and writes in a second when it copies."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / (milliseconds(lambda: target.copy_(source)) / 1000)


def assert_agrees(op: Op, example: Example, backend: str) -> None:
    """Raises unless a backend does what the specification says, to rounding."""
    expected = op.reference(*example.args, **example.kwargs)
    actual = op.run(*example.args, **example.kwargs, backend=backend)
    tolerance = example.tolerance[backend]
    torch.testing.assert_close(
        actual.float(), expected.float(), atol=tolerance, rtol=0, check_stride=False
    )


def measure(op: Op, size: Size, bandwidth: float, device: torch.device) -> dict[str, Any]:
    """The figures of one operation at one size, once both backends have been found right."""
    times = {}
    for backend in ("torch", "triton"):
        generator = torch.Generator().manual_seed(0)
        example = EXAMPLES[op.name].make(generator, size, DTYPE, device)
        assert_agrees(op, example, backend)
        times[backend] = milliseconds(
            lambda example=example, backend=backend: op.run(
                *example.args, **example.kwargs, backend=backend
            )
        )
    floor = 1000 * example.bytes_moved / bandwidth
    return {
        "op": op.name,
        "shape": f"C{size.channels} {'x'.join(map(str, size.window))}",
        "K": size.count,
        "torch_ms": round(times["torch"], 4),
        "triton_ms": round(times["triton"], 4),
        "ratio": round(times["torch"] / times["triton"], 2),
        "copy_share": round(floor / times["triton"], 3),
    }


def rows(device: torch.device) -> Iterator[dict[str, Any]]:
    """One row for each operation and size that fits the device."""
    bandwidth = copy_bandwidth(device)
    print(f"The device copies {bandwidth / 1e9:.0f} GB/s, reading and writing counted.")
    for op in OPS:
        for size in EXAMPLES[op.name].realistic:
            try:
                yield measure(op, size, bandwidth, device)
            except torch.cuda.OutOfMemoryError:
                print(f"{op.name} {size} does not fit the device.")
            torch.cuda.empty_cache()


def commit() -> str:
    """The commit that is measured, marked if files differ from it."""
    command = ("git", "describe", "--always", "--dirty", "--exclude=*")
    done = subprocess.run(command, cwd=RECORD.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device, so there is nothing to measure.")
    device = torch.device("cuda", torch.cuda.current_device())
    about = (datetime.now(UTC).date().isoformat(), torch.cuda.get_device_name(device), commit())
    with RECORD.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(("date", "device", "commit", *COLUMNS))
        for row in rows(device):
            writer.writerow((*about, *row.values()))
            print("  ".join(f"{value!s:>16}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
