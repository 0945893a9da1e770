"""What the benchmarks of inference share: processes of their own, memory at the peak, a record."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from textseg.cli import main as textseg

ABOUT = ("date", "cores", "torch_version")
"""Columns with which every record begins."""


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    What ``getrusage`` says begins, after a fork, with the memory of the parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="ascii").splitlines()
        found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        if found:
            return int(found[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Forgets the peak so far, such as that of loading a model, where the system can (Linux)."""
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5", encoding="ascii")


def gigabytes(num_bytes: float) -> float:
    """Rounded to hundredths."""
    return round(num_bytes / 1e9, 2)


def alone(module: str, *arguments: object) -> dict[str, Any]:
    """Runs a module in a process of its own; the last line it prints is its answer, as JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # the interpreter of kernels is for tests
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=settings)
    return json.loads(done.stdout.splitlines()[-1])


def run(*words: object) -> None:
    """A command of textseg, in this process; one that fails ends the benchmark."""
    code = textseg([str(word) for word in words])
    if code:
        raise SystemExit(code)


def recorded(
    rows: Iterable[Mapping[str, Any]], record: Path, columns: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Prints each row as it comes, appends it to the record and passes it on."""
    print("\n" + "  ".join(f"{column:>16}" for column in columns))
    for row in rows:
        print("  ".join(f"{row[column]!s:>16}" for column in columns), flush=True)
        record.parent.mkdir(exist_ok=True)
        with record.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow((*ABOUT, *columns))
            about = (datetime.now(UTC).date().isoformat(), os.cpu_count(), torch.__version__)
            writer.writerow((*about, *(row[column] for column in columns)))
        yield row
