"""The last resort: a slip of the keyboard is corrected openly, anything more is refused."""

from __future__ import annotations

import re
from dataclasses import replace

from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

from textseg.prompts.lesion import is_lesion_word, mentions_lesion
from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import STOP_WORDS, Side, parse, split_side

CORRECTED = 0.9
# chosen on the development half: below 84, real words come within reach (sacred, strike)
ACCEPT, SUGGEST, MARGIN = 84.0, 75.0, 5.0
# shorter names are one slip away from too many other words (colony, hearth), unless the rest of
# a longer name is right
_MIN_LETTERS, _MIN_LETTERS_IN_CONTEXT, _MIN_LETTERS_IN_LONG_CONTEXT = 6, 5, 4
# as good as two words of context
_LONG = 9
# a long word may be two slips away
_TWO_SLIPS_FROM = 8
_MAX_WORDS = 10
_COUNTED = ("vertebra", "vertebral", "lumbar", "thoracic", "cervical", "segment", "couinaud")
_JOINED_SIDE = re.compile(r"(left|right)(\w{4,})|(\w{4,})(left|right)")
_VOWELS = frozenset("aeiouy")
_DOUBLED = re.compile(r"(.)\1")
# English words that are one slip away from a structure and mean something else
_REAL_WORDS = (
    "attach beast blander brainstorm cancel carnal cheeky colonel insular insulin liverish module "
    "noodle palace pancake pastel patent plasma radium scrum spline sterner stern stoke strike "
    "strobe stroke thyme tracker vertical vertex vessel weather"
)
_OTHER_WORDS = frozenset(_REAL_WORDS.split())


def read(text: str, scope: Scope) -> Reading:
    """A correction if it is safe, else a refusal with what may have been meant."""
    side, rest = split_side(text)
    base = " ".join(word for word in rest.split() if word not in STOP_WORDS)
    alike: list[tuple[str, float]] = []
    if side != "conflict" and len(base) > 3:
        matches = process.extract(
            base, scope.lexicon.alike(base), scorer=fuzz.ratio, score_cutoff=SUGGEST, limit=5
        )
        alike = sorted(((name, score) for name, score, _ in matches), key=lambda m: (-m[1], m[0]))
    if alike and _is_safe(base, alike, scope):
        reading = exact_or_sided(parse(_with_side(side, alike[0][0])), scope)
        if reading is not None and reading.status == "ok" and _is_as_healthy(text, reading, scope):
            warning = f"'{text}' is interpreted as '{_with_side(side, alike[0][0])}'."
            confidence = CORRECTED * alike[0][1] / 100
            return Reading("ok", reading.concepts, "fuzzy", confidence, (warning,))
    return (
        _read_joined(text, scope)
        or _read_split(text, scope)
        or _read_numbered(text, scope)
        or _read_part(text, scope)
        or _refuse(text, side, alike, scope)
    )


def _is_safe(base: str, alike: list[tuple[str, float]], scope: Scope) -> bool:
    """Whether a slip or two separate the text from one structure and no other comes close."""
    name, score = alike[0]
    meant = scope.lexicon.find(parse(name))
    rivals = [other for other, near in alike[1:] if near > score - MARGIN]
    if any(scope.lexicon.find(parse(other)) != meant for other in rivals):
        return False
    pairs = list(zip(base.split(), name.split(), strict=True))
    right = [written for written, known in pairs if written == known]
    return (
        base.isascii()
        and base.replace(" ", "").isalpha()
        and len(pairs) - len(right) == 1
        and all(
            _is_slip(written, known, right=right, scope=scope)
            for written, known in pairs
            if written != known
        )
    )


def _is_as_healthy(text: str, reading: Reading, scope: Scope) -> bool:
    """Whether a text that speaks of a finding was read as one."""
    found = all(scope.tree[concept].kind == "lesion" for concept in reading.concepts)
    return found or not mentions_lesion(text)


def _is_slip(written: str, known: str, *, right: list[str], scope: Scope) -> bool:
    """Whether a word can only be a misspelling of a known one; ``right`` are the others."""
    if written[0] != known[0] or (known[-1] not in "lr" and written in (f"{known}l", f"{known}r")):
        # "kidneyL" asks for one side
        return False
    least = _MIN_LETTERS
    if len(right) > 1 or any(len(word) >= _LONG for word in right):
        least = _MIN_LETTERS_IN_LONG_CONTEXT
    elif any(len(word) >= _MIN_LETTERS_IN_CONTEXT for word in right):
        least = _MIN_LETTERS_IN_CONTEXT
    most = 2 if len(known) >= _TWO_SLIPS_FROM else 1
    in_context = least < _MIN_LETTERS
    near = len(known) >= _MIN_LETTERS_IN_CONTEXT and _is_near(written, known)
    return (
        (near or max(len(known), len(written) if in_context else 0) >= least)
        and written not in _OTHER_WORDS
        and not is_lesion_word(written)
        and not scope.lexicon.is_word(written)
        and OSA.distance(written, known) <= most
        and (near or in_context or fuzz.ratio(written, known) >= ACCEPT)
    )


def _is_near(written: str, known: str) -> bool:
    """Whether a letter is doubled, or one vowel stands for another.

    >>> _is_near("livver", "liver"), _is_near("splean", "spleen"), _is_near("sacred", "sacrum")
    (True, True, False)
    """
    if len(written) != len(known):
        return _DOUBLED.sub(r"\1", written) == _DOUBLED.sub(r"\1", known)
    differ = [pair for pair in zip(written, known, strict=True) if pair[0] != pair[1]]
    return len(differ) == 1 and len(known) >= _MIN_LETTERS and set(differ[0]) <= _VOWELS


def _read_split(text: str, scope: Scope) -> Reading | None:
    """A word written as two: "wind pipe"."""
    side, rest = split_side(text)
    first, space, second = rest.partition(" ")
    if side == "conflict" or not space or not (first + second).isalpha():
        return None
    joined = _with_side(side, first + second)
    reading = scope.read(joined)
    if reading.status == "reject" or reading.method in ("fuzzy", "language"):
        return None
    return replace(reading, warnings=(f"'{text}' is read as '{joined}'.", *reading.warnings))


def _read_joined(text: str, scope: Scope) -> Reading | None:
    """A name written as one word, as variables are: "leftkidney", "kidneyleft"."""
    if " " in text or not text.isascii() or not text.isalpha():
        return None
    match = _JOINED_SIDE.fullmatch(text)
    spaced = text if match is None else f"{match[1] or match[4]} {match[2] or match[3]}"
    side, rest = split_side(spaced)
    name = scope.lexicon.written_apart(rest) or (rest if side else None)
    if name is None:
        return None
    reading = exact_or_sided(parse(_with_side(side, name)), scope)
    if reading is None or reading.status != "ok":
        return None
    warning = f"'{text}' is interpreted as '{_with_side(side, name)}'."
    return Reading("ok", reading.concepts, "fuzzy", CORRECTED, (warning,))


def _read_numbered(text: str, scope: Scope) -> Reading | None:
    """A counted structure of which the word is misspelt and the number is not."""
    words = text.split()
    if not any(word[-1].isdigit() for word in words):
        return None
    corrected = [_counted_word(word, scope) for word in words]
    if corrected == words:
        return None
    spelled = " ".join(corrected)
    reading = scope.read(spelled)
    if reading.status != "ok" or reading.method != "number":
        return None
    warning = f"'{text}' is interpreted as '{spelled}'."
    return Reading("ok", reading.concepts, "fuzzy", CORRECTED, (*reading.warnings, warning))


def _counted_word(word: str, scope: Scope) -> str:
    """The word for something counted that this one misspells, or the word itself."""
    if not (word.isascii() and word.isalpha()):
        return word
    meant = (known for known in _COUNTED if _is_slip(word, known, right=[], scope=scope))
    return next(meant, word)


def _read_part(text: str, scope: Scope) -> Reading | None:
    """A part with its whole, "RV of the heart"; one among its like is refused: "pedicle of L3"."""
    part_text, of, whole_text = text.rpartition(" of ")
    if not of:
        return None
    part, whole = scope.read(part_text), scope.read(whole_text)
    if part.status != "ok" or whole.status != "ok" or len(part.concepts) != 1:
        return None
    tree = scope.tree
    wholes = _wholes(part.concepts[0], scope)
    if len(whole.concepts) == 1 and wholes.issuperset(whole.concepts):
        return part
    if any(wholes.isdisjoint((i, *tree.ancestors(i))) for i in whole.concepts):
        return None
    why = f"'{text}' is not known apart from {', '.join(tree[i].name for i in whole.concepts)}."
    names = tuple(tree[i].name for i in whole.concepts)
    return refuse("unsupported", why, method="part", suggestions=names)


def _wholes(part: str, scope: Scope) -> set[str]:
    """Structures that a structure is a part of, directly or not; no regions or systems."""
    found: set[str] = set()
    waiting = list(scope.tree[part].part_of)
    while waiting:
        current = waiting.pop()
        if current not in found and scope.tree[current].kind not in ("region", "system"):
            found.add(current)
            waiting += scope.tree[current].part_of
    return found


def _with_side(side: Side | None, name: str) -> str:
    return f"{side} {name}" if side else name


def _refuse(text: str, side: Side | None, alike: list[tuple[str, float]], scope: Scope) -> Reading:
    instead = [_name_of(_with_side(side, name), scope) for name, _ in alike[:3]]
    instead += _names_inside(text, scope)
    if side == "conflict":
        why = f"'{text}' names two different sides for one structure."
    else:
        why = f"'{text}' is not the name of a known structure."
    names = dict.fromkeys(name for name in instead if name is not None)
    return refuse("reject", why, method="none", suggestions=tuple(names))


def _name_of(text: str, scope: Scope) -> str | None:
    """The tree's own name for a text that means exactly one concept."""
    reading = exact_or_sided(parse(text), scope)
    if reading is None or reading.status != "ok" or len(reading.concepts) != 1:
        return None
    return scope.tree[reading.concepts[0]].name


def _names_inside(text: str, scope: Scope) -> list[str | None]:
    """Names that occur within a longer text: the longest, in order."""
    words = text.split()[:_MAX_WORDS]
    for length in range(len(words) - 1, 0, -1):
        pieces = (words[start : start + length] for start in range(len(words) - length + 1))
        found = [_name_of(" ".join(piece), scope) for piece in pieces]
        if any(found):
            return found
    return []
