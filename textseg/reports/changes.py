"""Reports that say something else: sides swapped, sentences shuffled, findings denied."""

from __future__ import annotations

import random
import re

from textseg.reports.denial import deny
from textseg.reports.sentences import OPENERS, join_sentences, split_sentences
from textseg.reports.words import EDEMA, LESION, PLACE

_PAIRS = [("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")]
_PAIRS += [("lt", "rt"), ("Lt", "Rt"), ("LT", "RT"), ("L", "R")]
_OTHER = dict([*_PAIRS, *((right, left) for left, right in _PAIRS)])
_SIDE = re.compile(
    r"(?<![^\W_])(?:(?:left|Left|LEFT|right|Right|RIGHT)"
    r"(?=(?i:(?:wards?|most|sided?|hand)?(?![^\W_])))|(?:lt|Lt|LT|rt|Rt|RT|L|R)(?![^\W_]))"
)
_HANDED = re.compile(r"[ -]?handed", re.IGNORECASE)
_NOUN = re.compile(r"\b(?:the|on|to|from|its)\s+$", re.IGNORECASE)
_WHOLE = re.compile(r"\b(?:all|quite)\s+$", re.IGNORECASE)
_SAID_OF_WHOLE = re.compile(r"\s+(?!(?:and|but|after|now|in|on|at|with)\b)\w", re.IGNORECASE)
_NO_SIDE = re.compile(
    r"\s+(?:after|before|away|now|here|there|next|beside|behind|over|in (?:place|situ)|untreated|"
    r"unchanged|out|above|below|beneath|angles?(?! of))\b",
    re.IGNORECASE,
)
_GAP = re.compile(r"(?:\.(?!\s+[A-Z][a-z])|:)?[\s-]*(?=\w)")
_AFTER_BRACKET = re.compile(r"[)\]]\s*")
_VESSEL = re.compile(
    r"[AMPIE]CA\b|ventric|later|medi|super|infer|anter|poster|upper|lower", re.IGNORECASE
)
_ALONE = re.compile(r"$|[\s,;:.)\]]|-sided?\b|[/<>=+-][LR](?![^\W_])", re.IGNORECASE)
_BEFORE_LETTER = re.compile(r"(?:^|[\s(\[]|(?<![^\W_])[LR][/<>=+-])$")
_TITLE_OR_NUMBER = re.compile(r"(?:\d|\b(?:Dr|Prof|Mr|Mrs|Ms)\.?)\s+$")
_SURNAME = re.compile(r"\.\s+(?:[A-Z]\.\s*){0,3}([A-Z][a-z]+)")
_BRACKETED = re.compile(r"(?:(?:([^\W_]+)\s+)?([^\W_]+)\s*)?[(\[]$")
_IN_BRACKET = re.compile(r"[)\],;]")
_PART = re.compile(
    r"(?:region|area|territor(?:y|ies)|side|aspect|matter|fossa|horn|pole|nucleus|angle|convexity)$",
    re.IGNORECASE,
)
_SIDED = re.compile(r"[ -]sided?\b", re.IGNORECASE)
_OTHER_BEFORE = re.compile(r"(?<![^\W_])[LR]T\s?[/<>=+-]\s?$")
_OTHER_AFTER = re.compile(r"\s?[/<>=+-]\s?[LR]T(?![^\W_])")
_FARTHEST = 32


def swap_sides(text: str) -> str:
    """The report of the mirrored scan: left for right and right for left, all else untouched.

    Knows ``left-sided``, ``leftward``, ``Lt.``, ``L.``, ``(L)`` and ``(LT)``; leaves alone what
    names no side, such as "right after", "all right", "left in place" and "right-handed".

    >>> swap_sides("Left frontal mass, bilateral edema, midline shift to the R. side.")
    'Right frontal mass, bilateral edema, midline shift to the L. side.'
    """
    return _SIDE.sub(lambda match: _OTHER[match[0]] if _is_side(match) else match[0], text)


def shuffle_sentences(text: str, generator: random.Random) -> str:
    """The same sentences in another order, drawn from the generator."""
    sentences = list(split_sentences(text))
    generator.shuffle(sentences)
    return join_sentences(sentences)


def negate(text: str) -> str:
    """The report with each finding that it states denied; what it denies, it still denies.

    >>> negate("There is a mass in the left frontal lobe. No edema.")
    'There is no mass in the left frontal lobe. No edema.'
    """
    return join_sentences([deny(sentence) for sentence in split_sentences(text)])


def _is_side(word: re.Match[str]) -> bool:
    """Whether a word names a side; its neighbors say, and never by which side they name."""
    text, end = word.string, word.end()
    before = text[max(0, word.start() - _FARTHEST) : word.start()]
    if len(word[0]) == 1:
        return _is_side_letter(before, text, end)
    if word[0] in ("LT", "RT"):
        return _is_side_in_capitals(before, text, end)
    if len(word[0]) == 2:
        # rt-PA is a drug
        return not text.startswith("-PA", end)
    if _HANDED.match(text, end):
        return False
    if _WHOLE.search(before):
        return _SAID_OF_WHOLE.match(text, end) is not None
    return bool(_NOUN.search(before)) or _NO_SIDE.match(text, end) is None


def _is_side_letter(before: str, text: str, end: int) -> bool:
    if not _BEFORE_LETTER.search(before) or _TITLE_OR_NUMBER.search(before):
        return False
    if not _ALONE.match(text, end):
        return False
    surname = _SURNAME.match(text, end)
    return surname is None or (
        surname[1].casefold() in OPENERS or _is_place(text, surname.start(1))
    )


def _is_side_in_capitals(before: str, text: str, end: int) -> bool:
    """Whether LT or RT is a side; RT is also a treatment, and LT a transplant."""
    if _SIDED.match(text, end) or _OTHER_BEFORE.search(before) or _OTHER_AFTER.match(text, end):
        return True
    gap = _GAP.match(text, end)
    bracketed = _BRACKETED.search(before)
    if bracketed is None:
        return gap is not None and _is_place(text, gap.end())
    if _IN_BRACKET.match(text, end) and _ends_with_place(bracketed):
        return True
    gap = gap or _AFTER_BRACKET.match(text, end)
    return gap is not None and _is_place(text, gap.end())


def _ends_with_place(words: re.Match[str]) -> bool:
    """Whether the last words are a place or a lesion, such as "frontal" or "frontal region"."""
    first, last = words[1] or "", words[2] or ""
    if EDEMA.match(last) or _is_place(last, 0):
        return True
    return _PART.match(last) is not None and _is_place(first, 0)


def _is_place(text: str, start: int) -> bool:
    return any(kind.match(text, start) for kind in (PLACE, LESION, _VESSEL))
