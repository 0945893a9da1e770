"""``textseg data tumors``: made-up brain tumors with reports, to train and prove models on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    print_json,
    progress_bar,
    say,
    stopping_on_signals,
)


def tumors(
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the data set goes.", show_default=False)
    ],
    cases: Annotated[int, typer.Option(min=1, help="Training cases, validation included.")] = 60,
    test: Annotated[int, typer.Option(min=0, help="Test cases.")] = 20,
    heads: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Case list with label maps of whole brains; phantom heads if left out.",
            show_default=False,
        ),
    ] = None,
    ambiguous: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of cases that only their report can tell."),
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    spacing: Annotated[
        float, typer.Option(min=0.8, max=8.0, metavar="MM", help="Voxel size.")
    ] = 3.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace cases that are there.")
    ] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make up brain tumors in four MR sequences, with a report of each, laid out as TextBraTS.

    In the ambiguous cases the images leave open which of two lesions is the tumor, or how far its
    edema reaches, and the report says it. Each case also has a report that says something else.
    Validation (fold 0) and test cases have sentences that no training report has.
    """
    from textseg.training.tumors.dataset import TumorDatasetConfig, write_tumor_dataset

    config = TumorDatasetConfig(
        cases=cases, test=test, ambiguous=ambiguous, seed=seed, spacing_mm=spacing
    )
    with (
        stopping_on_signals(),
        progress_bar("making", unit="cases", shown=not as_json) as progress,
    ):
        written = write_tumor_dataset(
            out, config, heads=heads, overwrite=overwrite, progress=progress
        )
    if as_json:
        paths = {"train": str(written.train), "test": str(written.test)}
        print_json({**paths, "ambiguous": written.ambiguous})
        return
    which, extent = written.ambiguous["which"], written.ambiguous["extent"]
    say(
        f"wrote {written.train} ({cases} cases) and {written.test} ({test}); the report says which "
        f"lesion is the tumor in {which} and how far the edema reaches in {extent}"
    )
