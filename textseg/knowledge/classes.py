"""The class names under which the public data sets label their masks, and what each stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from textseg.knowledge.loading import TreeError, tree_error
from textseg.knowledge.tree import KnowledgeTree
from textseg.resources import data_folder

ClassMatch = Literal["exact", "union", "part", "close", "lesion", "site"]

FILE_NAME = "classes.tsv"
_HEADER = ("class", "concepts", "match", "modalities", "note")


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class name of the public data sets.

    Attributes:
        name: The class, in lower case.
        concepts: Ids whose union the class is; nearly always one.
        match: How what is labelled relates to anatomy: ``exact`` is the structure of that name;
            ``union`` several together; ``part`` a parcel that anatomy has no name for; ``close``
            drawn wider or narrower than the textbook; ``lesion`` a lesion or finding; ``site`` a
            finding that is known by its place alone.
        modalities: Where it is labelled: ``CT``, ``MRI``, ``PET``.
        note: What a user of the class should know, or empty.
    """

    name: str
    concepts: tuple[str, ...]
    match: ClassMatch
    modalities: tuple[str, ...]
    note: str


@cache
def load_classes(path: Path | None = None) -> Mapping[str, LabelClass]:
    """Every class by name, by default those that come with textseg.

    Raises:
        TreeError: A line that is not five columns, or a class that is given twice.
    """
    path = path or data_folder("knowledge_tree") / FILE_NAME
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise TreeError(f"cannot be read: {error}", path=path) from error
    if tuple(header.split("\t")) != _HEADER:
        raise tree_error(f"the header is {header!r}, not {' '.join(_HEADER)}", path, 1)
    classes: dict[str, LabelClass] = {}
    for number, line in enumerate(lines, start=2):
        found = _read_line(line, path, number)
        if found.name in classes:
            raise tree_error(f"the class {found.name!r} is given twice", path, number)
        classes[found.name] = found
    return classes


def _read_line(line: str, path: Path, number: int) -> LabelClass:
    """The class of one line."""
    columns = line.split("\t")
    if len(columns) != len(_HEADER) or not columns[0]:
        raise tree_error(f"{line!r} is not {len(_HEADER)} columns", path, number)
    name, concepts, match, modalities, note = columns
    if match not in get_args(ClassMatch):
        raise tree_error(
            f"match {match!r} is none of {', '.join(get_args(ClassMatch))}", path, number
        )
    ids, places = (
        tuple(item.strip() for item in text.split(";")) for text in (concepts, modalities)
    )
    return LabelClass(name, ids, cast("ClassMatch", match), places, note)


def class_names(tree: KnowledgeTree) -> Mapping[str, str]:
    """The class name of each concept of ``tree`` that is exactly what a class labels.

    Where two classes are one structure ("femur" and "femur bone"), the first in the file counts.
    """
    names: dict[str, str] = {}
    for label in load_classes().values():
        if len(label.concepts) == 1 and label.concepts[0] in tree:
            names.setdefault(label.concepts[0], label.name)
    return names
