"""From a radiology report to its findings: what each is, where it lies, and whether it is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from textseg.knowledge import KnowledgeTree
from textseg.prompts.finding_name import LesionReader
from textseg.prompts.measurement import Span
from textseg.prompts.mention import Mention, read_mentions
from textseg.prompts.place import PlaceReader
from textseg.prompts.prompt import Modality, Resolution
from textseg.prompts.wording import Side
from textseg.reports.sentences import split_sentences

_HEADING = re.compile(r"\s*([A-Za-z][\w/&() -]{1,40}?)\s*:(?=\s|$)")
_SECTIONS = {
    "findings": r"findings?|report|description",
    "impression": r"(?:impressions?|conclusions?|summary|opinion|diagnos[ie]s|assessment)",
    "question": r"(?:clinical |relevant )?(?:indications?|history|information|question|details|"
    r"data)|reason for (?:exam|examination|study)",
    "technique": r"techniques?|procedures?|protocol|comparisons?|contrast|exam(?:ination)?|"
    r"recommendations?",
}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Finding:
    """One thing a report states.

    Attributes:
        sentence: In which it does.
        index: Of the sentence.
        span: First and past-last character of the words in the report.
        what: The words.
        resolution: What they mean together with the place; its prompt is the text that was read.
        site: Ids of the structures in which it lies, as far as the report names them.
        side: Of the site, or that the words name.
        size_mm: As stated; empty if it is not.
        negated: It is said not to be there.
        uncertain: The report does not commit itself.
        history: The report speaks of an earlier time.
        repeated: Indices of sentences of the impression that say the same.
        reason: Why it is no prompt; None if it is one.
    """

    sentence: str
    index: int
    span: Span
    what: str
    resolution: Resolution
    site: tuple[str, ...] = ()
    side: Side | None = None
    size_mm: tuple[float, ...] = ()
    negated: bool = False
    uncertain: bool = False
    history: bool = False
    repeated: tuple[int, ...] = ()
    reason: str | None = None

    @property
    def concepts(self) -> tuple[str, ...]:
        """What it is; none if that is not known."""
        return self.resolution.concepts


@dataclass
class _Context:
    """What earlier sentences say about the next one.

    Attributes:
        section: Key of ``_SECTIONS``, "" before the first heading.
        topic: Name of the organ that a heading such as "Liver:" announced.
        last: The findings of the last sentence that has any.
    """

    section: str = ""
    topic: str | None = None
    last: tuple[Finding, ...] = field(default_factory=tuple)


def read_findings(
    report: str, tree: KnowledgeTree, *, modality: Modality | None = None
) -> tuple[Finding, ...]:
    """Everything a report states that is a finding, in its order; what is no prompt says why.

    Nothing is guessed: a finding that the tree does not hold, or whose organ stays open, is listed
    without concepts. Healthy structures are no findings. What an impression says again is said
    once, with the index of its sentence in ``repeated``.

    Args:
        report: Text, with or without headings.
        tree: The knowledge tree; what a model can segment of it plays no part yet.
        modality: Of the scan, where it settles what an ambiguous word means.
    """
    reader = _Reader(tree, modality)
    sentences = split_sentences(report)
    context = _Context()
    stated: list[tuple[str, Finding]] = []
    for index, (sentence, places) in enumerate(_located(report, sentences)):
        section = reader.read(sentence, context)
        found = [replace(f, index=index, span=_in_report(f.span, places)) for f in section]
        context.last = tuple(found) or context.last
        stated += [(context.section, finding) for finding in found]
    return _merged(stated, tree)


class _Reader:
    """Reads sentences with one tree."""

    def __init__(self, tree: KnowledgeTree, modality: Modality | None) -> None:
        self._tree = tree
        self._places = PlaceReader(tree, modality=modality)
        self._lesions = LesionReader(tree, modality=modality)

    def read(self, sentence: str, context: _Context) -> list[Finding]:
        """The findings of a sentence; its headings are noted in the context."""
        start = self._pass_headings(sentence, context)
        body = " " * start + sentence[start:]
        found: list[Finding] = []
        for mention in read_mentions(body, self._places, topic=context.topic):
            finding = self._finding(mention, sentence, context, found)
            # "the lesion" is the one that was named before
            is_known = mention.refers and bool(found or context.last)
            if not is_known or finding.concepts or finding.negated:
                found.append(finding)
        return found

    def _pass_headings(self, sentence: str, context: _Context) -> int:
        start = 0
        while (match := _HEADING.match(sentence, start)) is not None:
            name = match[1].strip()
            section = next(
                (key for key, words in _SECTIONS.items() if re.fullmatch(words, name.lower())), None
            )
            topic = name if self._places.read(name) else None
            if section is None and topic is None and not name.isupper():
                break
            context.section = section or context.section
            context.topic = topic
            context.last = ()
            start = match.end()
        return start

    def _finding(
        self, mention: Mention, sentence: str, context: _Context, found: Sequence[Finding]
    ) -> Finding:
        """The finding of a mention.

        Args:
            mention: It.
            sentence: In which it is.
            context: Of the sentence.
            found: What the same sentence states before it.
        """
        source = next(reversed(found or context.last), None)
        if not (mention.depends or (mention.judges and found)):
            source = None
        site, side = self._site(mention, context)
        if source is not None and not site:
            site, side = source.site, side or source.side
        whole = source.concepts if source is not None else ()
        resolution = self._lesions.read(mention, site, whole=whole)
        if mention.at is None and mention.own and self._lesions.names_organ(mention, site):
            # "renal cyst" says what it is, and no more of the place than that
            site, side = (), side or self._side_of(site)
        stated = mention.assertion
        finding = Finding(
            sentence,
            0,
            mention.span,
            mention.words,
            resolution,
            site,
            self._side_of(site) or side or self._side_of(resolution.concepts),
            mention.size_mm,
            negated=stated.negated,
            uncertain=stated.uncertain or context.section == "question",
            history=stated.history,
        )
        return replace(finding, reason=_why_not(finding, context, gone=stated.gone))

    def _site(self, mention: Mention, context: _Context) -> tuple[tuple[str, ...], Side | None]:
        place = mention.at or mention.own
        if place is not None:
            return place.concepts, mention.side
        if context.topic is None or mention.depends or mention.judges:
            return (), mention.side
        sided = mention.side in ("left", "right") and self._places.read(
            f"{mention.side} {context.topic}"
        )
        return sided or self._places.read(context.topic), mention.side

    def _side_of(self, concepts: Sequence[str]) -> Side | None:
        sides = {self._tree[concept].side for concept in concepts}
        if sides == {"left", "right"}:
            return "both"
        return sides.pop() if len(sides) == 1 else None


def _why_not(finding: Finding, context: _Context, *, gone: bool) -> str | None:
    """Why a finding is no prompt; None if it is one."""
    if finding.negated:
        return "The report says that it is not there."
    if context.section == "question":
        return "It is what the examination was to answer, not what was found."
    if context.section == "technique":
        return "It stands in a section that reports no findings."
    if gone:
        return "The report speaks of an earlier time."
    if finding.resolution.status != "ok":
        told = (why for why in finding.resolution.warnings if not why.startswith("Did you mean"))
        return " ".join(told) or "It is not understood."
    return None


def _located(report: str, sentences: Sequence[str]) -> Iterator[tuple[str, dict[int, int]]]:
    """Sentences with where the characters of their words stand, and their ends, in the report."""
    start = 0
    for sentence in sentences:
        places: dict[int, int] = {}
        for word in _WORD.finditer(sentence):
            # a sentence has lost the asterisks of bold type, even those within a word
            spelled = re.compile(r"\**".join(map(re.escape, word[0])))
            if (found := spelled.search(report, start)) is not None:
                start = found.end()
                inside = range(word.start(), word.end())
                places |= {i: min(found.start() + i - word.start(), start) for i in inside}
                places[word.end()] = start
        yield sentence, places


def _in_report(span: Span, places: dict[int, int]) -> Span:
    """The same words in the report, without the marks that they begin or end with."""
    known = [places[i] for i in range(span[0], span[1] + 1) if i in places]
    return known[0], known[-1]


def _merged(stated: Sequence[tuple[str, Finding]], tree: KnowledgeTree) -> tuple[Finding, ...]:
    """The findings without those of the impression that say again what was found before."""
    kept: list[Finding] = []
    for section, finding in stated:
        same = next(
            (
                i
                for i, f in enumerate(kept)
                if section == "impression" and _repeats(finding, f, tree)
            ),
            None,
        )
        if same is None:
            kept.append(finding)
            continue
        first = kept[same]
        kept[same] = replace(
            first,
            site=first.site or finding.site,
            size_mm=first.size_mm or finding.size_mm,
            repeated=(*first.repeated, finding.index),
        )
    return tuple(kept)


def _repeats(later: Finding, first: Finding, tree: KnowledgeTree) -> bool:
    """Whether one finding says nothing that another does not."""
    if later.index == first.index or later.negated != first.negated:
        return False
    if not later.concepts or set(later.concepts) != set(first.concepts):
        return False
    if later.size_mm and first.size_mm and later.size_mm != first.size_mm:
        return False
    around = {i for concept in first.site for i in (concept, *tree.ancestors(concept))}
    sides = {later.side, first.side} - {None}
    return len(sides) < 2 and (not later.site or not first.site or set(later.site) <= around)
