"""Anatomy that a sentence names, as the places in which its findings may lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from textseg.knowledge import KnowledgeTree
from textseg.prompts.adjective import ADJECTIVES
from textseg.prompts.lesion import is_lesion_word
from textseg.prompts.lexicon import lexicon_of
from textseg.prompts.prompt import Modality
from textseg.prompts.resolve import resolve
from textseg.prompts.wording import normalise, side_of

Span = tuple[int, int]

LESION_KINDS = frozenset({"lesion", "lesion part"})

# what a reader of names may assume silently; likeness of letters is not among it
_SURE = frozenset({"name", "side", "adjective", "number", "level", "context", "modality", "group"})
_TOO_WIDE = frozenset({"body", "lesion"})
_LONGEST = 12
_SHORTEST_WORD, _SHORTEST_NAME = 3, 4

_TOKEN = re.compile(r"\d+(?:st|nd|rd|th)?\b|[^\W\d_][\w'’]*(?:-[^\W\d_]\w*)*|[^\w\s]")
_LINKS = frozenset({"and", "or", ",", "/", "&"})
_INSIDE = frozenset({"of", "the"}) | _LINKS
_SUPPLIED = frozenset({"territory", "territories", "distribution"})
_VAGUE_ENDS = frozenset({"region", "area", "regions", "areas"})
_LOBES = "frontal|temporal|parietal|occipital"
_JOINED = re.compile(rf"(front|tempor|pariet|occipit)o-?({_LOBES})(?: lobes?)?")


@dataclass(frozen=True)
class Token:
    """A word or mark of a sentence and where it stands."""

    text: str
    span: Span

    @property
    def word(self) -> str:
        """In lower case."""
        return self.text.lower()


@dataclass(frozen=True)
class Place:
    """Structures that some words of a sentence name together.

    Attributes:
        concepts: Their ids.
        text: The words.
        span: First and past-last token.
    """

    concepts: tuple[str, ...]
    text: str
    span: Span


def tokens_of(sentence: str) -> tuple[Token, ...]:
    """Words, numbers and marks.

    >>> [token.text for token in tokens_of("Ring-enhancing, 2nd rib.")]
    ['Ring-enhancing', ',', '2nd', 'rib', '.']
    """
    return tuple(Token(match[0], match.span()) for match in _TOKEN.finditer(sentence))


class PlaceReader:
    """Reads the names of healthy structures; a text is looked up once.

    Args:
        tree: The knowledge tree.
        modality: Of the scan that is reported on.
    """

    def __init__(self, tree: KnowledgeTree, *, modality: Modality | None = None) -> None:
        self._tree = tree
        self._modality = modality
        self._lexicon = lexicon_of(tree.core)
        self._known: dict[str, tuple[str, ...]] = {}

    def find(self, tokens: Sequence[Token], *, topic: str | None = None) -> tuple[Place, ...]:
        """The places that tokens name, each as long as can be, in order.

        Args:
            tokens: Of a sentence.
            topic: Name of the organ that is spoken of, for the "segment 8" of a liver.
        """
        places: list[Place] = []
        start = 0
        while start < len(tokens):
            place = self._longest_from(start, tokens, topic)
            start = place.span[1] if place else start + 1
            # the territory of an artery is not the artery
            if place and (start == len(tokens) or tokens[start].word not in _SUPPLIED):
                places.append(place)
        return tuple(places)

    def read(self, text: str) -> tuple[str, ...]:
        """Ids of the structures that a name or a list of names stands for; none if not all do."""
        if text not in self._known:
            self._known[text] = self._read_list(text) if _is_list(text) else self._read_one(text)
        return self._known[text]

    def is_lesion_name(self, word: str) -> bool:
        """Whether a normalised word is the name of a finding, such as "gallstone"."""
        if len(word) < _SHORTEST_NAME:
            return False
        found = self._tree.lookup(word)
        return bool(found) and all(concept.kind in LESION_KINDS for concept in found)

    def _longest_from(self, start: int, tokens: Sequence[Token], topic: str | None) -> Place | None:
        for stop in range(self._limit(start, tokens), start, -1):
            words = tokens[start:stop]
            if words[-1].word in _INSIDE or not _is_telling(words):
                continue
            text = " ".join(token.text for token in words)
            found = self.read(text)
            if not found and topic is not None and len(words) > 1:
                found = self.read(f"{text} of the {topic}")
            if found:
                return Place(found, text, (start, stop))
        return None

    def _limit(self, start: int, tokens: Sequence[Token]) -> int:
        """Past the last token up to which every word occurs in some name."""
        stop = start
        if tokens[start].word in _INSIDE:
            return stop
        for token in tokens[start : start + _LONGEST]:
            if token.word not in _INSIDE and not self._is_word(token.word):
                break
            stop += 1
        return stop

    def _is_word(self, word: str) -> bool:
        if _JOINED.fullmatch(word):
            return True
        for part in normalise(word).split():
            known = self._lexicon.is_word(part) or part in ADJECTIVES or part.isdigit()
            if is_lesion_word(part) or not (known or side_of(part)):
                return False
        return word[0].isalnum()

    def _read_list(self, text: str) -> tuple[str, ...]:
        """Every name of a list, the later ones with the side and ending that they share."""
        items = [item.strip() for item in re.split(r",|/|&|\b(?:and|or)\b", text) if item.strip()]
        if not items:
            return ()
        side, ending = _side_word(items[0]), items[-1].split()[-1]
        found: list[str] = []
        for number, item in enumerate(items):
            own = _side_word(item) or item.startswith("the ")
            sided = [item] if own or side is None or number == 0 else [f"{side} {item}", item]
            named = [text for name in sided for text in (name, f"{name} {ending}")]
            concepts = next((ids for name in named if (ids := self._read_one(name))), ())
            if not concepts:
                return self._read_one(text) if re.search(r"\d", text) else ()
            found += concepts
        return tuple(dict.fromkeys(found))

    def _read_one(self, text: str) -> tuple[str, ...]:
        words = text.removeprefix("the ").split()
        while len(words) > 1 and words[-1].lower() in _VAGUE_ENDS:
            words.pop()
        text = " ".join(words)
        if (joined := _JOINED.search(text.lower())) is not None:
            return self._read_joined(text.lower(), joined)
        answer = resolve(text, self._tree, modality=self._modality)
        kinds = {self._tree[concept].kind for concept in answer.concepts}
        if answer.status != "ok" or answer.method not in _SURE or not kinds:
            return ()
        wide = kinds & {*LESION_KINDS, "system"} or _TOO_WIDE & set(answer.concepts)
        return () if wide else answer.concepts

    def _read_joined(self, text: str, joined: re.Match[str]) -> tuple[str, ...]:
        """Both lobes of "left frontoparietal"."""
        first = next(lobe for lobe in _LOBES.split("|") if lobe.startswith(joined[1]))
        names = [text.replace(joined[0], f"{lobe} lobe") for lobe in (first, joined[2])]
        found = [self._read_one(name) for name in names]
        return tuple(concept for ids in found for concept in ids) if all(found) else ()


def _is_list(text: str) -> bool:
    return not _LINKS.isdisjoint(text.replace(",", " , ").lower().split())


def _is_telling(words: Sequence[Token]) -> bool:
    """Whether the words can be a name: no lone abbreviation such as "no" or "he" is one."""
    texts = [word.text for word in words]
    if len(texts) == 1 and side_of(normalise(texts[0])):
        return False
    return len(texts) > 1 or len(texts[0]) >= _SHORTEST_WORD or any(map(str.isdigit, texts[0]))


def _side_word(text: str) -> str | None:
    sides: Iterator[str] = (word for word in text.split() if side_of(normalise(word)))
    return next(sides, None)
