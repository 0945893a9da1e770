"""Crops and training steps per second against MONAI's, as a ratio of alternating rounds."""

from __future__ import annotations

import csv
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import get_args

import monai
import numpy as np
import pytest
import torch

from tests.bench.monai_pipeline import Deformation, cached, crops
from tests.bench.phantom_scans import STRUCTURES, Phantoms, prepared_sampler, write_scans
from tests.bench.training_steps import (
    NETWORKS,
    monai_net,
    monai_step,
    num_weights,
    textseg_step,
    textseg_task,
)
from textseg.training.sampling import MixtureDataset

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

RECORD = Path(__file__).parent / "results" / "training_throughput.csv"
COLUMNS = (
    *("date", "cpu", "cores", "torch_version", "monai_version"),
    *("what", "textseg_per_s", "monai_per_s", "ratio", "iqr"),
)
TARGET = 3.0
ROUNDS = 5

deformations = pytest.mark.parametrize("deformation", get_args(Deformation))
modalities = pytest.mark.parametrize("modality", ["ct", "mr"])


@dataclass(frozen=True)
class Comparison:
    """Units of work per second in alternating rounds, one of textseg and one of MONAI each."""

    textseg: list[float]
    monai: list[float]

    @property
    def ratio(self) -> float:
        """Ratio of the medians."""
        return float(np.median(self.textseg) / np.median(self.monai))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of the ratios of the rounds."""
        low, high = np.quantile(np.divide(self.textseg, self.monai), (0.25, 0.75))
        return float(low), float(high)


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, times: int
) -> Comparison:
    """Measures both in turn, after a call of each that does not count.

    Args:
        ours: One unit of work of textseg.
        theirs: The same of MONAI.
        rounds: Rounds of each.
        times: Units per round.
    """
    ours(), theirs()
    rates = Comparison([], [])
    for _ in range(rounds):
        for call, found in ((ours, rates.textseg), (theirs, rates.monai)):
            started = time.perf_counter()
            for _ in range(times):
                call()
            found.append(times / (time.perf_counter() - started))
    return rates


@pytest.fixture(scope="module")
def report():
    """Prints a comparison as a row and appends it to the record."""
    print(f"\n{'':<44} {'textseg/s':>10} {'MONAI/s':>10} {'ratio':>7}   quartiles")

    def report(what, measured):
        low, high = measured.quartiles
        ours, theirs = np.median(measured.textseg), np.median(measured.monai)
        print(
            f"{what:<44} {ours:10.3f} {theirs:10.3f} {measured.ratio:6.2f}x   {low:.2f}-{high:.2f}"
            f"{'' if measured.ratio >= TARGET else f'   below {TARGET:g}x'}"
        )
        RECORD.parent.mkdir(exist_ok=True)
        is_new = not RECORD.exists()
        with RECORD.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow(
                [
                    datetime.now(UTC).date().isoformat(),
                    *(_processor(), os.cpu_count(), torch.__version__, monai.__version__),
                    *(what, f"{ours:.4f}", f"{theirs:.4f}"),
                    *(f"{measured.ratio:.2f}", f"{low:.2f}-{high:.2f}"),
                ]
            )

    return report


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The sampler and the cached scans of phantoms, and the seconds each took to make."""
    made = {}

    def sources(phantoms):
        if phantoms not in made:
            folder = tmp_path_factory.mktemp("phantoms")
            cases = write_scans(folder / "raw", phantoms)
            started = time.perf_counter()
            sampler = prepared_sampler(folder / "prepared", cases, phantoms)
            between = time.perf_counter()
            scans = cached(cases, phantoms)
            seconds = (between - started, time.perf_counter() - between)
            made[phantoms] = sampler, scans, seconds
        return made[phantoms]

    return sources


def drawn(sampler):
    """Image and labels of one crop after another, as training gets them."""
    batches = MixtureDataset([sampler], seed=0, start=0, length=10_000)
    for number in range(len(batches)):
        batch = batches[number]
        yield batch.image[0], batch.labels


@modalities
@deformations
def test_both_pipelines_cut_alike_crops(modality, deformation, sources, one_thread):
    small = Phantoms(
        modality,
        scans=2,
        shape=(61, 53, 31),
        spacing_mm=(3.4, 3.5, 9.0),
        window=(24, 20, 16),
        grid_mm=5.0,
    )
    sampler, scans, _ = sources(small)
    ours = list(islice(drawn(sampler), 40))
    theirs = list(islice(crops(scans, small, deformation), 40))
    for image, labels in (*ours, *theirs):
        assert image.shape == labels.shape == (1, *small.window)
    means, spreads, shares, seen = zip(*map(_statistics, (ours, theirs)), strict=True)
    assert abs(means[0] - means[1]) < 0.25 * spreads[0]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.2)
    assert shares[0] == pytest.approx(shares[1], rel=0.2)
    assert seen[0] == seen[1] == set(range(1, STRUCTURES + 1))


def _statistics(crops):
    """Mean and standard deviation of the image, share of voxels in structures, structures."""
    images = torch.stack([image for image, _ in crops]).double()
    labels = torch.stack([labels for _, labels in crops])
    seen = {int(label) for label in labels.unique() if 0 < label <= STRUCTURES}
    return float(images.mean()), float(images.std()), float((labels > 0).double().mean()), seen


@pytest.mark.bench
@modalities
@deformations
def test_crops_per_second(modality, deformation, sources, report, one_thread):
    phantoms = Phantoms(modality)
    sampler, scans, seconds = sources(phantoms)
    ours, theirs = drawn(sampler), crops(scans, phantoms, deformation)
    assert next(ours)[0].shape == next(theirs)[0].shape == (1, *phantoms.window)
    times = 2 if deformation == "Rand3DElastic" else 10
    measured = compare(lambda: next(ours), lambda: next(theirs), rounds=ROUNDS, times=times)
    report(f"{modality} crop, {deformation}", measured)
    print(f"  once before: {seconds[0]:.1f} s to prepare, {seconds[1]:.1f} s to fill MONAI's cache")


@pytest.mark.bench
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_per_second(network, precision, sources, report):
    sampler, _, _ = sources(Phantoms("ct"))
    (batch,) = islice(MixtureDataset([sampler], seed=0, start=0, length=1), 1)
    ours, theirs = textseg_task(sampler, batch), monai_net(network)
    weights = [num_weights(module) / 1e6 for module in (ours, theirs)]
    assert weights[0] == pytest.approx(weights[1], rel=0.1)
    measured = compare(
        textseg_step(ours, batch),
        monai_step(theirs, batch, precision=precision),
        rounds=ROUNDS,
        times=1,
    )
    report(f"step, {network} {precision}", measured)
    print(f"  million weights: {weights[0]:.2f} and {weights[1]:.2f}")
