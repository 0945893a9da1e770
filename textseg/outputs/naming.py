"""File names for prompts: readable, safe on every file system, and a function of the prompt alone.

A prompt of lower-case words keeps them (``left kidney`` -> ``left_kidney``). Any other prompt, one
that is too long, or one a system reserves, keeps what can be read of it plus a hash of the whole
prompt (``Left/kidney`` -> ``left_kidney-9f3c...``). Only hashed names contain a hyphen, so the two
kinds cannot meet, and the same prompt has the same name in every run.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["MAX_SLUG_BYTES", "file_name", "file_names"]

MAX_SLUG_BYTES = 60

_PLAIN = re.compile(r"[a-z0-9]+( [a-z0-9]+)*")
_RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")


def file_names(prompts: Iterable[str]) -> dict[str, str]:
    """Name without suffix for each distinct prompt, in order; no two are equal.

    >>> file_names(["left kidney", "spleen"])
    {'left kidney': 'left_kidney', 'spleen': 'spleen'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for prompt in dict.fromkeys(prompts):
        # 32 bits of hash can meet by chance; a longer hash then tells them apart
        candidates = (file_name(prompt, hash_bytes=size) for size in (4, 8, 16, 32))
        names[prompt] = next(name for name in candidates if name not in taken)
        taken.add(names[prompt])
    return names


def file_name(prompt: str, *, hash_bytes: int = 4) -> str:
    """Name without suffix for one prompt: its words, and a hash unless they say it all.

    >>> file_name("left kidney")
    'left_kidney'
    >>> file_name("Left/kidney")
    'left_kidney-e99fc86f'
    """
    slug = _slug(prompt)
    is_plain = _PLAIN.fullmatch(prompt) is not None and len(prompt) <= MAX_SLUG_BYTES
    if is_plain and not _RESERVED.fullmatch(slug):
        return slug
    # a lone surrogate (an undecodable byte on the command line) still needs a name
    content = prompt.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(content, digest_size=hash_bytes).hexdigest()
    return f"{slug}-{digest}"


def _slug(prompt: str) -> str:
    folded = unicodedata.normalize("NFKD", prompt).casefold()
    ascii_only = folded.encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_only)
    return "_".join(words)[:MAX_SLUG_BYTES].rstrip("_") or "mask"
