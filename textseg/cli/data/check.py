"""``textseg data check``: what is wrong with a data set, before it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textseg.cli.data.arguments import Folder, Source
from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    cells,
    make_table,
    print_json,
    print_rich,
    progress_bar,
    say,
    stopping_on_signals,
)

if TYPE_CHECKING:
    from textseg.datasets.checks import CheckReport

_MOST_SHOWN = 10
_FOUND_ERRORS = 3


def check(
    source: Source,
    folder: Folder = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the report here, as JSON."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the report if it exists.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that check cases at the same time.")
    ] = 0,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check every scan and mask: damage, grids, labels, sides, overlaps.

    Exits with 3 if there is an error; warnings are to be looked at.
    """
    from textseg.atomic import exists_error, make_folder, write_json
    from textseg.datasets import cases_of
    from textseg.datasets.checks import check_cases
    from textseg.knowledge import load_user_tree

    if output is not None:
        if output.exists() and not overwrite:
            raise exists_error(output)
        make_folder(output.parent)
    cases = cases_of(source, folder)
    with (
        # a signal that ends this process at once would leave its workers waiting for ever
        stopping_on_signals(),
        progress_bar(Path(source).name, unit="cases", shown=True) as move,
    ):
        report = check_cases(cases, tree=load_user_tree(), workers=workers, progress=move)
    if output is not None:
        write_json(output, report.as_dict(), overwrite=overwrite)
    if as_json:
        print_json(report.as_dict(), indent=1)
    else:
        _print_report(report)
    if report.num_errors:
        raise typer.Exit(_FOUND_ERRORS)


def _print_report(report: CheckReport) -> None:
    """How many findings of each kind, and the first of them, errors before warnings."""
    findings = sorted(report.findings, key=lambda finding: finding.severity)
    if not findings:
        say(f"{report.num_cases} cases, nothing found.")
        return
    totals = make_table("kind", "severity", "count", "first case", numbers=("count",))
    first = {finding.kind: finding for finding in reversed(findings)}
    for kind in dict.fromkeys(finding.kind for finding in findings):
        one = first[kind]
        totals.add_row(*cells(kind, one.severity, f"{report.counts[kind]:,}", one.case or "-"))
    print_rich(totals, title=f"{report.num_cases} cases, {report.num_errors} errors")
    details = make_table("case", "file", "finding")
    for finding in findings[:_MOST_SHOWN]:
        name = finding.file.name if finding.file else "-"
        details.add_row(*cells(finding.case or "-", name, finding.message))
    print_rich(details)
    if len(findings) > _MOST_SHOWN:
        say(f"{len(findings) - _MOST_SHOWN} more; read all with --json or -o FILE.")
