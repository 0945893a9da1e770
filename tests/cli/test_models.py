"""``textseg models``: what is here, what can be had, and installing, checking and removing it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import fakes
import pytest

from tests.zoo.hub_server import CONTENT, ENTRY, WORDS, HubServer, hub_server, import_tiny
from textseg.resources import models_folder
from textseg.zoo import find_entry


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.split()]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def home_of_model(home, model):
    """The user's own models folder, with the tiny model and one that is broken."""
    (home / "models").mkdir(parents=True)
    (home / "models" / "mine").symlink_to(model)
    (home / "models" / "broken").mkdir()
    (home / "models" / "broken" / "manifest.json").write_text("{}")
    return home


@pytest.fixture
def server(home, monkeypatch) -> Iterator[HubServer]:
    """A stand-in for the hub that holds the only model that can be downloaded."""
    monkeypatch.setattr("textseg.zoo.entries.ENTRIES", (ENTRY,))
    monkeypatch.setattr("textseg.zoo.sat.import_sat", import_tiny)
    pytest.importorskip("huggingface_hub")
    place = "huggingface_hub.constants"
    with hub_server() as running:
        # what HF_ENDPOINT and HF_HOME do when the package is imported
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{place}.ENDPOINT", running.url)
        monkeypatch.setattr(f"{place}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{place}.HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(f"{place}.HF_HUB_DISABLE_TELEMETRY", True)
        yield running


def test_models_are_listed_with_the_users_own_and_those_to_be_had(textseg, home_of_model):
    said = textseg("models", "list", "--json")
    listed = {entry["name"]: entry for entry in json.loads(said.out)}
    states = {name: entry["state"] for name, entry in listed.items()}
    assert states == {
        "nano": "embedded",
        "tiny": "installed",
        "sat-nano": "downloadable",
        "sat-pro": "downloadable",
    }
    mine = listed["tiny"]
    assert (mine["version"], mine["licence"], mine["num_concepts"]) == ("1.2.3", "CC0-1.0", 6)
    assert mine["folder"].endswith("mine")
    assert mine["size_bytes"] > 1000
    assert said.err.startswith("error[E400 ")
    assert len(said.lines) == 1


def test_the_list_of_models_is_a_table(textseg, home_of_model):
    rows = {row[0]: row for row in table(textseg("models", "list").out)}
    assert rows["tiny"][1:3] == ["1.2.3", "CC0-1.0"]
    assert rows["tiny"][-3:] == ["installed", "torso-ct,", "head-mr"]
    assert rows["nano"][5] == "embedded"
    assert rows["sat-nano"][-3:] == ["can", "be", "downloaded"]


def test_a_model_shows_its_domains_and_concepts(textseg, model):
    said = textseg("models", "show", model)
    assert "torso-ct: CT at 6 x 6 x 6 mm, 4 concepts" in said.out
    assert ["left", "kidney", "kidney.left"] in table(said.out)
    shown = json.loads(textseg("models", "show", model, "--json").out)
    assert [domain["name"] for domain in shown["domains"]] == ["torso-ct", "head-mr"]
    assert shown["domains"][1]["concepts"][0] == {"id": "thalamus.left", "name": "left thalamus"}


def test_a_model_that_is_not_there_exits_with_4(textseg):
    assert textseg("models", "show", "gigantic").code == 4


@pytest.mark.parametrize("name", ["sat-nano", "sat-pro"])
def test_a_model_that_is_not_installed_shows_its_files_and_licences(textseg, home, name):
    entry = find_entry(name)
    said = textseg("models", "show", name)
    shown = json.loads(textseg("models", "show", name, "--json").out)
    assert said.code == 0
    assert f"textseg models download {name}" in said.out
    for file, facts in zip(entry.files, shown["files"], strict=True):
        assert file.path in said.out
        assert file.revision in said.out
        assert (facts["path"], facts["repo"], facts["revision"]) == (
            *(file.path, file.repo),
            file.revision,
        )
    for licence in entry.licences:
        assert licence.id in said.out
        assert licence.text in said.out


def test_a_model_that_is_not_installed_says_how_to_install_it(textseg, home, scan):
    said = textseg("predict", scan, "liver", "-m", "sat-nano")
    assert (said.code, len(said.lines)) == (4, 1)
    assert "To install it: textseg models download sat-nano" in said.err


def test_a_model_is_downloaded_shown_and_removed(textseg, server, home):
    said = textseg("models", "download", "tiny-nano")
    folder = home / "models" / "tiny-nano"
    assert said.code == 0, said.err
    assert said.out == ""
    assert "licence ihtsdo. Get a licence." in said.err
    assert f"installed tiny-nano 1.0, 2 concepts: {folder}" in said.lines
    shown = textseg("models", "show", "tiny-nano").out
    assert "Nano/net.pth of someone/model@67414a611d78" in shown
    listed = json.loads(textseg("models", "list", "--json").out)
    assert [m["state"] for m in listed if m["name"] == "tiny-nano"] == ["installed"]
    removed = textseg("models", "remove", "tiny-nano")
    assert (removed.code, removed.lines) == (0, [f"removed tiny-nano: {folder}"])
    assert not folder.exists()
    listed = json.loads(textseg("models", "list", "--json").out)
    assert [m["state"] for m in listed if m["name"] == "tiny-nano"] == ["downloadable"]


def test_a_download_answers_in_json(textseg, server, home):
    said = textseg("models", "download", "tiny-nano", "--json")
    answer = json.loads(said.out)
    assert (answer["name"], answer["was_there"]) == ("tiny-nano", False)
    assert answer["folder"] == str(home / "models" / "tiny-nano")
    sizes = [file["size_bytes"] for file in answer["files"]]
    assert sizes == [*map(len, CONTENT.values()), len(WORDS)]
    assert json.loads(textseg("models", "download", "tiny-nano", "--json").out)["was_there"]


def test_offline_nothing_is_asked_for(textseg, server):
    said = textseg("models", "download", "tiny-nano", "--offline")
    assert said.code == 4
    assert said.lines[-1].startswith("error[E407 download-failed] ")
    assert "Nano/net.pth of someone/model@67414a611d78" in said.lines[-1]
    assert server.log == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--require-license", "MIT,cc-by-4.0"], 4),
        (["--require-license", "CC-BY-4.0,ihtsdo"], 0),
        (["--require-license", "CC-BY-4.0", "--require-license", "ihtsdo"], 0),
    ],
    ids=["one missing", "list", "repeated"],
)
def test_only_required_licences_are_downloaded(textseg, server, options, code):
    said = textseg("models", "download", "tiny-nano", *options)
    assert said.code == code
    assert said.lines[-1].startswith("error[E408 licence-refused] ") == (code == 4)
    assert (server.log == []) == (code == 4)


def test_a_name_that_cannot_be_downloaded_exits_with_4(textseg, server):
    said = textseg("models", "download", "gigantic")
    assert (said.code, len(said.lines)) == (4, 1)
    assert "tiny-nano" in said.err


def test_sound_models_are_verified(textseg, server):
    textseg("models", "download", "tiny-nano")
    said = textseg("models", "verify", "--json")
    checked = {model["name"]: model for model in json.loads(said.out)}
    assert said.code == 0
    assert checked["nano"]["files"] == {"model.safetensors": "ok"}
    assert checked["tiny-nano"]["files"] == {"vocab.txt": "ok", "model.safetensors": "ok"}
    assert textseg("models", "verify", "nano").lines == ["nano: sound (model.safetensors)"]


@pytest.mark.parametrize("file", ["vocab.txt", "model.safetensors"])
def test_a_damaged_file_exits_with_4(textseg, server, home, file):
    textseg("models", "download", "tiny-nano")
    path = home / "models" / "tiny-nano" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    said = textseg("models", "verify", "--json")
    checked = {model["name"]: model for model in json.loads(said.out)}
    assert said.code == 4
    assert checked["tiny-nano"]["files"][file] == "damaged"
    assert (checked["tiny-nano"]["error"], checked["nano"]["error"]) == (said.lines[0], None)
    assert said.lines[0].startswith("error[E402 corrupt-weights] ")
    path.unlink()
    assert f"{file} is missing" in textseg("models", "verify", "tiny-nano").err
    assert textseg("models", "verify", "nano").code == 0


def test_a_broken_model_does_not_keep_the_others_from_being_verified(textseg, home_of_model):
    said = textseg("models", "verify")
    assert said.code == 4
    assert [line.partition(":")[0] for line in said.lines if "sound" in line] == ["mine", "nano"]
    assert sum(line.startswith("error[E400 ") for line in said.lines) == 1


def test_a_model_of_ones_own_is_removed(textseg, home):
    fakes.write_model(home / "models" / "mine")
    said = textseg("models", "remove", "mine", "--json")
    assert json.loads(said.out) == {"name": "mine", "removed": str(home / "models" / "mine")}
    assert not (home / "models" / "mine").exists()


def test_a_model_that_is_a_link_leaves_what_it_leads_to(textseg, home_of_model, model):
    assert textseg("models", "remove", "mine").code == 0
    assert not (home_of_model / "models" / "mine").exists()
    assert (model / "manifest.json").is_file()


def test_a_broken_model_can_be_removed(textseg, home_of_model):
    assert textseg("models", "remove", "broken").code == 0
    assert not (home_of_model / "models" / "broken").exists()


@pytest.mark.parametrize("name", ["nano", "../nano", "..", ".", "", "/etc", "gone", ".hidden"])
def test_what_is_no_model_of_ones_own_is_not_removed(textseg, home_of_model, name):
    fakes.write_model(home_of_model / "nano")
    said = textseg("models", "remove", name)
    assert (said.code, len(said.lines)) == (4, 1)
    assert (models_folder() / "nano" / "manifest.json").is_file()
    assert (home_of_model / "nano" / "manifest.json").is_file()
    assert len([path for path in (home_of_model / "models").iterdir() if path.is_dir()]) == 2


def test_a_folder_without_a_manifest_is_not_removed(textseg, home_of_model):
    (home_of_model / "models" / "notes").mkdir()
    assert textseg("models", "remove", "notes").code == 4
    assert (home_of_model / "models" / "notes").is_dir()
