"""Where a report says that something is, before the image is looked at."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from fakes import tiny_network, tiny_segmenter

from textseg.network.report_fusion import ReportConfig, ReportFusion
from textseg.network.report_fusion_parts import GATE_SPEED
from textseg.network.report_place import Stated, StatedPlace
from textseg.network.report_tokens import ReportTokens
from textseg.training.losses import place_loss

WIDTH, GRID = 12, (4, 3, 2)


def text_of(*lengths):
    generator = torch.Generator().manual_seed(1)
    return ReportTokens.of([torch.randn(n, WIDTH, generator=generator) for n in lengths])


def seeded_place():
    torch.manual_seed(0)
    return StatedPlace(WIDTH)


def test_the_shares_of_all_places_are_one():
    stated = seeded_place()(text_of(5, 2), GRID)
    assert stated.places.shape == (2, *GRID)
    assert stated.places.exp().mean((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert stated.by_place().shape == (2, 24, 2)


def test_padding_says_nothing():
    place, text = seeded_place(), text_of(5, 2)
    text.tokens[1, 2:] = 99
    alone = ReportTokens(text.tokens[1:, :2], text.mask[1:, :2])
    both, one = place(text, GRID), place(alone, GRID)
    assert torch.allclose(both.places[1], one.places[0], atol=1e-6)
    assert torch.allclose(both.size[1], one.size[0], atol=1e-6)


def test_a_finer_grid_says_the_same_of_the_same_places():
    place, text = seeded_place(), text_of(5)
    coarse = place(text, (1, 1, 3)).places.reshape(3)
    fine = place(text, (1, 1, 9)).places.reshape(3, 3)[:, 1]  # their middles coincide
    assert torch.allclose(fine - fine.mean(), coarse - coarse.mean(), atol=1e-5)


def test_loss_is_the_cross_entropy_by_hand():
    labels = torch.zeros(3, 4, 2, 2, dtype=torch.long)
    labels[0, 0], labels[0, 3, 0] = 1, 5  # four voxels in the first half, two in the second
    labels[1] = -1  # nothing is known
    labels[2] = 1  # and of this one nothing is told
    places = torch.tensor([[math.log(2 * 0.75), math.log(2 * 0.25)], [3.0, 1.0], [5.0, -5.0]])
    right = torch.tensor(6 / 16).log()
    stated = Stated(places.reshape(3, 2, 1, 1), torch.stack([right, right + 9, right + 9]))
    told = torch.tensor([True, True, False])
    expected = -(4 / 6 * math.log(1.5) + 2 / 6 * math.log(0.5)) / 3
    assert float(place_loss(stated, labels, told)) == pytest.approx(expected, abs=1e-6)
    larger = stated._replace(size=stated.size + 2)
    assert float(place_loss(larger, labels, told)) == pytest.approx(expected + 1.5 / 3, abs=1e-6)


def test_places_and_sizes_are_learned_from_words():
    torch.manual_seed(0)
    words = torch.randn(8, WIDTH)  # left, right, small, large; the others mean nothing
    config = ReportConfig(token_features=WIDTH, width=WIDTH, heads=2, hidden=16)
    fusion = ReportFusion(config, [8])
    optimiser = torch.optim.Adam(fusion.parameters(), lr=5e-3)
    sides, sizes = torch.tensor([0, 1] * 8), torch.tensor([0, 0, 1, 1] * 4)
    labels = torch.zeros(16, 8, 4, 4, dtype=torch.long)
    for crop, side, size in zip(labels, sides, sizes, strict=True):
        crop[(slice(0, 2), slice(6, 8))[side], : 4 if size else 1] = 1
    grid, told = (4, 1, 1), torch.ones(16, dtype=torch.bool)
    for _ in range(120):
        talk = torch.randint(4, 8, (16, 4))
        said = torch.cat([talk, sides[:, None], 2 + sizes[:, None]], 1)
        (stated,) = fusion.stated(ReportTokens.of(list(words[said])), grid)
        loss = place_loss(stated, labels, told)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert stated.places[:, [0, 3], 0, 0].argmax(-1).tolist() == sides.tolist()
    assert (stated.size > math.log(0.12)).tolist() == sizes.bool().tolist()
    assert loss.item() < -0.7 * math.log(4)  # -log 4 would be certainty


def test_other_kinds_of_fusion_state_no_place():
    config = ReportConfig(fusion="strip", token_features=WIDTH, width=WIDTH, heads=2)
    assert ReportFusion(config, [8]).stated(text_of(3, 1), GRID) == []


def told_reader():
    """A network whose report says something to every voxel of its maps."""
    config = tiny_network(report=ReportConfig(token_features=WIDTH, width=WIDTH, heads=2))
    network = tiny_segmenter(config)
    generator = torch.Generator().manual_seed(2)
    for weight in network.report_fusion.prior.weights.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return network


def test_masks_see_what_the_report_alone_says_of_each_voxel():
    network = told_reader()
    volume = torch.randn(1, 1, 16, 32, 16, generator=torch.Generator().manual_seed(3))
    text = text_of(4)
    with torch.no_grad():
        read = network.encode(volume, text)
        prior = network.report_fusion.prior
        bare = replace(read, decoded=read.decoded, prior=None)
        told = GATE_SPEED * prior.weights[0](
            torch.nn.functional.interpolate(read.prior, size=(16, 32, 16), mode="trilinear")
        )
        assert float(told.std()) > 0.1
        torch.testing.assert_close(read.finest, network.finest(bare) + told)
        block = (slice(2, 6), slice(0, 3), slice(7, 8))
        part = network.finest(read, block)
    torch.testing.assert_close(part, read.finest[:, :, 4:12, 0:6, 14:16])


def test_a_scan_without_a_word_has_no_prior():
    network = told_reader()
    volume = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        read, alone = network.encode(volume, text_of(4, 0)), network.encode(volume)
    assert not read.prior[1].any() and read.prior[0].any()
    assert torch.equal(read.finest[1], alone.finest[1])
    assert not torch.equal(read.finest[0], alone.finest[0])
