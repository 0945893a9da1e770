"""Words with several meanings that names alone do not show, such as "T1", "LV" or "ventricle"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textseg.prompts.adjective import as_noun
from textseg.prompts.imaged import labelled_on
from textseg.prompts.name import named_once, on_side
from textseg.prompts.prompt import Modality, Reading, Scope
from textseg.prompts.wording import Phrase, parse

IN_CONTEXT, BY_MODALITY = 0.9, 0.85


@dataclass(frozen=True)
class AmbiguousWord:
    """The meanings of a word.

    Args:
        senses: Names of structures, as a user may type them; those the tree lacks are left out.
        also: A meaning that is no structure, in words.
        modality: The modality in which ``also`` cannot be meant.
        decidable: Whether support may single a sense out. Not so where a wrong guess would put
            the mask in another part of the body.
    """

    senses: tuple[str, ...]
    also: str | None = None
    modality: Modality | None = None
    decidable: bool = True


_WEIGHTING = "the {}-weighted MR sequence"
_LOBES = ("lobe of lung", "lobe of liver", "frontal lobe", "temporal lobe", "thyroid lobe")
_CORTICES = ("cerebral cortex", "renal cortex", "adrenal cortex", "cerebellar cortex")

WORDS: dict[str, AmbiguousWord] = {
    "ventricle": AmbiguousWord(("ventricle of heart", "ventricular system")),
    "lv": AmbiguousWord(("left ventricle of heart", "lateral ventricle"), decidable=False),
    "pv": AmbiguousWord(("portal vein", "pulmonary vein"), decidable=False),
    "pe": AmbiguousWord(
        ("pulmonary embolism", "pleural effusion", "pericardial effusion"), decidable=False
    ),
    "aao": AmbiguousWord(("ascending aorta", "abdominal aorta"), decidable=False),
    "pelvis": AmbiguousWord(("pelvic girdle", "pelvic region", "renal pelvis"), decidable=False),
    "caudate": AmbiguousWord(("caudate nucleus", "caudate lobe of liver")),
    "cortex": AmbiguousWord(_CORTICES, decidable=False),
    "lobe": AmbiguousWord(_LOBES, decidable=False),
    "jaw": AmbiguousWord(("mandible", "maxilla"), decidable=False),
    "iliac": AmbiguousWord(("iliac artery", "iliac vein", "iliac bone"), decidable=False),
    "subclavian": AmbiguousWord(("subclavian artery", "subclavian vein"), decidable=False),
    "brachiocephalic": AmbiguousWord(
        ("brachiocephalic trunk", "brachiocephalic vein"), decidable=False
    ),
    "frontal": AmbiguousWord(("frontal lobe", "frontal bone"), decidable=False),
    "parietal": AmbiguousWord(("parietal lobe", "parietal bone"), decidable=False),
    "temporal": AmbiguousWord(("temporal lobe", "temporal bone"), decidable=False),
    "occipital": AmbiguousWord(("occipital lobe", "occipital bone"), decidable=False),
    "t1": AmbiguousWord(("vertebra T1",), _WEIGHTING.format("T1"), "ct", decidable=False),
    "t2": AmbiguousWord(("vertebra T2",), _WEIGHTING.format("T2"), "ct", decidable=False),
}

_HEAD_OF = re.compile(r"\bhead of\b")
_INSIDE = re.compile(r"^\w+ (?:in|within|inside) ")
# words of a prompt that place a meaning without naming it
_SCANS = frozenset({"ct", "mr", "mri", "cta", "scan", "image", "chamber"})
_PLACES = {
    "heart": "heart",
    "brain": "brain",
    "cerebrum": "brain",
    "cerebral": "brain",
    "head": "brain",
    "liver": "liver",
    "lung": "lung",
    "kidney": "kidney",
}


def read(text: str, scope: Scope) -> Reading | None:
    """The meanings of an ambiguous word, on the side the prompt names if it names one."""
    phrase = parse(text)
    word = WORDS.get(" ".join(phrase.words))
    if word is None:
        return _read_placed(text, phrase, scope)
    senses = _senses(word, phrase, scope)
    if phrase.side in ("left", "right") and len(senses) == 1 and word.also is None:
        return Reading("ok", tuple(senses), "side", 0.95)
    if word.also is not None and scope.modality == word.modality and len(senses) == 1:
        return Reading("ok", tuple(senses), "name", 0.95)
    if not senses:
        return None
    if (seen := _seen_on(senses, word, scope)) is not None:
        name = scope.tree[seen].name
        why = f"Interpreted as {name}: the others are not labelled on this modality."
        return Reading("ok", (seen,), "modality", BY_MODALITY, warnings=(why,))
    meanings = [scope.tree[sense].name for sense in senses]
    # a meaning the tree does not hold is still one the user may have had in mind
    meanings += [name for name in word.senses if named_once(name, scope) is None]
    meanings += [word.also] if word.also else []
    return Reading(
        "ambiguous",
        method="ambiguity",
        warnings=(f"'{text}' can mean {_either(meanings)}.",),
        suggestions=tuple(scope.tree[sense].name for sense in senses),
        candidates=tuple(senses),
        decidable=word.decidable,
    )


def _senses(word: AmbiguousWord, phrase: Phrase, scope: Scope) -> list[str]:
    senses = [found for name in word.senses if (found := named_once(name, scope)) is not None]
    if phrase.side in ("left", "right"):
        sided = [on_side(sense, phrase.side, scope) for sense in senses]
        senses = [members[0] for members in sided if len(members) == 1]
    return senses


def _seen_on(senses: list[str], word: AmbiguousWord, scope: Scope) -> str | None:
    """The one meaning that is labelled on the scan's modality, if that is known of all of them."""
    if scope.modality is None or word.also is not None:
        return None
    labelled = {sense: labelled_on(sense, scope.tree) for sense in senses}
    seen = [sense for sense, modalities in labelled.items() if scope.modality in modalities]
    return seen[0] if len(seen) == 1 and all(labelled.values()) else None


def _read_placed(text: str, phrase: Phrase, scope: Scope) -> Reading | None:
    """The meaning of an ambiguous word beside a word for the place, as in "LV of the heart".

    Any structure is a place for what is in it: "PE in the pulmonary artery".
    """
    named = [word for word in phrase.words if word in WORDS]
    rest = [word for word in phrase.words if word not in WORDS and word not in _SCANS]
    if len(named) != 1 or not rest or _HEAD_OF.search(text):
        return None
    nouns = [_PLACES.get(as_noun(word)) for word in rest]
    if not all(nouns) and not _INSIDE.search(text):
        return None
    sites = [name for name in nouns if name] if all(nouns) else [" ".join(rest)]
    places = [found for name in sites for found in scope.lexicon.named(name)]
    if not places:
        return None
    senses = _senses(WORDS[named[0]], phrase, scope)
    placed = [s for s in senses if set(places) <= {*scope.tree.ancestors(s)}]
    if len(placed) != 1:
        return None
    return Reading("ok", (placed[0],), "context", IN_CONTEXT)


def _either(meanings: list[str]) -> str:
    *most, last = meanings
    return f"{', '.join(most)} or {last}" if most else last
