"""Whatever ends a run, the files under their final names are whole, and the next run finishes."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from textseg.atomic import PREFIX
from textseg.cli import main
from textseg.outputs.manifest import MANIFEST_NAME, is_complete

PROMPTS = ["liver", "left kidney", "spleen"]
NUM_KILLS = 20
POLL_S = 0.0005


@pytest.fixture
def arguments(tmp_path, model, write_scan):
    """A prediction over several small scans, as a function of where the results go."""

    def make(out: Path, *, num_scans: int) -> list[str]:
        for number in range(num_scans):
            write_scan(tmp_path / "scans" / f"s{number}.nii.gz", seed=number)
        options = ["-m", model, "-o", out, "--modality", "ct", "--precision", "float32", "-q"]
        return [str(word) for word in ["predict", tmp_path / "scans", *PROMPTS, *options]]

    return make


def torn(out: Path) -> list[Path]:
    """Files under a final name that are not whole."""
    files = [p for p in out.rglob("*") if p.is_file() and not p.name.startswith(PREFIX)]
    return [path for path in files if not is_whole(path)]


def is_whole(path: Path) -> bool:
    try:
        if path.name == MANIFEST_NAME:
            return is_complete(path.parent, prompts=PROMPTS)
        if path.suffix == ".json":
            return set(json.loads(path.read_text(encoding="utf-8"))) == set(PROMPTS)
        return set(np.unique(nib.load(path).dataobj)) <= {0, 1}
    except Exception:
        return False


def temporaries(out: Path) -> list[Path]:
    return list(out.rglob(f"{PREFIX}*"))


def appears(path: Path, *, within_s: float = 60) -> bool:
    end = time.monotonic() + within_s
    while not path.exists() and time.monotonic() < end:
        time.sleep(POLL_S)
    return path.exists()


@pytest.fixture(scope="module")
def warm_processes():
    """Processes that start with everything imported, so that a run is mostly writing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["textseg.cli.batch", "textseg.segmenter", "textseg.outputs.saving"]
    )
    return context


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_no_torn_file(arguments, tmp_path, warm_processes, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outs = [tmp_path / f"out{number}" for number in range(NUM_KILLS)]
    whole = tmp_path / "whole"
    process = warm_processes.Process(target=main, args=(arguments(whole, num_scans=3),))
    process.start()
    assert appears(whole)
    started = time.monotonic()
    process.join()
    writing_s = time.monotonic() - started
    assert torn(whole) == []
    rng = random.Random(2024)
    for out in outs:
        process = warm_processes.Process(target=main, args=(arguments(out, num_scans=3),))
        process.start()
        assert appears(out)
        time.sleep(rng.uniform(0, writing_s * 2 / 3))  # the first run was a slow one
        process.kill()
        process.join()
        assert torn(out) == []
    finished = [all(is_complete(out / f"s{n}") for n in range(3)) for out in outs]
    # runs that were over before the kill would prove nothing
    assert finished.count(False) >= NUM_KILLS // 2
    for out in outs[::4]:
        assert main([*arguments(out, num_scans=3), "--resume"]) == 0
        assert all(is_complete(out / f"s{n}", prompts=PROMPTS) for n in range(3))
        assert temporaries(out) == []
        assert torn(out) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_signal_stops_a_run_with_its_own_exit_code(arguments, tmp_path, number, code):
    out = tmp_path / "out"
    program = "import sys; from textseg.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments(out, num_scans=40)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert appears(out / "s1" / MANIFEST_NAME)
        process.send_signal(number)
        printed, error = process.communicate(timeout=60)
    assert (process.returncode, printed) == (code, "")
    assert error.startswith(f"error[E130 cancelled] stopped by {number.name};")
    assert error.count("\n") == 1
    assert is_complete(out / "s0", prompts=PROMPTS)
    assert not (out / "s39").exists()
    assert torn(out) == []
    assert temporaries(out) == []
