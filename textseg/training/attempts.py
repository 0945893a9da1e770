"""What was tried to make a model better: expected before, found after, for its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from textseg.errors import ModelError

ATTEMPTS_FILE = "attempts.yaml"
"""A list of attempts, in the folder of a model."""


class Attempt(BaseModel):
    """An idea and what came of it.

    Attributes:
        idea: What was changed.
        expected: What it was expected to do, written down before.
        found: What it did; None while that is open.
        kept: Whether the model has it; None while that is open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    idea: str
    expected: str
    found: str | None = None
    kept: bool | None = None


def read_attempts(folder: Path) -> tuple[Attempt, ...]:
    """The attempts told in a model folder; none if it has no such file.

    Raises:
        ModelError: The file cannot be understood.
    """
    path = folder / ATTEMPTS_FILE
    if not path.is_file():
        return ()
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
        return tuple(TypeAdapter(list[Attempt]).validate_python(listed))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(
            f"the attempts cannot be read: {error}",
            path=path,
            remedy="Write a list of entries with `idea`, `expected`, `found` and `kept`.",
        ) from error


def attempts_section(attempts: Sequence[Attempt]) -> str:
    """The table of a card."""
    answers = {True: "yes", False: "no", None: ""}
    lines = [
        "## What was tried",
        "",
        "Expectations, if any, were written down before the figures were known. Dice is that of "
        "`textseg card` unless another command is named.",
        "",
        "| idea | expected | found | kept |",
        "|---|---|---|---|",
        *(
            f"| {attempt.idea} | {attempt.expected} | {attempt.found or 'not yet known'} "
            f"| {answers[attempt.kept]} |"
            for attempt in attempts
        ),
    ]
    return "\n".join(lines)
