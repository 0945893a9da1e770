"""Reads what the imported part of the tree is made from: two tables and one PyPI package.

The tables hold what the package lacks: which terms are adult human anatomy, their sides, the sort
of each relation, and identifiers. Names and synonyms of Uberon come from the package.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PACKAGE = "cellxgene-ontology-guide"
_RELATIONS = ("is_a", "part_of", "branch_of", "supplies", "drains")
_XREFS = ("xrefs", "xrefs_left", "xrefs_right")
_NAMES = ("synonyms", "latin", "plurals", "abbreviations", "left_names", "right_names")
_LISTS = frozenset({"sides", *_RELATIONS, *_XREFS, *_NAMES})


@dataclass(frozen=True, slots=True)
class Term:
    """What the package says about one Uberon class."""

    label: str
    synonyms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a concept to be written, with its names."""

    texts: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]]
    exact_synonyms: tuple[str, ...]

    @property
    def id(self) -> str:
        """The concept's id."""
        return self.texts["id"]

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.texts["name"]

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which it exists."""
        return self.lists["sides"]


def read_rows(uberon: Mapping[str, Term]) -> list[Row]:
    """Every row of both tables, Uberon's first.

    Args:
        uberon: Terms by id. A term that a later release has dropped is reported by KeyError.
    """
    tables = ("uberon.tsv", "bodyparts3d.tsv")
    return [row for table in tables for row in _read_table(FOLDER / table, uberon)]


def _read_table(path: Path, uberon: Mapping[str, Term]) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            texts = {key: value for key, value in line.items() if key not in _LISTS}
            lists = {key: _items(line[key], " " if key == "sides" else ";") for key in _LISTS}
            source = texts["source"]
            term = uberon[source] if source.startswith("UBERON:") else None
            texts["name"] = texts["name"] or (term.label if term else "")
            extra = (term.label, *term.synonyms) if term else ()
            yield Row(texts, lists, (*extra, *lists["synonyms"]))


def _items(value: str, separator: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(separator) if item.strip())


def read_uberon() -> dict[str, Term]:
    """The newest Uberon in the installed package, by id.

    Raises:
        SystemExit: The package is not installed.
    """
    try:
        import cellxgene_ontology_guide
        import zstandard
    except ImportError as error:
        raise SystemExit(f"{error}. Install it: pip install {PACKAGE}") from error
    folder = Path(cellxgene_ontology_guide.__file__).parent / "data"
    newest = max(folder.glob("UBERON-ontology-*.json.zst"))
    with newest.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        terms = json.load(io.TextIOWrapper(stream, encoding="utf-8"))
    return {
        term_id: Term(term["label"], tuple(term.get("synonyms", ())))
        for term_id, term in terms.items()
    }
