"""Whether a sentence states its findings, denies them, doubts them, or tells of the past."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

Span = tuple[int, int]

# words that deny or exclude something else than the finding after them
_NO_DENIAL = re.compile(
    r"\b(?:(?:no|without)(?: \w+){0,2} (?:change|increase|decrease|progression|growth)s?"
    r"(?: (?:in|of))?|not only|not (?:\w+ )?changed)\b"
)
_DENIES = re.compile(
    r"\b(?:no|without|den(?:y|ies|ied)|absence of|lack of|free of|free from|negative for|neither|"
    r"nor|rather than|instead of|(?:do|does|did) not (?:show|demonstrate|contain|reveal|have)|"
    r"resolution of|(?<!has )(?<!have )(?<!had )(?<!is )(?<!are )(?<!now )(?<!completely )resolved)"
    r"\b"
)
_SEEN = "seen|identified|present|evident|visuali[sz]ed|demonstrated|detected|noted|found|visible"
_DENIED = re.compile(
    r"\b(?:(?:is|are|was|were|has been|have been)(?: now)? "
    rf"(?:not (?:\w+ )?(?:{_SEEN}|appreciated)|no longer (?:{_SEEN})|"
    r"absent|ruled out|excluded|resolved)|"
    r"(?:has|have|had)(?: \w+ly| now| since)* (?:resolved|disappeared|cleared|regressed)|"
    rf"not (?:{_SEEN}|appreciated)|none)\b"
)
_DOUBTS = re.compile(
    r"(?:\b(?:possibl[ey]|probabl[ey]|likely|suspected|suspicious for|suspicion of|"
    r"concern(?:ing)? for|worrisome for|suggest(?:ive of|s|ing)|question(?:able| of)|presum\w+|"
    r"(?:may|might|could)(?: also)? (?:represent|be|reflect|indicate)|versus|vs|favou?red|"
    r"can ?not (?:\w+ )?(?:exclude|rule out)|differential\b.*?\b(?:includes?|of|is)|"
    r"rule out|r/o|evaluat(?:e|ion) for|query)\b|\?)"
)
_DOUBTED = re.compile(
    r"\b(?:(?:can ?not be|could not be|is not|are not|not) (?:\w+ )?(?:excluded|ruled out)|"
    r"(?:is|are|was|were) (?:\w+ )?(?:unlikely|possible|suspected|questionable|questioned))\b"
)
_KNOWN = re.compile(
    r"\b(?:known|previously (?:seen|noted|described|identified|reported)|previous|prior|"
    r"old(?= (?:infarct|hemorrhage|stroke|fracture|lacun)))\b"
)
_GONE = re.compile(
    r"\b(?:status post|s/p|history of|h/o|previous|prior|resected|"
    r"(?:resection|removal|excision|debulking|evacuation|ablation|drainage) of)\b"
)
_TAKEN_AWAY = re.compile(
    r"\b(?:was|were|has been|have been) (?:\w+ly )?(?:resected|removed|excised)\b"
)
_BREAK = (
    r";|\.\s|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bwhereas\b|\bwhile\b|\bexcept\b|"
    r"\bapart from\b|\bother than\b|\bwhich\b|\bthere (?:is|are|was|were)\b|"
    r",(?: and)? (?:the|with|this|these|\d)|\band the\b|"
    r"\band (?:\w+ ){1,4}(?:contains?|shows?|demonstrates?|reveals?|has|have)\b"
)
_NEW_ITEM = r"|(?:,|\band\b)(?: and)? an?\b"
_AMOUNT = re.compile(
    r",(?: and)? (?:small|large|moderate|trace|tiny|mild|multiple|several|few|stable|unchanged)\b"
    r"(?!.*\b(?:or|nor)\b)"
)
_ENDS_LIST = re.compile(_BREAK)
_ENDS_DENIAL = re.compile(_BREAK + _NEW_ITEM)
_ENDS_DOUBT = re.compile(_BREAK + _NEW_ITEM + r"|,(?! (?:or|versus|vs)\b)")
_ENDS_PAST = re.compile(_BREAK + _NEW_ITEM + r"|,|\bwith\b")
_LINKED = re.compile(r"[\w ]*\b(?:or|nor)\b[\w ]*")


@dataclass(frozen=True)
class Assertion:
    """How a sentence puts one finding.

    Attributes:
        negated: It says that there is none, or none any more.
        uncertain: It does not commit itself.
        history: It speaks of an earlier time.
        gone: What was then has been taken away, or nothing says that it is still there.
    """

    negated: bool = False
    uncertain: bool = False
    history: bool = False
    gone: bool = False


def read_assertions(sentence: str, findings: Sequence[Span]) -> tuple[Assertion, ...]:
    """How the sentence puts each of the findings at the given places.

    >>> text = "No mass, but edema."
    >>> [found.negated for found in read_assertions(text, [(3, 7), (13, 18)])]
    [True, False]
    """
    text = _lowered(sentence)
    text = _NO_DENIAL.sub(lambda match: " " * len(match[0]), text)
    stated = [Assertion() for _ in findings]

    def mark(
        chosen: Callable[[re.Match[str]], Iterator[int]], cue: re.Pattern[str], **how: bool
    ) -> None:
        for match in cue.finditer(text):
            for number in chosen(match):
                stated[number] = replace(stated[number], **how)

    reach = _Reach(text, findings)
    mark(reach.denied_after, _DENIES, negated=True)
    mark(reach.named_before, _DENIED, negated=True)
    mark(reach.doubted_after, _DOUBTS, uncertain=True)
    mark(reach.named_before, _DOUBTED, uncertain=True)
    mark(reach.past_after, _KNOWN, history=True)
    mark(reach.past_after, _GONE, history=True, gone=True)
    mark(reach.named_before, _TAKEN_AWAY, history=True, gone=True)
    return tuple(stated)


def cue_spans(sentence: str) -> tuple[Span, ...]:
    """Where the sentence has the words that ``read_assertions`` goes by."""
    text = _lowered(sentence)
    cues = (_NO_DENIAL, _DENIES, _DENIED, _DOUBTS, _DOUBTED, _KNOWN, _GONE, _TAKEN_AWAY)
    return tuple(match.span() for cue in cues for match in cue.finditer(text))


@dataclass(frozen=True)
class _Reach:
    """Which findings a word is about."""

    text: str
    findings: Sequence[Span]

    def denied_after(self, cue: re.Match[str]) -> Iterator[int]:
        """Those up to the next clause; "no evidence of a mass, a cyst" goes on after its "a"."""
        with_article = re.match(r"(?: evidence of)? an?\b", self.text[cue.end() :])
        return self._until(cue.end(), _ENDS_LIST if with_article else _ENDS_DENIAL, _AMOUNT)

    def doubted_after(self, cue: re.Match[str]) -> Iterator[int]:
        """Those in the same list."""
        is_list = cue[0].startswith("differential")
        return self._until(cue.end(), _ENDS_LIST if is_list else _ENDS_DOUBT)

    def past_after(self, cue: re.Match[str]) -> Iterator[int]:
        """Those in the same phrase."""
        return self._until(cue.end(), _ENDS_PAST)

    def named_before(self, cue: re.Match[str]) -> Iterator[int]:
        """The subject of a verb: the last finding before it, or all of a list that is plural."""
        before = [i for i, (_, end) in enumerate(self.findings) if end <= cue.start()]
        start = max((m.end() for m in _ENDS_LIST.finditer(self.text, 0, cue.start())), default=0)
        before = [i for i in before if self.findings[i][0] >= start]
        plural = re.match(r"(?:are|were|have)\b", cue[0]) is not None
        later: int | None = None
        for number in reversed(before):
            between = "" if later is None else self._between(number, later)
            if later is not None and not plural and not _LINKED.fullmatch(between):
                return
            yield number
            later = number

    def _until(self, start: int, *ends: re.Pattern[str]) -> Iterator[int]:
        found = [match.start() for end in ends if (match := end.search(self.text, start))]
        stop = min(found, default=len(self.text))
        for number, (first, _) in enumerate(self.findings):
            if start <= first < stop:
                yield number

    def _between(self, first: int, second: int) -> str:
        return self.text[self.findings[first][1] : self.findings[second][0]]


def _lowered(text: str) -> str:
    """The text in lower case, of the same length."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
