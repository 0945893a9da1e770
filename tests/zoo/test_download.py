"""Downloads from beginning to end against a stand-in for the hub, with all that can go wrong."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.zoo.hub_server import (
    COMMIT,
    CONTENT,
    ENTRY,
    NETWORK,
    TEXT,
    VOCABULARY,
    WORDS,
    WORDS_COMMIT,
    download,
    failure,
    hub_server,
)
from textseg.atomic import file_sha256
from textseg.errors import ModelError, ResourceError
from textseg.network.weights import DOWNLOADABLE, find_model, list_models, load_model
from textseg.zoo import ENTRIES, Hub, download_model, verify_model
from textseg.zoo.installed import locked, read_record

huggingface_hub = pytest.importorskip("huggingface_hub")

SIZE = len(CONTENT["Nano/net.pth"])


def test_the_names_a_model_is_looked_for_by_are_those_of_the_entries():
    assert {entry.name for entry in ENTRIES} == set(DOWNLOADABLE)


def test_every_entry_has_one_file_of_each_role_and_a_licence():
    for entry in ENTRIES:
        assert sorted(f.role for f in entry.files) == ["checkpoint", "text_encoder", "vocabulary"]
        assert entry.licences


def test_a_downloaded_model_goes_by_its_name(hub, server, tmp_path):
    found = download(hub)
    assert not found.was_there
    assert found.folder == find_model("tiny-nano") == tmp_path / "home" / "models" / "tiny-nano"
    assert "tiny-nano" in list_models()
    _, _, manifest = load_model("tiny-nano")
    assert (manifest.version, manifest.licence) == ("1.0", "CC-BY-4.0 AND ihtsdo")
    assert sum(request.sent for request in server.contents()) == sum(map(len, CONTENT.values()))
    visible = [path.name for path in found.folder.parent.iterdir()]
    assert sorted(visible) == [".tiny-nano.lock", "tiny-nano"]


def test_what_a_model_was_made_from_is_recorded(hub, tmp_path):
    folder = download(hub).folder
    (network, text, words) = read_record(folder).files
    for record, file, content in ((network, NETWORK, "net"), (text, TEXT, "text")):
        assert (record.repo, record.path, record.revision) == (file.repo, file.path, COMMIT)
        (tmp_path / "copy").write_bytes(CONTENT[f"Nano/{content}.pth"])
        assert record.sha256 == file_sha256(tmp_path / "copy")
    assert (words.revision, words.size_bytes) == (WORDS_COMMIT, len(WORDS))
    sums = {"net.pth": network.sha256, "text.pth": text.sha256, "vocab.txt": words.sha256}
    assert load_model(folder)[2].source == sums


def test_a_model_that_is_there_is_not_downloaded_again(hub, server):
    download(hub)
    server.log.clear()
    assert download(hub).was_there
    assert server.log == []


def test_installing_anew_takes_the_files_from_the_cache(hub, server):
    folder = download(hub).folder
    (folder / "model.safetensors").write_bytes(b"")
    server.log.clear()
    assert not download(hub, overwrite=True).was_there
    assert server.log == []
    assert verify_model("tiny-nano").is_sound


def test_the_cache_is_one_that_the_hubs_own_client_reads(hub):
    download(hub)
    for file in ENTRY.files:
        found = huggingface_hub.hf_hub_download(
            file.repo, file.path, revision=file.revision, cache_dir=hub.cache, local_files_only=True
        )
        assert Path(found).stat().st_size == file.about_bytes


def test_a_log_in_is_not_passed_on_to_where_the_contents_are(hub, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(hub)
    assert all(request.had_token for request in server.log if "resolve" in request.path)
    assert not any(request.had_token for request in server.contents())


def test_a_file_that_is_not_the_one_we_know_is_refused_before_it_is_sent(hub, server):
    files = (replace(NETWORK, sha256="0" * 64), TEXT, VOCABULARY)
    error = failure(ModelError, hub, replace(ENTRY, files=files))
    assert error.code == "E407"
    assert "000000000000..." in error.cause
    assert server.contents() == []


def test_a_small_file_that_is_not_the_one_we_know_is_refused(hub):
    files = (NETWORK, TEXT, replace(VOCABULARY, sha256="0" * 64))
    assert "known to be right" in failure(ModelError, hub, replace(ENTRY, files=files)).cause


def test_a_server_that_states_no_checksum_is_refused(hub, server):
    server.states_checksums = False
    error = failure(ModelError, hub)
    assert error.code == "E407"
    assert "HF_ENDPOINT" in error.remedy
    assert server.contents() == []


def test_offline_the_cache_is_enough(hub, server):
    folder = download(hub).folder
    server.log.clear()
    before = file_sha256(folder / "model.safetensors")
    again = download(replace(hub, offline=True), overwrite=True)
    assert file_sha256(again.folder / "model.safetensors") == before
    assert server.log == []


def test_offline_what_is_missing_is_listed(hub, server):
    error = failure(ModelError, replace(hub, offline=True))
    assert error.code == "E407"
    assert error.path == hub.cache
    for file in ENTRY.files:
        assert file.path in error.cause
        assert file.repo in error.cause
    assert server.log == []


def test_offline_a_damaged_file_does_not_count(hub):
    download(hub)
    damage(hub)
    error = failure(ModelError, replace(hub, offline=True), overwrite=True)
    assert "Nano/text.pth" in error.cause
    assert "Nano/net.pth" not in error.cause


def test_a_damaged_file_in_the_cache_is_fetched_again(hub, server):
    download(hub)
    path = damage(hub)
    server.log.clear()
    download(hub, overwrite=True)
    assert [request.sent for request in server.contents()] == [len(CONTENT["Nano/text.pth"])]
    assert path.read_bytes() == CONTENT["Nano/text.pth"]


def test_a_copy_in_a_cache_without_links_is_fetched_again_when_it_is_damaged(hub):
    download(hub)
    path = damage(hub)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    sums = {file.path: file.sha256 for file in read_record(find_model("tiny-nano")).files}
    files = tuple(replace(file, sha256=sums[file.path]) for file in ENTRY.files)
    download(hub, replace(ENTRY, files=files), overwrite=True)
    assert path.read_bytes() == CONTENT["Nano/text.pth"]


def test_too_little_room_is_noticed_before_anything_is_sent(hub, server):
    error = failure(ResourceError, hub, free_bytes=lambda folder: SIZE)
    assert error.code == "E502"
    assert server.contents() == []
    download(hub, free_bytes=lambda folder: SIZE + 4_321 + len(WORDS) + ENTRY.installed_bytes)


def test_a_disk_that_fills_up_is_named(hub, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    error = failure(ResourceError, hub)
    assert error.code == "E502"
    assert hub.cache in error.path.parents
    assert "HF_HOME" in error.remedy


def test_a_cache_that_cannot_be_written_is_named(hub):
    hub.cache.write_text("a file where the folder should be")
    error = failure(ResourceError, hub)
    assert error.code == "E503"
    assert hub.cache in error.path.parents


def test_a_models_folder_that_cannot_be_written_is_named(hub, server, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    error = failure(ResourceError, hub)
    assert error.code == "E503"
    assert "TEXTSEG_HOME" in error.remedy
    assert server.log == []


def test_a_licence_that_is_not_accepted_stops_everything(hub, server):
    error = failure(ModelError, hub, licences=["CC-BY-4.0", "MIT"])
    assert error.code == "E408"
    assert "ihtsdo" in error.cause
    assert "CC-BY-4.0" not in error.cause
    assert server.log == []


def test_licences_are_accepted_in_any_case(hub):
    download(hub, licences=["cc-by-4.0", " IHTSDO"])
    assert "tiny-nano" in list_models()


@pytest.mark.parametrize(
    ("status", "code", "said", "remedy"),
    [
        (404, "RepoNotFound", "no repository someone/model", "hf auth login"),
        (401, "RepoNotFound", "no repository someone/model", "hf auth login"),
        (401, "GatedRepo", "accepted its terms", "hf auth login"),
        (403, "GatedRepo", "accepted its terms", "hf auth login"),
        (404, "RevisionNotFound", f"no revision {COMMIT}", "removed"),
        (404, "EntryNotFound", "no file Nano/net.pth", "moved"),
        (403, "", "refuses", "HF_TOKEN"),
        (503, "", "HTTP 503", "later"),
    ],
)
def test_each_refusal_of_the_hub_has_its_cause_and_remedy(hub, server, status, code, said, remedy):
    server.refusals["someone/model"] = (status, code)
    error = failure(ModelError, hub)
    assert error.code == "E407"
    assert said in error.cause
    assert remedy in error.remedy
    assert server.contents() == []


def test_a_server_that_is_down_is_named(hub):
    with hub_server() as gone:
        pass
    error = failure(ModelError, replace(hub, endpoint=gone.url))
    assert error.code == "E407"
    assert f"{gone.url} cannot be reached" in error.cause
    assert "--offline" in error.remedy


def test_a_missing_package_is_named(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    error = failure(ModelError, hub)
    assert error.code == "E403"
    assert "textseg[hub]" in error.remedy


def test_a_model_of_ones_own_is_not_replaced_unasked(hub, server, tmp_path):
    own = tmp_path / "home" / "models" / "tiny-nano"
    own.mkdir(parents=True)
    (own / "manifest.json").write_text("{}")
    assert failure(ResourceError, hub).code == "E504"
    assert server.log == []
    download(hub, overwrite=True)
    assert verify_model("tiny-nano").is_sound


def test_an_importer_that_fails_leaves_the_old_model(hub, tmp_path):
    download(hub)

    def fails(*arguments, folder, **options):
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        raise ModelError("this is no such model.")

    with pytest.raises(ModelError, match="no such model"):
        download_model(ENTRY, hub=hub, importer=fails, overwrite=True)
    assert verify_model("tiny-nano").is_sound
    assert len(list((tmp_path / "home" / "models").iterdir())) == 2


def test_what_a_kill_left_of_an_installation_is_put_right(hub, tmp_path):
    folder = download(hub).folder
    (folder.parent / ".tiny-nano.new" / "model").mkdir(parents=True)
    (folder.parent / ".tiny-nano.gone").mkdir()
    folder.rename(folder.parent / ".tiny-nano.old")
    with locked("tiny-nano") as place:
        assert place == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tiny-nano.lock", "tiny-nano"]
    assert verify_model("tiny-nano").is_sound


def damage(hub: Hub) -> Path:
    """Where the cache keeps the text encoder, of which one byte is now wrong."""
    path = Path(
        huggingface_hub.try_to_load_from_cache(
            TEXT.repo, TEXT.path, cache_dir=hub.cache, revision=COMMIT
        )
    )
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    return path
