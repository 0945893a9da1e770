"""A stand-in for the hub, and a place to download from it to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.zoo.hub_server import HubServer, hub_server
from textseg.zoo import Hub


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        yield running


@pytest.fixture
def hub(server, tmp_path, monkeypatch) -> Hub:
    """The stand-in, with an empty cache, and an empty folder for models."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    # for which it would ask the real hub something
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    return Hub(endpoint=server.url, cache=tmp_path / "hub")


@pytest.fixture
def _no_waiting(monkeypatch):
    """The client tries again at once."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
