"""``window_blend`` against its specification, for layouts, types and sizes that hide mistakes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import ModelError
from textseg.kernels import OPS, window_blend, window_blend_reference

# Both sum in float32 from the same logits; the order of the three weight products differs.
TOLERANCE = 1e-6


def problem(k=3, shape=(5, 7, 3), *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    total = torch.rand((k, *shape), generator=generator)
    logits = (4 * torch.randn((k, *shape), generator=generator)).to(dtype)
    weights = tuple(torch.rand(n, generator=generator) for n in shape)
    return total, logits, weights


def by_hand(total, logits, weights):
    """The formula, one element at a time in double precision."""
    result = total.double().clone()
    wx, wy, wz = (axis.double().tolist() for axis in weights)
    for k, x, y, z in torch.cartesian_prod(*(torch.arange(n) for n in total.shape)).tolist():
        value = float(logits[k, x, y, z])
        result[k, x, y, z] += wx[x] * wy[y] * wz[z] / (1 + torch.e ** (-value))
    return result.float()


def test_the_specification_is_the_formula_of_its_docstring():
    total, logits, weights = problem()
    expected = by_hand(total, logits, weights)
    actual = window_blend_reference(total, logits, weights=weights)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def test_the_specification_leaves_its_inputs_alone():
    total, logits, weights = problem()
    before = total.clone(), logits.clone()
    window_blend_reference(total, logits, weights=weights)
    assert torch.equal(total, before[0])
    assert torch.equal(logits, before[1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_every_op_agrees_with_its_specification(op, dtype, backend):
    total, logits, weights = problem(dtype=dtype)
    expected = op.reference(total, logits, weights=weights)
    actual = op.run(total, logits, weights=weights, backend=backend)
    assert actual is total
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@settings(max_examples=40)
@given(k=st.integers(0, 5), shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 99))
def test_any_size_agrees_with_the_specification(k, shape, seed):
    total, logits, weights = problem(k, shape, seed=seed)
    expected = window_blend_reference(total, logits, weights=weights)
    actual = window_blend(total, logits, weights=weights)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def test_windows_larger_than_one_cache_block_agree_with_the_specification():
    total, logits, weights = problem(9, (67, 53, 41))  # 1.3 M elements, an uneven last block
    expected = window_blend_reference(total, logits, weights=weights)
    actual = window_blend(total, logits, weights=weights)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def test_a_view_into_a_larger_total_is_updated_and_nothing_around_it():
    _, logits, weights = problem(2, (5, 7, 3))
    larger = torch.full((4, 9, 11, 8), torch.nan)
    view = larger[1:3, 2:7, 3:10, 4:7]
    view.zero_()
    expected = window_blend_reference(view, logits, weights=weights)
    window_blend(view, logits, weights=weights)
    torch.testing.assert_close(larger[1:3, 2:7, 3:10, 4:7], expected, atol=TOLERANCE, rtol=0)
    assert int(larger.isnan().sum()) == larger.numel() - expected.numel()


def test_channels_last_logits_give_the_same_bits_as_contiguous_ones():
    total, logits, weights = problem(5, (6, 7, 3))
    channels_last = logits.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert not channels_last.is_contiguous()
    contiguous_total = window_blend(total.clone(), logits, weights=weights)
    assert torch.equal(window_blend(total, channels_last, weights=weights), contiguous_total)


def test_logits_are_left_as_they_were():
    total, logits, weights = problem()
    before = logits.clone()
    window_blend(total, logits, weights=weights)
    assert torch.equal(logits, before)


def test_extreme_logits_saturate_without_becoming_nan():
    logits = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4]).reshape(1, 5, 1, 1)
    weights = (torch.ones(5), torch.ones(1), torch.ones(1))
    total = window_blend(torch.zeros(1, 5, 1, 1), logits, weights=weights)
    assert total.flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-7)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_a_backend_that_cannot_run_is_refused(backend):
    total, logits, weights = problem()
    before = total.clone()
    with pytest.raises(ModelError, match=backend):
        window_blend(total, logits, weights=weights, backend=backend)
    assert torch.equal(total, before)


def test_shapes_that_do_not_belong_together_are_refused():
    total, logits, (wx, wy, wz) = problem()
    with pytest.raises(ModelError, match=r"\(7, 5, 3\)"):
        window_blend(total, logits, weights=(wy, wx, wz))
    with pytest.raises(ModelError, match="into a total"):
        window_blend(total[:2], logits, weights=(wx, wy, wz))
