"""What voxel values mean: the model's input range, where the body is, which modality it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

if TYPE_CHECKING:
    from textseg.imaging.volume import Modality

_CT_RANGE_HU = 1000.0
_CT_SCALE_HU = 250.0
_PERCENTILES = (0.005, 0.995)
_PERCENTILE_SAMPLE = 2_000_000
_BACKGROUND_SHARE = 1e-3
_AIR_HU = -900.0
_DARK_SHARE = 0.05
_SPECK_VOXELS = 100
_MARGIN_VOXELS = 2
_GUESS_SAMPLE = 500_000


def normalise_intensity(data: Tensor, modality: Modality | None) -> Tensor:
    """The data in the range the model was trained on; float32, same shape.

    CT is clipped to -1000..1000 HU and divided by 250. Anything else is stretched per channel:
    the 0.5 and 99.5 percentiles of the voxels above background go to -1 and 1, values beyond
    are clipped, and a constant channel becomes 0.

    Args:
        data: ``C X Y Z``, raw intensities.
        modality: What the intensities are; None is treated like MR.

    >>> normalise_intensity(torch.tensor([[[[-2000.0, 0.0, 500.0]]]]), "ct").tolist()
    [[[[-4.0, 0.0, 2.0]]]]
    >>> normalise_intensity(torch.tensor([[[[0.0, 20.0, 40.0, 60.0, 60.0]]]]), "mr").tolist()
    [[[[-1.0, -1.0, 0.0, 1.0, 1.0]]]]
    """
    return torch.stack([intensity_scale(channel, modality).apply(channel) for channel in data])


@dataclass(frozen=True)
class IntensityScale:
    """How raw intensities become the model's input.

    Attributes:
        low: What becomes -1.
        high: What becomes 1; as ``low`` if the data were constant, which become 0.
        least: Smaller values are clipped to it.
        most: Larger values are clipped to it.
    """

    low: float
    high: float
    least: float
    most: float

    def apply(self, data: Tensor) -> Tensor:
        """The data in the model's range; float32, same shape."""
        values = data.to(torch.float32)
        if self.high <= self.low:
            return torch.zeros_like(values)
        return (values.clamp(self.least, self.most) - self.low) / (self.high - self.low) * 2.0 - 1.0


def intensity_scale(data: Tensor, modality: Modality | None) -> IntensityScale:
    """The scale of a scan, by which parts of it can be normalised as the whole is.

    Args:
        data: One channel, raw intensities.
        modality: As in ``normalise_intensity``.
    """
    if modality == "ct":
        return IntensityScale(-_CT_SCALE_HU, _CT_SCALE_HU, -_CT_RANGE_HU, _CT_RANGE_HU)
    values = data.to(torch.float32)
    least, most = (float(value) for value in values.aminmax())
    foreground = values[values > least + _BACKGROUND_SHARE * (most - least)]
    if foreground.numel() == 0:
        return IntensityScale(least, least, least, most)
    # an even stride keeps large volumes quick and the answer the same on every run
    sample = foreground[:: max(1, foreground.numel() // _PERCENTILE_SAMPLE)]
    low, high = (_percentile(sample, share) for share in _PERCENTILES)
    return IntensityScale(low, high, low, high)


def _percentile(values: Tensor, share: float) -> float:
    """The value of the nearest rank."""
    rank = round(share * (values.numel() - 1))
    return float(values.kthvalue(rank + 1).values)


def body_mask(data: Tensor, modality: Modality | None) -> Tensor:
    """Where the patient may be: False only for air that reaches the edge of its axial slice.

    Errs towards the body: lungs, bowel gas and sinuses count as inside, a margin of a few voxels
    is added, and a volume without recognisable air is all True.

    Args:
        data: ``C X Y Z`` on the working grid (third axis runs feet to head), raw intensities.
        modality: CT is thresholded in HU, anything else relative to its own range.

    Returns:
        bool ``X Y Z`` on the device of ``data``.
    """
    channels = data.to(device="cpu", dtype=torch.float32).numpy()
    body = np.zeros(channels.shape[1:], dtype=np.bool_)
    for channel in channels:
        body |= _body_of_channel(channel, modality)
    if not body.any():
        body[:] = True
    return torch.from_numpy(body).to(data.device)


def _body_of_channel(
    channel: npt.NDArray[np.float32], modality: Modality | None
) -> npt.NDArray[np.bool_]:
    """All voxels but the air around the body."""
    level = _AIR_HU if modality == "ct" else _dark_level(channel)
    # averaging quiets noise in the air and spreads tissue outwards by a voxel
    tissue = ndimage.uniform_filter(channel, size=3, mode="nearest") > level
    tissue = _without_specks(tissue)
    outside = _reaching_slice_edge(~tissue)
    return np.asarray(ndimage.maximum_filter(~outside, size=2 * _MARGIN_VOXELS + 1), dtype=np.bool_)


def _dark_level(channel: npt.NDArray[np.float32]) -> float:
    """A level above which MR or PET intensities are certainly not empty air."""
    least = float(channel.min())
    bright = float(np.percentile(channel.ravel()[:: max(1, channel.size // _GUESS_SAMPLE)], 99))
    return least + _DARK_SHARE * (bright - least)


def _without_specks(tissue: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Without connected pieces too small to be part of a body."""
    labels, count = ndimage.label(tissue)
    if count == 0:
        return tissue
    kept = np.bincount(labels.ravel()) >= _SPECK_VOXELS
    kept[0] = False
    return np.asarray(kept[labels], dtype=np.bool_)


def _reaching_slice_edge(air: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The air connected, within its own axial slice, to that slice's border."""
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[:, :, [0, 2]] = False
    labels, count = ndimage.label(air, structure=in_plane)
    reaching = np.zeros(count + 1, dtype=np.bool_)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        reaching[border.ravel()] = True
    reaching[0] = False
    return np.asarray(reaching[labels], dtype=np.bool_)


def guess_modality(data: npt.NDArray[np.floating[Any]]) -> tuple[Modality, str]:
    """CT if the values look like Hounsfield units, else MR; and the reason, for the manifest.

    >>> guess_modality(np.array([[[-1000.0, -900.0, 40.0, 60.0]]]))[0]
    'ct'
    >>> guess_modality(np.array([[[0.0, 12.0, 400.0, 650.0]]]))
    ('mr', 'values from 0 to 650 are not Hounsfield units')
    """
    flat = data.ravel(order="K")
    sample = flat[:: max(1, flat.size // _GUESS_SAMPLE)]
    low, high = float(sample.min()), float(sample.max())
    if looks_like_hounsfield(sample):
        return "ct", f"values from {low:g} to {high:g} look like Hounsfield units"
    return "mr", f"values from {low:g} to {high:g} are not Hounsfield units"


def looks_like_hounsfield(sample: npt.NDArray[np.floating[Any]]) -> bool:
    """Air or fat below -50 HU, soft tissue or more above, nothing denser than metal allows."""
    fat_or_air = float(np.mean(sample < -50.0))
    return bool(fat_or_air > 1e-3 and 0.0 < sample.max() < 40_000.0 and sample.min() > -20_000.0)
