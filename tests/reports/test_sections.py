"""Every sentence is filed under what it speaks of, from its words or from its heading."""

from __future__ import annotations

import pytest
from hypothesis import given
from reports.examples import texts

from textseg.reports import SECTIONS, Sections, read_sections, split_sentences

TEMPLATE = (
    "The lesion area is in the right frontal and insular lobes with mixed high and low signals.",
    "Edema is mostly found in the right parietal lobe, appearing as high signal around the lesion.",
    "Necrosis is seen within the lesion of the frontal lobe, with low signal.",
    "Ventricular compression is visible in the right lateral ventricle.",
)


def sections_of(sentence):
    sections = read_sections(sentence)
    return {name for name in SECTIONS if getattr(sections, name)}


def test_the_published_template_falls_into_its_five_parts():
    lesion, edema, necrosis, ventricles = TEMPLATE
    assert read_sections(" ".join(TEMPLATE)) == Sections(
        location=(lesion,),
        signal=(lesion,),
        edema=(edema,),
        necrosis=(necrosis,),
        ventricles=(ventricles,),
    )


@pytest.mark.parametrize(
    ("sentence", "sections"),
    [
        ("Large left frontal mass.", {"location"}),
        ("There is a 3 cm tumour.", {"location"}),
        ("The lesion is hyperintense on FLAIR.", {"signal"}),
        ("Left temporal tumor with ring enhancement and edema.", {"location", "signal", "edema"}),
        ("There is marked perifocal oedema in the left insula.", {"edema"}),
        ("No edema.", {"edema"}),
        ("The necrotic core is dark.", {"necrosis"}),
        ("Mass with edema, without necrosis.", {"edema", "necrosis"}),
        ("No hydrocephalus.", {"ventricles"}),
        ("Midline shift to the left of 4 mm.", {"ventricles"}),
        ("A periventricular plaque is seen.", {"location"}),
        ("The scan was made at 3 T.", set()),
    ],
)
def test_a_sentence_is_filed_by_its_words(sentence, sections):
    assert sections_of(sentence) == sections


def test_british_and_american_spelling_are_one():
    british = "Left tumour. Oedema. Haemorrhage in the left lobe."
    american = "Left tumor. Edema. Hemorrhage in the left lobe."
    for one, other in zip(split_sentences(british), split_sentences(american), strict=True):
        assert sections_of(one) == sections_of(other) != set()


def test_headings_decide_until_the_next_one():
    report = (
        "Location: left frontal lobe\nSignal intensity: mixed\nOEDEMA:\nModerate.\n"
        "In the left parietal lobe.\nNecrosis: absent\nVentricular system: displaced\n"
        "Technique: 3 T."
    )
    assert read_sections(report) == Sections(
        location=("Location: left frontal lobe",),
        signal=("Signal intensity: mixed",),
        edema=("OEDEMA: Moderate.", "In the left parietal lobe."),
        necrosis=("Necrosis: absent",),
        ventricles=("Ventricular system: displaced",),
    )


def test_it_means_what_the_sentence_before_spoke_of():
    sections = read_sections("There is edema. It reaches the left insula. The left mass is new.")
    assert sections.edema == ("There is edema.", "It reaches the left insula.")
    assert sections.location == ("The left mass is new.",)


def test_the_ablation_of_the_published_template_leaks_nothing():
    sections = read_sections(" ".join(TEMPLATE))
    assert (
        sections.render("location") == "The lesion area is in the right frontal and insular lobes."
    )
    features = sections.render("signal", "edema", "necrosis", "ventricles")
    assert features == " ".join(["With mixed high and low signals.", *TEMPLATE[1:]])
    assert sections.render() == sections.render(*SECTIONS) == " ".join(TEMPLATE)


def test_only_the_clauses_asked_for_are_kept():
    sections = read_sections(
        "Left mass with high signal, surrounded by edema, causing midline shift"
    )
    assert sections.render("location", "edema") == "Left mass, surrounded by edema."
    assert sections.render("ventricles") == "Causing midline shift."
    assert sections.render("necrosis") == ""


def test_a_section_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"oedema.*edema"):
        Sections().render("oedema")


@given(text=texts)
def test_sections_hold_nothing_but_sentences_of_the_report(text):
    sections = read_sections(text)
    said = split_sentences(text)
    assert all(sentence in said for name in SECTIONS for sentence in getattr(sections, name))


def test_a_full_rendering_reads_the_same_again():
    once = read_sections(" ".join(TEMPLATE))
    assert read_sections(once.render()) == once
