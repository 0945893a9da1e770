"""The plan of a prediction's memory is kept: measured in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# What a prediction takes on top of the loaded model and the scan, and what was planned for it.
MEASURED = """
import json, re, sys
from pathlib import Path
import torch
from textseg import Segmenter
from textseg.inference import segment_windows

def resident(field):
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(field + r":\\s+(\\d+)", status).group(1))

prompts, precision = int(sys.argv[1]), sys.argv[2]
segmenter = Segmenter.from_pretrained("nano", precision=precision)
domain = segmenter.manifest.domains[0]
generator = torch.Generator().manual_seed(0)
queries = torch.randn(prompts, segmenter.network.config.query_features, generator=generator)
volume = torch.randn(1, 144, 112, 96, generator=generator)
segment_windows(
    segmenter.network,
    volume[:, :16, :16, :16],
    queries,
    window=(16, 16, 16),
    precision=precision,
)
Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
before = resident("VmRSS")
found = segment_windows(
    segmenter.network, volume, queries, window=domain.window, precision=precision
)
print(json.dumps({
    "taken": resident("VmHWM") - before,
    "planned": found.memory.estimate.total,
}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc"
)
@pytest.mark.parametrize(
    ("prompts", "precision"), [(1, "float32"), (64, "float32"), (64, "bfloat16"), (200, "bfloat16")]
)
def test_a_prediction_takes_what_was_planned(prompts, precision):
    command = [sys.executable, "-c", MEASURED, str(prompts), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["taken"] == pytest.approx(found["planned"], rel=0.15)


FREED = """
import re, sys
from pathlib import Path
import torch
from textseg.inference import keep_freed_memory

def resident():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", status).group(1))

if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resident()
block = torch.ones(200_000_000, dtype=torch.uint8)
del block
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
@pytest.mark.parametrize(("how", "least", "most"), [("kept", 150e6, 250e6), ("freed", -1e6, 50e6)])
def test_freed_memory_is_kept_where_that_is_asked_for(how, least, most):
    command = [sys.executable, "-c", FREED, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert least < int(done.stdout) < most
