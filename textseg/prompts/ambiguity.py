"""Words with several meanings that names alone do not show, such as "T1", "LV" or "ventricle"."""

from __future__ import annotations

from dataclasses import dataclass

from textseg.prompts.name import named_once, on_side
from textseg.prompts.prompt import Modality, Reading, Scope
from textseg.prompts.wording import parse


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

WORDS: dict[str, AmbiguousWord] = {
    "ventricle": AmbiguousWord(("ventricle of heart", "ventricular system")),
    "lv": AmbiguousWord(("left ventricle of heart", "lateral ventricle"), decidable=False),
    "pv": AmbiguousWord(("portal vein", "pulmonary vein"), decidable=False),
    "pelvis": AmbiguousWord(("pelvic girdle", "pelvic region", "renal pelvis"), decidable=False),
    "caudate": AmbiguousWord(("caudate nucleus", "caudate lobe of liver")),
    "iliac": AmbiguousWord(("iliac artery", "iliac vein", "iliac bone"), decidable=False),
    "subclavian": AmbiguousWord(("subclavian artery", "subclavian vein"), decidable=False),
    "brachiocephalic": AmbiguousWord(
        ("brachiocephalic trunk", "brachiocephalic vein"), decidable=False
    ),
    "t1": AmbiguousWord(("vertebra T1",), _WEIGHTING.format("T1"), "ct", decidable=False),
    "t2": AmbiguousWord(("vertebra T2",), _WEIGHTING.format("T2"), "ct", decidable=False),
}


def read(text: str, scope: Scope) -> Reading | None:
    """The meanings of an ambiguous word, on the side the prompt names if it names one."""
    phrase = parse(text)
    word = WORDS.get(" ".join(phrase.words))
    if word is None:
        return None
    senses = [found for name in word.senses if (found := named_once(name, scope)) is not None]
    if phrase.side in ("left", "right"):
        sided = [on_side(sense, phrase.side, scope) for sense in senses]
        senses = [members[0] for members in sided if len(members) == 1]
    if phrase.side in ("left", "right") and len(senses) == 1 and word.also is None:
        return Reading("ok", tuple(senses), "side", 0.95)
    if word.also is not None and scope.modality == word.modality and len(senses) == 1:
        return Reading("ok", tuple(senses), "name", 0.95)
    if not senses:
        return None
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


def _either(meanings: list[str]) -> str:
    *most, last = meanings
    return f"{', '.join(most)} or {last}" if most else last
