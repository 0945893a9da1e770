"""A report instead of prompts: what it states is looked for where it says, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from levels import level_segmenter

from textseg.errors import PromptError
from textseg.network.weights import Domain
from textseg.outputs.manifest import read_manifest
from textseg.outputs.segmentation import Prediction

HU = {"liver": 60, "kidney.left": 120, "kidney.right": 180, "kidney_cyst": 240, "liver_tumor": -90}
TORSO = Domain(
    name="torso-ct",
    spacing_mm=(3.0, 3.0, 3.0),
    window=(16, 24, 12),
    modalities=("ct",),
    concepts=tuple(HU),
)
# axes point left, superior, posterior
AFFINE = np.array([[-3.0, 0, 0, 40], [0, 0, -3.0, 10], [0, 3.0, 0, -20], [0, 0, 0, 1]])
SHAPE = (31, 13, 17)
LIVER = (slice(2, 9), slice(7, 12), slice(2, 9))
IN_LIVER = (slice(4, 6), slice(8, 10), slice(4, 7))
FAR_FROM_LIVER = (slice(26, 28), slice(10, 12), slice(2, 4))
RIGHT, LEFT = (slice(3, 8), slice(1, 5), slice(9, 14)), (slice(22, 27), slice(1, 5), slice(9, 14))
IN_RIGHT, IN_LEFT = (slice(4, 6), slice(2, 4), slice(10, 12)), (slice(23, 26), 3, slice(10, 12))
REPORT = "There is a 2 cm tumor in the liver. A cyst is seen in the left kidney."
TUMOR, CYST = "liver tumor in liver", "left kidney cyst in left kidney"


@pytest.fixture
def segmenter():
    return level_segmenter(HU, TORSO)


@pytest.fixture
def array():
    """A liver and two kidneys in water; a tumor in the liver, one elsewhere, a cyst a kidney."""
    array = np.zeros(SHAPE, dtype=np.float32)
    array[0] = -1000
    array[LIVER], array[RIGHT], array[LEFT] = 60, 180, 120
    array[IN_LIVER] = array[FAR_FROM_LIVER] = -90
    array[IN_RIGHT] = array[IN_LEFT] = 240
    return array


def boxes(*where):
    mask = np.zeros(SHAPE, dtype=bool)
    for box in where:
        mask[box] = True
    return mask


def ask(segmenter, array, report, **options):
    return segmenter((array, AFFINE), report=report, modality="ct", **options)


def test_each_finding_is_a_prompt_and_its_mask_lies_where_the_report_says(segmenter, array):
    found = ask(segmenter, array, REPORT)
    assert list(found) == [TUMOR, CYST]
    assert [result.status for result in found.values()] == ["ok", "ok"]
    np.testing.assert_array_equal(found[TUMOR].mask, boxes(IN_LIVER))
    np.testing.assert_array_equal(found[CYST].mask, boxes(IN_LEFT))
    assert found[CYST].statistics["voxels"] == 6
    assert found.warnings == ()
    # the same words as prompts are not narrowed
    plain = segmenter((array, AFFINE), ["liver tumor", "kidney cyst"], modality="ct")
    np.testing.assert_array_equal(plain["liver tumor"].mask, boxes(IN_LIVER, FAR_FROM_LIVER))
    np.testing.assert_array_equal(plain["kidney cyst"].mask, boxes(IN_LEFT, IN_RIGHT))


def test_what_was_left_out_is_said(segmenter, array):
    found = ask(segmenter, array, REPORT)
    assert found[TUMOR].warnings == (
        "Narrowed to liver.",
        "Pieces that lie elsewhere and are left out: 1 of 2.",
    )
    array[FAR_FROM_LIVER] = 0
    assert ask(segmenter, array, REPORT)[TUMOR].warnings == ("Narrowed to liver.",)


def test_one_pass_answers_findings_and_their_places(segmenter, array):
    ask(segmenter, array, REPORT)
    needed = ["liver_tumor", "liver", "kidney_cyst", "kidney.left"]
    assert segmenter.network.asked == [needed] * len(segmenter.network.asked)


def test_a_side_alone_is_told_by_the_midline_between_pairs(segmenter, array):
    for side, box in (("left", IN_LEFT), ("right", IN_RIGHT)):
        prompt = f"{side} kidney cyst"
        found = ask(segmenter, array, f"There is a {side} renal cyst.")
        assert list(found) == [prompt]
        np.testing.assert_array_equal(found[prompt].mask, boxes(box))
        assert any(f"the {side} side of the midline" in why for why in found[prompt].warnings)


def test_places_that_findings_share_are_brought_to_the_scan_once(segmenter, array, monkeypatch):
    restored, plain = [], Prediction.restored
    monkeypatch.setattr(Prediction, "restored", lambda self: restored.append(self) or plain(self))
    found = ask(segmenter, array, "There is a left renal cyst. There is a right renal cyst.")
    assert len(restored) == 2 + 2  # a cyst for each finding, and the kidneys
    np.testing.assert_array_equal(found["left kidney cyst"].mask, boxes(IN_LEFT))
    np.testing.assert_array_equal(found["right kidney cyst"].mask, boxes(IN_RIGHT))


def test_a_place_that_is_not_in_the_scan_narrows_nothing_and_is_warned_of(segmenter, array):
    array[LIVER] = 0
    array[IN_LIVER] = -90
    result = ask(segmenter, array, REPORT)[TUMOR]
    np.testing.assert_array_equal(result.mask, boxes(IN_LIVER, FAR_FROM_LIVER))
    (warning,) = result.warnings
    assert "that was not found in this scan" in warning


def test_a_midline_that_cannot_be_found_narrows_nothing(segmenter, array):
    array[RIGHT], array[IN_RIGHT] = 0, 240
    result = ask(segmenter, array, "There is a left renal cyst.")["left kidney cyst"]
    np.testing.assert_array_equal(result.mask, boxes(IN_LEFT, IN_RIGHT))
    assert any("that was not found in this scan" in why for why in result.warnings)


def test_a_place_that_the_model_does_not_know_narrows_nothing(segmenter, array):
    found = ask(segmenter, array, "A 3 cm hypodense lesion in segment VII of the liver.")
    (result,) = found.values()
    np.testing.assert_array_equal(result.mask, boxes(IN_LIVER, FAR_FROM_LIVER))
    assert "Not narrowed: the model does not know liver segment VII." in result.warnings


def test_a_finding_that_lies_only_elsewhere_is_not_found(segmenter, array):
    array[IN_LEFT] = 120
    result = ask(segmenter, array, REPORT)[CYST]
    assert result.status == "not_found"
    assert result.reason == ("Found, but not where the report puts it. Narrowed to left kidney.")
    assert result.presence > 0.5
    assert not result.mask.any()


def test_a_finding_that_is_nowhere_is_not_found(segmenter, array):
    array[array == 240] = 0
    result = ask(segmenter, array, REPORT)[CYST]
    assert result.status == "not_found"
    assert "presence" in result.reason


def test_a_finding_too_small_for_the_voxels_of_the_scan_has_an_empty_mask(segmenter):
    # only at the edge of the liver, on the finer grid of the model, there is something like a tumor
    array = np.full((7, 5, 6), 60.0, dtype=np.float32)
    array[:3] = -400
    report = "There is a tumor in the liver."
    result = segmenter((array, np.diag([24.0, 12, 12, 1])), report=report, modality="ct")[TUMOR]
    assert result.status == "ok"
    assert not result.mask.any()


def test_places_may_be_of_another_domain(array):
    lesions = ("kidney_cyst", "liver_tumor")
    organs = tuple(c for c in HU if c not in lesions)
    other = TORSO.model_copy(
        update={"name": "organs-ct", "concepts": organs, "window": (12, 12, 12)}
    )
    own = TORSO.model_copy(update={"name": "lesions-ct", "concepts": lesions})
    elsewhere = TORSO.model_copy(update={"name": "organs-mr", "modalities": ("mr",)})
    found = ask(level_segmenter(HU, elsewhere, other, own), array, REPORT)
    assert [grid.domain for grid in found.run.grids] == ["organs-ct", "lesions-ct"]
    np.testing.assert_array_equal(found[TUMOR].mask, boxes(IN_LIVER))
    np.testing.assert_array_equal(found[CYST].mask, boxes(IN_LEFT))


def test_the_threshold_is_that_of_the_lesions_and_not_of_their_places(segmenter, array):
    array[RIGHT], array[IN_RIGHT] = 148, 240  # a left kidney with probability 0.08
    found = ask(segmenter, array, REPORT, threshold=0.05)
    np.testing.assert_array_equal(found[CYST].mask, boxes(IN_LEFT))
    everything = segmenter((array, AFFINE), "left kidney", modality="ct", threshold=0.05)
    assert everything["left kidney"].mask[RIGHT].any()


LONG = (
    "Clinical history: liver tumor?\n"
    "FINDINGS: There is a tumor in the liver, measuring 2.5 cm. Possible cyst in the left kidney. "
    "No renal stone. A quux lesion is seen. There is a nodule in the right upper lobe of the lung."
)


def test_the_manifest_tells_where_findings_stand_and_no_word_of_them(segmenter, array, tmp_path):
    found = ask(segmenter, array, LONG)
    found.save(tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.run == found.manifest.run
    said = {record.prompt: record.said for record in manifest.prompts}
    assert list(said) == [TUMOR, CYST, "lung nodule in right upper lobe of lung"]
    ((tumor,), (cyst,), (nodule,)) = said.values()
    words = [LONG[slice(*record.characters)] for record in (tumor, cyst, nodule)]
    assert words == ["tumor", "cyst", "nodule"]
    assert (tumor.size_mm, tumor.uncertain, tumor.reason) == ((25.0,), False, None)
    assert cyst.uncertain
    assert [record.status for record in manifest.prompts] == ["ok", "ok", "unsupported"]
    asked, unknown = manifest.run.findings.passed_over
    assert "examination was to answer" in asked.reason
    assert LONG[slice(*unknown.characters)] == "quux lesion"
    assert unknown.reason == "Its words are not understood."
    assert manifest.run.findings.num_denied == 1
    for file in (tmp_path / "out").glob("*.json"):
        text = file.read_text(encoding="utf-8").lower()
        assert all(word not in text for word in ("quux", "possible", "measuring", "stone"))


def test_what_a_finding_was_taken_for_quotes_no_report(segmenter, array):
    found = ask(segmenter, array, "HCC in the liver.")
    assert "Interpreted as liver tumor." in found.manifest.prompts[0].warnings
    assert "hcc" not in found.manifest.model_dump_json().lower()


@pytest.mark.parametrize("report", ["The study is normal.", "No liver tumor. No renal cyst."])
def test_a_report_without_findings_is_an_empty_answer_and_a_warning(
    segmenter, array, tmp_path, report
):
    found = ask(segmenter, array, report)
    assert len(found) == 0
    denied = 2 if "No" in report else 0
    assert found.warnings == (
        "the report states nothing that the model levels can segment "
        f"(0 findings stated, {denied} denied)",
    )
    found.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "statistics.json",
        "textseg.json",
    ]
    assert read_manifest(tmp_path / "out").run.findings.num_denied == denied
    assert segmenter.network.asked == []


def test_prompts_are_answered_as_if_the_report_named_nothing(segmenter, array):
    scan = array, AFFINE
    plain = segmenter(scan, ["kidney cyst"], modality="ct")
    told = segmenter(scan, ["kidney cyst"], modality="ct", report=REPORT)
    np.testing.assert_array_equal(told["kidney cyst"].mask, plain["kidney cyst"].mask)
    assert list(told) == ["kidney cyst"]
    assert told.run.findings is None
    assert told.manifest.prompts[0].said == ()
    assert len(segmenter(scan, [], modality="ct", report=REPORT)) == 0


def test_features_of_a_report_and_no_report_are_no_prompts(segmenter, array, tmp_path):
    path = tmp_path / "report.npy"
    np.save(path, np.zeros((1, 3, 12), np.float32))
    with pytest.raises(PromptError, match="features of a report") as caught:
        ask(segmenter, array, path)
    assert caught.value.path == path
    with pytest.raises(PromptError, match="neither a prompt nor a report"):
        segmenter((array, AFFINE), modality="ct")
