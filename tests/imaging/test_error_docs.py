"""The table of error codes for users holds exactly the codes of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from textseg import errors

TABLE = Path(__file__).parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| (E\d+) \| ([a-z0-9-]+) \| (.+) \| (.+) \|$", re.MULTILINE)
SECTION = re.compile(r"^## .*\(`(\w+)`, exit code (\d+)", re.MULTILINE)


def test_the_table_names_every_code_once():
    rows = ROW.findall(TABLE.read_text(encoding="utf-8"))
    assert {code: name for code, name, _, _ in rows} == errors.CODES
    assert len(rows) == len(errors.CODES)


def test_every_row_says_cause_and_remedy_in_a_sentence():
    for code, _, cause, remedy in ROW.findall(TABLE.read_text(encoding="utf-8")):
        assert cause.endswith("."), code
        assert remedy.endswith("."), code


@pytest.mark.parametrize(("name", "exit_code"), SECTION.findall(TABLE.read_text(encoding="utf-8")))
def test_each_section_states_its_exit_code(name, exit_code):
    assert getattr(errors, name).exit_code == int(exit_code)
