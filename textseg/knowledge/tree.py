"""The anatomy tree: looks concepts up, walks their relations, and says which masks add up."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, TypeVar, get_args

from textseg.errors import UnknownConcept
from textseg.knowledge.adjacency import FILE_NAME, neighbours, read_contacts, unknown_ids
from textseg.knowledge.cache import CacheFile, Unpacked, find_cache, keep, pack
from textseg.knowledge.concept import Concept, Side
from textseg.knowledge.definitions import define
from textseg.knowledge.expansion import expand, missing_references
from textseg.knowledge.loading import Stanza, TreeError, read_stanzas, tree_error, tree_files
from textseg.resources import data_folder

Names = dict[str, tuple[str, ...]]
Relation = Literal["is_a", "part_of", "contains", "branch_of", "supplies", "drains", "site"]
Derived = TypeVar("Derived")


class KnowledgeTree:
    """Concepts by id, with their relations read in both directions.

    Args:
        concepts: Every concept by id. References are trusted; ``validate_tree`` checks them.
        core: The tree of which this one is an extension; a name that it knows keeps its meaning.
        cache: Where the concepts are kept.
    """

    def __init__(
        self,
        concepts: Mapping[str, Concept],
        *,
        core: KnowledgeTree | None = None,
        cache: CacheFile | None = None,
    ) -> None:
        self._concepts = concepts
        self._core = core
        self.cache = cache

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
    def core(self) -> KnowledgeTree:
        """The tree of which this one is an extension; itself if it is none."""
        return self if self._core is None else self._core

    def derived(
        self, name: str, make: Callable[[], Derived], *, sources: Iterable[Path] = ()
    ) -> Derived:
        """What ``make`` computes of this tree, from a file where the tree itself is kept in one.

        Args:
            name: What it is called, in the name of the file.
            make: Gives what ``marshal`` can write.
            sources: Files on which the result depends besides the tree's, its code among them.
        """
        return keep(self.cache and self.cache.beside(name, sources), make)

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
        return tuple(self._referring[relation].get(self[concept_id].id, ()))

    @cached_property
    def _referring(self) -> dict[str, dict[str, list[str]]]:
        return self.derived("referring", self._reverse_relations)

    def _reverse_relations(self) -> dict[str, dict[str, list[str]]]:
        return {
            relation: _reversed((c.id, getattr(c, relation)) for c in self)
            for relation in get_args(Relation)
        }

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

    @cached_property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Normalised names and synonyms with the ids of the concepts that answer to them."""
        return self.derived("names", self._collect_names)

    def _collect_names(self) -> Names:
        held: dict[str, dict[str, None]] = defaultdict(dict)
        for concept in self:
            for name in (concept.name, *concept.synonyms):
                held[normalise(name)][concept.id] = None
        names = {name: tuple(ids) for name, ids in held.items()}
        return names if self._core is None else {**names, **self._core.names}

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
    return dict(result)


@cache
def load_tree(folder: Path | None = None, extra: Path | None = None) -> KnowledgeTree:
    """The knowledge tree in ``folder``, by default the one that comes with textseg.

    Args:
        folder: A folder of ``*.tree`` files, at any depth.
        extra: Another one, whose concepts are added as ``extend_tree`` does.

    Raises:
        TreeError: A file that is not in the tree format, with its line.
    """
    if extra is not None:
        return extend_tree(load_tree(folder) if folder else load_tree(), tree_files(extra))
    folder = folder or data_folder("knowledge_tree")
    files, contacts = tree_files(folder), folder / FILE_NAME
    cache = find_cache((*files, *((contacts,) if contacts.is_file() else ())))
    packed = keep(cache, lambda: pack(_read_concepts(files, contacts)))
    return KnowledgeTree(Unpacked(packed), cache=cache)


def extend_tree(core: KnowledgeTree, files: Sequence[Path]) -> KnowledgeTree:
    """A tree with the concepts of further files, which may refer to those of ``core``.

    What ``core`` knows keeps its meaning: its names stay its own alone.

    Raises:
        TreeError: A file that is not in the tree format, that has the id of another concept, or
            that names one which does not exist, with its line.
    """
    cache = core.cache and core.cache.beside("extended", files)
    packed = keep(cache, lambda: pack([*core, *read_further(core, files)]))
    return KnowledgeTree(Unpacked(packed), core=core, cache=cache)


def complete_tree(tree: KnowledgeTree, file: Path) -> KnowledgeTree:
    """The tree with those concepts of a file that it lacks; itself if it lacks none.

    What the tree has counts as it is there, as long as it is the same structure: of one name, and
    on the sides on which the file has it.

    Raises:
        TreeError: As for ``extend_tree``, but for an id that means the same in both.
    """
    stanzas = read_stanzas(file)
    for stanza in stanzas:
        if stanza.id in tree and not _is_same(stanza, tree):
            other = tree[stanza.id].name
            raise TreeError(
                f"line {stanza.line}: [{stanza.id}] is another structure than the {other!r} known.",
                path=file,
                remedy="It is in a vocabulary of yours, see `textseg concepts vocabularies`, or "
                "came with another version of textseg.",
            )
    missing = [stanza for stanza in stanzas if stanza.id not in tree]
    if not missing:
        return tree
    cache = tree.cache and tree.cache.beside("completed", [file])
    packed = keep(cache, lambda: pack([*tree, *_further(tree, missing)]))
    return KnowledgeTree(Unpacked(packed), core=tree.core, cache=cache)


def _is_same(stanza: Stanza, tree: KnowledgeTree) -> bool:
    """Whether a stanza speaks of the structure that the tree has under its id."""
    named = normalise(stanza.texts.get("name", "")) == normalise(tree[stanza.id].name)
    return named and all(concept_id in tree for concept_id in stanza.ids)


def _read_concepts(files: Iterable[Path], contacts: Path) -> list[Concept]:
    """The concepts of the files, with those that touch them."""
    concepts = expand(stanza for path in files for stanza in read_stanzas(path))
    pairs = read_contacts(contacts)
    for error in unknown_ids(contacts, pairs, concepts):
        raise error
    for concept_id, touching in neighbours(pairs).items():
        concepts[concept_id] = replace(concepts[concept_id], adjacent_to=touching)
    return list(concepts.values())


def read_further(core: KnowledgeTree, files: Iterable[Path]) -> list[Concept]:
    """The concepts of files that extend a tree.

    Raises:
        TreeError: As for ``extend_tree``.
    """
    return _further(core, [stanza for path in files for stanza in read_stanzas(path)])


def _further(core: KnowledgeTree, stanzas: Sequence[Stanza]) -> list[Concept]:
    """The concepts of stanzas that extend a tree; nobody has looked at them one by one."""
    concepts = expand(stanzas, beside=core.ids)
    where = {stanza.id: stanza for stanza in stanzas}
    for base, cause in missing_references(concepts.values(), {*core.ids, *concepts}):
        raise tree_error(cause, where[base].path, where[base].line)
    return [replace(concept, curated=False) for concept in concepts.values()]
