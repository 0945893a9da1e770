"""``textseg evaluate``: predicted masks against reference masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textseg.cli.sensitivity import Asked, drawn_how, refuse, show_sensitivity
from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    cells,
    make_table,
    print_json,
    print_rich,
    progress_bar,
    warn,
)

if TYPE_CHECKING:
    from rich.table import Table

    from textseg.training.aggregation import Group, Interval, Means, Summary
    from textseg.training.evaluation import CaseTable

Predicted = Annotated[
    Path | None,
    typer.Argument(metavar="PRED", help="A mask, label map, result folder, or a folder of those."),
]
Reference = Annotated[
    Path | None,
    typer.Argument(metavar="REF", help="A mask or label map, or a folder named like PRED."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help='What label values mean: JSON such as {"liver": 5}, a dataset.json of nnU-Net, or the '
        "YAML of a data set.",
    ),
]
Tolerance = Annotated[
    float, typer.Option(min=0.0, metavar="MM", help="Surface distance that NSD accepts.")
]
Cases = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE",
        help="What is known of each scan, as .csv, .tsv or .json whose first column is 'case'; "
        "means keep the scans of each 'dataset' and 'modality' apart. With --sensitivity, the "
        "case list that `textseg data prepare` writes.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(metavar="COLUMN[,...]", help="Compare groups of scans by columns of --cases."),
]
Bootstrap = Annotated[
    int, typer.Option(min=0, metavar="N", help="Resamples behind a 95 % interval; 0 for none.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the resamples.")]


Sensitivity = Annotated[
    bool,
    typer.Option(
        "--sensitivity",
        help="Instead of masks, score how much those of --model depend on the report of a scan.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="Name or folder of a model, for --sensitivity."
    ),
]
WhichSplit = Annotated[
    Literal["train", "val", "test", "demo"] | None,
    typer.Option("--split", help="Cases of --sensitivity; val by default."),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="How many cases --sensitivity looks at; all by default."),
]


def evaluate(
    predicted: Predicted = None,
    reference: Reference = None,
    labels: Labels = None,
    tolerance: Tolerance = 2.0,
    cases: Cases = None,
    by: By = None,
    bootstrap: Bootstrap = 1000,
    seed: Seed = 0,
    sensitivity: Sensitivity = False,
    model: Model = None,
    split: WhichSplit = None,
    limit: Limit = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the rows to this file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the CSV file.")] = False,
    as_json: JsonFlag = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    debug: DebugFlag = False,
) -> None:
    """Score masks against a reference.

    Dice, surface Dice (NSD) and HD95 in mm for each structure that both sides have. Several scans
    also give means by structure, data set and region, with intervals from resampled scans.

    With --sensitivity a model is asked about each case of --cases with its own report and with
    others: swapped, dropped, sentences shuffled, findings negated.
    """
    import numpy as np

    from textseg.atomic import exists_error
    from textseg.knowledge import load_user_tree
    from textseg.training import aggregation, evaluation

    if csv is not None and csv.exists() and not overwrite:
        raise exists_error(csv)
    if sensitivity:
        misplaced = {"PRED": predicted, "--labels": labels, "--by": by}
        asked = Asked.of(model, cases, split=split, limit=limit, misplaced=misplaced)
        answer = asked.measure(samples=bootstrap, seed=seed, quiet=quiet or as_json)
        if csv is not None:
            answer.write_csv(csv, overwrite=overwrite)
        show_sensitivity(answer, seed=seed, as_json=as_json, quiet=quiet)
        return
    if predicted is None or reference is None:
        raise UsageError("give PRED and REF, or --sensitivity with --model and --cases.")
    refuse("without --sensitivity", {"--model": model, "--split": split, "--limit": limit})
    known = None if cases is None else evaluation.read_case_table(cases)
    columns = _columns(by, known)
    with progress_bar(predicted.name, unit="structures", shown=not quiet) as move:
        table = evaluation.evaluate(
            predicted,
            reference,
            names=labels,
            cases=known,
            tree=load_user_tree(),
            tolerance_mm=tolerance,
            progress=move,
        )
    for sentence in table.unmatched:
        warn(sentence, kind="unmatched")
    if csv is not None:
        table.write_csv(csv, overwrite=overwrite)
    random = np.random.default_rng(seed)
    summary = aggregation.summarise(table.rows, generator=random, samples=bootstrap)
    compare = partial(aggregation.compare_groups, table.rows, generator=random, samples=bootstrap)
    groups = [compare(column, values=values) for column, values in columns.items()]
    if as_json:
        how = {"samples": bootstrap, "level": aggregation.LEVEL, "seed": seed}
        compared = [asdict(group) for column in groups for group in column]
        means = {"bootstrap": how, **asdict(summary), "groups": compared}
        print_json({**table.as_dict(), **means}, indent=2)
    elif not quiet:
        print_rich(table.to_rich())
        if len({row.case for row in table.rows}) > 1:
            _print_means(summary, how=drawn_how(bootstrap, seed=seed))
        for column in groups:
            _print_groups(column, few=aggregation.FEW_SCANS)


def _columns(by: str | None, cases: CaseTable | None) -> dict[str, dict[str, str]]:
    """The columns to compare by, each with the value of every case."""
    if by is None:
        return {}
    if cases is None:
        raise UsageError("--by needs --cases, the table that has the columns.")
    there = {column for line in cases.values() for column in line}
    wanted = [column.strip() for column in by.split(",")]
    missing = [column for column in wanted if column not in there]
    if missing:
        raise UsageError(
            f"--by: the table of cases has no column {', '.join(map(repr, missing))}, but "
            f"{', '.join(sorted(there)) or 'none besides case'}."
        )
    return {column: {case: cases[case].get(column, "") for case in cases} for column in wanted}


def _print_means(summary: Summary, *, how: str) -> None:
    """Structures, then data sets if there are several, regions, and all together."""
    numbers: tuple[str, ...] = ("scans", "Dice", "NSD", "HD95 mm", "missed")
    if summary.overall.absent:
        numbers += ("absent, left empty", "AUROC")
    table = _number_table("mean", numbers)
    modalities = {entry.modality for entry in summary.concepts}
    for entry in summary.concepts:
        shown = f"{entry.name} ({entry.modality})" if len(modalities) > 1 else entry.name
        table.add_row(*cells(shown, *_figures(entry)[: len(numbers)]))
    datasets = summary.datasets if len(summary.datasets) > 1 else ()
    for level in (datasets, summary.regions, (summary.overall,)):
        table.add_section()
        for entry in level:
            shown = entry.name.replace("_", " ") or "-"
            table.add_row(*cells(shown, *_figures(entry)[: len(numbers)]))
    print_rich(table, title=f"Means over scans{how}")


def _figures(entry: Means) -> tuple[str, ...]:
    area = entry.presence_auroc
    return (
        str(entry.scans),
        _shown(entry.dice, 3),
        _shown(entry.nsd, 3),
        _shown(entry.hd95_mm, 1),
        # exactly one mask is empty, so there is no distance
        str(entry.hd95_mm.left_out),
        f"{entry.absent_correct} of {entry.absent}" if entry.absent else "-",
        "-" if area is None else f"{area:.3f}",
    )


def _print_groups(groups: Sequence[Group], *, few: int) -> None:
    """One column's groups; those too small for an interval are marked."""
    column = groups[0].column
    numbers = ("scans", "Dice", "NSD", "Dice less the rest")
    table = _number_table(column, numbers)
    for group in groups:
        scans = f"{group.scans} (few)" if group.is_small else str(group.scans)
        figures = (_shown(group.dice, 3), _shown(group.nsd, 3), _shown(group.dice_difference, 3))
        table.add_row(*cells(group.value or "-", scans, *figures))
    print_rich(table, title=f"Means over scans by {column}; no interval below {few} scans")


def _number_table(first: str, numbers: tuple[str, ...]) -> Table:
    """An empty table whose numbers break before their intervals on a narrow terminal."""
    table = make_table(first, *numbers, numbers=numbers)
    for column in table.columns:
        column.no_wrap, column.overflow = False, "fold"
    return table


def _shown(interval: Interval, digits: int) -> str:
    if interval.mean is None:
        return "-"
    mean = f"{interval.mean:.{digits}f}"
    if interval.low is None:
        return mean
    return f"{mean} in {interval.low:.{digits}f}..{interval.high:.{digits}f}"
