"""Numbered structures: vertebrae, ribs, liver segments and discs, singly, in lists and ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import (
    SEPARATORS,
    STOP_WORDS,
    Side,
    normalise,
    parse,
    split_side,
)

NUMBERED, RANGED = 0.97, 0.95

_LEVEL = re.compile(r"[ctls]\d{1,2}")
_NUMBER = re.compile(r"\d{1,2}")
_RANGE_WORDS = frozenset({"to", "through", "thru", "until"})
_FILLER = STOP_WORDS | {"from", "level", "number", "no", "pair", "all", "down", "up"}
_REGIONS = {"cervical": "c", "thoracic": "t", "dorsal": "t", "lumbar": "l", "sacral": "s"}
# the usual levels, then the highest that occurs as a variant
_LEVELS = {"c": (7, 7), "t": (12, 13), "l": (5, 6), "s": (5, 6)}
_CHAIN = tuple(f"{letter}{n}" for letter in "ctls" for n in range(1, _LEVELS[letter][0] + 1))
_VERTEBRA_WORDS = frozenset({"vertebra", "vertebral", "bone", "spine", "spinal", "body", *_REGIONS})
_CARDINAL_WORDS = "one two three four five six seven eight nine ten eleven twelve"
_CARDINALS = {word: str(n) for n, word in enumerate(_CARDINAL_WORDS.split(), start=1)}
_LIVER_WORDS = frozenset({"liver", "hepatic"})
_LUNG_WORDS = frozenset({"lung", "pulmonary", "bronchopulmonary"})
_SEGMENT = re.compile(r"s(\d)")
_DORSAL = re.compile(r"d(\d{1,2})")
_COUNTED_FROM = re.compile(
    r"(?:the )?(1|upper|top|uppermost|last|lower|lowest|bottom|lowermost) (?:(\d|[a-z]+) )?"
    r"((?:(?:left|right) )?(?:lumbar vertebra|thoracic vertebra|cervical vertebra|rib))"
    r"(?: (?:on |to )?(?:the )?(left|right))?"
)
_HOW_MANY = re.compile(
    rf"(?:all |the )*({_CARDINAL_WORDS.replace(' ', '|')}|(?<=all )\d+) "
    r"((?:(?:left|right) )?(?:lumbar vertebra|thoracic vertebra|cervical vertebra|rib))"
)
_COUNT_OF = {"lumbar": 5, "thoracic": 12, "cervical": 7, "rib": 12}
_DISC_WORDS = frozenset({"disc", "intervertebral", "space", "between", "spinal", *_REGIONS})
# T1 and T2 without another word may be MR weightings
_ALSO_SEQUENCES = frozenset({"t1", "t2"})


@dataclass(frozen=True)
class Series:
    """A structure counted from 1 to ``last``; ``heads`` are the sets of words that name it."""

    template: str
    last: int
    heads: tuple[frozenset[str], ...]


SERIES: tuple[Series, ...] = (
    Series("rib {}", 12, (frozenset({"rib"}), frozenset({"costa"}))),
    Series(
        "liver segment {}",
        8,
        (
            frozenset({"liver", "segment"}),
            frozenset({"couinaud"}),
            frozenset({"couinaud", "segment"}),
            frozenset({"couinaud", "liver", "segment"}),
            frozenset({"hepatic", "segment"}),
            frozenset({"couinaud", "hepatic", "segment"}),
        ),
    ),
)


@dataclass(frozen=True)
class _Counted:
    """A phrase taken apart: the words around its numbers, and the numbers as stretches."""

    heads: frozenset[str]
    repeated: bool
    stretches: tuple[tuple[str, str], ...]
    side: Side | None
    ranged: bool
    slashed: bool


def read(text: str, scope: Scope) -> Reading | None:
    """The numbered structures a phrase counts out, or ``None`` when it counts nothing known."""
    if (spelled_out := _from_an_end(text) or _in_full(text)) is not None:
        return read(spelled_out, scope)
    side, rest = split_side(text)
    counted = _take_apart(rest, side)
    if counted is None or side == "conflict":
        return None
    if counted.repeated and not counted.ranged and side is not None:
        # in "left rib 4 and rib 5" the side belongs to one of them only
        return None
    if "disc" in counted.heads:
        return _read_disc(counted, scope)
    if counted.heads > {"segment"} and counted.heads <= {"segment", *_LUNG_WORDS}:
        why = f"'{text}' is not told apart; the lobes of the lung are."
        lobes = ("upper lobe of lung", "lower lobe of lung")
        return refuse("unsupported", why, method="number", suggestions=lobes)
    for series in SERIES:
        if counted.heads in series.heads:
            return _read_series(counted, series, scope)
    return _read_vertebrae(counted, scope) if counted.heads <= _VERTEBRA_WORDS else None


def _from_an_end(text: str) -> str | None:
    """The numbers of "first three lumbar vertebrae" or "last rib", written out."""
    match = _COUNTED_FROM.fullmatch(text)
    if match is None:
        return None
    end, count, head, side = match.groups()
    head = f"{side} {head}" if side else head
    number = _CARDINALS.get(count or "one", count)
    if not (number and number.isdigit()) or (count is None and end in ("1", "upper", "lower")):
        return None
    last = next(total for word, total in _COUNT_OF.items() if word in head)
    taken = min(int(number), last)
    if end in ("1", "upper", "top", "uppermost"):
        return f"{head} 1 to {taken}"
    return f"{head} {last - taken + 1} to {last}" if taken > 1 else f"{head} {last}"


def _in_full(text: str) -> str | None:
    """All of "twelve ribs", where the number is how many there are."""
    match = _HOW_MANY.fullmatch(text)
    if match is None:
        return None
    number = _CARDINALS.get(match[1], match[1])
    last = next(total for word, total in _COUNT_OF.items() if word in match[2])
    return f"{match[2]} 1 to {last}" if number == str(last) else None


def _take_apart(text: str, side: Side | None) -> _Counted | None:
    """Numbers and the words around them; ``None`` unless the numbers stand together."""
    heads: list[str] = []
    stretches: list[tuple[str, str]] = []
    open_range = False
    words = text.split()
    spinal = not _VERTEBRA_WORDS.isdisjoint(words)
    segmented = not (_LIVER_WORDS | _LUNG_WORDS).isdisjoint(words)
    for word in words:
        if heads:
            # "two vertebrae" says how many, not which
            word = _CARDINALS.get(word, word)
        if segmented and (segment := _SEGMENT.fullmatch(word)):
            heads.append("segment")
            word = segment[1]
        if spinal and (dorsal := _DORSAL.fullmatch(word)):
            word = f"t{dorsal[1]}"
        if _LEVEL.fullmatch(word) or _NUMBER.fullmatch(word):
            if open_range:
                stretches[-1] = (stretches[-1][0], word)
            else:
                stretches.append((word, word))
            open_range = False
        elif word in _RANGE_WORDS and stretches and not open_range:
            if stretches[-1][0] != stretches[-1][1]:
                return None
            open_range = True
        elif word not in SEPARATORS and word not in _FILLER:
            heads.append(word)
    if not stretches or open_range:
        return None
    return _Counted(
        frozenset(heads),
        repeated=len(set(heads)) < len(heads),
        stretches=tuple(stretches),
        side=side,
        ranged=not _RANGE_WORDS.isdisjoint(words),
        slashed="/" in words,
    )


def _read_series(counted: _Counted, series: Series, scope: Scope) -> Reading | None:
    numbers: dict[int, None] = {}
    for first, last in counted.stretches:
        if not (first.isdigit() and last.isdigit()):
            return None
        low, high = sorted((int(first), int(last)))
        if low < 1 or high > series.last:
            what = series.template.format(low if low < 1 else high)
            why = f"There is no {what}; they are numbered 1 to {series.last}."
            return refuse("reject", why, method="number")
        numbers |= dict.fromkeys(range(low, high + 1))
    names = [series.template.format(n) for n in numbers]
    return _read_names(names, counted, scope)


def _read_vertebrae(counted: _Counted, scope: Scope) -> Reading | None:
    letters = {_REGIONS[word] for word in counted.heads if word in _REGIONS}
    if len(letters) > 1 or counted.side is not None:
        return None
    letter = next(iter(letters), None)
    levels: dict[str, None] = {}
    for first, last in counted.stretches:
        begin = _level(first, letter)
        end = _level(last, begin[0] if begin and last.isdigit() else letter)
        if begin is None or end is None or (letters and {begin[0], end[0]} != letters):
            return None
        letter = letter or begin[0]
        between = _between(begin, end)
        if not between:
            wrong = begin if begin not in _CHAIN else end
            why = f"There is no vertebra {wrong.upper()}; known levels are C1-C7, T1-T12, L1-L5."
            return refuse("reject", why, method="number")
        levels |= dict.fromkeys(between)
    if not counted.heads and levels.keys() <= _ALSO_SEQUENCES and not counted.ranged:
        return None
    if not counted.heads and counted.slashed and len(levels) == 2:
        return _read_segment_level(tuple(levels), scope)
    reading = _read_names([f"vertebra {level}" for level in levels], counted, scope)
    if "body" in counted.heads and reading.status == "ok":
        why = "The vertebral body is not told apart; the whole vertebra is taken."
        return replace(reading, warnings=(*reading.warnings, why))
    return reading


def _level(token: str, letter: str | None) -> str | None:
    if token.isdigit():
        return f"{letter}{int(token)}" if letter else None
    return f"{token[0]}{int(token[1:])}"


def _between(first: str, last: str) -> tuple[str, ...]:
    """The levels from one to another, in either direction; none if one of them is unheard of."""
    if first == last:
        return (first,) if 1 <= int(first[1:]) <= _LEVELS[first[0]][1] else ()
    if first not in _CHAIN or last not in _CHAIN:
        return ()
    low, high = sorted((_CHAIN.index(first), _CHAIN.index(last)))
    return _CHAIN[low : high + 1]


def _read_names(names: list[str], counted: _Counted, scope: Scope) -> Reading:
    concepts: dict[str, None] = {}
    missing = []
    sided = f"{counted.side} " if counted.side else ""
    for name in names:
        reading = exact_or_sided(parse(normalise(sided + name)), scope)
        if reading is None or reading.status != "ok":
            missing.append(sided + name)
        else:
            concepts |= dict.fromkeys(reading.concepts)
    if missing:
        why = f"The knowledge tree does not hold {', '.join(missing)}."
        held = tuple(scope.tree[concept].name for concept in concepts)
        return refuse("unsupported", why, method="number", suggestions=held)
    confidence = RANGED if counted.ranged or len(names) > 1 else NUMBERED
    return Reading("ok", tuple(concepts), "number", confidence)


def _read_segment_level(levels: tuple[str, ...], scope: Scope) -> Reading:
    """Asks back about "L4/5" alone: two vertebrae to some, the disc between them to others."""
    found = [concept for level in levels for concept in scope.lexicon.named(f"vertebra {level}")]
    names = "/".join(level.upper() for level in levels)
    why = f"'{names}' can mean two vertebrae or the disc between them; name which."
    return Reading(
        "ambiguous",
        method="number",
        warnings=(why,),
        suggestions=tuple(scope.tree[concept].name for concept in found),
        candidates=tuple(found),
        decidable=False,
    )


def _read_disc(counted: _Counted, scope: Scope) -> Reading | None:
    """A disc is named after the two vertebrae it lies between, and is neither of them."""
    letters = {_REGIONS[word] for word in counted.heads if word in _REGIONS}
    if counted.side is not None or not counted.heads <= _DISC_WORDS:
        return None
    levels: list[str] = []
    for stretch in counted.stretches:
        for token in dict.fromkeys(stretch):
            before = levels[-1][0] if levels else next(iter(letters), None)
            level = _level(token, before)
            if level is None or level not in _CHAIN:
                return None
            # "L5/1" is written for L5/S1
            levels.append("s1" if levels and levels[-1] == "l5" and level == "l1" else level)
    places = [_CHAIN.index(level) for level in levels]
    pairs = list(zip(places[::2], places[1::2], strict=False))
    if len(places) == 2 and counted.ranged and places[1] - places[0] > 1:
        pairs = [(place, place + 1) for place in range(places[0], places[1])]
    if len(places) % 2 or not pairs or any(lower - upper != 1 for upper, lower in pairs):
        return None
    return _read_discs([(_CHAIN[upper], _CHAIN[lower]) for upper, lower in pairs], scope)


def _read_discs(pairs: list[tuple[str, str]], scope: Scope) -> Reading:
    concepts: list[str] = []
    for upper, lower in pairs:
        names = (f"disc {upper} {lower}", f"intervertebral disc {upper} {lower}")
        found = next((ids for name in names if len(ids := scope.lexicon.named(name)) == 1), None)
        if found is None:
            why = f"The knowledge tree does not hold the disc {upper.upper()}/{lower.upper()}."
            neighbours = tuple(f"vertebra {level.upper()}" for level in (upper, lower))
            return refuse("unsupported", why, method="number", suggestions=neighbours)
        concepts += found
    return Reading("ok", tuple(dict.fromkeys(concepts)), "number", NUMBERED)
