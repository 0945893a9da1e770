"""A changed report differs in what was to change, and in nothing else."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports.examples import sentences, texts

from textseg.reports import negate, shuffle_sentences, split_sentences, swap_sides

SIDES = ["left", "Left", "LEFT", "right", "Right", "RIGHT", "Lt.", "Rt.", "lt", "rt", "LT", "RT"]
SIDES += ["L", "R", "L.", "R.", "(L)", "(R)", "L/R", "R>L", "left-sided", "rightward", "L-sided"]
CONTEXT = [
    "frontal",
    "lobe",
    "Smith",
    "Dr.",
    "all",
    "after",
    "in place",
    "the",
    "3",
    "\n",
    "No",
    "-",
]
CONTEXT += ["bilateral", "handed", "was", "over", ",", ".", "MCA", "L4", "to", "angle", "temporal"]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left frontal", "right frontal"),
        ("Left frontal", "Right frontal"),
        ("LEFT FRONTAL", "RIGHT FRONTAL"),
        ("a left-sided mass", "a right-sided mass"),
        ("leftward shift", "rightward shift"),
        ("the leftmost one", "the rightmost one"),
        ("left_frontal", "right_frontal"),
        ("Lt. frontal, lt temporal", "Rt. frontal, rt temporal"),
        ("LT frontal lobe", "RT frontal lobe"),
        ("the frontal lobe (RT)", "the frontal lobe (LT)"),
        ("frontal region [RT] and edema (LT)", "frontal region [LT] and edema (RT)"),
        ("(RT) frontal mass, RT.parietal", "(LT) frontal mass, LT.parietal"),
        ("temporal lobe (LT, mesial)", "temporal lobe (RT, mesial)"),
        ("RT/LT frontal, RT > LT", "LT/RT frontal, LT > RT"),
        ("RT-sided, RT side, RT: frontal", "LT-sided, LT side, LT: frontal"),
        ("L. frontal, L temporal and (L) insula", "R. frontal, R temporal and (R) insula"),
        ("L. MCA", "R. MCA"),
        ("L-sided", "R-sided"),
        ("seen on the L. No edema", "seen on the R. No edema"),
        ("L>R, L/R", "R>L, R/L"),
        ("from left to right", "from right to left"),
        ("on the left after contrast", "on the right after contrast"),
        ("all left lobes", "all right lobes"),
        ("at left frontal", "at right frontal"),
    ],
)
def test_every_form_of_a_side_is_swapped(left, right):
    assert swap_sides(left) == right
    assert swap_sides(right) == left


@pytest.mark.parametrize(
    "text",
    [
        "bilateral edema, ipsilateral and contralateral",
        "right after surgery",
        "He is all right.",
        "a right-handed man",
        "The drain was left in place and left untreated.",
        "at right angles",
        "outright, bright and copyrights",
        "Seen by Dr. R. Smith, R. Jones and L. M. Doe.",
        "L4-L5, L-spine, R/O glioma, 3 L of water",
        "after RT of the brain",
        "after radiotherapy (RT)",
        "after liver transplant (LT), treated (RT, TMZ)",
        "Status post RT. Mass effect and edema are less.",
        "R2 and R2* maps, right away, rt-PA and L5",
    ],
)
def test_what_names_no_side_is_left_alone(text):
    assert swap_sides(text) == text


@given(words=st.lists(st.sampled_from(SIDES + CONTEXT), max_size=8), gap=st.sampled_from([" ", ""]))
def test_swapping_twice_gives_the_report_back(words, gap):
    text = gap.join(words)
    assert swap_sides(swap_sides(text)) == text


@given(text=texts)
def test_swapping_changes_no_other_letter(text):
    without_sides = re.compile(r"\b(left|right|lt|rt|l|r)\b", re.IGNORECASE)
    assert without_sides.sub("", swap_sides(text)) == without_sides.sub("", text)


@given(said=sentences, seed=st.integers(0, 99))
def test_shuffling_keeps_the_sentences_and_depends_on_the_generator_alone(said, seed):
    shuffled = shuffle_sentences(" ".join(said), random.Random(seed))
    assert sorted(split_sentences(shuffled)) == sorted(said)
    assert shuffled == shuffle_sentences(" ".join(said), random.Random(seed))


def test_shuffling_does_change_the_order():
    said = [f"Lesion number {n} is new." for n in range(8)]
    shuffled = split_sentences(shuffle_sentences(" ".join(said), random.Random(0)))
    assert shuffled != tuple(said)
    assert sorted(shuffled) == said


@pytest.mark.parametrize(
    ("stated", "denied"),
    [
        ("There is a mass in the left frontal lobe.", "There is no mass in the left frontal lobe."),
        ("There are two lesions with edema.", "There are no lesions with edema."),
        ("There is moderate oedema.", "There is no oedema."),
        ("In the left lobe, there is a mass.", "In the left lobe, there is no mass."),
        ("In the left lobe, a mass is seen.", "In the left lobe, no mass is seen."),
        ("A mass is seen in the insula.", "No mass is seen in the insula."),
        ("Multiple metastases are seen.", "No metastases are seen."),
        ("Edema is mainly observed on the left.", "No edema is observed on the left."),
        ("Edema is significant, on the left.", "No edema is present, on the left."),
        ("The lesion area is in the left lobe.", "The lesion area is not in the left lobe."),
        ("The ventricles are compressed.", "The ventricles are not compressed."),
        ("The mass has increased in size.", "The mass has not increased in size."),
        ("The mass has high signal.", "The mass does not have high signal."),
        ("FLAIR images show a lesion.", "FLAIR images do not show a lesion."),
        ("It extends into the left insula.", "It does not extend into the left insula."),
        ("Within the left lobe lies a mass.", "Within the left lobe lies no mass."),
        ("In the left lobe there is a scar, new.", "In the left lobe there is no scar, new."),
        ("Left frontal lobe: mass, 3 cm.", "Left frontal lobe: no mass, 3 cm."),
        ("The surrounding edema is marked.", "No surrounding edema is present."),
        ("After contrast the rim enhances.", "After contrast the rim does not enhance."),
        ("Hyperintense on T2.", "Not hyperintense on T2."),
        ("T2 hyperintense lesion.", "No T2 hyperintense lesion."),
        ("Left frontal mass without edema.", "No left frontal mass and no edema."),
        ("mass in the left lobe.", "no mass in the left lobe."),
        ("With high signal.", "Without high signal."),
        ("Impression: Left glioma.", "Impression: No left glioma."),
        ("Edema: moderate.", "Edema: none."),
        ("Ventricles: compressed.", "Ventricles: not compressed."),
        ("Location: Left frontal lobe.", "Location: not left frontal lobe."),
        (
            "Necrosis is present, and the ventricles are compressed.",
            "No necrosis is present, and the ventricles are not compressed.",
        ),
        (
            "There is no necrosis but a mass is present.",
            "There is no necrosis but no mass is present.",
        ),
    ],
)
def test_a_finding_that_is_stated_is_denied(stated, denied):
    assert negate(stated) == denied
    assert negate(denied) == denied


@pytest.mark.parametrize(
    "sentence",
    [
        "No edema.",
        "There is no midline shift.",
        "The mass does not enhance.",
        "The ventricles are of normal size.",
        "Normal ventricles.",
        "Necrosis is absent.",
        "Edema: none.",
        "Without mass effect.",
        "Right hemisphere without tumor.",
        "The tumor isn't necrotic.",
        "T2 and FLAIR images were acquired.",
        "History: known glioma.",
        "Compared with May 2019.",
    ],
)
def test_what_is_denied_or_no_finding_stays(sentence):
    assert negate(sentence) == sentence


@given(said=sentences)
def test_what_was_denied_once_stays_denied(said):
    once = negate(" ".join(said))
    assert len(split_sentences(once)) == len(said)
    assert negate(once) == once


@given(text=texts)
def test_any_text_can_be_denied(text):
    assert len(split_sentences(negate(text))) == len(split_sentences(text))
