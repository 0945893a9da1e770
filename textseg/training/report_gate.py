"""The gate before the export of a model that reads reports: does it matter what they say?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from textseg.datasets import Case
from textseg.errors import ModelError
from textseg.network.weights import ModelManifest
from textseg.training.sensitivity import ReportedSegmenter, text_sensitivity
from textseg.training.sensitivity_report import SensitivityReport

__all__ = ["ReportGate"]

_NOT_MEASURED = "what the report does to the masks of this model was not measured"


@dataclass(frozen=True)
class ReportGate:
    """What a model is asked before it is written.

    Attributes:
        load: Loads the model in a folder.
        warn: Called with a sentence, and with what it is about.
        limit: How many cases the model is asked about at most; 0 for none, whatever else is set.
        is_strict: Whether what is otherwise warned of keeps the model from being written.
        progress: Called with cases done and cases to do.
    """

    load: Callable[[Path], ReportedSegmenter]
    warn: Callable[[str, str], None]
    limit: int = 12
    is_strict: bool = False
    progress: Callable[[int, int], None] | None = None

    def measure(
        self, write: Callable[[Path], ModelManifest], cases: Sequence[Case], *, name: str
    ) -> SensitivityReport | None:
        """What the model makes of reports; None, after a warning, if that cannot be told.

        Args:
            write: Writes the model into a folder.
            cases: Cases that it was not trained on.
            name: Of the model.

        Raises:
            ModelError: The gate is strict, and reports make no difference or it cannot be told.
        """
        if self.limit == 0:
            self.warn(f"{_NOT_MEASURED}, as asked.", "report-not-measured")
            return None
        with TemporaryDirectory(prefix="textseg-") as folder:
            write(Path(folder) / name)
            segmenter = self.load(Path(folder) / name)
            try:
                found = text_sensitivity(
                    segmenter,
                    cases,
                    limit=self.limit,
                    generator=np.random.default_rng(0),
                    progress=self.progress,
                )
            except ModelError as error:
                if error.code != "E404":
                    raise
                self._object(f"{_NOT_MEASURED}: {error.cause}", "report-not-measured")
                return None
        self._judge(found)
        return found

    def _judge(self, found: SensitivityReport) -> None:
        if found.swapped.changed.mean is None:
            cause = f"{_NOT_MEASURED}: no validation case has another report to swap its own with."
            self._object(cause, "report-not-measured")
        elif (complaint := found.complaint) is not None:
            self._object(complaint, "report-ignored")

    def _object(self, cause: str, kind: str) -> None:
        if self.is_strict:
            raise ModelError(cause, remedy="Nothing was written; it would be without --strict.")
        self.warn(cause, kind)
