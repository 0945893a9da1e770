"""Plans for fingerprints made up for the purpose."""

from dataclasses import fields
from itertools import pairwise
from math import prod

import fakes
import pytest
import yaml

from textseg.datasets.fingerprint import ConceptFacts, Facts, Fingerprint, Spread
from textseg.datasets.plan import LEAST_SIDE, LEAST_VOXELS, MOST_VOXELS, plan, step_cost
from textseg.errors import ModelError, ResourceError
from textseg.network.backbones import BackboneConfig
from textseg.network.model import NetworkConfig
from textseg.training.sampling import DomainConfig

NETWORK = NetworkConfig(backbone=BackboneConfig(channels=(8, 16, 32, 64), blocks=(1, 1, 1, 1)))
STRIDE = 8
PLENTY = 10**12


def spread(*numbers):
    """Percentiles 0, 10, 50, 90 and 100, or one number for all of them."""
    least, p10, median, p90, most = numbers if len(numbers) == 5 else numbers * 5
    return Spread(min=least, p10=p10, median=median, p90=p90, max=most)


def facts_of(
    spacing=(0.8, 0.8, 1.2), shape=(300, 280, 120), cases=30, volumes_ml=None, **changes
) -> Facts:
    spacings = [mm if isinstance(mm, Spread) else spread(mm) for mm in spacing]
    views = [size * mm.median for size, mm in zip(shape, spacings, strict=True)]
    volumes_ml = {"liver": 1500.0, "spleen": 200.0} if volumes_ml is None else volumes_ml
    known = {
        "cases": cases,
        "images": cases,
        "modalities": {"ct": {"": cases}},
        "orientations": {"RAS": cases},
        "shape": [spread(size) for size in shape],
        "spacing_mm": spacings,
        "field_of_view_mm": [spread(mm) for mm in views],
        "scanned_ml": cases * prod(views) / 1000,
        "voxels": cases * prod(shape),
        "bytes": 6 * cases * prod(shape),
        "intensities": {},
        "concepts": {
            concept: ConceptFacts(
                known=cases, present=cases, volume_ml=spread(ml), extent_mm=(9, 9, 9)
            )
            for concept, ml in volumes_ml.items()
        },
    }
    return Facts(**{**known, **changes})


def planned(memory_bytes=PLENTY, network=NETWORK, **changes):
    """The plan and its reasons, for facts with these changes."""
    facts = facts_of(**changes)
    found = plan(
        Fingerprint(datasets={"toy": facts}, total=facts),
        network=network,
        memory_bytes=memory_bytes,
        name="mine",
    )
    return found.domain, {choice.key: choice.reason for choice in found.choices}


def test_the_grid_has_the_median_spacing_in_two_digits():
    domain, reasons = planned(spacing=(0.7834, spread(0.5, 0.6, 0.9766, 1, 1.2), 1.25))
    assert domain["spacing_mm"] == [0.78, 0.98, 1.2]
    assert "0.783 x 0.977 x 1.25 mm" in reasons["spacing_mm"]


def test_thick_slices_give_way_to_the_thinner_ones_among_them():
    domain, reasons = planned(spacing=(0.7, 0.7, spread(1, 1.5, 5, 5, 5)))
    assert domain["spacing_mm"] == [0.7, 0.7, 1.5]
    assert "feet-head is more than 3 times coarser" in reasons["spacing_mm"]
    assert planned(spacing=(2, 2, spread(1, 1.5, 5, 5, 5)))[0]["spacing_mm"] == [2, 2, 5]


def test_thin_slices_are_no_finer_than_the_other_axes():
    domain, _ = planned(spacing=(0.7, 0.9, spread(0.2, 0.3, 5, 5, 5)))
    assert domain["spacing_mm"] == [0.7, 0.9, 0.9]


@pytest.mark.parametrize("volume_ml", [0.07, 0.031, 0.0042, 0.0005])
def test_the_smallest_concept_makes_the_coarsest_axes_finer(volume_ml):
    domain, reasons = planned(
        spacing=(1.0, 2.0, 4.5), volumes_ml={"liver": 900.0, "optic_chiasm": volume_ml}
    )
    spacing = domain["spacing_mm"]
    voxels = 1000 * volume_ml / prod(spacing)
    # two digits per axis round down by 9 % at the most
    assert LEAST_VOXELS <= voxels <= LEAST_VOXELS / 0.91**3
    assert max(spacing) < 4.5
    # an axis is made finer only once it is the coarsest
    assert spacing == sorted(spacing)
    assert spacing[0] == 1.0 or len(set(spacing)) == 1
    assert "optic_chiasm decides" in reasons["spacing_mm"]


def test_large_concepts_leave_the_grid_as_it_is():
    domain, reasons = planned(spacing=(1, 2, 3), volumes_ml={"liver": 900.0, "spleen": 0.12})
    assert domain["spacing_mm"] == [1, 2, 3]
    assert "spleen, the 10th percentile has 20 voxels" in reasons["spacing_mm"]


def test_a_window_that_fits_holds_the_field_of_view():
    domain, reasons = planned(spacing=(1, 1, 1), shape=(35, 51, 20))
    assert domain["window"] == [40, 56, 32]
    assert reasons["window"].endswith("all of it fits.")


@pytest.mark.parametrize("shape", [(300, 280, 120), (900, 60, 40), (90, 500, 500)])
@pytest.mark.parametrize("memory_bytes", [3 * 10**8, 10**9, 10**10, PLENTY])
def test_a_window_keeps_its_bounds(shape, memory_bytes):
    domain, _ = planned(memory_bytes, shape=shape, spacing=(1, 1, 1))
    window = domain["window"]
    assert all(side % STRIDE == 0 and side >= LEAST_SIDE for side in window)
    assert all(side < size + STRIDE for side, size in zip(window, shape, strict=True))
    assert prod(window) <= MOST_VOXELS
    step = domain["batch"] * prod(window)
    assert step_cost(NETWORK, num_concepts=2).bytes(step) <= memory_bytes


def test_a_window_has_the_proportions_of_the_field_of_view():
    domain, reasons = planned(shape=(600, 400, 200), spacing=(1, 1, 1))
    parts = [side / size for side, size in zip(domain["window"], (600, 400, 200), strict=True)]
    assert max(parts) - min(parts) < STRIDE / 200
    # one stride more along the longest axis would be too much
    x, y, z = domain["window"]
    assert (x + 3 * STRIDE) * (y + 2 * STRIDE) * (z + STRIDE) > MOST_VOXELS
    assert f"{MOST_VOXELS:,}" in reasons["window"]


def test_more_memory_makes_the_step_larger():
    steps = []
    for memory_bytes in (3 * 10**8, 6 * 10**8, 10**9, 4 * 10**9):
        domain, _ = planned(memory_bytes)
        steps.append(prod(domain["window"]) * domain["batch"])
    assert all(few < more for few, more in pairwise(steps))
    assert "75%" in planned(6 * 10**8)[1]["window"]


def test_too_little_memory_is_said_with_what_is_needed():
    with pytest.raises(ResourceError, match=r"E501.*32 voxels.*0\.001 GB.*--memory-gb"):
        planned(10**6)


@pytest.mark.parametrize(
    ("shape", "cases", "memory_bytes", "batch"),
    [
        ((32, 40, 48), 10_000, PLENTY, 8),  # small windows: as many as are useful
        ((32, 40, 48), 60, PLENTY, 3),  # 5 % of the voxels of sixty cases
        ((32, 40, 48), 7, PLENTY, 2),  # few cases, yet two
        ((640, 640, 640), 100, PLENTY, 2),  # the largest windows
        ((640, 640, 640), 100, 10**9, 1),  # a window that takes all the memory
    ],
)
def test_a_batch_follows_from_memory_window_and_number_of_cases(shape, cases, memory_bytes, batch):
    domain, _ = planned(memory_bytes, shape=shape, spacing=(1, 1, 1), cases=cases)
    assert domain["batch"] == batch


def test_cases_of_several_modalities_are_no_domain():
    with pytest.raises(ModelError, match=r"E406.*20 ct, 10 mr"):
        planned(modalities={"ct": {"": 20}, "mr": {"t1": 4, "t2": 6}})


def test_cases_without_labelled_voxels_are_no_domain():
    absent = ConceptFacts(known=30, present=0, volume_ml=None, extent_mm=None)
    with pytest.raises(ModelError, match="E406"):
        planned(concepts={"liver": absent})


@pytest.mark.parametrize(
    ("concepts", "mirror"),
    [
        (["liver"], 0.5),
        (["kidney.left", "kidney.right", "lung.middle_lobe.right"], 0.5),
        (["kidney.left", "liver"], 0.0),
    ],
)
def test_mirroring_needs_both_sides_labelled(concepts, mirror):
    domain, reasons = planned(volumes_ml=dict.fromkeys(concepts, 100.0))
    assert domain["mirror"] == mirror
    assert ("such as kidney.left" in reasons["mirror"]) == (mirror == 0)


@pytest.mark.parametrize(("cases", "every"), [(1, 0), (2, 5), (100, 5), (1000, 50)])
def test_a_fifth_of_the_cases_is_held_out_but_not_hundreds(cases, every):
    assert planned(cases=cases)[0]["hold_out_every"] == every


def test_label_maps_alone_are_synthesised_and_not_held_out():
    domain, _ = planned(images=0)
    assert (domain["real"], domain["hold_out_every"]) == (0.5, 0)
    assert planned()[0]["real"] == 1.0


def test_sequences_of_one_patient_are_said_to_stay_together():
    _, reasons = planned(modalities={"ct": {"arterial": 15, "venous": 15}})
    assert "of a patient stay together" in reasons["hold_out_every"]
    assert "15 arterial, 15 venous" in reasons["modality"]


def test_the_yaml_is_a_domain_with_the_reasons_above_the_choices():
    facts = facts_of()
    found = plan(
        Fingerprint(datasets={"toy": facts, "other": facts}, total=facts),
        network=NETWORK,
        memory_bytes=PLENTY,
        name="on: a #name",
    )
    text = found.to_yaml()
    (entry,) = yaml.safe_load(text)["data"]["domains"]
    assert entry == found.domain
    assert (entry["name"], entry["datasets"]) == ("on: a #name", ["toy", "other"])
    assert set(entry) <= {field.name for field in fields(DomainConfig)}
    said = " ".join(line.strip(" #") for line in text.splitlines() if line.strip().startswith("#"))
    assert all(choice.reason in said for choice in (*found.choices, *found.estimates))
    assert max(map(len, text.splitlines())) <= 100


def test_the_estimates_are_those_of_the_chosen_grid_and_step():
    facts = facts_of(spacing=(1, 1, 2), shape=(40, 48, 56), cases=9)
    found = plan(
        Fingerprint(datasets={"toy": facts}, total=facts),
        network=NETWORK,
        memory_bytes=PLENTY,
        name="mine",
    )
    memory, disk = (estimate.value for estimate in found.estimates)
    assert found.domain["spacing_mm"] == [1, 1, 2]
    assert disk == 3 * 9 * 40 * 48 * 56
    step = prod(found.domain["window"]) * found.domain["batch"]
    assert memory == step_cost(NETWORK, num_concepts=2).bytes(step)


WIDE = NetworkConfig(backbone=BackboneConfig(channels=(32, 64, 128, 256), blocks=(1, 2, 2, 2)))
DEEP = NetworkConfig(
    full_channels=48,
    least_channels=64,
    backbone=BackboneConfig(
        kind="residual_unet", channels=(1, 32, 64, 128, 256), blocks=(0, 1, 2, 2, 1)
    ),
)
STEERED = DEEP.model_copy(update={"fusion": "multiscale"})


@pytest.mark.parametrize(
    ("network", "side", "crops", "num_concepts", "measured_mb"),
    [
        (fakes.tiny_network(), 32, 1, 10, 99),
        (fakes.tiny_network(), 64, 3, 10, 360),
        (WIDE, 32, 1, 10, 244),
        (WIDE, 64, 1, 10, 442),
        (DEEP, 32, 1, 10, 250),
        (DEEP, 64, 1, 60, 423),
        (DEEP, 64, 3, 10, 685),
        (DEEP, 64, 3, 60, 954),
        (STEERED, 32, 1, 10, 396),
        (STEERED, 48, 1, 10, 906),
    ],
)
def test_the_memory_of_a_step_is_near_what_was_measured(
    network, side, crops, num_concepts, measured_mb
):
    cost = step_cost(network, num_concepts=num_concepts)
    # the growth of a CPU process; as near as the documentation says
    assert cost.bytes(crops * side**3) == pytest.approx(1e6 * measured_mb, rel=0.14)


def test_a_full_last_stage_takes_more_than_the_light_one():
    full = WIDE.model_copy(update={"light_full_resolution": False})
    costs = [step_cost(network, num_concepts=10).per_voxel for network in (WIDE, full)]
    assert costs[0] < costs[1]
    assert step_cost(DEEP, num_concepts=10).stride == 16
