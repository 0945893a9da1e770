"""An index of every name in the tree by its words and side, so that word order does not matter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

from textseg.knowledge import Concept, KnowledgeTree
from textseg.prompts.wording import STOP_WORDS, Phrase, Side, normalise, parse

Words = tuple[str, ...]


class Lexicon:
    """Names of a tree, found by the words they hold; built when first asked.

    Args:
        tree: The knowledge tree to index; names and synonyms are read once.
    """

    def __init__(self, tree: KnowledgeTree) -> None:
        self._tree = tree

    @cached_property
    def lesions(self) -> tuple[str, ...]:
        """Ids of every lesion in the tree."""
        return tuple(concept.id for concept in self._tree if concept.kind == "lesion")

    @cached_property
    def _found(self) -> dict[Words, dict[Side | None, tuple[str, ...]]]:
        found: dict[Words, dict[Side | None, tuple[str, ...]]] = {}
        for text, ids in self._texts.items():
            phrase = parse(text)
            sides = found.setdefault(phrase.words, {})
            sides[phrase.side] = tuple(dict.fromkeys((*sides.get(phrase.side, ()), *ids)))
        return found

    @cached_property
    def _texts(self) -> dict[str, tuple[str, ...]]:
        """Normalised names with their ids."""
        texts: dict[str, tuple[str, ...]] = {}
        for concept in self._tree:
            for name in self._own_names(concept):
                text = normalise(name)
                texts[text] = (*texts.get(text, ()), concept.id)
        return texts

    @cached_property
    def _by_shape(self) -> dict[tuple[str, int], list[str]]:
        shapes: dict[tuple[str, int], list[str]] = {}
        for text in self._texts:
            if parse(text).side is None:
                bare = " ".join(word for word in text.split() if word not in STOP_WORDS)
                shapes.setdefault((bare[:1], bare.count(" ")), []).append(bare)
        return shapes

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

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        return frozenset(word for words in self._found for word in words)

    @cached_property
    def _joined(self) -> dict[str, str]:
        return {text.replace(" ", ""): text for text in self._texts if " " in text}

    def written_apart(self, joined: str) -> str | None:
        """The name of several words that this is when they are written as one."""
        return self._joined.get(joined)

    def is_word(self, word: str) -> bool:
        """Whether any name holds this word."""
        return word in self._vocabulary

    def find(self, phrase: Phrase) -> tuple[str, ...]:
        """Ids the phrase may stand for; several when it is ambiguous.

        Without a side, a structure that exists only as left and right is not found here.
        """
        return self._found.get(phrase.words, {}).get(phrase.side, ())

    def named(self, name: str) -> tuple[str, ...]:
        """Ids that answer to a name as a user may type it."""
        return self.find(parse(normalise(name)))

    def alike(self, text: str) -> list[str]:
        """Known names without side and filler, of the same first letter and number of words."""
        return self._by_shape.get((text[:1], text.count(" ")), [])


@lru_cache(maxsize=4)
def lexicon_of(tree: KnowledgeTree) -> Lexicon:
    """The index of a tree, built once."""
    return Lexicon(tree)
