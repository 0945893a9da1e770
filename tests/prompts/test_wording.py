"""The normaliser: one spelling for a phrase, its side set apart."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textseg.prompts.wording import Phrase, normalise, parse, split_side, strip_commands


@given(st.text(max_size=300))
@settings(max_examples=300)
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once


WORDS = ("left", "right", "L", "and", "/", ",", "the", "on", "side", "-", "I-II", "4th", "kidneys")


@example(["on"] * 6 + ["left"])
@given(st.lists(st.sampled_from(WORDS), max_size=9))
@settings(max_examples=300)
def test_normalising_side_words_twice_changes_nothing(words):
    once = normalise(" ".join(words))
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Oesophagus", "esophagus"),
        ("tumours", "tumor"),
        ("grey_matter", "gray matter"),
        ("vertebrae", "vertebra"),
        ("hippocampi", "hippocampus"),
        ("thalami", "thalamus"),
        ("femora", "femur"),
        ("pancreas", "pancreas"),
        ("pons", "pons"),
        ("sinuses", "sinus"),
        ("arteries", "artery"),
        ("metastases", "metastasis"),
        ("third ventricle", "3 ventricle"),
        ("ventricle IV", "ventricle 4"),
        ("Couinaud II–III", "couinaud 2 to 3"),
        ("L4-5", "l4 to 5"),
        ("Th12", "t12"),
        ("l 4", "l4"),
        ("liver & spleen; pancreas", "liver and spleen , pancreas"),
        ("ＬＩＶＥＲ", "liver"),
    ],
)
def test_spellings_come_to_one(written, expected):
    assert normalise(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "left kidney",
        "kidney left",
        "kidney (left)",
        "kidney, left",
        "Lt. kidney",
        "L kidney",
        "left-sided kidneys",
        "the kidney on the left side",
        "kidney of the left",
        "sinister kidney",
    ],
)
def test_every_way_to_name_a_side_parses_alike(written):
    assert parse(normalise(written)) == Phrase(("kidney",), "left")


@pytest.mark.parametrize("written", ["L1", "R1", "l5 vertebra", "iliac", "lumbar", "rectum", "lr"])
def test_side_letters_are_not_found_inside_other_words(written):
    assert split_side(normalise(written))[0] is None


@pytest.mark.parametrize("written", ["left and right", "R+L", "L / R", "both", "on either side"])
def test_two_sides_at_an_edge_are_both(written):
    assert parse(normalise(f"kidneys {written}")) == Phrase(("kidney",), "both")


def test_two_sides_of_two_structures_are_not_both():
    text = normalise("kidney left, right adrenal gland")
    assert text == "kidney left , right adrenal gland"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("please segment the liver", "liver"),
        ("liver on this CT scan, please", "liver"),
        ("segment 4 of the liver", "segment 4 of the liver"),
        ("show me the kidney on the left", "kidney left"),
        ("the", "the"),
    ],
)
def test_commands_are_removed_and_names_kept(written, expected):
    assert strip_commands(normalise(written)) == expected
