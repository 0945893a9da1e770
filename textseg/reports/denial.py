"""A sentence that states a finding, turned into one that denies it."""

from __future__ import annotations

import re

from textseg.reports.sections import REFERS_BACK, section_under
from textseg.reports.sentences import split_heading
from textseg.reports.words import (
    CHANGE,
    DENIAL,
    EDEMA,
    LESION,
    NECROSIS,
    NORMAL,
    PLACE,
    SIGNAL,
    VENTRICLES,
)

_UNCONCERNED = re.compile(
    r"technique|procedure|history|indication|information|comparison|recommendation", re.IGNORECASE
)
_SEQUENCE = re.compile(r"(?:t1|t2|flair|dwi|adc|diffusion)", re.IGNORECASE)
_PARTS = re.compile(
    r"(;\s+|,\s+(?:and|but|while|whereas)\s+|"
    r"\s+(?:and|but|while|whereas)\s+(?=(?:the|there|a|an|no)\s[^,;]{0,80}\b(?:is|are|was|were)\b))"
)
_HEAD = re.compile(r",|;|\s(?:with|without)\b")
_INSIDE = re.compile(r"(?:in|on|at|within|near|along|from|around)\b", re.IGNORECASE)
_WHERE = re.compile(rf"{_INSIDE.pattern}[^,]*,\s*|[^:,;]*:\s+", re.IGNORECASE)
_BE = r"is|are|was|were|has been|have been|can be|may be"
_VERBS = (
    "show demonstrate reveal exhibit display contain involve extend surround measure cause "
    "compress displace suggest indicate enhance appear occupy affect invade cross reach infiltrate "
    "represent arise spread remain efface narrow exist span abut harbor lie have"
)
_SINGULAR = _VERBS.split()
_PLURAL = [verb for verb in _SINGULAR if verb not in {"cause", "measure", "span", "spread"}]
_THIRD = {
    {"have": "has", "occupy": "occupies"}.get(
        verb, verb + ("es" if verb.endswith(("ch", "ss")) else "s")
    ): verb
    for verb in _SINGULAR
}
_VERB = re.compile(
    rf"(?<!which )(?<!that )\b(?:(?P<be>{_BE})|(?P<done>ha(?:s|ve))(?= \w+ed\b)|"
    rf"(?P<third>{'|'.join(_THIRD)})|(?P<plural>{'|'.join(_PLURAL)}))\b",
    re.IGNORECASE,
)
_THERE = re.compile(rf"there(?:'s| (?:{_BE}|appears? to be|remains?|exists?))", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    rf"\s+(?:(?:also|still|again|now|currently|completely|of|within|an?)\s+)*"
    rf"(?:{DENIAL.pattern}|{NORMAL.pattern})",
    re.IGNORECASE,
)
_DEGREE = (
    r"(?:(?:very|quite|mainly|only)\s+)?(?:mild|moderate|severe|marked|extensive|significant|slight|"
    r"minimal|considerable|massive|pronounced|notable|prominent)\b"
)
_AMOUNT = re.compile(
    rf"(?:(?:an?|one|two|three|four|five|some|several|multiple|many|numerous|few|another|also|again|"
    rf"now|the|its|{_DEGREE}(?:\s+to\s+{_DEGREE})?|\d+(?=\s+[^\W\d]{{4}}))\s+)*",
    re.IGNORECASE,
)
_DEFINITE = re.compile(
    r"(?:the|this|these|that|those|it|its|they|both|each|every|all|after|before|following|during|"
    r"in|on)\b",
    re.IGNORECASE,
)
_LOOK = re.compile(
    r"(?:(?:hyper|hypo|iso)-?(?:intense|dense)|bright|dark|cystic|necrotic|(?:\w+-)?enhancing|"
    r"enlarged|compressed|displaced)(?=\s+(?:on|in|after|with|without|and|rather|throughout)\b|"
    r"[,.;]|$)",
    re.IGNORECASE,
)
_INDEFINITE = re.compile(r"(?:an?|one|two|three|some|several|multiple|many)\s", re.IGNORECASE)
_EVENT = re.compile(
    r"\b(?:compression|shift|effects?|herniation|enhancement|hydrocephalus|effacement)\b",
    re.IGNORECASE,
)
_ONLY_DEGREE = re.compile(
    rf"^\s+{_DEGREE}(?=\W*$|[,;.]|\s+(?:in|and|with|around)\b)", re.IGNORECASE
)
_ADVERB = re.compile(
    r"^\s+(?:mainly|mostly|primarily|predominantly|largely|clearly|also)(?=\s)", re.IGNORECASE
)
_VENTRICLE = re.compile(r"ventricles?$", re.IGNORECASE)
_TITLED = re.compile(r"[A-Z][a-z]")
_WITHOUT = re.compile(r",?\s+(?:without|with no)\s+(?:(?:any|an?|evidence of)\s+)*", re.IGNORECASE)


def deny(sentence: str) -> str:
    """The denial of a sentence that states a finding; any other sentence as it is.

    >>> deny("The ventricles are compressed.")
    'The ventricles are not compressed.'
    >>> deny("MRI shows a mass without edema.")
    'MRI does not show a mass and no edema.'
    >>> deny("The scan was made at 3 T.")
    'The scan was made at 3 T.'
    """
    heading, body = split_heading(sentence)
    if not body or _UNCONCERNED.search(heading):
        return sentence
    before = sentence.removesuffix(body)
    parts = _PARTS.split(body)
    if section_under(heading) and _VERB.search(body) is None:
        parts = [_deny_entry(body, heading)]
    else:
        parts[::2] = [_deny_part(part) for part in parts[::2]]
    return before + "".join(parts)


def _states(part: str) -> bool:
    """Whether a part of a sentence speaks of a finding."""
    if any(kind.search(part) for kind in (LESION, EDEMA, NECROSIS, VENTRICLES, CHANGE)):
        return True
    if any(not _SEQUENCE.match(found[0]) for found in SIGNAL.finditer(part)):
        return True
    return bool(REFERS_BACK.match(part) and PLACE.search(part))


def _deny_entry(body: str, heading: str) -> str:
    """What stands under a heading, denied: "moderate." under "Edema" becomes "none."."""
    if DENIAL.search(body) or NORMAL.search(body):
        return body
    if section_under(heading) in ("location", "signal") or _VENTRICLE.search(heading):
        return f"not {_lowered(body)}"
    return "none" + body[len(body.rstrip(".!?")) :]


def _deny_part(part: str) -> str:
    """A part of a sentence that may stand alone, denied if it states a finding."""
    where = _WHERE.match(part)
    if where is not None and _states(where[0]):
        where = None
    place, claim = (where[0], part[where.end() :]) if where else ("", part)
    if not claim or not _states(part):
        return part
    there, verb = _THERE.search(claim), _VERB.search(claim)
    if there is not None:
        denied = _deny_there(claim, there)
    elif verb is not None:
        denied = _deny_verb(claim, verb)
    else:
        denied = _deny_phrase(claim)
    return place + denied


def _deny_there(claim: str, there: re.Match[str]) -> str:
    if _is_denied(claim, there):
        return claim
    verb = re.sub(r"exist(s?)", lambda m: "is" if m[1] else "are", there[0])
    rest = claim[there.end() :].lstrip()
    return f"{claim[: there.start()]}{verb} no {_and_no(_bare(rest))}"


def _deny_verb(claim: str, verb: re.Match[str]) -> str:
    if _is_denied(claim, verb):
        return claim
    subject, rest = claim[: verb.start()], _and_no(claim[verb.end() :])
    if _INSIDE.match(subject) and not _states(subject):
        # "In the left lobe lies a mass"
        return f"{subject}{verb[0]} no {_bare(rest.lstrip())}"
    thing = any(kind.search(subject) for kind in (LESION, EDEMA, NECROSIS, _EVENT))
    slight = bool(verb["be"] and _ONLY_DEGREE.match(rest))
    if _INDEFINITE.match(subject) or (thing and (slight or not _DEFINITE.match(subject))):
        rest = _ONLY_DEGREE.sub(" present", _ADVERB.sub("", rest)) if verb["be"] else rest
        return f"{_no(subject)}{_lowered(_bare(subject))}{verb[0]}{rest}"
    if verb["be"] or verb["done"]:
        first, _, more = verb[0].partition(" ")
        return f"{subject}{first} not{' ' if more else ''}{more}{rest}"
    if verb["third"]:
        return f"{subject}does not {_THIRD[verb[0].casefold()]}{rest}"
    return f"{subject}do not {verb[0]}{rest}"


def _deny_phrase(claim: str) -> str:
    """A claim without a verb: "Left frontal mass"."""
    head = _HEAD.split(claim, maxsplit=1)[0]
    if DENIAL.search(head if _states(head) else claim) or NORMAL.search(head):
        return claim
    if re.match(r"with\s", claim, re.IGNORECASE):
        return f"{claim[:4]}out{claim[4:]}"
    if _LOOK.match(claim):
        return f"{_no(claim).rstrip()}t {_and_no(_lowered(claim))}"
    return f"{_no(claim)}{_and_no(_lowered(_bare(claim)))}"


def _is_denied(claim: str, verb: re.Match[str]) -> bool:
    return bool(DENIAL.search(claim[: verb.end()]) or _DENIED_AFTER.match(claim, verb.end()))


def _no(phrase: str) -> str:
    return "No " if phrase[:1].isupper() else "no "


def _bare(phrase: str) -> str:
    """A phrase without article, number and degree, which a denial does not have."""
    return _AMOUNT.sub("", phrase, count=1)


def _lowered(phrase: str) -> str:
    """A phrase as it stands within a sentence; acronyms and initials keep their capitals."""
    return phrase[0].lower() + phrase[1:] if _TITLED.match(phrase) else phrase


def _and_no(rest: str) -> str:
    """What is absent from a thing is absent without it as well."""
    return _WITHOUT.sub(" and no ", rest)
