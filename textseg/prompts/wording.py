"""Brings a phrase to one spelling: American, singular, numbers as digits, sides set apart."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Side = Literal["left", "right", "both", "conflict"]

LEFT = frozenset({"left", "lt", "l", "lh", "sinister", "sinistra", "sinistrum", "leftsided"})
RIGHT = frozenset({"right", "rt", "r", "rh", "dexter", "dextra", "dextrum", "rightsided"})
BOTH = frozenset({"both", "bilateral", "bilaterally", "bilat"})
SEPARATORS = frozenset({",", "and", "/"})
_ANY_SIDE = LEFT | RIGHT | BOTH
_SIDE_WORDS = LEFT | RIGHT | BOTH | {"side"}
# oculus dexter, sinister, uterque; elsewhere "os" is a bone
_EYE_SIDES = {"od": "right", "os": "left", "ou": "both"}
# auris dextra, utraque; "as" is a word
_EAR_SIDES = {"ad": "right", "au": "both"}
_EAR_WORDS = frozenset(
    {"ear", "cochlea", "cochlear", "auditory", "tympanic", "mastoid", "eustachian"}
)
_OF_THE_EYE = "eye eyeball globe lens optic orbit orbital retina cornea ocular lacrimal iris eyelid"
_EYE_WORDS = frozenset(_OF_THE_EYE.split())
# words that carry no meaning inside a name
STOP_WORDS = frozenset({"the", "of", "in", "a", "an", "on", "at", "this", "that", "my", "with"})
# "kidney, left" and "L4/L5 disc" are single names too
_UNHEARD = STOP_WORDS | {",", "/"}

_ABBREVIATED_ARTERY = re.compile(r"\ba\. ?(?=[a-z]{4})")
_DASHES = re.compile(r"[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_SILENT = re.compile("[.?!:'\"\u2018\u2019\u201c\u201d\u00b4]")
_BRITISH = (
    ("oesoph", "esoph"),
    ("oedem", "edem"),
    ("tumour", "tumor"),
    ("haem", "hem"),
    ("ischaem", "ischem"),
    ("coeliac", "celiac"),
    ("caec", "cec"),
    ("grey", "gray"),
    ("centre", "center"),
    ("fibre", "fiber"),
    ("disk", "disc"),
    ("foet", "fet"),
)
_IRREGULAR = {
    "femora": "femur",
    "ganglia": "ganglion",
    "atria": "atrium",
    "crania": "cranium",
    "ilia": "ilium",
    "ischia": "ischium",
    "septa": "septum",
    "sacra": "sacrum",
    "sterna": "sternum",
    "cerebra": "cerebrum",
    "cerebella": "cerebellum",
    "ossa": "os",
    "testes": "testis",
    "pelves": "pelvis",
    "pancreata": "pancreas",
    "putamina": "putamen",
    "pallida": "pallidum",
    "claviculae": "clavicle",
    "clavicula": "clavicle",
    "glutei": "gluteus",
    "cortices": "cortex",
    "appendices": "appendix",
    "metastases": "metastasis",
    "diaphyses": "diaphysis",
    "epiphyses": "epiphysis",
    "prostheses": "prosthesis",
    "stenoses": "stenosis",
    "thromboses": "thrombosis",
    "lenses": "lens",
    "uteri": "uterus",
    "feet": "foot",
    "teeth": "tooth",
    "radii": "radius",
    "nuclei": "nucleus",
    "calculi": "calculus",
    "emboli": "embolus",
    "thrombi": "thrombus",
    "aortas": "aorta",
    "tibias": "tibia",
    "scapulas": "scapula",
    "amygdalas": "amygdala",
    "tracheas": "trachea",
    "cochleas": "cochlea",
    "mandibulas": "mandible",
}
_SINGULARS = (
    "pancreas pons lens dens biceps triceps quadriceps psoas iliopsoas ascites mons glans "
    "series forceps corpus gas always"
)
_ALREADY_SINGULAR = frozenset(_SINGULARS.split())
_COUNTING = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ORDINALS = {word: str(number) for number, word in enumerate(_COUNTING.split(), start=1)}
_NUMERALS = "i ii iii iv v vi vii viii ix x xi xii"
_ROMAN = {word: str(number) for number, word in enumerate(_NUMERALS.split(), start=1)}
# words that are read together with others, or of which several may be one
_CONTEXTUAL = (
    _EYE_SIDES.keys()
    | _EAR_SIDES.keys()
    | {"i", "v", "x", "with", "as", "to", "on", "at", "and", "or"}
    | {"side", "sides", "sided", "either", "hand", *BOTH}
)
_COUNTED = "segment|couinaud|ventricle|nerve|rib|lobule|lobe"
_PLUS = re.compile(r"[&+]")
_COMMAS = re.compile("[;\u3001\u30fb]")
_ALSO = re.compile(r"\b(?:as well as|along with|together with|in addition to)\b")
_MARKS = re.compile(r"([,/])")
_NOT_WORDS = re.compile(r"[^\w,/]+")
_SEGMENT_NUMBER = re.compile(r"\d+[a-d]?|[ivx]+[a-d]")
_LONE_ROMAN = re.compile(rf"\b({_COUNTED}) (i|v|x)\b")
_RANGE = re.compile(r"(?<=\d)(st|nd|rd|th)?\s*-+\s*(?=(?:[cls]|th?)?\d)")
_ROMAN_RANGE = re.compile(r"\b([ivx]+)\s*-\s*([ivx]+)\b")
_SPACED_LEVEL = re.compile(r"\b([ctls]) (\d{1,2})\b")
_SIDE = r"(?:left|lt|l|right|rt|r)"
_SIDED = re.compile(rf"\b(?:on |to |at )?(?:the )?({_SIDE})(?: hand)?(?: (?:sided|side)\b)+")
_ON_SIDE = re.compile(rf"\b(?:(?:on|to) (?:the )?)+(?:patient )?({_SIDE})\b")
_BOTH_LEFT_AND_RIGHT = re.compile(rf"\bboth (?:the )?{_SIDE} and (?:the )?{_SIDE}\b")
_BOTH_SIDES = re.compile(r"\b(?:on )?(?:both|either) sides?\b")
_PAIR = re.compile(rf"(^|[,/]|\band )?\s*\b({_SIDE}) (?:and|/|,)(?: the)? ({_SIDE})\b\s*($|[,/])?")
_COMMAND = re.compile(
    r"^(?:please|kindly|now|then|ok|hi|hello|hey|could|can|would|will|you|i|we|want|need|like|"
    r"would like|to|see|segment|find|show|outline|delineate|contour|extract|highlight|mark|"
    r"annotate|label|locate|identify|give|get|draw|create|make|generate|produce|predict|display|"
    r"isolate|me|us|id|ill|gimme|color|paint|compare|"
    r"segement|segmnet|segmet|sement|segmetn|delinate|deliniate|contur|countour|higlight|"
    r"where|is|are|the|a|an|all|whole|entire|complete|every|each|of|for|"
    r"segmentation|mask|contour|outline|roi|only|just|this|my|patient|patients)$"
)
_TRAILER = re.compile(
    r"^(?:please|thanks|thank|you|for|me|us|segmentation|mask|contour|outline|roi|only|now|here|"
    r"in|on|from|the|this|a|of|ct|mr|mri|pet|scan|image|volume|picture|"
    r"patient|cect|ncct|tomography)$"
)
_FROM_SCAN = re.compile(
    r"(?<=\w) (?:as (?:a |an )?(?:niftus|dicom|stl|rtstruct|nrrd|mask|file)(?: file| mask)?|"
    r"for (?:rt|xrt|ebrt|imrt|sbrt|radiotherapy)(?: planning)?|"
    r"(?:in|on|from) (?:the |this |a |an |my )?(?:(?:abdominal|abdomen|chest|thoracic|thorax|"
    r"neck|pelvic|pelvis|axial|low dose|contrast) )*"
    r"(?:ct|cta|cect|ncct|mr|mri|pet)(?: (?:scan|image|volume|study|exam))?)$"
)
_VAGUE_TRAILERS = frozenset({"in", "on", "from", "the", "this", "a", "of", "for", ","})


@dataclass(frozen=True)
class Phrase:
    """A name without its side: its words sorted and without filler, so that order is free."""

    words: tuple[str, ...]
    side: Side | None


def normalise(text: str) -> str:
    """One spelling for a phrase; applying it again changes nothing.

    Separators survive as the words ``,`` ``and`` ``/``, ranges as ``to``.

    >>> normalise("  Oesophagus & both KIDNEYS ")
    'esophagus and both kidney'
    >>> normalise("L1–L3 vertebrae"), normalise("4th to 7th ribs")
    ('l1 to l3 vertebra', '4 to 7 rib')
    """
    if (plain := _plain_words(text)) is not None:
        return plain
    previous, current = text, _fold(text)
    # a few Unicode characters need a second round before they settle
    for _ in range(4):
        if current == previous:
            break
        previous, current = current, _fold(current)
    return current


def _plain_words(text: str) -> str | None:
    """The answer for words of which none needs to see its neighbours, which most names are."""
    if not (text.isascii() and text.replace(" ", "").isalpha()):
        return None
    words = text.lower().split()
    if not _CONTEXTUAL.isdisjoint(words) or len(_ANY_SIDE.intersection(words)) > 1:
        return None
    return " ".join(map(_word, words))


def _fold(text: str) -> str:
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = _DASHES.sub("-", text)
    # most names are plain words, and thousands of them are normalised when the index is built
    if not text.replace(" ", "").isalnum():
        text = _plain(text)
    text = " ".join(_word(word) for word in text.split())
    if " with " in text or " as " in text or " to " in text:
        text = _ALSO.sub("and", text)
    text = _LONE_ROMAN.sub(lambda m: f"{m[1]} {_ROMAN[m[2]]}", text)
    if "vertebra" in text or _SPACED_LEVEL.fullmatch(text):
        text = _SPACED_LEVEL.sub(r"\1\2", text)
    words = text.split()
    for sides, parts in ((_EYE_SIDES, _EYE_WORDS), (_EAR_SIDES, _EAR_WORDS)):
        if not sides.keys().isdisjoint(words) and not parts.isdisjoint(words):
            text = " ".join(sides.get(word, word) for word in words)
    return text if _SIDE_WORDS.isdisjoint(text.split()) else _gather_sides(text)


def _plain(text: str) -> str:
    """Words, commas and slashes only; hyphens between numbers become ``to``."""
    text = _ABBREVIATED_ARTERY.sub("arteria ", text)
    text = text.replace("w/o", " without ").replace("b/l", " bilateral ").replace("_", " ")
    text = _SILENT.sub("", text)
    if "-" in text:
        text = _ROMAN_RANGE.sub(_number_roman_range, text)
        text = _RANGE.sub(" to ", text)
    text = _COMMAS.sub(",", _PLUS.sub(" and ", text))
    return _NOT_WORDS.sub(" ", _MARKS.sub(r" \1 ", text))


@lru_cache(maxsize=65536)
def _word(word: str) -> str:
    for _ in range(3):
        word = _digits(_singular(_american(word)))
    return "and" if word == "plus" else word


def _number_roman_range(match: re.Match[str]) -> str:
    first, last = _ROMAN.get(match[1]), _ROMAN.get(match[2])
    return f"{first} to {last}" if first and last else match[0]


def _american(word: str) -> str:
    for british, american in _BRITISH:
        if british in word:
            return word.replace(british, american)
    return word


def _singular(word: str) -> str:
    """The singular of an English or Latin noun; words that are singular come back unchanged."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word in _ALREADY_SINGULAR or not word.isascii():
        return word
    if word.endswith("ae") and len(word) > 4:
        return word[:-1]
    if word.endswith("i") and word[-2] not in "aeiou":
        return word[:-1] + "us"
    if word.endswith("ies") and len(word) > 5:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "uses", "ises")) and len(word) > 5:
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "as", "os")):
        return word[:-1]
    return word


def _digits(word: str) -> str:
    """``fifth``, ``5th`` and ``v`` beyond single letters become ``5``; ``th4`` becomes ``t4``."""
    if word in _ORDINALS:
        return _ORDINALS[word]
    if len(word) > 1 and word in _ROMAN:
        return _ROMAN[word]
    if match := re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)", word):
        return match[1]
    if match := re.fullmatch(r"th(\d{1,2})", word):
        # nobody writes Th1 for an MR weighting
        return f"t{match[1]} vertebra" if match[1] in ("1", "2") else f"t{match[1]}"
    return word


def _gather_sides(text: str) -> str:
    """``on the left side`` becomes ``left``; ``left and right`` at an edge becomes ``both``."""
    text = _BOTH_SIDES.sub("both", text)
    text = _BOTH_LEFT_AND_RIGHT.sub("both", text)
    text = _SIDED.sub(r"\1", text)
    text = _ON_SIDE.sub(r"\1", text)
    text = _PAIR.sub(_pair_of_sides, text)
    return re.sub(r"\s+", " ", text).strip()


def _pair_of_sides(match: re.Match[str]) -> str:
    before, first, second, after = match.groups()
    at_edge = match.start() == 0 or before is not None or after is not None
    if not at_edge or (first in LEFT) == (second in LEFT):
        return match[0]
    return f"{before or ''} both {after or ''}"


def strip_commands(text: str) -> str:
    """The phrase without politeness, verbs and mention of the scan; expects ``normalise``d text.

    >>> strip_commands("could you please segment the left kidney in this ct")
    'left kidney'
    """
    words = _FROM_SCAN.sub("", text).split()
    while len(words) > 1 and _COMMAND.match(words[0]) and not _protected(words):
        words = words[1:]
    while len(words) > 1 and _TRAILER.match(words[-1]) and words[-1] not in _VAGUE_TRAILERS:
        words = words[:-1]
        while len(words) > 1 and words[-1] in _VAGUE_TRAILERS:
            words = words[:-1]
    return " ".join(words)


def _protected(words: list[str]) -> bool:
    # "only A, not B" is an exclusion, so its first word is read later; "segment 4" is no verb
    if words[0] == "segment":
        return words[1] == "of" or _SEGMENT_NUMBER.fullmatch(words[1]) is not None
    if words[0] == "all" and words[1].isdigit():
        return True
    return words[0] == "only" and "not" in words


@lru_cache(maxsize=65536)
def parse(text: str) -> Phrase:
    """Words and side of a ``normalise``d phrase.

    >>> parse("lower lobe of the left lung")
    Phrase(words=('lobe', 'lower', 'lung'), side='left')
    """
    side, rest = split_side(text)
    return Phrase(tuple(sorted([word for word in rest.split() if word not in _UNHEARD])), side)


def split_side(text: str) -> tuple[Side | None, str]:
    """The side a phrase names and the phrase without it; two different sides are a conflict."""
    words = text.split()
    if _ANY_SIDE.isdisjoint(words):
        return None, text
    sides: set[Side] = set()
    rest = []
    for word in words:
        side = side_of(word)
        if side is None:
            rest.append(word)
        else:
            sides.add(side)
    return (sides.pop() if len(sides) == 1 else "conflict"), " ".join(rest)


def side_of(word: str) -> Side | None:
    """The side a single word stands for."""
    if word in LEFT:
        return "left"
    if word in RIGHT:
        return "right"
    return "both" if word in BOTH else None
