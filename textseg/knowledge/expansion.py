"""Spells the stanzas of a tree out into concepts, one more per side for those that have sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from typing import Any

from textseg.knowledge.concept import Concept
from textseg.knowledge.loading import NAME_KEYS, RELATION_KEYS, Stanza, tree_error

_SUBSETS = ("latin", "lay", "british")
_MAPPED_OR_KEPT = ("part_of", "branch_of", "supplies", "drains", "site")
_LESIONS = frozenset({"lesion", "lesion part"})


def expand(stanzas: Iterable[Stanza], *, beside: Iterable[str] = ()) -> dict[str, Concept]:
    """The concepts the stanzas stand for, with one more per side for those that have sides.

    Args:
        stanzas: In the order of the result.
        beside: Ids of concepts that are there already, to which the stanzas may refer.

    Raises:
        TreeError: A stanza without a name, or two concepts with one id.
    """
    stanzas = list(stanzas)
    others = frozenset(beside)
    known = others.union(f"{stanza.id}.{side}" for stanza in stanzas for side in stanza.sides)
    shared = _shared_sided(stanzas)
    concepts: dict[str, Concept] = {}
    for stanza in stanzas:
        if "name" not in stanza.texts:
            raise tree_error(f"[{stanza.id}] has no name", stanza.path, stanza.line)
        base = _base_concept(stanza)
        sided = (_sided(base, stanza, side, known, shared) for side in stanza.sides)
        for concept in (base, *sided):
            if concept.id in concepts or concept.id in others:
                raise tree_error(f"a second concept {concept.id!r}", stanza.path, stanza.line)
            concepts[concept.id] = concept
    return concepts


def missing_references(
    concepts: Iterable[Concept], known: Container[str]
) -> Iterator[tuple[str, str]]:
    """The base of each concept that names an unknown one, and what is wrong."""
    for concept in concepts:
        groups: dict[str, tuple[str, ...]] = {key: getattr(concept, key) for key in RELATION_KEYS}
        groups["made_of"] = tuple(i for members in concept.made_of for i in members)
        for key, ids in groups.items():
            for other in ids:
                if other not in known:
                    yield concept.base, f"{concept.id}: {key} names {other!r}, which does not exist"


def _base_concept(stanza: Stanza) -> Concept:
    """The concept of a stanza without regard to side."""
    lists, texts = stanza.lists, stanza.texts
    partitions = [tuple(f"{stanza.id}.{side}" for side in stanza.sides)] if stanza.sides else []
    partitions += stanza.partitions.get("", ())
    lesion = texts.get("kind") in _LESIONS
    return Concept(
        id=stanza.id,
        name=texts["name"],
        synonyms=_unique(lists.get(key, ()) for key in NAME_KEYS),
        is_a=lists.get("is_a", ()),
        part_of=lists.get("part_of", ()),
        side=None,
        kind=texts.get("kind", "organ"),
        region=texts.get("region", "whole_body"),
        system=texts.get("system", "multi"),
        xrefs=lists.get("xrefs", ()),
        definition=texts.get("definition", ""),
        abbreviations=lists.get("abbreviations", ()),
        ambiguous=lists.get("ambiguous", ()),
        made_of=tuple(partitions),
        contains=lists.get("contains", ()),
        base=stanza.id,
        curated=stanza.curated,
        plurals=lists.get("plurals", ()),
        adjectives=lists.get("adjectives", ()),
        branch_of=lists.get("branch_of", ()),
        supplies=lists.get("supplies", ()),
        drains=lists.get("drains", ()),
        site=lists.get("site", lists.get("part_of", ()) if lesion else ()),
        volume_ml=stanza.volumes_ml.get(""),
        **{key: lists.get(key, ()) for key in _SUBSETS},
    )


def _shared_sided(stanzas: Iterable[Stanza]) -> frozenset[str]:
    """Ambiguous names that stay ambiguous with a side before them.

    "Cortex" may be brain, kidney or adrenal, and so may "left cortex"; but of the things called
    "ventricles" by themselves one alone has a right.
    """
    counts = Counter(
        f"{side} {name.lower()}"
        for stanza in stanzas
        for side in stanza.sides
        for name in stanza.lists.get("ambiguous", ())
    )
    return frozenset(name for name, count in counts.items() if count > 1)


def _sided(
    base: Concept,
    stanza: Stanza,
    side: str,
    known: Container[str],
    shared: Collection[str],
) -> Concept:
    """The left or right concept of ``base``, related to the same side of what has sides."""
    lists = stanza.lists

    def sided_id(other: str) -> str | None:
        return sided if (sided := f"{other}.{side}") in known else None

    own = [lists.get(f"{key}.{side}", ()) for key in ("synonyms", "abbreviations", "ambiguous")]
    plurals = set(base.plurals)
    inherited = tuple(f"{side} {name}" for name in base.synonyms if name not in plurals)
    ambiguous = (f"{side} {name}" for name in base.ambiguous)
    relations: dict[str, Any] = {
        key: tuple(sided_id(other) or other for other in ids)
        for key in _MAPPED_OR_KEPT
        if (ids := getattr(base, key))
    }
    subsets: dict[str, Any] = {
        key: tuple(f"{side} {name}" for name in names)
        for key in _SUBSETS
        if (names := getattr(base, key))
    }
    both = stanza.volumes_ml.get("")
    return Concept(
        id=f"{base.id}.{side}",
        name=f"{side} {base.name}",
        synonyms=_unique((*own, inherited)),
        is_a=(base.id, *_mapped(base.is_a, sided_id)),
        side="left" if side == "left" else "right",
        kind=base.kind,
        region=base.region,
        system=base.system,
        xrefs=lists.get(f"xrefs.{side}", ()),
        abbreviations=(*own[1], *(f"{side} {short}" for short in base.abbreviations)),
        ambiguous=(*own[2], *(name for name in ambiguous if name.lower() in shared)),
        made_of=tuple(_sided_partitions(stanza, side, sided_id)),
        contains=tuple(_mapped(base.contains, sided_id)),
        base=base.id,
        curated=base.curated,
        volume_ml=stanza.volumes_ml.get(side, both and both / len(stanza.sides)),
        **relations,
        **subsets,
    )


def _sided_partitions(
    stanza: Stanza, side: str, sided_id: Callable[[str], str | None]
) -> Iterable[tuple[str, ...]]:
    """The partitions of one side: those written for it, then the unsided ones that carry over."""
    yield from stanza.partitions.get(side, ())
    for partition in stanza.partitions.get("", ()):
        members = tuple(_mapped(partition, sided_id))
        # A midline member belongs to neither half, so such a partition says nothing of one side.
        if len(members) == len(partition):
            yield members


def _mapped(ids: Iterable[str], sided_id: Callable[[str], str | None]) -> Iterable[str]:
    """The sided ids of those concepts that have the side."""
    return (sided for other in ids if (sided := sided_id(other)) is not None)


def _unique(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """All items once, in order of first appearance."""
    return tuple(dict.fromkeys(item for group in groups for item in group))
