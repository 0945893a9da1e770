"""Reads a tree file of one's own, which may add to the tree and takes nothing away from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from textseg.errors import InputError
from textseg.knowledge.concept import Concept
from textseg.knowledge.loading import Stanza, TreeError, read_stanzas
from textseg.knowledge.tree import KnowledgeTree, normalise, read_further
from textseg.knowledge.validation import concept_faults


def read_own_stanzas(path: Path, tree: KnowledgeTree) -> list[Stanza]:
    """The stanzas of a tree file, which together with the tree make a sound one.

    Raises:
        InputError: E303, the file is not in the tree format, has an id or a name of the tree, or
            makes no sound tree; with the line. Or it has no stanza.
    """
    try:
        stanzas = read_stanzas(path)
        for line, cause in _taken_ids(stanzas, tree):
            raise _error(f"line {line}: {cause}", path, remedy=_OWN_WORD)
        concepts = read_further(tree, [path])
    except TreeError as error:
        raise _error(f"{error.cause}.", path) from error
    if not stanzas:
        raise _error("has no stanza.", path, remedy="Begin one with [lab.electrode] or the like.")
    lines = {stanza.id: stanza.line for stanza in stanzas}
    for base, cause in _taken_names(concepts, tree):
        remedy = "Leave the name out, or ask for the concept that has it."
        raise _error(f"line {lines[base]}: {cause}", path, remedy=remedy)
    everything = {concept.id: concept for concept in (*tree, *concepts)}
    for base, cause in concept_faults(everything):
        if base in lines:
            raise _error(f"line {lines[base]}: {cause}.", path)
    return stanzas


_OWN_WORD = "Choose another, best one that begins with a word of your own, as lab.electrode does."


def _taken_ids(stanzas: Sequence[Stanza], tree: KnowledgeTree) -> Iterator[tuple[int, str]]:
    """Lines with an id that the tree has."""
    for stanza in stanzas:
        for concept_id in stanza.ids:
            if concept_id in tree:
                yield stanza.line, f"{concept_id!r} is the id of {tree[concept_id].name} already."


def _taken_names(concepts: Sequence[Concept], tree: KnowledgeTree) -> Iterator[tuple[str, str]]:
    """The base of each concept with a name that the tree has; it would never be asked for by it."""
    for concept in concepts:
        for name in (concept.name, *concept.synonyms):
            for other in tree.names.get(normalise(name), ()):
                yield concept.base, f"{name!r} is a name of {other} already."


def _error(cause: str, path: Path, *, remedy: str = "Correct the stanza.") -> InputError:
    return InputError(cause, code="E303", path=path, remedy=remedy)
