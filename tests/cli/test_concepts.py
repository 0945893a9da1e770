"""``textseg concepts``: cards, lists, counts, exports and imports, without a model or torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from textseg.cli import concepts
from textseg.errors import UnknownConcept
from textseg.knowledge import load_tree

EXTRA = """\
format-version: 1.4

[Term]
id: DEMO:1
name: kidney

[Term]
id: DEMO:2
name: renal hilum thing
relationship: part_of DEMO:1

[Typedef]
id: part_of
name: part of
"""


@pytest.fixture
def run(capsys):
    """The group of commands, called as ``textseg concepts`` calls it."""
    import typer.main

    command = typer.main.get_command(concepts.app)

    def call(*arguments):
        capsys.readouterr()
        command.main([str(a) for a in arguments], prog_name="concepts", standalone_mode=False)
        return capsys.readouterr()

    return call


def rows(text):
    return [line.split() for line in text.splitlines() if line.split()]


def test_what_is_no_command_is_looked_up(run):
    assert run("Left Kidney").out == run("find", "Left Kidney").out
    assert run("Left Kidney").out.startswith("left kidney  kidney.left\n")


def test_a_card_shows_the_neighbourhood(run):
    card = run("left kidney").out
    for line in ("other side", "right kidney", "supplied by", "left renal artery", "touches"):
        assert line in card
    assert "about 160 ml" in card
    assert "Latin: left ren" in card
    assert "adjective: renal" in run("kidney").out
    assert "lesions and findings" in card


def test_a_card_as_json_holds_the_relations_of_both_directions(run):
    card = json.loads(run("kidney.left", "--json").out)
    assert "renal_artery.left" in card["supplied_by"]
    assert "kidney_tumor.left" in card["lesions"]
    assert "spleen" in card["adjacent_to"]
    assert card["volume_ml"] == 160


@pytest.mark.parametrize(
    ("option", "value"), [("region", "pelvis"), ("system", "urinary"), ("kind", "bone")]
)
def test_lists_are_filtered(run, option, value):
    found = json.loads(run(f"--{option}", value, "--json").out)
    assert len(found) > 20
    assert {concept[option] for concept in found} == {value}


def test_filters_add_up(run):
    found = json.loads(run("--region", "pelvis", "--kind", "bone", "--json").out)
    assert {(c["region"], c["kind"]) for c in found} == {("pelvis", "bone")}


def test_an_unknown_word_for_a_filter_lists_the_known_ones(run):
    with pytest.raises(Exception, match=r"--system 'plumbing' is none of .*urinary"):
        run("--system", "plumbing")


def test_a_list_of_everything_is_cut_and_says_so(run):
    said = run()
    assert len(rows(said.out)) == 2 + 200
    assert said.err.startswith(f"warning: 200 of {len(load_tree())} shown")


def test_what_the_model_segments_is_listed(run):
    found = json.loads(run("--supported", "--json").out)
    assert {"liver", "kidney", "kidney.left"} <= {concept["id"] for concept in found}
    assert "uterus" not in {concept["id"] for concept in found}


def test_a_search_in_vain_says_so(run):
    with pytest.raises(UnknownConcept, match="xqwzz"):
        run("xqwzz")


def test_counts_are_printed_for_people_and_programs(run):
    counts = json.loads(run("stats", "--json").out)
    assert list(counts) == ["concepts", "adult_gross", "synonyms", "classes_mapped", "relations"]
    assert counts["concepts"] == len(load_tree())
    assert counts["classes_mapped"] == 451
    assert f"{counts['concepts']:,}" in run("stats").out


def test_the_tree_is_exported_as_json(run, tmp_path):
    said = run("export", "-o", tmp_path / "tree.json")
    written = json.loads((tmp_path / "tree.json").read_text(encoding="utf-8"))
    assert [concept["id"] for concept in written] == list(load_tree().ids)
    assert said.out == ""
    assert "written to" in said.err


def test_the_tree_is_exported_as_obo_on_stdout(run):
    said = run("export", "--format", "obo")
    assert said.out.startswith("format-version: 1.4\n")
    assert "\nid: TEXTSEG:kidney.left\n" in said.out


def test_a_place_that_cannot_be_written_is_an_error(run, tmp_path):
    with pytest.raises(OSError, match=r"E503.*nowhere"):
        run("export", "-o", tmp_path / "nowhere" / "tree.json")


def test_another_vocabulary_is_imported(run, tmp_path):
    pytest.importorskip("pronto")
    (tmp_path / "demo.obo").write_text(EXTRA)
    said = run("import", tmp_path / "demo.obo", "-o", tmp_path / "mine", "--json")
    result = json.loads(said.out)
    assert (result["added"], result["known"], result["skipped"]) == (1, 1, 0)
    tree = load_tree(None, tmp_path / "mine")
    assert tree["demo.renal_hilum_thing"].part_of == ("kidney",)
    assert run("vocabularies", "--json").out == "[]\n"


def test_a_vocabulary_that_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="E301"):
        run("import", tmp_path / "none.obo", "-o", tmp_path)


@pytest.mark.parametrize("arguments", [["kidney"], ["stats"], ["--supported", "--limit", "3"]])
def test_nothing_heavy_is_imported(arguments):
    program = (
        "import sys, typer.main; from textseg.cli import concepts;"
        f"typer.main.get_command(concepts.app).main({arguments}, standalone_mode=False);"
        "print([m for m in ('torch', 'scipy', 'SimpleITK', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
