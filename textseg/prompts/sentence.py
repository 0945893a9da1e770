"""A name inside a sentence of known words: a request, a measurement or a line of a report."""

from __future__ import annotations

import re
from dataclasses import replace

from textseg.prompts.lesion import mentions_lesion
from textseg.prompts.prompt import Reading, Scope
from textseg.prompts.wording import SEPARATORS, normalise, strip_commands

TALKED = 0.9

# what may surround a name without changing it; any other word leaves the prompt unanswered
_TALK_WORDS = (
    "a an the this that these those there here it its is are am be been being im id we you he "
    "she they my our your his her their me us please kindly thank thanks hello hi ok let can "
    "could would will should shall may might do does did have has had get got give want "
    "wanted need needed like see seen look looking show shown shows display displayed view "
    "visualize visualise visualized highlight find found locate located locating location "
    "identify identified detect detected segment segmented segmenting segmentation delineate "
    "delineated delineation outline contour contoured contouring mask masks label annotate "
    "annotation mark draw create make generate produce predict return returned extract "
    "isolate provide perform run try trying just only simply now then also exactly "
    "automatically separately around what where which how big large much many measure "
    "measured measuring measurement calculate compute estimate quantify volume size diameter "
    "length extent boundary border shape of in on at to for from with within by and or as "
    "about into assess assessment evaluate evaluation examine examination inspect check "
    "review suspect suspected suspicion suspicious possible possibly probable likely known "
    "new incidental incidentally finding findings noted note evidence consistent compatible "
    "appear appears appearing appearance normal unremarkable enlarged mild mildly moderate "
    "moderately severe severely slightly markedly diffusely dilated prominent atrophic "
    "shrunken thickened case patient patients man woman male female subject boy girl child "
    "adult scan scans image images imaging study picture slice slices followup follow up rule "
    "out r/o organ structure anatomical anatomy region area entire whole complete all every "
    "each full today before after during contrast enhanced mind outlining interested called "
    "named automatic automated 3d stl ground truth ml referred history dimension sbrt task "
    "amount human clinical exact precise accurate u pls plz ur binary target interest object "
    "roi focus contain present distended visible remain stable unchanged increased decreased "
    "compared prior since approximately maximal collapsed displaced opacified patent tortuous "
    "ectatic demonstrate reveal segmentations auto autosegment using ai tool separate "
    "separated trace render reconstruct export position placed situated lie "
    "lying inside best oar outlined highlighted labelled labeled marked drawn "
    "extracted annotated thats ill  gimme think believe"
)
_TALK = frozenset(normalise(word) for word in _TALK_WORDS.split())
_GLUE = frozenset({"in", "of", "and", "or", "with", "at", "on", "to"})
_DESCRIPTIVE_WORDS = (
    "small large big tiny huge massive giant bulky minimal trace sizable round rounded oval "
    "irregular heterogeneous homogeneous hypodense hyperdense isodense hypoattenuating "
    "hyperattenuating hypointense hyperintense hypoechoic well ill defined circumscribed focal "
    "diffuse solitary multiple several few single some acute chronic subacute recent old "
    "partially largest biggest main another"
)
_DESCRIPTION = frozenset(_DESCRIPTIVE_WORDS.split())
# words that describe a finding, but make another thing of a structure: "cortical bone"
_OF_FINDINGS = (
    "benign complex confluent cortical ductal enhancing exophytic indeterminate intrahepatic "
    "invasive lacunar lobulated mucinous neuroendocrine papillary periventricular primary simple "
    "solid spiculated squamous"
)
_DESCRIPTION_OF_FINDINGS = _DESCRIPTION | {*_OF_FINDINGS.split()}
_NEGATION = re.compile(
    r"\b(?:no|not|but|instead|rather|non|never|none|dont|without|absent|absence|negative|except|excluding|exclude|"
    r"minus|neither|nor|denie|removed|resected|resection|post|sp|s|p|ectomy|\w+ectomy)\b"
)
_LONE_SIDE = re.compile(r"(?:left|right) ,")
_AMOUNT = re.compile(
    r"\b(?:\d+ (?:x|by) )*\d+ ?(?:cm|mm|ml|cc|g|hu)\b|"
    r"\b\d{1,3} ?(?:year|yr|yo|y|month)s?(?: ?old)?\b"
)
_SCAN = (
    r"(?:(?:abdominal|abdomen|chest|thoracic|thorax|cardiac|brain|head|neck|pelvic|pelvis|"
    r"whole body|axial|coronal|sagittal|contrast|enhanced|non|noncontrast|portal|venous|arterial|"
    r"phase|t1|t2|weighted|flair|planning) )*"
    r"(?:ct|cta|ctpa|cect|ncct|mr|mri|pet|pet / ct|x ray|ultrasound|tomography)"
    r"(?: (?:scan|image|volume|study|exam|dataset|series))?"
)
_PURPOSE = re.compile(
    r"^organ at risk(?= )|"
    r"(?:^(?=[\w ]+ (?:, |we |i |need |contour |segment |outline |delineate ))|"
    r"\b(?:planning )?(?:for|before|prior to) )(?:the |a |an )?"
    r"(?:(?:radiation|radio|proton|surgical|treatment|therapy|preoperative|dose|biopsy|ablation|"
    r"further|statistical|quantitative|volumetric|clinical) )*"
    r"(?:planning|surgery|radiotherapy|therapy|treatment|intervention|sbrt|imrt|biopsy|ablation|"
    r"(?:\w+ )?volumetry|analysis|research|staging|training|statistic)(?: planning)?\b"
)
# "anterior part of the hippocampus" is the anterior hippocampus; a mere part is not the whole
_PLACED_PART = re.compile(
    r"\b(anterior|posterior|medial|lateral|superior|inferior|upper|middle|lower) (?:part|portion)\b"
)
# what is known of the patient, then what is wanted: "with cirrhosis, segment the liver"
_HISTORY = re.compile(
    r"(?:patient with|known|history of|with|status post|sp|s / p|post) [^,]+ , "
    r"(?:please |can you |kindly )?((?:segment|outline|contour|delineate|mask|show|find|mark) .+)"
)
_SPREADS = re.compile(r"\b(?:extending|extension|abutting|invading|compressing)\b")
_JUDGED = re.compile(
    r"(.+?) ?,? (?:most likely|likely|probably|possibly|presumably|suspicious for|suggestive of|"
    r"consistent with|compatible with|concerning for|representing|in keeping with|"
    r"(?:with )?(?:extending|extension) (?:in)?to|abutting|invading|compressing) "
    r"(?:a |an |the )?(.+)"
)
_SYMPTOM = re.compile(
    r"\b(?:with|for|has|presenting with|complaining of|due to|because of)(?: \w+){0,2}? "
    r"(?:(?:back|chest|abdominal|flank|neck|hip|knee|shoulder|pelvic) )?"
    r"(?:pain|discomfort|cough|fever|dyspnea|hematuria|jaundice|weight loss|headache)\b"
)
_IN_SCAN = re.compile(
    rf"(?:^{_SCAN} of (?:the )?(?:chest|abdomen|pelvis|brain|head|neck|thorax) "
    r"(?:show|showing|demonstrate|reveal)(?= \w)|"
    rf"^{_SCAN}(?: ,)?(?: of| showing| for)?(?= \w)|"
    rf"\b(?:in|on|from|of|at) (?:this |the |a |an |my )?{_SCAN}(?=$| ,)|"
    r"\b(?:in|on|from) (?:this|the|my) (?:exam|examination|study)(?=$| ,))"
)


def read(text: str, scope: Scope) -> Reading | None:
    """The structure or finding a sentence is about; unread if one word of it is unknown."""
    if _NEGATION.search(text):
        return None
    if text.startswith("two "):
        return _read_two(text.removeprefix("two "), scope)
    if (known := _HISTORY.fullmatch(text)) is not None:
        reading = scope.read(strip_commands(known[1]))
        if reading.status in ("ok", "unsupported"):
            return _said(reading)
    if (finding := _read_judged(text, scope)) is not None:
        return finding
    for shorter in dict.fromkeys((_without_scan(text), _without_talk(text))):
        # "right, segment the left kidney" speaks of one side only
        if shorter and shorter != text and not _LONE_SIDE.match(shorter):
            reading = scope.read(shorter)
            if _says_something(reading):
                return _said(reading)
    return None


def _read_two(text: str, scope: Scope) -> Reading | None:
    """Both of what comes in pairs: "the two kidneys"."""
    reading = scope.read(f"both {text}")
    return _said(reading) if reading.status == "ok" else None


def _read_judged(text: str, scope: Scope) -> Reading | None:
    """A finding without what the writer thinks of it: "nodule in the left lung, likely benign"."""
    judged = _JUDGED.fullmatch(text)
    if judged is None:
        return None
    finding, thought = scope.read(judged[1]), scope.read(judged[2])
    lesions = [scope.tree[concept].kind == "lesion" for concept in finding.concepts]
    if finding.status != "ok" or not all(lesions):
        return None
    agrees = thought.status == "ambiguous" or thought.concepts == finding.concepts
    return _said(finding) if agrees or _SPREADS.search(text) else None


def read_described(text: str, scope: Scope) -> Reading | None:
    """A single thing with adjectives that say how it looks, not what it is."""
    words = text.split()
    if not SEPARATORS.isdisjoint(words) or _NEGATION.search(text):
        return None
    described = _DESCRIPTION_OF_FINDINGS if mentions_lesion(text) else _DESCRIPTION
    kept = [word for word in words if word not in described]
    if not kept or len(kept) == len(words):
        return None
    reading = scope.read(" ".join(kept))
    return _said(reading) if _says_something(reading) else None


def _says_something(reading: Reading) -> bool:
    """Whether a shortened text was understood; an unknown finding may be known in full."""
    unknown = reading.status == "unsupported" and reading.method == "lesion"
    return reading.status != "reject" and not unknown


def _said(reading: Reading) -> Reading:
    if reading.method in ("ambiguity", "language", "exclusion"):
        return reading
    method = reading.method if reading.status != "ok" else "sentence"
    return replace(reading, method=method, confidence=min(reading.confidence, TALKED))


def _without_scan(text: str) -> str:
    return _IN_SCAN.sub(" ", text).strip(" ,")


def _without_talk(text: str) -> str:
    """The text without its talk; what joins two kept words stays."""
    text = _PLACED_PART.sub(r"\1", text)
    text = _SYMPTOM.sub(" ", _AMOUNT.sub(" ", _PURPOSE.sub(" ", _without_scan(text))))
    words = text.split()
    if _TALK.isdisjoint(set(words) - _GLUE):
        return text.strip(" ,")
    kept: list[str] = []
    for place, word in enumerate(words):
        if word == "segment" and words[place + 1 : place + 2] and words[place + 1][0].isdigit():
            # a segment with a number is no verb
            kept.append(word)
        elif word in _GLUE or word in SEPARATORS:
            if kept and kept[-1] not in _GLUE and kept[-1] not in SEPARATORS:
                kept.append(word)
            elif kept and word in SEPARATORS:
                kept[-1] = word
        elif word not in _TALK:
            kept.append(word)
    while kept and (kept[-1] in _GLUE or kept[-1] in SEPARATORS):
        kept.pop()
    return " ".join(kept)
