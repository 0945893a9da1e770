"""``textseg predict --instances``: the pieces of masks, numbered and measured."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from textseg.outputs.manifest import read_manifest

MAP = "liver_instances.nii.gz"


@pytest.fixture
def ask(predict, scan, tmp_path):
    """The liver in pieces, which islands make of it."""

    def run(*arguments):
        options = ("--keep-islands", "--threshold", "0.49", "-o", tmp_path / "out")
        return predict(scan, "liver", *options, *arguments)

    return run


def read(folder):
    return json.loads((folder / "statistics.json").read_text())


def test_pieces_are_numbered_by_size_and_measured(ask, tmp_path):
    assert ask("--instances").code == 0
    labels = np.asanyarray(nib.load(tmp_path / "out" / MAP).dataobj)
    mask = np.asanyarray(nib.load(tmp_path / "out" / "liver.nii.gz").dataobj) > 0
    _, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count > 1
    np.testing.assert_array_equal(labels > 0, mask)
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) == count
    assert (np.diff(sizes) <= 0).all()
    told = read(tmp_path / "out")["liver"]["instances"]
    assert [piece["voxels"] for piece in told] == sizes.tolist()
    assert MAP in {file.name for file in read_manifest(tmp_path / "out").files}


def test_small_pieces_are_left_out_of_the_map_and_not_of_the_mask(ask, tmp_path):
    assert ask("--instances").code == 0
    pieces = read(tmp_path / "out")["liver"]["instances"]
    least = pieces[0]["volume_ml"]
    assert ask("--instances", "--least-instance-ml", least, "--overwrite").code == 0
    few = read(tmp_path / "out")["liver"]["instances"]
    assert few == [piece for piece in pieces if piece["volume_ml"] >= least]
    assert len(few) < len(pieces)
    assert read(tmp_path / "out")["liver"]["voxels"] == sum(piece["voxels"] for piece in pieces)


def test_without_the_flag_there_is_neither_map_nor_list(ask, tmp_path):
    assert ask().code == 0
    assert not (tmp_path / "out" / MAP).exists()
    assert "instances" not in read(tmp_path / "out")["liver"]


def test_a_single_mask_has_its_map_beside_it(predict, scan, tmp_path):
    assert predict(scan, "liver", "--instances", "-o", tmp_path / "mask.nii.gz").code == 0
    assert (tmp_path / "mask_instances.nii.gz").exists()


def test_a_least_volume_without_instances_is_wrong_usage(predict, scan):
    said = predict(scan, "liver", "--least-instance-ml", "0.5")
    assert (said.code, len(said.lines)) == (2, 1)
    assert "--least-instance-ml needs --instances" in said.err
    assert predict(scan, "liver", "--instances", "--least-instance-ml", "-1").code == 2


def test_a_least_volume_for_jobs_without_instances_is_wrong_usage(predict, scan, tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps({"scan": scan.name, "prompts": ["liver"]}))
    said = predict("--jobs", path, "--least-instance-ml", "1", "-o", tmp_path / "out")
    assert said.code == 2
    assert "--least-instance-ml needs --instances, or jobs with instances" in said.err


def test_a_line_of_jobs_may_ask_for_instances(predict, scan, tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    line = {"scan": scan.name, "instances": True, "least_instance_ml": 1e9}
    jobs.write_text("\n".join([json.dumps(line), json.dumps({"scan": scan.name, "name": "b"})]))
    assert predict("--jobs", jobs, "liver", "-o", tmp_path / "out").code == 0
    assert read(tmp_path / "out" / "patient")["liver"]["instances"] == []
    assert (tmp_path / "out" / "patient" / MAP).exists()
    assert not (tmp_path / "out" / "b" / MAP).exists()
    settings = read_manifest(tmp_path / "out" / "patient").run.settings
    assert settings["least_instance_ml"] == 1e9
