"""MR-like torsos: shapes stay, brightness is drawn anew, and no signal comes from gas or cortex."""

from __future__ import annotations

import pytest
import torch

from textseg.training.torso_mr import BRIGHTNESS, FAT, SEQUENCES, brightness_of, torso_mr

CONCEPTS = ("liver", "aorta", "vertebra.l3")
AIR, FAT_CT, MUSCLE_CT, CORTEX = -1000.0, -100.0, 50.0, 600.0


@pytest.fixture(name="torso")
def _torso():
    """Slabs along x: air, fat, muscle, liver, aorta, vertebra, its cortex."""
    hounsfield = torch.tensor([AIR, FAT_CT, MUSCLE_CT, 60.0, 180.0, 200.0, CORTEX])
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 3])
    image = hounsfield[:, None, None].expand(7, 12, 12)[None].contiguous()
    return image, labels[:, None, None].expand(7, 12, 12).contiguous()


def drawn(torso, seed):
    generator = torch.Generator().manual_seed(seed)
    return torso_mr(*torso, concepts=CONCEPTS, generator=generator)[0].mean((1, 2))


def test_air_is_dark_and_compact_bone_darker_than_marrow(torso):
    for seed in range(40):
        slabs = drawn(torso, seed)
        assert slabs[0] < 0.03
        assert slabs[6] < max(0.5 * float(slabs[5]), 0.1)


def test_the_same_seed_gives_the_same_image_and_others_another(torso):
    assert torch.equal(drawn(torso, 3), drawn(torso, 3))
    assert not torch.equal(drawn(torso, 3), drawn(torso, 4))


def test_most_images_show_bright_or_suppressed_fat_beside_dark_muscle(torso):
    slabs = torch.stack([drawn(torso, seed) for seed in range(200)])
    fat, muscle = slabs[:, 1], slabs[:, 2]
    assert 0.5 < float(((fat > 0.6) & (muscle < 0.4)).float().mean()) < 0.8
    assert 0.15 < float((fat < 0.4).float().mean()) < 0.6


def test_organs_take_any_brightness_and_flow_is_mostly_dark(torso):
    slabs = torch.stack([drawn(torso, seed) for seed in range(200)])
    liver, aorta = slabs[:, 3], slabs[:, 4]
    assert float(liver.min()) < 0.2
    assert float(liver.max()) > 0.8
    assert float(aorta.median()) < float(liver.median())


def test_every_brightness_is_one():
    assert all(0 <= value <= 1 for prior in (*BRIGHTNESS.values(), FAT) for value in prior)
    assert sum(SEQUENCES.values()) < 1
    assert brightness_of("adrenal_gland.left") == brightness_of("thyroid_gland")
