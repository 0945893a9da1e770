"""The last resort: a single slip of the keyboard is corrected openly, anything more is refused."""

from __future__ import annotations

from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import STOP_WORDS, Side, parse, split_side

CORRECTED = 0.9
ACCEPT, SUGGEST, MARGIN = 90.0, 75.0, 5.0
# shorter names are one slip away from too many other words (colony, hearth)
_MIN_LETTERS = 6
_MAX_WORDS = 10


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
        if reading is not None and reading.status == "ok":
            warning = f"'{text}' is interpreted as '{_with_side(side, alike[0][0])}'."
            confidence = CORRECTED * alike[0][1] / 100
            return Reading("ok", reading.concepts, "fuzzy", confidence, (warning,))
    return _refuse(text, side, alike, scope)


def _is_safe(base: str, alike: list[tuple[str, float]], scope: Scope) -> bool:
    """Whether one slip separates the text from one structure and no other comes close."""
    name, score = alike[0]
    meant = scope.lexicon.find(parse(name))
    rivals = [other for other, near in alike[1:] if near > score - MARGIN]
    if any(scope.lexicon.find(parse(other)) != meant for other in rivals):
        return False
    changed = [(a, b) for a, b in zip(base.split(), name.split(), strict=True) if a != b]
    return (
        base.isascii()
        and base.replace(" ", "").isalpha()
        and OSA.distance(base, name) == 1
        and all(len(b) >= _MIN_LETTERS and fuzz.ratio(a, b) >= ACCEPT for a, b in changed)
    )


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
