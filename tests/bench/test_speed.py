"""How long the stages of a prediction take here; ``make bench`` prints them and keeps a record."""

from __future__ import annotations

import csv
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from textseg import Segmenter, load_tree, resolve
from textseg.imaging import Grid, Volume, as_volume, to_grid

pytestmark = pytest.mark.bench

RECORD = Path(__file__).resolve().parents[2] / "runs" / "bench.csv"
PROMPTS = ["liver", "spleen", "left kidney", "right kidney", "aorta", "stomach", "pancreas"]
REPEATS = 3


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained("nano")


@pytest.fixture(scope="module")
def volume() -> Volume:
    """A torso-like CT of 30 million voxels."""
    x, y, z = np.ogrid[-1:1:384j, -1:1:320j, -1:1:241j]
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 + 0 * z < 1
    texture = np.random.default_rng(0).normal(0, 15, body.shape).astype(np.float32)
    affine = np.diag([0.9, 0.9, 1.5, 1.0])
    return as_volume((np.where(body, 40, -1000) + texture, affine), modality="ct")


@pytest.fixture(scope="module")
def report(segmenter):
    """Measures a call, prints the median and appends it to the record."""
    import torch

    processor = platform.processor() or platform.machine()
    device = torch.cuda.get_device_name() if segmenter.device.type == "cuda" else processor

    def report(stage, call):
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        print(f"{stage:<36} {1000 * median(times):10.1f} ms   ({device}, {segmenter.precision})")
        RECORD.parent.mkdir(exist_ok=True)
        is_new = not RECORD.exists()
        with RECORD.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["time", "device", "precision", "threads", "stage", "seconds"])
            now = datetime.now(UTC).isoformat(timespec="seconds")
            seconds = f"{median(times):.4f}"
            threads = torch.get_num_threads()
            writer.writerow([now, device, segmenter.precision, threads, stage, seconds])

    return report


def test_resolving(report):
    tree = load_tree()
    assert resolve(PROMPTS[0], tree).status == "ok"
    report(f"resolve {len(PROMPTS)} prompts", lambda: [resolve(p, tree) for p in PROMPTS])


def test_to_the_model_grid_and_back(report, volume):
    grid = Grid((3.0, 3.0, 3.0))
    data, transform = to_grid(volume, grid)
    assert transform.restore(data[0] * 0 + 1).shape == volume.geometry.shape
    report("scan to 3 mm grid", lambda: to_grid(volume, grid))
    report("one mask back to the scan", lambda: transform.restore(data[0] * 0 + 1))


@pytest.mark.parametrize("num_prompts", [1, len(PROMPTS)])
def test_predicting(num_prompts, report, segmenter, volume):
    prompts = PROMPTS[:num_prompts]
    assert list(segmenter(volume, prompts)) == prompts
    report(f"predict {num_prompts} prompts", lambda: segmenter(volume, prompts))
