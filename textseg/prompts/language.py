"""A prompt in another language, put into English word by word where a table covers all of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from textseg.knowledge import KnowledgeTree
from textseg.prompts.prompt import Reading, Scope
from textseg.prompts.table import languages, read_table, table_path
from textseg.prompts.wording import normalise

TRANSLATED = 0.95

Words = tuple[str, ...]

_IDEOGRAPHS = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# Chinese and Japanese are read by the character, everything else by the word
_TOKEN = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+")
_NUMBER = re.compile(r"(?:[ctls]?\d{1,2})")
_ORDINAL = re.compile(r"(\d{1,2})(?:er|re|ere|e|eme|a|o|ma|mo|mi)")
_NUMBERED_WORD = re.compile(r"([^\W\d]{2,})(\d{1,2})")
# articles that lose their vowel: l'aorte, dell'aorta, un'arteria
_ELIDED = re.compile(r"(?:dell|nell|sull|all|dall|un|qu|l|d)([aeiouhy]\w{3,})")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_PASSED_ON = frozenset({",", "/", "and", "to"})
_FUNCTION_WORDS = frozenset(
    {"", ",", "/", "left", "right", "both", "and", "without", "to", "level"}
)
# how adjectives of side end in the plural, where they follow what they belong to
_PLURALS = {"es": ("s",), "fr": ("s",), "it": ("stri", "stre"), "pt": ("s",)}
_CUT_SHORT = {
    "glandula": "gl",
    "inferior": "inf",
    "musculus": "m",
    "nervus": "n",
    "superior": "sup",
    "vena": "v",
}
_JOINING = frozenset({",", "/", "and", "without", "to", "both"})
# "a" and "à" follow a number in a range and mean nothing elsewhere
_BETWEEN_NUMBERS = "to"
_NEGATIONS = frozenset({"no", "not", "non", "without"})


@dataclass(frozen=True)
class Vocabulary:
    """The words of one language.

    Args:
        code: Two letters, such as ``de``.
        terms: English by foreign words; ``""`` for words that may be dropped.
        longest: Number of words in the longest term.
    """

    code: str
    terms: Mapping[Words, str]
    longest: int

    def translate(self, text: str) -> str | None:
        """English for a ``normalise``d text, ``None`` unless every word of it is known."""
        tokens = _tokens(_plain(text))
        meanings = self._cover(tokens, 0, set())
        if meanings is None or not any(_is_name(meaning) for meaning in meanings):
            return None
        if self._is_plural_side(tokens[-1]) and "and" in meanings[:-1]:
            # "escápula y clavícula derechas" are both of them on one side
            side, named = meanings[-1], " ".join(filter(None, meanings[:-1]))
            return " and ".join(f"{side} {part}" for part in named.split(" and "))
        english: list[str] = []
        for meaning in meanings:
            after_number = any(word[-1].isdigit() for word in " ".join(english).split())
            if meaning and (meaning != _BETWEEN_NUMBERS or after_number):
                english.append(meaning)
        return " ".join(english)

    def _is_plural_side(self, token: str) -> bool:
        many = token.endswith(_PLURALS.get(self.code, ("-",)))
        return many and self.terms.get((token,)) in ("left", "right")

    def translate_around_side(self, text: str) -> str | None:
        """English for one name with its side amid its words: "lobe supérieur droit du poumon"."""
        tokens = _tokens(_plain(text))
        sides = [self.terms.get((token,)) in ("left", "right") for token in tokens]
        if sum(sides) != 1:
            return None
        rest = tuple(token for token, is_side in zip(tokens, sides, strict=True) if not is_side)
        meanings = self._cover(rest, 0, set())
        if meanings is None or sum(map(_is_name, meanings)) != 1 or _JOINING & {*meanings}:
            return None
        return f"{self.terms[tokens[sides.index(True)],]} {' '.join(filter(None, meanings))}"

    def _cover(self, tokens: Words, place: int, hopeless: set[int]) -> tuple[str, ...] | None:
        """What the tokens from a place on mean, longer terms preferred."""
        if place == len(tokens):
            return ()
        if place in hopeless:
            return None
        for length, meaning in self._matches(tokens, place):
            rest = self._cover(tokens, place + length, hopeless)
            if rest is not None:
                return (meaning, *rest)
        hopeless.add(place)
        return None

    def _matches(self, tokens: Words, place: int) -> Iterator[tuple[int, str]]:
        """Terms that begin at a place, longest first, with the number of tokens they take."""
        for length in range(min(self.longest, len(tokens) - place), 0, -1):
            if (meaning := self.terms.get(tokens[place : place + length])) is not None:
                yield length, meaning
        token = tokens[place]
        if token in _PASSED_ON or _NUMBER.fullmatch(token):
            yield 1, token
        elif match := _ORDINAL.fullmatch(token):
            yield 1, match[1]
        elif (match := _NUMBERED_WORD.fullmatch(token)) and (match[1],) in self.terms:
            yield 1, f"{self.terms[match[1],]} {match[2]}"
        elif match := _ELIDED.fullmatch(token):
            yield from self._matches((match[1], *tokens[place + 1 :]), 0)


def _is_name(meaning: str) -> bool:
    """Whether a meaning names something, as a level such as ``l3`` does."""
    return not (meaning in _FUNCTION_WORDS or meaning.isdigit())


def read(text: str, scope: Scope) -> Reading | None:
    """What the English for the text means, if any language covers it whole."""
    if text.partition(" ")[0] in _NEGATIONS:
        # Portuguese has "no" for "in the"
        return None
    readings: dict[tuple[str, ...], Reading] = {}
    for english in translations(text, scope.tree):
        if english != text:
            reading = scope.read(english)
            readings.setdefault((reading.status, *reading.concepts), reading)
    found = [reading for reading in readings.values() if reading.status != "reject"]
    if not found:
        return None
    meant = min(found, key=lambda reading: reading.status != "ok")
    if any(other.concepts != meant.concepts for other in found if other.status == "ok"):
        return replace(meant, status="ambiguous", concepts=(), candidates=_all(found))
    return replace(meant, method="language", confidence=min(meant.confidence, TRANSLATED))


def _all(readings: list[Reading]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(concept for reading in readings for concept in reading.concepts))


def translations(text: str, tree: KnowledgeTree) -> tuple[str, ...]:
    """English for the text from every language that knows all of its words, each once."""
    known = vocabularies(tree)
    found = [vocabulary.translate(text) for vocabulary in known]
    found += [vocabulary.translate_around_side(text) for vocabulary in known]
    return tuple(dict.fromkeys(normalise(english) for english in found if english is not None))


@lru_cache(maxsize=4)
def vocabularies(tree: KnowledgeTree) -> tuple[Vocabulary, ...]:
    """The vocabulary of every language but English, by code; built once."""
    codes = [code for code in languages() if code != "en"]
    terms = tree.derived(
        "languages",
        lambda: {code: _read_terms(code, tree) for code in codes},
        sources=[*Path(__file__).parent.glob("*.py"), *map(table_path, codes)],
    )
    return tuple(Vocabulary(code, terms[code], max(map(len, terms[code]))) for code in codes)


def _read_terms(code: str, tree: KnowledgeTree) -> dict[Words, str]:
    """English by foreign words."""
    terms: dict[Words, str] = {}
    for meaning, names in read_table(code):
        if meaning.startswith("="):
            english = meaning[1:]
        elif meaning in tree:
            english = normalise(tree[meaning].name)
        else:
            continue
        for name in names:
            for spelling in _spellings(name, code):
                terms.setdefault(_tokens(_plain(normalise(spelling))), english)
    return terms


def _spellings(name: str, code: str) -> tuple[str, ...]:
    """A name as written, in German also with its umlauts spelled out, in Latin also cut short."""
    spellings = [name]
    if code == "de":
        spellings.append(name.lower().translate(_UMLAUTS))
    if code == "la":
        words = name.split()
        spellings.append(" ".join([_CUT_SHORT.get(words[0], words[0]), *words[1:]]))
        spellings.append(" ".join(_CUT_SHORT.get(word, word) for word in words))
    return tuple(dict.fromkeys(spellings))


def _tokens(text: str) -> Words:
    return tuple(_TOKEN.findall(text))


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    """The text without accents."""
    if text.isascii():
        return text
    if re.search(f"[{_IDEOGRAPHS}]", text):
        # taking kana apart would turn voiced into voiceless syllables
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).replace("œ", "oe")
