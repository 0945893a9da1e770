"""Contrastive losses against naive loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import noise
from torch.nn.functional import normalize

from textseg.training.contrast import CONTRASTS, dhn_nce, info_nce

EYE = torch.eye(5, dtype=torch.bool)
SEVERAL = torch.tensor(
    [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
).bool()


def similarity(temperature=0.5, seed=0):
    images = normalize(noise(5, 7, seed=seed), dim=1)
    texts = normalize(noise(5, 7, seed=seed + 1), dim=1)
    return images @ texts.T / temperature


def naive_info_nce(s, positive):
    total = 0.0
    for table, mask in ((s, positive), (s.T, positive.T)):
        rows = []
        for i in range(len(table)):
            chosen = [j for j in range(table.shape[1]) if mask[i, j]]
            if not chosen:
                continue
            rest = sum(math.exp(table[i, j]) for j in range(table.shape[1]) if not mask[i, j])
            parts = [math.exp(table[i, j]) for j in chosen]
            terms = [-math.log(part / (part + rest)) for part in parts]
            rows.append(sum(terms) / len(terms))
        total += sum(rows) / len(rows)
    return total


def naive_dhn_nce(s, positive, betas):
    total = 0.0
    for table, mask, beta in ((s, positive, betas[0]), (s.T, positive.T, betas[1])):
        rows = []
        for i in range(len(table)):
            chosen = [j for j in range(table.shape[1]) if mask[i, j]]
            negatives = [j for j in range(table.shape[1]) if not mask[i, j]]
            if not chosen:
                continue
            scale = sum(math.exp(beta * table[i, k]) for k in negatives)
            against = sum(
                math.exp(table[i, j]) * len(negatives) * math.exp(beta * table[i, j]) / scale
                for j in negatives
            )
            rows.append(sum(math.log(against) - table[i, j] for j in chosen) / len(chosen))
        total += float(sum(rows) / len(rows))
    return total


@pytest.mark.parametrize("positive", [EYE, SEVERAL], ids=["pairs", "several positives"])
def test_info_nce_is_what_its_formula_says(positive):
    s = similarity()
    assert float(info_nce(s, positive)) == pytest.approx(naive_info_nce(s, positive), rel=1e-5)


@pytest.mark.parametrize("betas", [(0.15, 0.15), (0.0, 1.3)])
@pytest.mark.parametrize("positive", [EYE, SEVERAL], ids=["pairs", "several positives"])
def test_dhn_nce_is_what_its_formula_says(positive, betas):
    s = similarity()
    found = dhn_nce(s, positive, beta_row=betas[0], beta_column=betas[1])
    assert float(found) == pytest.approx(naive_dhn_nce(s, positive, betas), rel=1e-5)


def test_info_nce_of_pairs_is_cross_entropy_both_ways():
    s = similarity()
    target = torch.arange(5)
    plain = torch.nn.functional.cross_entropy(s, target) + torch.nn.functional.cross_entropy(
        s.T, target
    )
    assert float(info_nce(s, EYE)) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("name", CONTRASTS)
def test_gradients_are_right_and_masked_pairs_get_none(name):
    base = similarity().double()
    masked = torch.zeros(5, 5, dtype=torch.bool)
    masked[0, 3] = masked[2, 4] = True

    def loss(x):
        return CONTRASTS[name](x.masked_fill(masked, float("-inf")), EYE)

    x = base.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,))
    loss(x).backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[masked].any()


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_row_without_negatives_or_positives_does_no_harm(name):
    x = similarity().requires_grad_()
    positive = EYE.clone()
    positive[4, 4] = False
    lonely = torch.zeros(5, 5, dtype=torch.bool)
    lonely[1] = True
    lonely[1, 1] = False
    loss = CONTRASTS[name](x.masked_fill(lonely, float("-inf")), positive)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", CONTRASTS)
def test_agreement_costs_less_than_confusion(name):
    agree = torch.full((4, 4), -3.0).fill_diagonal_(3.0)
    eye = torch.eye(4, dtype=torch.bool)
    assert CONTRASTS[name](agree, eye) < CONTRASTS[name](-agree, eye)


def test_hard_negatives_weigh_more_with_a_larger_beta():
    s = torch.tensor([[2.0, 1.9, -2.0], [-2.0, 2.0, -2.0], [-2.0, -2.0, 2.0]])
    eye = torch.eye(3, dtype=torch.bool)
    mild = dhn_nce(s, eye, beta_row=0.0, beta_column=0.0)
    assert float(dhn_nce(s, eye, beta_row=1.0, beta_column=1.0)) > float(mild) + 0.1
