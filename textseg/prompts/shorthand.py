"""Names with words cut short, as in "inf. vena cava" or "liver seg 6"."""

from __future__ import annotations

from dataclasses import replace

from textseg.prompts.prompt import Reading, Scope
from textseg.prompts.wording import normalise

SPELLED_OUT = 0.93

_SHORT = {
    "inf": "inferior",
    "sup": "superior",
    "ant": "anterior",
    "post": "posterior",
    "lat": "lateral",
    "med": "medial",
    "int": "internal",
    "ext": "external",
    "asc": "ascending",
    "desc": "descending",
    "comm": "common",
    "seg": "segment",
    "segm": "segment",
    "art": "artery",
    "aa": "artery",
    "v": "vein",
    "vv": "vein",
    "n": "nerve",
    "nn": "nerve",
    "nrv": "nerve",
    "m": "muscle",
    "musc": "muscle",
    "gl": "gland",
    "glnd": "gland",
    "lig": "ligament",
    "nucl": "nucleus",
    "vert": "vertebra",
    "vertebr": "vertebra",
    "thor": "thoracic",
    "lumb": "lumbar",
    "cerv": "cervical",
    "pulm": "pulmonary",
    "abd": "abdominal",
    "submand": "submandibular",
    "vent": "ventricle",
    "cerebell": "cerebellum",
    "hippo": "hippocampus",
    "ca": "cancer",
    "cav": "cavity",
    "proc": "process",
    "cart": "cartilage",
}


def read(text: str, scope: Scope) -> Reading | None:
    """What the name means with its words spelled out."""
    words = text.split()
    if len(words) < 2 or max(map(len, words)) < 3 or _SHORT.keys().isdisjoint(words):
        return None
    longer = normalise(" ".join(_SHORT.get(word, word) for word in words))
    reading = scope.read(longer)
    if reading.status == "reject" or (reading.status, reading.method) == ("unsupported", "lesion"):
        return None
    why = f"'{text}' is interpreted as '{longer}'."
    confidence = min(reading.confidence, SPELLED_OUT)
    return replace(reading, confidence=confidence, warnings=(why, *reading.warnings))
