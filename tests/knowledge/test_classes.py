"""What each class name of the public data sets stands for."""

import json

import pytest

from textseg.knowledge import TreeError, class_names, load_classes, load_tree

TREE = load_tree()
CLASSES = load_classes()
HEADER = "class\tconcepts\tmatch\tmodalities\tnote\n"


def test_every_class_stands_for_concepts_of_the_tree():
    unknown = {i for label in CLASSES.values() for i in label.concepts if i not in TREE}
    assert unknown == set()
    assert len(CLASSES) == 451


@pytest.mark.shared
def test_every_class_of_the_data_sets_is_there(shared_folder):
    listed = json.loads((shared_folder / "facts" / "classes_map.json").read_text(encoding="utf-8"))
    assert set(CLASSES) == set(listed)
    for name, entry in listed.items():
        assert CLASSES[name].modalities == tuple(entry["modalities"]), name
        assert {TREE[i].side for i in CLASSES[name].concepts} <= {entry["side"], None}, name


def test_a_class_is_what_its_own_name_means():
    for label in CLASSES.values():
        found = {concept.id for concept in TREE.lookup(label.name)}
        assert set(label.concepts) <= found or "vertebra" in label.name, label.name


@pytest.mark.parametrize(
    ("concept_id", "name"),
    [
        ("kidney.left", "left kidney"),
        ("vertebra.c1", "cervical vertebrae 1 (c1)"),
        ("liver.segment_4", "left medial segment of liver"),
        ("white_matter_lesion", "white matter hyperintensities"),
        ("portal_and_splenic_vein", "portal vein and splenic vein"),
        ("femur", "femur"),
        ("thyroid_gland", "thyroid"),
    ],
)
def test_a_concept_that_is_a_class_has_the_name_of_the_class(concept_id, name):
    assert class_names(TREE)[concept_id] == name


def test_a_concept_that_is_no_class_has_no_class_name():
    assert "vermiform_appendix" not in class_names(TREE)


def test_unions_are_unions_in_the_tree():
    for label in CLASSES.values():
        if label.match == "union":
            assert all(TREE[i].made_of for i in label.concepts), label.name


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("", 1, "the header is"),
        ("class\tconcepts\n", 1, "the header is"),
        (HEADER + "liver\tliver\texact\tCT\n", 2, "not 5 columns"),
        (HEADER + "\tliver\texact\tCT\t\n", 2, "not 5 columns"),
        (HEADER + "liver\tliver\tsame\tCT\t\n", 2, "match 'same'"),
        (HEADER + 2 * "liver\tliver\texact\tCT\t\n", 3, "given twice"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(tmp_path, text, line, cause):
    path = tmp_path / "classes.tsv"
    path.write_text(text or "\n")
    with pytest.raises(TreeError, match=rf"E702.*classes\.tsv: line {line}: .*{cause}"):
        load_classes(path)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(TreeError, match="cannot be read"):
        load_classes(tmp_path / "classes.tsv")
