"""Installs a published model: its files from the hub, checked, made into a model folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from textseg.errors import ModelError, ResourceError
from textseg.network.weights import ModelManifest, read_model_manifest
from textseg.zoo.entries import Entry, HubFile
from textseg.zoo.hub import Hub, LocalFile, Stated
from textseg.zoo.installed import (
    Record,
    SourceFile,
    install,
    locked,
    read_record,
    refuse_other_model,
)

_log = logging.getLogger(__name__)


class Importer(Protocol):
    """Makes a model folder of the files of a published model."""

    def __call__(
        self,
        checkpoint: Path,
        text_encoder: Path,
        vocabulary: Path,
        folder: Path,
        *,
        name: str,
        version: str,
        licence: str,
        source: Mapping[str, str],
    ) -> ModelManifest:
        """Writes the folder; ``source`` gives the sha256 of each file it is made from, by name."""


@dataclass(frozen=True)
class Download:
    """An installed model.

    Attributes:
        folder: Where it is.
        manifest: What it holds.
        record: What it was made from.
        was_there: Whether it was installed before, so that nothing had to be done.
    """

    folder: Path
    manifest: ModelManifest
    record: Record
    was_there: bool


def download_model(
    entry: Entry,
    *,
    hub: Hub | None = None,
    licences: Iterable[str] | None = None,
    overwrite: bool = False,
    importer: Importer | None = None,
    free_bytes: Callable[[Path], int] | None = None,
) -> Download:
    """The model, installed in the user's models folder; one that is there already stays.

    What was sent stays in the cache of the hub, so that nothing is sent twice.

    Args:
        entry: Which model.
        hub: Where from; None for the hub as the environment describes it.
        licences: Identifiers of the licences that are acceptable, in any case; None for all.
        overwrite: Install it anew, in place of whatever has its name.
        importer: Makes the model folder; by default that of the entry's kind.
        free_bytes: Says how much room there is at a path; by default the system does.

    Raises:
        ModelError: A licence is not acceptable (E408), a file cannot be had (E407), or a package is
            missing (E403).
        ResourceError: Not enough room (E502), a folder cannot be written (E503), or something else
            has the model's name (E504).
    """
    hub = hub or Hub()
    _require(entry, licences)
    with locked(entry.name) as place:
        if not overwrite:
            refuse_other_model(place, entry.name)
            if (record := read_record(place)) is not None:
                return Download(place, read_model_manifest(place), record, was_there=True)
        files = _gathered(entry, hub, place, free_bytes or _free_bytes)
        record = Record(entry=entry.name, files=tuple(map(_source, files)))
        make = importer or _importer(entry)
        paths = {found.file.role: found.path for found in files}
        _log.info("Making a model of %s.", ", ".join(found.file.path for found in files))
        install(
            place,
            lambda folder: make(
                checkpoint=paths["checkpoint"],
                text_encoder=paths["text_encoder"],
                vocabulary=paths["vocabulary"],
                folder=folder,
                name=entry.name,
                version=entry.version,
                licence=entry.licence,
                source={found.path.name: found.sha256 for found in files},
            ),
            record,
        )
        return Download(place, read_model_manifest(place), record, was_there=False)


def _require(entry: Entry, licences: Iterable[str] | None) -> None:
    """Stops unless every licence of the model is acceptable."""
    if licences is None:
        return
    accepted = {licence.strip().casefold() for licence in licences}
    refused = [one for one in entry.licences if one.id.casefold() not in accepted]
    if refused:
        terms = "; ".join(f"{one.covers}: {one.id}" for one in refused)
        raise ModelError(
            f"{entry.name} has other licences than those required ({terms}).",
            code="E408",
            remedy=f"See: textseg models show {entry.name}",
        )


def _gathered(
    entry: Entry, hub: Hub, place: Path, free_bytes: Callable[[Path], int]
) -> list[LocalFile]:
    """The files of a model, fetched unless they are in the cache."""
    found = {file: hub.cached(file) for file in entry.files}
    wanted = [file for file, here in found.items() if here is None]
    if wanted and hub.is_offline:
        names = "; ".join(map(str, wanted))
        raise ModelError(
            f"offline, and not in the cache: {names}.",
            code="E407",
            path=hub.folder,
            remedy="Download them on a machine with a network, and copy that folder.",
        )
    stated = {file: hub.stated(file) for file in wanted}
    _check_room(entry, hub, place, stated, free_bytes)
    for file in wanted:
        _log.info("Fetching %s (%s bytes).", file, f"{stated[file].size_bytes:,}")
        found[file] = hub.fetch(file, stated[file])
    return [here for here in found.values() if here is not None]


def _check_room(
    entry: Entry,
    hub: Hub,
    place: Path,
    stated: Mapping[HubFile, Stated],
    free_bytes: Callable[[Path], int],
) -> None:
    """Stops before anything is sent if it would not fit."""
    to_fetch = sum(hub.bytes_to_fetch(file, about) for file, about in stated.items())
    cache, models = _existing(hub.folder), _existing(place)
    needs = {cache: to_fetch}
    if cache.stat().st_dev == models.stat().st_dev:
        needs[cache] += entry.installed_bytes
    else:
        needs[models] = entry.installed_bytes
    for folder, needed in needs.items():
        free = free_bytes(folder)
        if needed > free:
            raise ResourceError(
                f"{entry.name} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
                code="E502",
                path=folder,
                remedy="Free some space, or set HF_HOME or TEXTSEG_HOME to another disk.",
            )


def _source(found: LocalFile) -> SourceFile:
    return SourceFile(
        repo=found.file.repo,
        revision=found.revision,
        path=found.file.path,
        sha256=found.sha256,
        size_bytes=found.path.stat().st_size,
    )


def _importer(entry: Entry) -> Importer:
    """What makes a model folder of this kind of model; it needs torch."""
    from textseg.zoo.sat import import_sat

    # which files belong together is what the entry says
    importers: dict[str, Importer] = {"sat": partial(import_sat, unpaired=True)}
    return importers[entry.kind]


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _existing(path: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
