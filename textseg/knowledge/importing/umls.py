"""Reads the anatomy of a UMLS Metathesaurus in RRF, for those who hold a licence.

Column order after the UMLS Reference Manual, chapter 3. In MRREL it is the second concept that has
the relation to the first: ``C1|..|CHD|C2|..|isa`` says that C2 is a C1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from textseg.errors import InputError
from textseg.knowledge.importing.entry import Entry

_ANATOMY = frozenset({"T017", "T021", "T022", "T023", "T029", "T030"})
_XREF_SOURCES = {"FMA": "FMA", "UWDA": "UWDA", "NCI": "NCIT", "MSH": "MESH", "SNOMEDCT_US": "SCTID"}


@dataclass(slots=True)
class _Names:
    """What MRCONSO says about one concept."""

    preferred: str = ""
    others: dict[str, None] = field(default_factory=dict)
    xrefs: dict[str, None] = field(default_factory=dict)


def read_umls(source: Path) -> list[Entry]:
    """The concepts with an English name, in the order of MRCONSO.

    Args:
        source: The folder with MRCONSO.RRF, or that file. MRREL.RRF and MRDEF.RRF beside it give
            relations and definitions; with MRSTY.RRF only anatomical structures are read.

    Raises:
        InputError: MRCONSO.RRF is not there (E301), or a line is too short (E303).
    """
    folder = source if source.is_dir() else source.parent
    wanted = _anatomical(folder / "MRSTY.RRF")
    names = _read_names(folder / "MRCONSO.RRF", wanted)
    kinds, wholes = _read_relations(folder / "MRREL.RRF", names)
    definitions = {row[0]: row[5] for row in _rows(folder / "MRDEF.RRF", 6) if row[0] in names}
    return [
        Entry(
            id=f"UMLS:{cui}",
            name=found.preferred or next(iter(found.others)),
            synonyms=tuple(found.others),
            is_a=tuple(f"UMLS:{other}" for other in kinds[cui]),
            part_of=tuple(f"UMLS:{other}" for other in wholes[cui]),
            xrefs=tuple(found.xrefs),
            definition=definitions.get(cui, ""),
        )
        for cui, found in names.items()
    ]


def _anatomical(path: Path) -> Collection[str] | None:
    """Concepts of an anatomical semantic type; None where the types are not told."""
    return {row[0] for row in _rows(path, 2) if row[1] in _ANATOMY} if path.is_file() else None


def _read_names(path: Path, wanted: Collection[str] | None) -> dict[str, _Names]:
    if not path.is_file():
        raise InputError("does not exist.", code="E301", path=path)
    names: dict[str, _Names] = defaultdict(_Names)
    for row in _rows(path, 17):
        cui, language, status, form, is_preferred = row[0], row[1], row[2], row[4], row[6]
        source, code, text, suppressed = row[11], row[13], row[14], row[16]
        if language != "ENG" or suppressed != "N" or (wanted is not None and cui not in wanted):
            continue
        found = names[cui]
        if (status, form, is_preferred) == ("P", "PF", "Y"):
            found.preferred = text
        found.others[text] = None
        if source in _XREF_SOURCES:
            prefix = _XREF_SOURCES[source]
            found.xrefs[f"{prefix}:{code.removeprefix(f'{prefix}:')}"] = None
    return dict(names)


def _read_relations(
    path: Path, known: Collection[str]
) -> tuple[dict[str, dict[str, None]], dict[str, dict[str, None]]]:
    """Kinds and wholes of each concept, by the id of the lower one."""
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    wholes: dict[str, dict[str, None]] = defaultdict(dict)
    for row in _rows(path, 8):
        first, relation, second, label = row[0], row[3], row[4], row[7]
        if first == second or first not in known or second not in known:
            continue
        if label == "part_of":
            wholes[second][first] = None
        elif label == "has_part":
            wholes[first][second] = None
        elif label == "isa" or (not label and relation == "CHD"):
            kinds[second][first] = None
        elif label == "inverse_isa" or (not label and relation == "PAR"):
            kinds[first][second] = None
    return kinds, wholes


def _rows(path: Path, num_columns: int) -> Iterator[list[str]]:
    """The columns of each line; nothing where there is no file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            row = line.rstrip("\r\n").split("|")
            if len(row) < num_columns:
                cause = f"line {number} has {len(row)} columns, not {num_columns} or more."
                raise InputError(cause, code="E303", path=path)
            yield row
