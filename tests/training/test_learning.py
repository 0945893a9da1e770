"""A tiny network learns named shapes from phantoms: text matters, and absence is noticed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fakes import (
    CLEAN,
    TINY_QUERY,
    apart,
    ellipsoid,
    noise,
    seeded,
    tiny_encoder,
    tiny_network,
    tiny_segmenter,
    training_case,
)
from torch.nn.functional import binary_cross_entropy_with_logits

from textseg.imaging import normalise_intensity
from textseg.knowledge import load_tree
from textseg.network.backbones import BackboneConfig
from textseg.network.queries import build_queries
from textseg.training.augment import GeometryConfig
from textseg.training.objectives import PromptConfig
from textseg.training.sampling import DomainConfig, DomainSampler
from textseg.training.segmentation_task import DomainPrompts, SegmentationTask

CONCEPTS = ("spleen", "kidney.right", "kidney.left", "liver")
SHAPE = (16, 24, 16)
STEPS = 320


def phantom(*, without_spleen=False, alike=False):
    """Two kidneys, a liver in front of them and, in one of two phantoms, a spleen above.

    The kidneys differ in grey unless they are ``alike``.
    """
    labels = torch.zeros(SHAPE, dtype=torch.int16)
    shapes = [
        ((0.3, 0.3, 0.75), (0.2, 0.16, 0.18)),
        ((0.75, 0.3, 0.3), (0.17, 0.14, 0.22)),
        ((0.25, 0.3, 0.3), (0.17, 0.14, 0.22)),
        ((0.6, 0.72, 0.5), (0.3, 0.2, 0.35)),
    ]
    for label, (centre, radii) in enumerate(shapes, start=1):
        if label > 1 or not without_spleen:
            labels[torch.from_numpy(ellipsoid(SHAPE, centre, radii))] = label
    grey = torch.tensor([0.0, 250.0, 150.0 if alike else 90.0, 150.0, 200.0])
    return training_case(
        labels,
        count=len(CONCEPTS),
        id=str(without_spleen),
        known=torch.ones(len(CONCEPTS) + 1, dtype=torch.bool),
        spacing_mm=(4.0, 4.0, 4.0),
        image=grey[labels.long()] + 4 * noise(*SHAPE),
    )


@pytest.fixture(scope="module", name="trained")
def _trained():
    return train_on(phantom(), phantom(without_spleen=True), mirror=0.0)


def train_on(*cases, mirror):
    """A function that asks a task about a whole phantom after a short training, and its prompts."""
    config = DomainConfig(
        name="toy",
        datasets=[],
        modality="mr",
        spacing_mm=4.0,
        window=SHAPE,
        batch=2,
        real=1.0,
        mirror=mirror,
        geometry=GeometryConfig(rotation_deg=5, scale=(0.95, 1.05), stretch=0.03, elastic_mm=1),
        quality=dataclasses.replace(CLEAN, noise=0.05),
    )
    labels = apart(CONCEPTS)
    sampler = DomainSampler(config, index=0, labels=labels, cases=cases)
    tree = load_tree()
    names = labels.prompts
    assert names == (*CONCEPTS, "kidney")
    queries = build_queries([tree[c] for c in names], tiny_encoder(), modality="mr")
    network = tiny_network(
        backbone=BackboneConfig(channels=(8, 12, 16, 24), blocks=(1, 1, 1, 1)),
        query_features=TINY_QUERY,
        full_channels=12,
    )
    task = seeded(lambda: SegmentationTask(network, prompts=PromptConfig(masks=5)))
    task.set_domains([DomainPrompts({"mr": queries}, labels)])
    optimiser = torch.optim.AdamW(task.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=STEPS)
    for number in range(STEPS):
        batch = sampler.draw(number, torch.Generator().manual_seed(number))
        loss = torch.stack(list(task.losses(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    task.eval()

    def ask(case, *, mirrored=False):
        still = dataclasses.replace(
            config,
            batch=1,
            mirror=float(mirrored),
            geometry=GeometryConfig(rotation_deg=0, scale=(1, 1), stretch=0, elastic_mm=0),
            quality=CLEAN,
        )
        sampler = DomainSampler(still, index=0, labels=labels, cases=[case])
        batch = sampler.draw(0, torch.Generator().manual_seed(1))
        with torch.no_grad():
            decoded = task.network.decode(task.network.encode(batch.image), queries[None])
        masks = decoded.logits[0] > 0
        return dict(zip(names, masks, strict=True)), decoded.presence[0], batch.labels[0]

    return ask, names


def dice(a, b):
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.slow
def test_the_right_prompt_finds_its_shape(trained):
    ask, _ = trained
    masks, _, labels = ask(phantom())
    for label, concept in enumerate(CONCEPTS, start=1):
        assert dice(masks[concept], labels == label) >= 0.8, concept
    assert dice(masks["kidney"], (labels == 2) | (labels == 3)) >= 0.8


@pytest.mark.slow
def test_the_wrong_prompt_does_not(trained):
    ask, _ = trained
    masks, _, labels = ask(phantom())
    for asked in CONCEPTS:
        for label, other in enumerate(CONCEPTS, start=1):
            if other != asked:
                assert dice(masks[asked], labels == label) < 0.2, (asked, other)


@pytest.mark.slow
def test_sides_are_not_confused_after_training_with_mirrored_images():
    ask, _ = train_on(phantom(alike=True), mirror=0.5)
    for mirrored in (False, True):
        masks, _, labels = ask(phantom(alike=True), mirrored=mirrored)
        for side, own, other in (("right", 2, 3), ("left", 3, 2)):
            mask = masks[f"kidney.{side}"]
            assert dice(mask, labels == own) > 0.7, (side, mirrored)
            assert dice(mask, labels == other) < 0.1, (side, mirrored)


@pytest.mark.slow
def test_what_may_be_absent_seems_less_present_than_what_never_is(trained):
    ask, names = trained
    _, presence, _ = ask(phantom(without_spleen=True))
    spleen = names.index("spleen")
    others = [k for k in range(len(names)) if k != spleen]
    assert presence[spleen] < 0.5 < presence[others].min()


@pytest.mark.slow
def test_presence_can_be_learned_from_the_image():
    network = tiny_segmenter(
        tiny_network(backbone=BackboneConfig(channels=(8, 12, 16, 24), blocks=(1, 1, 1, 1)))
    ).train()
    cases = [phantom(), phantom(without_spleen=True)]
    images = torch.stack(
        [normalise_intensity(torch.from_numpy(case.image)[None], "mr") for case in cases]
    )
    queries = noise(1, 3, TINY_QUERY, seed=2).expand(2, -1, -1)
    target = torch.tensor([[1.0, 1, 1], [0, 1, 1]])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(250):
        features = network.encode(images)
        presence = network.presence(features, network.refine(features, queries))
        loss = binary_cross_entropy_with_logits(presence, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert presence[0, 0] > 2
    assert presence[1, 0] < -2
