"""Reports: true of their case, varied in words, and with sentences that only tests have."""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from textseg.imaging import Geometry
from textseg.training.tumors import wordings
from textseg.training.tumors.cases import EDEMA_MM, KINDS, TumorCase, TumorPlan
from textseg.training.tumors.heads import LOBES, SITES, Site
from textseg.training.tumors.reports import (
    Findings,
    ReportStyle,
    findings_of,
    swapped,
    write_report,
)
from textseg.training.tumors.wordings import BRITISH, EXTENT_WORDS, PLACE, Wordings

FINDINGS = Findings("ring", Site("left", "frontal"), "moderate", 31.0, pressed=False)
TALKATIVE = ReportStyle(1, 1, 1, 1, 1, 1, 1, 0)
TERSE = ReportStyle(0, 0, 0, 0, 0, 0, 0, 0)
SLOTS = {"side", "lobe", "initial", "short", "place", "mass", "masses", "extent", "size"}


def statements():
    for name, value in vars(wordings).items():
        if isinstance(value, Wordings):
            yield name, value
        elif isinstance(value, dict) and any(isinstance(v, Wordings) for v in value.values()):
            yield from ((f"{name}-{key}", wording) for key, wording in value.items())


STATEMENTS = dict(statements())


def sentences(text):
    return text.rstrip(".").split(". ")


def side_words(side):
    return rf"\b{side}\b|\b{side[0].upper()}t?\b"


@pytest.mark.parametrize("wording", STATEMENTS.values(), ids=STATEMENTS)
def test_each_statement_has_six_forms_and_two_for_testing(wording):
    assert len(set(wording.training)) == len(wording.training) >= 6
    assert len(set(wording.held_out)) == len(wording.held_out) >= 2
    assert not set(wording.training) & set(wording.held_out)
    forms = (*wording.training, *wording.held_out)
    slots = {slot for form in forms for _, slot, _, _ in string.Formatter().parse(form) if slot}
    assert slots <= SLOTS


def test_there_are_enough_statements():
    assert len(STATEMENTS) >= 18


def test_no_sentence_of_a_test_report_is_in_a_training_report():
    said = {False: set(), True: set()}
    for seed in range(400):
        findings = replace(
            FINDINGS,
            site=SITES[seed % len(SITES)],
            kind=KINDS[seed % len(KINDS)],
            edema=tuple(EDEMA_MM)[seed % 4],
            other=Site("right", "occipital"),
        )
        for held_out, known in said.items():
            known.update(sentences(write_report(findings, seed=seed, held_out=held_out)))
    assert not said[False] & said[True]
    assert len(said[False]) > 600


@pytest.mark.parametrize("site", SITES, ids=" ".join)
def test_the_location_names_side_and_lobe_and_no_other(site):
    lobe = "cerebell" if site.lobe == "cerebellum" else site.lobe
    others = [f"\\b{other}\\b" for other in LOBES[:4] if other != site.lobe]
    for seed in range(30):
        text = write_report(
            replace(FINDINGS, site=site), seed=seed, held_out=seed % 2 == 1, style=TERSE
        )
        assert re.search(side_words(site.side), text, re.IGNORECASE), text
        assert re.search(lobe, text, re.IGNORECASE), text
        assert not re.search("|".join(others), text, re.IGNORECASE), text
        wrong = "right" if site.side == "left" else "left"
        assert not re.search(f"\\b{wrong}|\\b{wrong[0].upper()}t?\\b", text, re.IGNORECASE), text


@pytest.mark.parametrize("extent", EDEMA_MM)
def test_the_extent_of_a_hidden_swelling_is_always_said(extent):
    findings = replace(FINDINGS, edema=extent, ambiguous="extent")
    denials = {"no", "none", "absent", "without"}
    for seed in range(30):
        text = write_report(findings, seed=seed, held_out=seed % 2 == 1, style=TERSE)
        (said,) = [s for s in sentences(text) if re.search("o?edema", s, re.IGNORECASE)]
        words = set(re.findall("[a-z]+", said.lower()))
        expected = set(EXTENT_WORDS.get(extent, denials))
        assert words & expected
        others = {w for e, ws in EXTENT_WORDS.items() if e != extent for w in ws}
        assert not words & others
        assert extent == "none" or not words & denials


def test_a_report_of_another_extent_differs_in_that_sentence_alone():
    findings = replace(FINDINGS, edema="none", ambiguous="extent")
    for seed in range(40):
        one = sentences(write_report(findings, seed=seed))
        other = sentences(write_report(replace(findings, edema="marked"), seed=seed))
        different = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        assert len(different) == 1
        assert "edema" in different[0][0].lower()


def test_a_report_of_the_other_side_is_the_mirrored_report():
    words = {"left": "right", "Left": "Right", "L": "R", "Lt": "Rt"}
    words |= {right: left for left, right in words.items()}
    for seed in range(40):
        one, other = (
            write_report(replace(FINDINGS, site=Site(side, "frontal")), seed=seed, style=TALKATIVE)
            for side in ("left", "right")
        )
        mirrored = re.sub(r"\w+", lambda match: words.get(match[0], match[0]), one)
        assert mirrored == other


def test_the_free_side_is_the_other_one():
    for seed in range(20):
        text = write_report(FINDINGS, seed=seed, style=replace(TERSE, other=1.0))
        (said,) = [s for s in sentences(text) if re.search(r"\bno\b|free|without", s, re.I)]
        assert "right" in said.lower()
        assert "left" not in said.lower()


def test_only_a_second_candidate_is_called_an_old_finding():
    style = replace(TERSE, old=1.0)
    two = replace(FINDINGS, ambiguous="which", other=Site("left", "occipital"))
    for seed in range(20):
        assert len(sentences(write_report(FINDINGS, seed=seed, style=style))) == 1
        (said,) = [
            s for s in sentences(write_report(two, seed=seed, style=style)) if "ccipital" in s
        ]
        assert re.search("old|known", said, re.I)


def test_a_tumor_that_pushes_has_no_denied_midline_shift():
    style = replace(TERSE, neutral=1.0)
    calm = {write_report(FINDINGS, seed=seed, style=style) for seed in range(60)}
    pushing = {
        write_report(replace(FINDINGS, pushing=True), seed=seed, style=style) for seed in range(60)
    }
    assert any("midline" in text for text in calm)
    assert not any("midline" in text for text in pushing)


def test_reports_are_whole_varied_and_follow_from_the_seed():
    texts = [write_report(FINDINGS, seed=seed) for seed in range(200)]
    assert texts == [write_report(FINDINGS, seed=seed) for seed in range(200)]
    assert len(set(texts)) > 195
    assert not any(re.search(r"[{}]|\.\.|  ", text) for text in texts)
    assert all(s[0].isupper() for text in texts for s in sentences(text))
    assert 1 <= min(len(sentences(t)) for t in texts) < max(len(sentences(t)) for t in texts)


def test_half_of_the_reports_are_in_british_spelling_throughout():
    american = re.compile(rf"\b({'|'.join(BRITISH)})", re.IGNORECASE)
    british = re.compile("|".join(BRITISH.values()), re.IGNORECASE)
    kinds = Counter()
    for seed in range(200):
        text = write_report(FINDINGS, seed=seed, style=TALKATIVE)
        kinds[bool(american.search(text)), bool(british.search(text))] += 1
    assert kinds[True, True] == 0
    assert 60 < kinds[False, True] < 140


def test_a_place_has_a_form_with_an_abbreviation():
    assert any("{initial}" in form for form in PLACE.training)
    texts = [write_report(FINDINGS, seed=seed, style=TERSE) for seed in range(60)]
    assert any(re.search(r"\bL frontal", text) for text in texts)
    assert any(re.search(r"\bLt frontal", text) for text in texts)


def case_of(*sizes_mm):
    empty = np.zeros((4, 3, 2, 5), np.int16)
    geometry = Geometry((3, 2, 5), np.eye(4))
    return TumorCase(empty, empty[0].astype(np.uint8), geometry, False, sizes_mm)


def plan_of(*sites, ambiguous="none", edema="mild", named=0):
    return TumorPlan(1, "solid", sites, 20.0, edema, ambiguous, named)


def other_findings(plan, case, seed):
    generator = torch.Generator().manual_seed(seed)
    return swapped(findings_of(plan, case), case, plan, generator)


def test_of_two_lesions_the_swapped_report_names_the_other():
    left, right = Site("left", "frontal"), Site("right", "frontal")
    plan, case = plan_of(left, right, ambiguous="which", named=1), case_of(21.0, 34.0)
    found = findings_of(plan, case)
    assert (found.site, found.other, found.size_mm) == (right, left, 34.0)
    assert other_findings(plan, case, 0) == replace(found, site=left, other=right, size_mm=21.0)


def test_of_a_hidden_swelling_the_swapped_report_gives_another_extent():
    plan = plan_of(Site("left", "frontal"), ambiguous="extent", edema="moderate")
    found = {other_findings(plan, case_of(20.0), seed).edema for seed in range(40)}
    assert found == {"none", "mild", "marked"}


def test_where_nothing_is_open_the_swapped_report_tells_of_another_place():
    plan = plan_of(Site("left", "frontal"))
    found = [other_findings(plan, case_of(20.0), seed) for seed in range(60)]
    places = [(one.site.side != "left", one.site.lobe != "frontal") for one in found]
    assert set(places) == {(True, False), (False, True), (True, True)}
    assert {one.edema for one in found} == {"mild"}
