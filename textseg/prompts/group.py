"""Everyday groups that are no concept of the tree, spelled out as the names they gather."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from textseg.prompts.name import exact_or_sided, named_once
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import Phrase, normalise, parse

GROUPED = 0.9

_CHAMBERS = (
    "left atrium of heart",
    "right atrium of heart",
    "left ventricle of heart",
    "right ventricle of heart",
)
_LOBES = (
    "left upper lobe of lung",
    "left lower lobe of lung",
    "right upper lobe of lung",
    "right middle lobe of lung",
    "right lower lobe of lung",
)
_LIVER_SEGMENTS = ("caudate lobe of liver", *(f"liver segment {n}" for n in range(2, 9)))
_ABDOMINAL = (
    "liver",
    "gallbladder",
    "spleen",
    "pancreas",
    "stomach",
    "duodenum",
    "small bowel",
    "colon",
    "kidney",
    "adrenal gland",
)
_CEREBRAL_LOBES = ("frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe")


def _vertebrae(letter: str, last: int) -> tuple[str, ...]:
    return tuple(f"vertebra {letter}{n}" for n in range(1, last + 1))


def _ribs(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"rib {n}" for n in range(first, last + 1))


def _discs(*levels: str) -> tuple[str, ...]:
    return tuple(f"intervertebral disc {upper} {lower}" for upper, lower in pairwise(levels))


GROUPS: dict[str, tuple[str, ...]] = {
    "heart chambers": _CHAMBERS,
    "cardiac chambers": _CHAMBERS,
    "deep gray nuclei": ("caudate nucleus", "putamen", "globus pallidus", "thalamus"),
    "subcortical nuclei": ("caudate nucleus", "putamen", "globus pallidus", "thalamus"),
    "gluteal muscles": ("gluteus maximus", "gluteus medius", "gluteus minimus"),
    "gluteus muscles": ("gluteus maximus", "gluteus medius", "gluteus minimus"),
    "glutes": ("gluteus maximus", "gluteus medius", "gluteus minimus"),
    "gluteus": ("gluteus maximus", "gluteus medius", "gluteus minimus"),
    "great vessels": ("aorta", "superior vena cava", "inferior vena cava", "pulmonary artery"),
    "bowels": ("small bowel", "duodenum", "colon"),
    "lung lobes": _LOBES,
    "pulmonary lobes": _LOBES,
    "liver segments": _LIVER_SEGMENTS,
    "hepatic segments": _LIVER_SEGMENTS,
    "couinaud segments": _LIVER_SEGMENTS,
    "couinaud liver segments": _LIVER_SEGMENTS,
    "abdominal organs": _ABDOMINAL,
    "organs of the abdomen": _ABDOMINAL,
    "abdominal viscera": _ABDOMINAL,
    "brain lobes": _CEREBRAL_LOBES,
    "cerebral lobes": _CEREBRAL_LOBES,
    "prostate zones": ("peripheral zone of prostate", "transition zone of prostate"),
    "airways": ("trachea", "bronchus"),
    "venae cavae": ("superior vena cava", "inferior vena cava"),
    "cavae": ("superior vena cava", "inferior vena cava"),
    "true ribs": _ribs(1, 7),
    "false ribs": _ribs(8, 12),
    "floating ribs": _ribs(11, 12),
    "all lumbar vertebrae": _vertebrae("l", 5),
    "all thoracic vertebrae": _vertebrae("t", 12),
    "all cervical vertebrae": _vertebrae("c", 7),
    "lumbar discs": _discs("l1", "l2", "l3", "l4", "l5", "s1"),
    "lumbar intervertebral discs": _discs("l1", "l2", "l3", "l4", "l5", "s1"),
}

_COUNT_WORDS = "all two three four five six seven eight nine ten twelve 4 5 8"
_COUNTS = frozenset(_COUNT_WORDS.split())
# a model that knows the whole needs no parts of it
_WHOLES = {"bowel": "intestine"}


def is_group(text: str) -> bool:
    """Whether a ``normalise``d text is a group exactly as listed, word for word."""
    return text in _spelled_out()


def read(text: str, scope: Scope) -> Reading | None:
    """The members of a group, on the side asked for; refused as a whole if one is unknown."""
    phrase = parse(text)
    names = _members().get(phrase.words)
    if names is None:
        count, _, counted = text.partition(" ")
        names = _members().get(parse(counted).words) if count in _COUNTS else None
    if names is None or phrase.side == "conflict" or _is_one_concept(phrase, scope):
        return None
    concepts: dict[str, None] = {}
    missing = []
    for name in names:
        own_side = parse(normalise(name)).side
        if own_side is not None and phrase.side in ("left", "right") and own_side != phrase.side:
            continue
        side = f"{phrase.side} " if phrase.side and own_side is None else ""
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


def _is_one_concept(phrase: Phrase, scope: Scope) -> bool:
    """Whether the tree has the group as a concept, and nobody needs it spelled out."""
    if scope.supported is None:
        return bool(scope.lexicon.find(Phrase(phrase.words, None)))
    whole = _WHOLES.get(" ".join(phrase.words))
    return whole is not None and named_once(whole, scope) in scope.supported


@cache
def _members() -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """The names a group gathers, by the words of its own."""
    return {parse(normalise(name)).words: members for name, members in GROUPS.items()}


@cache
def _spelled_out() -> frozenset[str]:
    return frozenset(normalise(name) for name in GROUPS)
