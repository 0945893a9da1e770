from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from textseg.atomic import PREFIX
from textseg.errors import InputError, ResourceError
from textseg.outputs.manifest import is_complete
from textseg.outputs.segmentation import MaskCache, PromptResult


@pytest.fixture
def masks(box_mask):
    return {"spleen": box_mask, "Left/Kidney": np.roll(box_mask, 2, axis=0), "aorta": ~box_mask}


def test_results_are_a_mapping_in_the_order_asked(make_segmentation, masks):
    segmentation = make_segmentation(masks, absent=["uterus"])
    assert list(segmentation) == ["spleen", "Left/Kidney", "aorta", "uterus"]
    assert len(segmentation) == 4
    assert "uterus" in segmentation
    assert segmentation["uterus"].status == "not_found"


def test_masks_come_back_on_the_scan_grid_in_its_axis_order(make_segmentation, masks):
    segmentation = make_segmentation(masks)
    for prompt, mask in masks.items():
        assert segmentation[prompt].mask.dtype == np.bool_
        np.testing.assert_array_equal(segmentation[prompt].mask, mask)


def test_a_prompt_without_mask_gives_an_empty_one(make_segmentation, masks):
    segmentation = make_segmentation(masks, absent=["uterus"])
    assert segmentation["uterus"].mask.shape == segmentation.geometry.shape
    assert not segmentation["uterus"].mask.any()
    assert segmentation["uterus"].statistics["volume_ml"] == 0.0


def test_a_mask_handed_out_cannot_be_changed_behind_the_cache(make_segmentation, masks):
    mask = make_segmentation(masks)["spleen"].mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0, 0] = True


def test_a_mask_is_restored_once_while_the_cache_holds_it(make_segmentation, masks):
    segmentation = make_segmentation(masks)
    assert segmentation["spleen"].mask is segmentation["spleen"].mask


def test_the_cache_keeps_the_masks_used_last_within_its_bytes():
    cache = MaskCache(max_bytes=250)
    for name in "abc":
        cache.put(name, np.zeros(100, dtype=bool))
        cache.get("a")
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]
    cache.put("large", np.zeros(10_000, dtype=bool))
    assert len(cache) == 1
    assert cache.get("large") is not None


def test_a_result_cannot_be_ok_without_a_prediction(make_volume):
    with pytest.raises(ValueError, match="has no prediction"):
        PromptResult("liver", "ok", make_volume())


def test_saving_writes_masks_statistics_and_manifest(make_segmentation, masks, tmp_path):
    manifest = make_segmentation(masks, absent=["uterus"]).save(tmp_path / "a" / "out")
    files = {path.name for path in (tmp_path / "a" / "out").iterdir()}
    assert files == {record.name for record in manifest.files} | {"textseg.json"}
    assert {"spleen.nii.gz", "aorta.nii.gz", "statistics.json"} < files
    for entry in manifest.prompts[:3]:
        stored = np.asarray(nib.load(tmp_path / "a" / "out" / entry.file).dataobj)
        np.testing.assert_array_equal(stored, masks[entry.prompt])
    statistics = json.loads((tmp_path / "a" / "out" / "statistics.json").read_text())
    assert statistics["spleen"]["voxels"] == masks["spleen"].sum()
    assert statistics["uterus"]["status"] == "not_found"
    assert is_complete(tmp_path / "a" / "out")


def test_every_format_asked_for_is_written_and_hashed(make_segmentation, masks, tmp_path):
    manifest = make_segmentation(masks).save(tmp_path, formats=["nrrd", "nifti"], stats=False)
    assert {record.name for record in manifest.files} >= {"spleen.nrrd", "spleen.nii.gz"}
    assert manifest.prompts[0].file == "spleen.nrrd"
    assert not (tmp_path / "statistics.json").exists()


def test_an_existing_result_is_kept_unless_it_may_be_replaced(make_segmentation, masks, tmp_path):
    make_segmentation(masks).save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ResourceError) as caught:
        make_segmentation(masks).save(tmp_path)
    assert caught.value.code == "E504"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_replacing_a_result_removes_masks_that_no_longer_hold(make_segmentation, masks, tmp_path):
    make_segmentation(masks).save(tmp_path)
    (tmp_path / "notes.txt").write_text("the user's own")
    make_segmentation({"spleen": masks["spleen"]}, absent=["aorta"]).save(tmp_path, overwrite=True)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"spleen.nii.gz", "statistics.json", "textseg.json", "notes.txt"}


def test_a_stale_mask_goes_even_without_the_manifest_that_listed_it(
    make_segmentation, masks, tmp_path
):
    make_segmentation(masks).save(tmp_path)
    (tmp_path / "textseg.json").unlink()
    make_segmentation({}, absent=["aorta"]).save(tmp_path, overwrite=True)
    assert not (tmp_path / "aorta.nii.gz").exists()


def test_one_prompt_can_be_saved_as_one_named_file(make_segmentation, box_mask, tmp_path):
    out = tmp_path / "my liver.nii.gz"
    manifest = make_segmentation({"liver": box_mask}).save(out, stats=False)
    assert {path.name for path in tmp_path.iterdir()} == {"my liver.nii.gz", "my liver.json"}
    assert manifest.prompts[0].file == "my liver.nii.gz"
    assert is_complete(tmp_path / "my liver.json")


def test_several_prompts_do_not_fit_one_named_file(make_segmentation, masks, tmp_path):
    with pytest.raises(InputError, match="3 prompts"):
        make_segmentation(masks).save(tmp_path / "all.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_what_the_prompt_was_taken_for_is_recorded(make_result, box_mask, make_volume):
    resolution = SimpleNamespace(
        concepts=("kidney.left",),
        method="side",
        confidence=0.96,
        suggestions=(),
        warnings=("Read as left.",),
    )
    result = make_result("L kidney", box_mask, resolution=resolution, warnings=("Cut off.",))
    record = result.record()
    assert record.concepts == ("kidney.left",)
    assert record.warnings == ("Read as left.", "Cut off.")
    assert record.threshold == 0.5


def test_a_prompt_that_is_not_unicode_is_recorded_readably(make_segmentation, box_mask, tmp_path):
    segmentation = make_segmentation({"spleen": box_mask}, absent=["kid\udcffney"])
    manifest = segmentation.save(tmp_path)
    assert manifest.prompts[1].prompt == "kid\\udcffney"
    assert is_complete(tmp_path)


KILLED_SAVE = """
import os, random, signal, sys
from pathlib import Path
import numpy as np, torch
from textseg.imaging.grid import Grid, plan_grid
from textseg.imaging.volume import Geometry, Source, Volume
from textseg.outputs.manifest import ModelRecord, RunRecord
from textseg.outputs.segmentation import Prediction, PromptResult, Segmentation

torch.set_num_threads(1)
folder, num_points = Path(sys.argv[1]), int(sys.argv[2])
shape = (13, 9, 7)
volume = Volume(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32),
                Geometry(shape, np.eye(4)), "mr", Source(None, "array"))
transform = plan_grid(volume.geometry, Grid((1, 1, 1)))

def segmentation(fill):
    model = ModelRecord(name="m", version="1", sha256=f"{fill:064d}")
    probability = torch.full(shape, 0, dtype=torch.uint8)
    probability[:, : fill + 2] = 255
    results = [PromptResult(p, "ok", volume, prediction=Prediction(probability, transform))
               for p in ("liver", "spleen")]
    return Segmentation(volume, results, run=RunRecord(model=model, device="c", precision="f"))

def save(out, fill, kill_at=None):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if "textseg/outputs" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        if lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    answer = segmentation(fill)
    sys.settrace(trace)
    answer.save(out, overwrite=True)
    sys.settrace(None)
    return lines

save(folder / "warm", 1)
save(folder / "warm", 2)
total = save(folder / "warm", 1)
for point in sorted(random.Random(7).sample(range(1, total + 1), num_points)):
    out = folder / f"at_{point}"
    save(out, 1)
    child = os.fork()
    if not child:
        save(out, 2, point)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, point
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_kill_at_any_line_leaves_no_torn_file(tmp_path, make_segmentation, box_mask):
    command = [sys.executable, "-c", textwrap.dedent(KILLED_SAVE), str(tmp_path), "20"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = sorted(tmp_path.glob("at_*"))
    assert len(folders) == 20
    unfinished = 0
    for folder in folders:
        for path in folder.glob("[!.]*.nii.gz"):
            voxels = np.asarray(nib.load(path).dataobj)
            # the old run filled 3 planes, the new one 4
            assert voxels.sum() in {13 * 3 * 7, 13 * 4 * 7}
        assert is_complete(folder) or not (folder / "textseg.json").exists()
        unfinished += not is_complete(folder)
        make_segmentation({"liver": box_mask}).save(folder, overwrite=True)
        assert is_complete(folder)
        assert not list(folder.glob(f"{PREFIX}*"))
    # otherwise the points did not fall where it matters
    assert unfinished > 5


def test_a_notebook_shows_the_preview(make_segmentation, masks, monkeypatch):
    segmentation = make_segmentation(masks, absent=["uterus"])
    assert segmentation._repr_png_().startswith(b"\x89PNG")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert segmentation._repr_png_() is None
