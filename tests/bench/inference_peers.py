"""From a scan to masks on its own grid: textseg against MONAI, a loop like SAT's, and nnU-Net.

    python -m tests.bench.inference_peers
    python -m tests.bench.inference_peers --full
    python -m tests.bench.inference_peers CT.nii.gz

The embedded model's torso domain, a generated CT unless a scan is given, each figure from a process
of its own: seconds from the file to the last mask, memory at the peak and how much of it came on
top of the loaded model, how many masks have voxels, and how far they agree with those of MONAI
(mean Dice of the prompts of which either side has a mask). ``peer_sides`` says what the sides do.

nnU-Net takes part where ``nnunetv2`` is installed. It asks for torchvision, whose build must suit
that of torch, so it is best installed in an environment of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from tests.bench.measuring import alone, gigabytes, peak_bytes, recorded
from tests.bench.peer_sides import SIDES, installed_sides
from tests.bench.tables import PEERS, PEERS_COLUMNS, peers_table
from textseg.imaging.phantom import write_torso_phantom

PROMPTS = (1, 32, 128)
REFERENCE = next(iter(SIDES))


@dataclass(frozen=True)
class GeneratedScan:
    """A CT to generate; its field of view is a whole number of the model's 3 mm voxels."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


SHORT = GeneratedScan((256, 256, 120), (1.5, 1.5, 2.5))
FULL = GeneratedScan((512, 512, 300), (0.75, 0.75, 1.5))


def measure(side: str, num_prompts: int, scan: Path, masks: Path, *, model: str) -> dict[str, Any]:
    """The figures of one side, in this process; its masks are left in a file.

    The clock stands still while a mask is stored.
    """
    run = SIDES[side](model, num_prompts)
    gc.collect()
    loaded = psutil.Process().memory_info().rss
    seconds, found = 0.0, 0
    with masks.open("wb") as file:
        started = time.perf_counter()
        for mask in run(scan):
            seconds += time.perf_counter() - started
            found += bool(mask.any())
            _store(mask, file)
            started = time.perf_counter()
        seconds += time.perf_counter() - started
    peak = peak_bytes()
    return {
        "seconds": round(seconds, 2),
        "peak_gb": gigabytes(peak),
        "above_model_gb": gigabytes(peak - loaded),
        "masks": found,
    }


def _store(mask: np.ndarray, file: Any) -> None:
    # by slices, so that storing takes no memory to speak of, however the mask is laid out
    for z in range(mask.shape[2]):
        file.write(np.packbits(mask[:, :, z]).tobytes())


def agreement(masks: Path, reference: Path, num_prompts: int) -> float:
    """Mean Dice of two files of masks over the prompts of which one has voxels; 1 if none has."""
    ours, theirs = (
        np.fromfile(path, dtype=np.uint8).reshape(num_prompts, -1) for path in (masks, reference)
    )
    scores = []
    for a, b in zip(ours, theirs, strict=True):
        size = int(np.bitwise_count(a).sum()) + int(np.bitwise_count(b).sum())
        if size:
            scores.append(2 * int(np.bitwise_count(a & b).sum()) / size)
    return float(np.mean(scores)) if scores else 1.0


def rows(
    scan: Path,
    folder: Path,
    *,
    name: str,
    prompts: Sequence[int] = PROMPTS,
    sides: Sequence[str] | None = None,
    model: str = "nano",
) -> Iterator[dict[str, Any]]:
    """One row for each number of prompts and side, measured one after the other."""
    for num_prompts in prompts:
        for side in sides or installed_sides():
            masks, reference = folder / f"{side}.masks", folder / f"{REFERENCE}.masks"
            figures = alone(
                "tests.bench.inference_peers",
                *(scan, "--model", model, "--one", side, num_prompts, masks),
            )
            compared = reference.is_file()
            dice = round(agreement(masks, reference, num_prompts), 4) if compared else ""
            yield {"scan": name, "prompts": num_prompts, "side": side, **figures, "dice": dice}
            if side != REFERENCE:
                masks.unlink()
        (folder / f"{REFERENCE}.masks").unlink(missing_ok=True)


def generated(folder: Path, scan: GeneratedScan) -> tuple[Path, str]:
    """The file of a generated scan, and its name in the record."""
    path = write_torso_phantom(folder / "scan.nii.gz", scan.shape, scan.spacing_mm)
    return path, f"generated {'x'.join(map(str, scan.shape))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scan", type=Path, nargs="?", help="a CT scan; none: one is generated")
    parser.add_argument("--full", action="store_true", help="generate a scan of usual size")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="default: all that can run")
    parser.add_argument("--prompts", nargs="+", type=int, default=PROMPTS)
    parser.add_argument("--model", default="nano", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        side, num_prompts, masks = given.one
        figures = measure(side, int(num_prompts), given.scan, Path(masks), model=given.model)
        print(json.dumps(figures))
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        if given.scan is not None:
            scan, label = given.scan, given.scan.name
        else:
            scan, label = generated(folder, FULL if given.full else SHORT)
        for missing in set(SIDES) - set(installed_sides()):
            print(f"{missing}: not installed")
        measured = rows(
            scan,
            folder,
            name=label,
            prompts=given.prompts,
            sides=given.sides,
            model=given.model,
        )
        for _ in recorded(measured, PEERS, PEERS_COLUMNS):
            pass
        print(peers_table())


if __name__ == "__main__":
    main()
