"""``resolve``, ``concepts`` and ``models``: what can be asked, and by what name."""

from __future__ import annotations

import json

import pytest

KEYS = [
    *("prompt", "status", "concepts", "names", "confidence"),
    *("method", "warnings", "suggestions", "candidates"),
]


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.split()]


def test_resolve_prints_one_json_object_per_prompt_and_line(textseg, model):
    said = textseg("resolve", "L kidney", "uterus", "[/red] \udcff", "--json", "-m", model)
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert (said.code, said.err) == (0, "")
    assert [list(answer) for answer in answers] == [KEYS] * 3
    assert [answer["status"] for answer in answers] == ["ok", "unsupported", "reject"]
    assert (answers[0]["concepts"], answers[0]["names"]) == (["kidney.left"], ["left kidney"])
    assert answers[2]["prompt"] == "[/red] \udcff"


def test_resolve_any_knows_more_than_the_model(textseg, model):
    said = textseg("resolve", "uterus", "--any", "--json", "-m", model)
    assert json.loads(said.out)["concepts"] == ["uterus"]


def test_resolve_reads_prompts_from_a_file(textseg, model, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("spleen\n\nuterus\n", encoding="utf-8")
    said = textseg("resolve", "liver", "--file", listed, "--json", "-m", model)
    prompts = [json.loads(line)["prompt"] for line in said.out.splitlines()]
    assert prompts == ["liver", "spleen", "uterus"]


def test_resolve_shows_people_a_table(textseg, model):
    rows = table(textseg("resolve", "kidneys", "kindey", "-m", model).out)
    assert rows[0] == ["prompt", "status", "means", "note"]
    assert rows[2] == ["kidneys", "ok", "left", "kidney,", "right", "kidney"]
    assert rows[3][:2] == ["kindey", "reject"]
    assert "'kidney'?" in rows[3]


def test_an_unknown_model_is_an_error_here_too(textseg):
    said = textseg("resolve", "liver", "-m", "gigantic")
    assert said.code == 4
    assert said.err.startswith("error[E401 unknown-model] ")


def test_an_exact_name_shows_the_card_with_its_neighbours(textseg, model):
    said = textseg("concepts", "Left Kidney", "-m", model)
    first, *rest = said.out.splitlines()
    assert first == "left kidney  kidney.left"
    assert any("right kidney  kidney.right" in line for line in rest)
    assert any("segments it as" in line for line in rest)


def test_the_card_as_json_says_how_the_model_segments_it(textseg, model):
    card = json.loads(textseg("concepts", "kidney", "-m", model, "--json").out)
    assert card["id"] == "kidney"
    assert card["segmented_as"] == ["kidney.left", "kidney.right"]
    assert card["children"] == ["kidney.left", "kidney.right"]
    assert (
        json.loads(textseg("concepts", "uterus", "-m", model, "--json").out)["segmented_as"] == []
    )


def test_what_the_model_supports_can_be_listed(textseg, model):
    listed = json.loads(textseg("concepts", "--supported", "-m", model, "--json").out)
    ids = {concept["id"] for concept in listed}
    assert {"liver", "spleen", "kidney", "kidney.left", "thalamus"} <= ids
    assert "uterus" not in ids
    assert all(concept["segmented_as"] for concept in listed)


def test_lists_are_filtered_and_cut(textseg, model):
    said = textseg("concepts", "--kind", "bone", "--region", "lower_limb", "--limit", "3")
    rows = table(said.out)
    assert len(rows) == 2 + 3
    assert all("bone" in row and "lower_limb" in row for row in rows[2:])
    assert said.err.startswith("warning: 3 of ")


def test_a_search_forgives_a_misspelling(textseg, model):
    rows = table(textseg("concepts", "kidny", "-m", model).out)
    assert rows[2][0] == "kidney"
    assert len(rows) == 2 + 10


def test_a_search_in_vain_exits_with_7(textseg, model):
    said = textseg("concepts", "xqwzz", "-m", model)
    assert (said.code, said.out) == (7, "")
    assert said.err.startswith("error[E701 unknown-concept] ")
    assert len(said.lines) == 1


@pytest.fixture
def home_of_model(model, tmp_path, monkeypatch):
    """The user's own models folder, with the tiny model and one that is broken."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(model)
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "manifest.json").write_text("{}")
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path))


def test_models_are_listed_with_the_users_own(textseg, home_of_model):
    said = textseg("models", "list", "--json")
    listed = {entry["folder"].rpartition("/")[2]: entry for entry in json.loads(said.out)}
    assert {"nano", "mine"} <= set(listed)
    mine = listed["mine"]
    assert (mine["version"], mine["licence"], mine["num_concepts"]) == ("1.2.3", "CC0-1.0", 6)
    assert mine["size_bytes"] > 1000
    assert said.err.startswith("error[E400 ")
    assert len(said.lines) == 1


def test_the_list_of_models_is_a_table(textseg, home_of_model):
    rows = {row[0]: row for row in table(textseg("models", "list").out)}
    assert rows["tiny"][1:3] == ["1.2.3", "CC0-1.0"]
    assert rows["tiny"][-2:] == ["torso-ct,", "head-mr"]


def test_a_model_shows_its_domains_and_concepts(textseg, model):
    said = textseg("models", "show", model)
    assert "torso-ct: CT at 6 x 6 x 6 mm, 4 concepts" in said.out
    assert ["left", "kidney", "kidney.left"] in table(said.out)
    shown = json.loads(textseg("models", "show", model, "--json").out)
    assert [domain["name"] for domain in shown["domains"]] == ["torso-ct", "head-mr"]
    assert shown["domains"][1]["concepts"][0] == {"id": "thalamus.left", "name": "left thalamus"}


def test_a_model_that_is_not_there_exits_with_4(textseg):
    assert textseg("models", "show", "gigantic").code == 4
