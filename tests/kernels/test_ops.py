"""Every operation against its specification, on every backend, for sizes and strides that bite."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest
import torch
from torch.utils._pytree import tree_map_only

from tests.kernels.examples import EXAMPLES, Size
from textseg.errors import ModelError
from textseg.kernels import OPS

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ODD = Size((5, 7, 3), channels=5, count=3)
SIZES = {
    "one voxel": lambda op: Size((1, 1, 1), channels=1, count=1),
    "odd": lambda op: ODD,
    "several tiles": lambda op: EXAMPLES[op.name].several_tiles,
}

every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


def example_of(op, size, dtype, device="cpu"):
    generator = torch.Generator().manual_seed(crc32(op.name.encode()))
    return EXAMPLES[op.name].make(generator, size, dtype, torch.device(device))


def check(op, example, backend):
    expected = op.reference(*example.args, **example.kwargs)
    actual = op.run(*example.args, **example.kwargs, backend=backend)
    assert torch.isfinite(actual).all()
    tolerance = example.tolerance["triton" if backend == "triton" else "torch"]
    torch.testing.assert_close(
        actual.float(), expected.float(), atol=tolerance, rtol=0, check_stride=False
    )
    return actual


class Scattered:
    """Copies of tensors as every second element of larger ones, along axes in reverse order."""

    def __init__(self):
        self.copies = []

    def __call__(self, tensor):
        poison = torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max
        larger = tensor.new_full([2 * n + 1 for n in reversed(tensor.shape)], poison)
        view = larger[(slice(1, None, 2),) * tensor.ndim].permute(*reversed(range(tensor.ndim)))
        view.copy_(tensor)
        self.copies.append((larger, view, poison))
        return view

    def assert_gaps_untouched(self):
        for larger, view, poison in self.copies:
            view.fill_(poison)
            expected = torch.full_like(larger, poison)
            torch.testing.assert_close(larger, expected, equal_nan=True, atol=0, rtol=0)


def test_every_op_has_an_example_and_every_example_an_op():
    assert [op.name for op in OPS] == list(EXAMPLES)


@every_op
@every_dtype
@every_size
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_pytorch_agrees_with_the_specification(op, dtype, size, backend, poisoned):
    check(op, example_of(op, size(op), dtype), backend)


@pytest.mark.gpu
@every_op
@every_dtype
@every_size
def test_pytorch_agrees_with_the_specification_on_a_device(op, dtype, size):
    check(op, example_of(op, size(op), dtype, "cuda"), "torch")


@every_op
@every_dtype
@every_size
def test_triton_agrees_with_the_specification(op, dtype, size, triton_device, poisoned):
    check(op, example_of(op, size(op), dtype, triton_device), "triton")


@every_op
@every_dtype
def test_triton_agrees_on_tensors_of_any_strides(op, dtype, triton_device, poisoned):
    example = example_of(op, ODD, dtype, triton_device)
    scattered = Scattered()
    args, kwargs = tree_map_only(torch.Tensor, scattered, (example.args, example.kwargs))
    check(op, type(example)(args, kwargs, example.tolerance, 0), "triton")
    scattered.assert_gaps_untouched()


@every_op
def test_triton_gives_the_same_bits_each_time(op, triton_device):
    results = [
        op.run(*example.args, **example.kwargs, backend="triton").clone()
        for example in (example_of(op, ODD, torch.float32, triton_device) for _ in range(2))
    ]
    assert torch.equal(*results)


@every_op
def test_a_backend_that_does_not_exist_is_refused(op):
    example = example_of(op, ODD, torch.float32)
    with pytest.raises(ModelError, match="cuda"):
        op.run(*example.args, **example.kwargs, backend="cuda")


@cache
def outcomes_of_triton(before=""):
    """For each operation, the code of the error when Triton is asked for on the host."""
    program = f"""
import json, sys, torch
{before}
from tests.kernels.test_ops import ODD, OPS, example_of
found = {{}}
for op in OPS:
    example = example_of(op, ODD, torch.float32)
    try:
        op.run(*example.args, **example.kwargs, backend="triton")
    except Exception as error:
        found[op.name] = getattr(error, "code", repr(error))
print(json.dumps(found))
"""
    without = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=without,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@every_op
def test_triton_is_refused_on_the_host(op):
    pytest.importorskip("triton", reason="Triton is not installed")
    assert outcomes_of_triton()[op.name] == "E400"


@every_op
def test_triton_that_is_not_installed_is_refused(op):
    assert outcomes_of_triton("sys.modules['triton'] = None")[op.name] == "E403"
