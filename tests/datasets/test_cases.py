"""Case lists: what is read from them and what is refused."""

import json

import pytest

from textseg.datasets import LabelSpace, concept_values, contained, load_cases, load_registry
from textseg.datasets.spec import DatasetSpec
from textseg.errors import ModelError
from textseg.knowledge import load_tree

TREE = load_tree()


def spec(name, folder, labels, **more):
    facts = {
        "title": name,
        "modality": {"ct": [], "mr": []},
        "region": "abdomen",
        "complete": "all",
        "licence": "CC0-1.0",
        "citation": "Nobody 2020.",
        "homepage": "https://example.org",
    }
    return DatasetSpec(name=name, folder=folder, labels=labels, **facts | more)


TORSO = {
    1: "liver",
    2: "kidney.right",
    3: "kidney.left",
    4: None,
    9: "kidney_cyst.left",
    5: "spleen",
}
REGISTRY = {
    "torso": spec("torso", "torso", TORSO),
    "lesions": spec("lesions", "lesions", {1: "liver_tumor", 2: "liver"}, complete=["liver"]),
    "parts": spec("parts", "parts", {1: "kidney.left", 2: "liver", 6: "liver"}),
    "twin-a": spec("twin-a", "twin", {1: "aorta"}, cases=("a*",)),
    "twin-b": spec("twin-b", "twin", {1: "heart"}, cases=("b*",)),
}


def entry(case_id="t1", folder="torso", labels=(1, 2, 3, 4), **changes):
    return {
        "id": case_id,
        "split": "train",
        "modality": "CT",
        "image": f"{folder}/{case_id}_image.nii.gz",
        "label": f"{folder}/{case_id}_label.nii.gz",
        "labels": {str(value): f"name of {value}" for value in labels},
        "unnamed_values": [77],
        "shape": [5, 7, 3],
        "licence": "MIT",
        "note": "ignored",
    } | changes


def write(folder, *entries):
    for item in entries:
        for key in ("image", "label"):
            if isinstance(item, dict) and isinstance(item.get(key), str):
                path = folder / item[key]
                if ".." not in item[key] and not item[key].startswith("/"):
                    path.parent.mkdir(exist_ok=True)
                    path.touch()
    path = folder / "manifest.json"
    path.write_text(json.dumps(list(entries)))
    return path


def read(folder, *entries):
    return load_cases(write(folder, *entries), registry=REGISTRY)


def test_a_case_is_read_with_the_meaning_of_its_values(tmp_path):
    (case,) = read(tmp_path, entry(modality="MR-T1"))
    assert (case.id, case.dataset, case.split) == ("t1", "torso", "train")
    assert (case.modality, case.sequence) == ("mr", "T1")
    assert case.image == tmp_path / "torso" / "t1_image.nii.gz"
    assert dict(case.labels) == {1: ("liver",), 2: ("kidney.right",), 3: ("kidney.left",)}
    assert case.masks == {"": tmp_path / "torso" / "t1_label.nii.gz"}
    assert case.unnamed == (4, 77)
    assert case.concepts == ("liver", "kidney.right", "kidney.left")
    assert "spleen" in case.complete
    assert "spleen" not in case.concepts


def test_the_modality_of_a_label_map_is_the_one_it_was_made_for(tmp_path):
    (case,) = read(tmp_path, entry(image=None, modality="CT (label map only)"))
    assert (case.modality, case.sequence, case.image) == ("ct", "", None)


def several(tmp_path, channels, **changes):
    (tmp_path / "torso").mkdir()
    for file in channels.values():
        (tmp_path / file).touch()
    return read(tmp_path, entry(image=None, modality="MR", channels=channels, **changes))


def test_a_scan_may_have_named_channels_and_a_report(tmp_path):
    files = {"T1-CE": "torso/c.nii.gz", "t2f": "torso/f.nii.gz"}
    (case,) = several(tmp_path, files, report="No mass.")
    assert list(case.channels) == ["t1ce", "flair"]
    assert case.scan_files == (tmp_path / "torso/c.nii.gz", tmp_path / "torso/f.nii.gz")
    assert case.image is None
    assert case.has_scan
    assert case.read_report().text == "No mass."


def test_a_report_may_be_a_file_beside_the_list(tmp_path):
    (tmp_path / "torso").mkdir()
    (tmp_path / "torso/a.txt").write_text("Mass on the left.")
    (case,) = read(tmp_path, entry(report="torso/a.txt"))
    assert case.report == tmp_path / "torso/a.txt"
    assert case.read_report().text == "Mass on the left."
    assert read(tmp_path, entry())[0].read_report() is None


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"channels": {"t1c": "torso/a.nii", "T1 CE": "torso/b.nii"}}, r"t1ce is given twice"),
        ({"channels": {"--": "torso/a.nii"}}, r"no name of a channel"),
        ({"image": "torso/a.nii", "channels": {"t1": "torso/b.nii"}}, r"one or the other"),
        ({"channels": {"t1": "../b.nii"}}, r"not folder/file beside"),
        ({"report": "torso/away.txt"}, r"'torso/away\.txt' does not exist"),
        ({"report": "torso/away.npy"}, r"'torso/away\.npy' does not exist"),
    ],
)
def test_channels_and_reports_that_cannot_be_are_refused(tmp_path, changes, cause):
    (tmp_path / "torso").mkdir()
    for name in "ab":
        (tmp_path / f"torso/{name}.nii").touch()
    with pytest.raises(ModelError, match=rf"E404.*case 't1'.*{cause}"):
        read(tmp_path, entry(**{"image": None, "modality": "MR", **changes}))


def test_a_scan_without_labels_knows_nothing(tmp_path):
    (case,) = read(tmp_path, entry(label=None, labels=(), unnamed_values=None, split="demo"))
    assert case.labels == {}
    assert case.annotated == ()
    assert case.complete == frozenset()


def test_two_tables_in_one_folder_are_told_apart_by_case_id(tmp_path):
    a, b = read(tmp_path, entry("a1", "twin", [1]), entry("b1", "twin", [1]))
    assert (a.concepts, b.concepts) == (("aorta",), ("heart",))


@pytest.mark.parametrize(
    ("text", "cause"),
    [("{}", "holds a dict"), ("[", "cannot be read"), ("[3]", "case 0"), ("", "cannot be read")],
)
def test_a_list_that_is_no_list_of_cases_is_refused(tmp_path, text, cause):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=rf"E404.*manifest\.json: {cause}"):
        load_cases(path, registry=REGISTRY)


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"E404.*absent\.json: cannot be read"):
        load_cases(tmp_path / "absent.json", registry=REGISTRY)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"split": "hidden"}, r"case 't1': split"),
        ({"id": ""}, r"id: String should have at least 1"),
        ({"labels": {"one": "liver"}}, r"case 't1': labels"),
        ({"dataset": "torsos"}, r"there is no data set 'torsos'"),
        ({"image": None, "label": None}, r"neither image nor label"),
        ({"image": "../torso/x.nii.gz"}, r"not folder/file beside"),
        ({"image": "/torso/x.nii.gz"}, r"not folder/file beside"),
        ({"image": "x.nii.gz"}, r"not folder/file beside"),
        ({"image": "elsewhere/x.nii.gz"}, r"belongs to no data set"),
        ({"modality": "PET"}, r"modality 'PET' is not one of torso's \(ct, mr\)"),
    ],
)
def test_a_malformed_case_is_refused_by_name(tmp_path, changes, cause):
    with pytest.raises(ModelError, match=rf"E404.*{cause}"):
        read(tmp_path, entry(**changes))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    path = write(tmp_path, entry())
    (tmp_path / "torso" / "t1_label.nii.gz").unlink()
    with pytest.raises(ModelError, match=r"'torso/t1_label\.nii\.gz' does not exist"):
        load_cases(path, registry=REGISTRY)


def test_a_second_case_with_one_id_is_refused(tmp_path):
    with pytest.raises(ModelError, match="lists 't1' twice"):
        read(tmp_path, entry(), entry())


def test_a_case_that_two_entries_cover_is_refused(tmp_path):
    registry = REGISTRY | {"again": spec("again", "torso", {1: "liver"})}
    path = write(tmp_path, entry())
    with pytest.raises(ModelError, match="belongs to torso, again"):
        load_cases(path, registry=registry)


def test_a_label_space_says_for_each_concept_present_absent_or_unknown(tmp_path):
    torso, lesion = read(tmp_path, entry(labels=[1, 2, 3, 9, 4]), entry("l1", "lesions", [1, 2]))
    space = LabelSpace.of([torso, lesion], tree=TREE, also=("kidney", "spleen"))
    assert space.concepts == tuple(i for i in TREE.ids if i in set(space.concepts))
    assert space.values(torso) == {
        "liver": (1,),
        "kidney": (2, 3, 9),
        "kidney.left": (3, 9),
        "kidney.right": (2,),
        "kidney_cyst.left": (9,),
        "spleen": (),
    }
    assert space.values(lesion) == {"liver": (1, 2), "liver_tumor": (1,)}


def test_an_absence_counts_only_where_the_annotation_is_complete(tmp_path):
    (case,) = read(tmp_path, entry("l1", "lesions", []))
    assert concept_values("liver", case, tree=TREE) == ()
    assert concept_values("liver_tumor", case, tree=TREE) is None
    assert concept_values("kidney", case, tree=TREE) is None


def test_half_a_pair_leaves_the_pair_unknown_and_split_values_are_joined(tmp_path):
    (case,) = read(tmp_path, entry("p1", "parts", [1, 2, 6]))
    assert concept_values("kidney", case, tree=TREE) is None
    assert concept_values("liver", case, tree=TREE) == (2, 6)


def test_a_case_may_name_its_data_set(tmp_path):
    (case,) = read(tmp_path, entry("x1", "anywhere", [1, 2], dataset="lesions"))
    assert (case.dataset, case.concepts) == ("lesions", ("liver_tumor", "liver"))


def test_a_value_may_belong_to_several_concepts(tmp_path):
    registry = {
        "overlap": spec("overlap", "torso", {1: ["brain", "temporal_lobe.left"], 2: "brain"})
    }
    (case,) = load_cases(write(tmp_path, entry(labels=[1, 2])), registry=registry)
    assert case.values("brain") == (1, 2)
    assert case.values("temporal_lobe.left") == (1,)
    assert concept_values("brain", case, tree=TREE) == (1, 2)


def test_a_wish_no_case_can_express_is_refused(tmp_path):
    cases = read(tmp_path, entry("p1", "parts", [1]))
    with pytest.raises(ModelError, match="no case can express kidney"):
        LabelSpace.of(cases, tree=TREE, also=("kidney",))


def test_containment_reaches_through_partitions():
    inside = contained("brain", tree=TREE)
    assert {"cerebral_white_matter", "corpus_callosum.central", "choroid_plexus.left"} <= set(
        inside
    )
    assert "brain" not in inside
    assert "spinal_cord" not in inside
    assert "corpus_callosum" not in contained("cerebral_white_matter.left", tree=TREE)


def test_the_shipped_registry_reads_a_generated_list(tmp_path):
    registry = {name: spec for name, spec in load_registry().items() if spec.folder}
    entries = [
        entry(
            name := f"c{number}" if s.cases == ("*",) else s.cases[0].replace("*", "_x"),
            s.folder,
            sorted(s.labels),
            modality=s.modalities[0].upper(),
            label=f"{s.folder}/{name}_label.nii.gz",
        )
        for number, s in enumerate(registry.values())
    ]
    cases = load_cases(write(tmp_path, *entries))
    assert [case.dataset for case in cases] == list(registry)
    for case in cases:
        assert case.concepts == registry[case.dataset].concepts
