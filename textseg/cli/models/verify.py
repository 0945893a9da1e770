"""``textseg models verify``: whether the files of models are as they were when they were made."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, print_json, say
from textseg.errors import ModelError


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names or folders; all that are here by default."),
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare the files of models with their checksums; exit with 4 if one is damaged.

    The weights are checked, and every other file that the model's manifest names, such as a
    vocabulary.
    """
    from textseg.network.weights import list_models

    found = [_verified(name) for name in names or list_models()]
    if as_json:
        print_json(found, indent=2)
    for model in found:
        if model["error"] is not None:
            say(model["error"])
        elif not as_json:
            say(f"{model['name']}: sound ({', '.join(model['files'])})")
    if any(model["error"] is not None for model in found):
        raise typer.Exit(ModelError.exit_code)


def _verified(name: str) -> dict[str, Any]:
    """State of each file, and the line that says what is wrong, if something is."""
    from textseg.zoo import verify_model

    try:
        checked = verify_model(name)
    except ModelError as error:
        # one broken folder must not keep the others from being checked
        return {"name": name, "folder": None, "files": {}, "error": error.line()}
    line = None
    if not checked.is_sound:
        faults = ", ".join(f"{n} is {state}" for n, state in checked.files.items() if state != "ok")
        remedy = f"Download it again with --overwrite, or remove it: textseg models remove {name}"
        line = ModelError(f"{faults}.", code="E402", path=checked.folder, remedy=remedy).line()
    return {
        "name": name,
        "folder": str(checked.folder),
        "files": dict(checked.files),
        "error": line,
    }
