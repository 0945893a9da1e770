"""Kernels compile for a GPU, and reach elements further away than 32 bits can count."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from textseg.kernels import (
    OPS,
    gather_windows,
    gather_windows_reference,
    window_blend,
    window_blend_reference,
)

# An index of 2 times this stride passes 2^31, though the stride itself does not.
FAR = 2**30 + 64


def far_apart(tensor, axis):
    """A copy whose elements along one axis of length 3 lie ``FAR`` apart.

    An offset that wraps around at 32 bits still falls into the copy's memory: 2^31 elements before
    its place. The system hands out only the few pages that are touched.
    """
    assert tensor.shape[axis] == 3
    try:
        memory = torch.empty(
            2**31 + 2 * FAR + tensor.numel(), dtype=tensor.dtype, device=tensor.device
        )
    except (MemoryError, RuntimeError):
        pytest.skip("the system does not reserve 8 GiB")
    strides = list(tensor.contiguous().stride())
    strides[axis] = FAR
    view = memory.as_strided(tensor.shape, strides, storage_offset=2**31)
    return view.copy_(tensor)


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("which", ["total", "features"])
def test_window_blend_counts_elements_in_64_bits(axis, which, triton_device):
    generator = torch.Generator().manual_seed(axis)
    total = torch.rand((3, 3, 3, 3), generator=generator).half().to(triton_device)
    features = torch.randn((3, 3, 3, 3), generator=generator).half().to(triton_device)
    vectors = torch.randn((3, 4), generator=generator).to(triton_device)
    weights = tuple(torch.rand(3, generator=generator).to(triton_device) for _ in range(3))
    expected = window_blend_reference(total, features, vectors, weights=weights)
    given = {"total": total, "features": features}
    given[which] = far_apart(given[which], axis)
    actual = window_blend(**given, vectors=vectors, weights=weights, backend="triton")
    # totals below 2 in half precision
    torch.testing.assert_close(actual.float(), expected, atol=2**-11 + 1e-5, rtol=0)


@pytest.mark.parametrize("axis", range(4))
def test_gather_windows_counts_elements_in_64_bits(axis, triton_device):
    volume = torch.arange(81, dtype=torch.int8, device=triton_device).view(3, 3, 3, 3)
    settings = {
        "starts": torch.tensor([[0, 0, 0], [-1, 1, 0]]),
        "window": (3, 3, 3),
        "fill": torch.full((3,), -7.0),
        "scale": torch.tensor([1.0, 0.5, 2.0]),
        "shift": torch.tensor([0.0, 3.0, -4.0]),
        "dtype": torch.float32,
    }
    expected = gather_windows_reference(volume, **settings)
    actual = gather_windows(far_apart(volume, axis), **settings, backend="triton")
    assert torch.equal(actual, expected)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The code of each operation's kernels; a process that does not interpret compiles them."""
    pytest.importorskip("triton", reason="Triton is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        result = subprocess.run(
            [sys.executable, "-m", "tests.kernels.compile_for_gpu"],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(result.stdout)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_kernels_compile_and_count_elements_in_64_bits(op, compiled):
    for code in compiled[op.name]:
        assert "tt.func" in code, code
        offsets = re.findall(r"tt\.addptr .*?: (tensor<[^,]*, tensor<[^>]*>)", code)
        assert offsets
        assert [each for each in offsets if not each.endswith("xi64>")] == []
