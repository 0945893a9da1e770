"""Which implementation of an operation runs, and whether it can run where the tensors are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from textseg.errors import ModelError

Backend: TypeAlias = Literal["auto", "torch", "triton"]


def check_backend(op: str, backend: Backend, device: torch.device) -> None:
    """Refuses a backend that does not exist, or that cannot run on ``device``.

    Args:
        op: Name of the operation, for the message.
        backend: What the caller asked for.
        device: Where the operation's tensors are.

    Raises:
        ModelError: There is no such backend; it is Triton's and Triton is not installed (E403), or
            the device is not a CUDA device and Triton does not interpret.
    """
    if backend not in get_args(Backend):
        raise ModelError(f"Unknown backend '{backend}'.", remedy="Use 'auto', 'torch' or 'triton'.")
    if backend != "triton":
        return
    try:
        from triton import knobs
    except ImportError as error:
        raise ModelError(
            f"The triton backend of {op} needs Triton 3.4 or newer, which is not installed.",
            code="E403",
            remedy="Install 'textseg[gpu]', or use backend='auto'.",
        ) from error
    if device.type != "cuda" and not knobs.runtime.interpret:
        raise ModelError(
            f"The triton backend of {op} runs on a CUDA device; the tensors are on '{device}'.",
            remedy="Move them to a CUDA device, or use backend='auto'.",
        )


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """A context in which Triton launches where the tensor is, not on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
