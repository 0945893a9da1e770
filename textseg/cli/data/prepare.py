"""``textseg data prepare``: a data set on its working grid, ready for training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from textseg.cli.data.arguments import Folder, Source
from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    print_json,
    progress_bar,
    say,
    stopping_on_signals,
)


def prepare(
    source: Source,
    folder: Folder = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where prepared cases go.")
    ] = Path("prepared"),
    spacing: Annotated[
        str | None,
        typer.Option(
            metavar="MM",
            help="Voxel size: one number, or three as 1,1,3; each scan's own if left out.",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take the voxel size from what `data plan` wrote."),
    ] = None,
    crop: Annotated[
        bool, typer.Option("--crop/--no-crop", help="Leave out the air around the body.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes; as many as there are processors if left out.")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Read, check, resample and compress the cases of a data set for training.

    Running it again makes only what is missing, changed or damaged. The case list it writes last is
    what `textseg fit --data.cases` takes.
    """
    from textseg.datasets import cases_of, specs_of
    from textseg.datasets.prepare import PrepareConfig, prepare

    if plan is not None and spacing is not None:
        raise UsageError("give --spacing or --plan, not both")
    size = None if spacing is None else _spacing(spacing)
    config = PrepareConfig(spacing_mm=size if plan is None else _planned(plan), crop=crop)
    cases = cases_of(source, folder)
    count = min(len(cases), os.cpu_count() or 1) if workers is None else workers
    with (
        stopping_on_signals(),
        progress_bar("preparing", unit="cases", shown=not as_json) as progress,
    ):
        done = prepare(
            cases,
            out,
            specs=specs_of(source, cases),
            config=config,
            workers=count if count > 1 else 0,
            progress=progress,
        )
    if as_json:
        print_json({**vars(done), "path": str(done.path)})
        return
    say(
        f"wrote {done.path}: {done.cases} cases, {done.made} of them made now, "
        f"{done.num_bytes / 1e6:,.1f} MB"
    )


def _spacing(text: str) -> tuple[float, float, float]:
    """The numbers of ``1.5`` or ``1,1,3``."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--spacing {text!r} is not a number, nor three") from error
    if len(numbers) not in (1, 3) or not all(0.05 <= number <= 50 for number in numbers):
        raise UsageError(f"--spacing {text!r} is not one voxel size in mm, nor three")
    x, y, z = numbers * 3 if len(numbers) == 1 else numbers
    return x, y, z


def _planned(plan: Path) -> tuple[float, float, float]:
    """The voxel size of the first domain of a plan."""
    import yaml

    try:
        x, y, z = yaml.safe_load(plan.read_bytes())["data"]["domains"][0]["spacing_mm"]
        return float(x), float(y), float(z)
    except (OSError, ValueError, TypeError, KeyError, IndexError, yaml.YAMLError) as error:
        raise UsageError(f"--plan {plan} is not what `textseg data plan -o` writes") from error
