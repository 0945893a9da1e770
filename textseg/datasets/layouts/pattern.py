"""Finds files by patterns with named fields, such as ``{case}/{case}_{frame}_gt.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

_TOKEN = re.compile(r"\{(?P<field>\w+)(?::(?P<glob>[^{}/]+))?\}|(?P<folders>\*\*/)|\*")
_IN_GLOB = re.compile(r"\*|\[[^\]]+\]")


class Match(NamedTuple):
    """A path that fits a pattern, and what its fields are there."""

    path: Path
    fields: Mapping[str, str]


class Pattern:
    """A relative path with fields in braces.

    A field stands for one or more characters within a folder or file name, and for the same
    characters wherever it is repeated; ``{case:0[1-3]*}`` only for what fits that glob. ``*``
    stands for any characters within a name, ``**/`` for any number of folders. Upper and lower
    case differ.

    >>> pattern = Pattern("{case}/{case}_{frame}_gt.nii.gz")
    >>> pattern.fields, pattern.match("p1/p1_01_gt.nii.gz")
    (('case', 'frame'), {'case': 'p1', 'frame': '01'})
    >>> pattern.match("p1/p2_01_gt.nii.gz") is None
    True
    >>> [Pattern("{case:0[1-3]*}.nii").match(name) for name in ("027.nii", "047.nii")]
    [{'case': '027'}, None]
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in the order of their first appearance."""
        named = (token["field"] for token in _TOKEN.finditer(self.text))
        return tuple(dict.fromkeys(name for name in named if name))

    def match(self, path: str) -> dict[str, str] | None:
        """The fields of a relative path with forward slashes, None if it does not fit."""
        found = self._regex.fullmatch(path)
        return None if found is None else found.groupdict()

    def find(self, root: Path) -> list[Match]:
        """Every file or folder below ``root`` that fits, in the order of their names."""
        # pathlib ignores case in globs on some systems; the expression then has the last word
        candidates = sorted(root.glob(_TOKEN.sub(_as_glob, self.text)))
        matches = ((path, self.match(path.relative_to(root).as_posix())) for path in candidates)
        return [Match(path, fields) for path, fields in matches if fields is not None]

    def fill(self, fields: Mapping[str, str]) -> str:
        """A path that fits, made of the given fields and of ``x`` for anything else."""

        def text(token: re.Match[str]) -> str:
            if token["field"]:
                return fields[token["field"]]
            return "x/" if token["folders"] else "x"

        return _TOKEN.sub(text, self.text)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        parts, end, seen = [], 0, set[str]()
        for token in _TOKEN.finditer(self.text):
            parts.append(re.escape(self.text[end : token.start()]))
            name, end = token["field"], token.end()
            if name is None:
                parts.append("(?:[^/]+/)*" if token["folders"] else "[^/]*")
            elif name in seen:
                parts.append(f"(?P={name})")
            else:
                seen.add(name)
                parts.append(f"(?P<{name}>{_expression(token['glob'])})")
        return re.compile("".join(parts) + re.escape(self.text[end:]))


def _as_glob(token: re.Match[str]) -> str:
    return (token["glob"] or "*") if token["field"] else token.group()


def _expression(glob: str | None) -> str:
    """A regular expression for what a field may be."""
    if glob is None:
        return "[^/]+?"
    wild = _IN_GLOB.findall(glob)
    literal = [re.escape(part) for part in _IN_GLOB.split(glob)]
    between = [w if w != "*" else "[^/]*?" for w in wild]
    return "".join(a + b for a, b in zip(literal, [*between, ""], strict=True))
