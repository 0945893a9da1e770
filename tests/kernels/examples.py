"""Arguments for each operation, with which tests and benchmarks loop over ``OPS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HALF_PRECISION = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Size:
    """How large an example is.

    Attributes:
        window: Voxels.
        channels: Channels of a map or a volume.
        count: Prompts, windows or maps, whichever the operation has many of.
    """

    window: tuple[int, int, int]
    channels: int
    count: int

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.window))} C{self.channels} K{self.count}"


@dataclass(frozen=True)
class Example:
    """Arguments of an operation.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments, without ``backend``.
        tolerance: Per backend, the largest difference from the specification that rounding makes.
        bytes_moved: What has to be read and written at least.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tolerance: Mapping[str, float]
    bytes_moved: int


@dataclass(frozen=True)
class Examples:
    """What to try an operation on.

    Attributes:
        make: An example of a size, a type of its maps, and a device.
        several_tiles: A size that takes its kernel more than one program along every axis.
        realistic: The sizes at which it is timed.
    """

    make: Callable[[torch.Generator, Size, torch.dtype, torch.device], Example]
    several_tiles: Size
    realistic: tuple[Size, ...]


def window_blend(
    generator: torch.Generator, size: Size, dtype: torch.dtype, device: torch.device
) -> Example:
    """Features of ``dtype``, channels last; totals are float16 for float16 features."""
    shape, c, k = size.window, size.channels, size.count
    total_type = torch.float16 if dtype == torch.float16 else torch.float32
    total = torch.rand((k, *shape), generator=generator).to(device, total_type)
    features = torch.randn((*shape, c), generator=generator).to(device, dtype).permute(3, 0, 1, 2)
    vectors = (2 * torch.randn((k, c + 1), generator=generator) / c**0.5).to(device)
    weights = tuple(torch.rand(n, generator=generator).to(device) for n in shape)
    # A total below 2 in half precision is rounded by 2^-11 at most; the rest is float32.
    rounding = 2.0**-11 if total_type == torch.float16 else 0.0
    # PyTorch's product leaves the logits, below 16, in the features' type: half a step of that,
    # for vectors and logits alike, times the sigmoid's steepest slope.
    logits = 16 * 0.25 * torch.finfo(dtype).eps if dtype in HALF_PRECISION else 0.0
    return Example(
        args=(total, features, vectors),
        kwargs={"weights": weights},
        tolerance={"triton": 1e-5 + rounding, "torch": 1e-5 + rounding + logits},
        bytes_moved=2 * bytes_of(total) + bytes_of(features),
    )


def gather_windows(
    generator: torch.Generator, size: Size, dtype: torch.dtype, device: torch.device
) -> Example:
    """Windows that overlap the edges of a float32 volume a little larger than they are."""
    shape = torch.tensor([n + 4 for n in size.window])
    volume = torch.randn((size.channels, *shape.tolist()), generator=generator).to(device)
    starts = torch.stack(
        [torch.randint(-2, 7, (size.count,), generator=generator) for _ in size.window], dim=1
    )
    fill, scale, shift = torch.rand((3, size.channels), generator=generator).to(device)
    lengths = torch.tensor(size.window)
    read = torch.minimum(starts + lengths, shape) - starts.clamp(min=0)  # W 3
    num_read = size.channels * int(read.clamp(min=0).prod(dim=1).sum())
    num_written = size.count * size.channels * int(lengths.prod())
    # Values stay below 8. Half a step of the type for PyTorch; a whole one for Triton, whose
    # interpreter cuts bfloat16 off instead of rounding it.
    step = 4 * torch.finfo(dtype).eps
    return Example(
        args=(volume, starts.to(device)),
        kwargs={
            "window": size.window,
            "fill": fill,
            "scale": scale,
            "shift": shift,
            "dtype": dtype,
        },
        tolerance={"triton": step, "torch": step},
        bytes_moved=num_read * volume.element_size() + num_written * dtype.itemsize,
    )


def restore(
    generator: torch.Generator, size: Size, dtype: torch.dtype, device: torch.device
) -> Example:
    """One prompt's uint8, as the working grid stores it, for scan axes in reverse order.

    The scan has 8 voxels for 3 working ones, and its middle axis is flipped. Sums of 8 bits times
    three eighths are exact in float32, so every bit has to agree, whatever the order.
    """
    shape = size.window[::-1]
    probability = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    places = tuple(
        torch.arange(-1, -(-8 * n // 3) - 1).mul(3 / 8).clamp(0, n - 1).to(device)
        for n in size.window
    )
    x, y, z = map(len, places)
    return Example(
        args=(probability.permute(2, 1, 0),),
        kwargs={"places": (places[0], places[1].flip(0), places[2]), "level": 127.5},
        tolerance={"triton": 0.0, "torch": 0.0},
        bytes_moved=bytes_of(probability) + x * y * -(-z // 8),
    )


def instance_norm(
    generator: torch.Generator, size: Size, dtype: torch.dtype, device: torch.device
) -> Example:
    """Maps with channels last, of mean 1 and deviation 2."""
    x = 1 + 2 * torch.randn((size.count, *size.window, size.channels), generator=generator)
    weight, bias = torch.rand((2, size.channels), generator=generator).to(device)
    x = x.to(device, dtype).permute(0, 4, 1, 2, 3)
    # As for gather_windows: results stay below 8, and float32 sums come in another order.
    step = 4 * torch.finfo(dtype).eps + 1e-5
    return Example(
        args=(x, weight, bias),
        kwargs={},
        tolerance={"triton": step, "torch": step},
        bytes_moved=3 * bytes_of(x),
    )


WINDOWS = ((96, 96, 96), (288, 288, 96))

EXAMPLES: dict[str, Examples] = {
    "window_blend": Examples(
        window_blend,
        several_tiles=Size((5, 9, 7), channels=67, count=66),
        realistic=tuple(
            Size(window, channels, count)
            for window, channels in zip(WINDOWS, (64, 48), strict=True)
            for count in (1, 32, 128)
        ),
    ),
    "restore": Examples(
        restore,
        several_tiles=Size((2, 2, 200), channels=1, count=1),
        realistic=(Size((171, 171, 150), 1, 1), Size((64, 64, 64), 1, 1)),
    ),
    "gather_windows": Examples(
        gather_windows,
        several_tiles=Size((11, 13, 9), channels=3, count=2),
        realistic=(Size(WINDOWS[0], 1, 4), Size(WINDOWS[0], 4, 4), Size(WINDOWS[1], 1, 1)),
    ),
    "instance_norm": Examples(
        instance_norm,
        several_tiles=Size((5, 9, 7), channels=67, count=2),
        realistic=tuple(
            Size((n, n, n), channels, count)
            for n, channels in ((96, 32), (48, 64), (24, 128))
            for count in (1, 4)
        ),
    ),
}
"""The examples of each operation, by its name."""


def bytes_of(tensor: Tensor) -> int:
    """Bytes of all elements."""
    return tensor.numel() * tensor.element_size()
