"""Writes a tree for other programs: as JSON, and as an OBO file for ontology tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from textseg.knowledge.concept import Concept
from textseg.knowledge.tree import KnowledgeTree

_PREFIX = "TEXTSEG:"
_SCOPES = (
    ("ambiguous", "BROAD"),
    ("abbreviations", "EXACT abbreviation"),
    ("latin", "EXACT latin"),
    ("lay", "EXACT layperson"),
    ("british", "EXACT british"),
    ("plurals", "EXACT plural"),
)
_RELATIONS = ("part_of", "branch_of", "supplies", "drains", "contains", "site", "adjacent_to")
_TYPES = ("abbreviation", "latin", "layperson", "british", "plural", "adjective")


def to_json(tree: KnowledgeTree) -> list[dict[str, Any]]:
    """Every concept with its definition, in JSON's own types."""
    return [{**asdict(concept), "definition": tree.definition(concept.id)} for concept in tree]


def to_obo(tree: KnowledgeTree, *, version: str) -> str:
    """The tree in OBO 1.4, ids written as ``TEXTSEG:kidney.left``.

    Args:
        tree: The tree.
        version: What to state as the version of the data.
    """
    head = [
        "format-version: 1.4",
        f"data-version: {version}",
        "ontology: textseg",
        *(f'synonymtypedef: {name} "{name}"' for name in _TYPES),
    ]
    terms = ["\n".join(_term(tree, concept)) for concept in tree]
    types = [f"[Typedef]\nid: {name}\nname: {name.replace('_', ' ')}" for name in _RELATIONS]
    return "\n\n".join(["\n".join(head), *terms, *types]) + "\n"


def _term(tree: KnowledgeTree, concept: Concept) -> Iterator[str]:
    """The lines of one term."""
    yield "[Term]"
    yield f"id: {_PREFIX}{concept.id}"
    yield f"name: {_escaped(concept.name)}"
    yield f'def: "{_quoted(tree.definition(concept.id))}" []'
    for word in dict.fromkeys((concept.kind, concept.region, concept.system)):
        yield f"subset: {word.replace(' ', '_')}"
    yield from _synonyms(concept)
    yield from (f"xref: {xref}" for xref in concept.xrefs)
    yield from _links("is_a: ", tree, concept.is_a)
    for relation in _RELATIONS:
        yield from _links(f"relationship: {relation} ", tree, getattr(concept, relation))


def _synonyms(concept: Concept) -> Iterator[str]:
    scopes = {name: scope for key, scope in _SCOPES for name in getattr(concept, key)}
    for name in concept.synonyms:
        yield f'synonym: "{_quoted(name)}" {scopes.get(name, "EXACT")} []'
    for name in concept.adjectives:
        yield f'synonym: "{_quoted(name)}" RELATED adjective []'


def _links(start: str, tree: KnowledgeTree, ids: Iterable[str]) -> Iterator[str]:
    for other in ids:
        yield f"{start}{_PREFIX}{other} ! {_escaped(tree[other].name)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("{", "\\{").replace("!", "\\!")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
