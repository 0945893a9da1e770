"""A model folder that is either absent, old or complete, whenever the program is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from textseg.atomic import exists_error, make_folder, storage_error
from textseg.errors import ResourceError
from textseg.network.weights import MANIFEST_FILE, PIECES_FILE, WEIGHTS_FILE
from textseg.zoo.installed import RECORD_FILE

_OURS = frozenset({MANIFEST_FILE, WEIGHTS_FILE, PIECES_FILE, RECORD_FILE, "CARD.md", "scores.json"})


@contextmanager
def new_model_folder(
    folder: Path, *, overwrite: bool = False, num_bytes: int = 0
) -> Iterator[Path]:
    """A folder to build a model in, which gets its name when the block ends without an error.

    It lies beside its final place. What a killed run left of it is swept away by the next one.

    Args:
        folder: The model folder.
        overwrite: Replace the model that is there.
        num_bytes: What is going to be written, so that a full disk shows beforehand.

    Raises:
        ResourceError: There is something already (E504), another process is writing it (E503), or
            the disk is too small (E502) or refuses (E503).
    """
    check_free(folder, overwrite=overwrite)
    make_folder(folder.parent)
    partial = folder.with_name(f".{folder.name}.partial")
    built = partial / "model"
    try:
        with _alone(folder, partial):
            shutil.rmtree(built, ignore_errors=True)
            _check_space(folder, num_bytes)
            built.mkdir()
            yield built
            check_free(folder, overwrite=overwrite)
            _put(built, folder, aside=partial / "replaced")
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        raise storage_error(error, folder) from error


def check_free(folder: Path, *, overwrite: bool = False) -> None:
    """Refuses a place that is taken, or with ``overwrite`` one that holds more than a model.

    Raises:
        ResourceError: E504.
    """
    if not (folder.exists() or folder.is_symlink()):
        return
    entries = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if not entries and not folder.is_symlink():
        return
    if not overwrite:
        raise exists_error(folder)
    foreign = sorted(entries - _OURS)
    if foreign or MANIFEST_FILE not in entries or folder.is_symlink():
        what = f"it holds {foreign[0]}" if foreign else "it is no model folder"
        raise ResourceError(
            f"is not replaced: {what}.", code="E504", path=folder, remedy="Choose another -o."
        )


@contextmanager
def _alone(folder: Path, partial: Path) -> Iterator[None]:
    """Keeps other processes out of the partial folder, which goes in the end."""
    partial.mkdir(exist_ok=True)
    lock = partial / "lock"
    try:
        with FileLock(lock, timeout=0):
            if not lock.exists():  # another process has just finished and taken it away
                raise Timeout(str(lock))
            try:
                yield
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except Timeout as error:
        raise ResourceError(
            "is being written by another process.", code="E503", path=folder, remedy="Wait for it."
        ) from error


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < num_bytes:
        raise ResourceError(
            f"needs {num_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
            code="E502",
            path=folder,
            remedy="Free some space or choose another -o.",
        )


def _put(built: Path, folder: Path, *, aside: Path) -> None:
    """Gives the folder its name; the one that had it comes back if that fails."""
    replaced = folder.exists()
    if replaced:
        folder.rename(aside)
    try:
        built.rename(folder)
    except OSError:
        if replaced:
            with suppress(OSError):
                aside.rename(folder)
        raise
