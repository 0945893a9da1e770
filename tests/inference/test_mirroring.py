"""Looking a second time, in a mirror: sides stay where they are, and both answers are averaged."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from textseg.imaging import Grid
from textseg.imaging.volume import Geometry, Source, Volume
from textseg.inference import BoxedProbability, Probabilities
from textseg.inference.domain_pass import DomainPass
from textseg.inference.localising import Sought, run_where_likely
from textseg.inference.mirroring import Mirror, averaged_presence, left_right_axis
from textseg.inference.probabilities import averaged
from textseg.network.model import Decoded

WINDOW = (8, 4, 8)
SHAPE = (19, 7, 11)


class SkewedModel:
    """Answers that depend on the voxel and on the place in the window: no mirror image of itself.

    logits = query[0] * voxel + query[1] * ramp; presence = query[0] * largest voxel of the window.
    """

    granularity = 4

    def __init__(self, window=WINDOW):
        x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, w) for w in window), indexing="ij")
        self.ramp = x + 2 * y - 3 * z
        self.asked = []

    def encode(self, volume):
        return volume

    def decode(self, features, queries):
        self.asked.append(queries.shape[1])
        gain, slope = queries[..., None, None, None].unbind(2)  # B K 1 1 1
        logits = gain * features[:, :1] + slope * self.ramp
        return Decoded.of_logits(logits, queries[..., 0] * features.amax(dim=(1, 2, 3, 4))[:, None])


def scan_of(hu, axes="RAS", spacing=3.0):
    """A CT whose array lies as a working grid of these axes does."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, letter in enumerate(axes):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        matrix[row, axis] = spacing if letter in "RAS" else -spacing
    array = np.asarray(hu, dtype=np.float32)[None]
    return Volume(array, Geometry(array.shape[1:], matrix), "ct", Source(None, "array"))


def noisy(shape=SHAPE):
    return np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)


QUERIES = torch.tensor([[1.0, 0.0], [0.5, 1.5], [-1.0, 0.7]])


def pass_over(hu, *, axes="RAS", queries=QUERIES, mirror=None, **options):
    settings = {
        "network": SkewedModel(),
        "window": WINDOW,
        "preparation": "textseg",
        "precision": "float32",
    }
    volume, grid = scan_of(hu, axes), Grid((3.0, 3.0, 3.0), axes)
    return DomainPass(
        queries=queries, volume=volume, grid=grid, mirror=mirror, **{**settings, **options}
    )


def mirror_of(axis, queries=QUERIES, rows=(0, 1, 2), **options):
    return Mirror(axis, options.pop("network", SkewedModel()), rows, queries, **options)


@pytest.mark.parametrize("axes", ["RAS", "ASR", "PLI"])
@pytest.mark.parametrize("shape", [SHAPE, (5, 9, 6)])
def test_the_answer_on_a_flipped_scan_is_the_flipped_answer(axes, shape):
    axis = left_right_axis(axes)
    hu = noisy(shape)
    flipped = np.flip(hu, axis).copy()
    plain = pass_over(hu, axes=axes).run().probability.stacked()
    assert not torch.equal(
        pass_over(flipped, axes=axes).run().probability.stacked(), plain.flip(axis + 1)
    )
    here = pass_over(hu, axes=axes, mirror=mirror_of(axis)).run()
    there = pass_over(flipped, axes=axes, mirror=mirror_of(axis)).run()
    assert torch.equal(there.probability.stacked(), here.probability.stacked().flip(axis + 1))
    assert torch.equal(there.presence, here.presence)
    assert not torch.equal(here.probability.stacked(), plain)


def test_windows_of_air_are_skipped_where_the_mirror_shows_them():
    hu = noisy((27, 7, 11))
    hu[:15] = -1000
    here = pass_over(hu, mirror=mirror_of(0)).run()
    there = pass_over(hu[::-1].copy(), mirror=mirror_of(0)).run()
    assert here.skipped > 0
    assert torch.equal(there.probability.stacked(), here.probability.stacked().flip(1))


def test_the_answer_is_the_average_of_two_passes_done_by_hand():
    hu = noisy()
    seen = pass_over(hu).run()
    other = pass_over(hu[::-1].copy(), queries=QUERIES[[1, 0]]).run()  # the first two change places
    found = pass_over(hu, mirror=mirror_of(0, QUERIES[[1, 0]], rows=(0, 1))).run()
    here, there = (p.probability.stacked().numpy().astype(int) for p in (seen, other))
    expected = (here[:2] + there[:, ::-1] + 1) // 2
    values = found.probability.stacked().numpy()
    np.testing.assert_array_equal(values[:2], expected)
    np.testing.assert_array_equal(values[2], here[2])  # not asked again
    assert (here[:2] != there[:, ::-1]).mean() > 0.5
    assert found.probability.shape == SHAPE
    logits = [
        (log(p / (1 - p)) + log(q / (1 - q))) / 2
        for p, q in zip(seen.presence[:2].tolist(), other.presence.tolist(), strict=True)
    ]
    expected_presence = [*(1 / (1 + np.exp(-x)) for x in logits), seen.presence[2].item()]
    np.testing.assert_allclose(found.presence.numpy(), expected_presence, atol=1e-5)


def test_bytes_are_averaged_with_halves_rounded_up():
    every = torch.arange(256, dtype=torch.uint8)
    rows, columns = (t.contiguous()[None] for t in torch.meshgrid(every, every, indexing="ij"))
    box = (slice(0, 1), slice(0, 256), slice(0, 256))
    mean = averaged(BoxedProbability(rows, box), BoxedProbability(columns, box))
    expected = np.floor((rows.numpy().astype(float) + columns.numpy()) / 2 + 0.5)
    np.testing.assert_array_equal(mean.values.numpy(), expected)
    assert mean.values.dtype == torch.uint8


def test_boxes_that_do_not_meet_are_averaged_with_nothing():
    values = torch.zeros((2, 5, 3, 4), dtype=torch.uint8)
    values[0, 0, 1, 1], values[1, 4, 1, 2] = 200, 101
    first, other = (Probabilities.of(each[None]).boxed(0) for each in values)
    mean = averaged(first, other)
    assert mean.box == (slice(0, 5), slice(1, 2), slice(1, 3))
    assert mean.values.sum() == 100 + 51
    nothing = Probabilities(1, (5, 3, 4)).boxed(0)
    assert averaged(nothing, first).values.tolist() == [[[100]]]
    assert averaged(nothing, nothing).values.numel() == 0


def test_presence_that_is_certain_or_nil_is_averaged_too():
    one, other = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.9])
    mean = averaged_presence(one, other)
    assert mean[:3].tolist() == pytest.approx([1, 0.5, 0], abs=1e-6)
    assert mean[3].item() == pytest.approx(1 / (1 + np.exp((15.9424 - log(9)) / 2)), rel=1e-3)


def test_padding_behind_the_scan_stays_behind_it():
    volume = torch.arange(2 * 5 * 3 * 4).reshape(2, 5, 3, 4)
    image = mirror_of(0).image(volume, (3, 3, 2))
    assert torch.equal(image[:, :3, :, :2], volume[:, [2, 1, 0], :, :2])
    assert torch.equal(image[:, 3:], volume[:, 3:])
    assert torch.equal(image[..., 2:], volume[..., 2:])


@pytest.mark.parametrize("averaging", ["streamed", "published"])
def test_scans_that_are_cut_and_padded_as_for_sat_are_mirrored_too(averaging):
    hu = np.full((13, 9, 10), -500.0)
    hu[3:10, 2:5, 1:9] = np.abs(noisy((7, 3, 8))) + 1
    options = {"preparation": "sat", "averaging": averaging, "window": (8, 4, 8)}
    here = pass_over(hu, mirror=mirror_of(0), **options).run()
    there = pass_over(hu[::-1].copy(), mirror=mirror_of(0), **options).run()
    assert here.probability.shape == (7, 3, 8)
    values, images = (p.probability.stacked().int() for p in (here, there))
    # means and deviations are summed the other way round
    assert (images - values.flip(1)).abs().max() <= 1
    plain = pass_over(hu, **options).run().probability.stacked().int()
    assert (values - plain).abs().max() > 5


REGION = (slice(2, 9), slice(1, 6), slice(0, 5))


def test_inside_a_region_the_answer_is_that_of_the_whole_scan():
    shape = (40, 7, 12)
    hu = noisy(shape)
    full = pass_over(hu, mirror=mirror_of(0)).run()
    network = SkewedModel()
    part = pass_over(hu, network=network, mirror=mirror_of(0, network=network)).run(REGION)
    assert len(network.asked) < 2 * (full.windows - full.skipped)
    everywhere, confined = full.probability.stacked().int(), part.probability.stacked().int()
    inside = (slice(None), *REGION)
    # windows left out weigh 3/510 at most, 1/510 for each axis, and then both answers are rounded
    assert (everywhere[inside] - confined[inside]).abs().max() <= 2
    assert (everywhere[inside] > 0).any()
    confined[inside] = 0
    assert not confined.any()


class BoxModel(SkewedModel):
    """Finds what is brighter than 125 HU."""

    def decode(self, features, queries):
        self.asked.append(queries.shape[1])
        logits = 60 * (features[:, :1] - 0.5).expand(-1, queries.shape[1], -1, -1, -1)
        return Decoded.of_logits(logits, logits.amax(dim=(2, 3, 4)))


def test_the_region_of_a_prompt_is_looked_at_twice():
    hu = np.zeros((160, 20, 40))
    hu[40:50, 5:8, 4:9] = 200
    network = BoxModel()
    options = {"network": network, "queries": QUERIES[:1], "window": (16, 16, 16)}
    mirror = mirror_of(0, QUERIES[:1], rows=(0,), network=network)
    full, plain = pass_over(hu, mirror=mirror, **options), pass_over(hu, **options)
    coarse = replace(plain, grid=Grid((4.5, 4.5, 4.5)))
    sought = Sought(["liver"], threshold=0.5, presence_threshold=0.5)
    once, num_once = run_where_likely(plain, coarse, sought), len(network.asked)
    network.asked.clear()
    twice = run_where_likely(full, coarse, sought)
    assert twice.account.startswith("auto: ")
    assert twice.region == once.region
    num_coarse = coarse.num_windows()
    assert len(network.asked) - num_coarse >= 2 * (num_once - num_coarse)
    mask = twice.prediction.probability[0] > 127
    assert mask.sum() == 10 * 3 * 5
    assert torch.equal(mask, full.run().probability[0] > 127)


# What two looks take on top of the loaded model and the prepared scan, and what was planned for it.
MEASURED = """
import json, re
from pathlib import Path
import numpy as np
import torch
from textseg import Segmenter
from textseg.imaging import Grid
from textseg.imaging.volume import Geometry, Source, Volume
from textseg.inference.domain_pass import DomainPass
from textseg.inference.mirroring import Mirror

segmenter = Segmenter.from_pretrained("nano", precision="bfloat16")
network, window = segmenter.network, segmenter.manifest.domains[0].window

def resident(field):
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(field + r":\\s+(\\d+)", status).group(1))

def looking(shape, num, window):
    data = np.random.default_rng(0).normal(0, 100, (1, *shape)).astype(np.float32)
    queries = torch.randn(
        num, network.config.query_features, generator=torch.Generator().manual_seed(0)
    )
    return DomainPass(
        network,
        queries,
        Volume(data, Geometry(shape, np.eye(4)), "ct", Source(None, "array")),
        Grid((1.0, 1.0, 1.0)),
        window=window,
        preparation="textseg",
        precision="bfloat16",
        mirror=Mirror(0, network, tuple(range(num)), queries),
    )

looking((16, 16, 16), 100, (16, 16, 16)).run()
looks = looking((144, 96, 96), 100, window)
looks.prepared
Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
before = resident("VmRSS")
found = looks.run()
print(json.dumps({
    "taken": resident("VmHWM") - before,
    "planned": found.memory.estimate.total,
    "output": found.memory.estimate.output,
}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc"
)
def test_two_looks_take_what_is_planned_and_one_of_them_is_bytes():
    command = [sys.executable, "-c", MEASURED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["output"] == 2 * 100 * 144 * 96 * 96
    assert found["taken"] == pytest.approx(found["planned"], rel=0.15)
