"""A prompt that is one name: exact, in another word order, with a side, or for both sides."""

from __future__ import annotations

from collections import deque

from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import Phrase, Side, normalise, parse

EXACT, REORDERED, SIDED = 1.0, 0.98, 0.96


def read(text: str, scope: Scope) -> Reading | None:
    """The structures a single name stands for, or ``None`` when the words name nothing."""
    exact = tuple(concept.id for concept in scope.tree.lookup(text))
    if not exact:
        return exact_or_sided(parse(text), scope)
    if not any(scope.tree[concept].curated for concept in exact):
        # "basal ganglia" must not become an imported "basal ganglion"
        alike = scope.lexicon.find(parse(text))
        curated = tuple(concept for concept in alike if scope.tree[concept].curated)
        exact = curated or exact
    if len(exact) == 1:
        return Reading("ok", exact, "name", EXACT)
    return _choose(exact, scope)


def exact_or_sided(phrase: Phrase, scope: Scope) -> Reading | None:
    """What the words of a phrase name on the side the phrase asks for."""
    if not phrase.words or phrase.side == "conflict":
        return None
    if phrase.side in ("left", "right"):
        return _on_side(phrase, scope)
    return _on_both_sides(phrase, scope)


def _choose(ids: tuple[str, ...], scope: Scope, *, method: str = "name") -> Reading:
    if len(ids) == 1:
        return Reading("ok", ids, method, REORDERED)
    names = tuple(scope.tree[concept].name for concept in ids)
    why = f"Several structures have this name: {', '.join(names)}."
    return Reading("ambiguous", method=method, warnings=(why,), suggestions=names, candidates=ids)


def _on_side(phrase: Phrase, scope: Scope) -> Reading | None:
    found = scope.lexicon.find(phrase)
    if found:
        return _choose(found, scope, method="side")
    bases = scope.lexicon.find(Phrase(phrase.words, None))
    if not bases:
        return None
    sided = {base: members for base in bases if (members := on_side(base, phrase.side, scope))}
    if len(sided) == 1:
        return Reading("ok", next(iter(sided.values())), "side", SIDED)
    if sided:
        single = tuple(members[0] for members in sided.values() if len(members) == 1)
        return _choose(single, scope, method="side") if len(single) > 1 else None
    name = scope.tree[bases[0]].name
    if len(bases) == 1 and scope.tree[bases[0]].kind == "lesion":
        # a finding is no organ that a side could be cut out of; what is found is what is shown
        why = f"The side is not told apart: {name} on either side is taken."
        return Reading("ok", bases, "side", SIDED, warnings=(why,))
    return refuse(
        "unsupported",
        f"'{name}' is not known to have a {phrase.side} half of its own.",
        method="side",
        suggestions=(name,),
    )


def _on_both_sides(phrase: Phrase, scope: Scope) -> Reading | None:
    found = scope.lexicon.find(Phrase(phrase.words, None))
    if found and phrase.side == "both":
        paired = tuple(base for base in found if on_side(base, "left", scope))
        if not paired and len(found) == 1 and scope.tree[found[0]].kind == "lesion":
            return Reading("ok", found, "name", REORDERED)
        if not paired:
            name = scope.tree[found[0]].name
            return refuse(
                "unsupported",
                f"'{name}' does not come in a left and a right one.",
                method="side",
                suggestions=(name,),
            )
        found = paired
    if found:
        return _choose(found, scope)
    halves = [scope.lexicon.find(Phrase(phrase.words, side)) for side in ("left", "right")]
    if all(len(half) == 1 for half in halves):
        return Reading("ok", (*halves[0], *halves[1]), "side", SIDED)
    return None


def on_side(concept_id: str, side: Side | None, scope: Scope) -> tuple[str, ...]:
    """The largest concepts of one side below a concept: its half, or its members' halves."""
    found: dict[str, None] = {}
    seen = {concept_id}
    waiting = deque([concept_id])
    while waiting:
        current = waiting.popleft()
        concept = scope.tree[current]
        if concept.side == side:
            found[current] = None
        elif concept.side is None:
            below = members(current, scope)
            waiting.extend(child for child in below if child not in seen)
            seen.update(below)
    return tuple(found)


def members(concept_id: str, scope: Scope) -> tuple[str, ...]:
    """The concepts whose union is this one by the tree's first account, or none."""
    made_of = scope.tree[concept_id].made_of
    return made_of[0] if made_of else ()


def named_once(name: str, scope: Scope) -> str | None:
    """The one concept that answers to a name, or ``None`` when none or several do."""
    found = scope.lexicon.named(name)
    return found[0] if len(found) == 1 else None


def known_site(text: str, scope: Scope) -> str | None:
    """Name of the structure a phrase mentions apart from its side, if it is one."""
    words = parse(normalise(text)).words
    found = scope.lexicon.find(Phrase(words, None)) or scope.lexicon.find(Phrase(words, "left"))
    return scope.tree[found[0]].name if found else None
