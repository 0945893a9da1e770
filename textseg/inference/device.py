"""Which processor the network runs on."""

from __future__ import annotations

import torch

from textseg.errors import ModelError


def choose_device(name: str) -> torch.device:
    """The device a name stands for.

    Raises:
        ModelError: The name is unknown, or the device is not there; nothing falls back silently.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(
            f"{name!r} is not a device.", remedy="Use auto, cpu, cuda, cuda:N or mps."
        ) from error
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type != "cpu" and (device.index or 0) >= count.get(device.type, 0):
        raise ModelError(f"there is no device {name!r} here.", remedy="Use --device cpu.")
    return device
