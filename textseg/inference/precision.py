"""Which number format the network runs in on a given device."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from textseg.errors import ModelError

Precision: TypeAlias = Literal["float32", "bfloat16"]


def cpu_has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512_BF16 or AMX).

    Other processors run bfloat16 too, but slower than float32.
    """
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def resolve_precision(requested: str, device: torch.device | str) -> Precision:
    """The precision to run in: what was requested, or for ``auto`` the fastest on the device.

    Raises:
        ModelError: The name is not ``auto``, ``float32`` or ``bfloat16``.
    """
    if requested == "auto":
        return "bfloat16" if _has_fast_bfloat16(torch.device(device)) else "float32"
    if requested == "float32":
        return "float32"
    if requested == "bfloat16":
        return "bfloat16"
    raise ModelError(f"Unknown precision '{requested}'.", remedy="Use auto, float32 or bfloat16.")


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        return cpu_has_fast_bfloat16()
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return False
