"""``textseg data add``: drafts the description of a data set of one's own."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    cells,
    make_table,
    print_json,
    print_rich,
    say,
    warn,
)

if TYPE_CHECKING:
    from textseg.datasets.draft import Draft


def add(
    folder: Annotated[Path, typer.Argument(help="Where the data set is unpacked.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the data set; by default that of the folder.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='What label values mean, as JSON: {"liver": 5}.'),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The YAML; by default NAME.yaml here."),
    ] = None,
    modality: Annotated[
        Literal["ct", "mr", "pet"] | None,
        typer.Option(help="Kind of scans, where the folder does not tell it or holds several."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Draft the description of your own data set, to be verified by you.

    Finds out how the folder is laid out, and reads what it calls its labels as if they were
    prompts. What is not understood is left open in the draft.
    """
    from textseg.atomic import write_atomically
    from textseg.datasets.draft import draft
    from textseg.knowledge import load_user_tree
    from textseg.training.label_names import read_label_names

    if output is not None:
        if output.suffix not in (".yaml", ".yml") or name not in (None, output.stem):
            raise UsageError("-o must be NAME.yaml; the file is named after the data set.")
        name = output.stem
    given = None if labels is None else read_label_names(labels)
    made = draft(folder, tree=load_user_tree(), name=name, labels=given, modality=modality)
    target = output or Path(f"{made.spec.name}.yaml")
    write_atomically(target, lambda path: _write(path, made.text), overwrite=overwrite)
    _report(made, target, folder, as_json=as_json)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _report(made: Draft, target: Path, folder: Path, *, as_json: bool) -> None:
    if as_json:
        facts = {"path": str(target), "folder": str(folder), "cases": made.spec.scans}
        spec = made.spec.model_dump(mode="json", include={"name", "modality", "region", "layout"})
        print_json({**facts, **spec, "labels": [asdict(label) for label in made.labels]}, indent=1)
    else:
        table = make_table("label", "name in the data", "concept", "how")
        for label in made.labels:
            table.add_row(*cells(str(label.key), label.name, label.concept or "-", label.how))
        print_rich(table)
    for label in made.unmapped:
        near = f" Closest: {', '.join(label.suggestions)}." if label.suggestions else ""
        named = f" {label.name!r}" if label.name else ""
        warn(f"label {label.key}{named} is left open.{near}", kind="unmapped")
    mapped = f"{len(made.mapped)} of {len(made.labels)} labels mapped"
    say(f"{target}: {made.spec.scans} scans, {mapped}.")
    if not made.mapped:
        warn("nothing can be trained yet: complete `labels`, or name them with --labels FILE.")
    check = ("textseg", "data", "check", str(target), str(folder))
    say(f"Verify the file, then run: {shlex.join(check)}")
