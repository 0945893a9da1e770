"""``window_blend`` against its specification, for layouts, types and sizes that hide mistakes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import ModelError
from textseg.kernels import window_blend, window_blend_reference
from textseg.kernels.window_blend import scratch_bytes

TOLERANCE = {
    torch.float64: 1e-5,  # the specification itself works in float32
    torch.float32: 1e-5,  # sums of 7 products in another order, up to 20 before the sigmoid
    torch.float16: 1e-2,  # logits up to 20 are rounded to 2^-7, and the slope is 1/4
    torch.bfloat16: 5e-2,  # to 2^-4, and their vectors to 8 bits
}
SUM = 2**-12  # of numbers up to 2 in half precision, rounded once


def problem(k=3, shape=(5, 7, 3), *, seed=0, dtype=torch.float32, channels=6):
    generator = torch.Generator().manual_seed(seed)
    total = torch.rand((k, *shape), generator=generator)
    features = torch.randn((channels, *shape), generator=generator).to(dtype)
    vectors = 2 * torch.randn((k, channels + 1), generator=generator)
    weights = tuple(torch.rand(n, generator=generator) for n in shape)
    return total, features, vectors, weights


def by_hand(total, features, vectors, weights):
    """The formula, one element at a time in double precision."""
    result = total.double().clone()
    wx, wy, wz = (axis.double().tolist() for axis in weights)
    for k, x, y, z in torch.cartesian_prod(*(torch.arange(n) for n in total.shape)).tolist():
        value = float(vectors[k, :-1].double() @ features[:, x, y, z].double() + vectors[k, -1])
        result[k, x, y, z] += wx[x] * wy[y] * wz[z] / (1 + torch.e ** (-value))
    return result.float()


def test_the_specification_is_the_formula_of_its_docstring():
    total, features, vectors, weights = problem()
    expected = by_hand(total, features, vectors, weights)
    actual = window_blend_reference(total, features, vectors, weights=weights)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[torch.float32], rtol=0)


def test_the_specification_leaves_its_inputs_alone():
    total, features, vectors, weights = problem()
    before = total.clone(), features.clone(), vectors.clone()
    window_blend_reference(total, features, vectors, weights=weights)
    for now, then in zip((total, features, vectors), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_the_op_agrees_with_its_specification(dtype, backend):
    total, features, vectors, weights = problem(dtype=dtype)
    expected = window_blend_reference(total, features, vectors, weights=weights)
    actual = window_blend(total, features, vectors, weights=weights, backend=backend)
    assert actual is total
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[dtype], rtol=0)


def test_half_precision_totals_are_rounded_once_per_window():
    total, features, vectors, weights = problem()
    half = total.half()
    expected = window_blend_reference(half, features, vectors, weights=weights)
    window_blend(half, features, vectors, weights=weights)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, atol=4 * SUM, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(0, 5),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    channels=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_size_agrees_with_the_specification(k, shape, channels, seed):
    total, features, vectors, weights = problem(k, shape, seed=seed, channels=channels)
    expected = window_blend_reference(total, features, vectors, weights=weights)
    actual = window_blend(total, features, vectors, weights=weights)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[torch.float32], rtol=0)


def test_windows_larger_than_one_cache_block_agree_with_the_specification():
    total, features, vectors, weights = problem(9, (67, 53, 41))  # 1.3 M, an uneven last block
    expected = window_blend_reference(total, features, vectors, weights=weights)
    actual = window_blend(total, features, vectors, weights=weights)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[torch.float32], rtol=0)


def test_a_view_into_a_larger_total_is_updated_and_nothing_around_it():
    _, features, vectors, weights = problem(2, (5, 7, 3))
    larger = torch.full((4, 9, 11, 8), torch.nan)
    view = larger[1:3, 2:7, 3:10, 4:7]
    view.zero_()
    expected = window_blend_reference(view, features, vectors, weights=weights)
    window_blend(view, features, vectors, weights=weights)
    found = larger[1:3, 2:7, 3:10, 4:7]
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)
    assert int(larger.isnan().sum()) == larger.numel() - expected.numel()


def test_channels_last_features_give_the_same_answer_as_contiguous_ones():
    total, features, vectors, weights = problem(5, (6, 7, 3))
    channels_last = features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert not channels_last.is_contiguous()
    contiguous_total = window_blend(total.clone(), features, vectors, weights=weights)
    window_blend(total, channels_last, vectors, weights=weights)
    torch.testing.assert_close(total, contiguous_total, atol=TOLERANCE[torch.float32], rtol=0)


def test_a_part_of_a_window_is_blended_as_the_window_is():
    total, features, vectors, (wx, wy, wz) = problem(5, (6, 7, 9))
    channels_last = features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    whole = window_blend(total.clone(), channels_last, vectors, weights=(wx, wy, wz))
    part = window_blend(
        total[:, 1:4, 2:7, 3:8],
        channels_last[:, 1:4, 2:7, 3:8],
        vectors,
        weights=(wx[1:4], wy[2:7], wz[3:8]),
    )
    expected = whole[:, 1:4, 2:7, 3:8]
    torch.testing.assert_close(part, expected, atol=TOLERANCE[torch.float32], rtol=0)


def test_features_and_vectors_are_left_as_they_were():
    total, features, vectors, weights = problem()
    before = features.clone(), vectors.clone()
    window_blend(total, features, vectors, weights=weights)
    assert torch.equal(features, before[0])
    assert torch.equal(vectors, before[1])


def test_extreme_logits_saturate_without_becoming_nan():
    features = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4]).reshape(1, 5, 1, 1)
    weights = (torch.ones(5), torch.ones(1), torch.ones(1))
    vectors = torch.tensor([[1.0, 0.0]])
    total = window_blend(torch.zeros(1, 5, 1, 1), features, vectors, weights=weights)
    assert total.flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-7)


def test_the_scratch_memory_is_what_is_said():
    assert scratch_bytes(2, (96, 10, 10), device_type="cpu") == 6 * 2 * 96 * 10 * 10
    # blocks of whole planes, at least one
    assert scratch_bytes(32, (96, 96, 96), device_type="cpu") == 6 * 32 * 3 * 96 * 96
    assert scratch_bytes(500, (96, 96, 96), device_type="cpu") == 6 * 500 * 96 * 96


def test_a_backend_that_does_not_exist_is_refused():
    total, features, vectors, weights = problem()
    before = total.clone()
    with pytest.raises(ModelError, match="cuda"):
        window_blend(total, features, vectors, weights=weights, backend="cuda")
    assert torch.equal(total, before)


def test_shapes_that_do_not_belong_together_are_refused():
    total, features, vectors, (wx, wy, wz) = problem()
    with pytest.raises(ModelError, match=r"\(7, 5, 3\)"):
        window_blend(total, features, vectors, weights=(wy, wx, wz))
    with pytest.raises(ModelError, match="into a total"):
        window_blend(total[:2], features, vectors, weights=(wx, wy, wz))
    with pytest.raises(ModelError, match=r"vectors \(3, 6\)"):
        window_blend(total, features, vectors[:, 1:], weights=(wx, wy, wz))
