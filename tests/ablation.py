"""Whether knowledge in the queries helps segmentation: the same small training, several encoders.

Run as ``python tests/ablation.py CASES``, with the case list of ``configs/train/nano.yaml``. Each
figure comes from one run of ``configs/train/ablation.yaml``: the mean Dice over the structures of
the validation head, which no run was trained on.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

from textseg.training.cli import fit

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "train" / "ablation.yaml"
ENCODERS = {"nano": "trained on the tree", "untrained": "untrained", "random": "random vectors"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare text encoders by what is learned.")
    parser.add_argument("cases", metavar="CASES", help="case list")
    parser.add_argument("--seeds", type=int, default=1, help="runs per row")
    given = parser.parse_args()
    lines = ["| queries | whitened | not whitened |", "|---|---|---|"]
    for encoder, name in ENCODERS.items():
        cells = {True: [], False: []}
        for whitened, seed in product(cells, range(given.seeds)):
            cells[whitened].append(validation_dice(given.cases, encoder, whitened, seed))
        texts = [", ".join(f"{dice:.3f}" for dice in dices) for dices in cells.values()]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    sys.stdout.writelines(f"{line}\n" for line in lines)


def validation_dice(cases, encoder, whitened, seed):
    """Mean Dice of one run."""
    run = fit(
        [
            f"--config={CONFIG}",
            f"--seed_everything={seed}",
            f"--data.cases={cases}",
            f"--data.encoder={encoder}",
            f"--data.seed={seed}",
            f"--model.network.whiten_queries={str(whitened).lower()}",
        ]
    )
    return float(run.trainer.callback_metrics["val/dice"])


if __name__ == "__main__":
    main()
