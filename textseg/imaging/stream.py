"""Bytes of one file, read once from front to back: decompressed, checked, hashed and capped.

Image libraries stop reading at the last voxel, so they never reach the checksum at the end of a
gzip stream and return damaged scans as good ones. ``ByteStream.finish`` always gets there.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, BinaryIO

from textseg.errors import InputError
from textseg.files import unreadable

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

GZIP_MAGIC = b"\x1f\x8b"
MAX_DEFLATE_RATIO = 1032
"""No deflate stream expands more than this, so a small file cannot hold a large volume."""

_PIECE = 1 << 16
_SLACK = 1 << 20
_ANY_HEADER = zlib.MAX_WBITS | 32


class ByteStream:
    """Sequential reader of a plain, gzip or zlib compressed file.

    Args:
        path: The file; it must exist.
        skip: Stored bytes before the stream begins (the text header of other formats).
        compressed: None looks at the first two bytes; True accepts gzip and zlib headers.

    Attributes:
        compressed: Whether the bytes are being decompressed.
        size: Stored bytes, header included.
    """

    def __init__(self, path: Path, *, skip: int = 0, compressed: bool | None = None) -> None:
        self._path = path
        self._file = _opened(path)
        self.size = path.stat().st_size
        self._hash = hashlib.sha256()
        self._ready = bytearray()
        self._position = 0
        self._raw = b""
        while skip > 0 and (piece := self._stored(min(skip, _PIECE))):
            skip -= len(piece)
        if compressed is None:
            self._raw = self._stored(_PIECE)
            compressed = self._raw.startswith(GZIP_MAGIC)
        self.compressed = compressed
        self._inflate = zlib.decompressobj(_ANY_HEADER) if compressed else None

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes without consuming them; fewer at the end of the stream."""
        self._fill(count)
        return bytes(self._ready[:count])

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer at the end of the stream."""
        self._fill(count)
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        self._position += len(taken)
        return taken

    def skip(self, count: int) -> int:
        """Consume up to ``count`` bytes and return how many there were."""
        left = count
        while left > 0 and (piece := self.read(min(left, 1 << 22))):
            left -= len(piece)
        return count - left

    def could_hold(self, count: int) -> bool:
        """Whether a file of this size can hold so many bytes at all."""
        return count <= self.size * (MAX_DEFLATE_RATIO if self.compressed else 1) + _SLACK

    def finish(self) -> str:
        """Read to the end, so that the checksum is verified; return the stored file's sha256.

        Raises:
            InputError: E306, E307, or E312 if far more bytes follow than the header announced.
        """
        allowed = self._position + _SLACK + self._position // 8
        while self.compressed and self.skip(1 << 22):
            if self._position > allowed:
                raise InputError(
                    f"the compressed stream goes on beyond {allowed:,} bytes, "
                    "more than its header announces;",
                    code="E312",
                    path=self._path,
                    remedy="write the scan again, or do not trust this file.",
                )
        while self._stored(1 << 20):
            pass
        return self._hash.hexdigest()

    def _fill(self, count: int) -> None:
        """Have at least ``count`` bytes ready, unless the stream ends first."""
        while len(self._ready) < count:
            piece = self._next_piece()
            if not piece:
                return
            self._ready += piece

    def _next_piece(self) -> bytes:
        """The next decompressed bytes, empty at the end of the stream."""
        if self._inflate is None:
            return self._take_raw()
        while True:
            if self._inflate.eof and not self._start_next_member(self._inflate.unused_data):
                return b""
            raw = self._take_raw()
            if not raw:
                raise truncated(self._path, "the compressed stream ends before it is complete")
            try:
                piece = self._inflate.decompress(raw)
            except zlib.error as error:
                raise _corrupt(self._path, str(error)) from error
            if piece:
                return piece

    def _start_next_member(self, rest: bytes) -> bool:
        """Begin another gzip member if one follows; zero padding after the last is fine."""
        while not (rest := rest.lstrip(b"\0")):
            rest = self._stored(_PIECE)
            if not rest:
                return False
        if not rest.startswith(GZIP_MAGIC[:1]):
            raise _corrupt(self._path, "bytes follow that are not gzip")
        self._raw = rest
        self._inflate = zlib.decompressobj(_ANY_HEADER)
        return True

    def _take_raw(self) -> bytes:
        """Stored bytes set aside earlier, else the next ones from the file."""
        raw, self._raw = self._raw, b""
        return raw or self._stored(_PIECE)

    def _stored(self, count: int) -> bytes:
        """The next bytes as stored, hashed on the way."""
        try:
            raw = self._file.read(count)
        except OSError as error:
            raise unreadable(self._path, error) from error
        self._hash.update(raw)
        return raw


def truncated(path: Path | None, cause: str) -> InputError:
    """E306, with the remedy every cut-off file shares."""
    return InputError(
        f"{cause};",
        code="E306",
        path=path,
        remedy="the file is cut off or still being copied, copy it again.",
    )


def _corrupt(path: Path, detail: str) -> InputError:
    return InputError(
        f"the compressed data are damaged ({detail});",
        code="E307",
        path=path,
        remedy=f"check with `gzip -t {path.name}` and copy the file again.",
    )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise unreadable(path, error) from error
