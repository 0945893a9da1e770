"""Scans of several channels: their names, the grid they share, and those that are missing."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textseg.errors import InputError
from textseg.imaging import (
    Grid,
    arranged,
    as_volume,
    body_mask,
    channel_name,
    normalise_intensity,
    read_channels,
    read_volume,
    to_grid,
)
from textseg.imaging.preparation import prepare

SHAPE = (5, 7, 3)
TILT = np.radians(12)
OBLIQUE = np.array(
    [
        [0.0, -0.7 * np.cos(TILT), 3.1 * np.sin(TILT), 4],
        [-0.7, 0.0, 0.0, -3],
        [0.0, 0.7 * np.sin(TILT), 3.1 * np.cos(TILT), 9],
        [0, 0, 0, 1.0],
    ]
)


def values(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    """A scan of two channels as files."""
    paths = {name: tmp_path / f"patient_{name}.nii.gz" for name in ("flair", "t1")}
    for seed, path in enumerate(paths.values()):
        nib.save(nib.Nifti1Image(values(seed), OBLIQUE), path)
    return paths


@pytest.mark.parametrize(
    ("name", "spellings"),
    {
        "flair": "FLAIR flair T2-FLAIR t2f T2F",
        "t1": "T1 t1n T1w t1-weighted",
        "t1ce": "t1ce T1c T1-CE t1Gd T1_post T1+C T1+ T1-C+ T1W+C T1+Gd ce-T1w post-contrast-T1",
        "t2": "T2 t2w T2-W",
        "adc": "ADC adc",
        "dwi_b1000": "DWI-b1000 dwi_b1000",
    }.items(),
)
def test_a_channel_has_one_name_however_it_is_spelled(name, spellings):
    assert {channel_name(text) for text in spellings.split()} == {name}


@given(st.text())
def test_the_name_of_a_name_is_itself(text):
    try:
        name = channel_name(text)
    except InputError as error:
        assert repr(text) in error.cause
    else:
        assert channel_name(name) == name


def test_channels_are_joined_in_the_order_given(files):
    joined = read_channels({"T1w": files["t1"], "t2f": files["flair"]})
    assert joined.channels == ("t1", "flair")
    assert joined.data.dtype == np.float32
    np.testing.assert_array_equal(joined.data, np.stack([values(1), values(0)]))
    np.testing.assert_allclose(joined.geometry.affine, OBLIQUE, atol=1e-6)
    assert joined.modality == "mr"
    alone = read_volume(files["t1"], modality="mr")
    assert (joined.source.path, joined.source.sha256) == (files["t1"], alone.source.sha256)
    assert [source.path for source in joined.sources] == [files["t1"], files["flair"]]


def test_a_mapping_is_a_scan_of_any_kinds_of_scans(files):
    first = as_volume({"flair": files["flair"], "t1": nib.load(files["t1"])})
    second = as_volume({"flair": (values(0), OBLIQUE), "t1": as_volume(files["t1"])})
    np.testing.assert_array_equal(first.data, second.data)
    assert first.channels == second.channels == ("flair", "t1")
    assert second.source.path is None


def test_a_sequence_of_mr_is_mr_whatever_its_values_look_like(tmp_path):
    array = values(0)
    array[0] = -1000
    assert as_volume((array, OBLIQUE)).modality == "ct"
    assert as_volume({"flair": (array, OBLIQUE)}).modality == "mr"
    assert as_volume({"ct": (array, OBLIQUE)}).modality == "ct"
    assert as_volume({"flair": (array, OBLIQUE)}, modality="pet").modality == "pet"


def test_the_caveats_of_a_scan_name_its_channel():
    array = values(0)
    array[0, 0, 0] = np.nan
    joined = as_volume({"flair": (values(1), OBLIQUE), "t1": (array, OBLIQUE)})
    (warning,) = joined.warnings
    assert warning.startswith("channel t1: 1 voxels were NaN")


def failure(scans, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        as_volume(scans, **options)
    return caught.value


def test_a_channel_given_twice_is_refused(files):
    error = failure({"t1ce": files["flair"], "T1-Gd": files["t1"]})
    assert error.cause == "channel t1ce is given twice, as t1ce and as T1-Gd."


def test_no_channel_is_refused():
    assert failure({}).cause == "no channel is given."


def test_a_channel_without_a_name_is_refused(files):
    assert "'-'" in failure({"-": files["t1"]}).cause


def test_a_channel_that_is_missing_is_refused(files, tmp_path):
    error = failure({"flair": files["flair"], "t1": tmp_path / "absent.nii.gz"})
    assert (error.code, error.path) == ("E301", tmp_path / "absent.nii.gz")


def test_what_is_wrong_with_an_array_names_its_channel():
    error = failure({"flair": (values(0), OBLIQUE), "t1": (np.zeros(SHAPE), OBLIQUE)})
    assert (error.code, error.cause) == ("E316", "channel t1 is constant: every voxel is 0;")


def test_several_volumes_are_no_channel(tmp_path):
    path = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(values(0, (*SHAPE, 4)), OBLIQUE), path)
    error = failure({"flair": path})
    assert (error.code, error.path) == ("E309", path)
    assert error.cause == "as channel flair, holds 4 volumes;"
    assert "--volume" not in error.remedy


def test_several_channels_are_no_channel(files):
    assert "has 2 channels itself" in failure({"flair": read_channels(files)}).cause


@pytest.mark.parametrize("choice", [{"volume_index": 0}, {"series": "1.2.3"}])
def test_a_volume_or_series_is_not_chosen_of_channels(files, choice):
    assert "given as channels" in failure(files, **choice).cause


def test_channels_of_different_shapes_are_refused_with_both_files(files, tmp_path):
    path = tmp_path / "longer.nii.gz"
    nib.save(nib.Nifti1Image(values(2, (5, 7, 5)), OBLIQUE), path)
    error = failure({"flair": files["flair"], "t1": path})
    assert (error.code, error.path) == ("E321", path)
    assert str(path) in error.cause
    assert str(files["flair"]) in error.cause
    # two more planes, 3.1 mm apart
    assert error.cause.endswith("5 x 7 x 5 voxels, not 5 x 7 x 3; corners up to 6.2 mm apart.")
    assert error.remedy.startswith("Register it to flair")


def test_channels_in_different_places_are_refused_with_the_distance(files, tmp_path):
    moved = OBLIQUE.copy()
    moved[:3, 3] += (3, 0, 4)
    error = failure({"flair": files["flair"], "t1": (values(1), moved)})
    assert error.code == "E321"
    assert error.cause.startswith("channel t1 does not lie on the grid of channel flair (")
    assert error.cause.endswith(": corners up to 5 mm apart.")


def test_channels_of_different_spacing_are_refused_with_both(files):
    stretched = OBLIQUE @ np.diag([1, 1, 2, 1])
    error = failure({"flair": files["flair"], "t1": (values(1), stretched)})
    assert "spacing 0.7 x 0.7 x 6.2 mm, not 0.7 x 0.7 x 3.1;" in error.cause


def test_a_hair_of_difference_is_rounding(files):
    moved = OBLIQUE.copy()
    moved[0, 3] += 0.005
    assert as_volume({"flair": files["flair"], "t1": (values(1), moved)}).channels == (
        "flair",
        "t1",
    )


def test_channels_of_two_modalities_are_refused(files):
    array = values(0)
    array[0] = -1000
    error = failure({"ct": (array, OBLIQUE), "t1": files["t1"]})
    assert "MR" in error.cause
    assert "CT" in error.cause
    assert "--modality" in error.remedy


# what a model takes


def test_channels_are_put_in_the_order_of_the_model_and_missing_ones_are_nan(files):
    joined = read_channels(files)
    seen, missing = arranged(joined, ("t1", "t1ce", "flair"))
    assert (seen.channels, missing) == (("t1", "t1ce", "flair"), ("t1ce",))
    np.testing.assert_array_equal(seen.data[[0, 2]], joined.data[[1, 0]])
    assert np.isnan(seen.data[1]).all()
    assert seen.geometry is joined.geometry


def test_a_scan_that_is_as_the_model_wants_it_is_not_copied(files):
    joined = read_channels(files)
    assert arranged(joined, ("flair", "t1")) == (joined, ())
    alone = read_volume(files["t1"])
    assert arranged(alone, ()) == (alone, ())
    assert arranged(alone, ("t1",)) == (alone, ())  # there is nothing else that it could be


def test_one_named_channel_is_just_the_scan_to_a_model_of_one(files):
    named = read_channels({"flair": files["flair"]})
    assert arranged(named, ()) == (named, ())


def refusal(volume, channels) -> InputError:
    with pytest.raises(InputError) as caught:
        arranged(volume, channels)
    return caught.value


def test_a_channel_the_model_does_not_take_is_refused_with_those_it_takes(files):
    error = refusal(read_channels(files), ("flair", "t2"))
    assert error.cause == "the model takes the channels flair, t2, but not t1."
    assert "t1" in refusal(read_channels({"t1": files["t1"]}), ("flair",)).cause


def test_several_channels_are_refused_by_a_model_of_one(files):
    error = refusal(read_channels(files), ())
    assert error.cause == "the model takes a single scan, not the channels flair, t1."


def test_a_scan_of_unknown_channel_is_refused_by_a_model_of_several(files):
    error = refusal(read_volume(files["flair"]), ("flair", "t1"))
    assert "--channel flair=FILE" in error.remedy


# what a network is given


def phantom(seed, box):
    """A bright box in dark air, in voxels of 2 mm."""
    array = np.random.default_rng(seed).uniform(0, 5, (17, 13, 11)).astype(np.float32)
    array[box] += 400
    return array, np.diag([2.0, 2.0, 2.0, 1.0])


LEFT = (slice(1, 8), slice(3, 10), slice(2, 9))
RIGHT = (slice(9, 16), slice(3, 10), slice(2, 9))
GRID = Grid((2.0, 2.0, 2.0))


def test_each_channel_is_scaled_by_itself_and_the_body_is_where_any_has_one():
    scans = {"flair": phantom(0, LEFT), "t1": phantom(1, RIGHT)}
    found = prepare(read_channels(scans), GRID, how="textseg")
    bodies = []
    for data, scan in zip(found.data, scans.values(), strict=True):
        alone, _ = to_grid(as_volume(scan), GRID)
        assert torch.equal(data[None], normalise_intensity(alone, "mr"))
        bodies.append(body_mask(alone, "mr"))
    assert torch.equal(found.body, bodies[0] | bodies[1])
    assert not bodies[0].equal(bodies[1])


@pytest.mark.parametrize("how", ["textseg", "sat"])
def test_a_missing_channel_is_nan_and_changes_nothing_else(how):
    scans = {"flair": phantom(0, LEFT), "t1": phantom(1, RIGHT)}
    joined = read_channels(scans)
    seen, _ = arranged(joined, ("flair", "t1ce", "t1"))
    options = {"how": how, "window": (24, 4, 4)}
    whole, part = prepare(joined, GRID, **options), prepare(seen, GRID, **options)
    assert part.data[1].isnan().all()
    assert torch.equal(part.data[[0, 2]], whole.data)
    assert part.transform.shape == whole.transform.shape
    assert (part.body is None) == (how == "sat")
    assert part.body is None or torch.equal(part.body, whole.body)


def test_a_missing_channel_of_a_sheared_scan_is_nan_as_well():
    sheared = np.array([[1.0, 0.3, 0, 4], [0, 1.2, 0, -3], [0, 0, 2.4, 9], [0, 0, 0, 1.0]])
    volume = replace(read_channels({"t1": (values(0, (9, 8, 7)), sheared)}))
    seen, _ = arranged(volume, ("t1", "t2"))
    found = prepare(seen, GRID, how="textseg")
    assert found.data[1].isnan().all()
    assert found.data[0].isfinite().all()
