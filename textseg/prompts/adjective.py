"""An adjective that stands for its organ, as in "hepatic" or "renal organ"."""

from __future__ import annotations

from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope
from textseg.prompts.wording import Phrase, normalise, parse

ADJECTIVAL = 0.85

ADJECTIVES: dict[str, str] = {
    "adrenal": "adrenal gland",
    "aortic": "aorta",
    "cardiac": "heart",
    "cerebellar": "cerebellum",
    "clavicular": "clavicle",
    "colonic": "colon",
    "duodenal": "duodenum",
    "esophageal": "esophagus",
    "femoral": "femur",
    "gastric": "stomach",
    "hepatic": "liver",
    "hippocampal": "hippocampus",
    "humeral": "humerus",
    "ocular": "eyeball",
    "pancreatic": "pancreas",
    "prostatic": "prostate",
    "pulmonary": "lung",
    "rectal": "rectum",
    "renal": "kidney",
    "sacral": "sacrum",
    "scapular": "scapula",
    "splenic": "spleen",
    "sternal": "sternum",
    "thalamic": "thalamus",
    "thyroid": "thyroid gland",
    "tracheal": "trachea",
    "uterine": "uterus",
    "vesical": "urinary bladder",
}


def read(text: str, scope: Scope) -> Reading | None:
    """The organ of a lone adjective, with or without the word "organ" and a side."""
    phrase = parse(text)
    adjectives = [word for word in phrase.words if word != "organ"]
    if len(adjectives) != 1 or adjectives[0] not in ADJECTIVES:
        return None
    noun = ADJECTIVES[adjectives[0]]
    reading = exact_or_sided(Phrase(parse(normalise(noun)).words, phrase.side), scope)
    if reading is None or reading.status != "ok":
        return reading
    return Reading(
        "ok",
        reading.concepts,
        "adjective",
        ADJECTIVAL,
        warnings=(f"'{text}' is interpreted as {noun}.",),
    )


def as_noun(word: str) -> str:
    """The organ of an adjective, or the word itself."""
    return ADJECTIVES.get(word, word)
