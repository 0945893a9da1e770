"""Reads ontologies in OBO, OBO-graph JSON or OWL."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from textseg.errors import InputError, ModelError
from textseg.knowledge.importing.entry import Entry

_PART_OF = frozenset({"part_of", "BFO:0000050"})


def read_ontology(path: Path) -> list[Entry]:
    """Every term of an ontology file that has a name and is not obsolete, in file order.

    Raises:
        InputError: The file is in none of the formats (E303).
        ModelError: pronto is not installed (E403).
    """
    try:
        from pronto.ontology import Ontology
    except ImportError as error:
        cause = "reading an ontology needs the package pronto, which is not installed."
        remedy = 'Run: pip install "textseg[ontology]"'
        raise ModelError(cause, code="E403", path=path, remedy=remedy) from error
    try:
        with warnings.catch_warnings():
            # ontologies in the wild break small rules all the time
            warnings.simplefilter("ignore")
            terms = list(Ontology(path, import_depth=0).terms())
    except (ValueError, SyntaxError, TypeError, KeyError, OSError) as error:
        cause = f"is no ontology in OBO, OBO-graph JSON or OWL ({error})."
        raise InputError(cause, code="E303", path=path) from error
    return [_entry(term) for term in terms if term.name and not term.obsolete]


def _entry(term: Any) -> Entry:
    wholes = [
        whole.id
        for relation, others in term.relationships.items()
        if relation.id in _PART_OF or relation.name in {"part of", "part_of"}
        for whole in others
    ]
    return Entry(
        id=term.id,
        name=term.name,
        synonyms=tuple(sorted(s.description for s in term.synonyms if s.scope == "EXACT")),
        is_a=tuple(t.id for t in term.superclasses(distance=1, with_self=False)),
        part_of=tuple(sorted(wholes)),
        xrefs=tuple(sorted(xref.id for xref in term.xrefs)),
        definition=str(term.definition or ""),
    )
