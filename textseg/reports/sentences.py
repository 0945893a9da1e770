"""Where one sentence of a report ends and the next begins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from textseg.reports.words import EDEMA, NECROSIS, SIGNAL, VENTRICLES

_MARKER = re.compile(r"^(?:[-*#]+\s+|[•▪◦‣·–—]\s*|\(?\d{1,2}[.)]\s+|\(?[a-z]\)\s+)+")
_ITEM = re.compile(r"\(?\d{1,2}[.)]\s+(?=[A-Z])")
_FIRST_ITEM = re.compile(r"(?<=:)\s+\(?1[.)]\s+(?=[A-Z])")
_END = re.compile(r"[.!?]+[\"'”)\]]*(?=\s|$)|(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_LAST_END = re.compile(r"[.!?]+[\"'”)\]]*$")
_WORD = re.compile(r"[^\W_]")
_LABEL = re.compile(r"([A-Za-z][\w/&() -]{1,40}?):(?:\s+|$)")
_NAMES = re.compile(
    r"(?:clinical |relevant )?(?:findings?|impressions?|conclusions?|techniques?|procedures?|"
    r"history|indications?|information|comparisons?|summary|opinion|diagnos[ie]s|report|"
    r"exam(?:ination)?|recommendations?|brain|head|mri?(?: brain| head)?|lesions?|tumou?rs?)",
    re.IGNORECASE,
)
PLACES = re.compile(r"\b(?:location|site|position|lesion area)\b", re.IGNORECASE)
"""What a heading calls the place of a lesion."""

_MOST_WORDS = 4
_NEAR = 60
_NARROWEST = 40
_UNFINISHED = re.compile(
    r"(?:[,;:(-]|\b(?:a|an|the|of|in|on|at|to|and|or|with|without|by|for|from|is|are|was|were|no|"
    r"than|left|right|measuring|about|approximately))$",
    re.IGNORECASE,
)
_OPENING = (
    "a an and both but edema find findings impression in it its mild moderate no normal oedema on "
    "otherwise severe surrounding the there these they this ventricular with"
)
OPENERS = frozenset(_OPENING.split())
"""Words that begin a sentence more often than they are names."""

_BEFORE_A_NAME = "dr mr mrs ms prof e.g eg i.e ie vs cf approx ca incl resp"
_NEVER_LAST = frozenset(_BEFORE_A_NAME.split())
_BEFORE_NUMBER = frozenset({"no", "nr", "fig", "figs", "im", "img", "se", "ser", "max", "min"})
_SHORTENINGS = (
    "al ant avg bilat cc cm contr diam est etc hem im inf lat lg lt max med min ml mm mod pat post "
    "poss prob pt pts rt sev sm sup susp temp w"
)
_SHORTENED = frozenset(_SHORTENINGS.split())


def split_sentences(text: str) -> tuple[str, ...]:
    r"""The sentences of a report in their order, each on one line, without bullets and numbers.

    A heading stays with what it is the heading of. Abbreviations and decimals end no sentence, and
    neither does the end of a line within one.

    >>> split_sentences("IMPRESSION:\n1. Mass of 3.2 x\n4.1 cm.\n2. No shift (Dr. Smith).")
    ('IMPRESSION: Mass of 3.2 x 4.1 cm.', 'No shift (Dr. Smith).')
    """
    return tuple(sentence for block in _blocks(text) for sentence in _within(block))


def join_sentences(sentences: Sequence[str]) -> str:
    """A report that splits into these sentences again; what lacks a full stop gets one.

    >>> join_sentences(["Left frontal mass", "No shift."])
    'Left frontal mass. No shift.'
    """
    closed = [s if s.endswith((".", "!", "?", ":")) else f"{s}." for s in sentences]
    text = "".join(closed[:1])
    for before, after in pairwise(closed):
        apart = split_sentences(f"{before} {after}") == (before, after)
        text += (" " if apart else "\n\n") + after
    return text


def split_heading(sentence: str) -> tuple[str, str]:
    """The heading a sentence begins with, without its colon ("" for none), and the rest.

    >>> split_heading("Peritumoral edema: moderate.")
    ('Peritumoral edema', 'moderate.')
    >>> split_heading("Left frontal mass: 3 cm.")
    ('', 'Left frontal mass: 3 cm.')
    """
    end = 0
    while (label := _LABEL.match(sentence, end)) is not None and _is_heading(label[1]):
        end = label.end()
    return sentence[:end].strip().removesuffix(":"), sentence[end:]


def _is_heading(label: str) -> bool:
    if _NAMES.fullmatch(label):
        return True
    kinds = (PLACES, SIGNAL, EDEMA, NECROSIS, VENTRICLES)
    return len(label.split()) <= _MOST_WORDS and any(kind.search(label) for kind in kinds)


def _blocks(text: str) -> Iterator[str]:
    """Runs of lines that belong together, each on one line."""
    lines = [" ".join(line.replace("**", "").split()) for line in text.splitlines()]
    width = max([_NARROWEST, *map(len, lines)])
    block: list[str] = []
    apart = False
    for line in lines:
        amid = bool(block) and not apart and line[:1].isdigit() and _is_open(block[-1], line)
        bare = line if amid else _MARKER.sub("", line, count=1)
        if _NAMES.fullmatch(bare) and _titled(bare, line):
            bare += ":"
        if not _WORD.search(bare):
            apart = True
            continue
        apart = apart or bare != line or _begins(bare, block, width)
        if block and apart and not block[-1].endswith(":"):
            yield " ".join(block)
            block = []
        block.append(bare)
        apart = False
    if block:
        yield " ".join(block)


def _titled(bare: str, line: str) -> bool:
    """Whether a line that is a name alone looks like a title: "# Findings", "FINDINGS"."""
    return line.startswith("#") or bare.isupper()


def _begins(line: str, block: Sequence[str], width: int) -> bool:
    """Whether a line does not carry on the line before it."""
    if not block:
        return False
    label = _LABEL.match(line)
    if label is not None and (line[0].isupper() or _is_heading(label[1])):
        return True
    before = block[-1]
    if _is_open(before, line):
        return False
    if _LAST_END.search(before):
        return True
    # had the line been broken for want of room, its first word would not have fitted
    return line[0].isupper() and len(before) + 1 + len(line.split()[0]) <= width


def _is_open(before: str, line: str) -> bool:
    """Whether a line certainly ends amid a sentence."""
    if (end := _LAST_END.search(before)) is not None:
        return _goes_on(before[: end.start()], end[0], line)
    return bool(_UNFINISHED.search(before)) and not before.endswith(":")


def _within(block: str) -> Iterator[str]:
    """The sentences of one block."""
    block = _FIRST_ITEM.sub(" ", block)
    start = 0
    for end in _END.finditer(block):
        after = block[end.end() : end.end() + _NEAR].lstrip()
        before = block[max(start, end.start() - _NEAR) : end.start()]
        item = _ITEM.match(block, start)
        if not (after and _WORD.search(block, start, end.end())):
            continue
        if item is not None and item.end() > end.end():
            start = item.end()
        elif not _goes_on(before, end[0], after):
            yield block[start : end.end()].strip()
            start = end.end() + (block[end.end()] == " ")
    if _WORD.search(rest := block[start:].strip()):
        yield rest


def _goes_on(before: str, mark: str, after: str) -> bool:
    """Whether a sentence goes on after a full stop."""
    word = before.split()[-1].lstrip("([\"'“") if before.split() else ""
    following, lower = after.split()[0], after[0].islower()
    if mark[0] != ".":
        return False
    if len(mark) > 1:
        return lower
    short = word.casefold()
    if short in _NEVER_LAST:
        return True
    if after[0].isdigit() and short in _BEFORE_NUMBER:
        return True
    if short in {"rt", "lt"} or (len(word) == 1 and word.isalpha() and word not in "IVX"):
        return following.rstrip(".,;:").casefold() not in OPENERS
    return lower and short in _SHORTENED
