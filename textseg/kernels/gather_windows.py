"""Cuts a batch of windows out of a volume: crop, padding, normalisation and cast in one pass.

For windows ``w`` that start at ``s`` and their voxels ``x y z``, with ``i = s[w] + (x y z)``::

    value[w, c, x, y, z]  = volume[c, i]  where i lies in the volume, else fill[c]
    result[w, c, x, y, z] = value[w, c, x, y, z] * scale[c] + shift[c]

``fill`` is in the units of the volume and is normalised like the rest, so a window that runs past
the end looks as if the scan went on with that value (air, say). The arithmetic is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textseg.errors import ModelError
from textseg.kernels.backends import Backend, check_backend

Shape = tuple[int, int, int]


def gather_windows_reference(
    volume: Tensor,
    starts: Tensor,
    *,
    window: Shape,
    fill: Tensor,
    scale: Tensor,
    shift: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """The windows in plain float32, ``W C wx wy wz``: the specification.

    ``dtype`` is what ``gather_windows`` would round to; the specification does not round.
    """
    sizes = torch.tensor(volume.shape[1:], device=volume.device)
    offsets = torch.stack(
        torch.meshgrid(*(torch.arange(n, device=volume.device) for n in window), indexing="ij")
    )  # 3 wx wy wz
    index = starts.to(volume.device)[:, :, None, None, None] + offsets  # W 3 wx wy wz
    limits = sizes[:, None, None, None]
    inside = ((index >= 0) & (index < limits)).all(dim=1, keepdim=True)  # W 1 wx wy wz
    x, y, z = index.clamp(min=torch.zeros_like(limits), max=limits - 1).unbind(dim=1)
    value = volume.float()[:, x, y, z].transpose(0, 1)  # W C wx wy wz
    fill, scale, shift = (
        each.to(volume.device, torch.float32)[:, None, None, None] for each in (fill, scale, shift)
    )
    return torch.where(inside, value, fill) * scale + shift


def gather_windows(
    volume: Tensor,
    starts: Tensor,
    *,
    window: Shape,
    fill: Tensor,
    scale: Tensor,
    shift: Tensor,
    dtype: torch.dtype,
    backend: Backend = "auto",
) -> Tensor:
    """The windows ``W C wx wy wz``, normalised, in ``dtype`` and channels last in memory.

    Args:
        volume: C X Y Z, any real type, any strides.
        starts: int64 W 3, the first voxel of each window; may be negative or past the end.
        window: Voxels of a window.
        fill: float32 C, what lies outside the volume, in the volume's units.
        scale: float32 C, by which values are multiplied.
        shift: float32 C, which is added afterwards.
        dtype: Floating type of the result.
        backend: ``auto`` takes the fastest that is known to be right on the volume's device.

    Raises:
        ModelError: The backend does not exist or cannot run, or shapes do not belong together.
    """
    check_backend("gather_windows", backend, volume.device)
    _check(
        volume, starts, window=window, per_channel={"fill": fill, "scale": scale, "shift": shift}
    )
    windows = torch.empty(
        (len(starts), len(volume), *window),
        dtype=dtype,
        device=volume.device,
        memory_format=torch.channels_last_3d,
    )
    fill, scale, shift = (
        each.to(volume.device, torch.float32).contiguous() for each in (fill, scale, shift)
    )
    if backend == "triton":
        from textseg.kernels.gather_windows_triton import gather_windows_triton

        starts = starts.to(volume.device).contiguous()
        return gather_windows_triton(windows, volume, starts, fill=fill, scale=scale, shift=shift)
    return _gather_windows_torch(windows, volume, starts, fill=fill, scale=scale, shift=shift)


def _check(
    volume: Tensor, starts: Tensor, *, window: Shape, per_channel: dict[str, Tensor]
) -> None:
    """Refuses shapes and types that do not belong together."""
    if volume.ndim != 4 or min(volume.shape[1:]) == 0 or volume.is_complex():
        raise ModelError(
            f"Cannot cut windows out of a volume of shape {tuple(volume.shape)} and type "
            f"{volume.dtype}.",
            remedy="Give real numbers C X Y Z, with at least one voxel.",
        )
    if starts.ndim != 2 or starts.shape[1] != 3 or starts.dtype != torch.int64:
        raise ModelError(
            f"Cannot start windows at {starts.dtype} of shape {tuple(starts.shape)}.",
            remedy="Give int64 of shape W 3.",
        )
    if len(window) != 3 or min(window) < 1:
        raise ModelError(
            f"Cannot cut a window of {tuple(window)} voxels.", remedy="Give three lengths above 0."
        )
    for name, values in per_channel.items():
        if values.shape != volume.shape[:1]:
            raise ModelError(
                f"{name} has shape {tuple(values.shape)} for a volume of {len(volume)} channels.",
                remedy="Give one value per channel.",
            )


def _gather_windows_torch(
    windows: Tensor, volume: Tensor, starts: Tensor, *, fill: Tensor, scale: Tensor, shift: Tensor
) -> Tensor:
    """One crop after the other; padding is written only where a window runs over an edge."""
    fill, scale, shift = (each[:, None, None, None] for each in (fill, scale, shift))
    padding = torch.addcmul(shift, fill, scale)
    for target, start in zip(windows, starts.tolist(), strict=True):
        crop = volume
        whole = target
        for axis, first in enumerate(start, start=1):
            lowest = max(first, 0)
            length = min(first + target.shape[axis], volume.shape[axis]) - lowest
            if length <= 0:
                crop = crop.narrow(axis, 0, 0)
                whole = whole.narrow(axis, 0, 0)
                continue
            crop = crop.narrow(axis, lowest, length)
            whole = whole.narrow(axis, lowest - first, length)
        if whole.shape != target.shape:
            target.copy_(padding.expand_as(target))
        whole.copy_(torch.addcmul(shift, crop.float(), scale))
    return windows
