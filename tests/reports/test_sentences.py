"""A sentence ends where it ends, however the report was laid out."""

from __future__ import annotations

import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports.examples import sentences, texts

from textseg.reports import join_sentences, split_heading, split_sentences

LAYOUTS = {
    "in a row": " ".join,
    "a line each": "\n".join,
    "paragraphs": "\n\n".join,
    "Windows lines": "\r\n".join,
    "bullets": lambda said: "\n".join(f"- {sentence}" for sentence in said),
    "round bullets": lambda said: "\n".join(f"  • {sentence}" for sentence in said),
    "numbers": lambda said: "\n".join(f"{n}. {s}" for n, s in enumerate(said, 1)),
    "brackets": lambda said: "\n".join(f"{n}) {s}" for n, s in enumerate(said, 1)),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@given(said=sentences)
def test_any_layout_has_the_same_sentences(layout, said):
    assert split_sentences(layout(said)) == tuple(said)


@given(said=sentences, width=st.integers(40, 110))
def test_a_line_break_within_a_sentence_does_not_end_it(said, width):
    wrapped = textwrap.fill(" ".join(said), width, break_on_hyphens=False)
    assert split_sentences(wrapped) == tuple(said)


@given(said=sentences)
def test_joined_sentences_split_again(said):
    assert split_sentences(join_sentences(said)) == tuple(said)


@given(text=texts)
def test_no_letter_is_lost_and_none_is_made_up(text):
    found = split_sentences(text)
    assert re.findall(r"[a-zA-Z]", "".join(found)) == re.findall(r"[a-zA-Z]", text)
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ()),
        (" \n\t\n", ()),
        ("---\n***\n", ()),
        ("Left frontal mass", ("Left frontal mass",)),
        ("Seen at 3.2 x 4.1 cm. New.", ("Seen at 3.2 x 4.1 cm.", "New.")),
        ("A mass of 3 cm. in the lobe.", ("A mass of 3 cm. in the lobe.",)),
        ("Glioma, i.e. new. Grade IV. Dark.", ("Glioma, i.e. new.", "Grade IV.", "Dark.")),
        ("mass in the lobe. no edema.", ("mass in the lobe.", "no edema.")),
        ("Mass in the lobe.No edema.", ("Mass in the lobe.", "No edema.")),
        ("On the L. No edema.", ("On the L.", "No edema.")),
        ("L. frontal and Lt. temporal mass.", ("L. frontal and Lt. temporal mass.",)),
        ("Lesions (see Fig. 3.) are seen.", ("Lesions (see Fig. 3.) are seen.",)),
        ("Large ... and dark. Is it new? Yes!", ("Large ... and dark.", "Is it new?", "Yes!")),
        ("Findings: 1. Left mass. 2. No edema.", ("Findings: Left mass.", "No edema.")),
    ],
)  # fmt: skip
def test_full_stops_within_a_sentence_are_told_from_its_end(text, wanted):
    assert split_sentences(text) == wanted


def test_a_heading_stays_with_what_follows_it():
    report = (
        "FINDINGS:\n\nMass in the left\nfrontal lobe.\nNo shift\nImpression: Glioma.\n"
        "## Summary\n**Edema**: mild\nlocation: left\nnecrosis: none"
    )
    assert split_sentences(report) == (
        "FINDINGS: Mass in the left frontal lobe.",
        "No shift",
        "Impression: Glioma.",
        "Summary: Edema: mild",
        "location: left",
        "necrosis: none",
    )


def test_short_lines_without_full_stops_are_sentences_of_their_own():
    report = "Left frontal mass\nNo hydrocephalus\nOld bleed in the\nright insula"
    assert split_sentences(report) == (
        "Left frontal mass",
        "No hydrocephalus",
        "Old bleed in the right insula",
    )


@pytest.mark.parametrize(
    ("sentence", "heading", "rest"),
    [
        ("Impression: Left mass.", "Impression", "Left mass."),
        ("FINDINGS: Brain: There is a mass.", "FINDINGS: Brain", "There is a mass."),
        ("Ventricular compression: mild", "Ventricular compression", "mild"),
        ("Impression:", "Impression", ""),
        ("Two masses: one is large.", "", "Two masses: one is large."),
        ("No edema.", "", "No edema."),
    ],
)
def test_a_heading_is_told_from_a_colon(sentence, heading, rest):
    assert split_heading(sentence) == (heading, rest)
