"""One term of another vocabulary, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A term; parents are ids of the same vocabulary.

    Attributes:
        id: Its identifier, with the vocabulary before it (``FMA:7203``).
        name: Preferred name.
        synonyms: Other names that mean exactly this.
        is_a: Ids of which it is a kind.
        part_of: Ids of which it is a part.
        xrefs: Its ids in other vocabularies.
        definition: One sentence, or empty.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    is_a: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    xrefs: tuple[str, ...] = ()
    definition: str = ""
