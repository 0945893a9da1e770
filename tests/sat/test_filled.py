"""The filled checkpoints hold what SAT's do, under the same keys."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch

from tests.sat.filled import canonical, case_image, fill, save_checkpoint, state_shapes

PARAMETERS = {
    "nano": {
        "backbone": 73_919_040,
        "projection_layer": 1_967_616,
        "transformer_decoder": 33_094_656,
        "mid_mask_embed_proj": 1_082_944,
        "mask_embed_proj": 213_312,
    },
    "pro": {
        "backbone": 435_435_136,
        "projection_layer": 6_686_976,
        "transformer_decoder": 33_094_656,
        "mid_mask_embed_proj": 1_526_016,
        "mask_embed_proj": 344_576,
    },
}


@pytest.mark.parametrize("kind", ["nano", "pro"])
def test_each_part_has_as_many_parameters_as_the_original(kind):
    shapes = {canonical(name): shape for name, shape in state_shapes(kind).items()}
    counts = Counter()
    for name, shape in shapes.items():
        counts[name.partition(".")[0]] += math.prod(shape)
    assert counts == PARAMETERS[kind]


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["nano", "pro", "text"])
def test_keys_and_shapes_are_those_of_the_original(kind, shared_folder):
    listed = shared_folder / "fixtures" / "sat" / f"{kind}_state_shapes.json"
    tensors = json.loads(listed.read_text())["tensors"]
    assert state_shapes(kind) == {name: tuple(facts["shape"]) for name, facts in tensors.items()}


def test_models_for_inference_lack_the_heads_of_deep_supervision_and_nothing_else():
    missing = state_shapes("nano").keys() - state_shapes("nano", deep_supervision=False).keys()
    assert len(missing) == 3 * 4
    assert all(name.startswith("module.mid_mask_embed_proj.") for name in missing)


def test_a_tensor_is_the_same_under_each_of_its_names(nano_state):
    stage = "module.backbone.encoder.stages.0.0.convs.1"
    for name, alias in (("conv", "all_modules.0"), ("norm", "all_modules.1")):
        assert nano_state[f"{stage}.{name}.bias"] is nano_state[f"{stage}.{alias}.bias"]
    own = fill(f"{stage}.all_modules.1.bias", (64,))
    assert torch.equal(own, nano_state[f"{stage}.norm.bias"])


def test_positions_are_counted_from_zero(text_state):
    positions = text_state["module.text_tower.biolord.embeddings.position_ids"]
    assert torch.equal(positions, torch.arange(514)[None])


def test_the_three_channels_of_a_patch_are_equal():
    image = case_image((5, 7, 3))
    assert image.shape == (3, 5, 7, 3)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize(("kind", "has_optimizer"), [("nano", True), ("text", False)])
def test_a_saved_checkpoint_is_the_container_of_the_original(
    kind, has_optimizer, nano_state, tmp_path
):
    stage = "module.backbone.decoder.stages.4.convs.0"
    some = {name: nano_state[name] for name in nano_state if name.startswith(stage)}
    save_checkpoint(tmp_path / "model.pth", kind, step=7, state=some)
    container = torch.load(tmp_path / "model.pth", weights_only=True)
    assert container["step"] == 7
    assert ("optimizer_state_dict" in container) == has_optimizer
    state = container["model_state_dict"]
    assert list(state) == list(some)
    assert all(torch.equal(state[name], some[name]) for name in some)
    kernels = (state[f"{stage}.conv.weight"], state[f"{stage}.all_modules.0.weight"])
    assert kernels[0].data_ptr() == kernels[1].data_ptr()
