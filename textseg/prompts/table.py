"""Reads the word tables of ``knowledge_tree/languages``, one per language."""

from __future__ import annotations

from functools import cache

from textseg.resources import data_folder

Row = tuple[str, tuple[str, ...]]


def languages() -> tuple[str, ...]:
    """Codes of the languages that have a table, English included."""
    folder = data_folder("knowledge_tree") / "languages"
    return tuple(sorted(path.stem for path in folder.glob("*.tsv")))


@cache
def read_table(code: str) -> tuple[Row, ...]:
    """What each line of a table stands for, and the names it lists for that.

    A line is an id of the tree, or ``=`` and English words, then a tab and names with ``;`` between
    them. Lines that start with ``#`` are comments.
    """
    path = data_folder("knowledge_tree") / "languages" / f"{code}.tsv"
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            meaning, _, names = line.partition("\t")
            rows.append((meaning, tuple(name.strip() for name in names.split(";"))))
    return tuple(rows)
