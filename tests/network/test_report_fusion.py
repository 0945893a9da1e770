"""Reports refine maps: nothing without one, nothing through shut gates, and no padding heard."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from fakes import TINY_QUERY, noise, seeded, tiny_network, tiny_segmenter
from pydantic import ValidationError
from torch.nn import functional

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.network.model import NetworkConfig
from textseg.network.report_fusion import ReportConfig, ReportFusion
from textseg.network.report_fusion_gated import MOST_IMAGE_TOKENS, GatedFusion
from textseg.network.report_fusion_parts import opening
from textseg.network.report_fusion_sequential import SequentialFusion
from textseg.network.report_fusion_strip import StripFusion
from textseg.network.report_tokens import ReportTokens

SIZE = (8, 12, 16)
TOKEN = 10
DEEP = BackboneConfig(channels=(4, 6, 8, 12), blocks=(1, 1, 1, 1))
BACKBONES = {
    "unet": BackboneConfig(channels=(4, 8, 8), blocks=(1, 1, 1)),
    "volume as first stage": BackboneConfig(channels=(1, 8, 8), blocks=(0, 1, 1)),
    "swin": BackboneConfig(kind="swin", channels=(4, 8, 16), blocks=(1, 1, 1)),
}
GATED = ("gated", "strip")
# float32 sums over a report or a map whose order depends on the padding
SAME = {"atol": 1e-6, "rtol": 1e-5}


def reading(fusion="gated", **changes):
    """A small fusion; both levels of a backbone of three stages unless it is sequential."""
    if fusion == "sequential":
        return ReportConfig(fusion=fusion, token_features=TOKEN, **({"size": (2, 3, 4)} | changes))
    small = {"levels": (0, 1), "width": 12, "heads": 2, "hidden": 14, "context_layers": 1}
    return ReportConfig(fusion=fusion, token_features=TOKEN, **(small | changes))


def reader(fusion="gated", *, opened=True, backbone="unet", prompts="late", **changes):
    """A network that reads reports, with gates ajar unless they are to be as they begin."""
    config = tiny_network(prompts, backbone=BACKBONES[backbone], report=reading(fusion, **changes))
    network = tiny_segmenter(config)
    if opened:
        open_gates(network)
    return network


def gates(network):
    """What a new fusion has shut: gates, and the weights of what the report alone says."""
    named = network.named_parameters()
    return {n: p for n, p in named if n.endswith("gate") or ".prior.weights" in n}


def open_gates(network):
    for number, gate in enumerate(gates(network).values()):
        gate.data = 0.05 + 0.05 * noise(*gate.shape, seed=number)


def reports(*lengths, seed=7):
    return ReportTokens.of([noise(n, TOKEN, seed=seed + n) for n in lengths])


def answers(network, volume, report=None):
    queries = noise(1, 3, TINY_QUERY, seed=3).expand(len(volume), -1, -1)
    with torch.no_grad():
        return network.decode(network.encode(volume, report), queries)


def needs_monai(backbone):
    if backbone == "swin" and importlib.util.find_spec("monai") is None:
        pytest.skip('the Swin backbone needs MONAI: pip install "textseg[train]"')


def same(one, other):
    return torch.equal(one.logits, other.logits) and torch.equal(one.presence, other.presence)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("prompts", ["late", "multiscale"])
@pytest.mark.parametrize("fusion", GATED)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_gates_shut_a_report_changes_no_bit(backbone, fusion, prompts, half):
    needs_monai(backbone)
    network = reader(fusion, opened=False, backbone=backbone, prompts=prompts)
    plain = tiny_segmenter(tiny_network(prompts, backbone=BACKBONES[backbone]))
    missing, extra = plain.load_state_dict(network.state_dict(), strict=False)
    assert missing == []
    assert all(name.startswith("report_fusion.") for name in extra)
    volume = noise(2, 1, *SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        without = answers(plain, volume)
        assert same(answers(network, volume, reports(5, 2)), without)
        open_gates(network)
        assert not same(answers(network, volume, reports(5, 2)), without)


@pytest.mark.parametrize("prompts", ["late", "multiscale"])
@pytest.mark.parametrize("fusion", [*GATED, "sequential"])
def test_a_scan_without_a_token_is_answered_as_without_a_report(fusion, prompts):
    network = reader(fusion, prompts=prompts)
    volume = noise(2, 1, *SIZE)
    without, some = answers(network, volume), answers(network, volume, reports(0, 4))
    assert torch.equal(some.logits[0], without.logits[0])
    assert torch.equal(some.presence[0], without.presence[0])
    assert not torch.allclose(some.logits[1], without.logits[1], atol=1e-4)
    assert same(answers(network, volume, reports(0, 0)), without)
    hidden = reports(3, 4)._replace(mask=torch.zeros(2, 4, dtype=torch.bool))
    assert same(answers(network, volume, hidden), without)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("fusion", [*GATED, "sequential"])
def test_the_layout_and_the_type_of_a_map_stay(fusion, layout):
    block = seeded(lambda: ReportFusion(reading(fusion, levels=(0,)), [5]))
    for dtype in (torch.float32, torch.bfloat16):
        image = noise(2, 5, 2, 3, 4).to(dtype).contiguous(memory_format=layout)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            refined = block.refinements(block.read(reports(3, 0)))[0](image)
        assert refined.dtype == dtype
        assert refined.shape == image.shape
        assert refined.stride() == image.stride() or fusion == "sequential"
        assert torch.equal(refined[1], image[1])


@pytest.mark.parametrize("garbage", [0.0, 1e9, torch.inf, torch.nan])
@pytest.mark.parametrize("fusion", GATED)
def test_what_the_padding_holds_and_how_much_there_is_changes_nothing(fusion, garbage):
    network, volume, report = reader(fusion), noise(2, 1, *SIZE), reports(4, 2)
    filling = torch.full((2, 9, TOKEN), garbage)
    tokens, mask = filling.clone(), torch.zeros(2, 9, dtype=torch.bool)
    for item, length in enumerate((4, 2)):
        tokens[item, :length], mask[item, :length] = report.tokens[item, :length], True
    padded = answers(network, volume, ReportTokens(tokens, mask))
    torch.testing.assert_close(padded.logits, answers(network, volume, report).logits, **SAME)
    assert torch.isfinite(padded.logits).all()


@pytest.mark.parametrize("fusion", GATED)
def test_gradients_are_finite_whatever_the_padding_holds(fusion):
    network = reader(fusion)
    tokens, mask = reports(4, 0)
    report = ReportTokens(torch.where(mask[..., None], tokens, torch.nan), mask)
    features = network.encode(noise(2, 1, *SIZE), report)
    network.decode(features, noise(2, 1, TINY_QUERY)).logits.square().sum().backward()
    found = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in found)


@pytest.mark.parametrize("prompts", ["late", "multiscale"])
@pytest.mark.parametrize("fusion", GATED)
def test_reports_of_a_batch_do_not_touch_one_another(fusion, prompts):
    network, volume, report = reader(fusion, prompts=prompts), noise(2, 1, *SIZE), reports(6, 3)
    both = answers(network, volume, report).logits
    for item, length in enumerate((6, 3)):
        own = ReportTokens(*(part[item : item + 1, :length] for part in report))
        alone = answers(network, volume[item : item + 1], own).logits
        torch.testing.assert_close(both[item : item + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", [*GATED, "sequential"])
def test_another_report_gives_another_answer(fusion):
    network, volume = reader(fusion), noise(1, 1, *SIZE)
    one, other = (answers(network, volume, reports(4, seed=s)).logits for s in (1, 40))
    assert not torch.allclose(one, other, atol=1e-5)


def test_the_order_of_words_matters():
    network, volume, report = reader(), noise(1, 1, *SIZE), reports(4)
    turned = ReportTokens(report.tokens.flip(1), report.mask)
    one, other = answers(network, volume, report), answers(network, volume, turned)
    assert not torch.allclose(one.logits, other.logits, atol=1e-5)


def test_the_same_words_say_different_things_to_different_places():
    fusion = seeded(lambda: ReportFusion(reading(levels=(0,)), [8]))
    open_gates(fusion)
    alike = noise(8, seed=2)[None, :, None, None, None].expand(1, 8, 3, 1, 5)
    with torch.no_grad():
        refined = fusion.refinements(fusion.read(reports(3)))[0](alike)[0].flatten(1).T
    assert (torch.cdist(refined, refined) + torch.eye(15)).min() > 1e-3


@pytest.mark.parametrize("size", [(4, 4, 4), (8, 20, 4), (16, 12, 4)])
@pytest.mark.parametrize("fusion", GATED)
def test_any_window_does(fusion, size):
    network = reader(fusion)
    decoded = answers(network, noise(1, 1, *size), reports(3))
    assert decoded.logits.shape == (1, 3, *size)
    assert torch.isfinite(decoded.logits).all()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_map_of_the_asked_level_is_refined_and_what_climbs_from_it(level):
    report = reading(levels=(level,))
    network = tiny_segmenter(tiny_network(backbone=DEEP, report=report))
    open_gates(network)
    with torch.no_grad():
        volume = noise(1, 1, 8, 16, 8)
        plain, told = network.encode(volume), network.encode(volume, reports(4))
    for before, after in zip(plain.maps[:-1], told.maps[:-1], strict=True):
        assert torch.equal(before, after)
    coarse_first = [(f.maps[-1], *reversed(f.decoded), f.finest) for f in (plain, told)]
    changed = [not torch.equal(a, b) for a, b in zip(*coarse_first, strict=True)]
    assert changed == [k >= level for k in range(4)]
    assert torch.equal(plain.tokens, told.tokens) == (level > 0)


def test_a_large_map_is_pooled_before_the_text_reads_it():
    block = seeded(lambda: GatedFusion(3, 6, layers=1, heads=1, hidden=4))
    open_gates(block)
    read = []
    block.layers[0].text_reads.register_forward_pre_hook(lambda _, given: read.append(given[1]))
    text = ReportTokens(noise(1, 2, 6), torch.ones(1, 2, dtype=torch.bool))
    with torch.no_grad():
        for size in ((16, 16, 16), (17, 16, 16), (90, 50, 1)):
            assert torch.isfinite(block(noise(1, 3, *size), text)).all()
    assert [tokens.shape[1] for tokens in read] == [MOST_IMAGE_TOKENS, 9 * 8 * 8, 45 * 25]
    seen = block.layers[0].see(noise(1, 3, 90, 50, 1).flatten(2).mT, (90, 50, 1))
    by_hand = seen.view(1, 45, 2, 25, 2, 6).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(read[-1], by_hand, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", GATED)
def test_shut_gates_learn_at_once_and_everything_behind_them_next(fusion):
    network = reader(fusion, opened=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    first = gradients(network)
    shut = {n for n in gates(network) if not gates(network)[n].any()}
    assert len(shut) == {"gated": 2 * 2 * 2 + 2, "strip": 2}[fusion]
    behind = {n for n in first if n.startswith("report_fusion.")} - shut
    assert all(first[name].all() for name in shut)
    assert not any(first[name].any() for name in behind)
    optimiser.step()
    second = gradients(network)
    assert [n for n in behind if not second[n].any()] == []


def gradients(network):
    network.zero_grad()
    features = network.encode(noise(2, 1, *SIZE), reports(5, 3))
    logits = network.decode(features, noise(2, 2, TINY_QUERY, seed=3)).logits
    (logits * noise(*logits.shape, seed=4)).sum().backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def test_gradient_reaches_every_weight_of_the_sequential_fusion():
    found = gradients(reader("sequential"))
    ours = {n: g for n, g in found.items() if n.startswith("report_fusion.")}
    assert len(ours) == 10
    assert all(gradient.any() for gradient in ours.values())


def test_weights_take_part_in_a_step_without_any_report():
    network = reader(opened=False)
    features = network.encode(noise(2, 1, *SIZE), reports(0, 0))
    network.decode(features, noise(2, 2, TINY_QUERY)).logits.sum().backward()
    ours = [p.grad for n, p in network.named_parameters() if n.startswith("report_fusion.")]
    assert all(gradient is not None and not gradient.any() for gradient in ours)


def test_sequential_fusion_is_the_published_sum():
    channels, size = 6, (2, 3, 4)
    block = seeded(lambda: SequentialFusion(channels, TOKEN, size=size))
    for number, weight in enumerate(block.parameters()):
        weight.data = weight.data + 0.1 * noise(*weight.shape, seed=number)
    image, tokens = noise(2, channels, *size, seed=1), noise(2, 5, TOKEN, seed=2)
    weights = dict(block.state_dict())
    assert weights["text.0.weight"].shape == (1024, TOKEN)
    hidden = torch.einsum("btf,hf->bth", tokens, weights["text.0.weight"]) + weights["text.0.bias"]
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    text = torch.einsum("bth,ch->btc", hidden, weights["text.2.weight"]) + weights["text.2.bias"]
    pixels = image.flatten(2)  # B C N
    first = torch.exp(torch.einsum("btc,bcn->btn", text, pixels) / channels**0.5)
    informed = torch.einsum("btn,bcn->btc", first / first.sum(2, keepdim=True), pixels)
    second = torch.exp(torch.einsum("bcn,btc->bnt", pixels, informed) / channels**0.5)
    replaced = torch.einsum("bnt,btc->bcn", second / second.sum(2, keepdim=True), informed)

    def spatial_norm(x, name):
        x = x.view(2, channels, -1)
        spread = x - x.mean(2, keepdim=True)
        spread = spread / (spread.square().mean(2, keepdim=True) + 1e-5).sqrt()
        weight, bias = (weights[f"{name}.{part}"].flatten() for part in ("weight", "bias"))
        return (spread * weight + bias).view(2, channels, *size)

    around = functional.pad(spatial_norm(replaced, "norm"), (1,) * 6)
    patches = around.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    convolved = torch.einsum("bcxyzijk,ocijk->boxyz", patches, weights["convolution.weight"])
    convolved = convolved + weights["convolution.bias"][:, None, None, None]
    expected = spatial_norm(convolved.clamp(min=0), "end_norm")
    with torch.no_grad():
        found = block(image, ReportTokens(tokens, torch.ones(2, 5, dtype=torch.bool)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_padding_takes_part_in_sequential_fusion_as_zeros():
    network, volume, report = reader("sequential"), noise(1, 1, *SIZE), reports(3)
    hidden = ReportTokens(
        torch.cat([report.tokens, torch.full((1, 2, TOKEN), torch.nan)], dim=1),
        torch.tensor([[True, True, True, False, False]]),
    )
    shown = ReportTokens(hidden.tokens.nan_to_num(), torch.ones(1, 5, dtype=torch.bool))
    assert same(answers(network, volume, hidden), answers(network, volume, shown))
    assert not same(answers(network, volume, hidden), answers(network, volume, report))


def test_sequential_fusion_takes_one_window_alone():
    with pytest.raises(ModelError, match=r"map of \(2, 3, 4\) voxels, and the window gives \(2, 3"):
        answers(reader("sequential"), noise(1, 1, 8, 12, 8), reports(3))


def test_strips_are_three_thin_kernels_in_turn_and_the_gate_multiplies():
    block = seeded(lambda: StripFusion(2, 6, heads=1))
    open_gates(block)
    image = noise(1, 2, 4, 5, 9)
    text = ReportTokens(noise(1, 3, 6, seed=1), torch.ones(1, 3, dtype=torch.bool))
    with torch.no_grad():
        branches = block.local(image) + block._heard(image, text)
        for strip in block.strips:
            kernels = [part.weight for part in strip]
            longest = [max(kernel.shape[2:]) for kernel in kernels]
            assert [kernel.numel() for kernel in kernels] == [2 * length for length in longest]
            # without biases between them, three in turn are one wide kernel: their product
            wide = torch.einsum("cx,cy,cz->cxyz", *(kernel.flatten(1) for kernel in kernels))
            for part in strip:
                part.bias.zero_()
            by_hand = functional.conv3d(
                block.local(image), wide[:, None], padding=longest[0] // 2, groups=2
            )
            torch.testing.assert_close(strip(block.local(image)), by_hand, atol=1e-5, rtol=1e-4)
            branches = branches + by_hand
        mixed = torch.einsum("oc,bcxyz->boxyz", block.mix.weight.flatten(1), branches)
        mixed = mixed + block.mix.bias[:, None, None, None]
        expected = image * (1 + opening(block.gate)[:, None, None, None] * mixed)
        torch.testing.assert_close(block(image, text), expected, atol=1e-5, rtol=1e-4)
    assert [strip[0].weight.shape[2] for strip in block.strips] == [7, 11, 21]


def test_the_memory_a_report_takes_is_said():
    plain = tiny_segmenter(tiny_network()).activations_per_voxel
    coarse = reader("strip", levels=(0,), width=12)
    assert coarse.activations_per_voxel == plain  # the finest map takes more
    wide = reader(levels=(1,), width=96, hidden=192)
    held = 3 * 8 + 5 * 96 + 192
    finest = tiny_segmenter(tiny_network()).pixel_decoder.held
    assert wide.activations_per_voxel - plain == pytest.approx(held / 2**3 - finest, abs=1)


def test_a_report_for_another_network_is_refused():
    volume = noise(1, 1, *SIZE)
    with pytest.raises(ModelError, match="reads no reports"):
        tiny_segmenter().encode(volume, reports(3))
    with pytest.raises(ModelError, match="2 reports were given for 1 scans"):
        reader().encode(volume, reports(3, 4))
    with pytest.raises(ModelError, match="tokens are 7 long, and the network takes 10"):
        reader().encode(volume, ReportTokens.of([noise(3, 7)]))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"levels": ()}, "must be different numbers"),
        ({"levels": (0, 0)}, "must be different numbers"),
        ({"levels": (-1,)}, "must be different numbers"),
        ({"width": 10, "heads": 4}, "multiple of 4 heads"),
        ({"width": 4, "heads": 4}, "from 6"),
        ({"size": (3, 3, 3)}, "is for sequential fusion"),
        ({"fusion": "sequential"}, "needs the size"),
        ({"fusion": "sequential", "size": (3, 3, 3), "levels": (0, 1)}, "level 0 alone"),
    ],
)
def test_settings_that_disagree_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ReportConfig(token_features=TOKEN, **changes)


def test_a_level_must_exist():
    with pytest.raises(ValidationError, match="from 0, the bottleneck, to 1, half resolution"):
        tiny_network(report=reading(levels=(2,)))


def test_a_configuration_survives_its_manifest():
    config = tiny_network(report=reading("sequential"))
    assert NetworkConfig.model_validate(config.model_dump(mode="json")) == config
