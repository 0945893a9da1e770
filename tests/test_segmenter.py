"""The main flow: every kind of scan, every kind of answer, masks on the scan's own voxels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from fakes import tiny_encoder, tiny_segmenter, write_model

from textseg import Segmentation, Segmenter
from textseg.errors import Cancelled, InputError, ModelError
from textseg.imaging import Grid, as_volume, to_grid
from textseg.inference import choose_device
from textseg.network.model import Decoded
from textseg.network.queries import MODALITIES, SIDES
from textseg.network.weights import Domain, ModelManifest

SPACING = 3.0
TORSO = Domain(
    name="torso-ct",
    spacing_mm=(SPACING,) * 3,
    window=(16, 24, 12),
    modalities=("ct",),
    concepts=("liver", "kidney.left", "kidney.right", "spleen"),
)
HEAD = Domain(
    name="head-mr",
    spacing_mm=(SPACING,) * 3,
    window=(16, 16, 16),
    modalities=("mr",),
    concepts=("brainstem", "hippocampus.left", "hippocampus.right"),
)
# axes point left, superior, posterior: every axis must be moved or turned, and back again
AFFINE = np.array([[-3.0, 0, 0, 40], [0, 0, -3.0, 10], [0, 3.0, 0, -20], [0, 0, 0, 1]])
SHAPE = (21, 13, 17)
RIGHT = SIDES.index("right") - len(SIDES) - len(MODALITIES)


class IntensityModel(torch.nn.Module):
    """Left and unpaired prompts find what is brighter than 100 HU, right ones below -100 HU."""

    granularity = 4

    def __init__(self):
        super().__init__()
        self.asked = []
        self.weight = torch.nn.Parameter(torch.ones(()))

    def encode(self, volume):
        return volume

    def decode(self, features, queries):
        right = (queries[..., RIGHT] > 0).float()
        self.asked.append(queries.detach().clone())
        sign = (1 - 2 * right)[..., None, None, None]
        logits = 60 * (sign * features - 0.4)  # 100 HU is 0.4 in model input
        return Decoded.of_logits(logits, logits.amax(dim=(2, 3, 4)))


def make_segmenter(**fields):
    manifest = ModelManifest(
        name="fake",
        version="1",
        licence="CC0-1.0",
        sha256="0" * 64,
        network={},
        text_encoder={},
        domains=(TORSO, HEAD),
        **fields,
    )
    return Segmenter(IntensityModel(), tiny_encoder(), manifest, device="cpu", precision="float32")


@pytest.fixture(name="segmenter")
def _segmenter():
    return make_segmenter()


@pytest.fixture(name="array")
def _array():
    """Soft tissue at 30 HU with a bright box, a dark box and air in one corner."""
    rng = np.random.default_rng(0)
    array = rng.normal(30, 3, SHAPE).astype(np.float32)
    array[:2, :2] = -1000
    array[5:9, 3:10, 4:6] = 300
    array[12:18, 2:5, 9:15] = -300
    return array


BRIGHT = (slice(5, 9), slice(3, 10), slice(4, 6))
DARK = (slice(12, 18), slice(2, 5), slice(9, 15))


def expected_box(where):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[where] = True
    return mask


def test_a_mask_lies_on_the_voxels_of_the_scan_in_its_own_axis_order(segmenter, array):
    result = segmenter((array, AFFINE), "liver", modality="ct")["liver"]
    assert result.status == "ok"
    assert result.mask.dtype == bool
    np.testing.assert_array_equal(result.mask, expected_box(BRIGHT))
    assert result.presence == pytest.approx(1, abs=1e-3)


def test_left_and_right_are_different_questions(segmenter, array):
    found = segmenter((array, AFFINE), ["left kidney", "right kidney"], modality="ct")
    np.testing.assert_array_equal(found["left kidney"].mask, expected_box(BRIGHT))
    right = found["right kidney"].mask
    assert right[DARK].all()
    assert not right[BRIGHT].any()


def test_the_mask_of_a_pair_is_the_union_of_its_sides(segmenter, array):
    found = segmenter((array, AFFINE), ["kidneys", "left kidney", "right kidney"], modality="ct")
    both = found["left kidney"].mask | found["right kidney"].mask
    np.testing.assert_array_equal(found["kidneys"].mask, both)
    sides = [found[p].presence for p in ("left kidney", "right kidney")]
    assert found["kidneys"].presence == max(sides)


def test_a_pair_is_found_if_one_side_is(segmenter, array):
    array[array < 0] = 0
    found = segmenter((array, AFFINE), ["kidneys", "right kidney"], modality="ct")
    assert found["right kidney"].status == "not_found"
    np.testing.assert_array_equal(found["kidneys"].mask, expected_box(BRIGHT))


def as_path(array, folder):
    nib.save(nib.Nifti1Image(array, AFFINE), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


KINDS = {
    "path": as_path,
    "text path": lambda array, folder: str(as_path(array, folder)),
    "nibabel image": lambda array, folder: nib.load(as_path(array, folder)),
    "SimpleITK image": lambda array, folder: sitk.ReadImage(str(as_path(array, folder))),
    "array and affine": lambda array, folder: (array, AFFINE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scan_gives_the_same_mask(segmenter, array, tmp_path, kind):
    scan = KINDS[kind](array, tmp_path)
    result = segmenter(scan, ["liver"], modality="ct")
    assert result.geometry.shape == SHAPE
    np.testing.assert_array_equal(result["liver"].mask, expected_box(BRIGHT))


def test_every_prompt_gets_an_answer_in_the_order_asked(segmenter, array):
    prompts = ["spleen", "pancreas", "liver", "xyzzy plugh", ""]
    result = segmenter((array, AFFINE), prompts, modality="ct")
    assert isinstance(result, Segmentation)
    assert list(result) == prompts
    statuses = {prompt: result[prompt].status for prompt in prompts}
    assert statuses == {
        "spleen": "ok",
        "pancreas": "unsupported",
        "liver": "ok",
        "xyzzy plugh": "reject",
        "": "reject",
    }
    for prompt in ("pancreas", "xyzzy plugh", ""):
        assert result[prompt].reason
        assert result[prompt].presence is None
        assert result[prompt].mask.shape == SHAPE
        assert not result[prompt].mask.any()


def test_a_prompt_given_twice_is_answered_once(segmenter, array):
    assert list(segmenter((array, AFFINE), ["liver", "liver"], modality="ct")) == ["liver"]


def test_no_prompt_is_no_work(segmenter, array):
    assert len(segmenter((array, AFFINE), [], modality="ct")) == 0
    assert segmenter.network.asked == []


def test_only_rejected_prompts_cost_no_pass_over_the_scan(segmenter, array):
    result = segmenter((array, AFFINE), ["xyzzy plugh"], modality="ct")
    assert result["xyzzy plugh"].status == "reject"
    assert segmenter.network.asked == []


def test_what_is_not_in_the_scan_is_not_found(segmenter, array):
    array[array > 100] = 30
    result = segmenter((array, AFFINE), "liver", modality="ct")["liver"]
    assert result.status == "not_found"
    assert not result.mask.any()
    assert result.presence is not None
    assert result.presence < 0.5
    assert "presence" in (result.reason or "")


def test_present_but_nowhere_sure_is_not_found_either(array):
    lenient = make_segmenter(presence_threshold=0.0)
    array[array > 100] = 30
    result = lenient((array, AFFINE), "liver", modality="ct")["liver"]
    assert result.status == "not_found"
    assert "no voxel" in (result.reason or "")


def test_the_threshold_decides_what_is_in_the_mask(segmenter, array):
    array[6, 5, 5] = 110  # 0.44 in model input: probability 0.92
    strict = segmenter((array, AFFINE), "liver", modality="ct", threshold=0.95)["liver"].mask
    plain = segmenter((array, AFFINE), "liver", modality="ct")["liver"].mask
    assert plain[6, 5, 5]
    assert not strict[6, 5, 5]
    assert strict.sum() == plain.sum() - 1


def test_islands_are_left_out_unless_they_are_wanted(segmenter, array):
    array[15, 9, 13] = 300
    cleaned = segmenter((array, AFFINE), "liver", modality="ct")
    np.testing.assert_array_equal(cleaned["liver"].mask, expected_box(BRIGHT))
    assert cleaned.manifest.prompts[0].islands_dropped == 1
    kept = segmenter((array, AFFINE), "liver", modality="ct", keep_islands=True)
    assert kept["liver"].mask[15, 9, 13]
    assert kept["liver"].mask.sum() == expected_box(BRIGHT).sum() + 1
    assert kept.manifest.prompts[0].islands_dropped == 0


def test_lesions_keep_their_islands(array):
    lesions = TORSO.model_copy(update={"concepts": ("liver_tumor",)})
    segmenter = make_segmenter()
    segmenter.manifest = segmenter.manifest.model_copy(update={"domains": (lesions,)})
    array[15, 9, 13] = 300
    found = segmenter((array, AFFINE), "liver tumor", modality="ct")["liver tumor"]
    assert found.status == "ok"
    assert found.mask[15, 9, 13]


def test_structures_of_two_kinds_of_scans_are_answered_each_in_its_own_domain(segmenter, array):
    result = segmenter((array, AFFINE), ["liver", "brainstem"], modality="ct")
    assert [result[p].status for p in result] == ["ok", "ok"]
    assert [grid.domain for grid in result.manifest.run.grids] == ["torso-ct", "head-mr"]


def test_structures_of_two_kinds_of_scans_are_not_joined_in_one_prompt(segmenter, array):
    result = segmenter((array, AFFINE), "liver and brainstem", modality="ct")
    assert result["liver and brainstem"].status == "unsupported"
    assert "ask for each alone" in (result["liver and brainstem"].reason or "")
    assert segmenter.network.asked == []


def test_the_wrong_modality_is_warned_of(segmenter, array):
    right = segmenter((array, AFFINE), "liver", modality="ct")["liver"]
    wrong = segmenter((array - array.min(), AFFINE), "liver", modality="mr")["liver"]
    assert right.warnings == ()
    assert any("CT" in warning and "MR" in warning for warning in wrong.warnings)


def test_queries_name_the_modality_of_the_scan_where_it_was_trained(segmenter, array):
    modality = slice(-len(MODALITIES), None)
    segmenter((array, AFFINE), "liver", modality="ct")
    assert segmenter.network.asked[-1][0, 0, modality].tolist() == [0, 1, 0, 0]
    segmenter((array - array.min(), AFFINE), "liver", modality="mr")  # never trained on MR
    assert segmenter.network.asked[-1][0, 0, modality].tolist() == [0, 1, 0, 0]


def test_the_run_is_described(segmenter, array):
    run = segmenter((array, AFFINE), ["liver"], modality="ct").manifest.run
    assert run.model.name == "fake"
    assert run.device == "cpu"
    (grid,) = run.grids
    assert grid.domain == "torso-ct"
    assert sorted(grid.shape) == sorted(SHAPE)  # same spacing, axes in another order
    assert grid.windows >= 1
    assert run.peak_memory_bytes is None or run.peak_memory_bytes > 2**20


LONG_AFFINE = np.diag([SPACING, SPACING, SPACING, 1])


@pytest.fixture(name="long_scan")
def _long_scan():
    """Water with a bright box in its upper half, many windows of both domains long."""
    array = np.zeros((40, 24, 200), dtype=np.float32)
    array[4:9, 5:9, 150:160] = 300
    return array, LONG_AFFINE


def test_a_region_is_segmented_domain_by_domain_as_without(segmenter, long_scan):
    prompts = ["liver", "left kidney", "brainstem"]
    everywhere = segmenter(long_scan, prompts, modality="ct")
    confined = segmenter(long_scan, prompts, modality="ct", roi="auto")
    for prompt in prompts:
        np.testing.assert_array_equal(confined[prompt].mask, everywhere[prompt].mask)
        assert confined[prompt].mask.sum() == 5 * 4 * 10
    for grid, whole in zip(confined.run.grids, everywhere.run.grids, strict=True):
        run = grid.windows - grid.windows_skipped
        assert grid.windows == whole.windows
        assert run < whole.windows - whole.windows_skipped
        assert grid.roi.startswith(f"auto: {run} of ")
        assert grid.roi_box[2][0] <= 140
        assert grid.roi_box[2][1] >= 170
        assert whole.roi is None
        assert whole.roi_box is None


def test_a_structure_that_is_not_there_is_sought_everywhere(segmenter, long_scan):
    found = segmenter(long_scan, ["liver", "right kidney"], modality="ct", roi="auto")
    (grid,) = found.run.grids
    assert grid.roi.startswith("off: right kidney: coarse presence 0.")
    assert grid.roi_box is None
    assert grid.windows_skipped == 0
    assert found["right kidney"].status == "not_found"
    assert found["liver"].status == "ok"


def test_lesions_are_sought_everywhere(long_scan):
    lesions = TORSO.model_copy(update={"concepts": ("liver_tumor",)})
    segmenter = make_segmenter()
    segmenter.manifest = segmenter.manifest.model_copy(update={"domains": (lesions,)})
    found = segmenter(long_scan, "liver tumor", modality="ct", roi="auto")
    assert found.run.grids[0].roi == "off: liver tumor comes in pieces of any size"


def test_nano_looks_first_for_a_model_that_cannot_and_only_for_what_it_knows(long_scan):
    segmenter = make_segmenter(preparation="sat")
    fine = {"spacing_mm": (1.0, 1.0, 1.0), "window": (96, 64, 96)}
    domains = tuple(domain.model_copy(update=fine) for domain in segmenter.manifest.domains)
    segmenter.manifest = segmenter.manifest.model_copy(update={"domains": domains})
    array, affine = long_scan
    # the preparation cuts off what is not above 0
    found = segmenter((array + 1, affine), ["liver", "brainstem"], modality="ct", roi="auto")
    torso, head = found.run.grids
    assert torso.roi.startswith("off: liver: coarse presence 0.")  # no liver to nano
    assert head.roi == "off: nano, which looks first, does not know all of it on such a scan"


def test_an_unknown_way_to_choose_a_region_is_refused(segmenter, long_scan):
    with pytest.raises(ModelError, match="'on'"):
        segmenter(long_scan, "liver", modality="ct", roi="on")


@pytest.mark.slow
@pytest.mark.shared
def test_nano_finds_the_same_in_a_region_of_a_real_scan(shared_data):
    abdomen = on_working_grid(shared_data / "totalsegmentator" / "ts_example_ct_image.nii.gz")
    chest = on_working_grid(shared_data / "fnndsc-abdomen-ct" / "lidc_0314_chest_image.nii.gz")
    # neither is long enough to save windows, so the chest is put on top of the abdomen
    (x, y, _), (wider, deeper, _) = abdomen.shape, chest.shape
    left, front = (wider - x) // 2, (deeper - y) // 2
    joined = np.concatenate([abdomen, chest[left : left + x, front : front + y]], axis=2)
    segmenter = Segmenter.from_pretrained("nano", device="cpu")
    scan = joined, LONG_AFFINE
    prompts = ["urinary bladder", "vertebra L5", "left gluteus minimus"]
    everywhere = segmenter(scan, prompts, modality="ct")
    for prompt in prompts:
        confined = segmenter(scan, prompt, modality="ct", roi="auto")
        mask, expected = confined[prompt].mask, everywhere[prompt].mask
        assert 2 * (mask & expected).sum() >= 0.99 * (mask.sum() + expected.sum())
        assert confined.run.grids[0].roi.startswith("auto: ")
        assert confined.run.grids[0].windows_skipped > everywhere.run.grids[0].windows_skipped


def on_working_grid(path):
    """A scan in voxels of 3 mm."""
    data, _ = to_grid(as_volume(path, modality="ct"), Grid((SPACING,) * 3))
    return data[0].numpy()


def test_progress_counts_up_to_the_number_of_windows(segmenter, array):
    seen = []
    segmenter(
        (array, AFFINE),
        "liver",
        modality="ct",
        progress=lambda done, todo: seen.append((done, todo)),
    )
    total = seen[-1][1]
    assert total > 1
    assert seen == [(k, total) for k in range(1, total + 1)]


def test_cancelling_stops_between_windows(segmenter, array):
    with pytest.raises(Cancelled) as caught:
        segmenter(
            (array, AFFINE),
            "liver",
            modality="ct",
            cancel=lambda: len(segmenter.network.asked) == 2,
        )
    assert len(segmenter.network.asked) == 2
    assert caught.value.exit_code == 130


def test_a_batch_loads_the_model_once_and_keeps_the_order(segmenter, array):
    scans = [(array, AFFINE), (array * 0.99, AFFINE)]
    items = list(segmenter.batch(scans, ["liver"], modality="ct"))
    assert [item.scan for item in items] == scans
    assert all(item.error is None for item in items)
    assert all(item.segmentation["liver"].status == "ok" for item in items)


def test_a_batch_can_record_the_error_of_a_scan_and_go_on(segmenter, array, tmp_path):
    scans = [tmp_path / "gone.nii.gz", (array, AFFINE)]
    missing, good = segmenter.batch(scans, ["liver"], on_error="record", modality="ct")
    assert isinstance(missing.error, InputError)
    assert missing.error.code == "E301"
    assert missing.segmentation is None
    assert good.error is None
    assert good.segmentation["liver"].status == "ok"


def test_a_batch_stops_at_an_error_by_default(segmenter, array, tmp_path):
    items = segmenter.batch([(array, AFFINE), tmp_path / "gone.nii.gz"], ["liver"], modality="ct")
    assert next(items).error is None
    with pytest.raises(InputError):
        next(items)


def test_cancelling_a_batch_is_never_recorded_as_an_error_of_a_scan(segmenter, array):
    items = segmenter.batch(
        [(array, AFFINE)], ["liver"], on_error="record", modality="ct", cancel=lambda: True
    )
    with pytest.raises(Cancelled):
        next(items)


def test_a_model_folder_with_random_weights_answers_on_the_grid_of_the_scan(array, tmp_path):
    network = tiny_segmenter()
    with torch.no_grad():
        network.presence_head[2].bias += 20  # sure of everything, so that there is a mask to see
    write_model(tmp_path / "random", network=network, domains=[TORSO], mask_threshold=0.01)
    segmenter = Segmenter.from_pretrained(tmp_path / "random", device="cpu", precision="float32")
    result = segmenter((array, AFFINE), ["liver", "spleen"], modality="ct")
    assert result["liver"].mask.shape == SHAPE
    assert result["liver"].presence == pytest.approx(1, abs=1e-3)
    again = segmenter((array, AFFINE), ["spleen"], modality="ct")
    np.testing.assert_array_equal(again["spleen"].mask, result["spleen"].mask)


def test_a_segmenter_says_what_a_prompt_means_to_it(segmenter):
    assert segmenter.resolve("Left  KIDNEY").concepts == ("kidney.left",)
    assert segmenter.resolve("pancreas").status == "unsupported"


def test_a_segmenter_knows_the_structures_that_a_model_brings_along(array, tmp_path):
    own = TORSO.model_copy(update={"concepts": ("lab.insert", "liver")})
    write_model(tmp_path / "own", network=tiny_segmenter(), domains=[own])
    stanza = "[lab.insert]\nname: phantom insert\nsynonyms: test object\n"
    (tmp_path / "own" / "vocabulary.tree").write_text(stanza)
    segmenter = Segmenter.from_pretrained(tmp_path / "own", device="cpu", precision="float32")
    result = segmenter((array, AFFINE), ["test object"], modality="ct")["test object"]
    assert result.resolution.concepts == ("lab.insert",)
    assert result.status in {"ok", "not_found"}


def test_a_damaged_vocabulary_of_a_model_is_refused(tmp_path):
    write_model(tmp_path / "own", network=tiny_segmenter(), domains=[TORSO])
    (tmp_path / "own" / "vocabulary.tree").write_text("phantom\n")
    with pytest.raises(ModelError, match=r"E702.*vocabulary\.tree: line 1"):
        Segmenter.from_pretrained(tmp_path / "own", device="cpu")


def test_an_unknown_model_is_refused():
    with pytest.raises(ModelError) as caught:
        Segmenter.from_pretrained("no-such-model")
    assert caught.value.code == "E401"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:x", "", "meta"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ModelError) as caught:
        choose_device(name)
    assert caught.value.remedy


def test_automatic_device_is_one_that_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_device("cpu") == torch.device("cpu")
