"""``textseg resolve``: one line a prompt, in the names of the public data sets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

KEYS = [
    *("prompt", "status", "concepts", "names", "confidence"),
    *("method", "warnings", "suggestions", "candidates"),
]


@pytest.fixture
def resolved(textseg):
    """The answers to some prompts as JSON."""

    def run(*arguments):
        said = textseg("resolve", *arguments, "--json")
        assert said.code == 0, said.err
        return [json.loads(line) for line in said.out.splitlines()]

    return run


def test_every_object_has_exactly_the_promised_keys(resolved):
    answers = resolved("left kidney", "appendix", "banana", "ventricle", "linke Niere")
    assert [list(answer) for answer in answers] == [KEYS] * 5
    assert [answer["status"] for answer in answers] == [
        *("ok", "unsupported", "reject", "ambiguous", "ok")
    ]


def test_names_are_the_classes_of_the_public_data_sets(resolved):
    vertebra, vein, adrenal = resolved("L1", "left iliac vein", "R adrenal")
    assert vertebra["names"] == ["lumbar vertebrae 1 (l1)"]
    assert vein["names"] == ["left iliac vena"]
    assert (adrenal["concepts"], adrenal["names"]) == (
        ["adrenal_gland.right"],
        ["right adrenal gland"],
    )


def test_a_concept_that_is_no_class_has_no_name(resolved):
    (answer,) = resolved("appendix", "--any")
    assert (answer["status"], answer["concepts"], answer["names"]) == ("ok", ["appendix"], [])


def test_without_a_model_everything_that_data_sets_label_is_accepted(resolved):
    (answer,) = resolved("liver tumour")
    assert answer["names"] == ["liver tumor"]
    assert any("nano cannot segment this" in warning for warning in answer["warnings"])
    (narrow,) = resolved("liver tumour", "--model", "nano")
    assert (narrow["status"], narrow["names"]) == ("unsupported", [])


def test_real_anatomy_that_no_data_set_labels_names_what_is_near(resolved):
    (answer,) = resolved("appendix")
    assert answer["status"] == "unsupported"
    assert answer["suggestions"]


def test_the_modality_settles_what_a_word_means(resolved):
    (plain,) = resolved("LV")
    (on_ct,) = resolved("LV", "--modality", "ct")
    assert (plain["status"], on_ct["names"]) == ("ambiguous", ["left heart ventricle"])
    assert set(plain["candidates"]) == {"heart_ventricle.left", "lateral_ventricle"}


def test_a_modality_on_which_nothing_is_labelled_warns(resolved):
    (answer,) = resolved("lung nodule", "--modality", "mr")
    assert answer["status"] == "ok"
    assert any(warning.startswith("On MR no public data set") for warning in answer["warnings"])


def test_prompts_come_from_a_file_too(resolved, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("foie\n\n肝臓\n", encoding="utf-8")
    answers = resolved("liver", "--file", listed)
    assert [answer["names"] for answer in answers] == [["liver"]] * 3


def test_resolving_never_loads_torch():
    code = (
        "import sys; from textseg.cli import main;"
        "main(['resolve', 'left kidny', 'linke Niere', '--json']);"
        "sys.exit(bool({'torch', 'scipy', 'nibabel'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_refusal_without_suggestions_points_to_the_list_of_names(textseg):
    hint = "What can be asked for: textseg concepts --supported"
    assert hint in textseg("resolve", "zzyzx").lines
    assert hint not in textseg("resolve", "liver", "kindey").lines
    assert hint not in textseg("resolve", "zzyzx", "--json").lines
