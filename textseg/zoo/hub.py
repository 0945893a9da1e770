"""Files of the Hugging Face hub: found in its cache, or fetched into it and checked.

``huggingface_hub`` speaks to the hub and keeps the cache, so that ``HF_HOME``, ``HF_ENDPOINT``, a
log-in and what other programs fetched all count. Two things are added. A transfer that stops, even
with its process, goes on where it stopped the next time. And a file counts only once its content
has the checksum that the hub states for it.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from filelock import FileLock

from textseg.atomic import file_sha256, storage_error
from textseg.errors import ModelError, ResourceError
from textseg.zoo.entries import HubFile

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

_log = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Large files go by the sha256 of their content, small ones by the sha1 that git gives a blob."""

_AGAIN = "Run the command again."


class Stated(NamedTuple):
    """What the hub says about a file."""

    size_bytes: int
    checksum: str
    revision: str


class LocalFile(NamedTuple):
    """A file of the hub on this disk, with its checksum verified."""

    file: HubFile
    path: Path
    sha256: str
    revision: str


@dataclass(frozen=True)
class Hub:
    """The hub as it is reached from here.

    Attributes:
        endpoint: Its address; None for that of ``HF_ENDPOINT``, or huggingface.co.
        cache: Folder of its cache; None for the one in ``HF_HOME``.
        offline: Never ask it for anything, as with ``HF_HUB_OFFLINE``.
    """

    endpoint: str | None = None
    cache: Path | None = None
    offline: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the cache."""
        return self.cache or Path(_library().constants.HF_HUB_CACHE)

    @property
    def is_offline(self) -> bool:
        """Whether nothing may be asked for."""
        return self.offline or bool(_library().constants.HF_HUB_OFFLINE)

    def cached(self, file: HubFile) -> LocalFile | None:
        """The file if it is in the cache and sound; a damaged one is named in the log.

        Where the cache does not tell the checksum, only one that we know ourselves is checked.
        """
        path = self._pointer(file)
        if path is None:
            return None
        # a link to the content, which goes by its checksum; a plain file where links are lacking
        blob = path.readlink().name if path.is_symlink() else ""
        stated = blob if _CHECKSUM.fullmatch(blob) else None
        sha256 = file_sha256(path)
        known = [checksum for checksum in (stated, file.sha256) if checksum is not None]
        if not known:
            _log.warning("The cache does not tell the checksum of %s, so it is not checked.", file)
        if not all(_has(path, checksum, sha256) for checksum in known):
            _log.warning("%s is damaged in the cache: %s", file, path)
            return None
        revision = path.parents[file.path.count("/")].name
        return LocalFile(file, path, sha256, revision)

    def stated(self, file: HubFile) -> Stated:
        """What the hub says about the file, before any of it is sent.

        Raises:
            ModelError: E407, it cannot be reached, has no such file, does not give it to us, or
                has another file than the one that we know.
        """
        library = _library()
        with _coded(file, self.address):
            url = library.hf_hub_url(
                file.repo, file.path, revision=file.revision, endpoint=self.endpoint
            )
            found: HfFileMetadata = library.get_hf_file_metadata(url)
        checksum, size = found.etag or "", found.size
        if not _CHECKSUM.fullmatch(checksum) or size is None or found.commit_hash is None:
            raise ModelError(
                f"{self.address} does not state size, checksum and revision of {file}.",
                code="E407",
                remedy="Check HF_ENDPOINT: it must be the Hugging Face hub or a full mirror of it.",
            )
        if _SHA256.fullmatch(checksum) and file.sha256 not in (None, checksum):
            raise _wrong_content(file, str(file.sha256), checksum)
        return Stated(size, checksum, found.commit_hash)

    def bytes_to_fetch(self, file: HubFile, stated: Stated) -> int:
        """How much of the file is still to be sent."""
        blob = self._blob(file, stated)
        if blob.is_file():
            return 0
        return max(0, stated.size_bytes - _size(_partial(blob)))

    def fetch(self, file: HubFile, stated: Stated) -> LocalFile:
        """The file, with as much of it sent as is not here yet.

        Another process that fetches it is waited for.

        Raises:
            ModelError: E407, the transfer stopped, or its content has another checksum.
            ResourceError: The disk is full (E502), or the cache cannot be written (E503).
        """
        library = _library()
        blob = self._blob(file, stated)
        lock = self.folder / ".locks" / blob.parents[1].name / f"{blob.name}.textseg.lock"
        with _coded(file, self.address, partial=_partial(blob), size=stated.size_bytes):
            for folder in (blob.parent, lock.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                if not (blob.is_file() and _has(blob, stated.checksum)):
                    self._transfer(file, stated, blob)
            copy = self._pointer(file)
            if copy is not None and not copy.is_symlink():
                # a copy, where links are lacking, and not a sound one or it would have been used
                copy.unlink()
            # the content is there already, so that this only gives it its name in the cache
            path = Path(
                library.hf_hub_download(
                    file.repo,
                    file.path,
                    revision=file.revision,
                    cache_dir=self.folder,
                    endpoint=self.endpoint,
                )
            )
        is_sha256 = _SHA256.fullmatch(stated.checksum) is not None
        sha256 = stated.checksum if is_sha256 else file_sha256(path)
        if file.sha256 not in (None, sha256):
            raise _wrong_content(file, str(file.sha256), sha256)
        return LocalFile(file, path, sha256, stated.revision)

    @property
    def address(self) -> str:
        """Where it is."""
        return self.endpoint or str(_library().constants.ENDPOINT)

    def _transfer(self, file: HubFile, stated: Stated, blob: Path) -> None:
        """Fetches the content into ``blob``, which appears only when complete and checked."""
        library = _library()
        partial = _partial(blob)
        if _size(partial) > stated.size_bytes:
            partial.unlink()
        done = _size(partial)
        if done:
            _log.info("Going on with %s at %.1f MB.", file, done / 1e6)
        url = library.hf_hub_url(
            file.repo, file.path, revision=stated.revision, endpoint=self.endpoint
        )
        with partial.open("ab") as target:
            library.file_download.http_get(
                url,
                target,
                resume_size=done,
                headers=library.utils.build_hf_headers(),
                expected_size=stated.size_bytes,
                displayed_filename=file.path,
            )
        if not _has(partial, stated.checksum):
            partial.unlink()
            raise ModelError(
                f"what arrived of {file} is damaged: its checksum is not the one that "
                f"{self.address} states.",
                code="E407",
                remedy=f"{_AGAIN} If it stays so, something on the way changes what is sent.",
            )
        partial.replace(blob)

    def _blob(self, file: HubFile, stated: Stated) -> Path:
        """Where the cache keeps the content, under its checksum."""
        name = _library().file_download.repo_folder_name(repo_id=file.repo, repo_type="model")
        return self.folder / str(name) / "blobs" / stated.checksum

    def _pointer(self, file: HubFile) -> Path | None:
        """Where the cache keeps the file, under its revision and name, if it does."""
        found = _library().try_to_load_from_cache(
            file.repo, file.path, cache_dir=self.folder, revision=file.revision
        )
        return Path(found) if isinstance(found, str) else None


def _library() -> Any:
    """The package that speaks to the hub, which takes a while to import."""
    try:
        import huggingface_hub
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise ModelError(
            "downloading models needs huggingface_hub.",
            code="E403",
            remedy='Run: pip install "textseg[hub]"',
        ) from error
    return huggingface_hub


@contextmanager
def _coded(
    file: HubFile, address: str, *, partial: Path | None = None, size: int = 0
) -> Iterator[None]:
    """Turns what goes wrong with the hub, or with the disk, into an error with a code."""
    from huggingface_hub.errors import HfHubHTTPError

    # the root of all errors of the HTTP client, which differs from one major version to the next
    network_error = cast("type[Exception]", HfHubHTTPError.__bases__[0])
    try:
        yield
    except ResourceError:
        raise
    except (OSError, network_error) as error:
        if partial is not None and isinstance(error, OSError):
            stored = storage_error(error, partial)
            if stored.code != "E500":
                remedy = "Free some space, mend the rights, or set HF_HOME to another folder."
                raise ResourceError(
                    stored.cause, code=stored.code, path=partial, remedy=remedy
                ) from error
        done = 0 if partial is None else _size(partial)
        if done and _status(error) is None:
            raise ModelError(
                f"{file} stopped at {done / 1e6:.1f} of {size / 1e6:.1f} MB ({_reason(error)}).",
                code="E407",
                # too much of it, from a server that takes no ranges, and it starts afresh
                remedy=f"{_AGAIN} It goes on from there." if done <= size else _AGAIN,
            ) from error
        raise _refusal(error, file, address) from error


def _refusal(error: Exception, file: HubFile, address: str) -> ModelError:
    """Why the hub gave nothing."""
    from huggingface_hub import errors

    page = f"{address}/{file.repo}"
    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        cause = f"{file.repo} is only for users who have accepted its terms."
        remedy = f"Accept them at {page}, then log in with `hf auth login` or set HF_TOKEN."
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause = f"there is no repository {file.repo} at {address}, or it is closed to you."
        remedy = "If it is closed, log in with `hf auth login` or set HF_TOKEN."
    elif isinstance(error, errors.RevisionNotFoundError):
        cause = f"{file.repo} has no revision {file.revision}."
        remedy = f"Its authors may have removed it; see {page}."
    elif isinstance(error, errors.EntryNotFoundError) and status is not None:
        cause = f"there is no file {file}."
        remedy = f"Its authors may have moved it; see {page}."
    elif status in (401, 403):
        cause = f"{address} refuses {file} (HTTP {status})."
        remedy = "Log in with `hf auth login`, or check HF_TOKEN."
    elif status is not None:
        cause = f"{address} answers HTTP {status} when asked for {file}."
        remedy = "Try again later."
    else:
        cause = f"{address} cannot be reached ({_reason(error)})."
        remedy = "Check the network and HTTPS_PROXY; --offline uses only files that are here."
    return ModelError(cause, code="E407", remedy=remedy)


def _wrong_content(file: HubFile, known: str, found: str) -> ModelError:
    return ModelError(
        f"{file} has the sha256 {found[:12]}..., not {known[:12]}..., which is known to be right.",
        code="E407",
        remedy="Do not use it. Check HF_ENDPOINT, and report it if that is the hub's own address.",
    )


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def _has(path: Path, checksum: str, sha256: str | None = None) -> bool:
    """Whether the content has the checksum; ``sha256`` is that of the content, where known."""
    if _SHA256.fullmatch(checksum):
        return (sha256 or file_sha256(path)) == checksum
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == checksum


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.textseg.incomplete")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
