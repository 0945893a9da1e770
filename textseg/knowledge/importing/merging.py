"""Fits the terms of another vocabulary into a tree: what is new, what is known, under what name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from textseg.knowledge.concept import Concept
from textseg.knowledge.importing.entry import Entry
from textseg.knowledge.loading import SIDES
from textseg.knowledge.tree import KnowledgeTree, normalise

_MOST_SYNONYMS = 12


@dataclass(slots=True)
class NewStanza:
    """A concept to be written.

    Attributes:
        id: Its id in the tree.
        name: Its name.
        entry: The term it comes from; one of a side for a structure known by its sides alone.
        sides: The terms of its left and right, by side.
        names: Other names, none of which anything else has.
        parents: Ids in the tree, by relation.
    """

    id: str
    name: str
    entry: Entry
    sides: dict[str, Entry] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    parents: dict[str, list[str]] = field(default_factory=lambda: {"is_a": [], "part_of": []})


@dataclass(slots=True)
class Merged:
    """The outcome: stanzas by id, and how many entries did not become one."""

    stanzas: dict[str, NewStanza]
    places: Mapping[str, Concept | None]
    num_known: int
    num_skipped: int

    def text(self) -> str:
        """The stanzas as a tree file."""
        return "\n".join("\n".join(self._lines(stanza)) + "\n" for stanza in self.stanzas.values())

    def _lines(self, stanza: NewStanza) -> Iterator[str]:
        """One stanza; where it lies and what it is are those of its nearest parent in the tree."""
        place = self.places[stanza.id]
        yield f"[{stanza.id}]"
        yield f"name: {stanza.name}"
        yield f"kind: {place.kind if place else 'organ part'}"
        yield f"region: {place.region if place else 'whole_body'}"
        yield f"system: {place.system if place else 'multi'}"
        own = stanza.entry if stanza.entry not in stanza.sides.values() else None
        lists: list[tuple[str, Iterable[str]]] = [
            ("sides", [side for side in SIDES if side in stanza.sides]),
            ("synonyms", stanza.names),
            *stanza.parents.items(),
            ("xrefs", _xrefs(own)),
            *((f"xrefs.{side}", _xrefs(entry)) for side, entry in sorted(stanza.sides.items())),
        ]
        for key, values in lists:
            if items := [_item(value) for value in values]:
                yield f"{key}: {'; '.join(items)}"
        if own and own.definition:
            yield f"definition: {' '.join(own.definition.split())}"


def merge(entries: Iterable[Entry], tree: KnowledgeTree, *, vocabulary: str) -> Merged:
    """Stanzas for the entries that are new to the tree; together they make a sound tree.

    An entry is known if the tree has its name or one of its identifiers. Names that anything else
    has are left out, and so are relations that would put a concept above itself. Ids begin with
    ``vocabulary`` and a dot.
    """
    merger = _Merger(tree, vocabulary)
    entries = list(entries)
    sided = [(entry, split) for entry in entries if (split := _split_side(entry.name))]
    for entry in entries:
        if not _split_side(entry.name):
            merger.add(entry)
    for entry, (side, base) in sided:
        merger.add_side(entry, side, base)
    merger.relate(entries)
    for stanza in merger.stanzas.values():
        merger.choose_names(stanza)
    places = {stanza_id: merger.place(stanza_id) for stanza_id in merger.stanzas}
    return Merged(merger.stanzas, places, merger.num_known, merger.num_skipped)


class _Merger:
    """The stanzas so far, and everything that must not be used twice."""

    def __init__(self, tree: KnowledgeTree, vocabulary: str) -> None:
        self.tree = tree
        self.vocabulary = vocabulary
        self.stanzas: dict[str, NewStanza] = {}
        self.num_known = 0
        self.num_skipped = 0
        self._by_xref = {xref: concept.id for concept in tree for xref in concept.xrefs}
        self._by_name: dict[str, str] = {}
        self._by_entry: dict[str, str] = {}
        self._taken: set[str] = set(tree.names)

    def add(self, entry: Entry) -> None:
        """Makes a stanza of an entry, unless something has its name or it speaks of a side."""
        if self._is_known(entry):
            return
        name = normalise(entry.name)
        # "right-sided aortic arch" is no side of anything
        if not name or name.split()[0] in SIDES or name in self._by_name:
            self.num_skipped += 1
            return
        self._open(entry, entry.name)

    def add_side(self, entry: Entry, side: str, base: str) -> None:
        """Gives a stanza a side, opening it where only its sides have entries."""
        if self._is_known(entry):
            return
        name = normalise(base)
        stanza = self.stanzas.get(self._by_name.get(name, ""))
        if stanza is None and name and not self.tree.lookup(base):
            stanza = self._open(entry, base)
        if stanza is None or side in stanza.sides or f"{side} {name}" in self._taken:
            self.num_skipped += 1
            return
        stanza.sides[side] = entry
        self._taken.add(f"{side} {name}")
        self._by_entry[entry.id] = stanza.id

    def _is_known(self, entry: Entry) -> bool:
        found = [c.id for c in self.tree.lookup(entry.name)]
        found += [self._by_xref[xref] for xref in (entry.id, *entry.xrefs) if xref in self._by_xref]
        if found:
            self._by_entry[entry.id] = found[0]
            self.num_known += 1
        return bool(found)

    def _open(self, entry: Entry, name: str) -> NewStanza:
        stanza = NewStanza(self._free_id(name, entry.id), _item(name), entry)
        self.stanzas[stanza.id] = stanza
        self._by_name[normalise(name)] = self._by_entry[entry.id] = stanza.id
        self._taken.add(normalise(name))
        return stanza

    def _free_id(self, name: str, entry_id: str) -> str:
        """An id that nothing has, nor the left or right of anything."""
        own = f"{self.vocabulary}.{slug(name) or slug(entry_id) or 'concept'}"
        candidates = (own, *(f"{own}_{number}" for number in range(2, 10_000)))
        return next(i for i in candidates if i not in self.tree and i not in self.stanzas)

    def relate(self, entries: Iterable[Entry]) -> None:
        """Adds the relations whose both ends exist, but for those that would close a loop."""
        for entry in entries:
            stanza = self.stanzas.get(self._by_entry.get(entry.id, ""))
            if stanza is None:
                continue
            for relation, others in (("is_a", entry.is_a), ("part_of", entry.part_of)):
                for other in others:
                    self._relate(stanza, relation, self._by_entry.get(other))

    def _relate(self, stanza: NewStanza, relation: str, parent: str | None) -> None:
        if parent is not None and parent in self.tree and stanza.sides:
            parent = self.tree[parent].base
        if parent is None or parent in _above(stanza):
            return
        if stanza.id not in self._ancestors(parent):
            stanza.parents[relation].append(parent)

    def _ancestors(self, concept_id: str) -> set[str]:
        """A new concept and the new ones above it; the tree's own never lead back to them."""
        seen: set[str] = set()
        waiting = [concept_id]
        while waiting:
            if (node := waiting.pop()) in self.stanzas and node not in seen:
                seen.add(node)
                waiting += _above(self.stanzas[node])
        return seen

    def choose_names(self, stanza: NewStanza) -> None:
        """Keeps the synonyms that nothing else answers to, on any side."""
        for name in stanza.entry.synonyms if stanza.entry not in stanza.sides.values() else ():
            plain = normalise(name)
            forms = {plain, *(f"{side} {plain}" for side in stanza.sides)}
            starts_with_side = plain.split(" ")[0] in SIDES
            if plain and not starts_with_side and self._taken.isdisjoint(forms):
                self._taken |= forms
                stanza.names.append(name)
            if len(stanza.names) == _MOST_SYNONYMS:
                return

    def place(self, stanza_id: str) -> Concept | None:
        """The nearest concept of the tree above a stanza, kinds before wholes."""
        waiting = [stanza_id]
        for node in waiting:
            for parent in _above(self.stanzas[node]):
                if parent in self.tree:
                    return self.tree[parent]
                if parent not in waiting:
                    waiting.append(parent)
        return None


def _above(stanza: NewStanza) -> list[str]:
    return [*stanza.parents["is_a"], *stanza.parents["part_of"]]


def _split_side(name: str) -> tuple[str, str] | None:
    """The side a name starts with and what follows.

    >>> _split_side("Left  kidney")
    ('left', 'kidney')
    """
    first, _, rest = name.strip().partition(" ")
    return (first.lower(), rest.strip()) if first.lower() in SIDES else None


def _xrefs(entry: Entry | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys((entry.id, *entry.xrefs))) if entry else ()


def _item(text: str) -> str:
    """A text that may stand in a list of a tree file."""
    return " ".join(text.replace(";", ",").split())


def slug(text: str) -> str:
    """The text as it may stand in an id."""
    return re.sub(r"[^a-z0-9]+", "_", normalise(text)).strip("_")
