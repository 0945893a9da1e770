"""What every test may ask for: real scans that are not part of the repository, and devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# read when torch is first imported, also by programs that tests start: workers share the processors
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(share, 1)))

import torch
from hypothesis import settings

# read when Triton is first imported, which any test may be the first to do
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# how fast an example runs says nothing on a busy machine
settings.register_profile("local", deadline=None)
# a red build must mean that the change is at fault; other runs go on looking for new examples
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _only_what_ships(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hides the vocabularies that the user has installed, also from programs that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TEXTSEG_HOME", raising=False)
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds pyproject.toml."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder of reference tables and scans beside the checkout; the test is skipped without it."""
    folder = CHECKOUT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the reference data, which are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared_folder: Path) -> Path:
    """Folder with ``manifest.json`` and the scans and label maps it lists."""
    folder = shared_folder / "data"
    if not (folder / "manifest.json").is_file():
        pytest.skip("needs real scans, which are not part of the repository")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked ``gpu`` where there is none."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
