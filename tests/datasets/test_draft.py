"""A folder is drafted into an entry that loads, finds its cases and says what it did not know."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from tests.datasets.trees import write_tree
from textseg.datasets import find_cases, read_label_map
from textseg.datasets.draft import draft
from textseg.datasets.registry import read_spec
from textseg.datasets.spec import DatasetSpec
from textseg.errors import InputError, ModelError
from textseg.knowledge import load_tree

TREE = load_tree()
SHAPE = (7, 5, 3)
FACTS = {
    "name": "toy",
    "title": "Toy",
    "modality": {"ct": []},
    "region": "abdomen",
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody 2020.",
    "homepage": "https://example.org",
}
NUMBERED = {1: "liver", 2: "kidney.left", 4: None}
NAMED = {"Liver": "liver", "kidney_left": "kidney.left", "junk": None}
LAYOUTS = {
    "beside": {"kind": "files", "images": {"": "{case}.nrrd"}, "masks": "{case}-seg.nrrd"},
    "siblings": {
        "kind": "files",
        "images": {"": "images/{case}.nii.gz"},
        "masks": "labels/{case}.nii.gz",
    },
    "words in front": {
        "kind": "files",
        "images": {"": "volume-{case}.nii"},
        "masks": "segmentation-{case}.nii",
    },
    "folders of cases": {
        "kind": "files",
        "images": {"": "data/{case}/imaging.nii.gz"},
        "masks": "data/{case}/segmentation.nii.gz",
    },
    "repeated names": {
        "kind": "files",
        "images": {"t1n": "{case}/{case}-t1n.nii.gz", "t2f": "{case}/{case}-t2f.nii.gz"},
        "masks": "{case}/{case}-seg.nii.gz",
    },
    "parts": {
        "kind": "files",
        "images": {"": "{part0}/img/{case}.mha"},
        "masks": "{part0}/label/{case}_gt.mha",
    },
    "sequences apart": {
        "kind": "files",
        "images": {"t1": "t1/{case}.nii.gz", "t2": "t2/{case}.nii.gz"},
        "masks": "masks/{case}.nii.gz",
    },
    "nnunet": {"kind": "nnunet"},
    "decathlon": {"kind": "nnunet", "folder": "Task01_Toy", "sequences": ["t2", "adc"]},
    "bids": {"kind": "bids", "images": {"": "T1w"}},
    "bids apart": {
        "kind": "bids",
        "images": {"t1w": "T1w", "flair": "FLAIR"},
        "derivatives": "derivatives/manual",
    },
    "freesurfer": {"kind": "freesurfer"},
}
NAMED_LAYOUTS = {
    "structures": {
        "kind": "files",
        "images": {"": "{case}/ct.nii.gz"},
        "masks": "{case}/segmentations/{structure}.nii.gz",
    },
    "structures beside": {
        "kind": "files",
        "images": {"": "**/{case}/img.nrrd"},
        "masks": "**/{case}/{structure}.nrrd",
    },
    "segments": {"kind": "dicom", "cases": "patients/{case}"},
    "segments at the top": {"kind": "dicom"},
}


def toy(layout, labels):
    return DatasetSpec(**FACTS, layout=layout, labels=labels)


def write(path, data, kind=np.int16):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(kind), np.diag([0.7, 0.7, 3.1, 1.0])), path)


def scan(low=-1000):
    return np.random.default_rng(5).integers(low, 900, SHAPE)


def mask(*values):
    data = np.zeros(SHAPE)
    data.flat[1 : 1 + len(values)] = values
    return data


def loaded(made, folder):
    """The draft as its file reads."""
    path = folder / f"{made.spec.name}.yaml"
    path.write_text(made.text, encoding="utf-8")
    return read_spec(path, TREE)


@pytest.mark.parametrize("name", [*LAYOUTS, *NAMED_LAYOUTS])
def test_a_folder_of_each_layout_is_told_and_its_cases_are_found(name, tmp_path):
    labels = NUMBERED if name in LAYOUTS else NAMED
    spec = toy((LAYOUTS | NAMED_LAYOUTS)[name], labels)
    root = tmp_path / "My Set"
    root.mkdir()
    write_tree(spec, root)
    made = draft(root, tree=TREE)
    again = loaded(made, tmp_path)
    assert again == made.spec
    assert again.name == "my-set"
    assert again.layout.kind == spec.layout.kind
    cases, expected = find_cases(again, root), find_cases(spec, root)
    assert made.spec.scans == len(cases)
    masks = {(case.image, case.volume_index): case.masks for case in cases}
    for case in expected:
        # the trees hold a structure besides, of which the draft speaks as well
        assert case.masks.items() <= masks.pop((case.image, case.volume_index)).items()
    assert not masks
    assert set(labels) <= set(again.labels)


@pytest.mark.parametrize("name", NAMED_LAYOUTS)
def test_names_of_files_and_segments_become_concepts(name, tmp_path):
    write_tree(toy(NAMED_LAYOUTS[name], NAMED), tmp_path)
    made = draft(tmp_path, tree=TREE, name="mine")
    found = {label.key: label.concept for label in made.labels}
    assert found["Liver"] == "liver"
    assert found["kidney_left"] == "kidney.left"
    assert found["junk"] is None
    assert (made.spec.modality, made.spec.region) == ({"ct": ()}, "abdomen")
    seen, _ = read_label_map(find_cases(made.spec, tmp_path)[0])
    assert set(seen.concepts) == {"liver", "kidney.left"}


def write_nnunet(root, about, channels=1, low=-1000):
    for number in range(channels):
        write(root / f"imagesTr/a_{number:04}.nii.gz", scan(low))
    write(root / "labelsTr/a.nii.gz", mask(1, 2))
    (root / "dataset.json").write_text(json.dumps(about))


def test_version_1_of_nnunet_gives_names_and_modality(tmp_path):
    about = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "Left_Kidney", "2": "rightKidney", "3": "tumor"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    write_nnunet(tmp_path / "Task01_Kidney", about)
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.modality == {"ct": ()}
    assert made.spec.layout.folder == "Task01_Kidney"
    assert made.spec.labels == {1: ("kidney.left",), 2: ("kidney.right",), 3: ()}
    (unmapped,) = made.unmapped
    assert (unmapped.key, unmapped.name) == (3, "tumor")
    assert unmapped.suggestions
    assert f"# not mapped: tumor (closest: {unmapped.suggestions[0]}" in made.text
    assert len(find_cases(loaded(made, tmp_path), tmp_path)) == 1


def test_version_2_of_nnunet_gives_regions_and_sequences(tmp_path):
    about = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "brain tumor": [1, 2], "enhancing tumor": 2},
        "file_ending": ".nii.gz",
        "numTraining": 1,
    }
    write_nnunet(tmp_path, about, channels=2)
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.modality == {"mr": ("T1", "FLAIR")}
    assert (made.spec.region, made.spec.task) == ("brain", "lesion")
    assert made.spec.labels[2] == ("brain_tumor", "brain_tumor.enhancing")
    assert made.spec.scans == len(find_cases(made.spec, tmp_path)) == 2


def test_channels_of_several_modalities_are_not_one_entry(tmp_path):
    about = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"liver": 1}}
    write_nnunet(tmp_path, about, channels=2)
    with pytest.raises(ModelError, match=r"E406.*several modalities \(ct, pet\)"):
        draft(tmp_path, tree=TREE, modality="ct")


def test_of_scans_of_several_modalities_the_wanted_are_described(tmp_path):
    for case in ("a", "b"):
        for name in ("ct", "pet"):
            write(tmp_path / case / f"{case}_{name}.nii.gz", scan())
        write(tmp_path / case / f"{case}_seg.nii.gz", mask(1))
    with pytest.raises(ModelError, match="--modality"):
        draft(tmp_path, tree=TREE, name="mine")
    made = draft(tmp_path, tree=TREE, name="mine", modality="pet")
    images = [case.image.name for case in find_cases(made.spec, tmp_path)]
    assert made.spec.modalities == ("pet",)
    assert images == ["a_pet.nii.gz", "b_pet.nii.gz"]
    assert made.spec.scans == 2


def test_a_bids_table_names_the_values(tmp_path):
    for subject in ("01", "02"):
        write(tmp_path / f"sub-{subject}/anat/sub-{subject}_T2w.nii.gz", scan(0))
        write(tmp_path / f"sub-{subject}/func/sub-{subject}_task-x_bold.nii.gz", scan(0))
        write(tmp_path / f"sub-{subject}/anat/sub-{subject}_dseg.nii.gz", mask(3, 9))
    (tmp_path / "dseg.tsv").write_text("index\tname\n0\tBackground\n3\tLeft-Hippocampus\n")
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.layout.images == {"": "T2w"}
    assert made.spec.modality == {"mr": ()}
    assert made.spec.labels == {3: ("hippocampus.left",), 9: ()}
    assert made.spec.region == "brain"
    assert "3: hippocampus.left  # Left-Hippocampus" in made.text
    assert "9: null" in made.text


def test_of_several_kinds_of_bids_masks_the_first_is_described(tmp_path):
    write(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", scan(0))
    for kind in ("aseg", "manual"):
        write(tmp_path / f"sub-1/anat/sub-1_desc-{kind}_dseg.nii.gz", mask(3))
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.layout.entities == {"desc": "aseg"}
    assert len(find_cases(made.spec, tmp_path)) == made.spec.scans == 1


def test_a_bids_table_without_its_columns_is_refused(tmp_path):
    write(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", scan(0))
    write(tmp_path / "sub-1/anat/sub-1_dseg.nii.gz", mask(3))
    (tmp_path / "dseg.tsv").write_text("value\tname\n3\tliver\n")
    with pytest.raises(ModelError, match=r"E406.*index"):
        draft(tmp_path, tree=TREE)


def test_values_of_freesurfer_have_their_meaning(tmp_path):
    write_tree(toy({"kind": "freesurfer"}, {17: "liver", 999: None}), tmp_path)
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.modality == {"mr": ()}
    assert made.spec.labels[17] == ("hippocampus.left",)
    assert made.spec.labels[53] == ("hippocampus.right",)
    assert made.spec.labels[16] == ("brainstem",)
    assert made.spec.labels[999] == ()
    assert len(made.mapped) >= 40


def test_structures_that_only_some_cases_have_are_listed(tmp_path):
    for case, structures in {"s1": ["spleen", "lung_upper_lobe_left"], "s2": ["spleen"]}.items():
        write(tmp_path / case / "ct.nii.gz", scan())
        for name in structures:
            write(tmp_path / case / f"segmentations/{name}.nii.gz", mask(1))
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.layout.masks == "{case}/segmentations/{structure}.nii.gz"
    assert 'images: {"": "{case}/ct.nii.gz"}' in made.text
    assert made.spec.labels == {
        "lung_upper_lobe_left": ("lung.upper_lobe.left",),
        "spleen": ("spleen",),
    }
    assert made.spec.region == "whole_body"


def test_scans_numbered_by_channel_find_their_masks_without_a_description(tmp_path):
    for case in ("x_01", "x_02", "x_11"):
        write(tmp_path / f"imagesTr/{case}_0000.nii.gz", scan())
        write(tmp_path / f"labelsTr/{case}.nii.gz", mask(2))
    write(tmp_path / "imagesTs/x_03_0000.nii.gz", scan())
    made = draft(tmp_path, tree=TREE, name="mine")
    assert made.spec.layout.images == {"": "imagesTr/{case}_0000.nii.gz"}
    assert [case.id for case in find_cases(made.spec, tmp_path)] == ["x_01", "x_02", "x_11"]


def test_given_names_of_values_replace_those_of_the_folder(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask(1, 5))
    labels = {"kidneys": (1,), "background": (0,)}
    made = draft(tmp_path, tree=TREE, name="mine", labels=labels)
    assert made.spec.labels == {1: ("kidney",), 5: ()}
    assert made.spec.modality == {"ct": ()}
    assert made.labels[0].name == "kidneys"


def test_a_name_for_several_structures_is_their_union_or_nothing(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask(1, 5))
    labels = {"left kidney and right kidney": (1,), "liver and spleen": (5,)}
    made = draft(tmp_path, tree=TREE, name="mine", labels=labels)
    assert made.spec.labels == {1: ("kidney",), 5: ()}
    assert made.unmapped[0].suggestions == ("liver", "spleen")


def test_a_guessed_name_is_marked_for_checking(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask(1))
    made = draft(tmp_path, tree=TREE, name="mine", labels={"spleeen": (1,)})
    assert made.spec.labels == {1: ("spleen",)}
    assert "# check spleeen: " in made.text


def test_names_cannot_break_out_of_their_comment(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask(1))
    made = draft(tmp_path, tree=TREE, name="mine", labels={"x\nlicence: CC0\x85y": (1,)})
    assert loaded(made, tmp_path).licence == "unknown"


def test_names_of_values_do_not_fit_files_of_structures(tmp_path):
    write_tree(toy(NAMED_LAYOUTS["structures"], NAMED), tmp_path)
    with pytest.raises(ModelError, match="Leave --labels out"):
        draft(tmp_path, tree=TREE, labels={"liver": (1,)})


def test_masks_without_labels_and_names_are_refused(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask())
    with pytest.raises(ModelError, match=r"E406.*first 1 masks are empty.*--labels"):
        draft(tmp_path, tree=TREE)


def test_a_mask_that_holds_no_labels_is_refused_by_file(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask(0.5), np.float32)
    with pytest.raises(InputError, match=r"E322.*a_mask"):
        draft(tmp_path, tree=TREE)


def test_a_folder_that_fits_no_layout_says_what_was_looked_for(tmp_path):
    write(tmp_path / "scan_a.nii.gz", scan())
    with pytest.raises(ModelError, match=r"E406.*dataset\.json.*BIDS.*DICOM.*README\.md"):
        draft(tmp_path, tree=TREE)
    with pytest.raises(ModelError, match=r"E406.*is no folder"):
        draft(tmp_path / "absent", tree=TREE)


def test_several_described_data_sets_are_not_one(tmp_path):
    for name in ("Task01_A", "Task02_B"):
        write_nnunet(tmp_path / name, {"modality": {"0": "CT"}, "labels": {"1": "liver"}})
    with pytest.raises(ModelError, match="Task01_A, Task02_B"):
        draft(tmp_path, tree=TREE)


def test_a_name_that_no_entry_may_have_is_refused(tmp_path):
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "a_mask.nii.gz", mask(1))
    with pytest.raises(ModelError, match=r"E406.*name.*My Set"):
        draft(tmp_path, tree=TREE, name="My Set")
