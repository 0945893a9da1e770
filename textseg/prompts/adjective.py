"""An adjective that stands for its organ, as in "hepatic" or "renal organ"."""

from __future__ import annotations

from textseg.prompts.name import exact_or_sided
from textseg.prompts.prompt import Reading, Scope
from textseg.prompts.wording import Phrase, normalise, parse

ADJECTIVAL = 0.85

ADJECTIVES: dict[str, str] = {
    "adipose": "fat",
    "adrenal": "adrenal gland",
    "aortic": "aorta",
    "bronchial": "bronchus",
    "callosal": "corpus callosum",
    "cardiac": "heart",
    "cerebellar": "cerebellum",
    "clavicular": "clavicle",
    "cochlear": "cochlea",
    "colonic": "colon",
    "diaphragmatic": "diaphragm",
    "duodenal": "duodenum",
    "esophageal": "esophagus",
    "femoral": "femur",
    "fibular": "fibula",
    "gastric": "stomach",
    "hepatic": "liver",
    "hippocampal": "hippocampus",
    "humeral": "humerus",
    "intestinal": "intestine",
    "laryngeal": "larynx",
    "lienal": "spleen",
    "mammary": "breast",
    "mandibular": "mandible",
    "maxillary": "maxilla",
    "myocardial": "myocardium",
    "ocular": "eyeball",
    "osseous": "bone",
    "ovarian": "ovary",
    "pancreatic": "pancreas",
    "patellar": "patella",
    "pericardial": "pericardium",
    "peritoneal": "peritoneum",
    "pleural": "pleura",
    "prostatic": "prostate",
    "pulmonary": "lung",
    "rectal": "rectum",
    "renal": "kidney",
    "sacral": "sacrum",
    "scapular": "scapula",
    "splenic": "spleen",
    "sternal": "sternum",
    "testicular": "testis",
    "thalamic": "thalamus",
    "thymic": "thymus",
    "thyroid": "thyroid gland",
    "thyroidal": "thyroid gland",
    "tibial": "tibia",
    "tracheal": "trachea",
    "ulnar": "ulna",
    "ureteral": "ureter",
    "ureteric": "ureter",
    "urethral": "urethra",
    "uterine": "uterus",
    "vaginal": "vagina",
    "vesical": "urinary bladder",
}


# nouns that say no more than the adjective's own organ does
_NOUNS = frozenset({"organ", "gland", "bone", "parenchyma", "tissue", "structure"})


# kinds of structure that a noun after a name may confirm, as in "mandible bone"
_CONFIRMED = {"bone": ("bone",), "gland": ("gland", "organ"), "muscle": ("muscle",), "organ": None}


def read(text: str, scope: Scope) -> Reading | None:
    """The organ of a lone adjective or name, with or without a word for what it is, and a side."""
    phrase = parse(text)
    rest = [word for word in phrase.words if word not in _NOUNS]
    noun = ADJECTIVES.get(rest[0]) if len(rest) == 1 else None
    if noun is None:
        return _read_confirmed(phrase, scope)
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


def _read_confirmed(phrase: Phrase, scope: Scope) -> Reading | None:
    """A name and a word for the kind of thing it is; another kind is another thing."""
    kinds = [word for word in phrase.words if word in _CONFIRMED]
    if len(kinds) != 1 or len(phrase.words) < 2:
        return None
    words = tuple(word for word in phrase.words if word != kinds[0])
    reading = exact_or_sided(Phrase(words, phrase.side), scope)
    if reading is None or reading.status != "ok":
        return None
    allowed = _CONFIRMED[kinds[0]]
    meant = [scope.tree[concept].kind for concept in reading.concepts]
    return reading if allowed is None or all(kind in allowed for kind in meant) else None


def as_noun(word: str) -> str:
    """The organ of an adjective, or the word itself."""
    return ADJECTIVES.get(word, word)
