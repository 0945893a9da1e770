"""Each kind of prompt on cases that the development set does not reach."""

from __future__ import annotations

import pytest

from textseg.knowledge import Concept, KnowledgeTree, load_tree
from textseg.prompts import resolve
from textseg.prompts.resolve import KINDS

TREE = load_tree()
LOBES = {
    "lung.upper_lobe.left",
    "lung.lower_lobe.left",
    "lung.upper_lobe.right",
    "lung.middle_lobe.right",
    "lung.lower_lobe.right",
}


def small_tree(*concepts):
    return KnowledgeTree({concept.id: concept for concept in concepts})


def test_every_kind_passes_on_what_it_does_not_know_but_the_last():
    small = small_tree(Concept("liver", "liver"))
    answer = resolve("zzyzx", small)
    assert (answer.status, answer.method) == ("reject", "none")
    assert list(KINDS)[-1] == "fuzzy"


def test_a_pair_without_support_is_the_unsided_concept():
    for prompt in ("kidneys", "both kidneys", "left and right kidney"):
        assert resolve(prompt, TREE).concepts == ("kidney",)


def test_a_pair_known_only_by_its_sides_is_both_of_them():
    tree = small_tree(
        Concept("ear.left", "left ear", side="left"),
        Concept("ear.right", "right ear", side="right"),
    )
    assert resolve("ears", tree).concepts == ("ear.left", "ear.right")


def test_lungs_are_the_five_lobes_of_a_model_that_knows_lobes():
    assert set(resolve("lungs", TREE, supported=LOBES).concepts) == LOBES


def test_an_incomplete_group_names_what_is_missing():
    answer = resolve("lungs", TREE, supported=LOBES - {"lung.middle_lobe.right"})
    assert answer.status == "ok"
    assert "middle lobe" in " ".join(answer.warnings)


def test_a_group_of_which_too_little_is_known_is_unsupported():
    answer = resolve("lumbar vertebrae", TREE, supported={"vertebra.l5", "vertebra.l4"})
    assert (answer.status, answer.concepts) == ("unsupported", ())
    assert set(answer.suggestions) == {"vertebra L4", "vertebra L5"}


def test_a_side_is_not_cut_out_of_an_unsided_structure():
    answer = resolve("left kidney", TREE, supported={"kidney"})
    assert (answer.status, answer.suggestions) == ("unsupported", ("kidney",))


def test_an_ambiguous_word_is_asked_back_unless_the_model_knows_one_meaning():
    asked = resolve("caudate", TREE)
    assert asked.status == "ambiguous"
    assert "caudate_nucleus" in asked.candidates
    known = {"caudate_nucleus.left", "caudate_nucleus.right"}
    decided = resolve("caudate", TREE, supported=known)
    assert set(decided.concepts) == known
    assert "Interpreted as" in decided.warnings[-1]


def test_support_never_decides_where_the_guess_could_be_in_another_organ():
    answer = resolve("LV", TREE, supported={"lateral_ventricle.left", "lateral_ventricle.right"})
    assert answer.status == "ambiguous"


def test_t1_is_a_vertebra_on_ct_and_asked_back_elsewhere():
    assert resolve("T1", TREE, modality="ct").concepts == ("vertebra.t1",)
    assert resolve("T1", TREE, modality="mr").status == "ambiguous"
    assert resolve("T1", TREE).status == "ambiguous"
    assert resolve("T1 vertebra", TREE, modality="mr").concepts == ("vertebra.t1",)


def test_a_tumor_without_a_site_is_asked_back_with_tumors_only():
    answer = resolve("tumour", TREE)
    assert answer.status == "ambiguous"
    assert answer.candidates
    assert {TREE[candidate].kind for candidate in answer.candidates} == {"lesion"}


def test_a_lesion_that_the_tree_knows_is_found_by_adjective_and_order():
    for prompt in ("left kidney cyst", "cyst of the left kidney", "L renal cyst"):
        assert resolve(prompt, TREE).concepts == ("kidney_cyst.left",)


def test_a_lesion_shared_by_a_list_is_asked_back():
    assert resolve("tumor of liver and kidney", TREE).status == "ambiguous"


def test_exclusion_descends_as_far_as_it_must():
    answer = resolve("lungs without left lower lobe", TREE)
    assert set(answer.concepts) == {"lung.upper_lobe.left", "lung.right"}


def test_an_excluded_part_may_be_named_by_what_it_belongs_to():
    answer = resolve("right lung without the middle lobe", TREE)
    assert answer.concepts == ("lung.upper_lobe.right", "lung.lower_lobe.right")


def test_excluded_numbers_borrow_the_name_before_them():
    answer = resolve("left ribs 1 to 6 except 3 and 4", TREE)
    assert answer.concepts == tuple(f"rib.{n}.left" for n in (1, 2, 5, 6))


def test_what_the_tree_cannot_divide_is_not_approximated():
    tree = small_tree(
        Concept("body", "body", made_of=(("head", "trunk"),)),
        Concept("head", "head", part_of=("body",)),
        Concept("trunk", "trunk", part_of=("body",)),
        Concept("nose", "nose", part_of=("head",)),
    )
    assert resolve("body without head", tree).concepts == ("trunk",)
    answer = resolve("body without nose", tree)
    assert (answer.status, answer.concepts) == ("unsupported", ())


def test_excluding_what_is_no_part_warns():
    answer = resolve("liver without spleen", TREE)
    assert answer.concepts == ("liver",)
    assert "spleen" in answer.warnings[0]


def test_nothing_left_is_refused():
    assert resolve("kidneys without left and right kidney", TREE).status == "reject"


def test_a_bad_part_refuses_the_whole_list_and_offers_the_good_ones():
    answer = resolve("liver, banana and spleen", TREE)
    assert answer.status == "reject"
    assert {"liver", "spleen"} <= set(answer.suggestions)


def test_a_side_is_not_passed_on_in_silence():
    answer = resolve("left kidney and adrenal gland", TREE)
    assert set(answer.concepts) == {"kidney.left", "adrenal_gland"}
    assert "names no side" in answer.warnings[0]


@pytest.mark.parametrize(
    "prompt", ["rib 13", "rib 0", "L9", "C8 vertebra", "T14-L2", "ribs 3 to 15"]
)
def test_numbers_that_do_not_exist_are_refused_with_those_that_do(prompt):
    answer = resolve(prompt, TREE)
    assert answer.status == "reject"
    assert "There is no" in answer.warnings[0]


def test_a_slash_between_levels_asks_whether_the_disc_is_meant():
    answer = resolve("L4/5", TREE)
    assert (answer.status, answer.candidates) == ("ambiguous", ("vertebra.l4", "vertebra.l5"))
    assert not {"vertebra.l4", "vertebra.l5"} & set(resolve("L4/5 disc", TREE).concepts)


@pytest.mark.parametrize("prompt", ["left kidny", "kidny left", "L kidny"])
def test_a_slip_of_the_keyboard_is_corrected_openly(prompt):
    answer = resolve(prompt, TREE)
    assert (answer.concepts, answer.method) == (("kidney.left",), "fuzzy")
    assert "interpreted as 'left kidney'" in answer.warnings[0]


@pytest.mark.parametrize("prompt", ["letf kidney", "rihgt kidney", "lft kidney", "ritght femur"])
def test_a_misspelt_side_is_never_corrected(prompt):
    assert resolve(prompt, TREE).status == "reject"


def test_a_known_structure_is_never_taken_for_a_misspelling():
    tree = small_tree(Concept("urethra", "urethra"), Concept("ureter", "ureter"))
    assert resolve("ureter", tree, supported={"urethra"}).status == "unsupported"


def test_a_slip_between_two_names_is_refused_with_both():
    tree = small_tree(Concept("a", "musculus abductor"), Concept("b", "musculus adductor"))
    answer = resolve("musculus aductor", tree)
    assert answer.status == "reject"
    assert set(answer.suggestions) == {"musculus abductor", "musculus adductor"}


def test_an_id_is_a_prompt_too():
    assert resolve("kidney.left", TREE).concepts == ("kidney.left",)


def test_a_shared_name_lists_every_structure_that_has_it():
    tree = small_tree(
        Concept("a", "cord of neck", synonyms=("cord",)),
        Concept("b", "cord of foot", synonyms=("cord",)),
    )
    answer = resolve("cord", tree)
    assert (answer.status, answer.candidates) == ("ambiguous", ("a", "b"))
    assert resolve("cord", tree, supported={"b"}).concepts == ("b",)


@pytest.mark.parametrize(
    "prompt", ["L3 pedicle", "L5-S1 facet", "fracture of T12", "C8 nerve root"]
)
def test_what_lies_at_a_vertebral_level_is_no_vertebra(prompt):
    answer = resolve(prompt, TREE, supported=[f"vertebra.l{n}" for n in range(1, 6)])
    assert (answer.status, answer.concepts) == ("unsupported", ())
