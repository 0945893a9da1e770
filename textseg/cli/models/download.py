"""``textseg models download``: installs a published model by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, logging_to_stderr, print_json, say
from textseg.errors import ModelError

if TYPE_CHECKING:
    from textseg.zoo import Download, Entry


def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name that `textseg models list` gives.")
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only files that are in the cache already.")
    ] = False,
    require_license: Annotated[
        list[str] | None,
        typer.Option(
            "--require-license",
            metavar="ID[,ID]",
            help="Refuse the model unless each of its licences is one of these; repeatable.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Install it anew, in place of what has its name.")
    ] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Download a published model, check it, and install it under its name.

    The files come from the Hugging Face hub, into its cache (HF_HOME); the model goes into your
    models folder (TEXTSEG_HOME). A transfer that stopped goes on where it was. Nothing is asked:
    the licences are shown, and --require-license refuses those you do not name. The downloads of
    SAT have been tested against a stand-in for the hub, not against the hub itself. Needs
    textseg[hub].
    """
    from textseg.zoo import Hub, download_model

    entry = _entry(name)
    for licence in entry.licences:
        say(f"{entry.name}, {licence.covers}: licence {licence.id}. {licence.text}")
    accepted = None
    if require_license:
        accepted = [licence for group in require_license for licence in group.split(",")]
    with logging_to_stderr(verbose=True, debug=debug):
        installed = download_model(
            entry, hub=Hub(offline=offline), licences=accepted, overwrite=overwrite
        )
    if as_json:
        print_json(_facts(installed), indent=2)
    elif installed.was_there:
        say(f"{entry.name} is installed already: {installed.folder}")
    else:
        _say_done(entry, installed)


def _entry(name: str) -> Entry:
    from textseg.zoo import find_entry
    from textseg.zoo.entries import ENTRIES

    entry = find_entry(name)
    if entry is None:
        names = ", ".join(entry.name for entry in ENTRIES)
        cause = f"no model {name!r} can be downloaded."
        raise ModelError(cause, code="E401", remedy=f"Those that can: {names}.")
    return entry


def _say_done(entry: Entry, installed: Download) -> None:
    manifest = installed.manifest
    say(
        f"installed {manifest.name} {manifest.version}, {len(manifest.supported)} concepts: "
        f"{installed.folder}"
    )
    say(f"please cite: {entry.citation}")
    size = sum(file.size_bytes for file in installed.record.files)
    repos = dict.fromkeys(f"model/{file.repo}" for file in installed.record.files)
    say(
        f"its {size / 1e6:.1f} MB of downloads stay in the cache of the hub; the model no longer "
        f"needs them: hf cache rm {' '.join(repos)}"
    )


def _facts(installed: Download) -> dict[str, object]:
    return {
        "name": installed.manifest.name,
        "version": installed.manifest.version,
        "licence": installed.manifest.licence,
        "folder": str(installed.folder),
        "was_there": installed.was_there,
        "files": [file.model_dump() for file in installed.record.files],
    }
