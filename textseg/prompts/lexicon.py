"""An index of every name in the tree by its words and side, so that word order does not matter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from textseg.knowledge import Concept, KnowledgeTree
from textseg.prompts.wording import STOP_WORDS, Phrase, normalise, parse


class Index(NamedTuple):
    """What is looked up in a lexicon.

    Attributes:
        found: Ids by the words and side of a name.
        alike: Names without side and filler, by first letter and number of spaces.
        joined: Names of several words, by what they are when written as one.
        words: All words of all names.
        lesions: Ids of every lesion.
    """

    found: dict[str, tuple[str, ...]]
    alike: dict[tuple[str, int], list[str]]
    joined: dict[str, str]
    words: frozenset[str]
    lesions: tuple[str, ...]


class Lexicon:
    """Names of a tree, found by the words they hold; built when first asked.

    Args:
        tree: The knowledge tree to index; names and synonyms are read once.
    """

    def __init__(self, tree: KnowledgeTree) -> None:
        self._tree = tree

    @cached_property
    def _index(self) -> Index:
        code = Path(__file__).parent.glob("*.py")
        return Index(*self._tree.derived("words", self._build, sources=code))

    def _build(self) -> tuple[Any, ...]:
        """The fields of the index."""
        found: dict[str, tuple[str, ...]] = {}
        alike: dict[tuple[str, int], list[str]] = {}
        words: set[str] = set()
        texts = self._texts()
        for text, ids in texts.items():
            phrase = parse(text)
            words.update(phrase.words)
            found[_key(phrase)] = tuple(dict.fromkeys((*found.get(_key(phrase), ()), *ids)))
            if phrase.side is None:
                bare = " ".join(word for word in text.split() if word not in STOP_WORDS)
                alike.setdefault((bare[:1], bare.count(" ")), []).append(bare)
        joined = {text.replace(" ", ""): text for text in texts if " " in text}
        lesions = tuple(concept.id for concept in self._tree if concept.kind == "lesion")
        return found, alike, joined, frozenset(words), lesions

    def _texts(self) -> dict[str, tuple[str, ...]]:
        """Normalised names with their ids."""
        texts: dict[str, tuple[str, ...]] = {}
        for concept in self._tree:
            for name in self._own_names(concept):
                text = normalise(name)
                texts[text] = (*texts.get(text, ()), concept.id)
        return texts

    def _own_names(self, concept: Concept) -> Iterator[str]:
        """The names of a concept, less those that only repeat its base's with the side before."""
        yield concept.name
        inherited: set[str] = set()
        if concept.side is not None and concept.base in self._tree:
            base = self._tree[concept.base]
            inherited = {f"{concept.side} {name}" for name in (base.name, *base.synonyms)}
        for synonym in concept.synonyms:
            if synonym not in inherited:
                yield synonym

    @property
    def lesions(self) -> tuple[str, ...]:
        """Ids of every lesion in the tree."""
        return self._index.lesions

    def written_apart(self, joined: str) -> str | None:
        """The name of several words that this is when they are written as one."""
        return self._index.joined.get(joined)

    def is_word(self, word: str) -> bool:
        """Whether any name holds this word."""
        return word in self._index.words

    def find(self, phrase: Phrase) -> tuple[str, ...]:
        """Ids the phrase may stand for; several when it is ambiguous.

        Without a side, a structure that exists only as left and right is not found here.
        """
        return self._index.found.get(_key(phrase), ())

    def named(self, name: str) -> tuple[str, ...]:
        """Ids that answer to a name as a user may type it."""
        return self.find(parse(normalise(name)))

    def alike(self, text: str) -> list[str]:
        """Known names without side and filler, of the same first letter and number of words."""
        return self._index.alike.get((text[:1], text.count(" ")), [])


def _key(phrase: Phrase) -> str:
    return " ".join((*phrase.words, f"({phrase.side})"))


@lru_cache(maxsize=4)
def lexicon_of(tree: KnowledgeTree) -> Lexicon:
    """The index of a tree, built once."""
    return Lexicon(tree)
