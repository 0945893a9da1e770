"""A report comes from a file or as it is, and what is no report is refused by name."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textseg.errors import InputError
from textseg.reports import read_report
from textseg.reports.text import LARGEST_BYTES

REPORT = "There is a mass in the left\nfrontal lobe, 3 × 4 cm."


def test_text_is_itself():
    assert read_report(REPORT) == REPORT


@pytest.mark.parametrize("name", ["report.txt", "two words.txt", "report", "report.md"])
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_the_name_of_a_file_stands_for_what_is_in_it(tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(f"\ufeff{REPORT}\n".replace("\n", "\r\n").encode())
    assert read_report(kind(path)) == REPORT


def test_a_text_that_is_also_the_name_of_a_folder_is_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glioma").mkdir()
    assert read_report("glioma") == "glioma"


@given(text=st.text(alphabet="abé .,\n").map("Left mass {}".format))
def test_a_report_is_the_same_from_a_file_and_as_text(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any report.txt"
    path.write_text(text, encoding="utf-8")
    assert read_report(path) == read_report(text)


def refused(report, code):
    with pytest.raises(InputError) as caught:
        read_report(report)
    assert caught.value.code == code
    assert caught.value.remedy.endswith(".")
    return caught.value


@pytest.mark.parametrize(
    "name", ["nowhere.txt", "no where.TXT", "cases/nowhere.text", "reports/p1"]
)
def test_a_file_that_is_missing_is_not_taken_for_text(name):
    assert str(refused(name, "E301").path) == name


def test_no_path_is_too_strange_to_be_refused(tmp_path):
    refused("\0.txt", "E301")
    refused("a" * 400 + ".txt", "E303")
    assert refused(tmp_path, "E302").path == tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")
def test_a_pipe_is_refused_before_it_can_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    refused(tmp_path / "pipe.txt", "E303")


@pytest.mark.parametrize("content", [b"", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_a_report_that_says_nothing_is_refused(tmp_path, content):
    path = tmp_path / "report.txt"
    path.write_bytes(content)
    assert refused(path, "E304").path == path
    refused("  \n", "E304")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Ödem links.".encode("latin-1"), "not UTF-8 text (byte 0xd6 at 0)"),
        (REPORT.encode("utf-16"), "not UTF-8"),
        (b"\x93NUMPY\x01\x00", "not UTF-8"),
        (b"PK\x03\x04 a document", "no plain text"),
        (b"mass\x00edema", "no plain text"),
        (b"a" * (LARGEST_BYTES + 1), "more than 1,000,000 bytes"),
    ],
    ids=["Latin-1", "UTF-16", "array", "document", "null byte", "too long"],
)
def test_what_is_no_report_is_refused_with_its_name(tmp_path, content, said):
    path = tmp_path / "report.txt"
    path.write_bytes(content)
    error = refused(path, "E300")
    assert said in error.cause
    assert error.path == path


def test_a_text_is_held_to_the_same_as_a_file():
    assert len(read_report("a" * LARGEST_BYTES)) == LARGEST_BYTES
    assert "more than" in refused("a " * LARGEST_BYTES, "E300").cause
    assert "no plain text" in refused("mass \x1b[31m edema", "E300").cause
    assert "not UTF-8" in refused("mass \ud800 edema", "E300").cause
