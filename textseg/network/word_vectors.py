"""Words as fixed vectors: nothing learned, nothing downloaded, the same on every machine."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

MARKER = "\n"
"""Stands between two sentences; no word of a text."""

_NGRAMS = (3, 4)
_WORD_COUNTS = 2
_WORD = re.compile(
    r"\d+(?:[.,]\d+)*|(?<=\d)x(?=\d)|(?:left|right)(?=wards?|most|sided?)|[^\W\d_][^\W_]*"
)
_BRITISH = {"oedem": "edem", "tumour": "tumor", "haem": "hem", "grey": "gray", "centre": "center"}
_SHORT = {"lt": "left", "rt": "right"}


def words_of(sentence: str) -> list[str]:
    """The words and numbers of a sentence, in lower case and American spelling.

    >>> words_of("Left-sided tumour, 3.2x4.1 cm, T1ce-bright")
    ['left', 'sided', 'tumor', '3.2', 'x', '4.1', 'cm', 't1ce', 'bright']
    """
    folded = sentence.casefold()
    for british, american in _BRITISH.items():
        folded = folded.replace(british, american)
    return [_SHORT.get(word, word) for word in _WORD.findall(folded)]


@lru_cache(maxsize=65536)
def word_vector(word: str, features: int) -> npt.NDArray[np.float32]:
    """Unit vector of a word: the sum of the signs drawn for it and for its character n-grams.

    Words that are spelled alike lie near one another, all others nearly at right angles; "right" is
    the opposite of "left". The sums are of whole numbers, so every bit is the same everywhere.
    """
    if word == "right":
        return _frozen(-word_vector("left", features))
    marked = f"<{word}>"
    pieces = [marked[i : i + n] for n in _NGRAMS for i in range(len(marked) - n + 1)]
    total = _WORD_COUNTS * _signs(word, features) + sum(_signs(f"#{p}", features) for p in pieces)
    length = math.sqrt(int(total @ total)) or 1.0
    return _frozen((total / length).astype(np.float32))


def _signs(piece: str, features: int) -> npt.NDArray[np.int64]:
    """As many of 1 and -1 as there are features, drawn from the hash of a text."""
    drawn = hashlib.shake_256(piece.encode("utf-8", "surrogatepass")).digest(-(-features // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[:features]
    return 2 * bits.astype(np.int64) - 1


def _frozen(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    vector.setflags(write=False)
    return vector
