"""Which prompts of a crop are asked for."""

import pytest
import torch

from textseg.training.objectives import PromptConfig, choose_prompts


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_chosen_prompts_are_mostly_present_and_some_absent():
    voxels = torch.tensor([5.0] * 20 + [0.0] * 20 + [5.0] * 10)
    known = torch.tensor([True] * 40 + [False] * 10)
    none = torch.zeros(50, 50, dtype=torch.bool)
    for seed in range(5):
        rows, asked = choose_prompts(voxels, known, none, PromptConfig(masks=10), generator(seed))
        assert len(rows) == 10
        assert asked.all()
        present, absent = rows[:8], rows[8:]
        assert ((present < 20).all(), ((absent >= 20) & (absent < 40)).all()) == (True, True)


def test_unknown_prompts_fill_up_but_are_not_asked_for():
    voxels, known = torch.tensor([5.0, 0.0, 9.0]), torch.tensor([True, True, False])
    rows, asked = choose_prompts(
        voxels, known, torch.zeros(3, 3).bool(), PromptConfig(masks=6, absent=0.5), generator(0)
    )
    assert set(rows[asked].tolist()) == {0, 1}
    assert 2 in rows[~asked].tolist()


def test_absent_prompts_that_are_easily_confused_with_present_ones_come_more_often():
    voxels = torch.tensor([5.0] * 10 + [0.0] * 30)
    known = torch.ones(40, dtype=torch.bool)
    twins = torch.zeros(40, 40, dtype=torch.bool)
    twins[0, 10] = twins[10, 0] = True
    drawn = []
    for table in (twins, torch.zeros_like(twins)):
        rows = [
            choose_prompts(voxels, known, table, PromptConfig(masks=10), generator(seed))[0]
            for seed in range(60)
        ]
        drawn.append(sum(bool((row[8:] == 10).any()) for row in rows))
    # two of thirty absent prompts are asked for: 4 of 60 by chance, against half of the time
    assert drawn[0] > 20 > 12 > drawn[1]


@pytest.mark.parametrize(("present", "allowed"), [(4, 2), (1, 1), (0, 12)])
def test_absent_prompts_can_be_limited_by_the_present_ones(present, allowed):
    voxels = torch.tensor([5.0] * present + [0.0] * (30 - present))
    config = PromptConfig(masks=12, absent=0.34, absent_per_present=0.5)
    rows, asked = choose_prompts(
        voxels, torch.ones(30).bool(), torch.zeros(30, 30).bool(), config, generator(1)
    )
    asked_for = rows[asked]
    assert int((asked_for < present).sum()) == min(present, 8)
    assert int((asked_for >= present).sum()) == allowed
