"""Models on disk: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

import json
import stat

import pytest
import torch
from fakes import noise, tiny_encoder, tiny_network, tiny_segmenter, write_model
from pydantic import ValidationError

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.network.weights import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Domain,
    ModelManifest,
    find_model,
    list_models,
    load_encoder,
    load_model,
    load_weights,
    read_model_manifest,
)

TORSO = Domain(
    name="torso-ct",
    spacing_mm=(3.0, 3.0, 3.0),
    window=(16, 24, 32),
    modalities=("ct", "mr"),
    concepts=("liver", "spleen"),
)
HEAD = Domain(
    name="head-mr",
    spacing_mm=(1.5, 1.5, 1.5),
    window=(16, 16, 16),
    modalities=("mr",),
    concepts=("brainstem", "spleen"),
)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    write_model(tmp_path / "tiny", network=tiny_segmenter(), domains=[TORSO, HEAD])
    return tmp_path / "tiny"


@pytest.fixture(name="home")
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def rewrite(folder, **changes):
    path = folder / MANIFEST_FILE
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values))


def failure(call, *args):
    with pytest.raises(ModelError) as caught:
        call(*args)
    return caught.value


def test_a_model_comes_back_to_half_precision(folder):
    network, encoder, manifest = load_model(folder)
    assert not network.training
    assert not encoder.training
    assert manifest.version == "1.2.3"
    for found, written in ((network, tiny_segmenter()), (encoder, tiny_encoder())):
        pairs = zip(found.state_dict().items(), written.state_dict().items(), strict=True)
        for (name, now), (old_name, before) in pairs:
            assert name == old_name
            assert now.dtype == torch.float32
            torch.testing.assert_close(now, before, rtol=2**-11, atol=1e-7)  # float16 rounding


def test_a_model_that_came_back_gives_the_same_answer(folder):
    network, _, _ = load_model(folder)
    volume, queries = noise(1, 1, 8, 12, 16), noise(1, 2, network.config.query_features)
    with torch.no_grad():
        old = tiny_segmenter().decode(tiny_segmenter().encode(volume), queries)
        new = network.decode(network.encode(volume), queries)
    # weights differ by one part in two thousand
    torch.testing.assert_close(new.logits, old.logits, atol=2e-2, rtol=2e-2)


def test_whole_numbers_are_stored_as_they_are(tmp_path):
    pytest.importorskip("monai")
    config = tiny_network(
        backbone=BackboneConfig(kind="swin", channels=(4, 8, 16), blocks=(1, 1, 1))
    )
    network = tiny_segmenter(config)
    write_model(tmp_path / "swin", network=network)
    stored = load_weights(tmp_path / "swin").network
    whole = {n: t for n, t in network.state_dict().items() if not t.is_floating_point()}
    assert whole  # relative positions in the attention windows
    for name, tensor in whole.items():
        assert torch.equal(stored[name], tensor)
        assert stored[name].dtype == tensor.dtype


def test_both_files_can_be_read_by_everyone(folder):
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        mode = stat.S_IMODE((folder / name).stat().st_mode)
        assert mode & 0o444 == 0o444, f"{name} has mode {mode:o}"
    assert sorted(p.name for p in folder.iterdir()) == sorted([WEIGHTS_FILE, MANIFEST_FILE])


def test_supported_is_the_union_of_the_domains(folder):
    assert read_model_manifest(folder).supported == {"liver", "spleen", "brainstem"}


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_threshold": 0.0},
        {"presence_threshold": 1.5},
        {"format": 2},
        {"surprise": 1},
        {"domains": [{"name": "x"}]},
        {"domains": [TORSO.model_dump(mode="json") | {"modalities": ["xray"]}]},
    ],
    ids=str,
)
def test_a_manifest_with_wrong_values_is_refused(folder, changes):
    rewrite(folder, **changes)
    error = failure(load_model, folder)
    assert error.path == folder / MANIFEST_FILE
    assert next(iter(changes)) in error.cause
    with pytest.raises(ValidationError):
        ModelManifest.model_validate_json((folder / MANIFEST_FILE).read_text())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_a_manifest_that_is_no_json_is_refused(folder, content):
    (folder / MANIFEST_FILE).write_bytes(content)
    assert failure(load_model, folder).path == folder / MANIFEST_FILE


@pytest.mark.parametrize("part", ["network", "text_encoder"])
def test_a_configuration_this_version_does_not_know_is_refused(folder, part):
    rewrite(folder, **{part: {"wings": 2}})
    assert "wings" in failure(load_model, folder).cause


def test_weights_of_another_shape_are_refused(folder):
    rewrite(folder, network=tiny_network(full_channels=8).model_dump(mode="json"))
    error = failure(load_model, folder)
    assert error.code == "E402"
    assert "mask_heads" in error.cause


@pytest.mark.parametrize("place", [3, 200, -1], ids=["length", "header", "last weight"])
def test_one_flipped_bit_is_noticed(folder, place):
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[place] ^= 0b100
    (folder / WEIGHTS_FILE).write_bytes(content)
    error = failure(load_model, folder)
    assert error.code == "E402"
    assert error.path == folder / WEIGHTS_FILE
    assert error.remedy


@pytest.mark.parametrize("size", [0, 5, 400])
def test_a_torn_file_is_refused_even_without_the_checksum(folder, size):
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:size])
    with pytest.raises(ModelError) as caught:
        load_weights(folder, verify=False)
    assert caught.value.code == "E402"


def test_missing_weights_are_named(folder):
    (folder / WEIGHTS_FILE).unlink()
    error = failure(load_model, folder)
    assert error.code == "E402"
    assert error.path == folder / WEIGHTS_FILE


def test_an_unknown_model_is_answered_with_those_there_are(home):
    write_model(home / "models" / "mine", network=tiny_segmenter())
    error = failure(find_model, "theirs")
    assert error.code == "E401"
    assert "theirs" in error.cause
    assert error.remedy is not None
    assert "mine" in error.remedy


def test_models_in_the_users_folder_go_by_name(home):
    folder = home / "models" / "mine"
    write_model(folder, network=tiny_segmenter())
    (home / "models" / "not-a-model").mkdir()
    assert find_model("mine") == folder
    assert "mine" in list_models()
    assert "not-a-model" not in list_models()


def test_a_folder_goes_by_its_path(folder, home):
    assert find_model(folder) == find_model(str(folder)) == folder
    assert folder.name not in list_models()
    assert failure(find_model, folder.parent / "gone" / folder.name).code == "E401"


def test_a_text_encoder_alone_can_be_read_but_does_not_segment(tmp_path):
    write_model(tmp_path / "words")
    assert "cannot segment" in failure(load_model, tmp_path / "words").cause
    encoder = load_encoder(tmp_path / "words")
    close = encoder.encode(["liver"]) @ tiny_encoder().encode(["liver"]).T
    assert float(close) == pytest.approx(1, abs=1e-4)


def test_saving_over_a_model_replaces_it(folder):
    before = read_model_manifest(folder).sha256
    written = write_model(folder, network=tiny_segmenter(seed=1))
    assert written == read_model_manifest(folder)
    assert written.sha256 != before
    load_model(folder)
