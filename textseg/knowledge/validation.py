"""Checks a knowledge tree as a whole and names the file and line of every fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from textseg.knowledge.adjacency import FILE_NAME as CONTACTS
from textseg.knowledge.adjacency import read_contacts, unknown_ids
from textseg.knowledge.classes import FILE_NAME as CLASSES
from textseg.knowledge.classes import load_classes
from textseg.knowledge.concept import Concept
from textseg.knowledge.expansion import expand, missing_references
from textseg.knowledge.loading import (
    SIDES,
    Stanza,
    TreeError,
    read_stanzas,
    tree_files,
)
from textseg.knowledge.tree import normalise
from textseg.resources import data_folder


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong with the tree.

    Attributes:
        path: The file.
        line: Line of the stanza, 1-based.
        cause: What is wrong.
    """

    path: Path
    line: int
    cause: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.cause}"


def validate_tree(folder: Path | None = None, extra: Path | None = None) -> tuple[Fault, ...]:
    """Every fault of the tree in ``folder`` and ``extra``, in file order; empty for a sound tree.

    Checked: format, unique ids, references that exist, no concept above itself, partitions that
    do not contain themselves, no vessel that branches from itself, sides, and names shared by
    several concepts, each of which must list the name under ``ambiguous`` (the one concept whose
    own name it is need not); then the ids in the tables of classes and of contacts.
    """
    folder = folder or data_folder("knowledge_tree")
    stanzas: list[Stanza] = []
    faults: list[Fault] = []
    for path in (*tree_files(folder), *(tree_files(extra) if extra else ())):
        try:
            stanzas += read_stanzas(path)
        except TreeError as error:
            faults.append(_from_error(error, path))
    faults += _duplicates(stanzas)
    if faults:
        return tuple(sorted(faults))
    try:
        concepts = expand(stanzas)
    except TreeError as error:
        return (_from_error(error, error.path or Path()),)
    where = {stanza.id: stanza for stanza in stanzas}
    causes = concept_faults(concepts)
    faults = [Fault(where[base].path, where[base].line, cause) for base, cause in causes]
    faults += _table_faults(folder, concepts)
    return tuple(sorted(set(faults)))


def concept_faults(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """What is wrong with the concepts as a whole: the base of the one at fault, and the cause."""
    for check in (_references, _cycles, _own_parts, _own_branches, _shared_names, _sides):
        yield from check(concepts)


def _table_faults(folder: Path, concepts: Mapping[str, Concept]) -> Iterator[Fault]:
    """What is wrong with the tables beside the tree files, if they are there."""
    classes, contacts = folder / CLASSES, folder / CONTACTS
    try:
        errors = unknown_ids(contacts, read_contacts(contacts), concepts)
        yield from (_from_error(error, contacts) for error in errors)
        if classes.is_file():
            for line, label in enumerate(load_classes(classes).values(), start=2):
                for other in set(label.concepts).difference(concepts):
                    yield Fault(
                        classes, line, f"{label.name} names {other!r}, which does not exist"
                    )
    except TreeError as error:
        yield _from_error(error, error.path or folder)


def _from_error(error: TreeError, path: Path) -> Fault:
    """The fault behind an error that stopped the reading of a file."""
    line, _, cause = error.cause.removeprefix("line ").partition(": ")
    return Fault(path, int(line), cause) if line.isdigit() else Fault(path, 1, error.cause)


def _duplicates(stanzas: Iterable[Stanza]) -> Iterator[Fault]:
    """Ids that two stanzas claim, with the place of the first."""
    first: dict[str, Stanza] = {}
    for stanza in stanzas:
        for concept_id in (stanza.id, *(f"{stanza.id}.{side}" for side in stanza.sides)):
            other = first.setdefault(concept_id, stanza)
            if other is not stanza:
                place = f"{other.path.name}:{other.line}"
                yield Fault(stanza.path, stanza.line, f"{concept_id!r} is already at {place}")


def _references(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """References to concepts that do not exist."""
    return missing_references(concepts.values(), concepts)


def _cycles(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """Concepts above themselves along is_a and part_of."""
    edges = {c.id: (*c.is_a, *c.part_of) for c in concepts.values()}
    yield from _loops(edges, concepts, "is above itself")


def _own_parts(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """Partitions and containments that lead back to the concept they describe."""
    edges = {
        c.id: (*(i for members in c.made_of for i in members), *c.contains)
        for c in concepts.values()
    }
    yield from _loops(edges, concepts, "is made of itself")


def _own_branches(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """Vessels and nerves that lead back to themselves."""
    yield from _loops(
        {c.id: c.branch_of for c in concepts.values()}, concepts, "branches off itself"
    )


def _loops(
    edges: Mapping[str, tuple[str, ...]], concepts: Mapping[str, Concept], cause: str
) -> Iterator[tuple[str, str]]:
    """One report per loop in a directed graph, found by depth-first search without recursion."""
    done: set[str] = set()
    for start in edges:
        path: dict[str, Iterator[str]] = {}
        node = start
        while node:
            if node not in path:
                path[node] = iter(edges.get(node, ()))
            step = next((n for n in path[node] if n not in done), None)
            if step is None:
                done.add(node)
                del path[node]
                node = next(reversed(path), "")
            elif step in path:
                trail = list(path)
                loop = " -> ".join([*trail[trail.index(step) :], step])
                yield concepts[step].base, f"{step} {cause}: {loop}"
            else:
                node = step


def _shared_names(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """Names that several concepts answer to although not all of them say so, and the reverse."""
    holders: dict[str, list[Concept]] = defaultdict(list)
    for concept in concepts.values():
        for name in {normalise(text) for text in (concept.name, *concept.synonyms)}:
            holders[name].append(concept)
    for name, held in holders.items():
        declared = [c for c in held if name in {normalise(text) for text in c.ambiguous}]
        silent = [c for c in held if c not in declared]
        others = ", ".join(c.id for c in held)
        if len(held) == 1 and declared:
            yield held[0].base, f"{name!r} is listed as ambiguous but only {held[0].id} has it"
        elif len(held) > 1 and silent and [normalise(c.name) for c in silent] != [name]:
            for concept in silent:
                yield concept.base, f"{name!r} is shared by {others} but not listed as ambiguous"


def _sides(concepts: Mapping[str, Concept]) -> Iterator[tuple[str, str]]:
    """Ids and names that speak of a side the concept does not have."""
    for concept in concepts.values():
        if concept.side is None and concept.id.rpartition(".")[2] in SIDES:
            yield concept.base, f"{concept.id} names a side; write `sides:` on the base concept"
        if concept.side is None and normalise(concept.name).split()[0] in SIDES:
            yield concept.base, f"{concept.id} is called {concept.name!r} but has no side"
