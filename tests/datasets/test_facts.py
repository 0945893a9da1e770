"""The registry against what was observed of the 72 data sets: classes, scans, masks of wholes."""

import json

import pytest

from tests.datasets.trees import write_tree
from textseg.datasets import class_names, concept_values, find_cases, load_registry, registered
from textseg.knowledge import load_tree

pytestmark = pytest.mark.shared
TREE = load_tree()
REGISTRY = registered(load_registry())
RECODED = {
    "dap-atlas",  # numbered one higher in the data set's own table
    "brain-atlas",  # sides as in the atlas's own table
    "myops2020",
    "chaos-ct",
    "chaos-mri",
}
"""Data sets whose own codes differ from those that were observed."""
WIDER = {
    # the tree counts deep grey matter as grey matter
    ("feta2022", "grey matter"),
    # and all bowel as intestine
    ("word", "intestine"),
    # one scan has a stray value for it
    ("mm-whs-mri", "left heart atrium"),
    ("mm-whs-mri", "heart atrium"),
}
NARROWER = {
    # the sacrum is no vertebra here
    ("mrspineseg", "vertebrae"),
    # the observed class took in the neck by mistake
    ("verse", "thoracic vertebrae"),
}


@pytest.fixture
def facts(shared_data):
    path = shared_data.parent / "facts" / "datasets.json"
    content = json.loads(path.read_text(encoding="utf-8"))["datasets"]
    return {name.lower().replace("_", "-"): entry for name, entry in content.items()}


def test_the_data_sets_and_their_classes_are_those_observed(facts):
    assert set(REGISTRY) == set(facts)
    for name, spec in REGISTRY.items():
        assert sorted(class_names(spec)) == sorted(x["name"] for x in facts[name]["labels"]), name
        assert spec.scans == facts[name]["scans_jsonl"]
        assert set(spec.modality) == {m[:2] if m == "mri" else m for m in facts[name]["modalities"]}


def test_the_masks_of_all_classes_are_those_observed(facts, tmp_path):
    unlike = set()
    for name in sorted(REGISTRY.keys() - RECODED):
        observed = {x["name"]: x.get("raw_values") for x in facts[name]["labels"]}
        spec = REGISTRY[name]
        if spec.layout.holds != "values" or None in observed.values():
            continue
        root = tmp_path / name
        write_tree(spec, root)
        case = find_cases(spec, root)[0]
        own = zip(class_names(spec), (*spec.concepts, *spec.derived), strict=True)
        for class_name, concept in own:
            values = concept_values(concept, case, tree=TREE)
            if isinstance(observed[class_name], list) and set(values) != set(observed[class_name]):
                unlike.add((name, class_name))
                wider = set(values) > set(observed[class_name])
                assert wider == ((name, class_name) in WIDER)
    assert unlike == WIDER | NARROWER
