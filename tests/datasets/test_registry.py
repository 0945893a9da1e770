"""The registry that ships with textseg, and what the schema refuses."""

import pytest
import yaml

from textseg.datasets import load_registry
from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.resources import data_folder

PATHS = sorted(data_folder("datasets_registry").glob("*.yaml"))
SOUND = {
    "name": "toy",
    "title": "Toy set",
    "folder": "toy",
    "modality": ["ct"],
    "region": "abdomen",
    "labels": {1: "liver", 2: None, 7: "kidney.left"},
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody. Nothing. Nowhere 2020.",
    "homepage": "https://example.org",
}


def write(folder, **changes):
    entry = {key: value for key, value in (SOUND | changes).items() if value != "DROP"}
    (folder / "toy.yaml").write_text(yaml.safe_dump(entry))
    return folder


def test_there_is_an_entry_per_file():
    assert set(load_registry()) == {path.stem for path in PATHS}
    assert len(PATHS) >= 20


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_label_is_a_concept_and_every_value_is_written_once(path):
    spec = load_registry()[path.stem]
    tree = load_tree()
    assert all(concept in tree for concept in spec.concepts)
    assert set(spec.complete_concepts) <= set(spec.concepts)
    written = [line for line in path.read_text().splitlines() if line.startswith("  ")]
    assert len(written) == len(spec.labels)


ONE_SIDED = {
    "knee-dess": 10,  # a right knee
    "lab2im-labelmap": 15,  # a left hemisphere
    "totalsegmentator-ct": 1,  # the left atrial appendage
    "totalsegmentator-dataset": 1,
    "spl-brain-head-atlas": 1,
}


@pytest.mark.parametrize("name", load_registry())
def test_sided_labels_come_with_their_counterpart(name):
    tree, spec = load_tree(), load_registry()[name]
    alone = [i for i in spec.concepts if (o := tree.counterpart(i)) and o not in spec.concepts]
    assert len(alone) == ONE_SIDED.get(name, 0), alone


def test_a_sound_entry_is_read(tmp_path):
    spec = load_registry(write(tmp_path))["toy"]
    assert spec.concepts == ("liver", "kidney.left")
    assert spec.complete_concepts == spec.concepts
    assert spec.covers("toy", "anything")
    assert not spec.covers("toys", "anything")


def test_case_patterns_narrow_an_entry_down(tmp_path):
    spec = load_registry(write(tmp_path, cases=["t2_*", "t1w"]))["toy"]
    assert [spec.covers("toy", i) for i in ("t2_9", "t1w", "t1", "xt2_9")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"weight": 3}, r"weight: Extra inputs"),
        ({"licence": "DROP"}, r"licence: Field required"),
        ({"labels": {0: "liver"}}, r"0 is background"),
        ({"labels": {1: "lever"}}, r"knowledge tree lacks: lever"),
        ({"complete": ["spleen"]}, r"concepts without a label: spleen"),
        ({"modality": ["xray"]}, r"modality\.0"),
        ({"modality": []}, r"modality"),
        ({"homepage": "example"}, r"homepage"),
        ({"name": "other"}, r"is called 'other'"),
    ],
)
def test_a_faulty_entry_is_refused_with_its_file(tmp_path, changes, cause):
    with pytest.raises(ModelError, match=rf"E404.*toy\.yaml: .*{cause}"):
        load_registry(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["labels: [", "- a list\n", "", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "toy.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"E404.*toy\.yaml"):
        load_registry(tmp_path)


def test_a_folder_without_entries_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"E404.*no \*\.yaml"):
        load_registry(tmp_path)
