"""How inference grows: a long scan with many prompts, more prompts, longer scans.

    python -m tests.bench.scale
    python -m tests.bench.scale --divide 4

A generated CT of 512 x 512 x 600 voxels at 0.8 x 0.8 x 1 mm and the embedded model's torso domain,
each row from a process of its own. Seconds are those of the engine (windows of the working grid)
and from the file to the last mask on the scan's grid; masks are restored one after the other.
Memory is that of the whole process at the peak; what is known of it beforehand is the scan
(float32), the probabilities handed over and the running totals of a slab.

A domain has only so many concepts; beyond them their queries begin again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.measuring import alone, gigabytes, peak_bytes, recorded
from tests.bench.peer_sides import Asked
from tests.bench.tables import FEW, MANY, MOST, SCALE, SCALE_COLUMNS, summary
from textseg.imaging import read_volume
from textseg.imaging.phantom import write_torso_phantom

SHAPE, SPACING_MM = (512, 512, 600), (0.8, 0.8, 1.0)
SLICES = (200, 400, 600)
LIMIT_GB = 8.0


def measure(scan: Path, num_prompts: int, *, model: str, restored: bool) -> dict[str, Any]:
    """The figures of one run, in this process."""
    asked = Asked.load(model, num_prompts, "auto")
    loaded = peak_bytes()
    started = time.perf_counter()
    volume = read_volume(scan, modality="ct")
    prepared = asked.prepare(volume)
    begun = time.perf_counter()
    found = asked.segment(prepared)
    ended = time.perf_counter()
    for prompt in range(num_prompts if restored else 0):
        prepared.transform.restore(found.probability[prompt])
    estimate = found.memory.estimate
    return {
        "shape": "x".join(map(str, volume.geometry.shape)),
        "prompts": num_prompts,
        "engine_s": round(ended - begun, 2),
        "total_s": round(time.perf_counter() - started, 2) if restored else "",
        "loaded_gb": gigabytes(loaded),
        "peak_gb": gigabytes(peak_bytes()),
        "scan_gb": gigabytes(volume.data.nbytes),
        "output_gb": gigabytes(found.probability.nbytes),
        "slab_gb": gigabytes(estimate.accumulators),
        "estimate_gb": gigabytes(estimate.total),
    }


def rows(folder: Path, *, divide: int = 1, model: str = "nano") -> Iterator[dict[str, Any]]:
    """The most prompts, few and many of them, and many on shorter scans.

    Args:
        folder: Where the scans are written.
        divide: Makes scan and voxels this much coarser, to try it out.
        model: Whose first domain is asked.
    """
    x, y, _ = SHAPE
    spacing = tuple(divide * step for step in SPACING_MM)
    for slices in reversed(SLICES):
        scan = write_torso_phantom(
            folder / f"{slices}.nii", (x // divide, y // divide, slices // divide), spacing
        )
        prompts = (FEW, MANY, MOST) if slices == SHAPE[2] else (MANY,)
        for num_prompts in prompts:
            # 451 masks of this scan are 71 GB; what counts there is that the engine finishes
            kept = ["--restored"] if num_prompts != MOST else []
            yield alone("tests.bench.scale", "--model", model, "--one", scan, num_prompts, *kept)
        scan.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--divide", type=int, default=1, help="coarser voxels, to try it; nothing is recorded"
    )
    parser.add_argument("--model", default="nano", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--restored", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        scan, num_prompts = given.one
        figures = measure(Path(scan), int(num_prompts), model=given.model, restored=given.restored)
        print(json.dumps(figures))
        return
    with TemporaryDirectory() as name:
        record = SCALE if given.divide == 1 else Path(name) / "scale.csv"
        found = rows(Path(name), divide=given.divide, model=given.model)
        print(summary(list(recorded(found, record, SCALE_COLUMNS))))


if __name__ == "__main__":
    main()
