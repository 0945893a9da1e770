"""Writes concepts as tree files, one per organ system."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from knowledge_tree.build.names import KEYS, Names
from knowledge_tree.build.sources import Row

_HEADER = (
    "# Taken over by rule from Uberon (CC BY 3.0) and BodyParts3D (CC BY 4.0): names, identifiers\n"
    "# and relations. Written by `python -m knowledge_tree.build`; do not edit.\n"
)
_RELATIONS = ("is_a", "part_of", "branch_of", "supplies", "drains")


def write_trees(rows: Iterable[Row], names: Mapping[str, Names], folder: Path) -> list[Path]:
    """Writes a file for every system, sorted by id, and removes those of no system."""
    by_system: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_system[row.texts["system"]].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.tree"):
        if path.stem not in by_system:
            path.unlink()
    written = []
    for system, members in sorted(by_system.items()):
        stanzas = [_stanza(row, names[row.id]) for row in sorted(members, key=lambda row: row.id)]
        path = folder / f"{system}.tree"
        head = f"{_HEADER}\n[*]\nsystem: {system}\n\n"
        path.write_text(head + "\n".join(stanzas), encoding="utf-8")
        written.append(path)
    return written


def _stanza(row: Row, names: Names) -> str:
    """The text of one concept."""
    lines = [
        f"[{row.id}]",
        f"name: {row.name}",
        f"kind: {row.texts['kind']}",
        f"region: {row.texts['region']}",
    ]
    source = (row.texts["source"],) if row.texts["source"] else ()
    sided = [(f"synonyms.{side}", names.lists.get(f"synonyms.{side}", ())) for side in row.sides]
    lists = [
        ("sides", row.sides),
        *((key, names.lists.get(key, ())) for key in KEYS),
        *sided,
        *((key, row.lists[key]) for key in _RELATIONS),
        ("xrefs", (*source, *row.lists["xrefs"])),
        *((f"xrefs.{side}", row.lists[f"xrefs_{side}"]) for side in row.sides),
    ]
    lines += [f"{key}: {'; '.join(items)}" for key, items in lists if items]
    return "\n".join(lines) + "\n"
