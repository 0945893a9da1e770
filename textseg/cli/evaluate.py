"""``textseg evaluate``: predicted masks against reference masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, print_json, print_rich, progress_bar, warn


def evaluate(
    predicted: Annotated[
        Path,
        typer.Argument(
            metavar="PRED", help="A mask, label map, result folder, or a folder of those."
        ),
    ],
    reference: Annotated[
        Path,
        typer.Argument(metavar="REF", help="A mask or label map, or a folder named like PRED."),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='What label values mean, as JSON: {"liver": 5}.'),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, metavar="MM", help="Surface distance that NSD accepts."),
    ] = 2.0,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the rows to this file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the CSV file.")] = False,
    as_json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    debug: DebugFlag = False,
) -> None:
    """Score masks against a reference.

    Dice, surface Dice (NSD) and HD95 in mm for each structure that both sides have.
    """
    from textseg.outputs.atomic import exists_error
    from textseg.training.evaluation import evaluate as score

    if csv is not None and csv.exists() and not overwrite:
        raise exists_error(csv)
    with progress_bar(predicted.name, unit="structures", shown=not quiet) as move:
        table = score(predicted, reference, names=labels, tolerance_mm=tolerance, progress=move)
    for sentence in table.unmatched:
        warn(sentence, kind="unmatched")
    if csv is not None:
        table.write_csv(csv, overwrite=overwrite)
    if as_json:
        print_json(table.as_dict(), indent=2)
    elif not quiet:
        print_rich(table.to_rich())
