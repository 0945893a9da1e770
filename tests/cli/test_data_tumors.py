"""``textseg data tumors``, from the command line to the files."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def tumors(textseg, tmp_path):
    def run(*options):
        small = ("--cases", 3, "--test", 1, "--spacing", 8)
        return textseg("data", "tumors", tmp_path / "out", *small, *options)

    return run


def test_it_writes_a_data_set_and_says_what_only_the_reports_tell(tumors, tmp_path):
    said = tumors("--ambiguous", 1)
    assert said.code == 0
    assert said.out == ""
    assert "Train.json (3 cases)" in said.err
    assert "which lesion is the tumor in 3" in " ".join(said.err.split())
    listed = json.loads((tmp_path / "out" / "Train.json").read_text())["training"]
    assert [entry["ambiguous"] for entry in listed] == ["which", "extent", "which"]


def test_json_names_the_lists(tumors, tmp_path):
    said = tumors("--json")
    assert json.loads(said.out) == {
        "train": str(tmp_path / "out" / "Train.json"),
        "test": str(tmp_path / "out" / "Test.json"),
        "ambiguous": {"which": 1, "extent": 0},
    }


def test_a_second_run_needs_to_be_told_to_overwrite(tumors):
    assert tumors().code == 0
    refused = tumors()
    assert refused.code == 5
    assert "E504" in refused.err
    assert tumors("--overwrite").code == 0


def test_a_missing_case_list_is_said(tumors, tmp_path):
    said = tumors("--heads", tmp_path / "none.json")
    assert said.code == 4
    assert "E404" in said.err
    assert "none.json" in said.err


@pytest.mark.parametrize("options", [("--ambiguous", 1.5), ("--cases", 0), ("--spacing", 0.1)])
def test_impossible_options_are_refused(tumors, options):
    assert tumors(*options).code == 2
