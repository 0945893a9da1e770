"""Makes a sentence about a concept out of its relations, where nobody has written one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from textseg.knowledge.concept import Concept

_MOST_NAMED = 4


def define(concept: Concept, concepts: Mapping[str, Concept]) -> str:
    """The concept's own definition, or one sentence made from what it is related to.

    A side borrows the definition of the pair.
    """
    if concept.definition:
        return concept.definition
    base = concepts[concept.base]
    if concept.side is not None and base.definition:
        whole = base.definition[0].lower() + base.definition[1:]
        return f"The {base.name} of the {concept.side} side: {whole}"
    return ", ".join((_subject(concept, base, concepts), *_clauses(concept, concepts))) + "."


def _subject(concept: Concept, base: Concept, concepts: Mapping[str, Concept]) -> str:
    """What it is and where."""
    kinds = [concepts[i].name for i in concept.is_a if i != concept.base]
    wholes = _joined(concept.part_of, concepts)
    if concept.side is not None:
        place = f", in {wholes}" if wholes else ""
        return f"The {base.name} of the {concept.side} side{place}"
    noun = kinds[0] if kinds else concept.kind
    return f"{_article(noun)} {noun}" + (f" in {wholes}" if wholes else "")


def _clauses(concept: Concept, concepts: Mapping[str, Concept]) -> Iterator[str]:
    """What a vessel or nerve comes from and goes to."""
    is_vein = bool(concept.drains) or "vein" in concept.name
    for start, ids in (
        ("running into" if is_vein else "a branch of", concept.branch_of),
        ("for", concept.supplies),
        ("draining", concept.drains),
    ):
        if ids:
            yield f"{start} {_joined(ids, concepts)}"


def _joined(ids: Iterable[str], concepts: Mapping[str, Concept]) -> str:
    """Names in a row: the liver, the spleen and the stomach."""
    names = [f"the {concepts[i].name}" for i in ids][:_MOST_NAMED]
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)


def _article(noun: str) -> str:
    return "An" if noun[0] in "aeiou" else "A"
