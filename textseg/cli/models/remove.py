"""``textseg models remove``: takes a model out of the user's models folder."""

from __future__ import annotations

from typing import Annotated

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, print_json, say


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of your own, by name.")],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Remove a model from your models folder; nothing is asked.

    What the hub's cache holds of it stays; `hf cache rm` is for that.
    """
    from textseg.zoo import remove_model

    folder = remove_model(name)
    if as_json:
        print_json({"name": name, "removed": str(folder)})
    else:
        say(f"removed {name}: {folder}")
