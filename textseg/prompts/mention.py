"""The findings that a sentence mentions: their words, and the places it puts them in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from textseg.prompts.assertion import Assertion, cue_spans, read_assertions
from textseg.prompts.lesion import is_lesion_word
from textseg.prompts.measurement import Size, Span, read_sizes
from textseg.prompts.place import Place, PlaceReader, Token, tokens_of
from textseg.prompts.wording import Side, normalise, side_of

# things seen that no structure is named after, so that the tree cannot know them
_SIGNS_WORDS = (
    "thickening dilatation dilation enlargement effacement stranding collection hypodensity "
    "hyperdensity hypoattenuation focus"
)
_SIGNS = frozenset(_SIGNS_WORDS.split())
# those that are one only together with another word
_AFTER = {
    "effect": frozenset({"mass"}),
    "shift": frozenset({"midline"}),
    "signal": frozenset({"abnormal", "altered", "increased", "hyperintense", "hypointense"}),
}
_ADJECTIVES_WORDS = (
    "cystic metastatic malignant cancerous tumorous fatty inflamed infected diseased swollen sick "
    "herniated bulging fractured removed resected bleeding"
)
_ADJECTIVES = frozenset(_ADJECTIVES_WORDS.split())
_NO_FINDINGS = frozenset({"diagnosis", "prognosis", "removed", "resected"})
_HEALTHY = frozenset({"normal", "physiologic", "unremarkable"})
_LIMITS_WORDS = (
    "a an the this that these those there it its any some each no not and or nor but as well in "
    "within of at on to into from by for near with without is are was were be been has have had "
    "shows show showing demonstrates demonstrate contains contain reveals reveal measures "
    "measuring measure seen noted identified present consistent compatible representing "
    "involving also now which , ; : . ( ) / ? "
)
_LIMITS = frozenset(_LIMITS_WORDS.split())
_INTO_PLACE = frozenset({"in", "within", "of", "at", "involving", "throughout", "inside"})
_BEFORE_PLACE = frozenset(
    {"the", "a", "an", "both", "his", "her", "their", "posterior", "anterior"}
)
_GENERAL = frozenset({"lesion", "mass", "tumor", "nodule", "cyst", "abnormality", "finding"})
_DEFINITE = frozenset({"the", "this", "that", "these", "those"})
_CLAUSE_ENDS = frozenset({";", "but", "however", "whereas", "although", "while"})
_COMPANIONS_WORDS = (
    "surrounding adjacent associated central centrally internal perilesional peritumoral vasogenic "
    "intratumoral perifocal"
)
_COMPANIONS = frozenset(_COMPANIONS_WORDS.split())
_ENDS_PHRASE = frozenset({",", ";", "and", "with", "without", "but", "or"})
_COMPANION_HEADS = frozenset({"edema", "necrosis"})
_AROUND = re.compile(
    r"\W*(?:around|surrounding|within|inside|adjacent to|next to) (?:it|this|them)"
)
_JUDGES = re.compile(
    r"(?:consistent with|compatible with|in keeping with|representing|suspicious for|likely|"
    r"probably|possibly|suggest\w+(?: of)?|concerning for|(?:may|might|could) (?:represent|be|"
    r"reflect)|favou?red to (?:be|represent)|versus|vs)(?: an?| the)?(?: [\w-]+){0,3} $"
)


@dataclass(frozen=True)
class Mention:
    """One finding as a sentence mentions it.

    Attributes:
        words: What it is called, without articles, sizes and verbs.
        head: The words of these that name the finding itself.
        span: Where the words stand in the sentence.
        own: Anatomy among the words, as in "left frontal mass".
        at: The place that the sentence puts it in, as in "mass in the left frontal lobe".
        side: The side that its words name.
        size_mm: As stated; empty if it is not.
        depends: It belongs to the finding before, as does "edema around it".
        judges: It says what the finding before may be.
        refers: It is "the lesion", without saying which.
        assertion: How the sentence puts it.
    """

    words: str
    head: str
    span: Span
    own: Place | None = None
    at: Place | None = None
    side: Side | None = None
    size_mm: tuple[float, ...] = ()
    depends: bool = False
    judges: bool = False
    refers: bool = False
    assertion: Assertion = field(default_factory=Assertion)


def read_mentions(
    sentence: str, places: PlaceReader, *, topic: str | None = None
) -> tuple[Mention, ...]:
    """Every finding of a sentence in order; healthy structures are none.

    Args:
        sentence: Its text.
        places: Reads names of structures.
        topic: Name of the organ that is spoken of, if the sentences before say so.
    """
    reader = _SentenceReader(sentence, places, topic)
    mentions = reader.mentions()
    spans = [mention.span for mention in mentions]
    stated = read_assertions(sentence, spans)
    sizes = _shared_out(read_sizes(sentence), spans, sentence)
    return tuple(
        replace(mention, assertion=how, size_mm=size)
        for mention, how, size in zip(mentions, stated, sizes, strict=True)
    )


class _SentenceReader:
    """One sentence, taken apart."""

    def __init__(self, sentence: str, places: PlaceReader, topic: str | None) -> None:
        self._sentence = sentence
        sizes = [size.span for size in read_sizes(sentence)]
        self._tokens = [t for t in tokens_of(sentence) if not _overlaps(t.span, sizes)]
        self._reader = places
        self._places = places.find(self._tokens, topic=topic)
        self._cues = cue_spans(sentence)
        self._in_place = {i for place in self._places for i in range(*place.span)}

    def mentions(self) -> list[Mention]:
        heads = list(self._heads())
        return [self._mention(number, heads) for number in range(len(heads))]

    def _heads(self) -> Iterator[Span]:
        """First and past-last token of the words for each finding."""
        start = 0
        while start < len(self._tokens):
            stop = start
            while stop < len(self._tokens) and self._is_head(stop):
                stop += 1
            words = [normalise(token.text) for token in self._tokens[start:stop]]
            if stop > start and not _is_description(words) and self._is_ill(start):
                yield start, stop
            start = max(stop, start + 1)

    def _is_head(self, number: int) -> bool:
        if number in self._in_place:
            return False
        word = normalise(self._tokens[number].text)
        before = normalise(self._tokens[number - 1].text) if number else ""
        if word in _AFTER:
            return before in _AFTER[word]
        is_name = is_lesion_word(word) or self._reader.is_lesion_name(word)
        return (is_name or word in _SIGNS) and word not in _NO_FINDINGS

    def _is_ill(self, head: int) -> bool:
        first = self._first_word(head)
        return _HEALTHY.isdisjoint(token.word for token in self._tokens[first:head])

    def _first_word(self, head: int) -> int:
        """The first word of the phrase that ends in a finding; marks before it are none."""
        first = head
        while first > 0 and (first - 1 in self._in_place or not self._limits(first - 1)):
            first -= 1
        while first < head and not self._tokens[first].text[0].isalnum():
            first += 1
        return first

    def _limits(self, number: int) -> bool:
        token = self._tokens[number]
        return token.word in _LIMITS or _overlaps(token.span, self._cues)

    def _mention(self, number: int, heads: Sequence[Span]) -> Mention:
        start, stop = heads[number]
        first = self._first_word(start)
        inside = [p for p in self._places if first <= p.span[0] and p.span[1] <= start]
        own = inside[-1] if inside else None
        if own is not None and self._is_placed(own):
            # "in the left frontal lobe mass" has no place of its own after the preposition
            first = max(first, own.span[0])
        words = self._tokens[first:stop]
        following = heads[number + 1][0] if number + 1 < len(heads) else len(self._tokens)
        text = " ".join(token.text for token in words)
        at = self._place_after(number, heads) or (None if own else self._place_before(first))
        companion = _COMPANIONS & {t.word for t in self._tokens[max(0, start - 3) : stop]}
        head = " ".join(token.text for token in self._tokens[start:stop])
        alone = own is None and at is None
        return Mention(
            text,
            head,
            (words[0].span[0], words[-1].span[1]),
            own,
            at,
            self._side(first, stop, upto=stop if at else following)
            or _side_of(self._tokens[slice(*at.span)] if at else ()),
            depends=alone
            and bool(companion or normalise(head) in _COMPANION_HEADS or self._is_around(stop)),
            judges=alone and self._is_judged(first),
            refers=alone and normalise(head) in _GENERAL and self._is_definite(first),
        )

    def _place_after(self, number: int, heads: Sequence[Span]) -> Place | None:
        """The place after a finding, or after those that are named in one breath with it."""
        stop = heads[number][1]
        following = heads[number + 1][0] if number + 1 < len(heads) else len(self._tokens)
        for place in self._places:
            if place.span[0] < stop or not self._is_placed(place):
                continue
            if place.span[1] <= following and self._same_clause(stop, place.span[0]):
                return place
        if number + 1 < len(heads) and self._are_listed(stop, following):
            return self._place_after(number + 1, heads)
        return None

    def _place_before(self, first: int) -> Place | None:
        """The place that a clause begins with, as in "the liver contains" or "in the liver, "."""
        for place in reversed(self._places):
            if place.span[1] <= first and self._same_clause(place.span[1], first):
                if any(self._is_head(i) for i in range(place.span[1], first)):
                    return None
                begins = self._begins_clause(place.span[0])
                return place if begins else None
        return None

    def _begins_clause(self, start: int) -> bool:
        while start > 0 and self._tokens[start - 1].word in _BEFORE_PLACE | _INTO_PLACE:
            start -= 1
        return start == 0 or self._tokens[start - 1].word in _CLAUSE_ENDS | {",", "and", ":"}

    def _is_placed(self, place: Place) -> bool:
        """Whether a preposition puts something in this place."""
        start = place.span[0]
        while start > 0 and self._is_before_place(start - 1):
            start -= 1
        return start > 0 and self._tokens[start - 1].word in _INTO_PLACE

    def _is_before_place(self, number: int) -> bool:
        """Whether a word can stand between a preposition and a place."""
        word = self._tokens[number].word
        described = word.isalpha() and word not in _LIMITS and number not in self._in_place
        return word in _BEFORE_PLACE or (described and not self._is_head(number))

    def _same_clause(self, start: int, stop: int) -> bool:
        return _CLAUSE_ENDS.isdisjoint(token.word for token in self._tokens[start:stop])

    def _are_listed(self, start: int, stop: int) -> bool:
        """Whether only a link and adjectives stand between two findings."""
        words = [token.word for token in self._tokens[start:stop]]
        linked = words[:1] in (["and"], ["or"], [","], ["nor"]) or words[:2] == ["but", "also"]
        ends = {"with", "without", "there", *_CLAUSE_ENDS} - ({"but"} if "also" in words else set())
        return linked and ends.isdisjoint(words)

    def _side(self, first: int, stop: int, *, upto: int) -> Side | None:
        """The side among the words of a finding, else among those that go on about it."""
        if (side := _side_of(self._tokens[first:stop])) is not None:
            return side
        ends = [i for i in range(stop, upto) if self._tokens[i].word in _ENDS_PHRASE]
        return _side_of(self._tokens[stop : ends[0] if ends else upto])

    def _is_definite(self, first: int) -> bool:
        return first > 0 and self._tokens[first - 1].word in _DEFINITE

    def _is_around(self, stop: int) -> bool:
        end = self._tokens[stop - 1].span[1]
        return _AROUND.match(self._sentence.lower(), end) is not None

    def _is_judged(self, first: int) -> bool:
        before = self._sentence[: self._tokens[first].span[0]].lower()
        return _JUDGES.search(before) is not None


def _is_description(words: Sequence[str]) -> bool:
    return all(word in _ADJECTIVES for word in words)


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(span[0] < stop and start < span[1] for start, stop in others)


def _side_of(tokens: Sequence[Token]) -> Side | None:
    """The one side that words name; "both" if they name two."""
    sides = {side for token in tokens if (side := side_of(normalise(token.text))) is not None}
    return "both" if len(sides) > 1 else next(iter(sides), None)


def _shared_out(
    sizes: Sequence[Size], findings: Sequence[Span], sentence: str
) -> list[tuple[float, ...]]:
    """For each finding its own size: the one among or right before its words, or next after it."""
    given: list[tuple[float, ...]] = [() for _ in findings]
    for size in sizes:
        own = [i for i, span in enumerate(findings) if _belongs(size.span, span, sentence)]
        before = [i for i, (_, stop) in enumerate(findings) if stop <= size.span[0]]
        for number in own or before[-1:]:
            given[number] = given[number] or size.mm
    return given


def _belongs(size: Span, finding: Span, sentence: str) -> bool:
    between = sentence[size[1] : finding[0]]
    inside = finding[0] <= size[0] < finding[1]
    return inside or (size[1] <= finding[0] and between.strip(" -") in ("", "of"))
