"""What ``make train-nano`` would run; the training itself takes hours."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from documents import CHECKOUT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*words):
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_train_nano_trains_exports_and_scores():
    done = make("--dry-run", "train-nano", "DATA=scans/manifest.json")
    assert done.returncode == 0, done.stderr
    ran = [line.split() for line in done.stdout.splitlines() if "bin/textseg " in line]
    assert [words[1] for words in ran] == ["fit", "export", "card"]
    assert all("configs/train/nano.yaml" in words for words in ran)
    assert (CHECKOUT / "configs/train/nano.yaml").is_file()


def test_train_nano_asks_for_a_case_list():
    done = make("train-nano", "--assume-old=setup", "DATA=")
    assert done.returncode == 2
    assert "make train-nano DATA=" in done.stdout + done.stderr
