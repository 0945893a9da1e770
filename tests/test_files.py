"""Scans and reports that cannot be read are refused in the same words."""

from __future__ import annotations

import os

import pytest

from textseg.errors import InputError
from textseg.files import check_path, unreadable
from textseg.imaging import read_volume
from textseg.reports import read_report


def missing(path):
    return "E301", "does not exist;"


def link_to_nothing(path):
    path.symlink_to(path.with_name("gone"))
    return "E301", "is a link to a file that is gone;"


def pipe(path):
    os.mkfifo(path)
    return "E303", "is a pipe or device, not a regular file;"


@pytest.mark.parametrize("make", [missing, link_to_nothing, pipe])
@pytest.mark.parametrize(("read", "name"), [(read_volume, "a.nii.gz"), (read_report, "a.txt")])
def test_a_fault_of_a_path_has_one_cause_whatever_is_read(tmp_path, make, read, name):
    code, cause = make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert (caught.value.code, caught.value.cause) == (code, cause)
    assert caught.value.path == tmp_path / name


def test_files_and_folders_pass(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert check_path(tmp_path / "a", what="scan").st_size == 5
    check_path(tmp_path, what="scan")


def test_an_error_of_the_system_without_words_is_told_as_it_is(tmp_path):
    assert "timed out" in unreadable(tmp_path, OSError("timed out")).cause
    assert "Permission denied" in unreadable(tmp_path, OSError(13, "Permission denied")).cause
