"""A tiny model, small scans, and the command line called in this very process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import fakes
import nibabel as nib
import numpy as np
import pytest
import torch

from textseg.cli import main
from textseg.network.weights import Domain

SHAPE = (19, 15, 11)
SPACING = (7.0, 6.5, 9.0)


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads cost more than they bring at this size, all the more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def textseg(capsys):
    def run(*arguments) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Random weights that see every structure everywhere: any probability above 5 % counts."""
    domains = (
        Domain(
            name="torso-ct",
            spacing_mm=(6.0, 6.0, 6.0),
            window=(24, 12, 20),
            modalities=("ct",),
            concepts=("liver", "spleen", "kidney.left", "kidney.right"),
        ),
        Domain(
            name="head-mr",
            spacing_mm=(5.0, 5.0, 5.0),
            window=(12, 16, 12),
            modalities=("mr",),
            concepts=("thalamus.left", "thalamus.right"),
        ),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fakes.write_model(
        folder,
        domains=domains,
        network=fakes.tiny_segmenter(),
        mask_threshold=0.05,
        presence_threshold=0.0,
    )
    return folder


@pytest.fixture(scope="session")
def write_scan():
    def write(path: Path, *, seed: int = 0, shape=SHAPE) -> Path:
        """Soft tissue with noise beside air, in Hounsfield units."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.random.default_rng(seed).normal(40, 30, shape).astype(np.int16)
        data[:2] -= 1040
        image = nib.Nifti1Image(data, np.diag([*SPACING, 1.0]))
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def scan(tmp_path, write_scan) -> Path:
    return write_scan(tmp_path / "patient.nii.gz")


@pytest.fixture
def predict(textseg, model):
    """``textseg predict`` with the tiny model on a CT."""

    def run(source, *arguments) -> Said:
        options = ("-m", model, "--modality", "ct", "--precision", "float32")
        return textseg("predict", source, *arguments, *options)

    return run
