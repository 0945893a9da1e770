from __future__ import annotations

import pytest
import torch
from fakes import noise
from torch.nn import functional

from textseg.network.layers import InstanceNorm


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
