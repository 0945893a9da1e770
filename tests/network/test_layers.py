from __future__ import annotations

import pytest
import torch
from fakes import noise, seeded
from torch import nn
from torch.nn import functional

from textseg.network.layers import InstanceNorm, StridedConv


@pytest.mark.parametrize("shape", [(2, 6, 33, 31, 29), (1, 3, 1, 5, 7), (1, 64, 40, 32, 24)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_instance_norm_without_gradients_is_that_of_pytorch(shape, layout):
    norm = InstanceNorm(shape[1], affine=True)
    with torch.no_grad():
        norm.weight.copy_(noise(shape[1], seed=1))
        norm.bias.copy_(noise(shape[1], seed=2))
    x = (3 * noise(*shape) + 5).contiguous(memory_format=layout)
    wanted = functional.instance_norm(
        x.double(), weight=norm.weight.double(), bias=norm.bias.double()
    )
    with_gradients = norm(x)
    assert with_gradients.requires_grad
    torch.testing.assert_close(with_gradients.double(), wanted, atol=2e-5, rtol=0)
    with torch.inference_mode():
        found = norm(x.clone(memory_format=torch.preserve_format))
        half = norm(x.bfloat16())
    torch.testing.assert_close(found.double(), wanted, atol=2e-5, rtol=0)
    assert found.is_contiguous(memory_format=layout)
    assert half.dtype == torch.bfloat16
    # values near 15 have steps of a sixteenth, which are small beside a deviation of 3
    torch.testing.assert_close(half.double(), wanted, atol=0.1, rtol=0.02)


def test_a_constant_channel_becomes_its_bias():
    x = torch.full((1, 2, 4, 4, 4), 1e3).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        found = InstanceNorm(2, affine=True)(x)
    assert found.abs().max() < 1e-2


def test_instance_norm_keeps_the_input_where_gradients_are_wanted():
    x = noise(1, 4, 6, 6, 6).contiguous(memory_format=torch.channels_last_3d)
    before = x.clone()
    InstanceNorm(4, affine=True)(x)
    assert torch.equal(x, before)


SIZES = pytest.mark.parametrize("size", [(4, 6, 2), (5, 3, 1), (1, 1, 1), (6, 5, 3), (2, 2, 8)])


@SIZES
def test_a_strided_convolution_is_that_of_pytorch(size):
    layer = StridedConv(4, 5, 3, stride=2, padding=1)
    x = noise(2, 4, *size)
    found, wanted = layer(x), nn.Conv3d.forward(layer, x)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@SIZES
@pytest.mark.parametrize("inputs", [8, 64])
def test_a_strided_convolution_reads_nothing_that_was_not_written(size, inputs):
    layer = seeded(lambda: StridedConv(inputs, 64, 3, stride=2, padding=1))
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
    x = noise(2, inputs, *size).contiguous(memory_format=torch.channels_last_3d)
    wanted = layer(x)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(3):
            fill_freed_memory_with_nan()
            torch.testing.assert_close(layer(x).float(), wanted, atol=0.1, rtol=0)


def fill_freed_memory_with_nan():
    """What is allocated next holds NaN until it is written, if it is of a usual small size."""
    blocks = [torch.full((2**power,), torch.nan) for power in range(4, 16) for _ in range(8)]
    del blocks
