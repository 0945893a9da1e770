"""How much a larger network is worth, and what it costs: several sizes trained alike.

    python -m tests.bench.model_sizes CASES

Trains the network of ``configs/train/nano.yaml`` and a narrower and a wider one from nothing, for
as many steps on the same batches; scores each as ``textseg card`` does; and times them in turn on a
scan, from the file to the masks. The table in docs/training.md shows what was recorded last.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import yaml

from tests.bench.measuring import recorded, run
from tests.bench.tables import SIZES, SIZES_COLUMNS, SIZES_DATASETS
from textseg import Segmenter
from textseg.datasets import load_cases
from textseg.network.weights import WEIGHTS_FILE, load_model
from textseg.training.cli import find_config
from textseg.training.scores import ModelScores

CONFIG = "train/nano"
WIDTHS: Mapping[str, float] = {"0.5 times as wide": 0.5, "nano": 1.0, "1.5 times as wide": 1.5}
WIDE = ("full_channels", "half_channels", "least_channels")
"""Settings of the network that grow with its width, besides the channels of its backbone."""
SCAN, PROMPT = "ts_example_ct", "liver"
ROUNDS = 5
STEPS_PER_EPOCH = 100


class Trained(NamedTuple):
    """A model in a folder, and the seconds that one step of its training took."""

    model: Path
    step_s: float


def measure(folder: Path, cases: Path, *, epochs: int) -> Iterator[dict[str, Any]]:
    """The rows of the record, from the narrowest network to the widest."""
    trained = {
        name: train(folder / f"{width}", cases, config_of(width, epochs=epochs))
        for name, width in WIDTHS.items()
    }
    seconds = scan_seconds({name: each.model for name, each in trained.items()}, cases)
    for name, (model, step_s) in trained.items():
        scores = ModelScores.model_validate_json((model / "scores.json").read_text())
        yield {
            "size": name,
            "weights_million": f"{num_weights(model) / 1e6:.1f}",
            "file_mb": f"{(model / WEIGHTS_FILE).stat().st_size / 1e6:.1f}",
            "steps": epochs * STEPS_PER_EPOCH,
            "training_s": f"{step_s:.2f}",
            "scan_s": f"{seconds[name]:.2f}",
            **{dataset: f"{mean_dice(scores, dataset):.3f}" for dataset in SIZES_DATASETS},
        }


def config_of(width: float, *, epochs: int) -> dict[str, Any]:
    """The configuration of nano with a network so many times as wide, for a short training."""
    config = yaml.safe_load(find_config(CONFIG).read_text(encoding="utf-8"))
    network = config["model"]["network"]
    for name in WIDE:
        network[name] = round(network[name] * width)
    first, *others = network["backbone"]["channels"]
    network["backbone"]["channels"] = [first, *(round(width * n) for n in others)]
    config["trainer"] |= {"max_epochs": epochs, "check_val_every_n_epoch": epochs}
    config["model"]["optimiser"] |= {"warmup_steps": 100, "decay_fraction": 0.5}
    config["data"]["steps"] = STEPS_PER_EPOCH
    return config


def train(folder: Path, cases: Path, config: dict[str, Any]) -> Trained:
    """The exported and scored model of a run in a folder; one that is there is kept."""
    model, timed = folder / "model", folder / "step_s.txt"
    if not (model / "scores.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        config["trainer"]["logger"]["init_args"]["save_dir"] = str(folder)
        for callback in config["trainer"]["callbacks"]:
            if "folder" in callback.get("init_args", {}):
                callback["init_args"]["folder"] = str(folder)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        of = ("-c", path)
        quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
        started = time.perf_counter()
        run("fit", *of, f"--data.cases={cases}", *quiet)
        steps = config["trainer"]["max_epochs"] * STEPS_PER_EPOCH
        timed.write_text(f"{(time.perf_counter() - started) / steps}", encoding="utf-8")
        licence = ("--licence", "CC-BY-SA-4.0", "--overwrite")
        run("export", folder / "last.ckpt", *of, f"--cases={cases}", "-o", model, *licence)
        run("card", model, *of, f"--cases={cases}", "--no-corrupt", "--no-pictures")
    return Trained(model, float(timed.read_text(encoding="utf-8")))


def scan_seconds(models: Mapping[str, Path], cases: Path) -> dict[str, float]:
    """Seconds from a scan in memory to the mask of one structure, the median of rounds in turn."""
    scan = next(case for case in load_cases(cases) if case.id == SCAN).read_image()
    segmenters = {name: Segmenter.from_pretrained(model) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(1 + ROUNDS):
        for name, segmenter in segmenters.items():
            started = time.perf_counter()
            _ = segmenter(scan, [PROMPT], modality="ct")[PROMPT].mask
            seconds[name].append(time.perf_counter() - started)
    return {name: median(times[1:]) for name, times in seconds.items()}


def num_weights(model: Path) -> int:
    """Numbers that the network of a model has learned."""
    network, _, _ = load_model(model)
    return sum(parameter.numel() for parameter in network.parameters())


def mean_dice(scores: ModelScores, dataset: str) -> float:
    """Mean over the structures of all scans of a data set."""
    cases = [case for case in scores.cases if case.dataset == dataset]
    return float(np.mean([row.dice for case in cases for row in case.structures]))


def main() -> None:
    """Measures and records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", metavar="CASES", type=Path, help="case list of nano")
    parser.add_argument("--epochs", type=int, default=8, help="of 100 steps each")
    parser.add_argument(
        "--folder", type=Path, help="keeps what is made; goes on from what is there"
    )
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        rows = measure(given.folder or Path(temporary), given.cases, epochs=given.epochs)
        for _ in recorded(rows, SIZES, SIZES_COLUMNS):
            pass


if __name__ == "__main__":
    main()
