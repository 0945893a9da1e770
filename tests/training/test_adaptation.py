"""Fine-tuning: what is frozen stays, low-rank updates start at nothing and can be merged."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_QUERY, noise, seeded, tiny_network, tiny_segmenter
from jsonargparse import ArgumentParser
from torch import nn

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.network.layers import channels_last
from textseg.network.masks import mask_logits
from textseg.network.model import PromptedSegmenter
from textseg.training.adaptation import PARTS, AdaptationConfig, adapt, merged_state

FUSIONS = pytest.mark.parametrize("fusion", ["late", "multiscale"])
VOLUME = noise(2, 1, 8, 12, 4).contiguous(memory_format=torch.channels_last_3d)
QUERIES = noise(2, 3, TINY_QUERY, seed=3)
LORA = AdaptationConfig(
    train=["heads"],
    lora_rank=3,
    lora_alpha=6.0,
    lora_on=["backbone", "pixel_decoder", "query_decoder"],
)


def adapted(config=LORA, *, fusion="late", trained=False):
    network = channels_last(tiny_segmenter(tiny_network(fusion)))
    seeded(lambda: adapt(network, config))
    if trained:
        optimiser = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr=5e-3)
        for _ in range(4):
            optimiser.zero_grad()
            loss(network).backward()
            optimiser.step()
    return network


def ordinary(*, fusion="late", state=None):
    """A network as published: torch multiplies in another order where a weight has gradients."""
    network = channels_last(tiny_segmenter(tiny_network(fusion))).requires_grad_(False)
    if state is not None:
        network.load_state_dict(state)
    return network


def answers(network):
    with torch.no_grad():
        return network.decode(network.encode(VOLUME), QUERIES)


def loss(network):
    """Squared distance of every answer to one, at half resolution too where that is trained."""
    features = network.encode(VOLUME)
    refined = network.refine(features, QUERIES)
    logits = [network.masks(features, refined), network.presence(features, refined)]
    if network.config.fusion == "late":
        logits.append(mask_logits(features.decoded[0], network.mask_vectors(refined, level=1)))
    return torch.stack([(answer - 1).square().mean() for answer in logits]).sum()


def trainable(network):
    return {name for name, p in network.named_parameters() if p.requires_grad}


def assert_same_answers(found, expected, *, tolerance=0.0):
    for one, other in zip(answers(found), answers(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@FUSIONS
def test_every_member_of_the_network_belongs_to_one_part(fusion):
    network = PromptedSegmenter(tiny_network(fusion))
    members = {name.partition(".")[0] for name, _ in network.named_parameters()}
    members |= {name for name, _ in network.named_children()}
    listed = [member for part in PARTS.values() for member in part]
    assert len(listed) == len(set(listed))
    assert members <= set(listed)


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_no_normalisation_keeps_statistics_that_a_frozen_part_would_go_on_gathering(norm):
    backbone = BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1), norm=norm)
    network = PromptedSegmenter(tiny_network(backbone=backbone, norm=norm))
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    network.train()
    network.decode(network.encode(VOLUME), QUERIES)
    assert set(before) == {"query_mean", "query_whitening"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_buffers())


def test_without_settings_everything_is_trained():
    network = adapted(AdaptationConfig())
    plain = tiny_segmenter()
    assert trainable(network) == {name for name, _ in plain.named_parameters()}
    assert list(network.state_dict()) == list(plain.state_dict())


def test_only_the_parts_that_are_named_are_trained():
    names = trainable(adapted(AdaptationConfig(train=["query_decoder", "heads"])))
    assert {"query_projection.weight", "token_pool.project.0.bias", "evidence"} <= names
    assert not [name for name in names if name.startswith(("backbone.", "pixel_decoder."))]


@FUSIONS
@pytest.mark.parametrize("config", [LORA, AdaptationConfig(lora_rank=2, train=[], lora_on=["all"])])
def test_an_adapted_network_starts_exactly_where_it_was(config, fusion):
    network, plain = adapted(config, fusion=fusion), ordinary(fusion=fusion)
    assert_same_answers(network, plain)
    merged = merged_state(network)
    assert all(torch.equal(tensor, merged[n]) for n, tensor in plain.state_dict().items())


@FUSIONS
def test_an_update_has_rank_times_rows_plus_columns_weights(fusion):
    plain = tiny_segmenter(tiny_network(fusion))
    expected = 0
    for name, tensor in plain.named_parameters():
        if name.partition(".")[0] in PARTS["heads"]:
            expected += tensor.numel()
        elif tensor.ndim > 1:  # every matrix and kernel: biases and norms are vectors
            expected += 3 * (tensor.shape[0] + tensor[0].numel())
    parameters = adapted(fusion=fusion).parameters()
    assert sum(p.numel() for p in parameters if p.requires_grad) == expected


@FUSIONS
def test_training_moves_what_is_trained_and_nothing_else(fusion):
    before = adapted(fusion=fusion).state_dict()
    network = adapted(fusion=fusion, trained=True)
    after = network.state_dict()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    moved = {n for n in before if n.endswith(".up") or n.split(".")[0] in PARTS["heads"]}
    held = {n for n in before if not n.endswith((".up", ".down"))} - moved
    assert not [name for name in held if not torch.equal(before[name], after[name])]
    assert not [name for name in moved if torch.equal(before[name], after[name])]
    assert {"backbone.stages.0.0.0.parametrizations.weight.original", "query_mean"} <= held


@FUSIONS
def test_the_merged_state_is_an_ordinary_network_with_the_same_answers(fusion):
    network = adapted(fusion=fusion, trained=True)
    before = answers(network)
    plain = ordinary(fusion=fusion, state=merged_state(network))
    for found, expected in zip(answers(plain), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (before.logits - answers(ordinary(fusion=fusion)).logits).abs().max() > 1e-2
    assert_same_answers(network, plain, tolerance=1e-5)  # merging left the network as it was


def test_the_merged_state_of_an_ordinary_network_is_its_state():
    network = tiny_segmenter()
    merged = merged_state(network)
    assert set(merged) == set(network.state_dict())
    assert all(torch.equal(tensor, merged[n]) for n, tensor in network.state_dict().items())


def test_a_convolution_is_updated_by_a_narrow_one_and_one_of_size_one():
    network = adapted(trained=True)
    block = network.pixel_decoder.stages[0].blocks[0]
    convolution, features = block[0], noise(1, block[0].in_channels, 5, 7, 3)
    update = convolution.parametrizations.weight[0]
    kernel = convolution.parametrizations.weight.original
    narrow = update.down.unflatten(1, kernel.shape[1:])
    mixed = nn.functional.conv3d(features, narrow, padding=1)
    change = nn.functional.conv3d(mixed, update.up[:, :, None, None, None])
    before = nn.functional.conv3d(features, kernel, convolution.bias, padding=1)
    expected = before + 6.0 / 3 * change
    torch.testing.assert_close(convolution(features), expected, rtol=0, atol=1e-5)
    assert change.abs().max() > 1e-4


def test_the_updated_kernels_stay_laid_out_for_fast_convolutions():
    for network in (adapted(), channels_last(adapted(trained=True))):
        kernel = network.pixel_decoder.stages[0].blocks[0][0].weight
        assert kernel.is_contiguous(memory_format=torch.channels_last_3d)
        assert not kernel.is_contiguous()


@FUSIONS
def test_training_in_mixed_precision_uses_exact_updates(fusion):
    network = adapted(fusion=fusion, trained=True)
    plain = ordinary(fusion=fusion, state=merged_state(network))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same_answers(network, plain)
        network.zero_grad()
        loss(network).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.dtype == torch.float32, name
            assert torch.isfinite(parameter.grad).all(), name


@FUSIONS
def test_a_run_goes_on_from_the_checkpoint_of_an_adapted_network(tmp_path, fusion):
    network = adapted(fusion=fusion, trained=True)
    torch.save(network.state_dict(), tmp_path / "adapted.pt")
    fresh = adapted(fusion=fusion)
    fresh.load_state_dict(torch.load(tmp_path / "adapted.pt", weights_only=True))
    assert trainable(fresh) == trainable(network)
    assert_same_answers(fresh, network)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"train": ["decoder", "heads"]}, "no part 'decoder'"),
        ({"train": [], "lora_rank": 2, "lora_on": ["neck"]}, "no part 'neck'"),
        ({"train": []}, "nothing would be trained"),
        ({"lora_rank": 4}, r"`lora_rank` 4 does not go with `lora_on` \[\]"),
        ({"train": ["heads"], "lora_on": ["backbone"]}, "`lora_rank` 0 does not go"),
        ({"lora_rank": -1}, "`lora_rank` -1"),
        ({"lora_rank": 4, "lora_on": ["backbone"]}, "backbone cannot be in both"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, fault):
    with pytest.raises(ModelError, match=fault) as caught:
        AdaptationConfig(**settings)
    assert "The parts are backbone, report, pixel_decoder, query_decoder, heads." in str(
        caught.value
    )


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_the_settings_can_be_given_on_the_command_line():
    parser = ArgumentParser()
    parser.add_argument("--adaptation", type=AdaptationConfig | None, default=None)
    words = ["train=[heads]", "lora_rank=4", "lora_alpha=8", "lora_on=[backbone,query_decoder]"]
    parsed = parser.parse_args([f"--adaptation.{word}" for word in words])
    given = parser.instantiate_classes(parsed).adaptation
    assert given == AdaptationConfig(["heads"], 4, 8.0, ["backbone", "query_decoder"])
