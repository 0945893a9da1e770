"""Transfers that stop, go on, arrive damaged, or run side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.zoo.hub_server import (
    CHUNK,
    CONTENT,
    ENTRY,
    NETWORK,
    TEXT,
    VOCABULARY,
    WORDS,
    HubServer,
    download,
    failure,
)
from textseg.errors import ModelError, ResourceError
from textseg.network.weights import list_models
from textseg.zoo import verify_model
from textseg.zoo.installed import RECORD_FILE

huggingface_hub = pytest.importorskip("huggingface_hub")

CHECKOUT = Path(__file__).parents[2]
SIZE = len(CONTENT["Nano/net.pth"])


@pytest.mark.usefixtures("_no_waiting")
def test_a_connection_cut_in_the_middle_goes_on_where_it_was(hub, server):
    server.cuts = [2 * CHUNK]
    download(hub, replace(ENTRY, files=(NETWORK, TEXT, VOCABULARY)))
    first, second, _ = server.contents()
    assert (first.range, first.sent) == (None, 2 * CHUNK)
    assert (second.range, second.sent) == (f"bytes={2 * CHUNK}-", SIZE - 2 * CHUNK)


@pytest.mark.usefixtures("_no_waiting")
def test_a_transfer_that_is_given_up_goes_on_the_next_time(hub, server):
    server.cuts = [CHUNK] + 9 * [0]
    error = failure(ModelError, hub)
    assert error.code == "E407"
    assert f"stopped at {CHUNK / 1e6:.1f} of {SIZE / 1e6:.1f} MB" in error.cause
    assert "goes on from there" in error.remedy
    assert "tiny-nano" not in list_models()
    server.cuts.clear()
    server.log.clear()
    download(hub)
    again = server.contents()[0]
    assert (again.range, again.sent) == (f"bytes={CHUNK}-", SIZE - CHUNK)


def test_a_killed_download_goes_on_the_next_time(hub, server, tmp_path):
    server.hold = threading.Event()
    process = start(server, tmp_path)
    try:
        wait_for(lambda: any(p.stat().st_size == 2 * CHUNK for p in partials(tmp_path)), process)
    finally:
        process.kill()
        process.communicate()
    server.hold.set()
    server.log.clear()
    download(replace(hub, cache=tmp_path / "hf" / "hub"))
    again = server.contents()[0]
    assert (again.range, again.sent) == (f"bytes={2 * CHUNK}-", SIZE - 2 * CHUNK)
    assert verify_model("tiny-nano").is_sound
    assert partials(tmp_path) == []


def test_two_processes_at_once_make_one_download(server, tmp_path):
    server.hold = threading.Event()
    processes = [start(server, tmp_path, log=tmp_path / name) for name in ("one", "two")]
    logs = [tmp_path / "one", tmp_path / "two"]
    try:
        wait_for(lambda: any("waiting for it" in log.read_text() for log in logs), *processes)
    finally:
        server.hold.set()
        answers = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(json.loads(answer)["was_there"] for answer in answers) == [False, True]
    assert len(server.contents()) == len(CONTENT)
    assert (tmp_path / "home" / "models" / "tiny-nano" / RECORD_FILE).is_file()


def test_two_models_that_share_a_file_fetch_it_once(hub, server):
    server.hold = threading.Event()
    entries = [ENTRY, replace(ENTRY, name="tiny-pro")]
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(download, hub, entry) for entry in entries]
        try:
            deadline = time.monotonic() + 60
            while sum(r.method == "HEAD" for r in server.log) < 2 * len(ENTRY.files):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.3)  # for the second one to ask for content, if nothing kept it from that
        finally:
            server.hold.set()
        folders = [one.result().folder.name for one in running]
    assert folders == ["tiny-nano", "tiny-pro"]
    assert len(server.contents()) == len(CONTENT)


def test_a_server_that_sends_all_from_the_beginning_again_is_borne_with(hub, server):
    server.missing_bytes = 5
    failure(ModelError, hub)
    server.missing_bytes, server.ignores_ranges = 0, True
    download(hub)
    assert verify_model("tiny-nano").is_sound


def test_a_truncated_transfer_is_noticed_and_completed_later(hub, server):
    server.missing_bytes = 5
    error = failure(ModelError, hub)
    assert error.code == "E407"
    assert "stopped at" in error.cause
    server.missing_bytes = 0
    server.log.clear()
    download(hub)
    assert [r.sent for r in server.contents()] == [5, len(CONTENT["Nano/text.pth"])]


def test_content_with_another_checksum_is_refused_and_not_kept(hub, server):
    server.spoilt = True
    error = failure(ModelError, hub)
    assert error.code == "E407"
    assert "checksum" in error.cause
    assert partials(hub.cache) == []
    assert "tiny-nano" not in list_models()
    server.spoilt = False
    server.log.clear()
    download(hub)
    assert server.contents()[0].range is None


def test_what_is_here_already_takes_no_room(hub, server):
    server.missing_bytes = 5
    failure(ModelError, hub)
    server.missing_bytes = 0
    left = 5 + 4_321 + len(WORDS) + ENTRY.installed_bytes
    error = failure(ResourceError, hub, free_bytes=lambda folder: left - 1)
    assert error.code == "E502"
    download(hub, free_bytes=lambda folder: left)


def start(server: HubServer, folder: Path, *, log: Path | None = None) -> subprocess.Popen[str]:
    """A process that downloads the tiny model, as the environment says from where to where."""
    program = (
        "import json, logging\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "from tests.zoo.hub_server import ENTRY, import_tiny\n"
        "from textseg.zoo import download_model\n"
        "found = download_model(ENTRY, importer=import_tiny)\n"
        "print(json.dumps({'was_there': found.was_there}))\n"
    )
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(folder / "hf"),
        "TEXTSEG_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")]),
    }
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    with (log or folder / "log").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def wait_for(condition, *processes: subprocess.Popen[str], seconds: float = 100) -> None:
    """Returns when it is so; fails when a process ends or the time is up before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if condition():
                return
        assert all(process.poll() is None for process in processes), "a process ended early"
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob("*.textseg.incomplete"))
