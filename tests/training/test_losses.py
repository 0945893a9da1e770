"""Losses against loops and sums done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import noise

from textseg.training.losses import (
    competition_loss,
    dice_loss,
    exclusion_loss,
    mask_bce,
    presence_loss,
    union_masks,
)
from textseg.training.objectives import OptimiserConfig, rate_factor

IGNORE = -1


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def alone(count):
    """Tables of labels that each belong to one concept."""
    return {
        "columns": torch.arange(count + 1),
        "also": torch.zeros(count + 1, count, dtype=torch.bool),
    }


def test_a_concept_that_holds_a_voxel_as_well_does_not_compete_for_it():
    logits = torch.tensor([[[3.0, 1.0], [3.0, 1.0]]], requires_grad=True)
    tables = {  # label 1 is a tumor (column 0) within the liver (column 1); label 2 the rest of it
        "columns": torch.tensor([0, 1, 2]),
        "also": torch.tensor([[False, False], [False, True], [False, False]]),
    }
    loss = competition_loss(
        logits, torch.tensor([[1, 2]]), torch.ones(1, 2).bool(), **tables, ignore=IGNORE
    )
    within = math.log(1 + math.exp(3)) - 3
    without = math.log(1 + math.exp(3) + math.exp(1)) - 1
    assert float(loss.detach()) == pytest.approx((within + without) / 2, rel=1e-5)
    loss.backward()
    assert logits.grad[0, 0, 1] == 0


def test_competition_is_cross_entropy_with_a_background_at_zero():
    logits, labels = noise(2, 7, 3), torch.tensor([[0, 1, 2, 3, 3, 0, 1], [2, -1, 0, 1, -1, 3, 3]])
    known = torch.ones(2, 3, dtype=torch.bool)
    terms = []
    for b in range(2):
        for v in range(7):
            if labels[b, v] == IGNORE:
                continue
            scores = [0.0, *logits[b, v].tolist()]
            total = sum(math.exp(s) for s in scores)
            terms.append(math.log(total) - scores[labels[b, v]])
    found = competition_loss(logits, labels, known, **alone(3), ignore=IGNORE)
    assert len(terms) == 12
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_concepts_that_a_case_does_not_annotate_cannot_take_voxels():
    logits = torch.tensor([[[9.0, 2.0], [9.0, -1.0]]], requires_grad=True)
    labels = torch.tensor([[0, 2]])
    known = torch.tensor([[False, True]])
    loss = competition_loss(logits, labels, known, **alone(2), ignore=IGNORE)
    by_hand = (math.log(1 + math.exp(2)) + math.log(1 + math.exp(-1)) + 1) / 2
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-5)
    loss.backward()
    assert not logits.grad[0, :, 0].any()  # the unknown concept is neither praised nor blamed
    assert logits.grad[0, :, 1].all()


def test_balanced_competition_weighs_each_label_with_the_root_of_its_size():
    logits = noise(1, 6, 2)
    labels = torch.tensor([[0, 0, 0, 0, 1, IGNORE]])
    known = torch.ones(1, 2, dtype=torch.bool)
    terms = [
        math.log(1 + sum(math.exp(x) for x in row)) - (row[0] if label else 0)
        for row, label in zip(logits[0].tolist(), labels[0, :5].tolist(), strict=False)
    ]
    weights = [0.5] * 4 + [1.0]
    by_hand = sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)
    found = competition_loss(logits, labels, known, **alone(2), ignore=IGNORE, balanced=True)
    assert float(found) == pytest.approx(by_hand, rel=1e-5)


def test_a_mask_may_not_claim_what_belongs_to_another_structure():
    logits = noise(2, 5, 3).requires_grad_()
    labels = torch.tensor([[0, 1, 2, 3, IGNORE], [0, 0, 0, 1, 2]])
    known = torch.tensor([[True, True, True], [True, True, False]])
    holders = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]).bool()
    owners = {(0, 1): [0], (0, 2): [0, 1], (0, 3): [2], (1, 3): [0], (1, 4): [0, 1]}
    judged = [(0, 1, 1), (0, 1, 2), (0, 2, 2), (0, 3, 0), (0, 3, 1), (1, 3, 1)]
    numbers = logits.detach().tolist()
    by_hand = sum(
        sigmoid(max(numbers[b][v][owner] for owner in owners[b, v]))
        * math.log(1 + math.exp(numbers[b][v][n]))
        for b, v, n in judged
    )
    loss = exclusion_loss(logits, labels, known, holders=holders)
    assert float(loss.detach()) == pytest.approx(by_hand / len(owners), rel=1e-5)
    loss.backward()
    assert {tuple(place) for place in logits.grad.nonzero().tolist()} == set(judged)


def test_where_no_structure_is_nothing_is_excluded():
    logits = noise(1, 4, 2).requires_grad_()
    labels = torch.tensor([[0, IGNORE, 0, 0]])
    loss = exclusion_loss(logits, labels, torch.ones(1, 2).bool(), holders=torch.zeros(1, 2).bool())
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_ignored_voxels_get_no_gradient_from_competition():
    logits = noise(1, 4, 2).requires_grad_()
    labels = torch.tensor([[0, IGNORE, 2, IGNORE]])
    competition_loss(logits, labels, torch.ones(1, 2).bool(), **alone(2), ignore=IGNORE).backward()
    assert not logits.grad[0, [1, 3]].any()
    assert logits.grad[0, [0, 2]].all()


def test_dice_loss_by_hand():
    logits = torch.tensor([[[0.0], [2.0], [-1.0], [5.0]]])
    targets = torch.tensor([[[0.0], [1.0], [1.0], [1.0]]])
    valid = torch.tensor([[[1.0], [1.0], [1.0], [0.0]]])
    p = [sigmoid(0), sigmoid(2), sigmoid(-1)]
    by_hand = 1 - (2 * (p[1] + p[2]) + 1) / (sum(q * q for q in p) + 2 + 1)
    assert float(dice_loss(logits, targets, valid)) == pytest.approx(by_hand, rel=1e-5)


def test_dice_loss_of_plain_sums_by_hand():
    logits = torch.tensor([[[0.0], [2.0], [-1.0]]])
    targets = torch.tensor([[[0.0], [1.0], [1.0]]])
    p = [sigmoid(x) for x in (0.0, 2.0, -1.0)]
    by_hand = 1 - (2 * (p[1] + p[2]) + 1) / (sum(p) + 2 + 1)
    found = dice_loss(logits, targets, torch.ones(1, 3, 1), squared=False)
    assert float(found) == pytest.approx(by_hand, rel=1e-5)


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[1.0], [1.0]]])
    terms = [(1 - sigmoid(x)) ** 2 * -math.log(sigmoid(x)) for x in (2.0, -1.0)]
    found = mask_bce(logits, targets, torch.ones(1, 2, 1), focal_gamma=2.0)
    assert float(found) == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_a_cosine_falls_from_the_warm_up_to_zero():
    config = OptimiserConfig(warmup_steps=20, decay="cosine")
    factors = [rate_factor(step, total=200, config=config) for step in (0, 19, 20, 110, 200)]
    assert factors == pytest.approx([0.05, 1.0, 1.0, 0.5, 0.0])


def test_dice_loss_is_zero_for_a_sure_hit_and_near_one_for_a_sure_miss():
    targets = (noise(2, 50, 3) > 0).float()
    valid = torch.ones(2, 50, 1)
    assert dice_loss((2 * targets - 1) * 60, targets, valid).abs().max() < 1e-5
    assert dice_loss((1 - 2 * targets) * 60, targets, valid).min() > 0.95


def test_dice_loss_of_an_empty_mask_rewards_an_empty_answer():
    empty, valid = torch.zeros(1, 20, 1), torch.ones(1, 20, 1)
    assert float(dice_loss(torch.full((1, 20, 1), -60.0), empty, valid)) == pytest.approx(
        0, abs=1e-6
    )
    assert float(dice_loss(torch.full((1, 20, 1), 60.0), empty, valid)) > 0.9


def test_mask_bce_is_the_mean_over_valid_voxels():
    logits, targets = noise(2, 6, 3), (noise(2, 6, 3, seed=1) > 0).float()
    valid = torch.ones(2, 6, 1)
    valid[0, 2:4] = 0
    valid[1] = 0
    found = mask_bce(logits, targets, valid)
    assert found.shape == (2, 3)
    assert not found[1].any()  # nothing is valid: no loss, and no division by zero
    for k in range(3):
        terms = [
            -math.log(sigmoid(float(x)) if t else 1 - sigmoid(float(x)))
            for x, t, v in zip(logits[0, :, k], targets[0, :, k], valid[0, :, 0], strict=True)
            if v
        ]
        assert float(found[0, k]) == pytest.approx(sum(terms) / 4, rel=1e-4)


def test_presence_counts_clear_and_annotated_prompts_alone():
    logits = torch.tensor([[1.0, -2.0, 3.0, 4.0]], requires_grad=True)
    voxels = torch.tensor([[50.0, 0.0, 5.0, 50.0]])  # there, absent, barely there, not annotated
    known = torch.tensor([[True, True, True, False]])
    loss = presence_loss(logits, voxels, known, enough=20)
    by_hand = (-math.log(sigmoid(1)) - math.log(1 - sigmoid(-2))) / 2
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-5)
    loss.backward()
    assert (logits.grad != 0).tolist() == [[True, True, False, False]]


def test_presence_of_nothing_clear_is_no_loss():
    loss = presence_loss(noise(1, 2), torch.full((1, 2), 3.0), torch.ones(1, 2).bool(), enough=20)
    assert float(loss) == 0


def test_enough_voxels_are_exactly_enough():
    logits, known = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    at = presence_loss(logits, torch.tensor([[20.0]]), known, enough=20)
    below = presence_loss(logits, torch.tensor([[19.0]]), known, enough=20)
    assert float(at) == pytest.approx(math.log(2))
    assert float(below) == 0


def test_a_union_is_where_any_of_its_labels_is():
    labels = torch.tensor([[0, 1, 2, 3, IGNORE], [3, 3, 0, 1, 2]])
    membership = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    found = union_masks(labels, membership.expand(2, -1, -1))
    assert found.shape == (2, 5, 3)
    for b in range(2):
        for k in range(3):
            wanted = [float(int(v) > 0 and bool(membership[k, int(v)])) for v in labels[b]]
            assert found[b, :, k].tolist() == wanted


@pytest.mark.parametrize("loss", [dice_loss, mask_bce])
def test_gradients_are_those_of_finite_differences(loss):
    targets = (noise(1, 5, 2, seed=2) > 0).double()
    valid = torch.tensor([[[1.0], [1], [0], [1], [1]]], dtype=torch.float64)
    logits = noise(1, 5, 2).double().requires_grad_()

    def total(x):
        return loss(x, targets, valid).sum()

    total(logits).backward()
    step = 1e-2  # the losses compute in float32 whatever comes in, so gradcheck's step is too small
    for index in [(0, 0, 0), (0, 4, 1), (0, 2, 0)]:
        shift = torch.zeros_like(logits)
        shift[index] = step
        slope = (total(logits + shift) - total(logits - shift)) / (2 * step)
        assert float(logits.grad[index]) == pytest.approx(float(slope.detach()), abs=1e-4)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    config = OptimiserConfig(warmup_steps=5, decay_fraction=0.25)
    rates = [rate_factor(step, total=40, config=config) for step in range(41)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert rates[5:31] == [1.0] * 26
    assert rates[30:] == pytest.approx([1 - k / 10 for k in range(11)])
    assert rate_factor(50, total=40, config=config) == 0


def test_a_run_without_warm_up_starts_at_the_plateau():
    config = OptimiserConfig(warmup_steps=0, decay_fraction=0)
    assert [rate_factor(s, total=4, config=config) for s in range(5)] == [1, 1, 1, 1, 0]
