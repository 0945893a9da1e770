"""``textseg data list`` and ``show``."""

import json

import pytest

from textseg.cli import main


def run_json(capsys, *arguments):
    assert main(["data", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_totals_of_the_registry_come_as_json(capsys):
    assert run_json(capsys, "list", "--stats") == {
        "datasets": 72,
        "modality_class_pairs": 498,
        "class_names": 451,
        "scans": 28186,
    }


def test_the_list_can_be_narrowed(capsys):
    pets = run_json(capsys, "list", "--modality", "pet")
    assert [entry["name"] for entry in pets] == ["autopet", "hecktor2022"]
    spleens = run_json(capsys, "list", "--concept", "spleen", "--modality", "mr")
    assert [entry["name"] for entry in spleens] == ["amos22-mri", "chaos-mri"]
    assert all(
        entry["region"] == "spine" for entry in run_json(capsys, "list", "--region", "spine")
    )


def test_samples_are_listed_apart(capsys):
    entries = run_json(capsys, "list")
    names = {entry["name"] for entry in entries if not entry["extra"]}
    samples = {entry["name"] for entry in run_json(capsys, "list", "--samples")}
    assert len(names) == 72
    assert "open-ms" in samples
    assert not samples & {entry["name"] for entry in entries}


def test_extra_data_sets_are_listed_as_such_and_not_added_up(capsys):
    assert [e["name"] for e in run_json(capsys, "list") if e["extra"]] == ["textbrats"]
    assert run_json(capsys, "list", "--concept", "brain_tumor.core", "--stats")["datasets"] == len(
        [e for e in run_json(capsys, "list", "--concept", "brain_tumor.core") if not e["extra"]]
    )
    assert main(["data", "list", "--region", "brain"]) == 0
    shown = capsys.readouterr().out
    assert "textbrats (extra)" in shown
    assert shown.count("(extra)") == 1


def test_people_read_tables(capsys):
    assert main(["data", "list"]) == 0
    assert "msd-hippocampus" in capsys.readouterr().out
    assert main(["data", "list", "--stats"]) == 0
    assert "28,186" in capsys.readouterr().out


def test_a_data_set_is_shown_with_its_labels_and_layout(capsys):
    assert main(["data", "show", "msd-hippocampus"]) == 0
    shown = capsys.readouterr().out
    for text in ("CC-BY-SA-4.0", "Task04_Hippocampus", "hippocampus.anterior"):
        assert text in shown
    spec = run_json(capsys, "show", "segrap2023-task1")
    assert spec["labels"]["6"] == ["temporal_lobe.left", "hippocampus.left"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("MSD_Hippocampus", "Did you mean msd-hippocampus"),
        ("zzz", "List them"),
        ("no.yaml", "E404"),
    ],
)
def test_an_unknown_data_set_is_refused_with_what_may_be_meant(name, says, capsys):
    assert main(["data", "show", name]) == 4
    assert says in capsys.readouterr().err
