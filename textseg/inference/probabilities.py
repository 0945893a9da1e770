"""Finished probabilities: of each prompt only the box in which they are above zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from textseg.kernels.restore import Box, bounding_box

Shape: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class BoxedProbability:
    """Probability of one structure inside a box; it is 0 elsewhere.

    Attributes:
        values: uint8 ``X Y Z`` of the box, ``round(255 * p)``, in host memory.
        box: Where in the volume.
    """

    values: Tensor
    box: Box

    def within(self, box: Box) -> Tensor:
        """The values of a larger or smaller box, as a new tensor."""
        return _pasted([self], box)

    def flipped(self, axis: int, size: int) -> BoxedProbability:
        """The same in a volume that is flipped along an axis of ``size`` voxels."""
        return BoxedProbability(self.values.flip(axis), flipped_box(self.box, axis, size))


class Probabilities:
    """A probability for every prompt, kept in pieces as slabs are finished.

    Attributes:
        shape: Voxels of the volume.
    """

    def __init__(self, num_prompts: int, shape: Shape) -> None:
        self.shape = shape
        self._pieces: list[list[BoxedProbability]] = [[] for _ in range(num_prompts)]

    @classmethod
    def of(cls, values: Tensor) -> Probabilities:
        """Those of a uint8 tensor ``K X Y Z``."""
        x, y, z = values.shape[1:]
        probabilities = cls(len(values), (x, y, z))
        for prompt, each in enumerate(values):
            probabilities.add(prompt, each, start=(0, 0, 0))
        return probabilities

    @classmethod
    def joined(cls, parts: Sequence[Probabilities]) -> Probabilities:
        """Those of several sets of prompts on the same volume, one after the other."""
        joined = cls(0, parts[0].shape)
        joined._pieces = [pieces for part in parts for pieces in part._pieces]
        return joined

    def add(self, prompt: int, values: Tensor, *, start: Shape) -> None:
        """Keeps what is above zero of uint8 ``X Y Z`` from a voxel on; pieces never overlap."""
        box = bounding_box(values)
        if box is not None:
            x, y, z = (
                slice(at + part.start, at + part.stop) for at, part in zip(start, box, strict=True)
            )
            self._pieces[prompt].append(BoxedProbability(values[box].clone(), (x, y, z)))

    def __len__(self) -> int:
        """How many prompts."""
        return len(self._pieces)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[prompt] for prompt in range(len(self)))

    def __getitem__(self, prompt: int) -> Tensor:
        """uint8 ``X Y Z`` of the whole volume."""
        x, y, z = (slice(0, size) for size in self.shape)
        return _pasted(self._pieces[prompt], (x, y, z))

    def boxed(self, prompt: int) -> BoxedProbability:
        """The smallest box that holds the prompt's probability; of no voxels if that is 0."""
        pieces = self._pieces[prompt]
        box = enclosing([piece.box for piece in pieces])
        return BoxedProbability(_pasted(pieces, box), box)

    def taken(self, prompt: int) -> BoxedProbability:
        """What ``boxed`` gives, which is no longer kept here."""
        part = self.boxed(prompt)
        self._pieces[prompt] = []
        return part

    def trimmed(self, shape: Shape) -> Probabilities:
        """Those of the first voxels of each axis."""
        x, y, z = (slice(0, size) for size in shape)
        trimmed = self.within((x, y, z))
        trimmed.shape = shape
        return trimmed

    def within(self, box: Box) -> Probabilities:
        """Those inside a box; 0 elsewhere."""
        kept = Probabilities(len(self), self.shape)
        for prompt, pieces in enumerate(self._pieces):
            for piece in pieces:
                inside = _common(piece.box, box)
                if inside == piece.box:
                    kept._pieces[prompt].append(piece)
                elif inside is not None:
                    kept._pieces[prompt].append(BoxedProbability(piece.within(inside), inside))
        return kept

    def stacked(self) -> Tensor:
        """uint8 ``K X Y Z``, everything at once."""
        empty = torch.empty((0, *self.shape), dtype=torch.uint8)
        return torch.stack(list(self)) if len(self) else empty

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(piece.values.nbytes for pieces in self._pieces for piece in pieces)


def enclosing(boxes: list[Box]) -> Box:
    """The smallest box around all of them; of no voxels if there are none.

    >>> low, high = (slice(1, 2), slice(0, 9), slice(4, 5)), (slice(5, 7), slice(3, 4), slice(4, 6))
    >>> enclosing([low, high])
    (slice(1, 7, None), slice(0, 9, None), slice(4, 6, None))
    """
    x, y, z = (
        slice(
            min((box[axis].start for box in boxes), default=0),
            max((box[axis].stop for box in boxes), default=0),
        )
        for axis in range(3)
    )
    return x, y, z


def united(parts: Sequence[BoxedProbability]) -> BoxedProbability:
    """The largest probability at each voxel, in the smallest box around all parts."""
    box = enclosing([part.box for part in parts if part.values.numel()])
    values = parts[0].within(box)
    for part in parts[1:]:
        torch.maximum(values, part.within(box), out=values)
    return BoxedProbability(values, box)


def averaged(one: BoxedProbability, other: BoxedProbability) -> BoxedProbability:
    """The mean of two probabilities at each voxel, halves rounded up, in a box around both."""
    box = enclosing([part.box for part in (one, other) if part.values.numel()])
    values, more = one.within(box), other.within(box)
    # a + b = 2 (a | b) - (a ^ b), which 8 bits hold
    return BoxedProbability((values | more) - ((values ^ more) >> 1), box)


def flipped_box(box: Box, axis: int, size: int) -> Box:
    """Where a box comes to lie when its volume is flipped along an axis of ``size`` voxels.

    >>> flipped_box((slice(0, 2), slice(1, 4), slice(5, 6)), 1, 10)
    (slice(0, 2, None), slice(6, 9, None), slice(5, 6, None))
    """
    x, y, z = (
        slice(size - part.stop, size - part.start) if each == axis else part
        for each, part in enumerate(box)
    )
    return x, y, z


def _common(first: Box, other: Box) -> Box | None:
    """The box that two boxes share."""
    x, y, z = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(first, other, strict=True)
    )
    return (x, y, z) if all(part.start < part.stop for part in (x, y, z)) else None


def _relative(box: Box, origin: Box) -> Box:
    """A box as seen from the first voxel of another."""
    x, y, z = (
        slice(part.start - at.start, part.stop - at.start)
        for part, at in zip(box, origin, strict=True)
    )
    return x, y, z


def _pasted(pieces: Sequence[BoxedProbability], box: Box) -> Tensor:
    """The part of some pieces that lies in a box, in one tensor of that box."""
    values = torch.zeros([part.stop - part.start for part in box], dtype=torch.uint8)
    for piece in pieces:
        inside = _common(piece.box, box)
        if inside is not None:
            values[_relative(inside, box)] = piece.values[_relative(inside, piece.box)]
    return values
