"""Vocabularies that a user imports are known to every command until they are removed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from textseg import Segmenter

NAMES = ("Kidney", "Renal hilum thing", "Left horseshoe thing")


@dataclass(frozen=True)
class Source:
    """A Metathesaurus of a few names, and where it will be installed."""

    folder: Path
    installed: Path


@pytest.fixture
def source(tmp_path, monkeypatch) -> Source:
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    folder = tmp_path / "umls"
    folder.mkdir()
    rows = [
        f"C{number}|ENG|P|L1|PF|S1|Y|A1||||MSH|PT|D{number}|{name}|0|N||\n"
        for number, name in enumerate(NAMES)
    ]
    (folder / "MRCONSO.RRF").write_text("".join(rows))
    (folder / "MRREL.RRF").write_text("C0|A|AUI|RO|C1|A|AUI|part_of|R||MSH||||N||\n")
    return Source(folder, tmp_path / "home" / "vocabularies" / "umls.tree")


@pytest.fixture
def imported(source, textseg) -> Source:
    said = textseg("concepts", "import", source.folder)
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith(f"2 concepts installed as {source.installed}; 1 were known")
    return source


def test_an_import_is_reported_as_json(source, textseg):
    said = textseg("concepts", "import", source.folder, "--json")
    expected = {"path": str(source.installed), "added": 2, "known": 1, "skipped": 0}
    assert (json.loads(said.out), said.err) == (expected, "")


def test_what_was_imported_is_unsupported_and_names_what_is_near(imported, textseg):
    for options in ([], ["--model", "nano"]):
        said = textseg("resolve", "renal hilum thing", "left kidney", "--json", *options)
        thing, kidney = (json.loads(line) for line in said.out.splitlines())
        assert (thing["status"], thing["concepts"]) == ("unsupported", [])
        assert "left kidney" in thing["suggestions"]
        assert (kidney["status"], kidney["concepts"]) == ("ok", ["kidney.left"])


def test_what_was_imported_has_a_card_and_is_found(imported, textseg):
    assert "nano cannot segment it" in textseg("concepts", "renal hilum thing").out
    listed = json.loads(textseg("concepts", "hilum thing", "--json").out)
    assert listed[0]["id"] == "umls.renal_hilum_thing"
    assert '"id": "umls.horseshoe_thing.left"' in textseg("concepts", "export").out


def test_counts_are_those_of_what_ships(source, textseg):
    before = textseg("concepts", "stats").out
    assert textseg("concepts", "import", source.folder).code == 0
    assert textseg("concepts", "stats").out == before


def test_what_was_imported_is_an_answer_of_predict_and_no_mask(imported, predict, scan, tmp_path):
    said = predict(scan, "renal hilum thing", "liver", "-o", tmp_path / "out")
    assert said.code == 0
    manifest = json.loads((tmp_path / "out" / "textseg.json").read_text())
    assert [entry["status"] for entry in manifest["prompts"]] == ["unsupported", "ok"]
    refused = predict(scan, "renal hilum thing", "-o", tmp_path / "none", "--strict-prompts")
    assert refused.code == 7
    assert "not trained on Renal hilum thing" in refused.err


def test_a_segmenter_knows_what_was_imported(imported, model):
    answer = Segmenter.from_pretrained(model, device="cpu").resolve("renal hilum thing")
    assert (answer.status, answer.suggestions[:1]) == ("unsupported", ("left kidney",))


def test_vocabularies_are_listed_and_removed(imported, textseg):
    listed = json.loads(textseg("concepts", "vocabularies", "--json").out)
    assert listed == [{"name": "umls", "concepts": 2, "path": str(imported.installed)}]
    assert "umls" in textseg("concepts", "vocabularies").out
    removed = textseg("concepts", "vocabularies", "--remove", "umls")
    assert (removed.code, removed.err) == (0, f"{imported.installed} is removed.\n")
    assert "No vocabulary is installed" in textseg("concepts", "vocabularies").err
    (answer,) = textseg("resolve", "renal hilum thing", "--json").out.splitlines()
    assert json.loads(answer)["status"] == "reject"
    again = textseg("concepts", "vocabularies", "--remove", "umls")
    assert again.code == 3
    assert "no vocabulary 'umls' is installed" in again.err


@pytest.mark.parametrize(
    "command", ["resolve kidney", "concepts kidney", "concepts export", "concepts --supported"]
)
def test_a_damaged_vocabulary_is_one_line_that_says_how_to_go_on(imported, textseg, command):
    with imported.installed.open("a") as file:
        file.write("part_of: gone\n")
    said = textseg(*command.split())
    assert (said.code, said.out, len(said.lines)) == (4, "", 1)
    assert said.err.startswith(f"error[E702 bad-knowledge-tree] {imported.installed}: line ")
    assert said.err.endswith("textseg concepts vocabularies --remove umls\n")


def test_a_damaged_vocabulary_stops_predict_before_anything_is_written(
    imported, predict, scan, tmp_path
):
    imported.installed.write_text("no stanza\n")
    said = predict(scan, "liver", "-o", tmp_path / "out")
    assert said.code == 4
    assert "--remove umls" in said.err
    assert not (tmp_path / "out" / "textseg.json").exists()


def test_a_damaged_vocabulary_is_listed_and_can_be_removed(imported, textseg):
    imported.installed.write_text("no stanza\n")
    listed = textseg("concepts", "vocabularies")
    assert "damaged" in listed.out
    assert "line 1" in listed.err
    assert textseg("concepts", "vocabularies", "--remove", "umls").code == 0
    assert textseg("resolve", "kidney").code == 0


def test_what_does_not_need_vocabularies_works_beside_a_damaged_one(imported, textseg):
    imported.installed.write_text("no stanza\n")
    assert textseg("concepts", "stats").code == 0
    assert textseg("models", "show", "nano").code == 0


def test_a_source_that_cannot_be_read_leaves_nothing(source, textseg):
    (source.folder / "MRCONSO.RRF").write_text("C1|ENG\n")
    said = textseg("concepts", "import", source.folder)
    assert said.code == 3
    assert "E303" in said.err
    assert not source.installed.parent.exists()
