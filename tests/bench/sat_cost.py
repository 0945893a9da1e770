"""What SAT-Nano costs by the number of prompts: textseg's engine against the reference's loop.

    python -m tests.bench.sat_cost CT.nii.gz

Filled weights, a crop of the scan on SAT's grid, windows of 96^3 that overlap by half, each figure
from a process of its own: seconds for the whole crop, memory at the peak and how much of it came
on top of the loaded model, the bytes that tensor operations read and wrote in a crop of one window,
and how far the masks agree with the reference's (mean Dice).
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.bench.measuring import peak_bytes, reset_peak
from tests.sat.filled import canonical, case_queries, filled_state
from tests.sat.reference import ReferenceSat, segment
from textseg.imaging import Grid, read_volume
from textseg.imaging.preparation import prepare
from textseg.inference import segment_windows
from textseg.network.layers import channels_last, round_weights
from textseg.network.model import PromptedSegmenter
from textseg.zoo.checkpoint import Checkpoint
from textseg.zoo.sat import convert

RECORD = Path(__file__).parent / "results" / "sat_cost.csv"
SIDES = ("reference", "textseg float32", "textseg bfloat16")
PROMPTS = (1, 32, 128)
CROP = (192, 192, 96)
WINDOW = (96, 96, 96)
COLUMNS = ("side", "prompts", "seconds", "peak_gb", "above_model_gb", "moved_gb", "dice")


class BytesMoved(TorchDispatchMode):
    """Counts the bytes that operations on tensors read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [
                leaf for leaf in tree_leaves((args, kwargs, result)) if torch.is_tensor(leaf)
            ]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def crop_of(scan: Path) -> Tensor:
    """The middle of a scan as SAT prepares it, ``1 X Y Z``."""
    data = prepare(read_volume(scan), Grid((1.0, 1.0, 3.0)), how="sat", window=CROP).data
    starts = [(n - c) // 2 for n, c in zip(data.shape[1:], CROP, strict=True)]
    return data[:, *(slice(a, a + c) for a, c in zip(starts, CROP, strict=True))].contiguous()


def runner(side: str) -> Callable[[Tensor, Tensor], Iterable[Tensor]]:
    """What makes masks ``X Y Z``, one per query, of a volume ``1 X Y Z`` and queries."""
    state = filled_state("nano")
    if side == "reference":
        model = ReferenceSat(state, "nano")
        return lambda volume, queries: segment(model, volume[0], queries, WINDOW) > 0.5
    plain = {canonical(name): tensor for name, tensor in state.items()}
    config, weights = convert(Checkpoint(Path("filled.pth"), 0, plain), name="sat-nano")
    with torch.device("meta"):
        network = PromptedSegmenter(config)
    network.load_state_dict(weights, assign=True)
    network = channels_last(network.eval())
    precision = side.split()[1]
    if precision == "bfloat16":
        round_weights(network, torch.bfloat16)

    def run(volume: Tensor, queries: Tensor) -> Iterable[Tensor]:
        found = segment_windows(network, volume, queries, window=WINDOW, precision=precision)
        return (each > 127 for each in found.probability)

    return run


def measure(side: str, num_prompts: int, crop: Path, masks: Path) -> dict[str, Any]:
    """The figures of one side, in this process; its masks are left in a file."""
    run, queries = runner(side), case_queries(num_prompts)
    volume = torch.from_numpy(np.load(crop))
    gc.collect()
    reset_peak()
    loaded = psutil.Process().memory_info().rss
    started = time.perf_counter()
    found = np.stack([np.packbits(mask.numpy()) for mask in run(volume, queries)])
    seconds = time.perf_counter() - started
    peak = peak_bytes()
    np.save(masks, found)
    with BytesMoved() as moved:
        run(volume[:, *(slice(0, n) for n in WINDOW)].contiguous(), queries)
    return {
        "seconds": round(seconds, 2),
        "peak_gb": round(peak / 1e9, 2),
        "above_model_gb": round((peak - loaded) / 1e9, 2),
        "moved_gb": round(moved.total / 1e9, 2),
    }


def agreement(masks: Path, reference: Path) -> float:
    """Mean Dice of two files of masks."""
    ours, theirs = (np.unpackbits(np.load(path), axis=1) for path in (masks, reference))
    both = 2.0 * (ours & theirs).sum(axis=1)
    return float((both / (ours.sum(axis=1) + theirs.sum(axis=1))).mean())


def rows(crop: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each number of prompts and side, measured one after the other."""
    for num_prompts in PROMPTS:
        for side in SIDES:
            masks = folder / f"{side}.npy"
            command = [sys.executable, "-m", "tests.bench.sat_cost", str(crop)]
            command += ["--one", side, str(num_prompts), str(masks)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            dice = agreement(masks, folder / f"{SIDES[0]}.npy")
            figures = json.loads(done.stdout.splitlines()[-1])
            yield {"side": side, "prompts": num_prompts, **figures, "dice": round(dice, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scan", type=Path, help="a CT scan")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        side, num_prompts, masks = given.one
        print(json.dumps(measure(side, int(num_prompts), given.scan, Path(masks))))
        return
    about = (datetime.now(UTC).date().isoformat(), os.cpu_count(), torch.__version__)
    with TemporaryDirectory() as name, RECORD.open("a", newline="", encoding="utf-8") as file:
        crop = Path(name) / "crop.npy"
        np.save(crop, crop_of(given.scan).numpy())
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(("date", "cores", "torch_version", *COLUMNS))
        print("  ".join(f"{column:>16}" for column in COLUMNS))
        for row in rows(crop, Path(name)):
            writer.writerow((*about, *row.values()))
            print("  ".join(f"{value!s:>16}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
