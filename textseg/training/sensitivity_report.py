"""What the reports do to a model's masks, as figures, as a table and as a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict

from textseg.atomic import write_atomically
from textseg.errors import ModelError
from textseg.training.aggregation import Interval

Change: TypeAlias = Literal["swapped", "dropped", "shuffled", "negated"]
Figure: TypeAlias = Literal["dice", "difference", "changed"]

CHANGES: tuple[Change, ...] = get_args(Change)
RIGHT, EVERYTHING = "right", "all"
SENSITIVITY_FILE = "sensitivity.json"
UNREAD = 0.01
"""Below this difference of Dice, and share of a mask that changes, a report makes no difference."""

TITLES: dict[Figure, str] = {
    "dice": "Mean Dice with each report",
    "difference": "Mean Dice with the right report less that with another",
    "changed": "Share of a mask that another report changes",
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CaseSensitivity(_Record):
    """One scan; what would change no word, as one sentence shuffled or none denied, is left out.

    Attributes:
        group: What the case list says of it, or empty.
        prompts: Structures that were asked for, all of which the reference holds.
        dice: Mean over them with the ``right`` report and with each change of it.
        changed: 1 less the Dice between the masks with the right report and with each change.
    """

    id: str
    dataset: str
    group: str
    prompts: int
    dice: dict[str, float]
    changed: dict[str, float]

    def difference(self, change: Change) -> float | None:
        """Dice with the right report less that with the changed one."""
        return self.dice[RIGHT] - self.dice[change] if change in self.dice else None


class Effect(_Record):
    """What a change of the report does, as means over scans.

    Attributes:
        change: How the report was changed.
        dice: With the changed report.
        difference: Dice with the right report less that with the changed one.
        changed: 1 less the Dice between both masks.
    """

    change: Change
    dice: Interval
    difference: Interval
    changed: Interval


class GroupSensitivity(_Record):
    """The effects on the scans of a group; intervals are missing where those are few.

    Attributes:
        name: What the case list calls it; of the first, which is every scan, ``all``.
        scans: How many they are.
        dice: With the right report.
        effects: One for each change, in the order of ``CHANGES``.
    """

    name: str
    scans: int
    dice: Interval
    effects: tuple[Effect, ...]

    def effect(self, change: Change) -> Effect:
        """What a change does."""
        return self.effects[CHANGES.index(change)]


class SensitivityReport(_Record):
    """What a model makes of reports.

    Attributes:
        model, version, sha256: Of the model.
        samples: Resamples behind the intervals.
        groups: All scans, and then each group if the scans have some.
        cases: The scans.
    """

    model: str
    version: str
    sha256: str
    samples: int
    groups: tuple[GroupSensitivity, ...]
    cases: tuple[CaseSensitivity, ...]

    @property
    def swapped(self) -> Effect:
        """What swapped reports do to all scans; no figures if none could be swapped."""
        return self.groups[0].effect("swapped")

    @property
    def is_ignored(self) -> bool:
        """Whether swapped reports change next to nothing."""
        figures = (self.swapped.difference.mean, self.swapped.changed.mean)
        return all(figure is not None and abs(figure) < UNREAD for figure in figures)

    @property
    def complaint(self) -> str | None:
        """What a user must know of a model that ignores reports; None if it does not."""
        difference, changed = self.swapped.difference.mean, self.swapped.changed.mean
        if not self.is_ignored or difference is None or changed is None:
            return None
        return (
            "THE REPORT IS IGNORED: with a report that says something else, the masks of "
            f"{self.model} stay the same (Dice differs by {abs(difference):.3f} and {changed:.1%} "
            f"of a mask changes, over {self.swapped.changed.count} scans). "
            "Train it on scans that only their report makes clear, or use it without reports."
        )

    def table(self, figure: Figure) -> list[tuple[str, ...]]:
        """Rows of text, the first of which is the heading: reports down, groups across."""
        heading = ["report", *(f"{group.name} ({group.scans})" for group in self.groups)]
        rows = [tuple(heading)]
        if figure == "dice":
            rows.append((RIGHT, *(_shown(group.dice) for group in self.groups)))
        for change in CHANGES:
            effects = [group.effect(change) for group in self.groups]
            rows.append((change, *(_shown(getattr(effect, figure)) for effect in effects)))
        return rows

    def write_csv(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes a line for each report of each scan; what could not be asked is left out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("case", "dataset", "group", "prompts", "report", "dice", "changed"))
        for case in self.cases:
            about = (case.id, case.dataset, case.group, case.prompts)
            for name, score in case.dice.items():
                writer.writerow((*about, name, score, case.changed.get(name, 0.0)))
        _write(path, text.getvalue(), overwrite=overwrite)

    def write(self, folder: Path) -> str:
        """SHA-256 of the file that a model's folder now keeps of it."""
        folder.mkdir(parents=True, exist_ok=True)
        text = self.model_dump_json(indent=1) + "\n"
        return _write(folder / SENSITIVITY_FILE, text, overwrite=True)


def read_sensitivity(folder: Path, *, sha256: str) -> SensitivityReport | None:
    """What a model's folder keeps of it; None if that is nothing, or is of other weights.

    Args:
        folder: Of the model.
        sha256: Of its weights.

    Raises:
        ModelError: The file is damaged.
    """
    path = folder / SENSITIVITY_FILE
    if not path.is_file():
        return None
    try:
        report = SensitivityReport.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"cannot be read ({first}).", path=path, remedy="Export the model again."
        ) from error
    return report if report.sha256 == sha256 else None


def _shown(interval: Interval) -> str:
    if interval.mean is None:
        return "-"
    if interval.low is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} in {interval.low:.3f}..{interval.high:.3f}"


def _write(path: Path, text: str, *, overwrite: bool) -> str:
    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return write_atomically(path, write, overwrite=overwrite)
