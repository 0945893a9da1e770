"""What a report says of the place of a lesion, its signal, edema, necrosis and the ventricles."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

from textseg.reports.sentences import PLACES, join_sentences, split_heading, split_sentences
from textseg.reports.words import EDEMA, LESION, NECROSIS, PLACE, SIGNAL, VENTRICLES

_FINDINGS = {"edema": EDEMA, "necrosis": NECROSIS, "ventricles": VENTRICLES}
_HEADINGS = {"location": PLACES, **_FINDINGS, "signal": SIGNAL}
_JOINT = re.compile(
    r"([,;]\s+(?:and\s+)?|"
    r"(?<!associated)(?<!accompanied)(?<!consistent)(?<!compatible)(?<!together)(?<!along)\s+"
    r"(?=(?:(?:associated|consistent|compatible|together|along) )?(?:with|without)\b|"
    r"(?:accompanied|surrounded|caused) by\b|(?:and )?(?:causing|compressing|showing|exhibiting|"
    r"demonstrating|presenting|appearing|indicating|suggesting)\b))"
)
REFERS_BACK = re.compile(r"(?:it|its|this|these|they)\b", re.IGNORECASE)
"""How a sentence begins that carries on what the one before it was about."""


@dataclass(frozen=True)
class Sections:
    """Sentences of a report by what they speak of; one that speaks of several is in each.

    Attributes:
        location: Where the lesion is.
        signal: How the lesion looks: signal, enhancement, density.
        edema: Edema and swelling, present or denied.
        necrosis: Necrosis, present or denied.
        ventricles: The ventricles and what else a lesion displaces: midline shift, mass effect.
    """

    location: tuple[str, ...] = ()
    signal: tuple[str, ...] = ()
    edema: tuple[str, ...] = ()
    necrosis: tuple[str, ...] = ()
    ventricles: tuple[str, ...] = ()

    def render(self, *names: str) -> str:
        """A report with only these sections, in the order of the template; all if none is named.

        Of a sentence that speaks of other things as well, the clauses about them are left out.

        >>> sections = read_sections("Left frontal mass with high signal. No edema.")
        >>> sections.render("location")
        'Left frontal mass.'
        >>> sections.render("signal", "edema")
        'With high signal. No edema.'

        Raises:
            ValueError: There is no such section.
        """
        if unknown := set(names) - set(SECTIONS):
            raise ValueError(
                f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}."
            )
        wanted = frozenset(names or SECTIONS)
        sentences = [s for name in SECTIONS if name in wanted for s in self._section(name)]
        return join_sentences([self._kept(s, wanted) for s in dict.fromkeys(sentences)])

    def _section(self, name: str) -> tuple[str, ...]:
        sentences: tuple[str, ...] = getattr(self, name)
        return sentences

    def _kept(self, sentence: str, wanted: frozenset[str]) -> str:
        """The sentence without the clauses that speak of other sections only."""
        if wanted.issuperset(name for name in SECTIONS if sentence in self._section(name)):
            return sentence
        clauses = _clauses(sentence)
        kept = [number for number, clause in enumerate(clauses) if clause.sections & wanted]
        if not kept:
            return sentence
        text = clauses[kept[0]].text
        for before, number in pairwise(kept):
            text += clauses[number].joint if number == before + 1 else ", "
            text += clauses[number].text
        return text[0].upper() + text[1:]


SECTIONS = tuple(field.name for field in fields(Sections))
"""The names of the sections, in the order of the template."""


class _Clause(NamedTuple):
    """Part of a sentence, what joins it to the part before, and what it speaks of."""

    joint: str
    text: str
    topic: str
    sections: frozenset[str]


def read_sections(text: str) -> Sections:
    """What each sentence of a report speaks of, from its words and from the headings.

    What is said about the place or the signal of edema, necrosis or ventricles belongs to these
    alone. A sentence that speaks of nothing in particular is in no section.

    >>> read_sections("Right temporal tumor. Edema reaches the insula.").edema
    ('Edema reaches the insula.',)
    """
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    under = topic = ""
    for sentence in split_sentences(text):
        heading, body = split_heading(sentence)
        if heading:
            under = section_under(heading)
        if heading or not REFERS_BACK.match(body):
            topic = under
        clauses = _clauses(sentence, topic)
        sections = frozenset[str]().union(*(clause.sections for clause in clauses))
        if not sections and (under or LESION.search(body)):
            sections = frozenset({under or "location"})
        for name in sections:
            found[name].append(sentence)
        topic = clauses[0].topic
    return Sections(**{name: tuple(sentences) for name, sentences in found.items()})


def section_under(heading: str) -> str:
    """The section that a heading opens, "" for one about something else."""
    last = heading.rpartition(":")[2]
    return next((name for name, words in _HEADINGS.items() if words.search(last)), "")


def _clauses(sentence: str, topic: str = "") -> list[_Clause]:
    """The clauses of a sentence; one that says nothing by itself goes with its neighbor.

    Args:
        sentence: A sentence, with its heading if it has one.
        topic: What the sentence before was about, if this one carries on.
    """
    heading, body = split_heading(sentence)
    section = section_under(heading)
    topic = section or topic
    joints_and_texts = ["", *_JOINT.split(body)]
    read: list[_Clause] = []
    for joint, text in zip(joints_and_texts[::2], joints_and_texts[1::2], strict=True):
        # "edema ..., bright around the lesion" is still about the edema
        refers = bool(read or heading or REFERS_BACK.match(text))
        topic, sections = _read_clause(text, topic, keep=refers and topic in _FINDINGS)
        if not read:
            sections |= {section} - {""}
            text = sentence.removesuffix(body) + text
        elif not sections:
            sections = read[-1].sections
        read.append(_Clause(joint, text, topic, sections))
    first = next((clause.sections for clause in read if clause.sections), frozenset[str]())
    return [clause._replace(sections=clause.sections or first) for clause in read]


def _read_clause(text: str, topic: str, *, keep: bool) -> tuple[str, frozenset[str]]:
    """What a clause is about, and the sections it belongs to.

    Args:
        text: The clause.
        topic: What the clause before was about.
        keep: Whether a lesion may be named without a change of topic.
    """
    named = {name: match for name, words in _FINDINGS.items() if (match := words.search(text))}
    lesion, signal = LESION.search(text), SIGNAL.search(text)
    things = {**named, "lesion": lesion} if lesion and not keep else named
    before = topic
    if things:
        topic = min(things, key=lambda name: things[name].start())
    sections = set(named)
    if topic not in _FINDINGS:
        sections |= {"location"} if PLACE.search(text) else set()
        sections |= {"signal"} if signal else set()
        return topic, frozenset(sections)
    if before not in _FINDINGS and signal and topic in named:
        # "with ring enhancement and edema" speaks of both, "with bright edema" of edema
        between = text[signal.end() : named[topic].start()]
        sections |= {"signal"} if " and " in between else set()
    return topic, frozenset({topic, *sections})
