"""``resolve`` and ``concepts``: what can be asked, and by what name."""

from __future__ import annotations

import json

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
