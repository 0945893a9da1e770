"""How long `textseg predict` takes as a user sees it: the whole command, file to file.

    python -m tests.bench.commands
    python -m tests.bench.commands CT.nii.gz

One prompt, first on the scans that are given, then on a generated torso CT of 512 x 512 x 600
voxels, both compressed. Each command runs once to warm the file cache and is then timed; the table
shows the median of the rounds, and where the time of that run went.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.measuring import recorded
from tests.bench.scale import SHAPE, SPACING_MM
from tests.bench.tables import COMMANDS, COMMANDS_COLUMNS, commands_table
from textseg.imaging.phantom import write_torso_phantom
from textseg.outputs.manifest import read_manifest

PROMPT = "liver"
REAL = "shared/data/totalsegmentator/ts_example_ct_image.nii.gz"
"""A real CT, beside the checkout where there is one."""
LIMIT_S = 60.0
"""A single prompt takes seconds, not minutes."""
ROUNDS = 3
STAGES = ("read", "prepare", "backbone", "decode", "blend")


def generated(folder: Path, *, divide: int = 1) -> Path:
    """The generated scan, or one of as many times larger voxels."""
    shape = tuple(n // divide for n in SHAPE)
    spacing_mm = tuple(divide * step for step in SPACING_MM)
    return write_torso_phantom(
        folder / f"generated {'x'.join(map(str, shape))}.nii.gz", shape, spacing_mm
    )


def rows(scans: Sequence[Path], *, model: str = "nano") -> Iterator[dict[str, Any]]:
    """A row for each scan."""
    for scan in scans:
        timed(scan, model)
        runs = sorted((timed(scan, model) for _ in range(ROUNDS)), key=itemgetter("seconds"))
        middle = {name: f"{seconds:.2f}" for name, seconds in runs[ROUNDS // 2].items()}
        yield {"scan": scan.name.removesuffix(".gz").removesuffix(".nii"), **middle}


def timed(scan: Path, model: str) -> dict[str, float]:
    """Seconds of one command, of stages as its manifest has them, and of all that comes before
    and after: starting, loading the model, writing."""
    program = Path(sys.executable).with_name("textseg")
    with TemporaryDirectory() as folder:
        words = ("predict", scan, PROMPT, "-o", folder, "--overwrite", "--modality", "ct")
        started = time.perf_counter()
        subprocess.run([program, *words, "--model", model], check=True, capture_output=True)
        seconds = time.perf_counter() - started
        spent = read_manifest(Path(folder)).run.timings_s
    inside = {f"{stage}_s": spent.get(stage, 0.0) for stage in STAGES}
    return {"seconds": seconds, **inside, "around_s": seconds - spent["total"]}


def main() -> None:
    """Measures and records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scans", type=Path, nargs="*", metavar="CT")
    given = parser.parse_args()
    with TemporaryDirectory() as name:
        scans = [*given.scans, generated(Path(name))]
        for _ in recorded(rows(scans), COMMANDS, COMMANDS_COLUMNS):
            pass
    print(commands_table())


if __name__ == "__main__":
    main()
