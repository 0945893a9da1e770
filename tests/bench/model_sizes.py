"""How much a larger network is worth, and what it costs: several widths trained alike.

    python -m tests.bench.model_sizes CASES

Trains the network of ``configs/train/nano.yaml``, a narrower and a wider one from nothing on the
heads of ``configs/train/ablation.yaml``, for as many steps on the same batches. Dice is the mean
over the structures of the validation head, which no run was trained on. Then the networks take
turns on a volume. The table in docs/training.md shows what was recorded last.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from tests.bench.measuring import recorded
from tests.bench.tables import SIZES, SIZES_COLUMNS
from textseg.inference.sliding import segment_windows
from textseg.network.layers import channels_last
from textseg.network.model import NetworkConfig, PromptedSegmenter
from textseg.training.cli import find_config, fit

NETWORK, DATA = "train/nano", "train/ablation"
WIDTHS: Mapping[str, float] = {"0.5 times as wide": 0.5, "nano": 1.0, "1.5 times as wide": 1.5}
WIDE = ("full_channels", "half_channels", "least_channels")
"""Settings of the network that grow with its width, besides the channels of its backbone."""
STEPS_PER_EPOCH = 100
SCAN = (144, 144, 144)
"""Voxels of the volume that is timed: 8 windows of nano's."""
WINDOW = (96, 96, 96)
ROUNDS = 5
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


def measure(folder: Path, cases: Path, *, epochs: int) -> Iterator[dict[str, Any]]:
    """The rows of the record, from the narrowest network to the widest."""
    trained = {
        name: train(folder / f"{width}.pt", cases, config_of(width, epochs=epochs))
        for name, width in WIDTHS.items()
    }
    seconds = scan_seconds({name: network_of(width) for name, width in WIDTHS.items()})
    for name, kept in trained.items():
        yield {
            "size": name,
            "weights_million": f"{kept['weights'] / 1e6:.1f}",
            "steps": epochs * STEPS_PER_EPOCH,
            "step_s": f"{kept['step_s']:.2f}",
            "scan_s": f"{seconds[name]:.2f}",
            "dice": f"{kept['dice']:.3f}",
        }


def network_config(width: float) -> dict[str, Any]:
    """The network of nano, so many times as wide."""
    config: dict[str, Any] = _read(NETWORK)["model"]["network"]
    for name in WIDE:
        config[name] = round(config[name] * width)
    first, *others = config["backbone"]["channels"]
    config["backbone"]["channels"] = [first, *(round(width * n) for n in others)]
    return config


def config_of(width: float, *, epochs: int) -> dict[str, Any]:
    """The configuration of a run: data of one, network and learning rate of the other."""
    config = _read(DATA)
    config["model"]["network"] = network_config(width)
    config["model"]["optimiser"]["lr"] = _read(NETWORK)["model"]["optimiser"]["lr"]
    config["trainer"] |= {"max_epochs": epochs, "check_val_every_n_epoch": epochs}
    config["data"]["steps"] = STEPS_PER_EPOCH
    return config


def _read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(find_config(name).read_text(encoding="utf-8"))
    return config


def train(stored: Path, cases: Path, config: dict[str, Any]) -> dict[str, float]:
    """What a run came to: Dice, seconds of a step, number of weights; one that is there is kept."""
    if not stored.is_file():
        path = stored.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        started = time.perf_counter()
        run = fit(["-c", str(path), f"--data.cases={cases}", *QUIET])
        seconds = time.perf_counter() - started
        weights = sum(parameter.numel() for parameter in run.model.network.parameters())
        found = {
            "dice": float(run.trainer.callback_metrics["val/dice"]),
            "step_s": seconds / (config["trainer"]["max_epochs"] * STEPS_PER_EPOCH),
            "weights": weights,
        }
        torch.save(found, stored)
    return dict(torch.load(stored, weights_only=True))


def network_of(width: float) -> PromptedSegmenter:
    """An untrained network, which takes as long as a trained one."""
    network = PromptedSegmenter(NetworkConfig.model_validate(network_config(width)))
    return channels_last(network).eval()


def scan_seconds(networks: Mapping[str, PromptedSegmenter]) -> dict[str, float]:
    """Seconds for one prompt on a volume, the median of rounds in turn."""
    volume = torch.rand(1, *SCAN, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(1 + ROUNDS):
        for name, network in networks.items():
            query = torch.ones(1, network.config.query_features)
            started = time.perf_counter()
            segment_windows(network, volume, query, window=WINDOW, precision="auto")
            seconds[name].append(time.perf_counter() - started)
    return {name: median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    """Measures and records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", metavar="CASES", type=Path, help="case list of nano")
    parser.add_argument("--epochs", type=int, default=8, help="of 100 steps each")
    parser.add_argument("--folder", type=Path, help="keeps figures; goes on from what is there")
    given = parser.parse_args()
    # Lightning warns of the words that this program was started with
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    with TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = measure(folder, given.cases, epochs=given.epochs)
        for _ in recorded(rows, SIZES, SIZES_COLUMNS):
            pass


if __name__ == "__main__":
    main()
