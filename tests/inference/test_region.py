"""Segmenting only where prompts are likely: as exact as everywhere, or everywhere."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textseg.imaging import Grid
from textseg.imaging.grid import plan_grid
from textseg.imaging.volume import Geometry, Source, Volume
from textseg.inference import Probabilities, segment_windows
from textseg.inference.domain_pass import DomainPass
from textseg.inference.localising import Sought, run_where_likely
from textseg.inference.region import MARGIN_MM, CoarseView, carried_over, grown, touched_walls
from textseg.inference.windows import WindowGrid, settled_box, touching_windows
from textseg.network.model import Decoded

WINDOW = (16, 8, 16)
SHAPE = (48, 23, 70)
REGION = (slice(0, 5), slice(9, 13), slice(30, 44))


class PlacedModel:
    """Answers of 0 or 1 that depend on the voxel and, at random, on the place in the window."""

    granularity = 4

    def __init__(self):
        self.num_encoded = 0
        self.noise = torch.randn(WINDOW, generator=torch.Generator().manual_seed(3))

    def encode(self, volume):
        self.num_encoded += 1
        return volume

    def decode(self, features, queries):
        logits = 60 * (features[:, :1] + self.noise + queries[..., 0, None, None, None])
        return Decoded.of_logits(logits, logits.amax(dim=(2, 3, 4)))


def random_volume(shape=SHAPE):
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))


def test_inside_the_region_the_answer_is_that_of_the_full_pass():
    volume, queries = random_volume(), torch.tensor([[0.0], [0.4]])
    full = segment_windows(PlacedModel(), volume, queries, window=WINDOW)
    model = PlacedModel()
    part = segment_windows(model, volume, queries, window=WINDOW, region=REGION)
    assert model.num_encoded == part.windows - part.skipped < full.windows
    everywhere, confined = full.probability.stacked().int(), part.probability.stacked().int()
    inside = (slice(None), *REGION)
    # windows left out weigh 3/510 at most, 1/510 for each axis, and then both answers are rounded
    assert (everywhere[inside] - confined[inside]).abs().max() <= 2
    assert (everywhere[inside] > 0).any()
    confined[inside] = 0
    assert not confined.any()


def test_a_body_mask_skips_the_same_windows_as_in_the_full_pass():
    volume, queries = random_volume(), torch.tensor([[0.0]])
    body = torch.zeros(SHAPE, dtype=torch.bool)
    body[:, :12, 40:] = True
    full = segment_windows(PlacedModel(), volume, queries, window=WINDOW, body=body)
    part = segment_windows(PlacedModel(), volume, queries, window=WINDOW, body=body, region=REGION)
    difference = full.probability[0].int() - part.probability[0].int()
    assert difference[REGION].abs().max() <= 2
    assert part.skipped > full.skipped > 0


def test_a_region_of_everything_changes_nothing():
    volume, queries = random_volume(), torch.tensor([[0.2]])
    region = tuple(slice(0, n) for n in SHAPE)
    full = segment_windows(PlacedModel(), volume, queries, window=WINDOW)
    part = segment_windows(PlacedModel(), volume, queries, window=WINDOW, region=region)
    assert torch.equal(full.probability[0], part.probability[0])
    assert part.skipped == 0


@st.composite
def boxes(draw):
    spans = []
    for size in SHAPE:
        start = draw(st.integers(0, size - 1))
        spans.append(slice(start, draw(st.integers(start + 1, size))))
    return tuple(spans)


@given(box=boxes())
def test_a_settled_region_needs_no_other_windows_and_one_voxel_more_does(box):
    grid = WindowGrid.plan(SHAPE, WINDOW, 0.5)
    settled = settled_box(grid, box)
    touching = touching_windows(grid, box)
    np.testing.assert_array_equal(touching_windows(grid, settled), touching)
    for axis, (inner, outer) in enumerate(zip(box, settled, strict=True)):
        assert outer.start <= inner.start < inner.stop <= outer.stop
        for start, stop in ((outer.start - 1, outer.stop), (outer.start, outer.stop + 1)):
            if start >= 0 and stop <= SHAPE[axis]:
                more = tuple(slice(start, stop) if a == axis else settled[a] for a in range(3))
                assert touching_windows(grid, more).sum() > touching.sum()


SCAN = Geometry(
    (50, 41, 33), np.array([[-1.5, 0, 0, 9], [0, 0, 2, 1], [0, -3, 0, 7], [0, 0, 0, 1]])
)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SLA"])
def test_a_box_is_carried_over_to_a_grid_of_other_voxels_axes_and_crop(axes):
    coarse = plan_grid(SCAN, Grid((4.5, 4.5, 4.5)))
    fine = plan_grid(SCAN, Grid((2.0, 3.0, 2.5), axes)).cropped(
        (slice(3, 20), slice(1, 20), slice(2, 30))
    )
    box = (slice(5, 9), slice(2, 3), slice(11, 15))
    carried = carried_over(box, coarse, fine)
    low, high = (np.array([getattr(part, end) for part in box]) - 0.5 for end in ("start", "stop"))
    starts = np.array([part.start for part in fine.crop])
    voxels = np.stack(
        np.meshgrid(*(np.arange(-5, 60) for _ in range(3)), indexing="ij"), -1
    ).reshape(-1, 3)
    there = coarse.target.to_voxel(fine.target.to_world(voxels + starts))
    centred = ((there > low) & (there < high)).all(axis=1)
    assert centred.any()
    holds = np.array([[part.start, part.stop - 1] for part in carried]).T
    found = np.stack([voxels[centred].min(axis=0), voxels[centred].max(axis=0)])
    # voxels whose middle is inside are in the box, and it ends at most one voxel later
    assert (holds[0] <= found[0]).all()
    assert (found[1] <= holds[1]).all()
    assert np.abs(holds - found).max() <= 1


def test_a_margin_grows_the_sides_that_are_named_and_stops_at_the_grid():
    grid = plan_grid(SCAN, Grid((3.0, 3.0, 3.0)))
    box = (slice(9, 12), slice(12, 13), slice(1, 2))
    x, y, z = grown(box, grid)
    margin = round(MARGIN_MM / 3)
    assert (x.start, x.stop) == (0, min(22, grid.shape[0]))
    assert (y.start, y.stop) == (12 - margin, min(13 + margin, grid.shape[1]))
    assert z.start == 0
    sides = ((False, False), (True, False), (False, False))
    assert grown(box, grid, sides) == (box[0], slice(12 - margin, 13), box[2])


def test_only_masks_at_walls_inside_the_volume_touch_the_region():
    region = (slice(0, 6), slice(2, 8), slice(3, 10))
    values = torch.zeros((2, 9, 8, 12), dtype=torch.uint8)
    values[0, 0:3, 4:8, 4:6] = 200  # at the volume's own first X and last Y
    shape = tuple(values.shape[1:])

    def touched():
        return touched_walls(Probabilities.of(values), region, threshold=0.5, shape=shape)

    assert touched() == ((False, False),) * 3
    values[1, 5, 3, 3] = 127  # not above the threshold
    assert touched() == ((False, False),) * 3
    values[1, 5, 3, 3] = 128
    assert touched() == ((False, True), (False, False), (True, False))


class BoxModel:
    """Finds what is brighter than 0.5, with a presence of its brightest voxel (-1..1 to 0..1)."""

    granularity = 4

    def encode(self, volume):
        return volume

    def decode(self, features, queries):
        logits = 60 * (features[:, :1] - 0.5).expand(-1, queries.shape[1], -1, -1, -1)
        return Decoded.of_logits(logits, logits.amax(dim=(2, 3, 4)))


class ShortSighted(BoxModel):
    """Sees only the voxels that are brighter than 0.9."""

    def decode(self, features, queries):
        return super().decode(features - 0.4, queries)


class Blind(BoxModel):
    """Is sure that something is there, but sees no place."""

    def decode(self, features, queries):
        decoded = super().decode(features, queries)
        return Decoded.of_logits(torch.full_like(decoded.logits, -60.0), decoded.presence)


STRUCTURE = (slice(4, 9), slice(5, 8), slice(40, 50))


def scan_of(structure=STRUCTURE, *, core=None):
    """A CT of water with a bright structure, brightest in its core."""
    hu = np.zeros((1, 40, 20, 160), dtype=np.float32)
    hu[(0, *structure)] = 200
    hu[(0, *(core or structure))] = 290
    geometry = Geometry(hu.shape[1:], np.diag([3.0, 3.0, 3.0, 1.0]))
    return Volume(hu, geometry, "ct", Source(None, "array"))


def pass_over(volume, *, scale=1.0, network=None, window=(16, 16, 16), count=1):
    return DomainPass(
        network or BoxModel(),
        torch.zeros((count, 1)),
        volume,
        Grid((3.0 * scale,) * 3),
        window=window,
        preparation="textseg",
        precision="float32",
    )


LIVER = Sought(["liver"], threshold=0.5, presence_threshold=0.5)


def test_the_mask_of_a_confined_pass_is_that_of_the_full_pass():
    volume = scan_of()
    full = pass_over(volume)
    found = run_where_likely(full, pass_over(volume, scale=1.5), LIVER)
    expected = full.run()
    assert found.account.startswith("auto: ")
    run = found.prediction.windows - found.prediction.skipped
    assert f"auto: {run} of {expected.windows} windows, " in found.account
    assert run < expected.windows / 2
    assert torch.equal(found.prediction.probability[0] > 127, expected.probability[0] > 127)
    assert (expected.probability[0] > 127).sum() == 5 * 3 * 10
    assert found.prediction.timings_s["localise"] > 0


def test_a_mask_that_ends_at_the_wall_grows_the_region():
    volume = scan_of((slice(4, 9), slice(5, 8), slice(40, 72)), core=STRUCTURE)
    full, coarse = pass_over(volume), pass_over(volume, scale=1.5, network=ShortSighted())
    found = run_where_likely(full, coarse, LIVER)
    assert " then " in found.account
    assert torch.equal(found.prediction.probability[0] > 127, full.run().probability[0] > 127)
    assert found.region[2].stop > 72


def test_a_mask_that_ends_at_every_wall_is_sought_everywhere():
    volume = scan_of((slice(4, 9), slice(5, 8), slice(0, 160)), core=STRUCTURE)
    full, coarse = pass_over(volume), pass_over(volume, scale=1.5, network=ShortSighted())
    found = run_where_likely(full, coarse, LIVER)
    assert found.account.startswith("off: ")
    assert found.region is None
    assert torch.equal(found.prediction.probability[0], full.run().probability[0])


def test_a_mask_at_the_wall_of_the_volume_needs_no_growth():
    volume = scan_of((slice(0, 5), slice(17, 20), slice(150, 160)))
    full = pass_over(volume)
    found = run_where_likely(full, pass_over(volume, scale=1.5), LIVER)
    assert found.account.startswith("auto: ")
    assert " then " not in found.account
    assert torch.equal(found.prediction.probability[0] > 127, full.run().probability[0] > 127)


def test_a_structure_that_the_region_lacks_is_sought_everywhere():
    volume = scan_of()
    full, coarse = pass_over(volume, network=Blind()), pass_over(volume, scale=1.5)
    found = run_where_likely(full, coarse, LIVER)
    assert found.account == "off: liver is not where the coarse pass saw it"


@pytest.mark.parametrize(
    ("coarse_options", "bright", "reason"),
    [
        ({"network": Blind()}, True, "off: liver: no voxel of the coarse pass is likely"),
        ({}, False, "off: liver: coarse presence 0.00 is below 0.90"),
        ({"scale": 0.5}, True, "off: {} windows, too few to save any"),
    ],
)
def test_a_coarse_pass_in_doubt_or_too_dear_confines_nothing(coarse_options, bright, reason):
    volume = scan_of()
    if not bright:
        volume = replace(volume, data=np.zeros_like(volume.data))
    full = pass_over(volume)
    found = run_where_likely(full, pass_over(volume, **{"scale": 1.5, **coarse_options}), LIVER)
    assert found.account == reason.format(prod(full.windows.counts))
    assert found.region is None
    assert torch.equal(found.prediction.probability[0], full.run().probability[0])


def test_a_region_of_all_windows_confines_nothing():
    volume = scan_of((slice(4, 36), slice(5, 8), slice(5, 155)))
    full = pass_over(volume)
    found = run_where_likely(full, pass_over(volume, scale=1.5), LIVER)
    assert found.account == f"off: the region needs all {full.num_windows()} windows"


def test_the_region_holds_every_structure():
    values = torch.zeros((2, 30, 30, 60), dtype=torch.uint8)
    values[0, 10:12, 10:12, 12:14] = 255
    values[1, 20:22, 10:12, 40] = 14  # likely, by a little more than 0.05
    values[1, 1, 1, 1] = 12  # not likely
    grid = plan_grid(Geometry((30, 30, 60), np.diag([3.0, 3.0, 3.0, 1.0])), Grid((3.0, 3.0, 3.0)))
    presence = torch.tensor([0.95, 0.9])
    view = CoarseView(["liver", "spleen"], Probabilities.of(values), presence, grid)
    assert view.doubt(0.5) is None
    assert view.region(grid, 0.5) == (slice(0, 30), slice(0, 22), slice(2, 51))
    assert view.region(grid, 0.04)[2] == slice(0, 51)
    unsure = replace(view, presence=torch.tensor([0.95, 0.62]))
    assert unsure.doubt(0.5) == "spleen: coarse presence 0.62 is below 0.90"
