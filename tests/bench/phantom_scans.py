"""The scans of the training benchmark, and the sampler with which textseg cuts crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fakes import write_nifti

from textseg.datasets import Case, DatasetSpec, LabelSpace, find_cases, load_cases, load_registry
from textseg.datasets.prepare import PrepareConfig, prepare
from textseg.imaging import Modality
from textseg.knowledge import load_tree
from textseg.training.augment import QualityConfig
from textseg.training.domain_labels import DomainLabels
from textseg.training.sampling import DomainConfig, DomainSampler
from textseg.training.training_case import load_case

STRUCTURES = 60


@dataclass(frozen=True)
class Phantoms:
    """Scans to write and crops to cut of them.

    Attributes:
        modality: What the scans are taken for; MR crops also get gamma and a bias field.
        scans: How many.
        shape: Voxels of a scan.
        spacing_mm: Voxel size of a scan.
        window: Voxels of a crop.
        grid_mm: Voxel size of a crop.
    """

    modality: Modality
    scans: int = 3
    shape: tuple[int, int, int] = (256, 256, 120)
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 2.5)
    window: tuple[int, int, int] = (96, 96, 96)
    grid_mm: float = 1.5

    @property
    def spec(self) -> DatasetSpec:
        """The data set that the scans are."""
        concepts = load_registry()["dap-atlas"].concepts[:STRUCTURES]
        return DatasetSpec(
            name="phantoms",
            title="Ellipsoids in a cylinder",
            modality={self.modality: ()},
            region="abdomen",
            layout={"kind": "files", "images": {"": "{case}.nii.gz"}, "masks": "{case}_seg.nii.gz"},
            labels=dict(enumerate(concepts, start=1)),
            complete="all",
            licence="CC0-1.0",
            citation="None.",
            homepage="https://example.org",
        )


def write_scans(folder: Path, phantoms: Phantoms) -> tuple[Case, ...]:
    """Writes scans with Hounsfield-like int16 values, and their masks."""
    for number in range(phantoms.scans):
        rng = np.random.default_rng(number)
        body, labels = _anatomy(phantoms.shape, rng)
        levels = np.concatenate([[40], rng.uniform(-80, 300, STRUCTURES)])
        image = np.where(body, levels[labels], -1000) + rng.normal(0, 15, labels.shape)
        write_nifti(folder / f"{number}.nii.gz", image.astype(np.int16), phantoms.spacing_mm)
        write_nifti(folder / f"{number}_seg.nii.gz", labels, phantoms.spacing_mm)
    return find_cases(phantoms.spec, folder)


def _anatomy(shape: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the body is, and ellipsoids in it with values from 1."""
    x, y, z = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    body = (x / 0.9) ** 2 + (y / 0.8) ** 2 + 0 * z < 1
    labels = np.zeros(shape, dtype=np.uint8)
    for value in range(1, STRUCTURES + 1):
        radii = rng.uniform(0.03, 0.12, 3) * shape
        centre = rng.uniform(0.2, 0.8, 3) * shape
        lowest, highest = np.maximum(0, centre - radii).astype(int), (centre + radii).astype(int)
        box = tuple(slice(a, b + 1) for a, b in zip(lowest, highest, strict=True))
        i, j, k = ((n - c) / r for n, c, r in zip(np.ogrid[box], centre, radii, strict=True))
        labels[box][i**2 + j**2 + k**2 < 1] = value
    return body, labels


def prepared_sampler(folder: Path, cases: Sequence[Case], phantoms: Phantoms) -> DomainSampler:
    """What draws crops of the scans, which it prepares in a folder, on the crops' grid."""
    grid = PrepareConfig((phantoms.grid_mm,) * 3)
    stored = load_cases(prepare(cases, folder, specs=[phantoms.spec], config=grid).path)
    labels = DomainLabels.of(stored, LabelSpace.of(stored, tree=load_tree()))
    config = DomainConfig(
        name="phantoms",
        datasets=["phantoms"],
        modality=phantoms.modality,
        spacing_mm=phantoms.grid_mm,
        window=phantoms.window,
        real=1.0,
        quality=QualityConfig(thick_slice=0.0),
    )
    loaded = [load_case(case, labels) for case in stored]
    return DomainSampler(config, index=0, labels=labels, cases=loaded)
