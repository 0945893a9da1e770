"""The development set and the imagined models, read once."""

from __future__ import annotations

import pytest
from prompts.judging import read_models, read_rows


@pytest.fixture(scope="session")
def rows():
    return tuple(read_rows())


@pytest.fixture(scope="session")
def models():
    return read_models()


@pytest.fixture(scope="session")
def supported(models):
    return models["torso"]
