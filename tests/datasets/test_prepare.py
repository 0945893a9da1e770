"""Prepared data: what a case becomes, and that nothing is made twice or left half made."""

import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from tests.datasets.trees import write_tree
from textseg.datasets import DatasetSpec, find_cases, load_cases, read_label_map
from textseg.datasets import prepare as module
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.datasets.store import StoredArray
from textseg.errors import InputError, ResourceError

SPACING = (0.8, 0.7, 3.1)
SPEC = DatasetSpec(
    name="own-data",
    title="Own data",
    modality={"mr": ["t1"]},
    region="abdomen",
    layout={"kind": "files", "images": {"": "{case}.nii.gz"}, "masks": "{case}_seg.nii.gz"},
    labels={1: "liver", 2: "kidney.left", 5: None},
    complete="all",
    licence="CC0-1.0",
    citation="Nobody 2020.",
    homepage="https://example.org",
)


def write_case(folder, name, *, seed=0, flip=False):
    """A bright box with structures in the dark, whose X axis may run the other way."""
    rng = np.random.default_rng(seed)
    image = rng.normal(5, 1, (40, 43, 11)).astype(np.float32)
    image[5:15, 6:18, 2:9] += 500
    mask = np.zeros(image.shape, np.uint8)
    mask[6:9, 7:10, 3:6], mask[11:13, 8:12, 4:7], mask[8:10, 14:16, 5:7] = 1, 2, 5
    affine = np.diag([*SPACING, 1.0])
    if flip:
        image, mask, affine[0, 0] = image[::-1], mask[::-1], -SPACING[0]
        affine[0, 3] = SPACING[0] * (image.shape[0] - 1)
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}_seg.nii.gz")


@pytest.fixture(name="raw")
def _raw(tmp_path):
    write_case(tmp_path / "raw", "a")
    write_case(tmp_path / "raw", "b", seed=1, flip=True)
    return tmp_path / "raw"


def run(raw, out, **changes):
    config = PrepareConfig(**changes)
    return prepare(find_cases(SPEC, raw), out, specs=[SPEC], config=config)


def test_prepared_cases_are_the_same_scans_with_the_same_labels(raw, tmp_path):
    done = run(raw, tmp_path / "out", crop=False)
    assert (done.cases, done.made) == (2, 2)
    cases = load_cases(done.path)
    for case, source in zip(cases, find_cases(SPEC, raw), strict=True):
        assert (case.id, case.dataset, case.modality) == (source.id, "own-data", "mr")
        assert case.complete == source.complete
        seen, labels = read_label_map(case)
        was, before = read_label_map(source)
        assert seen.labels == was.labels == {1: ("liver",), 2: ("kidney.left",)}
        assert seen.unnamed == (5,)
        assert labels.geometry.orientation == "RAS"
        assert (labels.values == 1).sum() == (before.values == 1).sum()
        for structure in (1, 2, 5):
            here = labels.geometry.to_world(np.argwhere(labels.values == structure)).mean(0)
            there = before.geometry.to_world(np.argwhere(before.values == structure)).mean(0)
            assert here == pytest.approx(there, abs=1e-6)
        image, raw_image = case.read_image(), source.read_image()
        assert image.geometry.matches(labels.geometry)
        # fractions keep 12 bits
        assert np.sort(image.data.ravel()) == pytest.approx(
            np.sort(raw_image.data.ravel()), rel=3e-4
        )


def test_air_is_left_out_and_places_stay(raw, tmp_path):
    whole = load_cases(run(raw, tmp_path / "whole", crop=False).path)[0]
    cut = load_cases(run(raw, tmp_path / "cut").path)[0]
    _, all_labels = read_label_map(whole)
    _, labels = read_label_map(cut)
    assert np.prod(labels.values.shape) < np.prod(all_labels.values.shape)
    for structure in (1, 2, 5):
        here = labels.geometry.to_world(np.argwhere(labels.values == structure))
        there = all_labels.geometry.to_world(np.argwhere(all_labels.values == structure))
        assert here == pytest.approx(there)


def test_cases_are_brought_onto_a_working_grid(raw, tmp_path):
    case = load_cases(run(raw, tmp_path / "out", spacing_mm=(1.6, 1.4, 3.1)).path)[0]
    image = case.read_image()
    assert image.geometry.spacing_mm == pytest.approx((1.6, 1.4, 3.1))
    _, labels = read_label_map(case)
    assert labels.values.shape == image.data.shape[1:]
    assert set(np.unique(labels.values)) == {0, 1, 2, 5}


def test_spots_are_voxels_of_their_structure(raw, tmp_path):
    case = load_cases(run(raw, tmp_path / "out").path)[0]
    stored = StoredArray(case.masks[""])
    values = stored[:, :, :]
    spots = stored.about["spots"]
    assert set(spots) == {"1", "2", "5"}
    for value, places in spots.items():
        assert {int(values[tuple(place)]) for place in places} == {int(value)}
    part = (slice(3, 9), slice(2, 8), slice(1, 4))
    assert np.array_equal(stored[part], values[part])


def test_a_second_run_makes_nothing(raw, tmp_path):
    first = run(raw, tmp_path / "out")
    before = first.path.read_bytes()
    again = run(raw, tmp_path / "out")
    assert (again.cases, again.made) == (2, 0)
    assert again.path.read_bytes() == before


def test_what_changed_or_was_damaged_is_made_again(raw, tmp_path, caplog):
    entries = json.loads(run(raw, tmp_path / "out").path.read_text())
    write_case(raw, "a", seed=7)
    assert run(raw, tmp_path / "out").made == 1
    (tmp_path / "out" / entries[1]["label"]).write_bytes(b"damaged")
    assert run(raw, tmp_path / "out").made == 1
    assert "was damaged and is made again" in caplog.text
    shutil.rmtree(tmp_path / "out" / entries[1]["label"].split("/")[0])
    assert run(raw, tmp_path / "out").made == 1
    assert run(raw, tmp_path / "out", spacing_mm=(2, 2, 2)).made == 2


def test_a_killed_run_leaves_no_list_and_is_taken_up_again(raw, tmp_path, monkeypatch):
    made = module._make

    def dies_at_the_second(case, *rest, **more):
        if case.id == "b":
            raise KeyboardInterrupt
        return made(case, *rest, **more)

    monkeypatch.setattr(module, "_make", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out/cases.json").exists()
    monkeypatch.setattr(module, "_make", made)
    assert run(raw, tmp_path / "out").made == 1


def test_several_processes_write_the_same_as_one(raw, tmp_path):
    one = run(raw, tmp_path / "one")
    cases = find_cases(SPEC, raw)
    two = prepare(cases, tmp_path / "two", specs=[SPEC], config=PrepareConfig(), workers=2)
    assert one.path.read_bytes() == two.path.read_bytes()


def test_a_worker_s_error_names_the_file(raw, tmp_path):
    (raw / "b_seg.nii.gz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"b_seg\.nii\.gz"):
        prepare(
            find_cases(SPEC, raw), tmp_path / "out", specs=[SPEC], config=PrepareConfig(), workers=2
        )


def test_a_disk_that_is_too_small_stops_the_run_early(raw, tmp_path, monkeypatch):
    cases = find_cases(SPEC, raw) * 20
    cases = [replace(case, id=f"{case.id}{number}") for number, case in enumerate(cases)]
    usage = shutil.disk_usage(tmp_path)._replace(free=module._RESERVE + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"E502.*36 more cases need up to"):
        prepare(cases, tmp_path / "out", specs=[SPEC], config=PrepareConfig())


def test_masks_of_several_files_become_one_map_with_its_own_table(tmp_path):
    labels = {"Liver": "liver", "kidney_left": "kidney.left"}
    layout = {
        "kind": "files",
        "images": {"": "{case}/ct.nii.gz"},
        "masks": "{case}/m/{structure}.nii.gz",
    }
    spec = SPEC.model_copy(update={"layout": None, "folder": "x"}).model_dump()
    spec = DatasetSpec(**{**spec, "layout": layout, "labels": labels})
    write_tree(spec, tmp_path / "raw")
    cases = find_cases(spec, tmp_path / "raw")
    done = prepare(cases, tmp_path / "out", specs=[spec], config=PrepareConfig(crop=False))
    case = load_cases(done.path)[0]
    seen, _ = read_label_map(case)
    assert seen.labels == {1: ("liver",), 2: ("kidney.left",), 3: ("liver", "kidney.left")}


def test_data_sets_prepared_into_one_folder_share_a_list(raw, tmp_path):
    run(raw, tmp_path / "out")
    other = SPEC.model_copy(update={"name": "other-data"})
    write_case(tmp_path / "more", "a", seed=5)
    write_case(tmp_path / "more", "c", seed=6)
    for _ in range(2):  # again, to see that nothing is listed twice
        done = prepare(
            find_cases(other, tmp_path / "more"),
            tmp_path / "out",
            specs=[other],
            config=PrepareConfig(),
        )
    assert done.cases == 4
    cases = load_cases(done.path)
    assert {(case.id, case.dataset) for case in cases} == {
        ("a", "own-data"),
        ("b", "own-data"),
        ("other-data-a", "other-data"),
        ("other-data-c", "other-data"),
    }
    again = run(raw, tmp_path / "out")
    assert (again.cases, again.made) == (4, 0)
