"""A second look in a mirror, through the main flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import tiny_encoder, tiny_segmenter
from levels import level_segmenter

from textseg import Segmenter
from textseg.cli.jobs import Question
from textseg.inference.mirroring import averaged_presence
from textseg.network.weights import Domain
from textseg.outputs.manifest import read_manifest

HU = {"liver": -90, "kidney.left": 120, "kidney.right": 240}
TORSO = Domain(
    name="torso-ct",
    spacing_mm=(3.0, 3.0, 3.0),
    window=(16, 24, 12),
    modalities=("ct",),
    concepts=tuple(HU),
)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SHAPE = (21, 13, 17)
PROMPTS = ["liver", "left kidney", "right kidney"]


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(40, 60, SHAPE).astype(np.float32)


def ask(segmenter, array, **options):
    return segmenter((array, AFFINE), PROMPTS, modality="ct", **options)


def test_the_second_look_asks_for_the_other_side(noise):
    segmenter = level_segmenter(HU, TORSO)
    ask(segmenter, noise)
    looks = len(segmenter.network.asked)
    segmenter.network.asked.clear()
    progress = []
    ask(segmenter, noise, mirror=True, progress=lambda done, todo: progress.append((done, todo)))
    straight = ["liver", "kidney.left", "kidney.right"]
    mirrored = ["liver", "kidney.right", "kidney.left"]
    assert segmenter.network.asked == [straight] * looks + [mirrored] * looks
    assert progress == 2 * [(k, looks) for k in range(1, looks + 1)]


def test_both_looks_are_averaged(noise):
    domains = level_segmenter(HU, TORSO, mask_threshold=0.05, presence_threshold=0.0).manifest
    segmenter = Segmenter(
        tiny_segmenter(), tiny_encoder(), domains, device="cpu", precision="float32"
    )
    plain, mirrored = ask(segmenter, noise), ask(segmenter, noise, mirror=True)
    turned = ask(segmenter, np.ascontiguousarray(noise[::-1]))
    others = {"liver": "liver", "left kidney": "right kidney", "right kidney": "left kidney"}
    for prompt, other in others.items():
        looks = [found.presence for found in (plain[prompt], turned[other])]
        one, two = (torch.tensor([p]) for p in looks)
        assert mirrored[prompt].presence == pytest.approx(averaged_presence(one, two).item())
        assert mirrored[prompt].presence != plain[prompt].presence
        # what both see is seen, and what neither sees is not
        seen, seen_turned = plain[prompt].mask, turned[other].mask[::-1]
        assert mirrored[prompt].mask[seen & seen_turned].all()
        assert not mirrored[prompt].mask[~seen & ~seen_turned].any()


def test_the_manifest_tells_how_it_was_asked_in_the_words_of_the_command_line(noise, tmp_path):
    segmenter = level_segmenter(HU, TORSO)
    options = {"threshold": np.float32(0.25), "keep_islands": True, "mirror": True}
    found = ask(segmenter, noise, **options)
    question = Question(
        tuple(PROMPTS), modality="ct", instances=True, least_instance_ml=2, **options
    )
    manifest = found.save(tmp_path / "out", instances=True, least_instance_ml=2)
    assert read_manifest(tmp_path / "out").run.settings == question.settings()
    assert manifest.run.settings["mirror"] is True
    plain = ask(segmenter, noise).save(tmp_path / "plain").run.settings
    assert plain == Question(tuple(PROMPTS), modality="ct").settings()
