"""A model folder is absent, old or complete, also when the program that writes it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from textseg.errors import ResourceError
from textseg.network.weights import MANIFEST_FILE, WEIGHTS_FILE
from textseg.zoo import model_folder
from textseg.zoo.model_folder import new_model_folder


def write(folder, text: str) -> None:
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        (folder / name).write_text(text)


def content(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


BOTH = {WEIGHTS_FILE: "new", MANIFEST_FILE: "new"}


def test_a_model_appears_when_it_is_complete(tmp_path):
    folder = tmp_path / "models" / "sat"
    with new_model_folder(folder) as built:
        write(built, "new")
        assert not folder.exists()
    assert content(folder) == BOTH
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_may_be_named(tmp_path):
    (tmp_path / "sat").mkdir()
    with new_model_folder(tmp_path / "sat") as built:
        write(built, "new")
    assert content(tmp_path / "sat") == BOTH


@pytest.mark.parametrize("there", [False, True], ids=["nothing before", "a model before"])
def test_a_failure_leaves_what_was_there(tmp_path, there):
    folder = tmp_path / "sat"
    if there:
        folder.mkdir()
        write(folder, "old")
    with pytest.raises(KeyError), new_model_folder(folder, overwrite=True) as built:
        write(built, "new")
        raise KeyError
    assert list(tmp_path.iterdir()) == ([folder] if there else [])
    assert not there or set(content(folder).values()) == {"old"}


def test_a_model_is_replaced_only_when_asked(tmp_path):
    folder = tmp_path / "sat"
    folder.mkdir()
    write(folder, "old")
    with pytest.raises(ResourceError, match=r"E504.*--overwrite"), new_model_folder(folder):
        pass
    with new_model_folder(folder, overwrite=True) as built:
        (built / MANIFEST_FILE).write_text("new")
    assert content(folder) == {MANIFEST_FILE: "new"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("with_manifest", [False, True])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, with_manifest):
    folder = tmp_path / "home"
    (folder / "photos").mkdir(parents=True)
    if with_manifest:
        write(folder, "old")
    with (
        pytest.raises(ResourceError, match=r"E504.*photos"),
        new_model_folder(folder, overwrite=True),
    ):
        pass
    assert (folder / "photos").is_dir()


def test_a_file_or_a_link_is_never_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model").mkdir()
    write(tmp_path / "model", "old")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    for name in ("file", "link"):
        with (
            pytest.raises(ResourceError, match="E504"),
            new_model_folder(tmp_path / name, overwrite=True),
        ):
            pass
    assert (tmp_path / "file").read_text() == "mine"
    assert set(content(tmp_path / "model").values()) == {"old"}


def test_what_a_killed_program_began_is_not_there_and_swept_by_the_next(tmp_path):
    folder = tmp_path / "sat"
    folder.mkdir()
    write(folder, "old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from textseg.zoo.model_folder import new_model_folder\n"
        "with new_model_folder(Path(sys.argv[1]), overwrite=True) as built:\n"
        "    (built / 'model.safetensors').write_text('half')\n"
        "    (built / 'stale').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert set(content(folder).values()) == {"old"}
    assert len(list(tmp_path.iterdir())) == 2
    with new_model_folder(folder, overwrite=True) as built:
        write(built, "new")
    assert content(folder) == BOTH
    assert list(tmp_path.iterdir()) == [folder]


def test_two_programs_do_not_write_one_model(tmp_path):
    folder = tmp_path / "sat"
    with new_model_folder(folder) as built:
        write(built, "new")
        with pytest.raises(ResourceError, match=r"E503.*another process"), new_model_folder(folder):
            pass
    assert content(folder) == BOTH


def test_a_disk_that_is_too_small_is_noticed_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    with (
        pytest.raises(ResourceError, match=r"E502.*needs 2.0 GB, and 1.0 GB"),
        new_model_folder(tmp_path / "sat", num_bytes=2 * 10**9),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_appears_meanwhile_is_kept(tmp_path):
    folder = tmp_path / "sat"
    with pytest.raises(ResourceError, match="E504"), new_model_folder(folder) as built:
        write(built, "new")
        folder.mkdir()
        write(folder, "theirs")
    assert set(content(folder).values()) == {"theirs"}
