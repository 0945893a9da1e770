"""The losses of a batch: finite, honest about what is unknown, and reaching every weight."""

from __future__ import annotations

import pytest
import torch
from fakes import TINY_QUERY, apart, noise, seeded, tiny_network, write_model

from textseg.errors import ModelError
from textseg.network.backbones import BackboneConfig
from textseg.training.domain_labels import IGNORE
from textseg.training.objectives import LossConfig, PromptConfig
from textseg.training.sampling import Batch
from textseg.training.segmentation_task import DomainPrompts, SegmentationTask

CONCEPTS = ("kidney.left", "kidney.right", "spleen", "liver")
N = len(CONCEPTS)
LABELS = apart(CONCEPTS)  # a fifth prompt is both kidneys
SIZE = (16, 12, 8)


def make_task(fusion="late", **settings):
    task = seeded(
        lambda: SegmentationTask(
            tiny_network(fusion), **{"losses": LossConfig(block=8), **settings}
        )
    )
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


def test_losses_among_concepts_neither_praise_nor_blame_what_is_unknown():
    task = make_task(losses=LossConfig(exclusion=1.0))
    batch = make_batch(known=(1, 1, 1, 0))
    queries = task._domains[0].queries["ct"].expand(2, -1, -1)
    features = task.network.encode_coarse(batch.image)
    refined = task.network.refine(features, queries).detach().requires_grad_()
    views = task._views(features, batch.labels, torch.Generator().manual_seed(0))
    assert set(views) == {"half", "full"}
    for view in views.values():
        losses = task._among_concepts(view, refined, batch.known, LABELS)
        assert set(losses) == {"ce", "exclusion"}
        torch.stack(list(losses.values())).sum().backward(retain_graph=True)
    assert not refined.grad[:, 3].any()
    assert refined.grad[:, :3].any()


def test_mask_losses_neither_praise_nor_blame_what_is_unknown():
    task = make_task(
        prompts=PromptConfig(masks=10)
    )  # more than there are: unknown prompts are chosen too
    batch = make_batch(known=(1, 1, 1, 0))
    whole = task.losses(batch)
    before = {k: float(v.detach()) for k, v in whole.items() if k.endswith(("dice", "bce"))}
    queries = task._domains[0].queries["ct"].clone()
    queries[3] += 1.0
    task.set_domains([DomainPrompts({"ct": queries}, LABELS)])
    after = task.losses(batch)
    assert len(before) == 4
    assert {k: float(after[k].detach()) for k in before} == pytest.approx(before, abs=1e-6)


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


def test_deep_supervision_judges_every_level_by_its_weight():
    backbone = BackboneConfig(channels=(4, 6, 8, 10), blocks=(1, 1, 1, 1))
    network = tiny_network(mask_levels=3, backbone=backbone)
    whole = make_batch()
    batch = whole._replace(image=whole.image[:, :, :, :8], labels=whole.labels[:, :, :8])

    def losses_of(*levels):
        config = LossConfig(levels=levels, block=0)
        task = seeded(lambda: SegmentationTask(network, losses=config))
        task.set_domains([DomainPrompts({"ct": noise(N + 1, TINY_QUERY, seed=9)}, LABELS)])
        return {name: float(loss.detach()) for name, loss in task.losses(batch).items()}

    one, two = losses_of(1.0, 1.0, 1.0), losses_of(0.5, 0.25, 2.0)
    parts = ("ce", "dice", "bce")
    assert set(one) == {f"{level}_{p}" for level in ("full", "half", "quarter") for p in parts} | {
        "presence"
    }
    for level, weight in (("full", 0.5), ("half", 0.25), ("quarter", 2.0)):
        for part in parts:
            name = f"{level}_{part}"
            assert two[name] == pytest.approx(weight * one[name], rel=1e-5)


def test_levels_without_mask_heads_are_refused():
    with pytest.raises(ModelError, match="3 levels; the network has masks at 2"):
        SegmentationTask(tiny_network(), losses=LossConfig(levels=(1.0, 1.0, 1.0)))


def test_losses_can_be_left_out():
    config = LossConfig(competition=0, presence=0, dice=0, block=8)
    losses = make_task(losses=config).losses(make_batch())
    assert set(losses) == {"full_dice", "full_bce", "half_dice", "half_bce"}
    assert float(losses["full_dice"].detach()) == 0 < float(losses["full_bce"].detach())


def test_recomputing_the_backbone_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        task = make_task(recompute=recompute)
        torch.stack(list(task.losses(make_batch()).values())).sum().backward()
        gradients.append({n: p.grad for n, p in task.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_a_hidden_organ_contributes_to_no_loss():
    # the liver is there, drawn in the image and in no label, and the case does not annotate it
    labels = torch.zeros(2, *SIZE, dtype=torch.int64)
    labels[:, 2:8, 2:8, 1:7] = 1
    batch = make_batch(labels=labels, known=(1, 1, 1, 0))
    task = make_task(prompts=PromptConfig(masks=10))
    queries = task._domains[0].queries["ct"].clone().requires_grad_()
    task.set_domains([DomainPrompts({"ct": queries}, LABELS)])
    torch.stack(list(task.losses(batch).values())).sum().backward()
    assert not queries.grad[CONCEPTS.index("liver")].any()
    assert all(queries.grad[k].any() for k in range(3))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_backbone_keeps_its_names():
    plain, compiled = make_task(), make_task(compile=True)
    assert list(plain.state_dict()) == list(compiled.state_dict())
