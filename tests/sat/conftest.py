"""Filled checkpoints, made once, and what the original and the reference compute with them."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from tests.sat.filled import ARCHITECTURES, case_image, case_queries, filled_state
from tests.sat.recorded import stored
from tests.sat.reference import ReferenceSat, ReferenceText, Stages

NUM_QUERIES = 3


@pytest.fixture(scope="session")
def nano_state() -> dict[str, Tensor]:
    """Nano's checkpoint with filled weights, 0.4 GB."""
    return filled_state("nano")


@pytest.fixture(scope="session")
def pro_state() -> dict[str, Tensor]:
    """Pro's checkpoint with filled weights, 1.9 GB; tests that ask for it are ``slow``."""
    return filled_state("pro")


@pytest.fixture(scope="session")
def text_state() -> dict[str, Tensor]:
    """The text tower's checkpoint with filled weights, 0.4 GB."""
    return filled_state("text")


@pytest.fixture(scope="session")
def nano_reference(nano_state: dict[str, Tensor]) -> ReferenceSat:
    """The reference implementation of Nano."""
    return ReferenceSat(nano_state, "nano")


@pytest.fixture(scope="session")
def nano_stages(nano_reference: ReferenceSat) -> Stages:
    """What the reference computes for Nano's patch and three queries."""
    return nano_reference.stages(case_image(ARCHITECTURES["nano"].patch), case_queries(NUM_QUERIES))


@pytest.fixture(scope="session")
def pro_stages(pro_state: dict[str, Tensor]) -> Stages:
    """What the reference computes for Pro's patch and three queries; ``slow``."""
    patch = case_image(ARCHITECTURES["pro"].patch)
    return ReferenceSat(pro_state, "pro").stages(patch, case_queries(NUM_QUERIES))


@pytest.fixture(scope="session")
def text_reference(text_state: dict[str, Tensor]) -> ReferenceText:
    """The reference implementation of the text tower."""
    return ReferenceText(text_state)


@pytest.fixture(scope="session")
def nano_case() -> dict[str, np.ndarray]:
    """What the original computed for Nano's patch."""
    return stored("nano")


@pytest.fixture(scope="session")
def pro_case() -> dict[str, np.ndarray]:
    """What the original computed for Pro's patch."""
    return stored("pro")


@pytest.fixture(scope="session")
def text_case() -> dict[str, np.ndarray]:
    """Token ids and what the original's text tower made of them."""
    return stored("text")


@pytest.fixture(scope="session")
def infer_case() -> dict[str, np.ndarray]:
    """What the original made of two scans, its windows, their weight and Dice of three masks."""
    return stored("infer")
