"""The user's models folder: putting a model there as a whole, checking it, removing it.

Beside its manifest, a downloaded model keeps a record of where it comes from.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from textseg.atomic import exists_error, file_sha256, storage_error, write_json
from textseg.errors import ModelError, ResourceError
from textseg.network.weights import MANIFEST_FILE, WEIGHTS_FILE, find_model, read_model_manifest
from textseg.resources import models_folder, user_models_folder

RECORD_FILE = "download.json"

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SourceFile(BaseModel):
    """A file of the hub that a model was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    revision: str
    path: str
    sha256: str
    size_bytes: int


class Record(BaseModel):
    """Where a downloaded model comes from.

    Attributes:
        format: Version of this description.
        entry: What it was downloaded as.
        files: What it was made from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    entry: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Verification:
    """Which files of a model are as they were when it was made.

    Attributes:
        folder: The model.
        files: ``ok``, ``damaged`` or ``missing`` by the name of the file.
    """

    folder: Path
    files: dict[str, Literal["ok", "damaged", "missing"]]

    @property
    def is_sound(self) -> bool:
        """Whether all are."""
        return set(self.files.values()) <= {"ok"}


def user_model_path(name: str) -> Path:
    """Where a model of the user goes by this name.

    Raises:
        ModelError: E400, it is no name, or that of a model that comes with textseg.
    """
    if not _NAME.fullmatch(name):
        remedy = "Use letters, digits, '-', '_' and '.'; it begins with a letter or a digit."
        raise ModelError(f"{name!r} is no name for a model.", code="E400", remedy=remedy)
    if is_embedded(name):
        cause = f"{name} is the name of a model that comes with textseg."
        raise ModelError(cause, code="E400", remedy="Choose another name.")
    return user_models_folder() / name


def is_embedded(name: str) -> bool:
    """Whether a model of this name comes with textseg."""
    return (models_folder() / name / MANIFEST_FILE).is_file()


def read_record(folder: Path) -> Record | None:
    """Where the model in the folder comes from; None unless it was downloaded.

    Raises:
        ModelError: E400, the record is malformed.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the record of the download cannot be read: {error}",
            path=path,
            remedy="Download the model again with --overwrite.",
        ) from error


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """The place of a user's model, which no other process installs or removes meanwhile.

    Raises:
        ModelError: E400, as for ``user_model_path``.
        ResourceError: The folder of models cannot be written (E503).
    """
    place = user_model_path(name)
    with _storing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_name(f".{name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.info("Another process is at work on %s; waiting for it.", name)
            lock.acquire()
    try:
        with _storing(place):
            _tidy(place)
        yield place
    finally:
        lock.release()


def install(place: Path, make: Callable[[Path], object], record: Record) -> None:
    """Puts a model in its place, which holds the old model, or none, until it is complete.

    The caller holds the lock of that place.

    Args:
        place: From ``locked``.
        make: Writes the model into the folder it is given, which does not exist.
        record: Where it comes from.
    """
    fresh, old = _beside(place, "new") / "model", _beside(place, "old")
    with _storing(place):
        try:
            fresh.parent.mkdir()
            make(fresh)
            write_json(fresh / RECORD_FILE, record.model_dump(mode="json"))
            if _is_taken(place):
                place.replace(old)
            fresh.replace(place)
        finally:
            _tidy(place)


def refuse_other_model(place: Path, entry: str) -> None:
    """Stops unless the place is free, or holds a download of the same entry.

    Raises:
        ResourceError: E504, something else has this name.
    """
    if not _is_taken(place):
        return
    record = read_record(place)
    if record is None or record.entry != entry:
        raise exists_error(place)


def verify_model(name_or_path: str | Path) -> Verification:
    """Compares the files of a model with the checksums that were taken when it was made.

    Raises:
        ModelError: There is no such model (E401), or its manifest cannot be read (E400).
    """
    folder = find_model(name_or_path)
    manifest = read_model_manifest(folder)
    expected = manifest.files | {WEIGHTS_FILE: manifest.sha256}
    return Verification(folder, {name: _state(folder / name, expected[name]) for name in expected})


def remove_model(name: str) -> Path:
    """Removes a model from the user's models folder; returns the folder that it was.

    Raises:
        ModelError: There is no such model in that folder (E401), or it comes with textseg (E400).
        ResourceError: It cannot be removed (E503).
    """
    if is_embedded(name):
        cause = f"{name} comes with textseg, and stays."
        raise ModelError(cause, code="E400", remedy="Only models of your own can be removed.")
    with locked(name) as place:
        if not (place / MANIFEST_FILE).is_file():
            raise ModelError(
                f"no model {name!r} is installed.",
                code="E401",
                path=place.parent,
                remedy="List the models with `textseg models list`.",
            )
        with _storing(place):
            # at once, so that half a model is never found
            place.replace(_beside(place, "gone"))
            _tidy(place)
    return place


def _state(path: Path, sha256: str) -> Literal["ok", "damaged", "missing"]:
    if not path.is_file():
        return "missing"
    return "ok" if file_sha256(path) == sha256 else "damaged"


def _is_taken(place: Path) -> bool:
    return place.is_symlink() or place.exists()


def _beside(place: Path, kind: Literal["new", "old", "gone"]) -> Path:
    return place.with_name(f".{place.name}.{kind}")


def _tidy(place: Path) -> None:
    """Ends what was begun here, perhaps by a process that was killed."""
    old = _beside(place, "old")
    if _is_taken(old) and not _is_taken(place):
        old.replace(place)
    for left_over in (old, _beside(place, "new"), _beside(place, "gone")):
        if left_over.is_symlink():
            left_over.unlink()
        elif left_over.exists():
            shutil.rmtree(left_over)


@contextmanager
def _storing(place: Path) -> Iterator[None]:
    """Turns a failure of the disk into an error with a code."""
    try:
        yield
    except ResourceError:
        raise
    except OSError as error:
        found = storage_error(error, place)
        remedy = "Free some space, mend the rights, or set TEXTSEG_HOME to another folder."
        raise ResourceError(found.cause, code=found.code, path=place, remedy=remedy) from error
