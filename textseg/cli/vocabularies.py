"""``textseg concepts import`` and ``vocabularies``: what users name beside the shipped tree."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, cells, make_table, print_json, print_rich, say

if TYPE_CHECKING:
    from textseg.knowledge import ImportResult


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .tree file of your own; an .obo, .owl or OBO-graph .json file; or a folder of "
            "UMLS RRF.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Only write a tree file, into this folder."
        ),
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Install structures of your own or another vocabulary, so that all commands know them by name.

    What the tree knows already, by name or identifier, keeps its meaning; the rest is what no model
    that comes with textseg was trained on, and yours can be. With -o nothing is installed, and the
    folder is for `load_tree(extra=FOLDER)`.

    A .tree file is the short way to a structure that the tree lacks. Each is a few lines, as in
    knowledge_tree/: its id in brackets, then `name: `, and what else is known, as `synonyms: ` and
    `part_of: `.
    """
    from textseg.knowledge import import_vocabulary, install_vocabulary, load_tree

    if output is None:
        _report(install_vocabulary(file), "installed as", as_json=as_json)
    else:
        _report(import_vocabulary(file, load_tree(), output), "written to", as_json=as_json)


def vocabularies(
    remove: Annotated[
        str | None, typer.Option("--remove", metavar="NAME", help="Remove this one.")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List the vocabularies that are installed, or remove one."""
    from textseg.knowledge import installed_vocabularies, remove_vocabulary

    if remove is not None:
        say(f"{remove_vocabulary(remove)} is removed.")
    found = [
        {"name": name, "concepts": _num_concepts(path), "path": str(path)}
        for name, path in installed_vocabularies().items()
    ]
    if as_json:
        print_json(found, indent=2)
    elif found:
        table = make_table("vocabulary", "concepts", "file", numbers=("concepts",))
        for row in found:
            number = "damaged" if row["concepts"] is None else f"{row['concepts']:,}"
            table.add_row(*cells(str(row["name"]), number, str(row["path"])))
        print_rich(table)
    elif remove is None:
        say("No vocabulary is installed; `textseg concepts import FILE` installs one.")


def _report(result: ImportResult, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(result) | {"path": str(result.path)})
        return
    say(
        f"{result.added} concepts {done} {result.path}; {result.known} were known, "
        f"{result.skipped} could not be taken over."
    )


def _num_concepts(path: Path) -> int | None:
    """Concepts of a tree file, not counting those of one side; None if it is damaged."""
    from textseg.knowledge.loading import TreeError, read_stanzas

    try:
        return len(read_stanzas(path))
    except TreeError as error:
        # one broken file must not hide those that work
        say(error.line())
        return None
