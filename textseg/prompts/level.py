"""A part or finding at a vertebral level, as in "L3 pedicle" or "disc herniation L5/S1"."""

from __future__ import annotations

import re

from textseg.prompts.lesion import mentions_lesion
from textseg.prompts.prompt import Reading, Scope, refuse
from textseg.prompts.support import settle

_ONE = r"[ctls]\d{1,2}"
_LEVELS = re.compile(rf"\b{_ONE}(?: ?(?:to|and|,|/) ?[ctls]?\d{{1,2}})?\b")
_JOINTS = re.compile(r"^(?:(?:of|at|in|the)\b|\s)+|(?:\s+(?:of|at|in|on|the|level))+$")


def read(text: str, scope: Scope) -> Reading | None:
    """Refuses what is real but not told apart by level; anything else is read elsewhere."""
    level = _LEVELS.search(text)
    if level is None:
        return None
    rest = _JOINTS.sub("", f"{text[: level.start()]} {text[level.end() :]}".strip())
    if not rest or _LEVELS.search(rest):
        return None
    reading = scope.read(rest)
    finding = reading.status != "ok" and mentions_lesion(rest)
    if scope.supported is not None:
        reading = settle(reading, scope)
        if reading.status != "unsupported" and not finding:
            return None
    elif reading.status not in ("ok", "unsupported") or not mentions_lesion(rest):
        return None
    why = f"'{text}' is not told apart by level."
    instead = (*reading.suggestions, f"vertebra {level[0].split()[0]}")
    return refuse("unsupported", why, method="level", suggestions=instead)
