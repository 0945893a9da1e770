"""What a model is given of a patient: the channels that it takes, and perhaps a report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from os import PathLike
from typing import Any

from textseg.imaging import Volume, arranged, as_volume
from textseg.reports.given import GivenReport


@dataclass(frozen=True, eq=False)
class Given:
    """A scan and a report, as read.

    Attributes:
        volume: The scan as it is.
        seen: The scan with the channels of the model, in its order.
        missing: Channels of the model that the scan lacks.
        report: None if there is none.
        read_s: How long reading took.
    """

    volume: Volume
    seen: Volume
    missing: tuple[str, ...]
    report: GivenReport | None
    read_s: float

    @classmethod
    def read(
        cls,
        scan: Any,
        report: str | PathLike[str] | None,
        *,
        channels: tuple[str, ...],
        **options: Any,
    ) -> Given:
        """What ``as_volume`` takes with such options, for a model with such channels.

        Raises:
            InputError: The scan cannot be used, its channels are not those of the model, or the
                report cannot be read.
        """
        started = time.perf_counter()
        told = None if report is None else GivenReport.of(report)
        volume = as_volume(scan, **options)
        seen, missing = arranged(volume, channels)
        return cls(volume, seen, missing, told, time.perf_counter() - started)

    def caveats(self, model: str, *, is_used: bool) -> tuple[str, ...]:
        """What the model of that name had to do without, and that a report was of no use if so."""
        notes = []
        if self.missing:
            *others, last = self.missing
            names = f"{', '.join(others)} and {last}" if others else last
            took = "stand-ins took their places" if others else "stand-in took its place"
            notes.append(f"answered without {names}; the model's {took}")
        if self.report is not None and not is_used:
            notes.append(
                f"the model {model} does not read reports; the prompts were answered without it"
            )
        return tuple(notes)
