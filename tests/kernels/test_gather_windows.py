"""``gather_windows``: what lies outside, what is exact, how it lies in memory, what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textseg.errors import ModelError
from textseg.kernels import gather_windows, gather_windows_reference

SETTINGS = {
    "window": (5, 4, 3),
    "fill": torch.tensor([-8.0, 2.0]),
    "scale": torch.tensor([0.5, 4.0]),
    "shift": torch.tensor([1.0, -2.0]),
    "dtype": torch.float32,
}


def whole_numbers(shape=(2, 6, 5, 7)):
    """A volume whose windows every type holds exactly: halves below 64."""
    return torch.randint(-16, 16, shape, generator=torch.Generator().manual_seed(0)).float()


def by_hand(volume, starts):
    """The formula, one element at a time."""
    shape = (len(starts), len(volume), *SETTINGS["window"])
    result = torch.empty(shape)
    for w, c, *xyz in torch.cartesian_prod(*(torch.arange(n) for n in shape)).tolist():
        index = [int(first) + i for first, i in zip(starts[w], xyz, strict=True)]
        inside = all(0 <= i < n for i, n in zip(index, volume.shape[1:], strict=True))
        value = volume[c, *index] if inside else SETTINGS["fill"][c]
        result[w, c, *xyz] = value * SETTINGS["scale"][c] + SETTINGS["shift"][c]
    return result


STARTS = torch.tensor([[0, 0, 0], [1, 1, 2], [-2, 3, -1], [4, -3, 6], [-9, 0, 0], [0, 5, 99]])


def test_the_specification_is_the_formula_of_its_docstring():
    volume = whole_numbers()
    expected = by_hand(volume, STARTS)
    assert torch.equal(gather_windows_reference(volume, STARTS, **SETTINGS), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.int16], ids=str)
def test_numbers_that_a_type_holds_are_exact(dtype, stored, poisoned):
    volume = whole_numbers()
    expected = gather_windows_reference(volume, STARTS, **SETTINGS).to(dtype)
    actual = gather_windows(volume.to(stored), STARTS, **SETTINGS | {"dtype": dtype})
    assert torch.equal(actual, expected)
    assert actual.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.int16], ids=str)
def test_numbers_that_a_type_holds_are_exact_in_triton(dtype, stored, triton_device, poisoned):
    volume = whole_numbers().to(triton_device)
    expected = by_hand(volume.cpu(), STARTS).to(triton_device, dtype)
    settings = SETTINGS | {"dtype": dtype, "backend": "triton"}
    actual = gather_windows(volume.to(stored), STARTS, **settings)
    assert torch.equal(actual, expected)
    assert actual.is_contiguous(memory_format=torch.channels_last_3d)


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    window=st.tuples(*[st.integers(1, 6)] * 3),
    starts=st.lists(st.tuples(*[st.integers(-9, 9)] * 3), max_size=3),
)
def test_any_size_and_place_agrees_with_the_specification(shape, window, starts):
    volume = whole_numbers((2, *shape))
    starts = torch.tensor(starts, dtype=torch.int64).reshape(-1, 3)
    given = SETTINGS | {"window": window}
    expected = gather_windows_reference(volume, starts, **given)
    assert torch.equal(gather_windows(volume, starts, **given), expected)


def test_padding_looks_like_a_scan_that_goes_on():
    volume = whole_numbers()
    larger = SETTINGS["fill"][:, None, None, None].repeat(1, 20, 20, 20)
    larger[:, 7:13, 7:12, 7:14] = volume
    starts = torch.tensor([[-3, 2, 5], [4, 4, -2]])
    inside = gather_windows(larger, starts + 7, **SETTINGS)
    assert torch.equal(gather_windows(volume, starts, **SETTINGS), inside)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume": torch.zeros(6, 5, 7)}, "volume of shape"),
        ({"volume": torch.zeros(2, 6, 0, 7)}, "volume of shape"),
        ({"starts": torch.zeros(2, 3)}, "float32"),
        ({"starts": torch.zeros(3, 2, dtype=torch.int64)}, r"\(3, 2\)"),
        ({"window": (5, 0, 3)}, r"\(5, 0, 3\)"),
        ({"scale": torch.ones(3)}, "scale has shape"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        gather_windows(**{"volume": whole_numbers(), "starts": STARTS} | SETTINGS | change)
