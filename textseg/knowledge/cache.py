"""Keeps a tree that was read once in a file that reads ten times faster.

The file is worth no more than the time it saves: one that is missing, torn, stale or cannot be
written only means that the tree files are read again.
"""

from __future__ import annotations

import hashlib
import logging
import marshal
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from textseg.knowledge.concept import Concept
from textseg.resources import home

_LOG = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_LEAST_BYTES = 256 * 1024
_FIELDS = tuple(field.name for field in fields(Concept))

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class TreeCache:
    """The place of one tree's cache and what the tree must contain for it to count.

    Attributes:
        path: The cache file.
        content: Digest of the tree files and of the code that reads them.
    """

    path: Path
    content: bytes

    def read(self) -> tuple[dict[str, Concept], bytes] | None:
        """The concepts by id and the packed names for ``unpack_names``; None if it cannot serve."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        head, payload = data[: 2 * _DIGEST_BYTES], data[2 * _DIGEST_BYTES :]
        if head != self.content + _digest(payload):
            return None
        rows, names = marshal.loads(payload)
        return {row[0]: Concept(*row) for row in rows}, names

    def write(self, concepts: Iterable[Concept], names: Callable[[], Names]) -> None:
        """Stores a tree; a folder that cannot be written is left alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(self.path) as file:
                payload = _pack(concepts, names())
                file.write(self.content + _digest(payload) + payload)
        except OSError as error:
            _LOG.debug("the tree is not kept in %s: %s", self.path, error)


def _pack(concepts: Iterable[Concept], names: Names) -> bytes:
    values = attrgetter(*_FIELDS)
    packed = marshal.dumps(tuple((name, *ids) for name, ids in names.items()))
    return marshal.dumps(([values(concept) for concept in concepts], packed))


def unpack_names(packed: bytes) -> Names:
    """The concept ids that answer to each name, from what a cache holds."""
    return {name: tuple(ids) for name, *ids in marshal.loads(packed)}


def find_cache(files: Iterable[Path]) -> TreeCache | None:
    """The cache for a tree made of these files; None for one so small that it would not pay.

    Raises:
        OSError: A file cannot be read.
    """
    place, content = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=_DIGEST_BYTES)
    content.update(f"{sys.implementation.cache_tag} {_FIELDS}".encode())
    size = 0
    for path in files:
        text = path.read_bytes()
        size += len(text)
        place.update(os.fsencode(path.resolve()))
        content.update(f"{path.name} {len(text)}\n".encode() + text)
    if size < _LEAST_BYTES:
        return None
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content.update(source.read_bytes())
    return TreeCache(home() / "cache" / f"tree-{place.hexdigest()}.bin", content.digest())


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` at once when it is complete, and never else."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
