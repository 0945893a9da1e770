"""What a report is worth to a model: ways of reading it side by side, on tumors made for it.

    python -m tests.bench.report_fusion --heads CASES.json

Makes tumors with reports (without ``--heads`` in heads of ellipsoids), trains the network of
``configs/report/synthetic.yaml`` with each fusion on the same batches, and asks each model about
the test scans with their right report and with others. Heads and wordings of the test scans are not
those of the training scans. The table in docs/reports.md shows what was recorded last.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.bench.measuring import recorded, run
from tests.bench.tables import REPORTS, REPORTS_COLUMNS
from textseg import Segmenter
from textseg.datasets import Case, load_cases
from textseg.training.aggregation import mean_with_interval
from textseg.training.sensitivity import text_sensitivity
from textseg.training.sensitivity_report import CHANGES, CaseSensitivity

CONFIG = "report/synthetic"
FUSIONS = {
    "gated": (),
    "sequential": (
        "--model.network.report={fusion: sequential, token_features: 128, levels: [0], "
        "size: [4, 5, 4]}",
    ),
}
GROUPS = {
    "ambiguous": {"which", "extent"},
    "which": {"which"},
    "extent": {"extent"},
    "clear": {"none"},
}
"""Rows of the table, and the groups of the case list that each joins."""
HIDDEN = "extent"
WHOLE = "brain_tumor"
"""Where only the edema is hidden, the images show the core: the whole tumor alone is asked for."""
SPACING_MM = 5.25
"""That of the model: what the grid costs a mask is not what is measured here."""


def measure(
    folder: Path,
    *,
    cases: int,
    test: int,
    heads: Path | None,
    fusions: Sequence[str],
    extra: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """The rows of the record, fusion by fusion."""
    listed = prepared_tumors(folder, cases=cases, test=test, heads=heads)
    asked = [case for case in load_cases(listed) if case.split == "test"]
    for fusion in fusions:
        model = trained(folder / fusion, listed, [*FUSIONS[fusion], *extra])
        yield from rows_of(fusion, sensitivity(model, asked))


def prepared_tumors(folder: Path, *, cases: int, test: int, heads: Path | None) -> Path:
    """The case list of a data set made and prepared in a folder; one that is there is kept."""
    made, prepared = folder / "tumors", folder / "prepared"
    if not made.exists():
        with_heads = [] if heads is None else ["--heads", str(heads)]
        size = ("--cases", cases, "--test", test, "--spacing", SPACING_MM)
        run("data", "tumors", made, *size, "--ambiguous", 0.7, *with_heads)
    run("data", "prepare", "textbrats", made, "-o", prepared, "--no-crop")
    return prepared / "cases.json"


def trained(folder: Path, cases: Path, options: Sequence[str]) -> Path:
    """The exported model of a run in a folder; one that is there is kept."""
    model = folder / "model"
    if not (model / "manifest.json").exists():
        places = [
            f"--trainer.logger.init_args.save_dir={folder}",
            f"--trainer.callbacks.folder={folder}",
        ]
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        run("fit", "-c", CONFIG, f"--data.cases={cases}", *places, *quiet, *options)
        config = max(folder.glob("*/version_*/config.yaml"), key=lambda path: path.stat().st_mtime)
        licence = ("--licence", "Apache-2.0", "--sensitivity-cases", 0)
        run("export", folder / "last.ckpt", "-c", config, "-o", model, *licence)
    return model


def sensitivity(model: Path, cases: Sequence[Case]) -> list[CaseSensitivity]:
    """What the model makes of the reports of the cases, of what their images leave open."""
    segmenter = Segmenter.from_pretrained(model)
    hidden = [case for case in cases if case.group == HIDDEN]
    others = [case for case in cases if case.group != HIDDEN]
    asked = ((hidden, [WHOLE]), (others, None))
    return [
        case
        for some, prompts in asked
        if some
        for case in text_sensitivity(
            segmenter, some, generator=np.random.default_rng(0), prompts=prompts, samples=0
        ).cases
    ]


def rows_of(fusion: str, cases: Sequence[CaseSensitivity]) -> Iterator[dict[str, Any]]:
    """One row for each group and report: Dice, and what the right report has over it."""
    for name, joined in GROUPS.items():
        scans = [case for case in cases if case.group in joined]
        about = {"fusion": fusion, "group": name, "scans": len(scans)}
        right = {"report": "right", "difference": "", "low": "", "high": ""}
        yield {**about, **right, "dice": _mean(case.dice["right"] for case in scans)}
        for change in CHANGES:
            told = [case for case in scans if change in case.dice]
            yield {**about, "report": change, **_difference(told, change)}


def _difference(scans: Sequence[CaseSensitivity], change: str) -> dict[str, Any]:
    pairs = [(case.id, case.dice["right"] - case.dice[change]) for case in scans]
    found = mean_with_interval(pairs, generator=np.random.default_rng(0))
    ends = {"low": found.low, "high": found.high}
    return {
        "dice": _mean(case.dice[change] for case in scans),
        "difference": f"{found.mean:.3f}",
        **{name: "" if end is None else f"{end:.3f}" for name, end in ends.items()},
    }


def _mean(values: Iterable[float]) -> str:
    return f"{np.mean(list(values)):.3f}"


def main() -> None:
    """Measures and records."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--heads", type=Path, help="case list with labelled heads")
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--fusions", nargs="+", choices=[*FUSIONS], default=[*FUSIONS])
    parser.add_argument(
        "--folder", type=Path, help="keeps what is made; goes on from what is there"
    )
    known, extra = parser.parse_known_args()
    with TemporaryDirectory() as temporary:
        rows = measure(
            known.folder or Path(temporary),
            cases=known.cases,
            test=known.test,
            heads=known.heads,
            fusions=known.fusions,
            extra=extra,
        )
        for _ in recorded(rows, REPORTS, REPORTS_COLUMNS):
            pass


if __name__ == "__main__":
    main()
