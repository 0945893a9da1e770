"""``textseg models import``: files on this disk become a model, or a line says why not."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from tests.zoo.published import published, save, save_pieces


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    save(folder / "nano.pth", published("nano"), step=9)
    save(folder / "text.pth", published("text"), step=9)
    save(folder / "other.pth", published("text"), step=8)
    save_pieces(folder / "vocab.txt")
    return folder


@pytest.fixture(name="run")
def _run(textseg, files, tmp_path):
    def run(name="sat-nano", checkpoint="nano.pth", text="text.pth", *options):
        given = ("--checkpoint", files / checkpoint, "--text-encoder", files / text)
        where = ("--vocabulary", files / "vocab.txt", "-o", tmp_path / "model")
        return textseg("models", "import", name, *given, *where, *options)

    return run


def test_a_name_that_cannot_be_imported_is_answered_with_those_that_can(run):
    said = run("nano")
    assert said.code == 4
    assert "E401" in said.err
    assert "sat-nano, sat-pro" in said.err


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("sat-pro",), "E409 mismatched-checkpoints"),
        (("sat-nano", "text.pth", "nano.pth"), "swapped"),
        (("sat-nano", "nano.pth", "other.pth"), "--unpaired"),
        (("sat-nano", "gone.pth"), "E405 missing-checkpoint"),
        (("sat-nano", "vocab.txt"), "E411 not-a-checkpoint"),
    ],
)
def test_wrong_files_end_in_one_line_and_no_model(run, tmp_path, given, error):
    said = run(*given)
    assert said.code == 4
    assert error in said.lines[-1]
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_malicious_file_is_refused_and_never_run(run, files, tmp_path):
    class Asks:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    torch.save({"model_state_dict": {"module.backbone": Asks()}}, files / "evil.pth")
    said = run("sat-nano", "evil.pth")
    assert said.code == 4
    assert "E410 unsafe-checkpoint" in said.lines[-1]
    assert f"{os.name}.system" in said.lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_licences_are_told(run):
    said = run("sat-nano", "gone.pth")
    assert "ihtsdo-and-nlm-licences" in said.err


@pytest.mark.slow
def test_two_sound_files_become_a_model(run, textseg, tmp_path):
    said = run("sat-nano", "nano.pth", "other.pth", "--unpaired", "--json")
    assert said.code == 0
    facts = json.loads(said.out)
    assert facts["folder"] == str(tmp_path / "model")
    assert set(facts["source"]) == {"nano.pth", "other.pth", "vocab.txt"}
    shown = json.loads(textseg("models", "show", tmp_path / "model", "--json").out)
    assert shown["sha256"] == facts["sha256"]
    again = run("sat-nano", "nano.pth", "other.pth", "--unpaired")
    assert again.code == 5
    assert "E504" in again.lines[-1]
    shutil.rmtree(tmp_path / "model")  # a gigabyte, which would stay for three runs
