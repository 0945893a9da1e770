"""Named channels: as many as the volume has, and a stand-in for one that a scan lacks."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_QUERY, noise, tiny_network, tiny_segmenter
from pydantic import ValidationError

from textseg.network.backbones import BackboneConfig
from textseg.network.model import NetworkConfig

NAMES = ("flair", "t1", "t1ce")
THREE = BackboneConfig(in_channels=3, channels=(4, 8, 8), blocks=(1, 1, 1))
SIZE = (4, 8, 12)


def three_channels():
    network = tiny_segmenter(tiny_network(backbone=THREE, channels=NAMES))
    with torch.no_grad():
        network.stand_ins.copy_(torch.tensor([0.5, -1.0, 2.0]))
    return network


def lacking(volume, *missing):
    """The volume without some channels, each (item, channel)."""
    volume = volume.clone()
    for item, channel in missing:
        volume[item, channel] = torch.nan
    return volume


def test_a_missing_channel_becomes_its_stand_in_and_the_others_stay():
    volume = noise(2, 3, *SIZE)
    filled = three_channels().with_stand_ins(lacking(volume, (0, 2), (1, 0), (1, 1)))
    expected = volume.clone()
    expected[0, 2], expected[1, 0], expected[1, 1] = 2.0, 0.5, -1.0
    assert torch.equal(filled, expected)


def test_a_channel_with_some_voxels_that_are_not_numbers_is_not_missing():
    volume = noise(1, 3, *SIZE)
    volume[0, 1, 0, 2, 3] = torch.nan
    filled = three_channels().with_stand_ins(volume)
    torch.testing.assert_close(filled, volume, rtol=0, atol=0, equal_nan=True)


def test_a_scan_that_lacks_no_channel_is_not_copied():
    volume = noise(2, 3, *SIZE)
    assert three_channels().with_stand_ins(volume) is volume


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layout_and_the_type_of_the_volume_stay(layout, dtype):
    volume = lacking(noise(2, 3, *SIZE), (0, 1)).to(dtype).contiguous(memory_format=layout)
    filled = three_channels().with_stand_ins(volume)
    assert filled.is_contiguous(memory_format=layout)
    assert filled.dtype == dtype


def test_a_network_without_names_leaves_volumes_as_they_are():
    volume = lacking(noise(1, 1, *SIZE), (0, 0))
    network = tiny_segmenter()
    assert network.with_stand_ins(volume) is volume
    assert "stand_ins" not in network.state_dict()


def test_stand_ins_of_missing_channels_get_gradients():
    network = three_channels()
    volume = network.with_stand_ins(lacking(noise(2, 3, *SIZE), (0, 2), (1, 0)))
    decoded = network.decode(network.encode(volume), noise(2, 2, TINY_QUERY, seed=1))
    decoded.logits.square().sum().backward()
    assert network.stand_ins.grad[0] != 0
    assert network.stand_ins.grad[1] == 0  # it was there in both
    assert network.stand_ins.grad[2] != 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_a_scan_without_a_channel_is_answered_as_one_that_shows_its_stand_in():
    network, queries = three_channels(), noise(1, 2, TINY_QUERY, seed=1)
    volume = noise(1, 3, *SIZE)
    shown = volume.clone()
    shown[0, 1] = -1.0
    scans = lacking(volume, (0, 1)), shown, volume
    with torch.no_grad():
        without, stood_in, whole = (
            network.decode(network.encode(network.with_stand_ins(scan)), queries).logits
            for scan in scans
        )
    assert torch.equal(without, stood_in)
    assert not torch.allclose(without, whole, atol=1e-4)


def test_the_volume_may_be_the_first_stage():
    backbone = BackboneConfig(in_channels=3, channels=(3, 8, 8), blocks=(0, 1, 1))
    network = tiny_segmenter(tiny_network(backbone=backbone, channels=NAMES))
    with torch.no_grad():
        features = network.encode(noise(1, 3, *SIZE))
    assert features.maps[0].shape == (1, 3, *SIZE)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (("flair", "t1"), "names 2, but backbone.in_channels is 3"),
        (("flair", "t1", "t1"), "must be different names"),
        (("flair", "", "t1"), "none of them empty"),
    ],
)
def test_names_must_fit_the_volume(names, complaint):
    with pytest.raises(ValidationError, match=complaint):
        NetworkConfig(backbone=THREE, channels=names)


def test_a_configuration_survives_its_manifest():
    config = NetworkConfig(backbone=THREE, channels=NAMES)
    assert NetworkConfig.model_validate(config.model_dump(mode="json")) == config
