from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

from textseg import atomic
from textseg.errors import ResourceError


def leftovers(folder):
    return [path for path in folder.iterdir() if path.name.startswith(atomic.PREFIX)]


def writer_of(content):
    return lambda temporary: temporary.write_bytes(content)


def test_a_written_file_holds_its_content_and_reports_its_hash(tmp_path):
    digest = atomic.write_atomically(tmp_path / "a.bin", writer_of(b"seven bytes"))
    assert (tmp_path / "a.bin").read_bytes() == b"seven bytes"
    assert digest == atomic.file_sha256(tmp_path / "a.bin")
    assert leftovers(tmp_path) == []


def test_an_existing_file_is_kept_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ResourceError) as caught:
        atomic.write_atomically(path, writer_of(b"new"))
    assert caught.value.code == "E504"
    assert path.read_bytes() == b"old"
    atomic.write_atomically(path, writer_of(b"new"), overwrite=True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("failure", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(temporary):
        temporary.write_bytes(b"half")
        raise failure

    with pytest.raises(type(failure)):
        atomic.write_atomically(path, write, overwrite=True)
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "E502"),
        (errno.EDQUOT, "E502"),
        (errno.EACCES, "E503"),
        (errno.EROFS, "E503"),
        (errno.EIO, "E500"),
    ],
)
def test_each_failure_of_the_disk_has_its_code(tmp_path, number, code):
    def write(temporary):
        temporary.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(ResourceError) as caught:
        atomic.write_atomically(tmp_path / "a.bin", write)
    assert caught.value.code == code
    assert os.strerror(number) in caught.value.line()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_further_bytes_is_full(tmp_path):
    script = f"""
import resource
from pathlib import Path
from textseg.errors import ResourceError
from textseg.atomic import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_atomically(Path({str(tmp_path)!r}) / "a.bin", lambda p: p.write_bytes(bytes(9000)))
except ResourceError as error:
    raise SystemExit(error.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "E502"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_not_writable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ResourceError) as caught:
            atomic.make_folder(folder)
        assert caught.value.code == "E503"


def test_the_file_of_a_killed_writer_is_swept_by_the_next_run(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from textseg.atomic import write_atomically
def write(temporary):
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path({str(tmp_path)!r}) / "a.bin", write)
"""
    done = subprocess.run([sys.executable, "-c", script])
    assert done.returncode == -9
    assert len(leftovers(tmp_path)) == 1
    atomic.make_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_live_writer_is_never_swept_however_old(tmp_path):
    seen = []

    def write(temporary):
        temporary.write_bytes(b"slow")
        os.utime(temporary, (0, 0))
        atomic.sweep(tmp_path)
        seen.append(temporary.exists())

    atomic.write_atomically(tmp_path / "a.bin", write)
    assert seen == [True]


def test_another_machines_file_is_swept_only_after_a_day_of_silence(tmp_path):
    path = tmp_path / f"{atomic.PREFIX}0123abcd-{os.getpid()}-beef"
    path.write_bytes(b"half")
    assert atomic.sweep(tmp_path) == []
    assert atomic.sweep(tmp_path, now=time.time() + 23 * 3600) == []
    assert atomic.sweep(tmp_path, now=time.time() + 25 * 3600) == [path]


def test_other_files_are_never_swept(tmp_path):
    (tmp_path / ".textseg-notes").write_bytes(b"mine")
    atomic.sweep(tmp_path, now=time.time() + 1e9)
    assert (tmp_path / ".textseg-notes").exists()


def test_json_refuses_numbers_that_json_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        atomic.write_json(tmp_path / "a.json", {"volume": float("nan")})
    assert list(tmp_path.iterdir()) == []
