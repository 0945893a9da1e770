"""The prompted network: one encoding, any prompts, each answered by itself."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_QUERY, noise, tiny_encoder, tiny_network, tiny_segmenter

from textseg.errors import ModelError
from textseg.knowledge import load_tree
from textseg.network.backbones import BackboneConfig
from textseg.network.layers import channels_last, round_weights, sine_position_code
from textseg.network.masks import mask_logits
from textseg.network.queries import build_queries

SIZE = (16, 24, 32)
CONFIGS = {
    "late": tiny_network("late"),
    "late, heavy last stage": tiny_network(
        "late", light_full_resolution=False, decoder_blocks=2, norm="instance", least_channels=11
    ),
    "late, the volume as first stage": tiny_network(
        "late",
        backbone=BackboneConfig(channels=(1, 8, 8), blocks=(0, 1, 1)),
        text_shortcut=False,
        whiten_queries=False,
    ),
    "multiscale": tiny_network("multiscale"),
    "multiscale, four stages": tiny_network(
        "multiscale",
        backbone=BackboneConfig(kind="residual_unet", channels=(4, 6, 8, 8), blocks=(1, 1, 1, 1)),
        light_full_resolution=False,
    ),
}
# float32 sums over a few hundred terms whose order depends on the batch
SAME = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(params=CONFIGS, name="network")
def _network(request):
    return tiny_segmenter(CONFIGS[request.param])


@pytest.fixture(name="queries")
def _queries():
    return noise(1, 5, TINY_QUERY, seed=3)


def answers(network, volume, queries):
    with torch.no_grad():
        return network.decode(network.encode(volume), queries)


def test_every_prompt_gets_a_mask_and_a_presence(network, queries):
    volume = noise(2, 1, *SIZE)
    decoded = answers(network, volume, queries.expand(2, -1, -1))
    assert decoded.logits.shape == (2, 5, *SIZE)
    assert decoded.presence.shape == (2, 5)
    assert torch.isfinite(decoded.logits).all()
    assert torch.isfinite(decoded.presence).all()


def test_a_prompt_is_answered_alike_alone_and_among_others_in_any_order(network, queries):
    volume = noise(1, 1, *SIZE)
    together = answers(network, volume, queries)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = answers(network, volume, queries[:, order])
    torch.testing.assert_close(shuffled.logits, together.logits[:, order], **SAME)
    torch.testing.assert_close(shuffled.presence, together.presence[:, order], **SAME)
    for k in range(5):
        alone = answers(network, volume, queries[:, k : k + 1])
        torch.testing.assert_close(alone.logits, together.logits[:, k : k + 1], **SAME)
        torch.testing.assert_close(alone.presence, together.presence[:, k : k + 1], **SAME)


def test_one_encoding_serves_several_decodings(network, queries):
    volume = noise(1, 1, *SIZE)
    with torch.no_grad():
        features = network.encode(volume)
        before = [m.clone() for m in features.maps]
        first = network.decode(features, queries)
        other = network.decode(features, queries + 1)
        again = network.decode(features, queries)
    torch.testing.assert_close(first.logits, again.logits, rtol=0, atol=0)
    assert not torch.allclose(first.logits, other.logits)
    for old, now in zip(before, features.maps, strict=True):
        assert torch.equal(old, now)  # an in-place activation would spoil what prompts share


def test_volumes_of_a_batch_do_not_mix(network, queries):
    volumes = noise(2, 1, *SIZE, seed=5)
    both = answers(network, volumes, torch.cat([queries, -queries]))
    for b, asked in enumerate((queries, -queries)):
        alone = answers(network, volumes[b : b + 1], asked)
        torch.testing.assert_close(both.logits[b : b + 1], alone.logits, **SAME)
        torch.testing.assert_close(both.presence[b : b + 1], alone.presence, **SAME)


def test_the_text_matters(network):
    volume = noise(1, 1, *SIZE)
    one, other = answers(network, volume, noise(1, 2, TINY_QUERY, seed=8)).logits[0]
    assert (one - other).abs().max() > 1e-3


def test_the_image_matters(network, queries):
    volume = noise(1, 1, *SIZE)
    moved = answers(network, volume.flip(2), queries).logits
    assert (answers(network, volume, queries).logits - moved).abs().max() > 1e-3


def test_gradient_reaches_every_parameter(network, queries):
    decoded = network.decode(network.encode(noise(1, 1, *SIZE)), queries)
    (decoded.logits * noise(*decoded.logits.shape, seed=4)).sum().backward(retain_graph=True)
    decoded.presence.sum().backward()
    dead = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    if network.config.fusion == "late":
        half = ("mask_heads.1.", "shortcuts.1.")  # trained by a loss of its own
        level_1 = {n for n in dead if n.startswith(half)}
        assert len(level_1) == 4 + network.config.text_shortcut
        dead -= level_1
    assert dead == set()


def test_the_half_resolution_mask_of_late_fusion_is_trainable(queries):
    network = tiny_segmenter(CONFIGS["late"])
    features = network.encode(noise(1, 1, *SIZE))
    vectors = network.mask_vectors(network.refine(features, queries), level=1)
    logits = mask_logits(features.decoded[0], vectors)
    assert logits.shape == (1, 5, *(size // 2 for size in SIZE))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.mask_heads[1].parameters())


@pytest.mark.parametrize(("light", "half"), [(True, 0), (True, 3), (False, 0)])
@pytest.mark.parametrize(
    "block",
    [
        (slice(0, 8), slice(0, 12), slice(0, 16)),
        (slice(2, 5), slice(7, 12), slice(0, 1)),
        (slice(7, 8), slice(3, 9), slice(15, 16)),
    ],
)
def test_the_finest_map_of_a_block_is_that_part_of_the_whole(block, light, half):
    stage = {"light_full_resolution": light, "half_channels": half}
    network = tiny_segmenter(tiny_network("late", **stage))
    with torch.no_grad():
        features = network.encode(noise(1, 1, *SIZE))
        part = network.finest(features, block)
    x, y, z = (slice(2 * s.start, 2 * s.stop) for s in block)
    torch.testing.assert_close(part, features.finest[:, :, x, y, z], atol=1e-5, rtol=1e-4)


def test_whitened_queries_are_uncorrelated_however_alike_they_were():
    network = tiny_segmenter()
    shared, own = noise(1, TINY_QUERY, seed=1), noise(400, TINY_QUERY, seed=2)
    own[:, 3] *= 0.3  # what tells names apart may be small
    queries = 7 * shared + own
    network.whiten(queries)
    seen = network._whitened(queries)
    torch.testing.assert_close(seen.mean(0), torch.zeros(TINY_QUERY), atol=1e-3, rtol=0)
    spread = seen.T @ seen / len(seen)
    # the floor, a ten thousandth of the whole, keeps the smallest directions a little short
    torch.testing.assert_close(spread, torch.eye(TINY_QUERY), atol=0.1, rtol=0)


def test_a_single_query_is_left_as_it_is():
    network = tiny_segmenter(tiny_network(whiten_queries=True))
    query = noise(1, TINY_QUERY, seed=6)
    for queries in (query, query.expand(3, -1)):
        network.whiten(queries)
        assert torch.equal(network._whitened(queries), queries)


def test_whitening_travels_with_the_weights():
    network = tiny_segmenter()
    network.whiten(noise(30, TINY_QUERY, seed=6))
    other = tiny_segmenter(seed=1)
    other.load_state_dict(network.state_dict())
    asked = noise(1, 2, TINY_QUERY)
    assert torch.equal(other._whitened(asked), network._whitened(asked))
    assert not torch.equal(other._whitened(asked), asked)


def test_another_encoder_is_heard_as_the_one_it_was_trained_with():
    network = tiny_segmenter()
    concepts = [load_tree()[c] for c in ("liver", "spleen", "kidney.left", "kidney.right", "aorta")]
    before, after = (
        torch.cat([build_queries(concepts, tiny_encoder(s), modality=m) for m in ("ct", "mr")])
        for s in (0, 1)
    )
    network.whiten(before)
    heard = network._whitened(before)
    assert not torch.allclose(network._whitened(after), heard, atol=0.1)
    network.translate(after, before)
    torch.testing.assert_close(network._whitened(after), heard, atol=1e-3, rtol=0)


def test_only_whitened_queries_can_be_translated():
    network = tiny_segmenter(tiny_network(whiten_queries=False))
    with pytest.raises(ModelError, match="keeps the text encoder"):
        network.translate(noise(3, TINY_QUERY), noise(3, TINY_QUERY))


@pytest.mark.parametrize("size", [(4, 4, 4), (8, 12, 20), (32, 4, 16)])
def test_any_window_of_whole_granules_works(network, queries, size):
    size = tuple(s * network.granularity // 4 for s in size)
    decoded = answers(network, noise(1, 1, *size), queries)
    assert decoded.logits.shape == (1, 5, *size)
    assert torch.isfinite(decoded.logits).all()


def test_mask_logits_are_dot_products_plus_bias():
    features, vectors = noise(2, 3, 4, 5, 6), noise(2, 7, 4, seed=1)
    logits = mask_logits(features, vectors)
    b, k, place = 1, 4, (2, 3, 1)
    by_hand = sum(features[(b, c, *place)] * vectors[b, k, c] for c in range(3)) + vectors[b, k, 3]
    assert logits.shape == (2, 7, 4, 5, 6)
    assert float(logits[(b, k, *place)]) == pytest.approx(float(by_hand), abs=1e-5)


def test_the_position_code_tells_every_place_apart_and_keeps_axes_apart():
    code = sine_position_code((2, 3, 5), 20, torch.zeros(())).view(2, 3, 5, 20)
    flat = code.flatten(0, 2)
    distances = torch.cdist(flat, flat) + torch.eye(len(flat)) * 9
    assert distances.min() > 0.1
    block = 20 // 6 * 2
    assert torch.equal(code[0, 1, 2, :block], code[0, 2, 4, :block])  # depends on x alone
    assert torch.equal(code[1, 2, 0, block : 2 * block], code[0, 2, 4, block : 2 * block])
    assert not code[..., 3 * block :].any()


def test_the_position_code_begins_alike_in_windows_of_any_size():
    small = sine_position_code((2, 3, 2), 18, torch.zeros(())).view(2, 3, 2, 18)
    large = sine_position_code((4, 3, 7), 18, torch.zeros(())).view(4, 3, 7, 18)
    torch.testing.assert_close(small, large[:2, :, :2])


@pytest.mark.parametrize("fusion", ["late", "multiscale"])
def test_prompts_do_not_change_one_another_in_half_precision(fusion):
    network = round_weights(channels_last(tiny_segmenter(tiny_network(fusion))), torch.bfloat16)
    volume, queries = noise(1, 1, *SIZE), noise(1, 40, TINY_QUERY, seed=3)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.encode(volume)
        together, alone = (network.decode(features, q) for q in (queries, queries[:, 7:8]))
        torch.testing.assert_close(together.presence[:, 7:8], alone.presence, **SAME)
        if fusion == "late":
            torch.testing.assert_close(together.vectors[:, 7:8], alone.vectors, **SAME)
        torch.testing.assert_close(together.logits[:, 7:8], alone.logits, **SAME)
