"""The memory estimate and the choice of precision."""

import pytest
import torch

from textseg.errors import ModelError, ResourceError
from textseg.inference import cpu_has_fast_bfloat16, estimate_memory, resolve_precision
from textseg.inference.accumulator import SlabAccumulator
from textseg.inference.memory import is_out_of_memory, require_memory
from textseg.inference.windows import WindowGrid


def test_accumulators_do_not_grow_with_the_long_axis():
    sizes = [
        estimate_memory((60, 50, long), (32, 32, 32), num_prompts=7) for long in (64, 128, 6400)
    ]
    assert {size.accumulators for size in sizes} == {4 * 7 * 60 * 50 * 32}
    assert [size.output for size in sizes] == [7 * 60 * 50 * n for n in (64, 128, 6400)]


@pytest.mark.parametrize("shape", [(40, 9, 11), (9, 40, 11), (9, 11, 40), (5, 6, 7)])
def test_the_estimate_counts_the_bytes_that_are_taken(shape):
    window = (8, 8, 8)
    grid = WindowGrid.plan(shape, window, 0.5)
    accumulator = SlabAccumulator(grid, num_prompts=3, device=torch.device("cpu"))
    estimate = estimate_memory(shape, window, num_prompts=3)
    taken = [
        tensor.nbytes for tensor in vars(accumulator).values() if isinstance(tensor, torch.Tensor)
    ]
    assert sorted(taken) == sorted([estimate.accumulators, estimate.output])


def test_fewer_prompts_per_pass_take_less_memory():
    wide = estimate_memory((9, 9, 9), (8, 8, 8), num_prompts=64, prompts_per_pass=64)
    narrow = estimate_memory((9, 9, 9), (8, 8, 8), num_prompts=64, prompts_per_pass=4)
    assert wide.logits == 16 * narrow.logits
    assert wide.total - narrow.total == wide.logits - narrow.logits
    assert wide.total == wide.accumulators + wide.output + wide.logits + wide.activations


def test_the_estimate_reads_as_one_line_of_mebibytes():
    estimate = estimate_memory((64, 64, 64), (64, 64, 64), num_prompts=4)
    assert str(estimate) == ("169 MiB (accumulators 4, output 1, logits 4, activations 160)")


def test_results_that_cannot_fit_are_refused_before_anything_is_taken():
    estimate = estimate_memory((512, 512, 10**7), (96, 96, 96), num_prompts=100)
    with pytest.raises(ResourceError, match="GiB") as caught:
        require_memory(estimate, device=torch.device("cpu"))
    assert caught.value.code == "E501"
    assert caught.value.remedy


def test_results_that_fit_are_let_through():
    estimate = estimate_memory((8, 9, 10), (8, 8, 8), num_prompts=1)
    assert 0 < estimate.total < 2**20
    require_memory(estimate, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("The size of tensor a (3) must match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_failed_allocations_are_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_failed_allocation_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_auto_precision_follows_the_processor():
    expected = "bfloat16" if cpu_has_fast_bfloat16() else "float32"
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("auto", torch.device("meta")) == "float32"


def test_a_named_precision_is_taken_as_it_is():
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("bfloat16", torch.device("cpu")) == "bfloat16"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ModelError, match="float64"):
        resolve_precision("float64", "cpu")
