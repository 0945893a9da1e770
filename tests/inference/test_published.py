"""The averaging of the published SAT: its sums, its Gaussian, its limits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from textseg.errors import Cancelled, ModelError, ResourceError
from textseg.inference import plan_windows, segment_as_published
from textseg.inference.published import average_as_published, published_importance

WINDOW = (8, 4, 6)


class Decoded(NamedTuple):
    logits: torch.Tensor
    presence: torch.Tensor


class RampModel:
    """logits = query[0] * voxel + query[1] * ramp, which depends on the place in the window."""

    granularity = 2

    def __init__(self):
        axes = [torch.linspace(-1, 1, size) for size in WINDOW]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        self.ramp = x + 2 * y - 3 * z
        self.num_encoded = 0
        self.chunks = []

    def encode(self, volume):
        self.num_encoded += 1
        return volume

    def decode(self, features, queries):
        self.chunks.append(queries.shape[1])
        gain, slope = queries[..., None, None, None].unbind(2)  # B K 1 1 1
        return Decoded(gain * features[:, :1] + slope * self.ramp, queries[..., 0])


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def averaged_one_voxel_at_a_time(volume, queries):
    """The oracle: for each voxel, the mean over its windows, in float64."""
    weight = published_importance(WINDOW).double().numpy()
    ramp = RampModel().ramp.double().numpy()
    total = np.zeros((len(queries), *volume.shape[1:]))
    for index in np.ndindex(*volume.shape[1:]):
        weights = 0.0
        for start in plan_windows(tuple(volume.shape[1:]), WINDOW):
            place = tuple(np.array(index) - start)
            if any(not 0 <= at < size for at, size in zip(place, WINDOW, strict=True)):
                continue
            weights += weight[place]
            for row, (gain, slope) in enumerate(queries.double().tolist()):
                logit = gain * float(volume[0, *index]) + slope * ramp[place]
                total[row, *index] += weight[place] / (1 + np.exp(-logit))
        total[:, *index] /= weights
    return total


@pytest.mark.parametrize("shape", [(8, 4, 6), (11, 9, 7), (8, 10, 6)])
def test_the_average_is_that_of_every_voxel_by_itself(shape):
    volume, queries = numbers(1, *shape), numbers(3, 2, seed=1)
    found = average_as_published(RampModel(), volume, queries, window=WINDOW)
    assert found.dtype == torch.float32
    wanted = averaged_one_voxel_at_a_time(volume, queries)
    np.testing.assert_allclose(found, wanted, atol=1e-6)  # sums of at most 8 float32


def test_the_answer_is_the_average_in_steps_of_8_bits_and_its_surest_voxel():
    volume, queries = numbers(1, 11, 9, 7), numbers(3, 2, seed=1)
    average = average_as_published(RampModel(), volume, queries, window=WINDOW)
    model = RampModel()
    found = segment_as_published(model, volume, queries, window=WINDOW)
    assert found.probability.stacked().dtype == torch.uint8
    # half a step, and rounding of float32
    assert float((found.probability.stacked() / 255 - average).abs().max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(found.presence, average.flatten(1).amax(1))
    assert (found.windows, found.skipped, found.precision) == (2 * 4 * 2, 0, "float32")
    assert model.num_encoded == found.windows
    assert not found.probability.stacked().is_inference()


def test_no_window_is_skipped_where_there_is_no_body():
    volume, queries = numbers(1, 11, 9, 7), numbers(2, 2, seed=1)
    nowhere = torch.zeros(11, 9, 7, dtype=torch.bool)
    asked = [
        segment_as_published(RampModel(), volume, queries, window=WINDOW, body=body)
        for body in (None, nowhere)
    ]
    assert torch.equal(asked[0].probability.stacked(), asked[1].probability.stacked())


@pytest.mark.parametrize(("at_once", "chunks"), [(1, [1] * 5), (2, [2, 2, 1]), (32, [5])])
def test_prompts_are_decoded_a_few_at_a_time_with_the_same_answer(at_once, chunks):
    volume, queries = numbers(1, *WINDOW), numbers(5, 2, seed=1)
    model = RampModel()
    found = segment_as_published(model, volume, queries, window=WINDOW, prompts_per_pass=at_once)
    assert model.chunks == chunks
    together = segment_as_published(RampModel(), volume, queries, window=WINDOW)
    assert torch.equal(found.probability.stacked(), together.probability.stacked())


def test_no_prompt_is_no_mask():
    found = segment_as_published(RampModel(), numbers(1, *WINDOW), torch.zeros(0, 2), window=WINDOW)
    assert found.probability.stacked().shape == (0, *WINDOW)
    assert found.presence.shape == (0,)


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_another_precision_is_refused(precision):
    model = RampModel()
    with pytest.raises(ModelError, match="float32"):
        segment_as_published(
            model, numbers(1, *WINDOW), numbers(1, 2), window=WINDOW, precision=precision
        )
    assert model.num_encoded == 0


def test_progress_counts_up_to_the_number_of_windows():
    seen = []
    segment_as_published(
        RampModel(),
        numbers(1, 11, 9, 7),
        numbers(1, 2),
        window=WINDOW,
        progress=lambda done, todo: seen.append((done, todo)),
    )
    assert seen == [(done, 16) for done in range(1, 17)]


def test_cancelling_stops_between_windows():
    model = RampModel()
    with pytest.raises(Cancelled, match="after 3 of 16 windows"):
        segment_as_published(
            model,
            numbers(1, 11, 9, 7),
            numbers(1, 2),
            window=WINDOW,
            cancel=lambda: model.num_encoded == 3,
        )
    assert model.num_encoded == 3


def test_totals_that_cannot_fit_are_refused_before_anything_is_taken():
    model = RampModel()
    endless = torch.zeros(1, 2).expand(10**9, 2)  # two numbers in memory, and a mask for each row
    with pytest.raises(ResourceError, match="GiB are free") as caught:
        segment_as_published(model, numbers(1, *WINDOW), endless, window=WINDOW)
    assert caught.value.code == "E501"
    assert model.num_encoded == 0


def test_the_estimate_counts_the_totals_of_the_whole_volume():
    volume = numbers(1, 11, 9, 7)
    found = segment_as_published(RampModel(), volume, numbers(5, 2), window=WINDOW)
    assert found.memory.estimate.accumulators == 4 * (5 + 1) * 11 * 9 * 7
    assert found.memory.estimate.output == found.probability.stacked().nbytes


class GreedyModel(RampModel):
    def encode(self, volume):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_runs_out_on_the_way_is_told_as_such():
    with pytest.raises(ResourceError, match=r"E501.*estimated at"):
        segment_as_published(GreedyModel(), numbers(1, *WINDOW), numbers(1, 2), window=WINDOW)


def test_the_corners_of_the_gaussian_are_raised_to_its_smallest_number_above_zero():
    window = (32, 24, 16)
    axes = [np.exp(-0.5 * ((np.arange(n) - n // 2) / (n / 8)) ** 2) for n in window]
    exact = 10 * axes[0][:, None, None] * axes[1][:, None] * axes[2]
    halved = exact.astype(np.float16)
    lost = halved == 0
    assert lost[0, 0, 0]
    assert 0 < lost.mean() < 0.1
    found = published_importance(window).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[~lost], halved[~lost].astype(np.float32))
    np.testing.assert_array_equal(found[lost], halved[~lost].min())
    assert np.unravel_index(found.argmax(), window) == (16, 12, 8)
    assert found.max() == 10
