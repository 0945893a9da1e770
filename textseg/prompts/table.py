"""Reads the word tables of ``knowledge_tree/languages``, one per language."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from textseg.resources import data_folder

Row = tuple[str, tuple[str, ...]]


def languages() -> tuple[str, ...]:
    """Codes of the languages that have a table, English included."""
    return tuple(sorted(path.stem for path in _folder().glob("*.tsv")))


def table_path(code: str) -> Path:
    """The file of one language."""
    return _folder() / f"{code}.tsv"


def _folder() -> Path:
    return data_folder("knowledge_tree") / "languages"


@cache
def read_table(code: str) -> tuple[Row, ...]:
    """What each line of a table stands for, and the names it lists for that.

    A line is an id of the tree, or ``=`` and English words, then a tab and names with ``;`` between
    them. Lines that start with ``#`` are comments.
    """
    rows: list[Row] = []
    for line in table_path(code).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            meaning, _, names = line.partition("\t")
            rows.append((meaning, tuple(name.strip() for name in names.split(";"))))
    return tuple(rows)
