"""Chooses which names an imported concept may have, and of which sort each of them is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from knowledge_tree.build.sources import Row
from textseg.knowledge import KnowledgeTree, normalise

KEYS = ("synonyms", "latin", "british", "plurals", "abbreviations", "ambiguous")
_MOST_SYNONYMS = 8
_LONGEST = 60
_MOST_MEANINGS = 3

_UNWANTED = re.compile(
    r"\b(sensu|human|mammalian|vertebrate|embryonic|fetal|foetal|pronephric|metanephr\w*|"
    r"mesonephr\w*|adult|body part|portion of|set of|zone of|region of organ|structure of|"
    r"anatomical|obsolete|future|primordi\w*|manus|pes|autopod\w*|zeugopod\w*|stylopod\w*|"
    r"forelimb|hindlimb|manual|pedal|caudal limb|multi-tissue|tissue of|nos|rodent|mouse|rat|"
    r"wall of (?:left|right)|entire|volume|larsell|convolution|muscke|neuronames|\d{4})\b|"
    r"[\[\]{}<>=|/\\]|\(.*\(",
    re.IGNORECASE,
)
_BRITISH = re.compile(
    r"oesoph|oedem|haem|caec|coeli|paed|foet|tumour|colour|fibre\b|fibres\b|centre\b|grey|"
    r"labour|aetiol|leucocy|orthop|anaem|diarrh|gynae|titre\b|litre\b|humour|vapour",
    re.IGNORECASE,
)
_LATIN = re.compile(
    r"^(musculus|musculi|m\.|arteria|arteriae|a\.|vena|venae|nervus|nervi|ligamentum|ligamenta|"
    r"os|ossa|processus|tuberculum|facies|margo|pars|ramus|rami|nodus|nodi|glandula|glandulae|"
    r"ductus|tractus|articulatio|sutura|regio|lobulus|tunica|cavitas|cavum|membrana|tendo|"
    r"truncus|radix|cartilago|incisura|extremitas|impressio|plica|recessus|fissura)\b(?!.* of )",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Names:
    """Names of one concept beside its own, by the key of the tree file they are written under."""

    lists: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, key: str, name: str) -> None:
        """Takes a name once, under the first key that asks for it."""
        held = {normalise(other) for others in self.lists.values() for other in others}
        if normalise(name) not in held:
            self.lists[key].append(name)


def choose_names(rows: Iterable[Row], curated: KnowledgeTree) -> dict[str, Names]:
    """The names of every row by id, such that none is shared in silence.

    A name that a curated concept or another row's own name has already is left out. One that a
    few rows claim is ambiguous in all of them; one that many claim says nothing and is left out.
    """
    rows = list(rows)
    owned = set(curated.names)
    for row in rows:
        owned.update(_forms(row.name, row.sides))
    candidates = {row.id: list(_candidates(row, owned)) for row in rows}
    claims = _claims(candidates)
    for row_id, found in candidates.items():
        candidates[row_id] = [c for c in found if c.may_stay(_num_meanings(c, claims))]
    claims = _claims(candidates)
    return {row_id: _chosen(found, claims) for row_id, found in candidates.items()}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A name a row could have: the key it would stand under and the texts it would answer to."""

    key: str
    name: str
    forms: frozenset[str]

    def may_stay(self, num_meanings: int) -> bool:
        """A name of one side must be its own; others may be shared by a few."""
        return num_meanings == 1 or ("." not in self.key and num_meanings <= _MOST_MEANINGS)


def _claims(candidates: Mapping[str, Iterable[_Candidate]]) -> dict[str, set[str]]:
    """Ids of the rows that want each text."""
    claims: dict[str, set[str]] = defaultdict(set)
    for row_id, found in candidates.items():
        for candidate in found:
            for form in candidate.forms:
                claims[form].add(row_id)
    return claims


def _num_meanings(candidate: _Candidate, claims: Mapping[str, Collection[str]]) -> int:
    return max(len(claims[form]) for form in candidate.forms)


def _chosen(candidates: Iterable[_Candidate], claims: Mapping[str, Collection[str]]) -> Names:
    """The names of one row, those shared with others declared."""
    names = Names()
    for candidate in candidates:
        if _num_meanings(candidate, claims) > 1:
            names.add("ambiguous", candidate.name)
        elif len(names.lists[candidate.key]) < _MOST_SYNONYMS:
            names.add(candidate.key, candidate.name)
    return names


def _candidates(row: Row, owned: Set[str]) -> Iterator[_Candidate]:
    """Every usable name that nothing owns, the most certain first."""
    seen: set[str] = set()
    for key, name in _wanted(row):
        forms = frozenset({normalise(name)} if "." in key else _forms(name, row.sides))
        if _is_usable(name, row) and normalise(name) not in seen and owned.isdisjoint(forms):
            seen.add(normalise(name))
            yield _Candidate(key, name, forms)


def _wanted(row: Row) -> Iterator[tuple[str, str]]:
    """Every name of the sources with its key."""
    for key in ("abbreviations", "plurals", "latin"):
        yield from ((key, name) for name in row.lists[key])
    for side in row.sides:
        yield from ((f"synonyms.{side}", name) for name in row.lists[f"{side}_names"])
    yield from ((_sort_of(name), name) for name in row.exact_synonyms)


def _sort_of(name: str) -> str:
    """The key for an exact synonym of no stated sort."""
    if _BRITISH.search(name):
        return "british"
    return "latin" if _LATIN.search(name) else "synonyms"


def _is_usable(name: str, row: Row) -> bool:
    words = normalise(name).split()
    return (
        bool(words)
        and len(name) <= _LONGEST
        and ";" not in name
        and not _UNWANTED.search(name)
        and normalise(name) != normalise(row.name)
        and not words[0].isdigit()
    )


def _forms(name: str, sides: Iterable[str]) -> set[str]:
    plain = normalise(name)
    return {plain, *(f"{side} {plain}" for side in sides)}
