"""From the text of a prompt to the concepts it asks for, or to the reason why there are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from textseg.knowledge import KnowledgeTree
from textseg.prompts import (
    adjective,
    ambiguity,
    colloquial,
    composition,
    fuzzy,
    group,
    language,
    lesion,
    level,
    microscopic,
    name,
    numbering,
    sentence,
    shorthand,
)
from textseg.prompts.guard import reason_to_refuse
from textseg.prompts.lexicon import lexicon_of
from textseg.prompts.prompt import Modality, Reading, Resolution, Scope, refuse
from textseg.prompts.support import settle
from textseg.prompts.wording import normalise, strip_commands

# parts of one prompt that are read at most; a word salad has no end of them
_MOST_READINGS = 64
_EXAMINATION = re.compile(
    r"(?:\w+ ){1,3}"
    r"(?:scan|imaging|study|exam|examination|ultrasound|xray|x ray|radiograph|mammogram)|"
    r"(?:\w+ ){0,2}\w{3,}(?:ic|al|ar|ac) (?:ct|cta|mr|mri|mra|pet)(?: \w+)?"
)
# named after a structure or finding without being one
_NAMED_AFTER = re.compile(
    r"stroke (?:volume|work|index|risk|rate)|(?:organ|atla|atlas|axis|disc) (?:label|image|volume|"
    r"length|registration)|(?:atla|atlas|label) (?:atla|atlas|registration|segmentation)"
)
_PLACED = re.compile(r"\b(?:in|on|from|of|this|the|segment|show|find|outline|please|mask)\b")
_GLOSSED = re.compile(r"\s*([^()]*[^()\s])\s*[(\[]([^()\[\]]+)[)\]][\s.]*")

_NOTHING_KNOWN = "none"

Kind = Callable[[str, Scope], Reading | None]
Near = Callable[[str], Sequence[str]]

KINDS: dict[str, Kind] = {
    "microscopic": microscopic.read,
    "colloquial": colloquial.read,
    "group": group.read,
    "ambiguity": ambiguity.read,
    "unplaced lesion": lesion.read_unplaced,
    "numbering": numbering.read,
    "name": name.read,
    "adjective": adjective.read,
    "shorthand": shorthand.read,
    "language": language.read,
    "level": level.read,
    "sentence": sentence.read,
    "description": sentence.read_described,
    "composition": composition.read,
    "lesion": lesion.read,
    "fuzzy": fuzzy.read,
}
"""Every kind of prompt, in the order in which they are tried; the first that answers decides."""


def resolve(
    prompt: str,
    tree: KnowledgeTree,
    *,
    supported: Collection[str] | None = None,
    modality: Modality | None = None,
    near: Near | None = None,
) -> Resolution:
    """What the user asks for, in concepts of the tree.

    Never raises, whatever the text, and never guesses silently: an assumption is a warning, and a
    prompt that cannot be answered comes back with a status other than ``ok`` and a reason.

    Args:
        prompt: What the user wrote.
        tree: The knowledge tree. What the core of an extended one understands keeps its meaning.
        supported: Ids the model can segment. If given, the concepts of the answer are among them:
            a pair or group is spelled out in supported members, a structure that cannot be
            expressed is ``unsupported``. Without it, nothing is unsupported for lack of training.
        modality: Modality of the scan, where it settles what an ambiguous word means.
        near: Gives names that are near in meaning to a text; they are suggested, never taken, if
            nothing else is known of it.
    """
    why = reason_to_refuse(prompt)
    if why is not None:
        return Resolution(prompt, "reject", method="guard", warnings=(why,))
    answer = _answer(prompt, _scope(tree.core, supported, modality), near)
    if tree.core is tree or not (answer.status == "reject" or answer.method == "fuzzy"):
        return answer
    # an extension of the tree may speak only where its core knows nothing, or nothing so spelt
    further = _answer(prompt, _scope(tree, supported, modality), near)
    if further.status == "reject" or (answer.status == "ok" and further.method == "fuzzy"):
        return answer
    return further


def _answer(prompt: str, scope: Scope, near: Near | None) -> Resolution:
    """What a prompt that was not refused means in the tree of a scope."""
    tree = scope.tree
    concept_id = prompt.strip().casefold()
    if "." in concept_id and concept_id in tree:
        return _resolution(prompt, settle(Reading("ok", (concept_id,), "id", 1.0), scope))
    text = normalise(prompt)
    if _is_examination(text):
        why = f"'{text}' names an examination or a measure, not a structure."
        return Resolution(prompt, "reject", method="examination", warnings=(why,))
    if not tree.lookup(text) and not group.is_group(text):
        text = strip_commands(text)
        if "separately" not in text.split():
            # "the left and right kidney" stand at the edge now, and are both
            text = normalise(text)
    reading = scope.read(text)
    if reading.status == "reject" and (glossed := _read_glossed(prompt, scope)) is not None:
        reading = glossed
    reading = settle(reading, scope)
    if near is not None and reading.method == _NOTHING_KNOWN and not reading.suggestions:
        reading = settle(replace(reading, suggestions=tuple(near(text))), scope)
    return _resolution(prompt, reading)


def _is_examination(text: str) -> bool:
    """Whether a text is called after what was scanned and how, as in "cardiac mri"."""
    if _NAMED_AFTER.fullmatch(text):
        return True
    return _EXAMINATION.fullmatch(text) is not None and _PLACED.search(text) is None


def _read_glossed(prompt: str, scope: Scope) -> Reading | None:
    """A name with its abbreviation or another name after it: "inferior vena cava (IVC)"."""
    match = _GLOSSED.fullmatch(prompt)
    if match is None:
        return None
    reading, again = (scope.read(strip_commands(normalise(part))) for part in match.groups())
    same = set(reading.concepts) == set(again.concepts)
    meant = same or set(reading.concepts) <= set(again.candidates)
    meant |= again.status == "reject" and _initials(match[1]) == match[2].strip().casefold()
    return reading if reading.status == "ok" and meant else None


def _initials(name: str) -> str:
    return "".join(word[0] for word in re.findall(r"\w+", name.casefold()))


def _scope(
    tree: KnowledgeTree, supported: Collection[str] | None, modality: Modality | None
) -> Scope:
    known = None if supported is None else frozenset(supported)
    lexicon = lexicon_of(tree)
    readings: dict[str, Reading] = {}

    def read(text: str) -> Reading:
        # parts of a list are looked at more than once
        if text not in readings:
            if len(readings) >= _MOST_READINGS:
                return _unknown(text)
            # what a kind makes of a phrase never leads back to the phrase itself
            readings[text] = _unknown(text)
            readings[text] = _read(text, scope)
        return readings[text]

    scope = Scope(tree, lexicon, known, modality, read)
    return scope


def _read(text: str, scope: Scope) -> Reading:
    """The first answer of the table."""
    if not text:
        return refuse("reject", "The prompt names nothing.", method="empty")
    for kind in KINDS.values():
        reading = kind(text, scope)
        if reading is not None:
            return reading
    return _unknown(text)


def _unknown(text: str) -> Reading:
    why = f"'{text}' is not the name of a known structure."
    return refuse("reject", why, method=_NOTHING_KNOWN)


def _resolution(prompt: str, reading: Reading) -> Resolution:
    warnings = reading.warnings
    if reading.status == "reject" and reading.suggestions:
        warnings = (*warnings, f"Did you mean '{reading.suggestions[0]}'?")
    answer = Resolution(
        prompt,
        reading.status,
        method=reading.method,
        warnings=warnings,
        suggestions=reading.suggestions,
    )
    if reading.status == "ok":
        return replace(answer, concepts=reading.concepts, confidence=reading.confidence)
    if reading.status == "ambiguous":
        return replace(answer, candidates=reading.candidates)
    return answer
