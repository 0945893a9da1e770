"""``textseg predict --runner ray``: jobs on the workers of a cluster, of which some may die."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from textseg.atomic import PREFIX
from textseg.cli.answering import Setup
from textseg.cli.ray_runner import plan_workers
from textseg.cli.terminal import UsageError
from textseg.errors import ModelError, ResourceError
from textseg.outputs.manifest import is_complete

PROMPTS = ["liver", "spleen", "left kidney"]
POLL_S = 0.0005
ON_TWO_PROCESSORS = """
import sys
import ray
from textseg.cli import main
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
sys.exit(main())
"""
"""The command line on a cluster of its own, with two processors whatever the machine has."""

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs textseg[ray]")


def machine(**resources) -> dict:
    return {"Alive": True, "Resources": resources}


def planned(*nodes, device="auto", threads=None):
    """Number of workers, what Ray keeps for each, and their device and threads."""
    places, needs, setup = plan_workers(nodes, Setup("nano", device, "auto", "streamed", threads))
    return places, needs, (setup.device, setup.threads)


def test_without_gpus_a_machine_is_one_worker():
    nodes = (machine(CPU=8.0), machine(CPU=8.0))
    assert planned(*nodes) == (2, {"num_cpus": 8}, ("cpu", 8))


def test_threads_say_how_many_workers_share_a_machine():
    nodes = (machine(CPU=8.0), machine(CPU=7.0), machine(CPU=2.0))
    assert planned(*nodes, threads=3) == (4, {"num_cpus": 3}, ("cpu", 3))


def test_each_gpu_is_one_worker():
    nodes = (machine(CPU=8.0, GPU=2.0), machine(CPU=16.0, GPU=1.0), machine(CPU=64.0))
    assert planned(*nodes) == (3, {"num_gpus": 1, "num_cpus": 4}, ("cuda", 4))
    assert planned(*nodes, device="cpu", threads=8) == (11, {"num_cpus": 8}, ("cpu", 8))


def test_a_machine_that_is_gone_counts_for_nothing():
    gone = {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 4.0}}
    assert planned(gone, machine(CPU=2.0)) == (1, {"num_cpus": 2}, ("cpu", 2))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "cuda"}, ModelError),
        ({"device": "cuda:1"}, UsageError),
        ({"threads": 9}, ResourceError),
    ],
)
def test_what_a_cluster_cannot_give_is_an_error(options, error):
    with pytest.raises(error):
        planned(machine(CPU=8.0), **options)


def test_without_ray_the_extra_is_named(predict, scan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = predict(scan, "liver", "-o", tmp_path / "out", "--runner", "ray")
    assert said.code == 4
    assert said.err.startswith("error[E403 missing-extra] Ray is not installed.")
    assert "textseg[ray]" in said.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Four scans of a grid fine enough that writing their masks takes a moment."""
    for number in range(4):
        data = np.random.default_rng(number).normal(40, 30, (150, 140, 130)).astype(np.int16)
        image = nib.Nifti1Image(data, np.eye(4))
        image.header.set_xyzt_units("mm")
        (tmp_path / "scans").mkdir(exist_ok=True)
        nib.save(image, tmp_path / "scans" / f"s{number}.nii")
    return tmp_path / "scans"


def options(cohort: Path, model: Path, out: Path) -> list[str]:
    words = ["predict", cohort, *PROMPTS, "-m", model, "-o", out, "--modality", "ct"]
    return [str(word) for word in [*words, "--precision", "float32", "-q"]]


def kill_writers(folder: Path, *, num_kills: int, until: threading.Event) -> list[int]:
    """Kills so many processes, each while it writes into the folder; returns their ids."""
    killed: list[int] = []
    while len(killed) < num_kills and not until.is_set():
        for path in folder.glob(f"{PREFIX}*"):
            writer = int(path.name.removeprefix(PREFIX).split("-")[1])
            if writer not in killed:
                os.kill(writer, signal.SIGKILL)
                killed.append(writer)
                break
        time.sleep(POLL_S)
    return killed


def run_on_two_workers(arguments: list[str], victim: Path, *, num_kills: int):
    """Exit code and lines of a run whose workers are killed on the victim, and who was killed."""
    command = [sys.executable, "-c", ON_TWO_PROCESSORS, *arguments]
    over = threading.Event()
    killed: list[int] = []
    killer = threading.Thread(
        target=lambda: killed.extend(kill_writers(victim, num_kills=num_kills, until=over))
    )
    killer.start()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    finally:
        over.set()
        killer.join()
    said = [line for line in done.stderr.splitlines() if line.startswith(("warning", "error"))]
    return done.returncode, said, killed


@needs_ray
@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_done_once_more(cohort, model, tmp_path, textseg):
    out, here = tmp_path / "out", tmp_path / "here"
    arguments = [*options(cohort, model, out), "--runner", "ray", "--threads", "1"]
    code, said, killed = run_on_two_workers(arguments, out / "s1", num_kills=1)
    assert len(killed) == 1
    assert (code, said) == (0, ["warning: s1.nii: its worker died; another one tries again."])
    assert textseg(*options(cohort, model, here)).code == 0
    for name in ("s0", "s1", "s2", "s3"):
        assert is_complete(out / name, prompts=PROMPTS)
        for mask in (here / name).glob("*.nii.gz"):
            assert (out / name / mask.name).read_bytes() == mask.read_bytes()
    assert list(out.rglob(f"{PREFIX}*")) == []


@needs_ray
@pytest.mark.slow
def test_a_job_on_which_two_workers_die_has_failed(cohort, model, tmp_path):
    out = tmp_path / "out"
    arguments = [*options(cohort, model, out), "--runner", "ray", "--threads", "1"]
    code, said, killed = run_on_two_workers(arguments, out / "s1", num_kills=2)
    assert len(set(killed)) == 2
    assert code == 6
    assert [line.split(":")[0] for line in said] == [
        "warning",
        f"error[E500 out-of-resources] {cohort / 's1.nii'}",
        "warning",
    ]
    assert said[-1].startswith("warning: 1 of 4 scans failed")
    assert not (out / "s1" / "textseg.json").exists()
    assert all(is_complete(out / name, prompts=PROMPTS) for name in ("s0", "s2", "s3"))
