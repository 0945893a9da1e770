"""Prompts made of other prompts: lists ("liver and spleen") and exclusions ("lungs without")."""

from __future__ import annotations

import re
from dataclasses import replace

from textseg.prompts.lesion import mentions_lesion
from textseg.prompts.prompt import Reading, Scope, Status, refuse
from textseg.prompts.support import settle
from textseg.prompts.wording import STOP_WORDS, normalise, parse, split_side

LISTED, EXCLUDED = 0.95, 0.93
# how many parts on a shared ending may stand, as in "upper, middle and lower lobe"
_MAX_DISTANCE = 3
# words of an ending whose beginning stands before it, as in "gluteus maximus and medius"
_MAX_ENDING = 4

_EXCEPT = re.compile(
    r"\s*,?\s*\b(?:without|except for|except|excluding|exclude|but not|minus|other than|"
    r"apart from|rather than|(?:do |dont |but )?not includ(?:e|ing)|leaving out|leave out|but no|"
    r"and not|and no|not|(?<=, )no)\b\s*"
)
_BUT = re.compile(r"\s*,?\s*\bbut\b\s*")
_BUT_ONLY = re.compile(r"(.+?)\s*,?\s*\b(?:but|and) only\b\s*(.+)")
_SEPARATOR = re.compile(r"\s*(?:,|/|\band\b)\s*(?:(?:,|/|\band\b)\s*)*")
# words that stand for the name given before, as in "the right one"
_STAND_INS = frozenset({"one", "side", "other"}) | STOP_WORDS


def read(text: str, scope: Scope) -> Reading | None:
    """The union of the listed parts, or the first part less what is excluded."""
    if (narrowed := _BUT_ONLY.fullmatch(text)) is not None:
        return scope.read(_complete_side(narrowed[2], narrowed[1]))
    return _read_exclusion(text, scope) or _read_choice(text, scope) or _read_list(text, scope)


def _read_choice(text: str, scope: Scope) -> Reading | None:
    """Asks back about "liver or spleen"; what cannot be had is refused all the same."""
    parts = text.split(" or ")
    readings = [scope.read(part) for part in parts]
    if len(parts) < 2 or any(reading.status == "reject" for reading in readings):
        return None
    failed = [settle(reading, scope) for reading in readings]
    if refused := next((reading for reading in failed if reading.status != "ok"), None):
        return replace(refused, method="list")
    why = f"'{text}' leaves a choice; name one, or join them with 'and'."
    meant = tuple(dict.fromkeys(concept for reading in readings for concept in reading.concepts))
    names = tuple(scope.tree[concept].name for concept in meant)
    return Reading(
        "ambiguous",
        method="list",
        warnings=(why,),
        suggestions=names,
        candidates=meant,
        decidable=False,
    )


def _read_exclusion(text: str, scope: Scope) -> Reading | None:
    pieces = (_EXCEPT if _EXCEPT.search(text) else _BUT).split(text.removeprefix("only "), 1)
    if len(pieces) < 2 or not pieces[0] or not pieces[1]:
        return None
    kept_text = pieces[0].removesuffix(" only")
    gone_text = _named_in_full(pieces[1], kept_text)
    kept, gone = scope.read(kept_text), scope.read(gone_text)
    if kept.status == "ambiguous":
        kept = settle(kept, scope)
    if gone.status == "reject" and not re.search(r"\d", kept_text):
        # "right lung without the middle lobe"
        part = scope.read(f"{gone_text} {kept_text}")
        gone = part if part.status == "ok" else gone
    if gone.status == "reject" and kept.status == "ok":
        gone = _named_in_part(gone_text, kept, scope) or gone
    if kept.status == "ok" and mentions_lesion(gone_text) and not mentions_lesion(kept_text):
        why = f"'{gone_text}' cannot be left out: a finding is part of the structure it lies in."
        names = tuple(scope.tree[concept].name for concept in kept.concepts)
        return refuse("unsupported", why, method="exclusion", suggestions=names)
    if gone.status == "ambiguous" and kept.status == "ok":
        gone = _meant_within(gone, kept, scope)
    for reading in (kept, gone):
        if reading.status != "ok":
            return reading
    contrast = re.search(r"\b(?:not|rather)\b", text) is not None
    if _EXCEPT.search(text) is None and not _is_within(gone, kept, scope):
        return None
    remainder = _subtract(kept, gone, scope, contrast=contrast)
    if settle(remainder, scope).status == "ok":
        return remainder
    # another account of what the whole is made of may suit the model better
    supported = settle(kept, scope)
    if supported.status != "ok":
        return supported
    return _subtract(supported, gone, scope, contrast=contrast)


def _named_in_full(gone: str, kept: str) -> str:
    """What is left out, with the name that stands only before it: "ribs 1 to 6 except left 3"."""
    side, rest = split_side(gone)
    if not rest[:1].isdigit():
        return _complete_side(gone, kept)
    counted = [word for word in kept.split() if word.isalpha() and word != "to"]
    return " ".join([*([side] if side in ("left", "right") else []), *counted, rest])


def _complete_side(text: str, named: str) -> str:
    """A lone side, as in "the right one", with the structure that is named beside it."""
    side, rest = split_side(text)
    if side is None or set(rest.split()) - _STAND_INS:
        return text
    return f"{side} {split_side(named)[1]}"


def _named_in_part(text: str, kept: Reading, scope: Scope) -> Reading | None:
    """The members of a group of which only a word is given: "gluteal muscles without maximus"."""
    words = set(parse(text).words)
    named = {concept: parse(normalise(scope.tree[concept].name)).words for concept in kept.concepts}
    meant = tuple(concept for concept, name in named.items() if words and words <= set(name))
    return Reading("ok", meant, "exclusion", EXCLUDED) if 0 < len(meant) < len(named) else None


def _is_within(gone: Reading, kept: Reading, scope: Scope) -> bool:
    """Whether all that is left out is part of what is kept, so that "but" can mean "except"."""
    parts = _closure(kept.concepts, scope)
    return all(concept in parts for concept in gone.concepts)


def _meant_within(gone: Reading, kept: Reading, scope: Scope) -> Reading:
    """The one meaning that is part of what is kept: in "thoracic spine minus T1", the vertebra."""
    parts, whole = _closure(kept.concepts, scope), set(kept.concepts)
    within = tuple(
        candidate
        for candidate in gone.candidates
        if candidate in parts or whole & {*scope.tree.ancestors(candidate)}
    )
    return Reading("ok", within, "exclusion", EXCLUDED) if len(within) == 1 else gone


def _subtract(kept: Reading, gone: Reading, scope: Scope, *, contrast: bool) -> Reading:
    """Concepts that make up ``kept`` and share nothing with ``gone``.

    In a mere contrast ("only A, not B") nothing needs to be left out.
    """
    removed = _closure(gone.concepts, scope)
    above = {parent for concept in removed for parent in scope.tree.ancestors(concept)}
    left: dict[str, None] = {}
    for concept in kept.concepts:
        rest = _remains(concept, removed, above, scope)
        if rest is None:
            gone_name = scope.tree[gone.concepts[0]].name
            kept_name = scope.tree[concept].name
            why = f"{kept_name} cannot be divided so that {gone_name} is left out."
            return refuse("unsupported", why, method="exclusion", suggestions=(kept_name,))
        left |= dict.fromkeys(rest)
    if not left:
        return refuse("reject", "Nothing remains after the exclusion.", method="exclusion")
    warnings = list(dict.fromkeys((*kept.warnings, *gone.warnings)))
    if set(left) == set(kept.concepts) and not contrast:
        names = ", ".join(scope.tree[concept].name for concept in gone.concepts)
        warnings.append(f"{names} is not part of what was asked for, so nothing was left out.")
    return Reading("ok", tuple(left), "exclusion", EXCLUDED, tuple(warnings))


def _closure(concepts: tuple[str, ...], scope: Scope) -> frozenset[str]:
    """The concepts and everything they are made of."""
    seen: dict[str, None] = {}
    waiting = list(concepts)
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen[current] = None
            waiting += [member for part in scope.tree[current].made_of for member in part]
    return frozenset(seen)


def _remains(
    concept: str, removed: frozenset[str], above: set[str], scope: Scope
) -> tuple[str, ...] | None:
    """What is left of a concept, or ``None`` when the tree cannot divide it that finely."""
    if concept in removed:
        return ()
    if concept not in above:
        return (concept,)
    for partition in scope.tree[concept].made_of:
        if not any(member in removed or member in above for member in partition):
            continue
        rests = [_remains(member, removed, above, scope) for member in partition]
        if all(rest is not None for rest in rests):
            return tuple(member for rest in rests for member in rest or ())
    return None


def _read_list(text: str, scope: Scope) -> Reading | None:
    parts = [part for part in _SEPARATOR.split(text) if part]
    if len(parts) < 2:
        return None
    parts = _rejoin(parts, scope)
    if (unclear := _shared_lesion(text, parts)) is not None:
        return unclear
    parts, warnings = _complete(parts, scope)
    if len(parts) == 1:
        return scope.read(parts[0])
    readings = [settle(scope.read(part), scope) for part in dict.fromkeys(parts)]
    failed = [reading for reading in readings if reading.status != "ok"]
    warnings += [warning for reading in readings for warning in reading.warnings]
    if failed:
        return _refuse_list(readings, failed, warnings, scope)
    warnings += _sides_not_shared(parts, readings, scope)
    concepts = dict.fromkeys(concept for reading in readings for concept in reading.concepts)
    confidence = min(LISTED, *(reading.confidence for reading in readings))
    return Reading("ok", tuple(concepts), "list", confidence, tuple(dict.fromkeys(warnings)))


def _rejoin(parts: list[str], scope: Scope) -> list[str]:
    """The parts with those put together that are one name, as "portal vein and splenic vein"."""
    joined: list[str] = []
    for part in parts:
        if joined and scope.tree.lookup(f"{joined[-1]} and {part}"):
            joined[-1] = f"{joined[-1]} and {part}"
        else:
            joined.append(part)
    return joined


def _refuse_list(
    readings: list[Reading], failed: list[Reading], warnings: list[str], scope: Scope
) -> Reading:
    """The worst status of the parts, with every reason and what could be asked instead."""
    order: tuple[Status, ...] = ("reject", "unsupported", "ambiguous")
    worst = min((reading.status for reading in failed), key=order.index)
    instead = [name for reading in failed for name in reading.suggestions]
    instead += [
        scope.tree[concept].name
        for reading in readings
        if reading.status == "ok"
        for concept in reading.concepts[:1]
    ]
    return replace(
        failed[0],
        status=worst,
        method="list",
        warnings=tuple(dict.fromkeys(warnings)),
        suggestions=tuple(dict.fromkeys(instead)),
        candidates=tuple(dict.fromkeys(c for reading in failed for c in reading.candidates)),
        decidable=False,
    )


def _shared_lesion(text: str, parts: list[str]) -> Reading | None:
    """Refuses a list that may or may not share one lesion, such as "liver and kidney tumor"."""
    sick = [mentions_lesion(part) for part in parts]
    if all(sick) or not any(sick):
        return None
    last = set(parse(parts[-1]).words)
    repeats_site = sick[-1] and all(
        set(parse(part).words) <= last
        for part, is_sick in zip(parts, sick, strict=True)
        if not is_sick
    )
    leads = sick[0] and re.search(r"\b(?:of|in|on|at)\b", parts[0]) is not None
    trails = sick[-1] and not any(sick[:-1]) and " and " in text
    if repeats_site or not (leads or trails):
        return None
    why = f"'{text}' may ask for a finding in every part or in one; ask for each on its own."
    return refuse("ambiguous", why, method="list", suggestions=tuple(parts))


def _complete(parts: list[str], scope: Scope) -> tuple[list[str], list[str]]:
    """Gives each part the words it shares with a neighbour, as in "left and right kidney"."""
    done: list[str] = []
    warnings: list[str] = []
    shared_side: str | None = None
    lender = 0
    for index, original in enumerate(parts):
        part = original
        side, rest = split_side(part)
        following = parts[index + 1] if index + 1 < len(parts) else None
        if side is not None and not set(rest.split()) - _STAND_INS:
            _borrow_name(side, following, done)
            continue
        if shared_side is not None and side is None and index <= lender:
            part = f"{shared_side} {part}"
        borrowed = _borrow(part, parts[index + 1 :], scope)
        if borrowed is not None:
            part = borrowed[0]
            lender = index + borrowed[1]
            shared_side = side or shared_side
        elif done and (headed := _borrow_head(part, done[-1], scope)) is not None:
            part = headed
        if part != original:
            warnings.append(f"'{original}' is interpreted as '{part}'.")
        done.append(part)
    return done, warnings


def _borrow_name(side: str, following: str | None, done: list[str]) -> None:
    """Adds the part that a lone side stands for."""
    if following is None and done and split_side(done[-1])[0] is None:
        # "kidney, left" is one structure in catalogue order
        done[-1] = f"{side} {done[-1]}"
        return
    neighbour = following or (done[-1] if done else "")
    done.append(f"{side} {split_side(neighbour)[1]}")


def _borrow(part: str, following: list[str], scope: Scope) -> tuple[str, int] | None:
    """The part with the end of a later one, where it means nothing alone but something then.

    Returns the longer part and how many parts further on its end was found.
    """
    if not following or scope.read(part).status not in ("reject", "ambiguous"):
        return None
    for distance, lender in enumerate(following[:_MAX_DISTANCE], start=1):
        words = lender.split()
        for start in range(1, len(words)):
            longer = f"{part} {' '.join(words[start:])}"
            if scope.read(longer).status == "ok":
                return longer, distance
    return None


def _borrow_head(part: str, before: str, scope: Scope) -> str | None:
    """The part with the beginning of the one before it, as in "gluteus maximus and medius"."""
    if len(part.split()) > _MAX_ENDING or scope.read(part).status != "reject":
        return None
    if scope.read(before).status != "ok":
        return None
    words = before.split()
    for end in range(len(words) - 1, 0, -1):
        longer = f"{' '.join(words[:end])} {part}"
        if split_side(longer)[0] != "conflict" and scope.read(longer).status == "ok":
            return longer
    return None


def _sides_not_shared(parts: list[str], readings: list[Reading], scope: Scope) -> list[str]:
    """Warns where a paired part without a side stands beside a part with one."""
    sides = [split_side(part)[0] for part in dict.fromkeys(parts)]
    if not any(side in ("left", "right") for side in sides):
        return []
    return [
        f"'{part}' names no side, so both sides are taken."
        for part, side, reading in zip(dict.fromkeys(parts), sides, readings, strict=True)
        if side is None
        and (len(reading.concepts) > 1 or f"{reading.concepts[0]}.left" in scope.tree)
    ]
