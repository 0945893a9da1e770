"""Lesions and findings: never the healthy organ they lie in."""

from __future__ import annotations

import re
from collections.abc import Iterable

from textseg.prompts.adjective import as_noun
from textseg.prompts.name import exact_or_sided, known_site
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import STOP_WORDS, Phrase, normalise, parse

FOUND, AT_PART = 0.9, 0.8
# kinds of place in which a finding could be of any organ
_TOO_WIDE = frozenset({"region", "system", "cavity", "vessel", "tissue"})

_TUMORS = (
    "tumor cancer carcinoma neoplasm malignancy mass lesion metastasis adenoma adenocarcinoma "
    "sarcoma lymphoma melanoma hemangioma angiomyolipoma met ca"
)
_TUMOR_WORDS = frozenset(_TUMORS.split())
_FINDINGS = (
    "cyst nodule polyp abscess hematoma hemorrhage bleed bleeding edema infarct infarction stroke "
    "ischemia stone calculus calcification fracture aneurysm dissection thrombus thrombosis "
    "embolus embolism stenosis occlusion plaque effusion pneumothorax consolidation opacity "
    "infiltrate infection inflammation pneumonia emphysema atelectasis fibrosis cirrhosis "
    "steatosis atrophy sclerosis necrosis scar hernia obstruction perforation laceration rupture "
    "injury trauma lymphadenopathy adenopathy malformation diverticulum ulcer fistula "
    "hydrocephalus hyperintensity hypointensity enhancement dysplasia hyperplasia hypertrophy "
    "disease disorder syndrome defect anomaly abnormality pathology tumorous cancerous malignant "
    "metastatic cystic fractured herniation herniated fatty inflamed infected sick diseased "
    "swollen tear sprain bulge bulging protrusion extrusion removed resected"
)
# tumors that grow in one organ, so that they are no word for a tumor of another
_SITED_TUMORS = "glioma glioblastoma gbm meningioma schwannoma hcc rcc nsclc sclc pdac hnscc"
_FINDING_WORDS = frozenset(f"{_FINDINGS} {_SITED_TUMORS}".split())
_DISEASE = re.compile(r"\w{3,}(itis|oma|omata|oses|osis|pathy|megaly|ectasis|iasis)")
_BESIDE = re.compile(r"(.+?) (?:of|in|at|within) (.+)")
# findings so general that only a site gives them a meaning
_GENERAL_WORDS = "tumor cancer neoplasm malignancy mass lesion metastasis met cyst nodule"
_GENERAL = frozenset(_GENERAL_WORDS.split())
# where a disease lies, by an adjective that no healthy structure carries
_SITES = {
    "bronchogenic": "lung",
    "cerebral": "brain",
    "colorectal": "colon",
    "hepatocellular": "liver",
    "intracranial": "brain",
    "vertebral": "vertebra",
}
# anatomical words with such an ending
_ANATOMY = frozenset({"stroma", "soma", "zygoma", "haploma", "rhizoma", "glaucoma", "atoma"})


def is_lesion_word(word: str) -> bool:
    """Whether a normalised word names a disease or finding.

    >>> is_lesion_word("cyst"), is_lesion_word("pancreatitis"), is_lesion_word("kidney")
    (True, True, False)
    """
    if word in _TUMOR_WORDS or word in _FINDING_WORDS:
        return True
    return word not in _ANATOMY and _DISEASE.fullmatch(word) is not None


def mentions_lesion(text: str) -> bool:
    """Whether any word of a normalised phrase names a disease or finding."""
    return any(is_lesion_word(word) for word in text.split())


def read_unplaced(text: str, scope: Scope) -> Reading | None:
    """A lesion without a site: any one could be meant, unless the model knows lesions at large."""
    if not mentions_lesion(text):
        return None
    if text.startswith("any "):
        return scope.read(text.removeprefix("any "))
    if parse(_without_lesion_words(text)).words:
        return _read_with(text, scope)
    known = tuple(concept.id for concept in scope.tree.lookup(text))
    if not _GENERAL.issuperset(parse(text).words):
        if known:
            return None
        if (plainer := _read_twice_said(text, scope)) is not None:
            return plainer
        return refuse("unsupported", f"'{text}' is a finding without a site.", method="lesion")
    placed = tuple(lesion for lesion in scope.lexicon.lesions if scope.tree[lesion].part_of)
    supported = scope.supported or frozenset()
    # a model of lesions at large knows no other, or reads PET, on which all of them shine
    at_large = scope.modality == "pet" or supported.isdisjoint(placed)
    if len(known) == 1 and known[0] in supported and at_large:
        return Reading("ok", known, "lesion", FOUND)
    alike = tuple(lesion for lesion in placed if set(known) & {*scope.tree.ancestors(lesion)})
    if (only := _only_one(alike, scope)) is not None:
        why = f"Interpreted as {scope.tree[only].name}: the model knows no other."
        return Reading("ok", (only,), "lesion", FOUND, warnings=(why,))
    return Reading(
        "ambiguous",
        method="lesion",
        warnings=(f"'{text}' does not say where; name the organ it lies in.",),
        suggestions=tuple(scope.tree[lesion].name for lesion in (alike or placed)[:5]),
        candidates=alike or placed,
        decidable=False,
    )


def _only_one(lesions: Iterable[str], scope: Scope) -> str | None:
    """The one of some lesions that a model segments which knows a single region of the body."""
    supported = scope.supported or frozenset()
    known = [lesion for lesion in lesions if lesion in supported]
    regions = {scope.tree[concept].region for concept in supported}
    return known[0] if len(known) == 1 and len(regions) == 1 else None


def _read_with(text: str, scope: Scope) -> Reading | None:
    """Asks back about "kidney with tumor": the organ, its tumor, or both."""
    organ, with_, finding = text.partition(" with ")
    if not with_ or mentions_lesion(organ) or scope.read(organ).status != "ok":
        return None
    asked = scope.read(f"{organ} {finding}")
    names = (*scope.read(organ).concepts[:1], *asked.concepts[:1])
    return Reading(
        "ambiguous",
        method="lesion",
        warnings=(f"'{text}' may ask for the organ, for the finding, or for both; name which.",),
        suggestions=tuple(scope.tree[concept].name for concept in names),
        candidates=names,
        decidable=False,
    )


def read(text: str, scope: Scope) -> Reading | None:
    """The lesion concept of a phrase, or a refusal that says why the organ is not the answer."""
    if not mentions_lesion(text):
        return None
    phrase = parse(text)
    for spelling in _spellings(phrase.words):
        reading = exact_or_sided(Phrase(spelling, phrase.side), scope)
        if reading is not None and reading.status == "ok":
            if not _all_lesions(reading, scope):
                # anatomy that is named like a finding, such as the lateral mass of the atlas
                return None
            return Reading("ok", reading.concepts, "lesion", FOUND)
    for read_otherwise in (_read_beside_place, _read_at_part):
        if (placed := read_otherwise(text, scope)) is not None:
            return placed
    if (plainer := _read_twice_said(text, scope)) is not None:
        return plainer
    words = parse(_without_lesion_words(text)).words
    site = known_site(" ".join(dict.fromkeys(_site_of(word) for word in words)), scope)
    if site is None:
        site = _place_of(text, scope) or _place_of(_without_lesion_words(text), scope)
    if site is None:
        # a name misspelt, or none at all
        return None
    return refuse(
        "unsupported",
        f"'{text}' is a finding, not the {site} itself, and the knowledge tree does not hold it.",
        method="lesion",
        suggestions=(site,),
    )


def _read_beside_place(text: str, scope: Scope) -> Reading | None:
    """A finding whose own name says the organ, and then where: "RCC of the left kidney"."""
    match = _BESIDE.fullmatch(text)
    if match is None or mentions_lesion(match[2]):
        return None
    finding, place = scope.read(match[1]), scope.read(match[2])
    if not finding.status == place.status == "ok" or len(finding.concepts) != 1:
        return None
    tree, lesion = scope.tree, scope.tree[finding.concepts[0]]
    around = {i for concept in place.concepts for i in (concept, *tree.ancestors(concept))}
    sites = {i for i in tree.ancestors(lesion.id) if tree[i].kind not in (*_TOO_WIDE, "lesion")}
    if lesion.kind != "lesion" or around.isdisjoint(sites):
        return None
    side = tree[place.concepts[0]].side if len(place.concepts) == 1 else None
    sided = exact_or_sided(Phrase(parse(normalise(lesion.name)).words, side), scope)
    return sided if sided is not None and sided.status == "ok" else finding


def _read_at_part(text: str, scope: Scope) -> Reading | None:
    """A finding in a part of an organ, where the tree knows it for the organ as a whole."""
    phrase = parse(text)
    site_words = [word for word in text.split() if not is_lesion_word(word)]
    while site_words and site_words[0] in STOP_WORDS:
        site_words.pop(0)
    site = scope.read(" ".join(site_words))
    if site.status != "ok" or len(site.concepts) != 1:
        return None
    part = scope.tree[site.concepts[0]]
    findings = tuple(word for word in phrase.words if is_lesion_word(word))
    for above in (part.base, *scope.tree.ancestors(part.base)):
        if scope.tree[above].kind in _TOO_WIDE or scope.tree[above].side is not None:
            continue
        for spelling in _spellings((*findings, *normalise(scope.tree[above].name).split())):
            reading = exact_or_sided(Phrase(spelling, part.side), scope)
            if reading is not None and reading.status == "ok" and _all_lesions(reading, scope):
                name = scope.tree[reading.concepts[0]].name
                why = f"Interpreted as {name}: the place within the organ is not told apart."
                return Reading("ok", reading.concepts, "lesion", AT_PART, warnings=(why,))
    return None


def _place_of(text: str, scope: Scope) -> str | None:
    """Name of the one structure after the last "in" or "of" of a phrase."""
    place = scope.read(re.split(r"\b(?:in|of|at)\b", text)[-1].strip())
    known = place.status == "ok" and len(place.concepts) == 1
    return scope.tree[place.concepts[0]].name if known else None


def _read_twice_said(text: str, scope: Scope) -> Reading | None:
    """A finding that a second, more general word repeats, as in "HCC lesion"."""
    words = text.split()
    for general in dict.fromkeys(word for word in words if word in _GENERAL):
        shorter = " ".join(word for word in words if word != general)
        reading = scope.read(shorter)
        if reading.status == "ok" and _all_lesions(reading, scope):
            return reading
    return None


def _spellings(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The words with adjectives as nouns, and with every word for a tumor as "tumor"."""
    nouns = _words(dict.fromkeys(_site_of(word) for word in words))
    return [nouns, _words("tumor" if word in _TUMOR_WORDS else word for word in nouns)]


def _words(words: Iterable[str]) -> tuple[str, ...]:
    return parse(normalise(" ".join(words))).words


def _all_lesions(reading: Reading, scope: Scope) -> bool:
    return all(scope.tree[concept].kind == "lesion" for concept in reading.concepts)


def _site_of(word: str) -> str:
    return _SITES.get(word) or as_noun(word)


def _without_lesion_words(text: str) -> str:
    return " ".join(word for word in text.split() if not is_lesion_word(word))
