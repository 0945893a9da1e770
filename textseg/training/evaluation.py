"""Predicted masks against reference masks, one row of figures for each structure and scan.

Either side may be a mask file, a label map, a folder of masks, or a result folder; ``evaluate``
finds out which, pairs what belongs together, and says what it could not pair.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from textseg.errors import InputError
from textseg.imaging.volume import Geometry
from textseg.outputs.atomic import write_atomically, write_json
from textseg.training.metrics import agreement
from textseg.training.structures import (
    LabelNames,
    Part,
    find_cases,
    pair_parts,
    read_label_names,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["EvaluationRow", "EvaluationTable", "LabelNames", "evaluate", "read_label_names"]

Metric: TypeAlias = Literal["dice", "nsd", "hd95_mm"]


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One structure of one scan.

    ``status`` is the prediction's own word (``not_found`` counts as an empty mask); ``hd95_mm`` is
    infinite when exactly one of the masks is empty.
    """

    case: str
    structure: str
    status: str
    dice: float
    nsd: float
    hd95_mm: float
    volume_pred_ml: float
    volume_ref_ml: float


@dataclass(frozen=True)
class EvaluationTable:
    """All rows, in the order of cases and then of structures.

    Attributes:
        rows: One for each structure that both sides speak of.
        unmatched: Sentences on what only one side has, and so was not scored.
        tolerance_mm: Of NSD.
    """

    rows: tuple[EvaluationRow, ...]
    unmatched: tuple[str, ...]
    tolerance_mm: float

    def mean(self, metric: Metric) -> float:
        """Mean over the structures that the reference holds; NaN if there is none.

        Absent structures would count as perfect for every model that finds nothing. Infinite
        distances (structures missed altogether) stay out of the mean of ``hd95_mm``.
        """
        values = [getattr(row, metric) for row in self.rows if row.volume_ref_ml > 0]
        finite = [value for value in values if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else math.nan

    def summary(self) -> dict[str, float | int | None]:
        """Means and counts; None where there is nothing to average."""
        present = [row for row in self.rows if row.volume_ref_ml > 0]
        absent = [row for row in self.rows if not row.volume_ref_ml]
        return {
            "structures": len(present),
            "dice": _finite(self.mean("dice")),
            "nsd": _finite(self.mean("nsd")),
            "hd95_mm": _finite(self.mean("hd95_mm")),
            "missed": sum(not row.volume_pred_ml for row in present),
            "absent": len(absent),
            "absent_but_predicted": sum(row.volume_pred_ml > 0 for row in absent),
        }

    def write_csv(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes one line per row; infinite distances read ``inf``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(EvaluationRow))
        writer.writerows(asdict(row).values() for row in self.rows)

        def write(temporary: Path) -> None:
            temporary.write_text(text.getvalue(), encoding="utf-8")

        write_atomically(path, write, overwrite=overwrite)

    def write_json(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes rows and summary; infinite distances are null."""
        write_json(path, self.as_dict(), overwrite=overwrite)

    def as_dict(self) -> dict[str, Any]:
        """Everything in JSON's own types."""
        rows = [{**asdict(row), "hd95_mm": _finite(row.hd95_mm)} for row in self.rows]
        return {
            "nsd_tolerance_mm": self.tolerance_mm,
            "summary": self.summary(),
            "rows": rows,
            "unmatched": list(self.unmatched),
        }

    def to_rich(self) -> Table:
        """The rows and their means as a table for a terminal."""
        from rich.table import Table

        cases = {row.case for row in self.rows}
        # one case needs no column of its own
        shown = ["structure", "status"] if len(cases) == 1 else ["case", "structure", "status"]
        title = f"{next(iter(cases))}, " if len(cases) == 1 else ""
        table = Table(title=f"{title}NSD at {self.tolerance_mm:g} mm", title_justify="left")
        for name in shown:
            table.add_column(name, overflow="fold")
        for name in ("Dice", "NSD", "HD95 mm", "ml", "ref ml"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            words = [str(getattr(row, name)) for name in shown]
            numbers = [_shown(row.dice, 3), _shown(row.nsd, 3), _shown(row.hd95_mm, 1)]
            volumes = [_shown(row.volume_pred_ml, 2), _shown(row.volume_ref_ml, 2)]
            table.add_row(*words, *numbers, *volumes)
        means = [_shown(self.mean("dice"), 3), _shown(self.mean("nsd"), 3)]
        table.add_section()
        blanks = [""] * (len(shown) - 1)
        table.add_row("mean", *blanks, *means, _shown(self.mean("hd95_mm"), 1), "", "")
        return table


def evaluate(
    pred: str | PathLike[str],
    ref: str | PathLike[str],
    *,
    names: LabelNames | str | PathLike[str] | None = None,
    tolerance_mm: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationTable:
    """Figures for every structure that prediction and reference both speak of.

    Args:
        pred: A mask file, a label map, a result folder (with ``textseg.json``), a folder of such
            folders named by case, or a folder of mask files.
        ref: A mask file or label map, or a folder whose files are named like the predictions'.
        names: What the values of label maps mean, ``{name: value}`` or ``{name: [values]}``; or
            the path of such a table as JSON. Without it, structures go by file name or value.
        tolerance_mm: Largest surface distance that NSD counts as agreement.
        progress: Called with structures done and structures known so far.

    Raises:
        InputError: A file cannot be read, two grids differ (E321), or nothing could be paired.
    """
    table = names if names is None or isinstance(names, Mapping) else read_label_names(Path(names))
    rows: list[EvaluationRow] = []
    unmatched: list[str] = []
    for case, left, right in find_cases(Path(pred), Path(ref), table):
        pairs, lonely = pair_parts(left, right)
        unmatched += [f"{case}: {sentence}" for sentence in lonely]
        known = len(rows) + len(pairs)
        for structure, pred_part, ref_part in pairs:
            row = _scored(case, structure, pred_part, ref_part, tolerance_mm=tolerance_mm)
            if row is not None:
                rows.append(row)
            if progress is not None:
                progress(len(rows), known)
    if not rows:
        listed = "; ".join(unmatched[:5]) or "both sides are empty"
        cause = f"Nothing in it could be paired with {ref} ({listed})."
        raise InputError(cause, path=pred, remedy="Check file names, or give the label names.")
    return EvaluationTable(tuple(rows), tuple(unmatched), tolerance_mm)


def _scored(
    case: str, structure: str, pred: Part, ref: Part, *, tolerance_mm: float
) -> EvaluationRow | None:
    """The figures of one pair; None for a table's entry that neither label map holds."""
    reference = ref.read()
    if reference is None:
        return None
    ref_mask, geometry = reference
    pred_mask, pred_geometry = pred.read() or (np.zeros_like(ref_mask), geometry)
    _check_same_grid(pred, pred_geometry, ref, geometry)
    volumes = [int(np.count_nonzero(m)) * geometry.voxel_volume_ml for m in (pred_mask, ref_mask)]
    if not any(volumes) and pred.may_be_absent and ref.may_be_absent:
        return None
    figures = agreement(
        pred_mask, ref_mask, spacing_mm=geometry.spacing_mm, tolerance_mm=tolerance_mm
    )
    return EvaluationRow(
        case=case,
        structure=structure,
        status=pred.status,
        dice=figures.dice,
        nsd=figures.nsd,
        hd95_mm=figures.hd95_mm,
        volume_pred_ml=volumes[0],
        volume_ref_ml=volumes[1],
    )


def _check_same_grid(pred: Part, pred_grid: Geometry, ref: Part, ref_grid: Geometry) -> None:
    # stored matrices are rounded; a tenth of a voxel moves no voxel onto another
    if pred_grid.matches(ref_grid, tolerance_mm=0.1 * min(ref_grid.spacing_mm)):
        return
    described = [
        f"{grid.shape} {grid.orientation} at {tuple(round(step, 3) for step in grid.spacing_mm)} mm"
        for grid in (pred_grid, ref_grid)
    ]
    cause = f"Its grid is {described[0]}, that of {ref.path} is {described[1]}."
    if pred_grid.shape == ref_grid.shape and described[0] == described[1]:
        cause = f"It lies elsewhere in space than {ref.path}."
    remedy = "Resample one of them onto the other's grid."
    raise InputError(cause, code="E321", path=pred.path, remedy=remedy)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
