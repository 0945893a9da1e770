"""Turns what a phrase means into what a model can segment, and says so when it cannot."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from textseg.prompts.name import named_once
from textseg.prompts.prompt import Reading, Scope

_MAX_SUGGESTIONS = 5
_MAX_STEPS = 3
# a concept with more kinds and parts than this relates them too loosely to suggest one for another
_HUB = 16
# below this share of its members, a group without the rest would mislead
_ENOUGH = 0.6


def settle(reading: Reading, scope: Scope) -> Reading:
    """The reading in supported concepts only; applying it again changes nothing."""
    if scope.supported is None:
        return reading
    if reading.status == "ok":
        return _express(reading, scope)
    if reading.status == "ambiguous":
        return _decide(reading, scope)
    return replace(reading, suggestions=_expressible_names(reading, scope))


def _express(reading: Reading, scope: Scope) -> Reading:
    concepts: dict[str, None] = {}
    warnings = list(reading.warnings)
    unknown = []
    for concept in reading.concepts:
        found, missing = _members(concept, scope)
        if not found and (either := _either_side(concept, scope)) is not None:
            name = scope.tree[either].name
            warnings.append(f"The side is not told apart: {name} on either side is taken.")
            found, missing = (either,), ()
        if not found:
            unknown.append(concept)
        elif missing:
            absent = ", ".join(scope.tree[member].name for member in missing)
            name = scope.tree[concept].name
            warnings.append(f"The model does not know all of {name}; not included: {absent}.")
        concepts |= dict.fromkeys(found)
    if not unknown:
        whole = _paired(concepts, scope) if reading.method == "exclusion" else tuple(concepts)
        return replace(reading, concepts=whole, warnings=tuple(warnings))
    return _unsupported(reading, unknown, warnings, scope)


def _paired(concepts: Iterable[str], scope: Scope) -> tuple[str, ...]:
    """The concepts with left and right together as the one they make up, where that is known."""
    given = dict.fromkeys(concepts)
    paired: dict[str, None] = {}
    for concept in given:
        base = scope.tree[concept].base
        halves = scope.tree.counterpart(concept) in given and base in (scope.supported or ())
        paired[base if halves and scope.tree[concept].side else concept] = None
    return tuple(paired)


def _unsupported(
    reading: Reading, unknown: Iterable[str], warnings: Iterable[str], scope: Scope
) -> Reading:
    """The refusal of concepts that the model cannot express, with what lies nearest to them."""
    names = ", ".join(scope.tree[concept].name for concept in unknown)
    near = dict.fromkeys(name for concept in unknown for name in nearest(concept, scope))
    return Reading(
        "unsupported",
        method=reading.method,
        warnings=(*warnings, f"The model was not trained on {names}."),
        suggestions=tuple(near)[:_MAX_SUGGESTIONS],
    )


def _either_side(concept: str, scope: Scope) -> str | None:
    """The supported finding of which this is the one on one side."""
    entry = scope.tree[concept]
    known = entry.base in (scope.supported or ())
    return entry.base if entry.kind == "lesion" and entry.side is not None and known else None


def _members(concept: str, scope: Scope) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Supported concepts that make up a concept, and its members that are not supported."""
    supported = scope.supported or frozenset()
    if exact := scope.tree.leaves(concept, supported):
        return exact, ()
    for partition in scope.tree[concept].made_of:
        found = [_members(member, scope) for member in partition]
        share = sum(bool(members) for members, _ in found) / len(partition)
        if share >= _ENOUGH:
            missing = [
                absent
                for member, (members, missing) in zip(partition, found, strict=True)
                for absent in (missing if members else (member,))
            ]
            known = dict.fromkeys(member for members, _ in found for member in members)
            return tuple(known), tuple(dict.fromkeys(missing))
    return (), (concept,)


def _decide(reading: Reading, scope: Scope) -> Reading:
    """The one meaning the model knows, if it knows exactly one and may be trusted to choose."""
    known = [c for c in reading.candidates if _members(c, scope)[0]]
    if not known and reading.method == "name" and reading.decidable:
        return _unsupported(reading, reading.candidates, reading.warnings, scope)
    if len(known) != 1 or not reading.decidable:
        names = tuple(scope.tree[c].name for c in known)
        return replace(reading, suggestions=names[:_MAX_SUGGESTIONS])
    name = scope.tree[known[0]].name
    chosen = f"Interpreted as {name}, the only one of its meanings that the model knows."
    warnings = (*reading.warnings, chosen)
    decided = replace(
        reading,
        status="ok",
        concepts=tuple(known),
        confidence=0.8,
        warnings=warnings,
        candidates=(),
        suggestions=(),
    )
    return _express(decided, scope)


def _expressible_names(reading: Reading, scope: Scope) -> tuple[str, ...]:
    """The suggestions that would be accepted; for real anatomy also what lies nearest to others."""
    result: dict[str, None] = {}
    for name in reading.suggestions:
        concept = named_once(name, scope)
        if concept is None:
            continue
        if _members(concept, scope)[0]:
            result[name] = None
        elif reading.status == "unsupported":
            result |= dict.fromkeys(nearest(concept, scope))
    return tuple(result)[:_MAX_SUGGESTIONS]


def nearest(concept: str, scope: Scope) -> tuple[str, ...]:
    """Names of supported structures next to a concept: its parts, what it belongs to, its kin.

    Where the tree relates it to nothing supported, structures of the same body region and system.
    """
    supported = scope.supported or frozenset()
    side = scope.tree[concept].side
    if scope.tree[concept].kind == "lesion":
        above = (i for i in scope.tree.ancestors(concept) if scope.tree[i].kind == "lesion")
        kin = tuple(scope.tree[i].name for i in above if i in supported)
        if kin:
            return kin[:_MAX_SUGGESTIONS]
    found: dict[str, None] = {}
    seen = {concept}
    waiting = deque([(concept, 0)])
    while waiting and len(found) < _MAX_SUGGESTIONS:
        current, steps = waiting.popleft()
        if current in supported:
            found[scope.tree[current].name] = None
        if steps == _MAX_STEPS or not (steps == 0 or _is_specific(current, scope)):
            continue
        for other in _neighbours(current, scope):
            opposite = side is not None and scope.tree[other].side not in (None, side)
            if other not in seen and not opposite:
                seen.add(other)
                waiting.append((other, steps + 1))
    return tuple(found)[:_MAX_SUGGESTIONS] or _nearby(concept, scope)


def _nearby(concept: str, scope: Scope) -> tuple[str, ...]:
    here = scope.tree[concept]
    near = [
        (other.kind != here.kind, other.system != here.system, other.id, other.name)
        for other in (scope.tree[known] for known in scope.supported or ())
        if other.region == here.region and (here.side is None or other.side in (None, here.side))
    ]
    return tuple(name for *_, name in sorted(near))[:_MAX_SUGGESTIONS]


def _is_specific(concept: str, scope: Scope) -> bool:
    """Whether kin found through a concept is near in the body: not so for "gland" or "thorax"."""
    entry = scope.tree[concept]
    return entry.kind not in ("region", "system") and bool(entry.part_of or entry.made_of)


def _neighbours(concept: str, scope: Scope) -> tuple[str, ...]:
    tree = scope.tree
    members = (member for partition in tree[concept].made_of for member in partition)
    below = (*tree.parts(concept), *tree.children(concept))
    above = reversed(tree.parents(concept))
    near = (*members, *(below if len(below) <= _HUB else ()), *above)
    return tuple(other for other in near if tree[other].kind != "lesion")
