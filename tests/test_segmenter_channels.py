"""Scans of several channels, and reports, through the main flow."""

from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import tiny_network, tiny_segmenter, write_model

from textseg import Segmenter
from textseg.errors import InputError, ModelError, PromptError
from textseg.imaging import as_volume
from textseg.inference import LoadedModel, Manner
from textseg.inference.report_reader import ReportReader
from textseg.network.backbones import BackboneConfig
from textseg.network.model import PromptedSegmenter
from textseg.network.report_encoder import ReportEncoderConfig, make_report_encoder
from textseg.network.report_fusion import ReportConfig
from textseg.network.weights import Domain
from textseg.reports.given import GivenReport
from textseg.reports.sentences import split_sentences

SHAPE = (19, 15, 11)
AFFINE = np.array([[0.0, -6.0, 0, 40], [-5.5, 0, 0, 10], [0, 0, 7.0, -20], [0, 0, 0, 1]])
HEAD = Domain(
    name="head-mr",
    spacing_mm=(5.0, 5.0, 5.0),
    window=(12, 16, 12),
    modalities=("mr",),
    concepts=("brainstem", "hippocampus.left", "hippocampus.right"),
)
PROMPTS = ["brainstem", "left hippocampus"]
STAND_INS = (0.25, -0.75)
REPORT = "There is a mass in the left temporal lobe. No edema."
SWAPPED = "There is a mass in the right temporal lobe. No edema."
WORDS = ReportEncoderConfig(features=12)


class Recording(PromptedSegmenter):
    """Keeps the windows it is given, and the reports they are read with."""

    def __init__(self, config):
        super().__init__(config)
        self.windows, self.reports = [], []

    def encode(self, volume, report=None):
        self.windows.append(volume.detach().clone())
        self.reports.append(report)
        return super().encode(volume, report)


def network(*channels, report=None):
    """Random weights; fusion with open gates, and stand-ins that no channel has."""
    backbone = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), in_channels=len(channels) or 1)
    made = tiny_segmenter(tiny_network(backbone=backbone, channels=channels, report=report))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        if channels:
            made.stand_ins.copy_(torch.tensor(STAND_INS[: len(channels)]))
        if made.report_fusion is not None:
            for weight in made.report_fusion.parameters():
                weight += 0.3 * torch.randn(weight.shape, generator=noise)
    return made


FUSION = ReportConfig(token_features=12, width=8, heads=2, layers=1, hidden=8, context_layers=1)


def segmenter_of(folder, made, *, report_encoder=None):
    """The model after a way to the disk and back; it keeps what its network is given."""
    write_model(
        folder,
        network=made,
        domains=[HEAD],
        mask_threshold=0.05,
        presence_threshold=0.0,
        report_encoder=report_encoder and report_encoder.model_dump(mode="json"),
    )
    segmenter = Segmenter.from_pretrained(folder, device="cpu", precision="float32")
    recording = Recording(segmenter.network.config).eval()
    recording.load_state_dict(segmenter.network.state_dict())
    segmenter.network = recording
    return segmenter


@pytest.fixture
def two(tmp_path):
    """A model of two channels."""
    return segmenter_of(tmp_path / "two", network("flair", "t1"))


@pytest.fixture
def plain(tmp_path):
    """A model of one channel without a name."""
    return segmenter_of(tmp_path / "plain", network())


@pytest.fixture
def reader(tmp_path):
    """A model of two channels that reads reports."""
    made = network("flair", "t1", report=FUSION)
    return segmenter_of(tmp_path / "reader", made, report_encoder=WORDS)


@pytest.fixture
def files(tmp_path):
    paths = {}
    for seed, name in enumerate(("flair", "t1")):
        array = np.random.default_rng(seed).uniform(100, 900, SHAPE).astype(np.float32)
        array[:2] = 0
        paths[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(array, AFFINE), paths[name])
    return paths


def assert_same(one, other):
    for prompt in one:
        assert one[prompt].presence == other[prompt].presence
        np.testing.assert_array_equal(one[prompt].mask, other[prompt].mask)


def presences(result):
    return [result[prompt].presence for prompt in PROMPTS]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_channels_are_told_by_name_whatever_their_order_and_spelling(two, files):
    straight = two(files, PROMPTS)
    turned = two({"T1w": files["t1"], "t2f": as_volume(files["flair"])}, PROMPTS)
    assert [straight[p].status for p in PROMPTS] == ["ok", "ok"]
    assert straight["brainstem"].mask.shape == SHAPE
    assert_same(straight, turned)
    swapped = two({"flair": files["t1"], "t1": files["flair"]}, PROMPTS)
    assert presences(swapped) != presences(straight)


def test_the_manifest_names_each_channel_with_its_file(two, files):
    result = two({"T1": files["t1"], "FLAIR": files["flair"]}, PROMPTS)
    found = {c.name: (c.path, c.sha256, c.is_missing) for c in result.manifest.run.channels}
    assert found == {
        "t1": (str(files["t1"]), sha256(files["t1"]), False),
        "flair": (str(files["flair"]), sha256(files["flair"]), False),
    }
    assert list(found) == ["t1", "flair"]
    assert result.manifest.input.path == str(files["t1"])  # masks copy its header
    assert result.manifest.run.report is None
    assert result.warnings == ()


def test_a_stand_in_takes_the_place_of_a_missing_channel(two, files):
    two(files, PROMPTS)
    whole = two.network.windows.copy()
    two.network.windows.clear()
    result = two({"flair": files["flair"]}, PROMPTS)
    seen = two.network.windows
    assert len(seen) == len(whole) > 1
    for window, before in zip(seen, whole, strict=True):
        assert torch.equal(window[:, 0], before[:, 0])
        assert window[:, 1].unique().tolist() == [STAND_INS[1]]
        assert not torch.equal(window[:, 1], before[:, 1])
    assert all(result[p].presence is not None for p in PROMPTS)


def test_a_missing_channel_is_a_warning_and_in_the_manifest(two, files):
    result = two({"t1": files["t1"]}, PROMPTS)
    assert result.warnings == ("answered without flair; the model's stand-in took its place",)
    assert result.manifest.warnings == result.warnings
    given, missing = result.manifest.run.channels
    assert (given.name, given.is_missing) == ("t1", False)
    assert (missing.name, missing.path, missing.sha256, missing.is_missing) == (
        "flair",
        None,
        None,
        True,
    )
    assert result.volume.channels == ("t1",)
    assert np.isfinite(result.volume.data).all()
    assert result["brainstem"].statistics["intensity_mean"] is not None


def test_several_missing_channels_are_one_sentence(tmp_path, files):
    made = tiny_segmenter(
        tiny_network(
            backbone=BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), in_channels=4),
            channels=("t1", "t1ce", "t2", "flair"),
        )
    )
    result = segmenter_of(tmp_path / "four", made)({"flair": files["flair"]}, "brainstem")
    told = "answered without t1, t1ce and t2; the model's stand-ins took their places"
    assert result.warnings == (told,)


def test_one_named_channel_is_just_the_scan_to_a_model_of_one(plain, files):
    named = plain({"flair": files["flair"]}, PROMPTS)
    assert_same(named, plain(files["flair"], PROMPTS, modality="mr"))
    (record,) = named.manifest.run.channels
    assert (record.name, record.sha256) == ("flair", sha256(files["flair"]))
    assert named.warnings == ()


def test_a_scan_without_a_name_is_the_channel_of_a_model_of_one_named(tmp_path, files):
    segmenter = segmenter_of(tmp_path / "one", network("flair"))
    named = segmenter({"flair": files["flair"]}, PROMPTS)
    assert_same(named, segmenter(files["flair"], PROMPTS, modality="mr"))


def refusal(segmenter, scan, **options):
    with pytest.raises(InputError) as caught:
        segmenter(scan, PROMPTS, **options)
    assert segmenter.network.windows == []
    return caught.value


def test_several_channels_are_too_many_for_a_model_of_one(plain, files):
    assert "not the channels flair, t1" in refusal(plain, files).cause


def test_a_scan_of_unknown_channel_is_refused_by_a_model_of_several(two, files):
    error = refusal(two, files["flair"])
    assert "the model takes the channels flair, t1" in error.cause
    assert "--channel flair=FILE" in error.remedy


def test_a_channel_the_model_does_not_take_is_refused_with_those_it_takes(two, files):
    error = refusal(two, {"flair": files["flair"], "adc": files["t1"]})
    assert error.cause == "the model takes the channels flair, t1, but not adc."


def test_no_channel_is_refused(two):
    assert refusal(two, {}).cause == "no channel is given."


def test_a_region_is_found_with_a_missing_channel_and_a_report(reader, files):
    scan = {"flair": files["flair"]}
    result = reader(scan, PROMPTS, report=REPORT, roi="auto")
    assert result.run.grids[0].roi
    assert result.run.channels[1].is_missing


def test_a_batch_may_be_of_channels(two, files):
    scans = [files, {"flair": files["flair"]}, {"adc": files["t1"]}]
    first, second, third = two.batch(scans, PROMPTS, on_error="record")
    assert first.segmentation.warnings == ()
    assert "without t1" in second.segmentation.warnings[0]
    assert isinstance(third.error, InputError)


# reports


def tokens_of(text):
    return make_report_encoder(WORDS).tokens(split_sentences(text))


def test_a_report_of_one_scan_is_none_of_a_batch(reader, files):
    with pytest.raises(PromptError, match="of one scan"):
        next(reader.batch([files, files], "liver", report=REPORT))


def test_every_window_is_read_with_the_report(reader, files):
    without = reader(files, PROMPTS)
    assert reader.network.reports == [None] * len(reader.network.reports)
    reader.network.reports.clear()
    told = reader(files, PROMPTS, report=REPORT)
    assert len(reader.network.reports) > 1
    for report in reader.network.reports:
        assert report.mask.all()
        assert torch.equal(report.tokens[0], tokens_of(REPORT))
    assert presences(told) != presences(without)
    assert presences(reader(files, PROMPTS, report=SWAPPED)) != presences(told)
    assert told.warnings == ()


def test_a_report_may_be_a_text_or_a_file_of_it(reader, files, tmp_path):
    path = tmp_path / "report.txt"
    path.write_text(REPORT + "\n", encoding="utf-8")
    text, file = reader(files, PROMPTS, report=REPORT), reader(files, PROMPTS, report=path)
    assert_same(text, file)
    assert text.manifest.run.report == file.manifest.run.report


def test_the_manifest_tells_one_report_from_another_and_keeps_no_word_of_it(reader, files):
    manifest = reader(files, PROMPTS, report=REPORT).manifest
    record = manifest.run.report
    assert record.sha256 == hashlib.sha256(REPORT.encode()).hexdigest()
    assert (record.given_as, record.is_read) == ("text", True)
    assert "temporal" not in manifest.model_dump_json()
    other = reader(files, PROMPTS, report=SWAPPED).manifest.run.report
    assert other.sha256 != record.sha256


def test_a_report_for_a_model_that_reads_none_is_a_warning(two, files):
    without, told = two(files, PROMPTS), two(files, PROMPTS, report=REPORT)
    assert_same(without, told)
    assert told.warnings == (
        "the model two does not read reports; the prompts were answered without it",
    )
    assert told.manifest.run.report.is_read is False


def test_a_report_that_is_missing_is_refused_before_the_work(two, files, tmp_path):
    assert refusal(two, files, report=tmp_path / "absent.txt").code == "E301"
    assert refusal(two, files, report=tmp_path / "absent.npy").code == "E301"
    assert refusal(two, files, report=" \n").code == "E304"


def test_features_stand_for_a_report_where_the_model_takes_them(tmp_path, files):
    made = network("flair", "t1", report=FUSION)
    features = ReportEncoderConfig(kind="features", features=12)
    given = segmenter_of(tmp_path / "features", made, report_encoder=features)
    path = tmp_path / "features.npy"
    np.save(path, tokens_of(REPORT).numpy()[None])
    result = given(files, PROMPTS, report=path)
    assert torch.equal(given.network.reports[0].tokens[0], tokens_of(REPORT))
    record = result.manifest.run.report
    assert (record.given_as, record.sha256) == ("features", sha256(path))
    given.network.windows.clear()
    assert "only features" in refusal(given, files, report=REPORT).cause
    np.save(path, np.zeros((1, 5, 7), np.float32))
    assert refusal(given, files, report=path).path == path


def test_a_model_that_reads_words_takes_no_features(reader, files, tmp_path):
    np.save(tmp_path / "features.npy", np.zeros((1, 5, 12), np.float32))
    error = refusal(reader, files, report=tmp_path / "features.npy")
    assert "takes reports as text" in error.cause


@pytest.mark.parametrize("described", [None, {"kind": "telepathy"}])
def test_a_manifest_that_does_not_say_how_reports_are_read_is_refused(reader, files, described):
    changed = reader.manifest.model_copy(update={"report_encoder": described})
    segmenter = Segmenter(
        reader.network, reader.encoder, changed, device="cpu", precision="float32"
    )
    with pytest.raises(ModelError, match="the manifest of reader"):
        segmenter(files, PROMPTS, report=REPORT)
    assert_same(segmenter(files, PROMPTS), reader(files, PROMPTS))


def test_the_mirror_image_is_read_with_the_sides_of_the_report_swapped(reader, files):
    model = LoadedModel(
        reader.network,
        reader.encoder,
        reader.manifest,
        reader.tree,
        device=reader.device,
        precision="float32",
        averaging="streamed",
        scout=lambda: pytest.fail("asked for"),
    )
    heard = ReportReader(reader.manifest, reader.device).encoded(GivenReport.of(REPORT))
    manner = Manner("off", 0.5, mirror=True, report=heard)
    model.segment(as_volume(files), HEAD, ("brainstem", "hippocampus.left"), manner)
    looks = [report.tokens[0] for report in reader.network.reports]
    half = len(looks) // 2
    assert half > 1
    assert all(torch.equal(look, tokens_of(REPORT)) for look in looks[:half])
    assert all(torch.equal(look, tokens_of(SWAPPED)) for look in looks[half:])


def test_features_have_no_mirror_image(reader, tmp_path):
    np.save(tmp_path / "features.npy", np.zeros((1, 5, 12), np.float32))
    given = GivenReport.of(tmp_path / "features.npy")
    heard = ReportReader(reader.manifest, reader.device).encoded(given)
    with pytest.raises(InputError, match="mirror"):
        _ = heard.mirrored
