"""The registry that ships with textseg, and what the schema refuses."""

import pytest
import yaml

from textseg.datasets import load_registry, registered, summarise
from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.resources import data_folder

FOLDER = data_folder("datasets_registry")
PATHS = [
    path for place in ("", "extra/", "samples/") for path in sorted(FOLDER.glob(f"{place}*.yaml"))
]
SOUND = {
    "name": "toy",
    "title": "Toy set",
    "folder": "toy",
    "modality": {"ct": []},
    "region": "abdomen",
    "labels": {1: "liver", 2: None, 7: "kidney.left"},
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody. Nothing. Nowhere 2020.",
    "homepage": "https://example.org",
}


def write(path, **changes):
    entry = {key: value for key, value in (SOUND | changes).items() if value != "DROP"}
    (path / "toy.yaml").write_text(yaml.safe_dump(entry))
    return path


def test_there_is_an_entry_per_file():
    assert set(load_registry()) == {path.stem for path in PATHS}
    assert len(registered(load_registry())) == 72


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_label_is_written_once(path):
    spec = load_registry()[path.stem]
    text = path.read_text(encoding="utf-8")
    written = [line for line in text[text.index("\nlabels:") :].splitlines() if line[:2] == "  "]
    assert len(written) == len(spec.labels)


def test_the_registry_adds_up_to_what_is_published():
    totals = summarise(registered(load_registry()))
    assert totals.datasets == 72
    assert totals.modality_class_pairs == 498
    assert totals.class_names == 451
    assert totals.scans == 28_186


def test_data_sets_that_share_scans_name_each_other():
    registry = load_registry()
    pairs = {(spec.name, other) for spec in registry.values() for other in spec.shares_scans_with}
    assert {(a, b) for a, b in pairs if (b, a) not in pairs} == set()
    assert {b for a, b in pairs} <= set(registry)
    assert ("couinaud-liver", "msd-hepaticvessel") in pairs
    assert ("segrap2023-task1", "segrap2023-task2") in pairs
    parts = {name for name in registry if name.startswith("totalsegmentator-")}
    parts &= set(registered(registry))
    assert len(parts) == 6
    assert {(a, b) for a in parts for b in parts - {a}} <= pairs


ONE_SIDED = {
    "knee-dess": 10,  # a right knee
    "lab2im-labelmap": 15,  # a left hemisphere
    "totalsegmentator-ct": 1,  # the left atrial appendage
    "totalsegmentator-dataset": 1,
    "totalsegmentator-v2": 1,
    "spl-brain-head-atlas": 1,
    "lascarqs22-task1": 2,  # the left atrium and its scar
    "lascarqs22-task2": 1,
    "msd-cardiac": 1,
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
        ({"modality": {"xray": []}}, r"modality\.xray"),
        ({"modality": {}}, r"modality"),
        ({"folder": ""}, r"needs a layout, or the folder"),
        ({"labels": {1: "liver", "spleen": "spleen"}}, r"all numbers or all names"),
        ({"derived": ["liver"]}, r"derived names concepts with a label: liver"),
        ({"derived": ["kidney"]}, r"cannot make of the labels: kidney"),
        ({"names": {"spleen": "milt"}}, r"not labelled: spleen"),
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
