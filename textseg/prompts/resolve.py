"""From the text of a prompt to the concepts it asks for, or to the reason why there are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
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
_GLOSSED = re.compile(r"\s*([^()]*[^()\s])\s*[(\[]([^()\[\]]+)[)\]][\s.]*")

Kind = Callable[[str, Scope], Reading | None]

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
) -> Resolution:
    """What the user asks for, in concepts of the tree.

    Never raises, whatever the text, and never guesses silently: an assumption is a warning, and a
    prompt that cannot be answered comes back with a status other than ``ok`` and a reason.

    Args:
        prompt: What the user wrote.
        tree: The knowledge tree.
        supported: Ids the model can segment. If given, the concepts of the answer are among them:
            a pair or group is spelled out in supported members, a structure that cannot be
            expressed is ``unsupported``. Without it, nothing is unsupported for lack of training.
        modality: Modality of the scan, where it settles what an ambiguous word means.
    """
    why = reason_to_refuse(prompt)
    if why is not None:
        return Resolution(prompt, "reject", method="guard", warnings=(why,))
    scope = _scope(tree, supported, modality)
    concept_id = prompt.strip().casefold()
    if "." in concept_id and concept_id in tree:
        return _resolution(prompt, settle(Reading("ok", (concept_id,), "id", 1.0), scope))
    text = normalise(prompt)
    if not tree.lookup(text) and not group.is_group(text):
        text = strip_commands(text)
    reading = scope.read(text)
    if reading.status == "reject" and (glossed := _read_glossed(prompt, scope)) is not None:
        reading = glossed
    return _resolution(prompt, settle(reading, scope))


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
        return refuse("reject", "The prompt names nothing.", method="none")
    for kind in KINDS.values():
        reading = kind(text, scope)
        if reading is not None:
            return reading
    return _unknown(text)


def _unknown(text: str) -> Reading:
    return refuse("reject", f"'{text}' is not the name of a known structure.", method="none")


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
