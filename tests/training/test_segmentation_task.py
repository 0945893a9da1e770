"""The losses of a batch: finite, honest about what is unknown, and reaching every weight."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_QUERY, apart, noise, seeded, tiny_network, write_model

from textseg.training.domain_labels import IGNORE
from textseg.training.sampling import Batch
from textseg.training.segmentation_task import DomainPrompts, SegmentationTask

CONCEPTS = ("kidney.left", "kidney.right", "spleen", "liver")
N = len(CONCEPTS)
LABELS = apart(CONCEPTS)  # a fifth prompt is both kidneys
SIZE = (16, 12, 8)


def make_task(fusion="late", **settings):
    task = seeded(lambda: SegmentationTask(tiny_network(fusion), block=8, **settings))
    queries = noise(N + 1, TINY_QUERY, seed=9)
    task.set_domains([DomainPrompts({"ct": queries}, LABELS)])
    return task


def make_batch(*, known=(1, 1, 1, 1), number=0, labels=None):
    if labels is None:
        labels = torch.zeros(2, *SIZE, dtype=torch.int64)
        labels[:, 2:8, 2:8, 1:7] = 1
        labels[:, 9:14, 3:10, 2:6] = 2
        labels[1, 12:15, 1:5, 1:5] = 3
    image = labels[:, None] * 0.7 + noise(2, 1, *SIZE) * 0.2
    return Batch(
        number, 0, "ct", image, labels, torch.tensor([[*known, known[0] and known[1]]] * 2).bool()
    )


@pytest.mark.parametrize("fusion", ["late", "multiscale"])
def test_every_loss_is_a_finite_positive_number(fusion):
    losses = make_task(fusion).losses(make_batch())
    assert set(losses) >= {"full_dice", "full_bce", "presence"}
    for name, value in losses.items():
        assert value.ndim == 0, name
        assert torch.isfinite(value), name
        assert float(value.detach()) > 0, name


@pytest.mark.parametrize("fusion", ["late", "multiscale"])
def test_training_reaches_every_weight(fusion):
    task = make_task(fusion)
    torch.stack(list(task.losses(make_batch()).values())).sum().backward()
    dead = [n for n, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_the_losses_of_a_batch_do_not_depend_on_when_it_comes():
    task = make_task()
    first = task.losses(make_batch(number=4))
    torch.rand(7)  # the global state moves on
    again = task.losses(make_batch(number=4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = task.losses(make_batch(number=5))
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("label", [0, IGNORE])
def test_a_crop_without_structures_still_has_finite_losses(label):
    labels = torch.zeros(2, *SIZE, dtype=torch.int64)
    labels[0, :4] = label
    for value in make_task().losses(make_batch(labels=labels)).values():
        assert torch.isfinite(value)


def test_competition_neither_praises_nor_blames_what_is_unknown():
    task = make_task()
    batch = make_batch(known=(1, 1, 1, 0))
    queries = task._domains[0].queries["ct"].expand(2, -1, -1)
    features = task.network.encode_coarse(batch.image)
    refined = task.network.refine(features, queries).detach().requires_grad_()
    views = task._views(features, batch.labels, torch.Generator().manual_seed(0))
    assert set(views) == {"half", "full"}
    for name, view in views.items():
        (loss,) = task._competition(name, view, refined, batch.known, LABELS).values()
        loss.backward(retain_graph=True)
    assert not refined.grad[:, 3].any()
    assert refined.grad[:, :3].any()


def test_mask_losses_neither_praise_nor_blame_what_is_unknown():
    task = make_task(mask_prompts=10)  # more than there are: unknown prompts are chosen too
    batch = make_batch(known=(1, 1, 1, 0))
    whole = task.losses(batch)
    before = {k: float(v.detach()) for k, v in whole.items() if k.endswith(("dice", "bce"))}
    queries = task._domains[0].queries["ct"].clone()
    queries[3] += 1.0
    task.set_domains([DomainPrompts({"ct": queries}, LABELS)])
    after = task.losses(batch)
    assert len(before) == 4
    assert {k: float(after[k].detach()) for k in before} == pytest.approx(before, abs=1e-6)


def test_chosen_prompts_are_mostly_present_and_some_absent():
    task = make_task(mask_prompts=10)
    voxels = torch.tensor([5.0] * 20 + [0.0] * 20 + [5.0] * 10)
    known = torch.tensor([True] * 40 + [False] * 10)
    none = torch.zeros(50, 50, dtype=torch.bool)
    for seed in range(5):
        rows = task._choose(voxels, known, none, torch.Generator().manual_seed(seed))
        assert len(rows) == 10
        present, absent = rows[:8], rows[8:]
        assert ((present < 20).all(), ((absent >= 20) & (absent < 40)).all()) == (True, True)


def test_absent_prompts_that_are_easily_confused_with_present_ones_come_more_often():
    task = make_task(mask_prompts=10)
    voxels = torch.tensor([5.0] * 10 + [0.0] * 30)
    known = torch.ones(40, dtype=torch.bool)
    twins = torch.zeros(40, 40, dtype=torch.bool)
    twins[0, 10] = twins[10, 0] = True
    drawn = []
    for table in (twins, torch.zeros_like(twins)):
        rows = [
            task._choose(voxels, known, table, torch.Generator().manual_seed(s)) for s in range(60)
        ]
        drawn.append(sum(bool((row[8:] == 10).any()) for row in rows))
    # two of thirty absent prompts are asked for: 4 of 60 by chance, against half of the time
    assert drawn[0] > 20 > 12 > drawn[1]


def test_the_block_lies_inside_and_meets_every_structure_in_turn():
    task = make_task()
    labels = torch.zeros(1, *SIZE, dtype=torch.int64)
    labels[0, :2, :2, :2] = 1
    labels[0, 15, 11, 7] = 2
    met = set()
    for seed in range(40):
        block = task._block(labels, torch.Generator().manual_seed(seed))
        assert [s.stop - s.start for s in block] == [4, 4, 4]
        for s, size in zip(block, SIZE, strict=True):
            assert 0 <= s.start < s.stop <= size // 2
        x, y, z = (slice(2 * s.start, 2 * s.stop) for s in block)
        met |= set(labels[0, x, y, z].unique().tolist())
    assert met == {0, 1, 2}


def test_views_pair_each_voxel_of_a_map_with_its_label():
    task = make_task()
    batch = make_batch()
    features = task.network.encode_coarse(batch.image)
    for name, view in task._views(features, batch.labels, torch.Generator()).items():
        assert view.features.flatten(2).shape[2] == view.labels.shape[1], name
        assert view.labels.max() > 0, name


def test_weights_may_start_from_a_model_folder(tmp_path):
    donor = seeded(lambda: SegmentationTask(tiny_network()), seed=4).network
    write_model(tmp_path / "donor", network=donor)
    task = make_task(init_from=str(tmp_path / "donor"))
    for name, tensor in task.network.state_dict().items():
        torch.testing.assert_close(tensor, donor.state_dict()[name], rtol=2**-11, atol=1e-7)
