"""Reads which structures touch, as measured once in label maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from textseg.knowledge.loading import TreeError, tree_error

FILE_NAME = "adjacent.tsv"
_HEADER = ("concept", "neighbour", "contact_mm2", "maps")


@dataclass(frozen=True, slots=True)
class Contact:
    """Two concepts that touch.

    Attributes:
        pair: Their ids.
        area_mm2: Mean area of contact in the label maps that hold both.
        line: Line of the file, 1-based.
    """

    pair: tuple[str, str]
    area_mm2: float
    line: int


def read_contacts(path: Path) -> list[Contact]:
    """Every pair of a file; none where there is no file.

    Raises:
        TreeError: A line that is not two ids and two numbers.
    """
    if not path.is_file():
        return []
    header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if tuple(header.split("\t")) != _HEADER:
        raise tree_error(f"the header is {header!r}, not {' '.join(_HEADER)}", path, 1)
    contacts = []
    for number, line in enumerate(lines, start=2):
        try:
            one, other, area, _ = line.split("\t")
            contacts.append(Contact((one, other), float(area), number))
        except ValueError:
            raise tree_error(f"{line!r} is not two ids and two numbers", path, number) from None
    return contacts


def neighbours(contacts: list[Contact]) -> Mapping[str, tuple[str, ...]]:
    """Ids that touch each concept, the largest contact first."""
    found: dict[str, list[str]] = defaultdict(list)
    for contact in sorted(contacts, key=lambda contact: (-contact.area_mm2, contact.pair)):
        one, other = contact.pair
        found[one].append(other)
        found[other].append(one)
    return {concept_id: tuple(ids) for concept_id, ids in found.items()}


def unknown_ids(
    path: Path, contacts: list[Contact], known: Mapping[str, object]
) -> list[TreeError]:
    """An error for each line that names a concept which the tree lacks."""
    return [
        tree_error(f"{concept_id!r} does not exist", path, contact.line)
        for contact in contacts
        for concept_id in contact.pair
        if concept_id not in known
    ]
