"""Every backbone keeps the same promise: a pyramid, fine to coarse, at the strides it names."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from fakes import noise, seeded
from pydantic import ValidationError

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig, make_backbone

CONFIGS = {
    "unet": BackboneConfig(kind="unet", channels=(4, 8, 12), blocks=(1, 2, 1)),
    "unet instance norm": BackboneConfig(
        kind="unet", channels=(4, 8, 12), blocks=(2, 1, 1), norm="instance", in_channels=2
    ),
    "unet without a first stage": BackboneConfig(
        kind="unet", channels=(2, 6, 8), blocks=(0, 1, 2), in_channels=2
    ),
    "residual_unet": BackboneConfig(kind="residual_unet", channels=(4, 8, 8), blocks=(1, 1, 2)),
    "swin": BackboneConfig(kind="swin", channels=(4, 8, 16, 32), blocks=(1, 1, 2, 1)),
    "swin, all stages": BackboneConfig(
        kind="swin", channels=(2, 4, 8, 16, 32, 64), blocks=(1,) * 6
    ),
}


@pytest.fixture(params=CONFIGS, name="config")
def _config(request):
    if "swin" in request.param and importlib.util.find_spec("monai") is None:
        pytest.skip('the Swin backbone needs MONAI: pip install "textseg[train]"')
    return CONFIGS[request.param]


@pytest.fixture(name="backbone")
def _backbone(config):
    return seeded(lambda: make_backbone(config))


def volume(config, factors=(2, 3, 4), seed=0):
    granularity = 2 ** (len(config.channels) - 1)
    shrunk = (1, 2, 1) if granularity > 8 else factors
    return noise(1, config.in_channels, *(f * granularity for f in shrunk), seed=seed)


def test_maps_have_the_promised_channels_and_strides(backbone, config):
    image = volume(config)
    maps = backbone(image)
    assert [m.shape[1] for m in maps] == list(backbone.channels) == list(config.channels)
    for features, stride in zip(maps, backbone.strides, strict=True):
        assert list(features.shape[2:]) == [size // stride for size in image.shape[2:]]
        assert torch.isfinite(features).all()


def test_strides_start_at_one_and_double(backbone):
    assert list(backbone.strides) == [2**level for level in range(len(backbone.channels))]


def test_gradient_reaches_every_parameter(backbone, config):
    maps = backbone(volume(config))
    # a fixed random direction: normalised maps have constant sums and sums of squares
    learned = [m for m in maps if m.requires_grad]
    sum((m * noise(*m.shape, seed=k)).sum() for k, m in enumerate(learned)).backward()
    dead = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_memory_layout_does_not_matter(backbone, config):
    image = volume(config)
    expected = backbone(image)
    backbone.to(memory_format=torch.channels_last_3d)
    found = backbone(image.contiguous(memory_format=torch.channels_last_3d))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)  # float32 sums in another order


def test_a_volume_gives_the_same_maps_alone_and_in_a_batch(backbone, config):
    pair = torch.cat([volume(config, seed=1), volume(config, seed=2)])
    backbone.eval()
    together = backbone(pair)
    alone = backbone(pair[1:])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:], b, atol=1e-4, rtol=1e-3)


def test_swin_widths_that_do_not_double_are_refused():
    with pytest.raises(ModelError, match="double"):
        make_backbone(BackboneConfig(kind="swin", channels=(4, 8, 12), blocks=(1, 1, 1)))


def test_more_swin_stages_than_there_are_is_refused():
    widths = (2, 4, 8, 16, 32, 64, 128)
    with pytest.raises(ModelError, match="three to six"):
        make_backbone(BackboneConfig(kind="swin", channels=widths, blocks=(1,) * 7))


@pytest.mark.parametrize("blocks", [(1, 1), (1, 1, 1, 1)])
def test_every_stage_needs_a_block_count(blocks):
    with pytest.raises(ValidationError, match="one length"):
        BackboneConfig(channels=(4, 8, 8), blocks=blocks)


def test_a_first_stage_without_blocks_passes_on_the_channels_of_the_volume():
    with pytest.raises(ValidationError, match="passes on the 1 channels"):
        BackboneConfig(channels=(4, 8, 8), blocks=(0, 1, 1))
    maps = make_backbone(BackboneConfig(channels=(1, 8, 8), blocks=(0, 1, 1)))(
        image := noise(1, 1, 8, 4, 12)
    )
    assert maps[0] is image
