"""``textseg models import``: makes a model of the files of SAT that lie on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, print_json, say
from textseg.errors import ModelError

if TYPE_CHECKING:
    from textseg.zoo import Entry


def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="sat-nano or sat-pro.")],
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", metavar="FILE", help="The network, a .pth file.")
    ],
    text_encoder: Annotated[
        Path,
        typer.Option(
            "--text-encoder", metavar="FILE", help="The text encoder published with that network."
        ),
    ],
    vocabulary: Annotated[
        Path, typer.Option("--vocabulary", metavar="FILE", help="The vocab.txt of BioLORD-2023-C.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Write the model here, not to your models."
        ),
    ] = None,
    unpaired: Annotated[
        bool,
        typer.Option("--unpaired", help="Accept two files from different steps of training."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that is there.")
    ] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make a model of the published files of SAT, without running anything in them.

    Every weight must be there and fit, and the two .pth files must belong together. The model is
    written in float32, and appears when it is complete.
    """
    from textseg.zoo import user_model_path
    from textseg.zoo.sat import import_sat

    entry = _entry(name)
    for licence in entry.licences:
        say(f"{entry.name}, {licence.covers}: licence {licence.id}. {licence.text}")
    folder = output if output is not None else user_model_path(name)
    manifest = import_sat(
        checkpoint,
        text_encoder,
        vocabulary,
        folder,
        name=name,
        licence=entry.licence,
        unpaired=unpaired,
        overwrite=overwrite,
    )
    if as_json:
        facts = manifest.model_dump(mode="json", include={"name", "version", "licence", "source"})
        print_json(facts | {"folder": str(folder), "sha256": manifest.sha256}, indent=2)
        return
    say(
        f"imported {manifest.name} {manifest.version}, {len(manifest.supported)} concepts: {folder}"
    )
    say(f"please cite: {entry.citation}")


def _entry(name: str) -> Entry:
    """The published model of this name, of a kind that can be imported."""
    from textseg.zoo.entries import ENTRIES

    known = {entry.name: entry for entry in ENTRIES if entry.kind == "sat"}
    if name not in known:
        raise ModelError(
            f"no model {name!r} can be imported.",
            code="E401",
            remedy=f"Those that can: {', '.join(known)}.",
        )
    return known[name]
