"""Names inside sentences, places of findings, and words with a meaning of their own."""

from __future__ import annotations

import pytest

from textseg.knowledge import load_tree
from textseg.knowledge.classes import class_names
from textseg.prompts import resolve, warn_of_modality

TREE = load_tree()
CLASSES = frozenset(class_names(TREE))


def asked(prompt, **options):
    return resolve(prompt, TREE, supported=CLASSES, **options)


@pytest.mark.parametrize(
    "prompt",
    [
        "The spleen is mildly enlarged, measuring 14 cm.",
        "54-year-old man, please segment the spleen",
        "What is the volume of the spleen?",
        "For treatment planning we need the spleen",
    ],
)
def test_a_sentence_about_one_structure_names_it(prompt):
    assert asked(prompt).concepts == ("spleen",)


@pytest.mark.parametrize(
    "prompt",
    [
        *("no evidence of pulmonary embolism", "s/p splenectomy", "the liver was resected"),
        *("do not segment the liver", "spleen not visualized", "the spleen is absent"),
        *("segment the liver and email it to me", "heart surgery", "liver function"),
    ],
)
def test_what_is_denied_gone_or_only_touched_on_is_refused(prompt):
    assert asked(prompt).concepts == ()


def test_a_word_of_size_is_part_of_a_name_where_there_is_one():
    assert asked("the small bowel is dilated").concepts == ("small_intestine",)
    assert asked("there is a small cyst in the left kidney").concepts == ("kidney_cyst.left",)


@pytest.mark.parametrize(
    ("prompt", "finding"),
    [
        ("nodule in the right upper lobe", "lung_nodule"),
        ("mass in the pancreatic head", "pancreas_tumor"),
        ("hepatic mass in segment VII", "liver_tumor"),
    ],
)
def test_a_finding_in_a_part_is_that_of_the_organ_and_says_so(prompt, finding):
    answer = asked(prompt)
    assert answer.concepts == (finding,)
    assert "not told apart" in answer.warnings[0]


def test_a_side_is_not_cut_out_of_a_finding_and_the_answer_says_so():
    answer = asked("right pleural effusion")
    assert answer.concepts == ("lung_effusion",)
    assert "side is not told apart" in answer.warnings[0]


def test_an_organ_with_a_finding_is_asked_back():
    answer = asked("kidney with tumor")
    assert (answer.status, answer.candidates) == ("ambiguous", ("kidney", "kidney_tumor"))


def test_a_place_beside_an_ambiguous_word_decides():
    assert asked("LV of the heart").concepts == ("heart_ventricle.left",)
    assert asked("caudate of the liver").concepts == ("liver.caudate_lobe",)


def test_the_modality_decides_only_between_what_is_labelled():
    assert asked("caudate", modality="ct").concepts == ("liver.caudate_lobe",)
    assert asked("PV", modality="ct").status == "ambiguous"


def test_a_mismatched_modality_is_warned_about_and_changes_nothing():
    answer = asked("lung nodule")
    warned = warn_of_modality(answer, TREE, modality="mr")
    assert (warned.concepts, len(warned.warnings)) == (answer.concepts, 1)
    assert warn_of_modality(answer, TREE, modality="ct") == answer
    assert warn_of_modality(answer, TREE, modality=None) == answer


@pytest.mark.parametrize("prompt", ["hepatocyte", "T cells", "mitochondria", "p53 protein"])
def test_what_is_smaller_than_a_voxel_is_refused_as_such(prompt):
    answer = asked(prompt)
    assert (answer.status, answer.method) == ("reject", "microscopic")


def test_a_cell_is_refused_with_its_organ():
    assert asked("hepatocytes").suggestions == ("liver",)


def test_an_everyday_name_bends_to_the_model_and_not_to_the_textbook():
    answer = asked("large bowel")
    assert answer.concepts == ("colon",)
    assert "interpreted as colon" in answer.warnings[0]
    assert resolve("large bowel", TREE).concepts == ("large_intestine",)


@pytest.mark.parametrize(
    ("prompt", "side"), [("OD lens", "right"), ("lens OS", "left"), ("lh hippocampus", "left")]
)
def test_sides_of_eyes_and_hemispheres_are_understood(prompt, side):
    (concept,) = asked(prompt).concepts
    assert TREE[concept].side == side


def test_os_is_a_bone_where_no_eye_is_meant():
    assert asked("os sacrum").concepts == ("sacrum",)


@pytest.mark.parametrize(
    ("prompt", "concepts"),
    [
        ("first three lumbar vertebrae", ("vertebra.l1", "vertebra.l2", "vertebra.l3")),
        ("last two thoracic vertebrae", ("vertebra.t11", "vertebra.t12")),
        ("last rib", ("rib.12",)),
        ("ribs four to six", ("rib.4", "rib.5", "rib.6")),
        ("discs L3/4 and L4/5", ("intervertebral_disc.l3_l4", "intervertebral_disc.l4_l5")),
    ],
)
def test_counting_from_either_end(prompt, concepts):
    assert asked(prompt).concepts == concepts


@pytest.mark.parametrize("prompt", ["inferior vena cava (IVC)", "left atrium (LA)", "C1 (atlas)"])
def test_a_gloss_in_brackets_says_the_same_again(prompt):
    assert asked(prompt).status == "ok"


def test_a_gloss_that_says_something_else_is_refused():
    assert asked("left kidney (actually right)").status != "ok"
    assert asked("liver (spleen)").status != "ok"


@pytest.mark.parametrize("prompt", ["beast", "brainstorm", "scrum", "rental", "sacred"])
def test_an_english_word_is_not_a_misspelt_organ(prompt):
    assert asked(prompt).status == "reject"


@pytest.mark.parametrize("prompt", ["leftkidney", "KidneyLeft", "Kidney_L", "kidneyleft"])
def test_names_of_variables_are_read(prompt):
    assert asked(prompt).concepts == ("kidney.left",)
