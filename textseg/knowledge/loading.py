"""Reads the stanza files of ``knowledge_tree/``, and writes a stanza as it is read.

A file holds stanzas: a ``[concept_id]`` line, then ``key: value`` lines, lists separated by ``;``.
``[*]`` sets defaults for the stanzas below it. ``knowledge_tree/README.md`` describes every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from textseg.errors import ModelError
from textseg.knowledge.concept import Side

SIDES: tuple[Side, Side] = ("left", "right")
NAME_KEYS = ("synonyms", "latin", "lay", "british", "plurals", "abbreviations", "ambiguous")
RELATION_KEYS = ("is_a", "part_of", "contains", "branch_of", "supplies", "drains", "site")
_TEXTS = frozenset({"name", "kind", "region", "system", "definition"})
_LISTS = frozenset({*NAME_KEYS, *RELATION_KEYS, "adjectives", "xrefs", "sides"})
_SIDED = frozenset({"synonyms", "abbreviations", "ambiguous", "made_of", "xrefs", "volume_ml"})
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
    volumes_ml: dict[str, float] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which the structure exists as a concept of its own."""
        return self.lists.get("sides", ())

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the concepts that it stands for, the one without a side first."""
        return (self.id, *(f"{self.id}.{side}" for side in self.sides))

    @property
    def references(self) -> frozenset[str]:
        """The ids that it names, its own included if it does."""
        related = [ids for key, ids in self.lists.items() if key in RELATION_KEYS]
        members = [ids for partitions in self.partitions.values() for ids in partitions]
        return frozenset(i for ids in (*related, *members) for i in ids)

    def text(self) -> str:
        """The stanza as a file holds it, with the defaults that it was given written out."""
        lists = ((key, "; ".join(items)) for key, items in self.lists.items())
        partitions = (
            (_of_side("made_of", side), "; ".join(members))
            for side, several in self.partitions.items()
            for members in several
        )
        volumes = ((_of_side("volume_ml", side), f"{v!r}") for side, v in self.volumes_ml.items())
        pairs = (*self.texts.items(), *lists, *partitions, *volumes)
        return "".join((f"[{self.id}]\n", *(f"{key}: {value}\n" for key, value in pairs)))


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
        # some editors begin a file with a mark of its encoding
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TreeError(f"cannot be read: {error}", path=path) from error
    curated = path.parent.name != "imported"
    defaults: dict[str, str] = {}
    stanzas: list[Stanza] = []
    stanza: Stanza | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if line[:1] == "#" or not line.strip():
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
    if word == "volume_ml":
        stanza.volumes_ml[side] = _volume_ml(value, path, number)
        return
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


def _of_side(key: str, side: str) -> str:
    """The key that speaks of one side, or of none."""
    return f"{key}.{side}" if side else key


def _items(value: str, path: Path, number: int) -> tuple[str, ...]:
    """The parts of a ``;`` list."""
    items = tuple(part.strip() for part in value.split(";"))
    if not all(items):
        raise tree_error(f"an empty item in {value!r}", path, number)
    return items


def _volume_ml(value: str, path: Path, number: int) -> float:
    """A positive number of millilitres."""
    try:
        volume = float(value)
    except ValueError:
        volume = -1.0
    if not 0 < volume < 1e6:
        raise tree_error(f"{value!r} is no volume in ml", path, number)
    return volume
