"""``textseg bench``: where the time of a scan goes, as a table and as JSON."""

from __future__ import annotations

import json

import pytest

from textseg.cli import bench as verb

STAGES = {"read", "prepare", "backbone", "decode", "blend", "other", "restore", "write"}


@pytest.fixture
def bench(textseg, model, monkeypatch):
    """The verb with the tiny model, on a generated scan that suits it."""
    monkeypatch.setattr(verb, "_SHAPE", (31, 27, 22))
    monkeypatch.setattr(verb, "_SPACING_MM", (9.0, 8.0, 10.0))

    def run(*arguments):
        return textseg("bench", "-m", model, "--precision", "float32", *arguments)

    return run


def test_every_second_is_in_one_stage(bench):
    said = bench("--prompts", "1,3", "--json")
    assert (said.code, said.err) == (0, "")
    answer = json.loads(said.out)
    assert [run["prompts"] for run in answer["runs"]] == [1, 3]
    for run in answer["runs"]:
        assert set(run["seconds"]) == STAGES
        told = [seconds for seconds in run["seconds"].values() if seconds is not None]
        # the engine rounds what it tells to milliseconds
        assert sum(told) == pytest.approx(run["total_s"], abs=0.01)
        assert run["seconds"]["read"] > 0
        assert run["found"] == run["prompts"]
        assert run["seconds"]["write"] > run["seconds"]["restore"] > 0
        assert run["peak_memory_bytes"] > 50e6
        assert run["windows"] > run["windows_skipped"] >= 0


def test_the_scan_that_is_generated_is_described(bench):
    answer = json.loads(bench("-p", "1", "--json").out)
    assert (answer["scan"], answer["shape"], answer["modality"]) == (None, [31, 27, 22], "ct")
    assert answer["spacing_mm"] == pytest.approx([9.0, 8.0, 10.0])
    assert answer["model"] == "tiny 1.2.3"
    assert (answer["precision"], answer["threads"]) == ("float32", 1)


def test_the_table_has_a_row_per_stage_and_a_column_per_run(bench):
    said = bench("-p", "1,2")
    assert (said.code, said.err) == (0, "")
    rows = {line.split("  ")[1].strip(): line for line in said.out.splitlines() if "  " in line}
    assert {*STAGES, "scan to files", "peak memory, GB", "masks", "windows"} <= set(rows)
    assert rows["masks"].split()[-2:] == ["1", "2"]
    assert "tiny 1.2.3 on cpu, float32" in said.out


def test_a_scan_of_ones_own_is_measured_and_nothing_is_left_beside_it(bench, scan):
    said = bench("--scan", scan, "-p", "2", "--modality", "mr", "--json")
    answer = json.loads(said.out)
    assert (answer["scan"], answer["modality"]) == (str(scan), "mr")
    assert answer["runs"][0]["prompts"] == 2
    assert [path.name for path in scan.parent.iterdir()] == [scan.name]


def test_more_prompts_than_the_model_knows_are_cut_with_a_warning(bench):
    said = bench("-p", "2,32,99", "--json")
    assert [run["prompts"] for run in json.loads(said.out)["runs"]] == [2, 4]
    assert said.lines == ["warning: the model knows 4 structures in one scan of this kind (CT)."]


@pytest.mark.parametrize("counts", ["", "0", "one", "1,,2", "-3"])
def test_counts_that_are_none_are_refused(bench, counts):
    said = bench(f"--prompts={counts}")
    assert said.code == 2
    assert f"--prompts {counts!r} is no list of numbers" in said.err


def test_a_scan_that_is_missing_exits_with_3(bench, tmp_path):
    said = bench("--scan", tmp_path / "absent.nii.gz")
    assert (said.code, said.err.partition(" ")[0]) == (3, "error[E301")


def test_stages_that_the_engine_does_not_tell_count_as_other():
    seconds = verb._by_stage({"read": 0.5, "total": 2.0}, 2.25)
    assert seconds == {
        "read": 0.5,
        "prepare": None,
        "backbone": None,
        "decode": None,
        "blend": None,
        "other": 1.75,
    }
