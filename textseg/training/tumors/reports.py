"""Reports of made-up tumors: what is true of a case, in varied words, and what could be instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator

from textseg.training.augment import chance
from textseg.training.tumors.cases import EDEMA_MM, Ambiguity, Extent, TumorCase, TumorPlan
from textseg.training.tumors.heads import LOBES, SIDES, Side, Site
from textseg.training.tumors.lesions import Kind
from textseg.training.tumors.wordings import (
    BRITISH,
    CEREBELLAR_PLACE,
    EDEMA,
    EXTENT_WORDS,
    LOCATION,
    MASSES,
    NECROSIS,
    NEUTRAL,
    NO_EDEMA,
    OLD_FINDING,
    OTHER_SIDE,
    PLACE,
    PLURALS,
    SEVERAL,
    SIGNAL,
    VENTRICLES,
    Wordings,
)

_STATEMENTS = ("location", "signal", "edema", "necrosis", "ventricles", "other", "old", "neutral")


@dataclass(frozen=True)
class Findings:
    """What a report states.

    Attributes:
        kind: Of the tumor.
        site: Where it is.
        edema: How far its swelling reaches.
        size_mm: Its greatest extent.
        pressed: The ventricles are pressed aside.
        ambiguous: What the images leave open.
        other: Site of the other candidate, of which a report may say that it is an old finding.
        pushing: The midline may be shifted, so nothing is said of it.
    """

    kind: Kind
    site: Site
    edema: Extent
    size_mm: float
    pressed: bool
    ambiguous: Ambiguity = "none"
    other: Site | None = None
    pushing: bool = False


@dataclass(frozen=True)
class ReportStyle:
    """How often a report says what it might leave out.

    Attributes:
        signal: What the tumor looks like in the sequences.
        edema: How far the swelling reaches; always where only the report tells.
        necrosis: Whether there is necrosis.
        ventricles: Whether they are compressed.
        other: That the other side is free of tumor.
        old: That the other candidate is an old finding.
        neutral: A sentence that says nothing about the tumor.
        headed: Each sentence after the name of its section.
    """

    signal: float = 0.7
    edema: float = 0.8
    necrosis: float = 0.5
    ventricles: float = 0.4
    other: float = 0.25
    old: float = 0.4
    neutral: float = 0.5
    headed: float = 0.15


def findings_of(plan: TumorPlan, case: TumorCase) -> Findings:
    """What is true of a case."""
    return Findings(
        kind=plan.kind,
        site=plan.site,
        edema=plan.edema,
        size_mm=case.sizes_mm[plan.named],
        pressed=case.pressed,
        ambiguous=plan.ambiguous,
        other=plan.sites[1 - plan.named] if len(plan.sites) == 2 else None,
        pushing=plan.pushing,
    )


def swapped(findings: Findings, case: TumorCase, plan: TumorPlan, generator: Generator) -> Findings:
    """What a report could state instead.

    The other candidate is the tumor, or a hidden swelling reaches less or more far. Where the
    images leave nothing open: the tumor is on the other side, in another lobe, or both.
    """
    turn = 1 + _pick(len(EDEMA_MM) - 1, generator)
    moved = 1 + _pick(3, generator)
    lobes = [lobe for lobe in LOBES[:4] if lobe != findings.site.lobe]
    lobe = lobes[_pick(len(lobes), generator)]
    if findings.other is not None:
        size_mm = case.sizes_mm[1 - plan.named]
        return replace(findings, site=findings.other, other=findings.site, size_mm=size_mm)
    if findings.ambiguous == "extent":
        extents = tuple(EDEMA_MM)
        return replace(
            findings, edema=extents[(extents.index(findings.edema) + turn) % len(extents)]
        )
    side, same = opposite(findings.site.side), findings.site
    place = Site(side if moved & 1 else same.side, lobe if moved & 2 else same.lobe)
    return replace(findings, site=place)


def opposite(side: Side) -> Side:
    """The other side."""
    return SIDES[1 - SIDES.index(side)]


def write_report(
    findings: Findings, *, seed: int, held_out: bool = False, style: ReportStyle | None = None
) -> str:
    """A report of one paragraph.

    Args:
        findings: What to state.
        seed: Of every choice of words; a report of other findings differs in what they say alone.
        held_out: Take the forms that are kept for testing.
        style: How much to say.
    """
    style = style or ReportStyle()
    writer = _Writer(findings, seed, held_out)
    generator = Generator().manual_seed(seed)
    shares = [1.0, *(getattr(style, name) for name in _STATEMENTS[1:])]
    said = {name: chance(share, generator) for name, share in zip(_STATEMENTS, shares, strict=True)}
    said["edema"] |= findings.ambiguous == "extent"
    said["old"] &= findings.other is not None
    headed, british = chance(style.headed, generator), chance(0.5, generator)
    order = [_STATEMENTS[i] for i in torch.randperm(len(_STATEMENTS), generator=generator)]
    if chance(0.5, generator):
        order.sort(key=lambda name: name != "location")
    sentences = [writer.sentence(name, headed=headed) for name in order if said[name]]
    text = " ".join(sentences)
    return _in_british(text) if british else text


class _Writer:
    """Sentences on some findings; the words of each hang on the seed and its statement alone."""

    def __init__(self, findings: Findings, seed: int, held_out: bool) -> None:
        self._findings, self._seed, self._held_out = findings, seed, held_out

    def sentence(self, statement: str, *, headed: bool) -> str:
        """One statement, after its heading if it is one of the sections of a report."""
        number = _STATEMENTS.index(statement)
        generator = Generator().manual_seed((self._seed * 31 + number + 1) % 2**63)
        forms = self._forms(statement)
        drawn = torch.rand((), generator=generator)
        form = forms[int(drawn * len(forms))]
        text = form.format(**self._slots(statement, generator))
        text = text[0].upper() + text[1:]
        name = statement.capitalize()
        if headed and number < _STATEMENTS.index("other") and not text.startswith(f"{name}:"):
            return f"{name}: {text}"
        return text

    def _forms(self, statement: str) -> Sequence[str]:
        findings = self._findings
        several, none = findings.kind == "metastases", findings.edema == "none"
        necrosis = {"ring": "necrotic", "cystic": "cystic"}.get(findings.kind, "none")
        wordings: Wordings = {
            "location": SEVERAL if several else LOCATION,
            "signal": SIGNAL[findings.kind],
            "edema": NO_EDEMA if none else EDEMA,
            "necrosis": NECROSIS[necrosis],
            "ventricles": VENTRICLES["pressed" if findings.pressed else "normal"],
            "other": OTHER_SIDE,
            "old": OLD_FINDING,
            "neutral": NEUTRAL,
        }[statement]
        forms = wordings.of(held_out=self._held_out)
        if statement == "neutral" and findings.pushing:
            return [form for form in forms if "midline" not in form]
        return forms

    def _slots(self, statement: str, generator: Generator) -> dict[str, str]:
        """A filling of each slot a form may have; all are drawn, so that none moves another."""
        findings = self._findings
        other = statement == "old" and findings.other is not None
        site = findings.other if other and findings.other else findings.site
        words = EXTENT_WORDS.get(findings.edema, ("",) * 3)
        size = 5 * max(1, round(findings.size_mm / 5))
        sizes = (f"{size} mm", f"{size / 10:g} cm")
        return {
            "place": self._place(site, generator),
            "mass": MASSES[_pick(len(MASSES), generator)],
            "masses": PLURALS[_pick(len(PLURALS), generator)],
            "extent": words[_pick(len(words), generator)],
            "size": sizes[_pick(len(sizes), generator)],
            "side": opposite(findings.site.side),
        }

    def _place(self, site: Site, generator: Generator) -> str:
        below = site.lobe == "cerebellum"
        forms = (CEREBELLAR_PLACE if below else PLACE).of(held_out=self._held_out)
        form = forms[int(torch.rand((), generator=generator) * len(forms))]
        initial = site.side[0].upper()
        return form.format(side=site.side, lobe=site.lobe, initial=initial, short=f"{initial}t")


def _pick(count: int, generator: Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _in_british(text: str) -> str:
    """The text in British spelling, capitals kept.

    >>> _in_british("Edema around the tumor, and the center is gray.")
    'Oedema around the tumour, and the centre is grey.'
    """

    def spell(match: re.Match[str]) -> str:
        word = BRITISH[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    text = re.sub("centered", "centred", text)
    return re.sub("|".join(BRITISH), spell, text, flags=re.IGNORECASE)
