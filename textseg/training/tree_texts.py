"""Batches of texts from the knowledge tree for contrast: what means the same, and what must not.

Random batches alone teach little about what is easily confused, so a batch is made of families: a
concept beside its siblings (rib 3 beside rib 4) and its lesions, and a paired structure beside its
other side. Which pairs of rows are too close to be told apart comes from the tree.
"""

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lightning
import torch
from torch import Tensor

from textseg.knowledge import Concept, KnowledgeTree, load_tree, normalise
from textseg.network.queries import SIDES, strip_side, unsided_name

SIDE_TEMPLATES = ("{side} {text}", "{text}, {side}", "{text} on the {side}", "{side}-sided {text}")
"""How a side is said."""

_TEST_CONCEPTS = 20
_TEST_SYNONYMS = 8


@dataclass(frozen=True)
class Entry:
    """Texts of one structure without its side.

    Attributes:
        concept: The concept, unsided where it is one of a pair.
        names: Its name and synonyms, the name first.
        phrases: Its definition and sentences on its relations.
        paired: Whether it exists left and right.
    """

    concept: Concept
    names: tuple[str, ...]
    phrases: tuple[str, ...]
    paired: bool


def tree_entries(tree: KnowledgeTree) -> list[Entry]:
    """One entry for each structure, a left-right pair sharing one."""
    entries = []
    for concept in tree:
        if concept.side is not None and concept.base != concept.id:
            continue
        names: dict[str, str] = {}
        for name in (unsided_name(concept), *concept.synonyms):
            plain = strip_side(name, concept.side)
            names.setdefault(normalise(plain), plain)
        entries.append(
            Entry(
                concept=concept,
                names=tuple(names.values()),
                phrases=(tree.definition(concept.id), *_relation_phrases(concept, tree)),
                paired=tree.on_side(concept.id, "left") is not None,
            )
        )
    return entries


def _relation_phrases(concept: Concept, tree: KnowledgeTree) -> Iterator[str]:
    """What the tree says of a concept's place, without its name."""
    for words, ids in (
        ("part of the", concept.part_of),
        ("branch of the", concept.branch_of),
        ("supplies the", concept.supplies),
        ("drains the", concept.drains),
        ("lies in the", concept.site),
        ("touches the", concept.adjacent_to[:3]),
    ):
        if ids:
            yield f"{concept.kind}, {words} {' and the '.join(tree[i].name for i in ids)}"


@dataclass(frozen=True)
class TestTexts:
    """Texts kept from training, each with the number of the entry it belongs to.

    Attributes:
        synonyms: Of structures whose other texts are trained on.
        unseen: Synonyms of structures none of whose texts is trained on.
        definitions: Of those structures.
    """

    __test__ = False  # not a class of tests

    synonyms: tuple[tuple[str, int], ...]
    unseen: tuple[tuple[str, int], ...]
    definitions: tuple[tuple[str, int], ...]


def split_texts(entries: Sequence[Entry]) -> tuple[list[Entry | None], TestTexts]:
    """Entries to train on (``None`` for those held out whole), and the texts kept from them.

    Which is which follows from the texts alone, so it stays the same while the tree grows. A text
    that any other structure shares is never asked.
    """
    owners: dict[str, set[int]] = defaultdict(set)
    for number, entry in enumerate(entries):
        for text in (*entry.names, *entry.phrases):
            owners[normalise(text)].add(number)
    trained: list[Entry | None] = []
    synonyms, unseen, definitions = [], [], []
    for number, entry in enumerate(entries):
        own = [name for name in entry.names[1:] if owners[normalise(name)] == {number}]
        if _drawn(entry.concept.id, _TEST_CONCEPTS):
            trained.append(None)
            unseen += [(name, number) for name in own]
            if owners[normalise(entry.phrases[0])] == {number}:
                definitions.append((entry.phrases[0], number))
            continue
        kept = {name for name in own if _drawn(name, _TEST_SYNONYMS)}
        synonyms += [(name, number) for name in own if name in kept]
        names = tuple(name for name in entry.names if name not in kept)
        trained.append(Entry(entry.concept, names, entry.phrases, entry.paired))
    return trained, TestTexts(tuple(synonyms), tuple(unseen), tuple(definitions))


def _drawn(text: str, one_in: int) -> bool:
    return zlib.crc32(text.encode()) % one_in == 0


class TextBatch(NamedTuple):
    """Two texts of each of several structures, and which pairs of rows are no negatives.

    Attributes:
        anchors: One text per row.
        partners: Another text of the same structure and side.
        related: ``N N`` bool, pairs that are neither positive nor negative; true on the diagonal.
    """

    anchors: list[str]
    partners: list[str]
    related: Tensor


class TreeTexts(lightning.LightningDataModule):
    """Batches of families of the tree.

    Args:
        batch: Rows per batch.
        steps: Batches per epoch.
        seed: Seed of the choices.
        hold_out: Keep the test texts of ``split_texts`` from training.
        sided: Share of the paired structures that are asked for left and right.
    """

    def __init__(
        self,
        batch: int = 256,
        steps: int = 200,
        seed: int = 0,
        hold_out: bool = False,
        sided: float = 0.3,
    ) -> None:
        super().__init__()
        self.batch, self.steps, self.seed, self.sided = batch, steps, seed, sided
        tree = load_tree()
        entries = tree_entries(tree)
        self.entries = split_texts(entries)[0] if hold_out else entries
        self.numbers = [n for n, entry in enumerate(self.entries) if entry is not None]
        self.place = {entry.concept.id: n for n, entry in enumerate(entries)}
        self._families = _families(tree, self.place)
        self._relatives = _relatives(tree, self.place)

    def train_dataloader(self) -> Iterator[TextBatch]:
        """A new epoch of batches."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        chooser = random.Random(self.seed * 7919 + epoch)
        return _Repeat(self, chooser)  # type: ignore[return-value]

    def draw(self, chooser: random.Random) -> TextBatch:
        """One batch: structures with a few of their family, until it is full."""
        rows: list[tuple[int, str | None]] = []
        seen: set[int] = set()
        while len(rows) < self.batch and len(seen) < len(self.numbers):
            first = chooser.choice(self.numbers)
            family = self._families.get(first, ())
            for number in (first, *chooser.sample(family, min(3, len(family)))):
                entry = self.entries[number]
                if number not in seen and entry is not None:
                    seen.add(number)
                    asked = entry.paired and chooser.random() < self.sided
                    rows += [(number, side) for side in (SIDES[1:] if asked else (None,))]
        del rows[self.batch :]
        pairs = [self._two_texts(number, side, chooser) for number, side in rows]
        return TextBatch([a for a, _ in pairs], [b for _, b in pairs], self._related(rows))

    def are_related(self, number: int, other: int) -> bool:
        """Whether two entries are the same or too close to be told apart."""
        return number == other or other in self._relatives[number]

    def _two_texts(self, number: int, side: str | None, chooser: random.Random) -> tuple[str, str]:
        entry = self.entries[number]
        assert entry is not None
        anchor = entry.names[0] if chooser.random() < 0.5 else chooser.choice(entry.names)
        if side is not None:
            one, other = (chooser.choice(SIDE_TEMPLATES) for _ in range(2))
            partner = chooser.choice(entry.names)
            return one.format(side=side, text=anchor), other.format(side=side, text=partner)
        return anchor, any_text(entry, chooser)

    def _related(self, rows: Sequence[tuple[int, str | None]]) -> Tensor:
        """The other side is a negative; the pair as a whole, wholes and kinds are not."""
        related = torch.eye(len(rows), dtype=torch.bool)
        for i, (number, side) in enumerate(rows):
            near = self._relatives[number] | {number}
            for j, (other, its_side) in enumerate(rows[:i]):
                if other in near and not (side and its_side and side != its_side):
                    related[i, j] = related[j, i] = True
        return related


def any_text(entry: Entry, chooser: random.Random) -> str:
    """A name, or now and then a phrase, of a structure."""
    return chooser.choice(entry.phrases if chooser.random() < 0.25 else entry.names)


class _Repeat:
    """Iterable over an epoch's batches with a length, as the trainer wants."""

    def __init__(self, texts: TreeTexts, chooser: random.Random) -> None:
        self._texts, self._chooser = texts, chooser

    def __len__(self) -> int:
        return self._texts.steps

    def __iter__(self) -> Iterator[TextBatch]:
        for _ in range(self._texts.steps):
            yield self._texts.draw(self._chooser)


def _families(tree: KnowledgeTree, place: Mapping[str, int]) -> dict[int, tuple[int, ...]]:
    """What each entry is easily confused with: siblings by kind or whole, and lesions in it."""
    brood: dict[str, list[int]] = defaultdict(list)
    for concept_id, number in place.items():
        for parent in tree.parents(concept_id):
            brood[parent].append(number)
    families: dict[int, tuple[int, ...]] = {}
    for concept_id, number in place.items():
        near = {n for parent in tree.parents(concept_id) for n in brood[parent]}
        near |= {place[i] for i in tree[concept_id].contains if i in place}
        near |= {place[i] for i in tree.referring(concept_id, "site") if i in place}
        families[number] = tuple(sorted(near - {number}))
    return families


def _relatives(tree: KnowledgeTree, place: Mapping[str, int]) -> list[set[int]]:
    """Parents and children of each entry, which are no negatives of it; its lesions are."""
    relatives: list[set[int]] = [set() for _ in place]
    for concept_id, number in place.items():
        for parent in tree.parents(concept_id):
            lesion_and_site = _is_lesion(tree[concept_id]) != _is_lesion(tree[parent])
            if parent in place and not lesion_and_site:
                relatives[number].add(place[parent])
                relatives[place[parent]].add(number)
    return relatives


def _is_lesion(concept: Concept) -> bool:
    return concept.kind.startswith("lesion")
