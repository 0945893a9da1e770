"""The anatomy tree: looks concepts up, walks their relations, and says which masks add up."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from textseg.errors import UnknownConcept
from textseg.knowledge.concept import Concept, Side
from textseg.knowledge.loading import expand, read_stanzas, tree_files
from textseg.resources import data_folder


class KnowledgeTree:
    """Concepts by id, with their relations read in both directions.

    Args:
        concepts: Every concept by id. References are trusted; ``validate_tree`` checks them.
    """

    def __init__(self, concepts: Mapping[str, Concept]) -> None:
        self._concepts = dict(concepts)
        self._kinds: dict[str, list[str]] | None = None
        self._parts: dict[str, list[str]] | None = None
        self._names: dict[str, tuple[str, ...]] | None = None

    def __getitem__(self, concept_id: str) -> Concept:
        """The concept with this id; raises ``UnknownConcept`` with the closest ids."""
        try:
            return self._concepts[concept_id]
        except KeyError:
            raise self._unknown(concept_id) from None

    def __contains__(self, concept_id: object) -> bool:
        return concept_id in self._concepts

    def __iter__(self) -> Iterator[Concept]:
        return iter(self._concepts.values())

    def __len__(self) -> int:
        return len(self._concepts)

    def _unknown(self, concept_id: str) -> UnknownConcept:
        from textseg.knowledge.search import closest

        near = ", ".join(closest(concept_id, self._concepts, limit=3))
        remedy = f"Closest: {near}." if near else "List all with `textseg concepts`."
        return UnknownConcept(f"no concept has the id {concept_id!r}.", remedy=remedy)

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids, in file order."""
        return tuple(self._concepts)

    def parents(self, concept_id: str) -> tuple[str, ...]:
        """What the concept is a kind or a part of, kinds first."""
        concept = self[concept_id]
        return tuple(dict.fromkeys((*concept.is_a, *concept.part_of)))

    def children(self, concept_id: str) -> tuple[str, ...]:
        """Direct kinds of the concept; its left and right are among them."""
        if self._kinds is None:
            self._kinds = _reversed((c.id, c.is_a) for c in self)
        return tuple(self._kinds.get(self[concept_id].id, ()))

    def parts(self, concept_id: str) -> tuple[str, ...]:
        """Direct parts of the concept."""
        if self._parts is None:
            self._parts = _reversed((c.id, c.part_of) for c in self)
        return tuple(self._parts.get(self[concept_id].id, ()))

    def ancestors(self, concept_id: str) -> tuple[str, ...]:
        """Every concept above, nearest first, each once."""
        seen: dict[str, None] = {}
        level = self.parents(concept_id)
        while level:
            seen |= dict.fromkeys(level)
            above = (parent for child in level for parent in self.parents(child))
            level = tuple(dict.fromkeys(parent for parent in above if parent not in seen))
        return tuple(seen)

    def counterpart(self, concept_id: str) -> str | None:
        """The same structure on the other side, None where there is none."""
        concept = self[concept_id]
        if concept.side is None:
            return None
        return self.on_side(concept.base, "right" if concept.side == "left" else "left")

    def on_side(self, concept_id: str, side: Side) -> str | None:
        """The concept of this structure on one side, None where the tree has none."""
        sided = f"{self[concept_id].base}.{side}"
        return sided if sided in self._concepts else None

    def lookup(self, text: str) -> tuple[Concept, ...]:
        """Concepts with exactly this name, synonym or id, whatever its case and punctuation.

        Several mean that the text is ambiguous; none that the tree does not know it.
        """
        ids = self.names.get(normalise(text)) or ((text,) if text in self._concepts else ())
        return tuple(self._concepts[i] for i in ids)

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Normalised names and synonyms with the ids of the concepts that answer to them."""
        if self._names is None:
            held: dict[str, dict[str, None]] = defaultdict(dict)
            for concept in self:
                for name in (concept.name, *concept.synonyms):
                    held[normalise(name)][concept.id] = None
            self._names = {name: tuple(ids) for name, ids in held.items()}
        return self._names

    def leaves(self, concept_id: str, available: Collection[str]) -> tuple[str, ...]:
        """The available concepts whose union is exactly this one; empty if there are none.

        The concept itself if it is available, else the first of its partitions every member of
        which can be expressed. Nothing is ever approximated: with one kidney available, "kidney"
        has no answer.
        """
        return self._leaves(concept_id, frozenset(available), frozenset())

    def _leaves(
        self, concept_id: str, available: frozenset[str], path: frozenset[str]
    ) -> tuple[str, ...]:
        if concept_id in available:
            return (concept_id,)
        if concept_id in path:
            return ()
        path = path | {concept_id}
        for partition in self[concept_id].made_of:
            found = [self._leaves(member, available, path) for member in partition]
            if all(found):
                return tuple(dict.fromkeys(leaf for leaves in found for leaf in leaves))
        return ()

    def definition(self, concept_id: str) -> str:
        """The concept's own definition, or a sentence made from its relations."""
        concept = self[concept_id]
        if concept.definition:
            return concept.definition
        kinds = [self[i].name for i in concept.is_a if i != concept.base]
        wholes = [self[i].name for i in concept.part_of]
        if concept.side is not None:
            text = f"The {self[concept.base].name} of the {concept.side} side,"
        elif kinds:
            text = f"{_article(kinds[0])} {kinds[0]}"
        else:
            text = f"{_article(concept.kind)} {concept.kind}"
        return f"{text} in the {' and the '.join(wholes)}." if wholes else f"{text.rstrip(',')}."


def normalise(text: str) -> str:
    """Lower case, no accents, single spaces instead of punctuation: the key names are stored under.

    >>> normalise("Heschl's  Gyrus (left)")
    'heschls gyrus left'
    """
    # Most names are plain ASCII; the decomposition is only paid for where it can change anything.
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(text.lower().translate(_PUNCTUATION).split())


_PUNCTUATION = str.maketrans(dict.fromkeys("'’`", "") | dict.fromkeys('-_,;:()[]/\\"!?*', " "))


def _reversed(edges: Iterable[tuple[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Sources by target."""
    result: dict[str, list[str]] = defaultdict(list)
    for source, targets in edges:
        for target in targets:
            result[target].append(source)
    return result


def _article(noun: str) -> str:
    return "An" if noun[0] in "aeiou" else "A"


@cache
def load_tree(folder: Path | None = None) -> KnowledgeTree:
    """The knowledge tree in ``folder``, by default the one that comes with textseg.

    Raises:
        TreeError: A file that is not in the tree format, with its line.
    """
    files = tree_files(folder or data_folder("knowledge_tree"))
    return KnowledgeTree(expand(stanza for path in files for stanza in read_stanzas(path)))
