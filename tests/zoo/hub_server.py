"""A stand-in for the Hugging Face hub on this machine, and a tiny model that it holds.

As with the real hub, large files are named by the sha256 of their content and sent by another
server, to which the first one redirects; small ones by the sha1 that git gives them, and sent at
once.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from urllib.parse import unquote

import pytest
from fakes import tiny_encoder, tiny_segmenter

from textseg.errors import TextsegError
from textseg.network.weights import Domain, ModelManifest, save_model
from textseg.zoo import Download, Entry, Hub, HubFile, Licence, download_model

Failure = TypeVar("Failure", bound=TextsegError)

CHUNK = 10 * 1024 * 1024
"""How many bytes the client writes at a time."""

COMMIT = "67414a611d784946077bc6e2e133d0c1a15102f8"
WORDS_COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {
    "Nano/net.pth": Random(0).randbytes(2 * CHUNK + 12_345),
    "Nano/text.pth": Random(1).randbytes(4_321),
}
WORDS = b"[PAD]\nliver\nspleen\n"
NETWORK = HubFile(
    "checkpoint", "someone/model", COMMIT, "Nano/net.pth", len(CONTENT["Nano/net.pth"])
)
TEXT = HubFile("text_encoder", "someone/model", COMMIT, "Nano/text.pth", 4_321)
VOCABULARY = HubFile("vocabulary", "other/words", "main", "vocab.txt", len(WORDS))
ENTRY = Entry(
    name="tiny-nano",
    title="A tiny model",
    kind="sat",
    version="1.0",
    licences=(
        Licence("CC-BY-4.0", "weights", "Name its authors."),
        Licence("ihtsdo", "vocabulary", "Get a licence."),
    ),
    files=(NETWORK, TEXT, VOCABULARY),
    installed_bytes=50_000,
    homepage="https://example.org/tiny",
    citation="Nobody et al.",
)


@dataclass(frozen=True)
class Request:
    """What was asked, and how much content went out in answer."""

    method: str
    path: str
    range: str | None
    sent: int
    had_token: bool


@dataclass
class HubServer:
    """Repositories, what shall go wrong with them, and what was asked.

    Attributes:
        files: Content by repository and path.
        commits: Commit of each repository's ``main``.
        refusals: Status and ``X-Error-Code`` for each repository that gives nothing.
        cuts: How many bytes the next contents hold before the connection ends, in turn.
        missing_bytes: By how much contents are shorter than was stated.
        spoilt: Contents are not those that were stated.
        ignores_ranges: Contents are always sent from their beginning.
        states_checksums: Whether it does.
        hold: Contents wait for this after their first two chunks.
        log: Every request.
    """

    files: dict[str, dict[str, bytes]]
    commits: dict[str, str]
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    missing_bytes: int = 0
    spoilt: bool = False
    ignores_ranges: bool = False
    states_checksums: bool = True
    hold: threading.Event | None = None
    log: list[Request] = field(default_factory=list)
    url: str = ""
    content_url: str = ""

    def contents(self) -> list[Request]:
        """The requests that were answered with the content of a large file."""
        return [request for request in self.log if request.path.startswith("/content/")]

    def large(self, checksum: str) -> bytes:
        found = {
            hashlib.sha256(c).hexdigest(): c for held in self.files.values() for c in held.values()
        }
        return found[checksum]


@contextmanager
def hub_server(files: Mapping[str, Mapping[str, bytes]] | None = None) -> Iterator[HubServer]:
    """The stand-in, listening while the block runs."""
    held = (
        {"someone/model": CONTENT, "other/words": {"vocab.txt": WORDS}} if files is None else files
    )
    hub = HubServer(
        {repo: dict(held[repo]) for repo in held},
        {"someone/model": COMMIT, "other/words": WORDS_COMMIT},
    )
    servers = [_server(kind, hub) for kind in (_HubHandler, _ContentHandler)]
    hub.url, hub.content_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        if hub.hold is not None:
            hub.hold.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def import_tiny(
    checkpoint: Path,
    text_encoder: Path,
    vocabulary: Path,
    folder: Path,
    *,
    name: str,
    version: str,
    licence: str,
    source: Mapping[str, str],
    unpaired: bool = False,
) -> ModelManifest:
    """A model folder with random weights that follow from the sizes of the files."""
    network = tiny_segmenter(seed=checkpoint.stat().st_size)
    encoder = tiny_encoder(seed=text_encoder.stat().st_size)
    folder.mkdir()
    shutil.copyfile(vocabulary, folder / "vocab.txt")
    domain = Domain(
        name="torso-ct",
        spacing_mm=(6.0, 6.0, 6.0),
        window=(16, 16, 16),
        modalities=("ct",),
        concepts=("liver", "spleen"),
    )
    manifest = ModelManifest(
        name=name,
        version=version,
        licence=licence,
        sha256="",
        files={"vocab.txt": hashlib.sha256(vocabulary.read_bytes()).hexdigest()},
        source=dict(source),
        network=network.config.model_dump(mode="json"),
        text_encoder=encoder.config.model_dump(mode="json"),
        domains=(domain,),
    )
    return save_model(folder, network, encoder, manifest=manifest)


def download(hub: Hub, entry: Entry = ENTRY, **options: Any) -> Download:
    """The tiny model, made of what the hub has."""
    return download_model(entry, hub=hub, importer=import_tiny, **options)


def failure(kind: type[Failure], hub: Hub, entry: Entry = ENTRY, **options: Any) -> Failure:
    """The error with which a download ends."""
    with pytest.raises(kind) as caught:
        download(hub, entry, **options)
    return caught.value


def _server(kind: type[BaseHTTPRequestHandler], hub: HubServer) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": hub}))
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed; the log is kept."""

    def note(self, sent: int = 0) -> None:
        had_token = "Authorization" in self.headers
        request = Request(self.command, self.path, self.headers["Range"], sent, had_token)
        self.hub.log.append(request)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _HubHandler(_Handler):
    """``/{repo}/resolve/{revision}/{path}``: what a file is, and where its content is."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.note()
        repo, _, rest = unquote(self.path).removeprefix("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        if repo in self.hub.refusals:
            status, code = self.hub.refusals[repo]
            return self.answer(status, X_Error_Code=code)
        if repo not in self.hub.files:
            return self.answer(404, X_Error_Code="RepoNotFound")
        commit = self.hub.commits[repo]
        if revision not in ("main", commit):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if path not in self.hub.files[repo]:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = self.hub.files[repo][path]
        if path.endswith(".pth"):
            return self._redirect(content, commit)
        checksum = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        length = str(len(content))
        headers = {"ETag": f'"{checksum}"', "X_Repo_Commit": commit, "Content_Length": length}
        return self.answer(200, content, **headers)

    def _redirect(self, content: bytes, commit: str) -> None:
        checksum = hashlib.sha256(content).hexdigest()
        headers = {
            "Location": f"{self.hub.content_url}/content/{checksum}",
            "X_Repo_Commit": commit,
            "X_Linked_Size": str(len(content)),
        }
        if self.hub.states_checksums:
            headers["X_Linked_Etag"] = f'"{checksum}"'
        self.answer(302, **headers)


class _ContentHandler(_Handler):
    """``/content/{sha256}``: the content of large files, from any byte on."""

    def do_GET(self) -> None:
        whole = self.hub.large(self.path.rpartition("/")[2])
        if self.hub.spoilt:
            whole = whole[:-1] + bytes([whole[-1] ^ 1])
        whole = whole[: len(whole) - self.hub.missing_bytes]
        begin = 0
        if self.headers["Range"] and not self.hub.ignores_ranges:
            begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        body = whole[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        if self.hub.cuts:
            body = body[: self.hub.cuts.pop(0)]
            self.close_connection = True
        self.note(len(body))
        try:
            self.wfile.write(body[: 2 * CHUNK])
            if self.hub.hold is not None:
                self.hub.hold.wait()
            self.wfile.write(body[2 * CHUNK :])
        except OSError:
            # the client was killed
            self.close_connection = True
