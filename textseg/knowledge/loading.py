"""Reads the stanza files of ``knowledge_tree/`` and spells out their left and right concepts.

A file holds stanzas: a ``[concept_id]`` line, then ``key: value`` lines, lists separated by ``;``.
``[*]`` sets defaults for the stanzas below it. ``knowledge_tree/README.md`` describes every key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from textseg.errors import ModelError
from textseg.knowledge.concept import Concept, Side

SIDES: tuple[Side, Side] = ("left", "right")
_TEXTS = frozenset({"name", "kind", "region", "system", "definition"})
_NAMES = ("synonyms", "latin", "lay", "abbreviations", "ambiguous")
_LISTS = frozenset({*_NAMES, "is_a", "part_of", "contains", "xrefs", "sides"})
_SIDED = frozenset({"synonyms", "abbreviations", "ambiguous", "made_of", "xrefs"})
_DEFAULTS = frozenset({"kind", "region", "system"})
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.")


@dataclass(slots=True)
class Stanza:
    """One stanza as written: where it stands and what each key holds."""

    id: str
    path: Path
    line: int
    curated: bool
    texts: dict[str, str]
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    partitions: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which the structure exists as a concept of its own."""
        return self.lists.get("sides", ())


class TreeError(ModelError):
    """A knowledge tree that cannot be trusted; says which file and line is wrong."""

    default_code = "E702"


def tree_error(cause: str, path: Path, line: int) -> TreeError:
    """The error for ``cause`` at a line of a tree file."""
    return TreeError(f"line {line}: {cause}", path=path, remedy="Correct the stanza.")


def tree_files(folder: Path) -> tuple[Path, ...]:
    """Every ``*.tree`` file under ``folder``, in a fixed order."""
    files = tuple(sorted(folder.rglob("*.tree")))
    if not files:
        raise TreeError("no *.tree file in this folder", path=folder, remedy="Check the path.")
    return files


def read_stanzas(path: Path) -> list[Stanza]:
    """The stanzas of one file, in order."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TreeError(f"cannot be read: {error}", path=path) from error
    curated = path.parent.name != "imported"
    defaults: dict[str, str] = {}
    stanzas: list[Stanza] = []
    stanza: Stanza | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line[0] == "#":
            continue
        if line[0] == "[":
            stanza = _open_stanza(line, path, number, curated=curated, defaults=defaults)
            if stanza.id == "*":
                defaults = stanza.texts
            else:
                stanzas.append(stanza)
        elif stanza is None:
            raise tree_error(f"{line!r} stands before the first [concept]", path, number)
        else:
            _read_line(line, stanza, path, number)
    return stanzas


def _open_stanza(
    line: str, path: Path, number: int, *, curated: bool, defaults: Mapping[str, str]
) -> Stanza:
    """An empty stanza for a ``[concept_id]`` line."""
    concept_id = line.strip()[1:-1]
    if line.rstrip()[-1] != "]" or not (concept_id == "*" or _ID_CHARACTERS.issuperset(concept_id)):
        raise tree_error(
            f"{line!r} is not [concept_id] in lower case, digits, _ and .", path, number
        )
    if not concept_id:
        raise tree_error("the concept has no id", path, number)
    return Stanza(concept_id, path, number, curated, dict(defaults))


def _read_line(line: str, stanza: Stanza, path: Path, number: int) -> None:
    """Stores one ``key: value`` line in its stanza."""
    key, colon, value = line.partition(": ")
    value = value.strip()
    if not colon or not value:
        raise tree_error(f"{line!r} is not 'key: value'", path, number)
    if stanza.id == "*" and key not in _DEFAULTS:
        raise tree_error(f"[*] cannot set {key!r}, only {sorted(_DEFAULTS)}", path, number)
    if key in _TEXTS:
        stanza.texts[key] = value
        return
    word, _, side = key.partition(".")
    if side and (word not in _SIDED or side not in SIDES):
        raise tree_error(f"unknown key {key!r}", path, number)
    items = _items(value, path, number)
    if word == "made_of":
        stanza.partitions.setdefault(side, []).append(items)
    elif word not in _LISTS:
        raise tree_error(f"unknown key {key!r}", path, number)
    elif key in stanza.lists:
        raise tree_error(f"{key!r} is given twice", path, number)
    elif word == "sides" and not set(items) <= set(SIDES):
        raise tree_error(f"sides are left and right, not {value!r}", path, number)
    else:
        stanza.lists[key] = items


def _items(value: str, path: Path, number: int) -> tuple[str, ...]:
    """The parts of a ``;`` list."""
    items = tuple(part.strip() for part in value.split(";"))
    if not all(items):
        raise tree_error(f"an empty item in {value!r}", path, number)
    return items


def expand(stanzas: Iterable[Stanza]) -> dict[str, Concept]:
    """The concepts the stanzas stand for, with one more per side for those that have sides.

    Raises:
        TreeError: A stanza without a name, or two concepts with one id.
    """
    stanzas = list(stanzas)
    sides = {stanza.id: stanza.sides for stanza in stanzas}
    shared = _shared_sided(stanzas)
    concepts: dict[str, Concept] = {}
    for stanza in stanzas:
        if "name" not in stanza.texts:
            raise tree_error(f"[{stanza.id}] has no name", stanza.path, stanza.line)
        base = _base_concept(stanza)
        halves = (_sided(base, stanza, side, sides, shared) for side in stanza.sides)
        for concept in (base, *halves):
            if concept.id in concepts:
                raise tree_error(f"a second concept {concept.id!r}", stanza.path, stanza.line)
            concepts[concept.id] = concept
    return concepts


def _base_concept(stanza: Stanza) -> Concept:
    """The concept of a stanza without regard to side."""
    lists, texts = stanza.lists, stanza.texts
    partitions = [tuple(f"{stanza.id}.{side}" for side in stanza.sides)] if stanza.sides else []
    partitions += stanza.partitions.get("", ())
    return Concept(
        id=stanza.id,
        name=texts["name"],
        synonyms=_unique(lists.get(key, ()) for key in _NAMES),
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
    sides: Mapping[str, tuple[str, ...]],
    shared: Collection[str],
) -> Concept:
    """The left or right concept of ``base``, related to the same side of what has sides."""
    lists = stanza.lists

    def sided_id(other: str) -> str | None:
        return f"{other}.{side}" if side in sides.get(other, ()) else None

    own = [lists.get(f"{key}.{side}", ()) for key in ("synonyms", "abbreviations", "ambiguous")]
    inherited = tuple(f"{side} {synonym}" for synonym in base.synonyms)
    ambiguous = (f"{side} {name}" for name in base.ambiguous)
    return Concept(
        id=f"{base.id}.{side}",
        name=f"{side} {base.name}",
        synonyms=_unique((*own, inherited)),
        is_a=(base.id, *_mapped(base.is_a, sided_id)),
        part_of=tuple(sided_id(other) or other for other in base.part_of),
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
