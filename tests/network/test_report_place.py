"""Where a report says that something is, before the image is looked at."""

from __future__ import annotations

import math

import pytest
import torch

from textseg.network.report_fusion import ReportConfig, ReportFusion
from textseg.network.report_place import StatedPlace
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
    stated = seeded_place()(text_of(5, 2), GRID).detach()
    assert stated.shape == (2, 24)
    assert stated.exp().mean(1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_padding_says_nothing():
    place, text = seeded_place(), text_of(5, 2)
    text.tokens[1, 2:] = 99
    alone = ReportTokens(text.tokens[1:, :2], text.mask[1:, :2])
    assert torch.allclose(place(text, GRID)[1], place(alone, GRID)[0], atol=1e-6)


def test_a_finer_grid_says_the_same_of_the_same_places():
    place, text = seeded_place(), text_of(5)
    coarse = place(text, (1, 1, 3)).reshape(3)
    fine = place(text, (1, 1, 9)).reshape(3, 3)[:, 1]  # their middles coincide
    assert torch.allclose(fine - fine.mean(), coarse - coarse.mean(), atol=1e-5)


def test_loss_is_the_cross_entropy_by_hand():
    labels = torch.zeros(2, 4, 2, 2, dtype=torch.long)
    labels[0, 0], labels[0, 3, 0] = 1, 5  # four voxels in the first half, two in the second
    labels[1] = -1  # nothing is known
    stated = torch.tensor([[math.log(2 * 0.75), math.log(2 * 0.25)], [3.0, 1.0]])[None]
    expected = -(4 / 6 * math.log(1.5) + 2 / 6 * math.log(0.5)) / 2
    assert float(place_loss(stated, labels, grid=(2, 1, 1))) == pytest.approx(expected, abs=1e-6)


def test_places_are_learned_from_words():
    torch.manual_seed(0)
    words = torch.randn(6, WIDTH)  # the first says left, the second right, the others nothing
    config = ReportConfig(token_features=WIDTH, width=WIDTH, heads=2, hidden=16)
    fusion = ReportFusion(config, [8])
    optimiser = torch.optim.Adam(fusion.parameters(), lr=5e-3)
    sides = torch.tensor([0, 1] * 8)
    labels = torch.zeros(16, 4, 2, 2, dtype=torch.long)
    labels[sides == 0, 0], labels[sides == 1, 3] = 1, 1
    for _ in range(60):
        talk = torch.randint(2, 6, (16, 4))
        report = ReportTokens.of(list(words[torch.cat([talk, sides[:, None]], 1)]))
        stated = fusion.stated_places(report, (4, 1, 1))
        loss = place_loss(stated, labels, grid=(4, 1, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert stated[0, :, [0, 3]].argmax(-1).tolist() == sides.tolist()
    assert loss.item() < -0.7 * math.log(4)  # -log 4 would be certainty


def test_other_kinds_of_fusion_state_no_place():
    config = ReportConfig(fusion="strip", token_features=WIDTH, width=WIDTH, heads=2)
    stated = ReportFusion(config, [8]).stated_places(text_of(3, 1), GRID)
    assert stated.shape == (0, 2, 24)
