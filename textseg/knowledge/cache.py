"""Keeps the tree, and what is computed of it, in files that read ten times faster.

A file is worth no more than the time it saves: one that is missing, torn, stale or cannot be
written only means that its content is computed again.
"""

from __future__ import annotations

import hashlib
import logging
import marshal
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from textseg.knowledge.concept import Concept
from textseg.knowledge.loading import TreeError
from textseg.resources import home

_LOG = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_LEAST_BYTES = 256 * 1024
_FIELDS = tuple(field.name for field in fields(Concept))

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class CacheFile:
    """A file and what its content must have been made of for it to count.

    Attributes:
        path: The file.
        sources: Digest of the tree files, the code, and whatever else the content depends on.
    """

    path: Path
    sources: bytes

    def beside(self, name: str, sources: Iterable[Path]) -> CacheFile:
        """The file for what is made of the content of this one and of further files.

        Raises:
            TreeError: A file cannot be read.
        """
        digest = hashlib.blake2b(self.sources, digest_size=_DIGEST_BYTES)
        for path in sorted(sources):
            digest.update(_described(path))
        return CacheFile(self.path.with_stem(f"{self.path.stem}-{name}"), digest.digest())

    def read(self) -> Any:
        """The content; None if there is none that can serve."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        head, payload = data[: 2 * _DIGEST_BYTES], data[2 * _DIGEST_BYTES :]
        return marshal.loads(payload) if head == self.sources + _digest(payload) else None

    def write(self, content: Any) -> None:
        """Stores a content; a folder that cannot be written is left alone."""
        payload = marshal.dumps(content)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as file:
                file.write(self.sources + _digest(payload) + payload)
        except OSError as error:
            _LOG.debug("nothing is kept in %s: %s", self.path, error)


def find_cache(files: Iterable[Path]) -> CacheFile | None:
    """The cache for a tree made of these files; None for one so small that it would not pay.

    Raises:
        TreeError: A file cannot be read.
    """
    place, content = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=_DIGEST_BYTES)
    content.update(f"{sys.implementation.cache_tag} {_FIELDS}".encode())
    size = 0
    for path in files:
        text = _described(path)
        size += len(text)
        place.update(os.fsencode(path.resolve()))
        content.update(text)
    if size < _LEAST_BYTES:
        return None
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content.update(source.read_bytes())
    return CacheFile(home() / "cache" / f"tree-{place.hexdigest()}.bin", content.digest())


def keep(file: CacheFile | None, make: Callable[[], Content]) -> Content:
    """What the file holds, else what ``make`` gives, which the file then holds.

    Args:
        file: None keeps nothing.
        make: Its result consists of types that ``marshal`` writes, and is never None.
    """
    kept: Content | None = file.read() if file else None
    if kept is not None:
        return kept
    made = make()
    if file:
        file.write(made)
    return made


def pack(concepts: Iterable[Concept]) -> dict[str, bytes]:
    """The concepts as ``Unpacked`` takes them."""
    values = attrgetter(*_FIELDS)
    return {concept.id: marshal.dumps(values(concept)) for concept in concepts}


class Unpacked(Mapping[str, Concept]):
    """Concepts by id, each unpacked when it is first asked for: few commands need them all."""

    def __init__(self, packed: Mapping[str, bytes]) -> None:
        self._packed = packed
        self._concepts: dict[str, Concept] = {}

    def __getitem__(self, concept_id: str) -> Concept:
        concept = self._concepts.get(concept_id)
        if concept is None:
            concept = Concept(*marshal.loads(self._packed[concept_id]))
            self._concepts[concept_id] = concept
        return concept

    def __contains__(self, concept_id: object) -> bool:
        return concept_id in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` at once when it is complete, and never else."""
    partial = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()


def _described(path: Path) -> bytes:
    """Name, size and text of a file, so that no two lists of files look the same."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise TreeError(f"cannot be read ({error.strerror}).", path=path) from error
    return f"{path.name} {len(text)}\n".encode() + text
