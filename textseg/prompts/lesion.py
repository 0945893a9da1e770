"""Lesions and findings: never the healthy organ they lie in."""

from __future__ import annotations

import re
from collections.abc import Iterable

from textseg.prompts.adjective import as_noun
from textseg.prompts.name import exact_or_sided, known_site
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.wording import Phrase, normalise, parse

FOUND = 0.9

_TUMORS = (
    "tumor cancer carcinoma neoplasm malignancy mass lesion metastasis adenoma adenocarcinoma "
    "sarcoma lymphoma melanoma glioma glioblastoma meningioma hemangioma angiomyolipoma "
    "schwannoma hcc rcc met"
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
    "metastatic cystic fractured inflamed infected sick diseased swollen removed resected"
)
_FINDING_WORDS = frozenset(_FINDINGS.split())
_DISEASE = re.compile(r"\w{3,}(itis|oma|omata|oses|osis|pathy|megaly|ectasis|iasis)")
# findings so general that only a site gives them a meaning
_GENERAL_WORDS = "tumor cancer neoplasm malignancy mass lesion metastasis cyst nodule"
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
    if not mentions_lesion(text) or parse(_without_lesion_words(text)).words:
        return None
    known = tuple(concept.id for concept in scope.tree.lookup(text))
    if not _GENERAL.issuperset(parse(text).words):
        if known:
            return None
        return refuse("unsupported", f"'{text}' is a finding without a site.", method="lesion")
    if len(known) == 1 and scope.supported is not None and known[0] in scope.supported:
        return Reading("ok", known, "lesion", FOUND)
    placed = tuple(lesion for lesion in scope.lexicon.lesions if scope.tree[lesion].part_of)
    alike = tuple(lesion for lesion in placed if set(known) & {*scope.tree.ancestors(lesion)})
    return Reading(
        "ambiguous",
        method="lesion",
        warnings=(f"'{text}' does not say where; name the organ it lies in.",),
        suggestions=tuple(scope.tree[lesion].name for lesion in (alike or placed)[:5]),
        candidates=alike or placed,
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
    words = parse(_without_lesion_words(text)).words
    site = known_site(" ".join(dict.fromkeys(_site_of(word) for word in words)), scope)
    if site is None:
        return refuse("reject", f"'{text}' names no known structure.", method="lesion")
    return refuse(
        "unsupported",
        f"'{text}' is a finding, not the {site} itself, and the knowledge tree does not hold it.",
        method="lesion",
        suggestions=(site,),
    )


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
