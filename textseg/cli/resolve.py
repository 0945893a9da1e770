"""``textseg resolve``: what a prompt means, without a scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textseg.cli.concepts import supported_by
from textseg.cli.report import note, point_to_names
from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    cells,
    make_table,
    print_json,
    print_rich,
)
from textseg.errors import InputError

if TYPE_CHECKING:
    from textseg.knowledge import KnowledgeTree
    from textseg.prompts import Modality, Resolution

_EMBEDDED = "nano"


def read_prompts(path: Path) -> list[str]:
    """The lines of a prompts file without those that are blank; errors as in ``read_lines``."""
    return [line for _, line in read_lines(path)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its number from 1.

    Raises:
        InputError: It is missing or no UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError("does not exist.", code="E301", path=path) from error
    except OSError as error:
        cause = f"cannot be read ({error.strerror})."
        raise InputError(cause, code="E303", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 text (byte {error.start}).",
            code="E303",
            path=path,
            remedy="Save it as UTF-8.",
        ) from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def resolve(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="What you would ask for.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More prompts, one per line.")
    ] = None,
    modality: Annotated[
        Literal["ct", "mr", "pet"] | None,
        typer.Option(help="Kind of scan, where it settles what a word means."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Only what this model knows; else all that public data sets label too.",
        ),
    ] = None,
    any_concept: Annotated[
        bool, typer.Option("--any", help="Accept all anatomy, whatever data sets label.")
    ] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say what prompts mean, without a scan.

    With --json, one object per prompt and line; `names` are those of the public data sets.
    """
    from textseg.knowledge import load_model_tree, load_user_tree
    from textseg.network.weights import find_model

    asked = [*(prompts or []), *(read_prompts(file) if file else [])]
    if not asked:
        raise UsageError("Give a prompt, or a file of prompts with --file.")
    tree = load_user_tree() if model is None else load_model_tree(find_model(model))
    read = _reader(tree, model=model, any_concept=any_concept, modality=modality)
    answers = [read(prompt) for prompt in asked]
    if as_json:
        from textseg.knowledge.classes import class_names

        classes = class_names(tree)
        for answer in answers:
            print_json(_record(answer, classes))
        return
    table = make_table("prompt", "status", "means", "note")
    for answer in answers:
        table.add_row(*cells(answer.prompt, answer.status, _meaning(answer, tree), note(answer)))
    print_rich(table)
    point_to_names(answers)


def _reader(
    tree: KnowledgeTree, *, model: str | None, any_concept: bool, modality: Modality | None
) -> Callable[[str], Resolution]:
    """What reads a prompt: for a model, for all anatomy, or for all that anybody can train."""
    from textseg.knowledge.classes import class_names
    from textseg.network.nearness import NearNames
    from textseg.network.weights import load_encoder
    from textseg.prompts import resolve as read
    from textseg.prompts import warn_of_modality

    near = NearNames(tree, partial(load_encoder, model or _EMBEDDED))
    read_for = partial(read, tree=tree, modality=modality, near=near)
    if any_concept or model is not None:
        supported = None if any_concept or model is None else supported_by(model)
        return partial(read_for, supported=supported)
    embedded = supported_by(_EMBEDDED)
    trainable = frozenset(class_names(tree)) | embedded

    def read_trainable(prompt: str) -> Resolution:
        answer = read_for(prompt, supported=trainable)
        answer = warn_of_modality(answer, tree, modality=modality)
        if all(tree.leaves(concept, embedded) for concept in answer.concepts):
            return answer
        why = f"The model {_EMBEDDED} cannot segment this; `--model` says what a model can."
        return replace(answer, warnings=(*answer.warnings, why))

    return read_trainable


def _record(answer: Resolution, classes: Mapping[str, str]) -> dict[str, Any]:
    names = [classes[concept] for concept in answer.concepts if concept in classes]
    fields = {**asdict(answer), "names": names}
    order = ("prompt", "status", "concepts", "names", "confidence", "method")
    rest = ("warnings", "suggestions", "candidates")
    return {key: fields[key] for key in (*order, *rest)}


def _meaning(answer: Resolution, tree: KnowledgeTree) -> str:
    separator = " or " if answer.status == "ambiguous" else ", "
    return separator.join(tree[i].name for i in (answer.concepts or answer.candidates))
