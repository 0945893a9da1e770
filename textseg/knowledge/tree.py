"""The anatomy tree: looks concepts up, walks their relations, and says which masks add up."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from textseg.errors import UnknownConcept
from textseg.knowledge.adjacency import FILE_NAME, neighbours, read_contacts, unknown_ids
from textseg.knowledge.cache import Names, find_cache, unpack_names
from textseg.knowledge.concept import Concept, Side
from textseg.knowledge.definitions import define
from textseg.knowledge.expansion import expand
from textseg.knowledge.loading import TreeError, read_stanzas, tree_files
from textseg.resources import data_folder

Relation = Literal["is_a", "part_of", "contains", "branch_of", "supplies", "drains", "site"]


class KnowledgeTree:
    """Concepts by id, with their relations read in both directions.

    Args:
        concepts: Every concept by id. References are trusted; ``validate_tree`` checks them.
        names: Gives what ``names`` would be collected to, where that is known already.
    """

    def __init__(
        self, concepts: Mapping[str, Concept], *, names: Callable[[], Names] | None = None
    ) -> None:
        self._concepts = dict(concepts)
        self._read_names = names or self._collect_names
        self._referring: dict[str, Mapping[str, Sequence[str]]] = {}
        self._names: Names | None = None

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
        return self.referring(concept_id, "is_a")

    def parts(self, concept_id: str) -> tuple[str, ...]:
        """Direct parts of the concept."""
        return self.referring(concept_id, "part_of")

    def referring(self, concept_id: str, relation: Relation) -> tuple[str, ...]:
        """Concepts that name this one under a relation, as arteries do what they supply."""
        if relation not in self._referring:
            self._referring[relation] = _reversed((c.id, getattr(c, relation)) for c in self)
        return tuple(self._referring[relation].get(self[concept_id].id, ()))

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
    def names(self) -> Names:
        """Normalised names and synonyms with the ids of the concepts that answer to them."""
        if self._names is None:
            self._names = self._read_names()
        return self._names

    def _collect_names(self) -> Names:
        held: dict[str, dict[str, None]] = defaultdict(dict)
        for concept in self:
            for name in (concept.name, *concept.synonyms):
                held[normalise(name)][concept.id] = None
        return {name: tuple(ids) for name, ids in held.items()}

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
        return define(self[concept_id], self._concepts)


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


@cache
def load_tree(folder: Path | None = None, extra: Path | None = None) -> KnowledgeTree:
    """The knowledge tree in ``folder``, by default the one that comes with textseg.

    Args:
        folder: A folder of ``*.tree`` files, at any depth.
        extra: Another one, whose concepts are added and may refer to those of the first.

    Raises:
        TreeError: A file that is not in the tree format, with its line.
    """
    folder = folder or data_folder("knowledge_tree")
    files = (*tree_files(folder), *(tree_files(extra) if extra else ()))
    contacts = folder / FILE_NAME
    try:
        kept = find_cache((*files, *((contacts,) if contacts.is_file() else ())))
    except OSError as error:
        raise TreeError(f"cannot be read: {error}", path=folder) from error
    if kept and (found := kept.read()):
        concepts, packed = found
        return KnowledgeTree(concepts, names=lambda: unpack_names(packed))
    tree = KnowledgeTree(_read_concepts(files, contacts))
    if kept:
        kept.write(tree, lambda: tree.names)
    return tree


def _read_concepts(files: Iterable[Path], contacts: Path) -> dict[str, Concept]:
    """The concepts of the files, with those that touch them."""
    concepts = expand(stanza for path in files for stanza in read_stanzas(path))
    pairs = read_contacts(contacts)
    for error in unknown_ids(contacts, pairs, concepts):
        raise error
    for concept_id, touching in neighbours(pairs).items():
        concepts[concept_id] = replace(concepts[concept_id], adjacent_to=touching)
    return concepts
