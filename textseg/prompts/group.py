"""Everyday groups that are no concept of the tree, spelled out as the names they gather."""

from __future__ import annotations

from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import normalise, parse

GROUPED = 0.9

GROUPS: dict[str, tuple[str, ...]] = {
    "heart chambers": ("atrium of heart", "ventricle of heart"),
    "cardiac chambers": ("atrium of heart", "ventricle of heart"),
    "deep gray nuclei": ("caudate nucleus", "putamen", "globus pallidus", "thalamus"),
    "gluteal muscles": ("gluteus maximus", "gluteus medius", "gluteus minimus"),
    "great vessels": ("aorta", "superior vena cava", "inferior vena cava", "pulmonary artery"),
    "bowels": ("small bowel", "duodenum", "colon"),
}


def read(text: str, scope: Scope) -> Reading | None:
    """The members of a group, on the side asked for; refused as a whole if one is unknown."""
    phrase = parse(text)
    names = next(
        (members for name, members in GROUPS.items() if _words(name) == phrase.words), None
    )
    if names is None or phrase.side == "conflict":
        return None
    side = f"{phrase.side} " if phrase.side else ""
    concepts: dict[str, None] = {}
    missing = []
    for name in names:
        reading = exact_or_sided(parse(normalise(side + name)), scope)
        if reading is None or reading.status != "ok":
            missing.append(name)
        else:
            concepts |= dict.fromkeys(reading.concepts)
    if missing:
        why = f"'{text}' needs {', '.join(missing)}, which the knowledge tree does not hold."
        known = tuple(scope.tree[concept].name for concept in concepts)
        return refuse("unsupported", why, method="group", suggestions=known)
    return Reading("ok", tuple(concepts), "group", GROUPED)


def _words(name: str) -> tuple[str, ...]:
    return parse(normalise(name)).words
