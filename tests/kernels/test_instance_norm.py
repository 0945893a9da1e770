"""``instance_norm_act`` against PyTorch's own in double precision, in place and out of place."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.kernels.test_triton_addresses import far_apart
from textseg.errors import ModelError
from textseg.kernels import instance_norm_act, instance_norm_act_reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=str)
every_backend = pytest.mark.parametrize("backend", ["torch", "triton"])


def problem(maps, channels, shape, *, mean=1.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = mean + 2 * torch.randn((maps, channels, *shape), generator=generator)
    weight, bias = torch.randn((2, channels), generator=generator)
    return x.to(dtype).to(memory_format=torch.channels_last_3d), weight, bias


def by_pytorch(x, weight, bias, *, eps=1e-5, slope=0.01):
    """The result in double precision."""
    scaled = functional.instance_norm(
        x.cpu().double(), weight=weight.cpu().double(), bias=bias.cpu().double(), eps=eps
    )
    return functional.leaky_relu(scaled, slope)


def assert_near(actual, expected, dtype):
    """Within a step of the type, as Triton's interpreter cuts bfloat16 off; float32 sums err."""
    assert actual.dtype == dtype
    step = 2 * torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=step, atol=2e-5)


@every_dtype
@every_layout
@pytest.mark.parametrize("slope", [0.01, 0.3, 1.0])
def test_every_layout_and_slope_agrees_with_pytorch(dtype, layout, slope):
    x, weight, bias = problem(2, 5, (5, 7, 3), dtype=dtype)
    x = x.contiguous(memory_format=layout)
    expected = by_pytorch(x, weight, bias, eps=0.1, slope=slope)
    for run in (instance_norm_act, instance_norm_act_reference):
        actual = run(x, weight, bias, eps=0.1, slope=slope)
        assert_near(actual.to(dtype), expected, dtype)


@settings(max_examples=60)
@given(
    maps=st.integers(1, 3),
    channels=st.integers(1, 9),
    shape=st.tuples(*[st.integers(1, 6)] * 3).filter(lambda shape: shape != (1, 1, 1)),
    seed=st.integers(0, 99),
)
def test_any_size_agrees_with_pytorch(maps, channels, shape, seed):
    x, weight, bias = problem(maps, channels, shape, seed=seed)
    # two or three voxels may all but coincide; eps keeps what rounding makes of that small
    actual = instance_norm_act(x, weight, bias, eps=0.1)
    assert_near(actual, by_pytorch(x, weight, bias, eps=0.1), torch.float32)


@every_dtype
def test_maps_larger_than_a_cache_block_agree_with_pytorch(dtype):
    x, weight, bias = problem(2, 3, (29, 31, 23), dtype=dtype)  # 20677 voxels, two blocks and more
    assert_near(instance_norm_act(x, weight, bias), by_pytorch(x, weight, bias), dtype)


@every_dtype
@every_layout
def test_triton_agrees_with_pytorch(dtype, layout, triton_device, poisoned):
    x, weight, bias = problem(2, 67, (5, 3, 9), dtype=dtype)
    tensors = [x.contiguous(memory_format=layout), weight, bias]
    actual = instance_norm_act(*(each.to(triton_device) for each in tensors), backend="triton")
    assert_near(actual, by_pytorch(x, weight, bias), dtype)


def test_triton_merges_chunks_of_several_tiles(triton_device, poisoned, monkeypatch):
    triton_module = pytest.importorskip("textseg.kernels.instance_norm_triton")
    monkeypatch.setattr(triton_module, "_MOST_CHUNKS", 3)
    x, weight, bias = problem(1, 60, (7, 11, 5))  # 7 tiles of 64 voxels: chunks of 3, 3 and 1
    x[:, :, :2] += 50.0  # chunks of different means
    actual = instance_norm_act(
        *(each.to(triton_device) for each in (x, weight, bias)), backend="triton"
    )
    assert_near(actual, by_pytorch(x, weight, bias), torch.float32)


@pytest.mark.gpu
@every_dtype
@every_layout
@every_backend
def test_large_maps_agree_on_a_device(dtype, layout, backend):
    x, weight, bias = problem(2, 48, (61, 67, 59), dtype=dtype)
    on_device = [each.cuda() for each in (x.contiguous(memory_format=layout), weight, bias)]
    actual = instance_norm_act(*on_device, backend=backend)
    assert_near(actual, by_pytorch(x, weight, bias), dtype)


@every_backend
def test_a_mean_of_a_thousand_deviations_keeps_its_digits(backend, triton_device):
    x, weight, bias = problem(1, 3, (9, 11, 10), mean=2000.0)
    expected = by_pytorch(x, weight, bias)
    actual = instance_norm_act(
        *(each.to(triton_device) for each in (x, weight, bias)), backend=backend
    )
    # float32 places values near 2000 to 2^-14; a deviation is 2
    torch.testing.assert_close(actual.cpu().double(), expected, atol=1e-3, rtol=1e-4)


@every_backend
def test_constant_channels_become_the_bias(backend, triton_device):
    x, weight, bias = problem(1, 3, (3, 5, 7))
    x[:, 1] = 0.1
    actual = instance_norm_act(
        *(each.to(triton_device) for each in (x, weight, bias)), slope=1.0, backend=backend
    )
    constant = actual[0, 1].cpu()
    torch.testing.assert_close(constant, bias[1].expand_as(constant), atol=1e-4, rtol=0)
    assert_near(actual, by_pytorch(x, weight, bias, slope=1.0), torch.float32)


@every_dtype
@every_layout
@every_backend
def test_the_result_may_replace_the_map(dtype, layout, backend, triton_device):
    x, weight, bias = problem(2, 3, (5, 7, 3), dtype=dtype)
    given = [each.to(triton_device) for each in (x.contiguous(memory_format=layout), weight, bias)]
    expected = instance_norm_act(*given, backend=backend)
    strides = given[0].stride()
    actual = instance_norm_act(*given, out=given[0], backend=backend)
    assert actual is given[0]
    assert actual.stride() == strides
    assert torch.equal(actual, expected)


@every_backend
def test_the_result_goes_where_it_is_told_and_nowhere_else(backend, triton_device):
    x, weight, bias = (each.to(triton_device) for each in problem(2, 3, (5, 7, 3)))
    before = x.clone()
    larger = torch.full((4, 5, 9, 9, 5), torch.nan, device=triton_device)
    view = larger[1:3, 1:4, 2:7, 1:8, 1:4]
    actual = instance_norm_act(x, weight, bias, out=view, backend=backend)
    assert actual is view
    assert_near(view, by_pytorch(x, weight, bias), torch.float32)
    assert int(larger.isnan().sum()) == larger.numel() - view.numel()
    assert torch.equal(x, before)


def test_gradients_are_those_of_pytorch():
    x, weight, bias = problem(2, 3, (3, 5, 7))
    ours = [each.clone().requires_grad_() for each in (x, weight, bias)]
    theirs = [each.clone().double().requires_grad_() for each in (x, weight, bias)]
    instance_norm_act(*ours).square().sum().backward()
    scaled = functional.instance_norm(theirs[0], weight=theirs[1], bias=theirs[2])
    functional.leaky_relu(scaled, 0.01).square().sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-4, rtol=1e-4)


def test_triton_refuses_to_lose_a_gradient(triton_device):
    x, weight, bias = (each.to(triton_device) for each in problem(1, 2, (3, 2, 2)))
    with pytest.raises(ModelError, match="gradients"):
        instance_norm_act(x, weight.requires_grad_(), bias, backend="triton")
    with torch.no_grad():
        instance_norm_act(x, weight, bias, backend="triton")


@pytest.mark.parametrize("axis", range(5))
@pytest.mark.parametrize("which", ["x", "out"])
def test_triton_counts_elements_in_64_bits(which, axis, triton_device):
    x, weight, bias = problem(3, 3, (3, 3, 3), dtype=torch.float16)
    given = {"x": x.to(triton_device), "out": torch.empty_like(x, device=triton_device)}
    given[which] = far_apart(given[which], axis)
    actual = instance_norm_act(
        **given, weight=weight.to(triton_device), bias=bias.to(triton_device), backend="triton"
    )
    assert_near(actual, by_pytorch(x, weight, bias), torch.float16)


def test_tensors_that_do_not_belong_together_are_refused():
    x, weight, bias = problem(2, 3, (5, 7, 3))
    with pytest.raises(ModelError, match=r"\(3, 5, 7, 3\)"):
        instance_norm_act(x[0], weight, bias)
    with pytest.raises(ModelError, match=r"bias \(2,\)"):
        instance_norm_act(x, weight, bias[:2])
    with pytest.raises(ModelError, match="int64"):
        instance_norm_act(x.long(), weight, bias)
    with pytest.raises(ModelError, match=r"into torch\.float64"):
        instance_norm_act(x, weight, bias, out=x.double())
