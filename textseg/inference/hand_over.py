"""Brings finished planes from the device to host memory while the next ones are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Keep: TypeAlias = Callable[[Tensor], None]
"""Takes what has arrived; copies what it wants of it, as the memory is used again."""
Transfer: TypeAlias = Callable[[Tensor, Tensor], Callable[[], None]]
"""Begins to copy the second tensor into the first; what it returns waits until that is done."""


class HandOver:
    """Two buffers in host memory take turns: one is filled while the other is stored.

    Args:
        transfer: How a copy is begun; None where the values lie in host memory already.
    """

    def __init__(self, transfer: Transfer | None) -> None:
        self._transfer = transfer
        self._buffers: list[Tensor] = []
        self._arriving: Callable[[], None] | None = None

    @classmethod
    def of(cls, device: torch.device) -> HandOver:
        """That of a device: pinned memory and an event on CUDA."""
        if device.type == "cpu":
            return cls(None)
        return cls(_pinned if device.type == "cuda" else _blocking)

    def send(self, values: Tensor, keep: Keep) -> None:
        """Begins to bring values over; ``keep`` gets them at the next call at the latest.

        Args:
            values: uint8, of any shape.
            keep: What is done with them once they are in host memory.
        """
        if self._transfer is None:
            keep(values)
            return
        buffer = self._free_buffer(values)
        wait = self._transfer(buffer, values)
        self.finish()

        def arrive() -> None:
            wait()
            keep(buffer)

        self._arriving = arrive

    def finish(self) -> None:
        """Waits for what is on its way and has it kept."""
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving()

    def _free_buffer(self, like: Tensor) -> Tensor:
        """The buffer that nothing is on its way to, of the shape of ``like``."""
        pin = self._transfer is _pinned
        if len(self._buffers) < 2 or self._buffers[0].numel() < like.numel():
            self._buffers = self._buffers[-1:]
            self._buffers.insert(0, torch.empty(like.numel(), dtype=like.dtype, pin_memory=pin))
        buffer = self._buffers.pop(0)
        self._buffers.append(buffer)
        return buffer[: like.numel()].view(like.shape)


def _pinned(buffer: Tensor, values: Tensor) -> Callable[[], None]:
    buffer.copy_(values, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()
    return done.synchronize


def _blocking(buffer: Tensor, values: Tensor) -> Callable[[], None]:
    buffer.copy_(values)
    return lambda: None
