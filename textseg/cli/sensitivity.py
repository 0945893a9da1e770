"""``textseg evaluate --sensitivity``: how much a model's masks depend on the report of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textseg.cli.terminal import (
    UsageError,
    cells,
    make_table,
    print_json,
    print_rich,
    progress_bar,
    warn,
)

if TYPE_CHECKING:
    from textseg.training.sensitivity_report import SensitivityReport


@dataclass(frozen=True)
class Asked:
    """A model, and the cases it is asked about.

    Attributes:
        model: Its name or folder.
        cases: Their list.
        split: Which of them.
        limit: How many of these at most; None for all.
    """

    model: str
    cases: Path
    split: str
    limit: int | None

    @classmethod
    def of(
        cls,
        model: str | None,
        cases: Path | None,
        *,
        split: str | None,
        limit: int | None,
        misplaced: Mapping[str, object],
    ) -> Asked:
        """What the options of a command line say; those that are misplaced must be None.

        Raises:
            UsageError: One is missing, or misplaced.
        """
        refuse("with --sensitivity", misplaced)
        if model is None or cases is None:
            raise UsageError("--sensitivity needs --model and --cases.")
        return cls(model, cases, split or "val", limit)

    def measure(self, *, samples: int, seed: int, quiet: bool) -> SensitivityReport:
        """What the model makes of the reports of these cases.

        Raises:
            ModelError: The model reads no reports, or there is no case to ask about.
        """
        import numpy as np

        from textseg.datasets import load_cases
        from textseg.segmenter import Segmenter
        from textseg.training.sensitivity import text_sensitivity

        listed = [case for case in load_cases(self.cases) if case.split == self.split]
        segmenter = Segmenter.from_pretrained(self.model)
        with progress_bar(segmenter.manifest.name, unit="cases", shown=not quiet) as move:
            return text_sensitivity(
                segmenter,
                listed,
                limit=self.limit,
                generator=np.random.default_rng(seed),
                samples=samples,
                progress=move,
            )


def refuse(where: str, options: Mapping[str, object]) -> None:
    """Refuses options that mean nothing there.

    Raises:
        UsageError: One of them is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{' and '.join(given)} cannot be used {where}.")


def drawn_how(samples: int, *, seed: int) -> str:
    """The end of a title, where a table has intervals."""
    return f", 95 % intervals of {samples} resamples, seed {seed}" if samples else ""


def show_sensitivity(report: SensitivityReport, *, seed: int, as_json: bool, quiet: bool) -> None:
    """The figures as JSON or as tables, with a warning where the report makes no difference."""
    from textseg.training.sensitivity_report import TITLES

    if report.complaint is not None:
        warn(report.complaint, kind="report-ignored")
    if as_json:
        print_json({"seed": seed, **report.model_dump(mode="json")}, indent=2)
        return
    if quiet:
        return
    how = drawn_how(report.samples, seed=seed)
    for figure, title in TITLES.items():
        heading, *rows = report.table(figure)
        table = make_table(*heading, numbers=heading[1:])
        for column in table.columns:
            # numbers break before their intervals on a narrow terminal
            column.no_wrap, column.overflow = False, "fold"
        for row in rows:
            table.add_row(*cells(*row))
        print_rich(table, title=f"{title}{how}")
        how = ""
