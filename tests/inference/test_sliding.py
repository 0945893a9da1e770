"""Streaming windows: the blended answer, what it must not depend on, and its limits."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import Cancelled, ModelError, ResourceError
from textseg.inference import plan_windows, segment_windows
from textseg.network.model import Decoded

WINDOW = (8, 4, 8)
HALF_STEP = 0.5 / 255
# totals up to one are rounded by 2^-12 at most, once for each of the 8 windows that share a voxel,
# or 27 where the last window was shifted back, of which most weigh next to nothing
HALF_PRECISION = 8 * 2**-12


class LinearModel:
    """logits = query[0] * voxel + query[1] + query[2] * ramp; presence = query[0] * largest voxel.

    The ramp depends on the place in the window, so that with query[2] != 0 the answer depends on
    how windows are weighted; with query[2] == 0 the blended answer is the pointwise one.
    """

    granularity = 4

    def __init__(self, window=WINDOW):
        axes = [torch.linspace(-1, 1, w) for w in window]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        self.ramp = x + 2 * y - 3 * z
        self.num_encoded = 0
        self.chunks = []
        self.inputs = []

    def encode(self, volume):
        self.num_encoded += 1
        self.inputs.append(volume.clone())
        return volume

    def decode(self, features, queries):
        self.chunks.append(queries.shape[1])
        gain, offset, slope = queries[..., None, None, None].unbind(2)  # B K 1 1 1
        logits = gain * features[:, :1] + offset + slope * self.ramp
        return Decoded.of_logits(logits, queries[..., 0] * features.amax(dim=(1, 2, 3, 4))[:, None])


def random_volume(shape, *, seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn((channels, *shape), generator=generator)


def random_queries(count, *, seed=1, slope=1.0):
    queries = torch.randn((count, 3), generator=torch.Generator().manual_seed(seed))
    queries[:, 2] *= slope
    return queries


def blend_in_full(model, volume, queries, *, window=WINDOW, overlap=0.5):
    """The oracle: pad, run every window for all prompts, sum values and weights, divide."""
    pads = [max(w - n, 0) for n, w in zip(volume.shape[1:], window, strict=True)]
    before = [pad // 2 for pad in pads]
    padded = np.full(
        (len(volume), *(n + p for n, p in zip(volume.shape[1:], pads, strict=True))),
        volume.amin().item(),
    )
    inside = tuple(slice(b, b + n) for b, n in zip(before, volume.shape[1:], strict=True))
    padded[(slice(None), *inside)] = volume.numpy()
    axes = [np.exp(-0.5 * ((np.arange(w) - (w - 1) / 2) / (w / 8)) ** 2) for w in window]
    weight = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    values = np.zeros((len(queries), *padded.shape[1:]))
    weights = np.zeros(padded.shape[1:])
    for start in plan_windows(tuple(volume.shape[1:]), window, overlap) + np.array(before):
        box = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
        tile = torch.from_numpy(padded[(slice(None), *box)]).float()[None]
        logits = model.decode(model.encode(tile), queries[None]).logits[0]
        values[(slice(None), *box)] += logits.double().sigmoid().numpy() * weight
        weights[box] += weight
    return (values / weights)[(slice(None), *inside)]


def assert_rounded(prediction, expected):
    """8-bit probabilities within half a step (and half-precision noise) of the exact ones."""
    error = np.abs(prediction.probability.stacked().numpy() / 255 - np.asarray(expected)).max()
    assert error <= HALF_STEP + HALF_PRECISION


@pytest.mark.parametrize(
    "shape", [(19, 7, 11), (7, 19, 11), (11, 7, 19), (8, 4, 8), (9, 5, 9), (24, 4, 8)]
)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_streamed_slabs_equal_full_accumulators(shape, overlap):
    volume, queries = random_volume(shape), random_queries(5)
    prediction = segment_windows(
        LinearModel(), volume, queries, window=WINDOW, overlap=overlap, prompts_per_pass=2
    )
    assert prediction.probability.stacked().dtype == torch.uint8
    assert tuple(prediction.probability.stacked().shape) == (5, *shape)
    assert_rounded(prediction, blend_in_full(LinearModel(), volume, queries, overlap=overlap))


@pytest.mark.parametrize("shape", [(5, 9, 17), (19, 3, 11), (13, 7, 5), (3, 1, 2), (1, 30, 1)])
def test_axes_shorter_than_the_window_are_padded_on_both_sides(shape):
    volume, queries = random_volume(shape), random_queries(3)
    prediction = segment_windows(LinearModel(), volume, queries, window=WINDOW)
    assert_rounded(prediction, blend_in_full(LinearModel(), volume, queries))


def test_padding_holds_the_minimum_of_each_channel_around_a_centred_volume():
    volume = random_volume((3, 4, 8), channels=2)
    model = LinearModel()
    segment_windows(model, volume, random_queries(1), window=WINDOW)
    (seen,) = model.inputs
    assert torch.equal(seen[0, :, 2:5], volume)
    for channel in range(2):
        outside = torch.cat([seen[0, channel, :2], seen[0, channel, 5:]])
        assert outside.unique().tolist() == [volume[channel].min().item()]


@settings(max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, 21)] * 3),
    overlap=st.floats(0, 0.8),
    seed=st.integers(0, 99),
)
def test_a_pointwise_model_gives_the_pointwise_answer(shape, overlap, seed):
    volume = random_volume(shape, seed=seed)
    queries = random_queries(2, seed=seed, slope=0)
    prediction = segment_windows(LinearModel(), volume, queries, window=WINDOW, overlap=overlap)
    gain, offset, _ = queries[..., None, None, None].unbind(1)
    assert_rounded(prediction, (gain * volume + offset).sigmoid())


@pytest.mark.parametrize(
    ("probability", "byte"), [(0.0, 0), (0.001, 0), (0.003, 1), (0.25, 64), (0.9965, 254), (1, 255)]
)
def test_constant_logits_blend_to_the_constant_rounded_to_eight_bits(probability, byte):
    logit = float(torch.logit(torch.tensor(float(probability)), eps=1e-7))
    queries = torch.tensor([[0.0, logit, 0.0]])
    prediction = segment_windows(
        LinearModel(), random_volume((9, 21, 13)), queries, window=WINDOW, overlap=0.6
    )
    assert prediction.probability.stacked().unique().tolist() == [byte]


def test_prompts_do_not_depend_on_company_order_or_chunks():
    volume, queries = random_volume((17, 7, 11)), random_queries(7)
    together = segment_windows(LinearModel(), volume, queries, window=WINDOW)
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    shuffled = segment_windows(
        LinearModel(), volume, queries[order], window=WINDOW, prompts_per_pass=3
    )
    assert torch.equal(shuffled.probability.stacked(), together.probability.stacked()[order])
    torch.testing.assert_close(shuffled.presence, together.presence[order], atol=1e-6, rtol=0)
    for number in range(7):
        alone = segment_windows(LinearModel(), volume, queries[number : number + 1], window=WINDOW)
        assert torch.equal(alone.probability.stacked()[0], together.probability.stacked()[number])
        torch.testing.assert_close(alone.presence[0], together.presence[number], atol=1e-6, rtol=0)


def test_the_same_call_gives_the_same_bits():
    volume, queries = random_volume((17, 7, 11)), random_queries(3)
    first, second = (
        segment_windows(LinearModel(), volume, queries, window=WINDOW) for _ in range(2)
    )
    assert torch.equal(first.probability.stacked(), second.probability.stacked())
    assert torch.equal(first.presence, second.presence)


def test_a_window_is_encoded_once_for_any_number_of_prompts():
    model = LinearModel()
    prediction = segment_windows(
        model, random_volume((17, 7, 11)), random_queries(11), window=WINDOW, prompts_per_pass=4
    )
    assert model.num_encoded == prediction.windows == len(plan_windows((17, 7, 11), WINDOW))
    assert model.chunks == [4, 4, 3] * prediction.windows


def test_presence_is_that_of_the_surest_window():
    volume = torch.full((1, 17, 4, 8), -3.0)
    volume[0, 15, 2, 5] = 2.0
    queries = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 0]])
    prediction = segment_windows(LinearModel(), volume, queries, window=WINDOW)
    expected = torch.tensor([2.0, 3.0, 0.0]).sigmoid()
    torch.testing.assert_close(prediction.presence, expected, atol=1e-6, rtol=0)


def test_windows_without_body_are_skipped_counted_and_empty():
    volume = torch.zeros(1, 40, 4, 8)
    body = torch.zeros(40, 4, 8, dtype=torch.bool)
    body[33:38, 1:3, 2:6] = True
    model = LinearModel()
    always = torch.tensor([[0.0, 9.0, 0.0]])
    prediction = segment_windows(model, volume, always, window=WINDOW, body=body)
    assert prediction.windows == 9
    assert prediction.skipped == 9 - model.num_encoded == 7
    assert int(prediction.probability.stacked()[0][body].min()) == 255
    assert int(prediction.probability.stacked()[0, :28].max()) == 0


def test_a_body_that_fills_the_volume_changes_nothing():
    volume, queries = random_volume((17, 7, 11)), random_queries(2)
    body = torch.ones(17, 7, 11, dtype=torch.bool)
    masked = segment_windows(LinearModel(), volume, queries, window=WINDOW, body=body)
    plain = segment_windows(LinearModel(), volume, queries, window=WINDOW)
    assert masked.skipped == 0
    assert torch.equal(masked.probability.stacked(), plain.probability.stacked())


def test_a_volume_without_body_is_answered_without_running_the_model():
    model = LinearModel()
    body = torch.zeros(17, 7, 11, dtype=torch.bool)
    prediction = segment_windows(
        model, random_volume((17, 7, 11)), random_queries(2), window=WINDOW, body=body
    )
    assert prediction.skipped == prediction.windows > 0
    assert model.num_encoded == 0
    assert not prediction.probability.stacked().any()
    assert prediction.presence.tolist() == [0, 0]


def test_no_prompts_give_an_empty_prediction():
    model = LinearModel()
    prediction = segment_windows(model, random_volume((9, 7, 11)), torch.zeros(0, 3), window=WINDOW)
    assert tuple(prediction.probability.stacked().shape) == (0, 9, 7, 11)
    assert model.num_encoded == 0


def test_progress_counts_the_windows_that_run():
    body = torch.zeros(40, 4, 8, dtype=torch.bool)
    body[30:, 2, 3] = True
    seen = []
    prediction = segment_windows(
        LinearModel(),
        random_volume((40, 4, 8)),
        random_queries(1),
        window=WINDOW,
        body=body,
        progress=lambda done, total: seen.append((done, total)),
    )
    total = prediction.windows - prediction.skipped
    assert 0 < total < prediction.windows
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_cancelling_stops_before_the_next_window():
    model = LinearModel()
    with pytest.raises(Cancelled, match="after 2 of"):
        segment_windows(
            model,
            random_volume((40, 4, 8)),
            random_queries(1),
            window=WINDOW,
            cancel=lambda: model.num_encoded == 2,
        )
    assert model.num_encoded == 2


class Cramped(LinearModel):
    """Fails to allocate, from a given decoding on, whenever more than ``room`` prompts come."""

    def __init__(self, *, room, after=0, error=None):
        super().__init__()
        self.room, self.after = room, after
        self.error = error or torch.OutOfMemoryError("out of memory")

    def decode(self, features, queries):
        if len(self.chunks) >= self.after and queries.shape[1] > self.room:
            raise self.error
        return super().decode(features, queries)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
@pytest.mark.parametrize(("room", "settled"), [(5, 5), (4, 2), (1, 1)])
def test_running_out_of_memory_in_the_middle_gives_the_same_masks(room, settled, error, caplog):
    volume, queries = random_volume((25, 7, 11)), random_queries(11)
    roomy = segment_windows(LinearModel(), volume, queries, window=WINDOW)
    with caplog.at_level(logging.WARNING, logger="textseg"):
        cramped = segment_windows(
            Cramped(room=room, after=4, error=error), volume, queries, window=WINDOW
        )
    assert torch.equal(cramped.probability.stacked(), roomy.probability.stacked())
    assert torch.equal(cramped.presence, roomy.presence)
    assert roomy.prompts_per_pass == 11
    assert roomy.warnings == ()
    assert cramped.prompts_per_pass == settled
    assert cramped.warnings[-1] == caplog.messages[-1]
    assert f"{settled} prompts per pass" in cramped.warnings[-1]


def test_no_room_for_a_single_prompt_is_a_coded_error_with_a_remedy():
    with pytest.raises(ResourceError, match="E501") as caught:
        segment_windows(
            Cramped(room=0), random_volume((9, 7, 11)), random_queries(5), window=WINDOW
        )
    assert "fewer prompts" in caught.value.remedy
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_no_room_for_the_backbone_is_a_coded_error():
    model = LinearModel()

    def encode(volume):
        raise MemoryError

    model.encode = encode
    with pytest.raises(ResourceError, match="E501"):
        segment_windows(model, random_volume((9, 7, 11)), random_queries(2), window=WINDOW)


def test_what_is_too_large_for_the_memory_is_refused_before_the_first_window():
    model = LinearModel()
    with pytest.raises(ResourceError, match="GiB"):
        segment_windows(
            model,
            random_volume((30, 30, 30)),
            random_queries(2),
            window=WINDOW,
            memory_limit=1000,
        )
    assert model.num_encoded == 0


def test_little_memory_takes_several_runs_with_the_same_answer():
    volume, queries = random_volume((30, 9, 20)), random_queries(11)
    at_once = segment_windows(LinearModel(), volume, queries, window=WINDOW)
    model, seen = LinearModel(), []
    model.activations_per_voxel = 1
    cramped = segment_windows(
        model,
        volume,
        queries,
        window=WINDOW,
        memory_limit=20_000,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert cramped.memory.prompts_per_run < 11
    runs = -(-11 // cramped.memory.prompts_per_run)
    assert model.num_encoded == runs * at_once.windows
    assert seen[-1] == (model.num_encoded, model.num_encoded)
    assert torch.equal(cramped.probability.stacked(), at_once.probability.stacked())
    assert torch.equal(cramped.presence, at_once.presence)


def test_other_errors_of_the_model_are_passed_on():
    error = RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        segment_windows(
            Cramped(room=0, error=error),
            random_volume((9, 7, 11)),
            random_queries(2),
            window=WINDOW,
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", [0, 1])
def test_numbers_that_are_not_finite_are_a_model_error(value, column):
    queries = torch.ones(3, 3)
    queries[1, column] = value
    with pytest.raises(ModelError, match="not finite"):
        segment_windows(LinearModel(), random_volume((9, 7, 11)), queries, window=WINDOW)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_presence_that_is_not_finite_is_a_model_error(value):
    class Unsure(LinearModel):
        def decode(self, features, queries):
            decoded = super().decode(features, queries)
            return decoded._replace(presence=torch.full_like(decoded.presence, value))

    with pytest.raises(ModelError, match="not finite"):
        segment_windows(Unsure(), random_volume((9, 7, 11)), random_queries(2), window=WINDOW)


def test_large_half_precision_logits_are_not_mistaken_for_infinite_ones():
    class Half(LinearModel):
        def decode(self, features, queries):
            decoded = super().decode(features, queries)
            return Decoded.of_logits(decoded.logits.half(), decoded.presence)

    queries = torch.tensor([[0.0, 6e4, 0.0]])
    prediction = segment_windows(Half(), random_volume((9, 7, 11)), queries, window=WINDOW)
    assert prediction.probability.stacked().unique().tolist() == [255]


def test_logits_of_the_wrong_shape_are_a_model_error():
    class Coarse(LinearModel):
        def decode(self, features, queries):
            decoded = super().decode(features, queries)
            return Decoded.of_logits(decoded.logits[..., ::2], decoded.presence)

    with pytest.raises(ModelError, match=r"\(1, 2, 8, 4, 4\)"):
        segment_windows(Coarse(), random_volume((9, 7, 11)), random_queries(2), window=WINDOW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (8, 6, 8)}, "multiple of 4"),
        ({"window": (8, 0, 8)}, "multiple of 4"),
        ({"prompts_per_pass": 0}, "prompts_per_pass"),
        ({"body": torch.ones(7, 9, 11, dtype=torch.bool)}, r"\(7, 9, 11\)"),
        ({"precision": "int8"}, "int8"),
        ({"overlap": 1.0}, "overlap"),
    ],
)
def test_arguments_that_cannot_work_are_refused(change, message):
    arguments = {"window": WINDOW, **change}
    with pytest.raises(ModelError, match=message):
        segment_windows(LinearModel(), random_volume((9, 7, 11)), random_queries(2), **arguments)


@pytest.mark.parametrize(
    ("volume", "queries"),
    [
        (torch.zeros(9, 7, 11), torch.zeros(2, 3)),
        (torch.zeros(1, 9, 0, 11), torch.zeros(2, 3)),
        (torch.zeros(1, 9, 7, 11, dtype=torch.int16), torch.zeros(2, 3)),
        (torch.zeros(1, 9, 7, 11), torch.zeros(3)),
    ],
)
def test_tensors_of_the_wrong_kind_are_refused(volume, queries):
    with pytest.raises(ModelError, match="expected"):
        segment_windows(LinearModel(), volume, queries, window=WINDOW)


class ConvolutionModel(torch.nn.Module):
    """A real layer, to see what memory layout and number format reach it."""

    granularity = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv3d(1, 3, 3, padding=1)
        self.seen = []

    def encode(self, volume):
        features = self.layer(volume)
        self.seen.append((volume.stride()[1], features.dtype, torch.is_inference_mode_enabled()))
        return features

    def decode(self, features, queries):
        logits = torch.einsum("bcxyz,bkc->bkxyz", features, queries)
        return Decoded.of_logits(logits, logits.mean(dim=(2, 3, 4)))


def test_bfloat16_runs_in_autocast_and_stays_close_to_float32():
    volume, queries = random_volume((17, 7, 11)), random_queries(4)
    predictions = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        model = ConvolutionModel()
        prediction = segment_windows(model, volume, queries, window=WINDOW, precision=precision)
        assert prediction.precision == precision
        assert set(model.seen) == {(1, dtype, True)}
        predictions[precision] = prediction.probability.stacked().int()
    difference = predictions["float32"] - predictions["bfloat16"]
    assert 0 < int(difference.abs().max()) <= 6  # bfloat16 keeps 8 bits of logits up to about 5


def test_what_comes_back_is_ordinary_memory_and_inputs_are_untouched():
    volume = random_volume((9, 7, 11)).requires_grad_()
    before = volume.detach().clone()
    prediction = segment_windows(LinearModel(), volume, random_queries(2), window=WINDOW)
    assert torch.equal(volume, before)
    for tensor in (prediction.probability.stacked(), prediction.presence):
        assert not tensor.is_inference()
        assert not tensor.requires_grad
        tensor.zero_()


def test_the_estimate_is_logged_and_returned(caplog):
    with caplog.at_level(logging.INFO, logger="textseg"):
        prediction = segment_windows(
            LinearModel(), random_volume((9, 7, 11)), random_queries(2), window=WINDOW
        )
    assert prediction.memory.estimate.output == 2 * 9 * 7 * 11
    assert any(str(prediction.memory) in message for message in caplog.messages)
