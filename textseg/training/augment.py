"""Random geometry and random image quality, from an explicit generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.nn import functional


@dataclass(frozen=True)
class GeometryConfig:
    """How far a training crop may stray from the case it is cut from.

    Attributes:
        rotation_deg: Largest rotation about each axis.
        scale: Smallest and largest overall scale.
        stretch: Largest additional scale of each axis, as a fraction.
        elastic_mm: Standard deviation of the displacement of control points.
        elastic_spacing_mm: Distance between control points.
        slab: Probability that the scan ends before the crop does, as a scan of few slices does.
        slab_mm: Least and largest thickness of such a scan.
    """

    rotation_deg: float = 12.0
    scale: tuple[float, float] = (0.85, 1.2)
    stretch: float = 0.1
    elastic_mm: float = 5.0
    elastic_spacing_mm: float = 45.0
    slab: float = 0.0
    slab_mm: tuple[float, float] = (40.0, 160.0)


@dataclass(frozen=True)
class QualityConfig:
    """How far image quality may vary; every probability and range is drawn anew per crop.

    Attributes:
        blur_voxels: Largest standard deviation of the point spread function.
        thick_slice: Probability of thick slices along one axis.
        thick_factor: Largest slice thickness, in voxels of the crop.
        bias: Largest log amplitude of the multiplicative bias field (MR).
        noise: Largest standard deviation of the noise, in model input units.
        gamma: Largest absolute log of the gamma exponent (MR).
    """

    blur_voxels: float = 0.8
    thick_slice: float = 0.3
    thick_factor: float = 4.0
    bias: float = 0.4
    noise: float = 0.15
    gamma: float = 0.3


def uniform(low: float, high: float, generator: Generator) -> float:
    """One number drawn uniformly from ``low`` to ``high``."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def chance(probability: float, generator: Generator) -> bool:
    """True with the given probability."""
    return float(torch.rand((), generator=generator)) < probability


def smooth_noise(
    shape: tuple[int, int, int],
    knots: tuple[int, int, int],
    generator: Generator,
    channels: int = 1,
) -> Tensor:
    """Unit-variance Gaussian knots, interpolated to ``channels X Y Z``."""
    return enlarge(torch.randn(channels, *knots, generator=generator), shape)


def enlarge(knots: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """``C A B D`` interpolated linearly to ``C X Y Z``, the outermost knots at the corners.

    One axis after the other, as products of small matrices: several times as fast as
    ``torch.nn.functional.interpolate``.
    """
    x, y, z = (_weights(n, m) for n, m in zip(shape, knots.shape[1:], strict=True))
    return torch.einsum("cijk,xi,yj,zk->cxyz", knots, x, y, z)


@lru_cache(maxsize=256)
def _weights(size: int, knots: int) -> Tensor:
    """What each of ``size`` places between ``knots`` points takes of them, ``size knots``."""
    each = torch.eye(knots)[None]
    return functional.interpolate(each, size=size, mode="linear", align_corners=True)[0].T


def crop_coordinates(
    config: GeometryConfig,
    *,
    centre: Tensor,
    shape: tuple[int, int, int],
    spacing_mm: Tensor,
    target_mm: tuple[float, float, float],
    generator: Generator,
) -> Tensor:
    """Voxel coordinates ``3 X Y Z`` in the source for every voxel of a deformed crop.

    Args:
        config: Strength of the deformation.
        centre: Source voxel at the middle of the crop.
        shape: Voxels of the crop.
        spacing_mm: Voxel size of the source, per axis.
        target_mm: Voxel size of the crop, per axis.
        generator: Source of randomness.
    """
    # all of it is linear between the control points, so only they are computed
    gap = config.elastic_spacing_mm if config.elastic_mm > 0 else math.inf
    axes = []
    for n, step in zip(shape, target_mm, strict=True):
        half = (n - 1) / 2 * step
        axes.append(torch.linspace(-half, half, max(2, math.ceil(n * step / gap) + 1)))
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # 3 P
    points = random_affine(config, generator) @ points
    if config.elastic_mm > 0:
        field = torch.randn(points.shape, generator=generator)
        points = points + field * (uniform(0.2, 1.0, generator) * config.elastic_mm)
    points = points / spacing_mm[:, None] + centre[:, None]
    return enlarge(points.view(3, *(len(axis) for axis in axes)), shape)


def random_affine(config: GeometryConfig, generator: Generator) -> Tensor:
    """Rotation, scale and stretch as a 3x3 matrix."""
    matrix = torch.eye(3)
    for axis in range(3):
        limit = math.radians(config.rotation_deg)
        angle = uniform(-limit, limit, generator)
        a, b = [i for i in range(3) if i != axis]
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    scale = 1.0 / uniform(*config.scale, generator)
    stretch = torch.tensor(
        [1.0 + uniform(-config.stretch, config.stretch, generator) for _ in range(3)]
    )
    return matrix * scale * stretch


def blur(image: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """Separable Gaussian blur of ``C X Y Z``; sigma in voxels per axis."""
    for axis, width in enumerate(sigma):
        if width < 0.1:
            continue
        radius = max(1, math.ceil(2.5 * width))
        taps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
        kernel = torch.exp(-0.5 * (taps / width) ** 2)
        view = [1, 1, 1, 1, 1]
        view[2 + axis] = -1
        padding = [0, 0, 0]
        padding[axis] = radius
        sides = [pad for pad in reversed(padding) for _ in range(2)]
        padded = functional.pad(image[:, None], sides, mode="replicate")
        image = functional.conv3d(padded, (kernel / kernel.sum()).view(view))[:, 0]
    return image


def degrade(image: Tensor, config: QualityConfig, generator: Generator) -> Tensor:
    """Blur, thick slices and noise, as a scanner would add them, to ``1 X Y Z`` model input."""
    width = uniform(0.0, config.blur_voxels, generator)
    image = blur(image, (width, width, width))
    if chance(config.thick_slice, generator):
        image = thicken(image, uniform(1.2, config.thick_factor, generator), generator)
    strength = uniform(0.0, config.noise, generator)
    noise = torch.randn(image.shape, generator=generator)
    if chance(0.3, generator):  # reconstruction kernels correlate the noise
        noise = blur(noise, (0.6, 0.6, 0.6)) * 2.5
    return image + strength * noise


def thicken(image: Tensor, factor: float, generator: Generator) -> Tensor:
    """Average and resample along one axis, as thick slices do; mostly along the last axis."""
    axis = 2 if chance(0.6, generator) else int(torch.randint(2, (1,), generator=generator))
    size = list(image.shape[1:])
    coarse = list(size)
    coarse[axis] = max(2, round(size[axis] / factor))
    thick = functional.adaptive_avg_pool3d(image[None], (coarse[0], coarse[1], coarse[2]))
    return functional.interpolate(thick, size=size, mode="trilinear", align_corners=False)[0]


def cut_slab(
    image: Tensor, labels: Tensor, *, voxels: int, axis: int, outside: int
) -> tuple[Tensor, Tensor]:
    """The middle of a crop, padded as inference pads a scan that is shorter than its window.

    Args:
        image: ``1 X Y Z``.
        labels: ``X Y Z``.
        voxels: How many to keep along the axis.
        axis: 0, 1 or 2.
        outside: Label of the voxels that are not scanned.
    """
    length = labels.shape[axis]
    start = (length - voxels) // 2
    if start < 1:
        return image, labels
    place = torch.arange(length)
    kept = (place >= start) & (place < start + voxels)
    kept = kept.view([-1 if i == axis else 1 for i in range(3)])
    lowest = image.narrow(axis + 1, start, voxels).min()
    return torch.where(kept, image, lowest), torch.where(kept, labels, outside)


def change_contrast(image: Tensor, config: QualityConfig, generator: Generator) -> Tensor:
    """Gamma and bias field on MR-like input in -1..1."""
    exponent = math.exp(uniform(-config.gamma, config.gamma, generator))
    unit = ((image + 1) / 2).clamp(0, 1) ** exponent
    shape = (image.shape[1], image.shape[2], image.shape[3])
    knots = tuple(int(torch.randint(2, 5, (1,), generator=generator)) for _ in range(3))
    field = smooth_noise(shape, (knots[0], knots[1], knots[2]), generator)
    return unit * torch.exp(uniform(0.0, config.bias, generator) * field) * 2 - 1
