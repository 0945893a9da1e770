"""Whole scans are scored on their own grid, with the engine that users run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import tiny_domains, write_case_list

from textseg.datasets import load_cases
from textseg.knowledge import load_tree
from textseg.network.model import Decoded
from textseg.training.datamodule import domain_space, training_cases
from textseg.training.validation import load_validation_case, score_case

# what the phantom's image holds where a structure is: see ``contrast``
HOUNSFIELD = {"spleen": 140, "kidney.right": 180, "kidney.left": 220, "liver": 260}


class BandModel(torch.nn.Module):
    """Finds voxels within 20 HU of the number its query holds."""

    granularity = 4

    def __init__(self):
        super().__init__()
        self.modes = set()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def encode(self, volume):
        self.modes.add(self.training)
        return volume * 250

    def decode(self, features, queries):
        logits = 20 - (features - queries[..., :1, None, None]).abs()
        return Decoded.of_logits(logits, logits.amax(dim=(2, 3, 4)))


@pytest.fixture(scope="module", name="space_and_case")
def _space_and_case(tmp_path_factory):
    cases = load_cases(write_case_list(tmp_path_factory.mktemp("cases")))
    domain = tiny_domains()[0]
    space = domain_space(domain, training_cases(domain, cases), load_tree())
    scan = next(case for case in cases if case.id == "ts_example_ct")
    return space, load_validation_case(scan, space, domain=0, spacing_mm=(3.0, 3.0, 3.0))


def scores(space, case, shift=0.0):
    queries = torch.zeros(len(space.concepts), 1)
    for concept, level in HOUNSFIELD.items():
        queries[space.index[concept]] = level + shift
    model = BandModel().train()
    found = score_case(model, case, queries, window=(16, 20, 12))
    assert model.modes == {False}
    assert model.training
    return {space.concepts[row]: value for row, value in found.items()}


def test_a_model_that_is_right_scores_high_and_one_that_is_wrong_low(space_and_case):
    right, wrong = scores(*space_and_case), scores(*space_and_case, shift=500.0)
    # the other structures are so small that blurring between the two grids eats them
    assert min(right["liver"], right["spleen"]) > 0.4
    for concept in HOUNSFIELD:
        assert wrong[concept] == 0, concept


def test_every_structure_in_the_reference_is_scored_and_no_other(space_and_case):
    space, case = space_and_case
    held = {int(v) for v in np.unique(case.reference)} - {0}
    assert {v for values in case.values.values() for v in values} == held
    assert set(scores(space, case)) == {space.concepts[row] for row in case.values}
    assert case.image.shape[1:] == case.body.shape == case.transform.target.shape
