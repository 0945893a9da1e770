"""Scans of several channels with reports: the lists of TextBraTS, and all that reads such cases."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from pydantic import ValidationError

from textseg.datasets import find_cases, load_cases, load_registry, read_label_map, registered
from textseg.datasets.checks import check_case
from textseg.datasets.draft import draft
from textseg.datasets.fingerprint import fingerprint
from textseg.datasets.label_space import LabelSpace
from textseg.datasets.layouts.textbrats import TextBraTSLayout
from textseg.datasets.plan import plan
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.datasets.registry import read_spec
from textseg.datasets.spec import DatasetSpec
from textseg.errors import InputError, ModelError
from textseg.knowledge import load_tree
from textseg.network.model import NetworkConfig

TREE = load_tree()
SPEC = load_registry()["textbrats"]
SHAPE = (9, 7, 5)
AFFINE = np.diag([-1.0, 1.5, 2.0, 1.0])
TWO = {"kind": "textbrats", "channels": ["FLAIR", "T1Gd"]}


def two_channels(**changes):
    facts = SPEC.model_dump(exclude={"layout", "name", "shares_scans_with"})
    return DatasetSpec(name="two", layout=TWO | changes, **facts)


def save(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def mask():
    values = np.zeros(SHAPE, np.int16)
    values[2:7, 2:5, 1:4] = 2
    values[3:6, 2:4, 1:3] = 4
    values[4, 3, 2] = 1
    return values


def write_case(root, name="a", *, channels=("flair", "t1ce"), ending=".nii", **entry):
    """Files of a case, and what a list says of it."""
    rng = np.random.default_rng(sum(map(ord, name)))
    for place, channel in enumerate(channels):
        data = rng.uniform(0, 10, SHAPE) + 100.0 * (place + 1) * (mask() > 0)
        save(root / name / f"{name}_{channel}{ending}", data.astype(np.float32))
    save(root / name / f"{name}_seg{ending}", mask())
    return {
        "fold": 1,
        "image": [f"{name}/{name}_{channel}.nii.gz" for channel in channels],
        "label": f"{name}/{name}_seg.nii.gz",
        **entry,
    }


def write_list(root, *entries, name="Train.json"):
    (root / name).write_text(json.dumps({"training": list(entries)}))
    return root


def test_the_registry_describes_textbrats_beside_the_72():
    assert "textbrats" not in registered(load_registry())
    assert SPEC.layout == TextBraTSLayout(kind="textbrats")
    assert dict(SPEC.labels) == {
        1: ("brain_tumor.necrotic_core", "brain_tumor.core", "brain_tumor"),
        2: ("brain_edema", "brain_tumor"),
        4: ("brain_tumor.enhancing", "brain_tumor.core", "brain_tumor"),
    }


def test_the_published_split_is_told_by_list_and_fold(tmp_path):
    folds = {"a": 1, "b": 0, "c": 3}
    write_list(tmp_path, *(write_case(tmp_path, name, fold=fold) for name, fold in folds.items()))
    # in the published test list every fold is 0
    write_list(tmp_path, write_case(tmp_path, "d", fold=0), name="Test.json")
    cases = find_cases(two_channels(), tmp_path)
    assert {case.id: case.split for case in cases} == {
        "a": "train",
        "b": "val",
        "c": "train",
        "d": "test",
    }
    everything = find_cases(two_channels(validation_fold=None), tmp_path)
    assert [case.split for case in everything] == ["train", "train", "train", "test"]


def test_channels_are_read_by_name_in_the_order_of_the_list(tmp_path):
    write_list(tmp_path, write_case(tmp_path))
    (case,) = find_cases(two_channels(), tmp_path)
    assert list(case.channels) == ["flair", "t1ce"]
    scan = case.read_image()
    assert scan.channels == ("flair", "t1ce")
    assert scan.modality == "mr"
    for data, channel in zip(scan.data, ("flair", "t1ce"), strict=True):
        stored = nibabel.load(tmp_path / f"a/a_{channel}.nii").get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(data, stored)


def test_the_three_nested_regions_are_prompts_of_one_mask(tmp_path):
    write_list(tmp_path, write_case(tmp_path))
    seen, labels = read_label_map(find_cases(two_channels(), tmp_path)[0])
    told = LabelSpace.of([seen], tree=TREE).values(seen)
    volumes = {concept: int(np.isin(labels.values, v).sum()) for concept, v in told.items()}
    assert volumes == {
        "brain_tumor": 45,
        "brain_tumor.core": 12,
        "brain_tumor.enhancing": 11,
        "brain_tumor.necrotic_core": 1,
        "brain_edema": 33,
    }


def drafted(root, **options):
    """What `data add` makes of a folder, as its file reads."""
    made = draft(root, tree=TREE, name="mine", **options)
    (root / "mine.yaml").write_text(made.text, encoding="utf-8")
    assert read_spec(root / "mine.yaml", TREE) == made.spec
    return made.spec


def test_a_folder_with_lists_of_the_four_channels_is_drafted_as_textbrats(tmp_path):
    report = {"report": "Mass in the left frontal lobe."}
    channels = ("flair", "t1", "t1ce", "t2")
    write_list(tmp_path, write_case(tmp_path, channels=channels, **report))
    entry = write_case(tmp_path, "b", channels=channels, **report)
    spec = drafted(write_list(tmp_path, entry, name="Test.json"))
    assert spec.layout == SPEC.layout
    assert (spec.labels, spec.modality, spec.scans) == (SPEC.labels, SPEC.modality, 2)
    cases = find_cases(spec, tmp_path)
    assert [case.split for case in cases] == ["train", "test"]
    assert [case.report for case in cases] == [report["report"]] * 2
    assert (tmp_path / "mine.yaml").read_text().count("kind: textbrats\n") == 1


def test_other_channels_are_named_as_their_files_are_and_their_labels_left_open(tmp_path):
    spec = drafted(write_list(tmp_path, write_case(tmp_path, channels=("t2w", "adc"))))
    assert spec.layout.channels == ("t2", "adc")
    assert spec.labels == {1: (), 2: (), 4: ()}
    spec = drafted(tmp_path, labels={"kidney": [1, 2], "kidney cyst": [4]})
    assert spec.labels[4] == ("kidney_cyst",)
    assert list(find_cases(spec, tmp_path)[0].channels) == ["t2", "adc"]


def test_channels_without_names_are_numbered(tmp_path):
    entry = write_case(tmp_path)
    for number, name in enumerate(entry["image"]):
        path = tmp_path / name.removesuffix(".gz")
        (tmp_path / str(number)).mkdir()
        path.rename(tmp_path / str(number) / "scan.nii")
    entry["image"] = ["0/scan.nii", "1/scan.nii"]
    spec = drafted(write_list(tmp_path, entry), modality="mr")
    assert spec.layout.channels == ("c1", "c2")


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"training": [{"image": "a.nii", "label": "b.nii"}]}']
)
def test_a_list_of_something_else_is_not_that_of_textbrats(tmp_path, content):
    (tmp_path / "Train.json").write_text(content)
    with pytest.raises(ModelError, match=r"E406.*no scans with masks in a layout"):
        drafted(tmp_path)
    save(tmp_path / "images" / "a.nii.gz", mask().astype(np.float32))
    save(tmp_path / "labels" / "a.nii.gz", mask())
    assert drafted(tmp_path, modality="mr").layout.kind == "files"


def test_paths_start_at_the_data_at_the_list_or_at_the_root(tmp_path):
    entry = write_case(tmp_path / "TextBraTSData", ending=".nii.gz")
    write_list(tmp_path, entry)
    assert find_cases(two_channels(data="TextBraTSData"), tmp_path)[0].id == "a"
    with pytest.raises(ModelError, match=r"E406.*Train\.json: names 'a/a_flair\.nii\.gz', which"):
        find_cases(two_channels(), tmp_path)
    (tmp_path / "lists").mkdir()
    write_list(tmp_path / "lists", write_case(tmp_path / "lists"), name="mine.json")
    (case,) = find_cases(two_channels(lists={"lists/mine.json": "val"}), tmp_path)
    assert (case.split, case.channels["flair"].parent) == ("val", tmp_path / "lists/a")


def reports_of(root, spec, **entry):
    write_list(root, write_case(root, **entry))
    return find_cases(spec, root)[0].report


def test_a_report_is_a_text_a_file_or_features(tmp_path):
    spec, prefer = two_channels(), two_channels(features=True)
    text, features = tmp_path / "a/a_text.txt", tmp_path / "a/a_text.npy"
    assert reports_of(tmp_path, spec) is None
    assert reports_of(tmp_path, spec, text="Mass on the left.") == "Mass on the left."
    text.write_text("Mass on the right.")
    np.save(features, np.ones((1, 3, 8), np.float32))
    assert reports_of(tmp_path, spec, report="a/a_text.txt") == text
    # the text lies beside its features, under their name
    assert reports_of(tmp_path, spec, text_feature="a/a_text.npy") == text
    assert reports_of(tmp_path, prefer, text_feature="a/a_text.npy") == features
    assert reports_of(tmp_path, prefer, text="No.", text_feature="a/a_text.npy") == features
    text.unlink()
    assert reports_of(tmp_path, spec, text_feature="a/a_text.npy") == features
    features.unlink()
    with pytest.raises(ModelError, match=r"E406.*'a/a_text\.npy', which is not there"):
        reports_of(tmp_path, spec, text_feature="a/a_text.npy")


def test_channels_listed_in_another_order_are_refused(tmp_path):
    entry = write_case(tmp_path)
    write_list(tmp_path, {**entry, "image": entry["image"][::-1]})
    with pytest.raises(ModelError, match=r"E406.*lists a_t1ce\.nii as flair.*in the order"):
        find_cases(two_channels(), tmp_path)
    with pytest.raises(ModelError, match=r"E406.*2 images, not one for each of flair, t1, t1ce"):
        find_cases(SPEC, write_list(tmp_path, entry))
    with pytest.raises(ValidationError, match="flair is given twice"):
        two_channels(channels=["flair", "T2-FLAIR"])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"training": 3}', '{"training": [{"image": "a", "label": "b"}]}']
)
def test_a_damaged_list_is_refused(tmp_path, text):
    (tmp_path / "Train.json").write_text(text)
    with pytest.raises(ModelError, match=r"E406.*Train\.json: is no list of cases"):
        find_cases(two_channels(), tmp_path)


def test_a_folder_without_a_list_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"E406.*holds no Train\.json or Test\.json"):
        find_cases(two_channels(), tmp_path)


def prepared(root, *entries, **settings):
    spec = two_channels()
    cases = find_cases(spec, write_list(root, *entries))
    done = prepare(cases, root / "out", specs=[spec], config=PrepareConfig(**settings))
    return cases, done


def test_a_prepared_case_keeps_its_channels_its_report_and_its_split(tmp_path):
    np.save(tmp_path / "f.npy", np.ones((2, 8), np.float32))
    entries = (
        write_case(tmp_path, "a", text="Mass on the left."),
        write_case(tmp_path, "b", text_feature="f.npy", fold=0),
        write_case(tmp_path, "c"),
    )
    sources, done = prepared(tmp_path, *entries, crop=False)
    stored = load_cases(done.path)
    assert [case.split for case in stored] == ["train", "val", "train"]
    for source, case in zip(sources, stored, strict=True):
        scan, whole = case.read_image(), source.read_image()
        assert scan.channels == whole.channels == ("flair", "t1ce")
        # the files run to the left, what is prepared to the right
        np.testing.assert_allclose(scan.data, whole.data[:, ::-1], rtol=2**-12)
        assert case.labels == source.labels
    texts = [case.read_report() for case in stored]
    assert texts[0].text == "Mass on the left."
    assert np.load(texts[1].features).shape == (2, 8)
    assert texts[2] is None


def test_another_report_makes_another_prepared_case(tmp_path):
    assert prepared(tmp_path, write_case(tmp_path, text="Left."))[1].made == 1
    assert prepared(tmp_path, write_case(tmp_path, text="Left."))[1].made == 0
    assert prepared(tmp_path, write_case(tmp_path, text="Right."))[1].made == 1


def test_channels_on_other_grids_are_refused_by_name(tmp_path):
    write_list(tmp_path, write_case(tmp_path))
    (case,) = find_cases(two_channels(), tmp_path)
    moved = AFFINE.copy()
    moved[0, 3] = 4.0
    save(case.channels["t1ce"], mask().astype(np.float32), moved)
    with pytest.raises(InputError, match=r"E321.*channel t1ce .*channel flair .*4 mm apart"):
        case.read_image()
    finding, *rest = check_case(case, TREE).findings
    assert (finding.severity, "t1ce" in finding.message, rest) == ("error", True, [])


def test_the_check_reads_every_report(tmp_path):
    write_list(tmp_path, write_case(tmp_path, text="Mass."))
    (case,) = find_cases(two_channels(), tmp_path)
    assert check_case(case, TREE).findings == ()
    (tmp_path / "empty.txt").write_text("\n")
    (finding,) = check_case(replace(case, report=tmp_path / "empty.txt"), TREE).findings
    assert "the report is empty" in finding.message


def test_a_fingerprint_counts_channels_and_a_plan_names_them(tmp_path):
    entries = [write_case(tmp_path, name, text="Mass.") for name in "abc"]
    cases = find_cases(two_channels(), write_list(tmp_path, *entries))
    facts = fingerprint(cases, tree=TREE)
    assert facts.total.channels == {"flair": 3, "t1ce": 3}
    assert facts.total.reports == 3
    assert facts.total.images == 3
    assert facts.total.bytes == 3 * 9 * 7 * 5 * (2 * 4 + 2)
    assert facts.total.intensities["mr"].voxels == 3 * 2 * 45
    domain = plan(facts, network=NetworkConfig(), memory_bytes=10**11, name="x").domain
    assert domain["channels"] == ["flair", "t1ce"]
    assert domain["real"] == 1.0
