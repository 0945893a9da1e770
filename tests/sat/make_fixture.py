"""Thins the recorded outputs of SAT to what the repository keeps: every stage, but fewer voxels.

Run as ``python -m tests.sat.make_fixture SOURCE``, where SOURCE holds ``nano_case.npz`` and the
others; it writes ``fixture/``, whose numbers ``recorded.py`` explains.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.sat.recorded import CASES, FOLDER, Arrays

VOXELS, DEEP_VOXELS = 2000, 500
SAMPLED = {"voxel_index": VOXELS, "logits_at_voxels": VOXELS} | {
    f"ds{level}_{what}": DEEP_VOXELS for level in (1, 2, 3) for what in ("index", "logits")
}


def full(source: Path, case: str) -> Arrays:
    """The numbers of a case as they were recorded."""
    with np.load(source / f"{case}_case.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def thinned(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The same numbers with every n-th of the voxels, so that all of the patch stays covered."""
    kept = dict(arrays)
    for name, most in SAMPLED.items():
        if name in kept:
            every = math.ceil(kept[name].shape[-1] / most)
            kept[name] = kept[name][..., ::every]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder of the full cases")
    source = parser.parse_args().source
    FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        np.savez_compressed(FOLDER / f"{case}.npz", **thinned(full(source, case)))


if __name__ == "__main__":
    main()
