"""The memory estimate and the choice of precision."""

import pytest
import torch

from textseg.errors import ModelError, ResourceError
from textseg.inference import (
    cpu_has_fast_bfloat16,
    estimate_memory,
    memory,
    plan_memory,
    resolve_precision,
)
from textseg.inference.accumulator import SlabAccumulator
from textseg.inference.memory import free_memory, is_out_of_memory, require_host_memory
from textseg.inference.windows import WindowGrid


def grid(shape, window, overlap=0.5):
    return WindowGrid.plan(shape, window, overlap)


def test_accumulators_do_not_grow_with_the_long_axis():
    sizes = [
        estimate_memory(grid((60, 50, long), (32, 32, 32)), num_prompts=7)
        for long in (64, 128, 6400)
    ]
    assert {size.accumulators for size in sizes} == {2 * 7 * 60 * 50 * 32}
    assert [size.output for size in sizes] == [7 * 60 * 50 * n for n in (64, 128, 6400)]


@pytest.mark.parametrize("shape", [(40, 9, 11), (9, 40, 11), (9, 11, 40), (5, 6, 7)])
def test_the_estimate_counts_the_bytes_that_are_taken(shape):
    window = (8, 8, 8)
    accumulator = SlabAccumulator(grid(shape, window), num_prompts=3, device=torch.device("cpu"))
    estimate = estimate_memory(grid(shape, window), num_prompts=3)
    taken = [
        tensor.nbytes for tensor in vars(accumulator).values() if isinstance(tensor, torch.Tensor)
    ]
    assert taken == [estimate.accumulators]


def test_windows_that_overlap_by_more_are_summed_in_float32():
    half, most = (estimate_memory(grid((9, 9, 9), (8, 8, 8), o), num_prompts=3) for o in (0.5, 0.6))
    assert most.accumulators == 2 * half.accumulators


def test_fewer_prompts_per_pass_take_less_memory():
    wide = estimate_memory(grid((9, 9, 9), (256, 256, 8)), num_prompts=64, prompts_per_pass=64)
    narrow = estimate_memory(grid((9, 9, 9), (256, 256, 8)), num_prompts=64, prompts_per_pass=1)
    # 8 planes of 64 prompts, and all 256 planes of one, in two number formats
    assert wide.logits == 6 * 64 * 8 * 256 * 8
    assert narrow.logits == 6 * 1 * 256 * 256 * 8
    assert wide.working == wide.accumulators + wide.logits + wide.activations


def test_the_peak_is_in_the_last_slab_or_when_it_is_handed_over():
    windows = grid((8, 8, 30), (8, 8, 8))
    deep = estimate_memory(windows, num_prompts=5, activation_bytes_per_voxel=1000)
    assert deep.output_before_last == 5 * 8 * 8 * 22
    assert deep.total == deep.working + deep.output_before_last
    wide = estimate_memory(windows, num_prompts=500, activation_bytes_per_voxel=1)
    assert wide.total == wide.accumulators + wide.logits + wide.output


def test_the_estimate_reads_as_one_line_of_mebibytes():
    estimate = estimate_memory(grid((64, 64, 64), (64, 64, 64)), num_prompts=4)
    assert str(estimate) == (
        "168 MiB (accumulators 2, logits 6, activations 160) and at most 1 MiB of probabilities"
    )


def plan(room, **changes):
    arguments = {"num_prompts": 100, "activation_bytes_per_voxel": 10, **changes}
    return plan_memory(grid((64, 64, 640), (64, 64, 64)), room=room, **arguments)


def test_all_prompts_run_together_where_they_fit():
    estimate = estimate_memory(
        grid((64, 64, 640), (64, 64, 64)), num_prompts=100, activation_bytes_per_voxel=10
    )
    roomy = plan(estimate.working)
    assert (roomy.prompts_per_run, roomy.prompts_per_pass) == (100, 32)
    assert roomy.estimate == estimate
    assert plan(estimate.working - 1).prompts_per_run == 50


@pytest.mark.parametrize("room", [40e6, 30e6, 20e6, 12e6])
def test_a_plan_never_takes_more_than_there_is(room):
    cramped = plan(int(room))
    assert 1 <= cramped.prompts_per_run < 100
    assert cramped.prompts_per_pass <= cramped.prompts_per_run
    assert cramped.estimate.working <= room
    assert str(cramped).startswith(f"{cramped.prompts_per_run} prompts per run, ")


def test_what_cannot_fit_is_refused_before_anything_is_taken():
    with pytest.raises(ResourceError, match=r"one prompt at a time, 0\.0 GiB") as caught:
        plan(3_000_000)
    assert caught.value.code == "E501"
    assert caught.value.remedy


def test_a_container_with_less_memory_than_the_machine_counts(monkeypatch):
    monkeypatch.setattr(memory, "_left_in_container", lambda: 12345)
    assert free_memory(torch.device("cpu")) == 12345
    with pytest.raises(ResourceError, match="0 MiB of memory are left"):
        require_host_memory()


def test_memory_that_is_there_is_let_through():
    assert free_memory(torch.device("cpu")) > 2**28
    require_host_memory()


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
