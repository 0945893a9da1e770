"""Predicted masks against reference masks, one row of figures for each structure and scan.

Either side may be a mask file, a label map, a folder of masks, or a result folder; ``evaluate``
finds out which, pairs what belongs together, and says what it could not pair.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import TypeAdapter

from textseg.atomic import write_atomically, write_json
from textseg.errors import InputError
from textseg.imaging.volume import Geometry
from textseg.knowledge import Concept, KnowledgeTree, load_user_tree, normalise
from textseg.outputs.manifest import MANIFEST_NAME, Manifest, read_manifest
from textseg.prompts import resolve
from textseg.training.label_names import LabelNames, read_label_names
from textseg.training.metrics import agreement
from textseg.training.structures import CHANNEL, Part, find_cases, pair_parts

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "CaseTable",
    "EvaluationRow",
    "EvaluationTable",
    "LabelNames",
    "Metric",
    "evaluate",
    "read_case_table",
    "read_label_names",
]

Metric: TypeAlias = Literal["dice", "nsd", "hd95_mm"]
CaseTable: TypeAlias = Mapping[str, Mapping[str, str]]

# of the classes of the public data sets, just those that show disease are of these kinds
_LESION_KINDS = frozenset({"lesion", "lesion part"})
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One structure of one scan.

    ``status`` is the prediction's own word (``not_found`` counts as an empty mask); ``hd95_mm`` is
    infinite when exactly one of the masks is empty.

    Attributes:
        concept: Id of the concept that the structure's name means; the name itself if it means
            none or several.
        region: Of that concept; ``lesion`` for all lesions, ``other`` for a name without meaning.
        dataset: As the table of cases has it, or empty.
        modality: As the table of cases or the prediction's manifest has it, or empty.
        presence: The score in the prediction's manifest, if there is one.
    """

    case: str
    structure: str
    status: str
    dice: float
    nsd: float
    hd95_mm: float
    volume_pred_ml: float
    volume_ref_ml: float
    concept: str = ""
    region: str = "other"
    dataset: str = ""
    modality: str = ""
    presence: float | None = None

    @property
    def is_present(self) -> bool:
        """Whether the reference holds the structure."""
        return self.volume_ref_ml > 0


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
        values = [getattr(row, metric) for row in self.rows if row.is_present]
        finite = [value for value in values if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else math.nan

    def summary(self) -> dict[str, float | int | None]:
        """Means and counts; None where there is nothing to average."""
        present = [row for row in self.rows if row.is_present]
        absent = [row for row in self.rows if not row.is_present]
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


def region_of(concept: Concept) -> str:
    """The group of means a concept belongs to: its region, or ``lesion``."""
    return "lesion" if concept.kind in _LESION_KINDS else concept.region


def read_case_table(path: Path) -> dict[str, dict[str, str]]:
    """What is known of each case, by its name, from a table with the first column ``case``.

    Args:
        path: A ``.csv`` or ``.tsv`` file with a header, or a ``.json`` list of objects.

    Raises:
        InputError: The file cannot be read, is not such a table, or names a case twice.
    """
    table: dict[str, dict[str, str]] = {}
    try:
        for line in _table_lines(path):
            # a line of another length than the header has None in it
            if next(iter(line), None) != "case" or None in (*line, *line.values()):
                raise ValueError(f"one line of it is {dict(line)}")
            case = line.pop("case")
            if case in table:
                raise ValueError(f"{case!r} is there twice")
            table[case] = line
    except OSError as error:
        cause = f"The table of cases cannot be read ({error.strerror})."
        raise InputError(cause, code="E303", path=path) from error
    except (ValueError, csv.Error) as error:
        cause = f"Not a table of cases: {' '.join(str(error).split())}."
        remedy = "Write .csv, .tsv or .json with 'case' as the first column."
        raise InputError(cause, path=path, remedy=remedy) from error
    return table


def _table_lines(path: Path) -> Iterable[dict[str, str]]:
    """Lines of a table by column."""
    text, suffix = path.read_text(encoding="utf-8-sig"), path.suffix.lower()
    if suffix == ".json":
        lines = TypeAdapter(list[dict[str, str | int | float | bool | None]]).validate_json(text)
        return [{name: "" if v is None else str(v) for name, v in line.items()} for line in lines]
    if suffix not in _DELIMITERS:
        raise ValueError(f"{suffix or 'no suffix'} says nothing of its format")
    return csv.DictReader(io.StringIO(text), delimiter=_DELIMITERS[suffix], strict=True)


def evaluate(
    pred: str | PathLike[str],
    ref: str | PathLike[str],
    *,
    names: LabelNames | str | PathLike[str] | None = None,
    cases: CaseTable | None = None,
    tree: KnowledgeTree | None = None,
    tolerance_mm: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationTable:
    """Figures for every structure that prediction and reference both speak of.

    Args:
        pred: A mask file, a label map, a result folder (with ``textseg.json``), a folder of such
            folders named by case, or a folder of mask files.
        ref: A mask file or label map, or a folder whose files are named like the predictions'.
        names: What the values of label maps mean, ``{name: value}`` or ``{name: [values]}``; or
            the path of a file that says so, see ``read_label_names``. Without it, structures go by
            file name or value.
        cases: What is known of each case; ``dataset`` and ``modality`` go into its rows.
        tree: What names mean; that which ships, with the user's vocabularies, if None.
        tolerance_mm: Largest surface distance that NSD counts as agreement.
        progress: Called with structures done and structures known so far.

    Raises:
        InputError: A file cannot be read, two grids differ (E321), a case is missing from the
            table of cases, or nothing could be paired.
    """
    table = names if names is None or isinstance(names, Mapping) else read_label_names(Path(names))
    pred, ref = Path(pred), Path(ref)
    if cases is not None:
        _check_cases(cases, [case for case, *both in find_cases(pred, ref, table) if all(both)])
    context = _Context(cases or {}, tree or load_user_tree())
    rows: list[EvaluationRow] = []
    unmatched: list[str] = []
    for case, left, right in find_cases(pred, ref, table):
        pairs, lonely = pair_parts(left, right)
        unmatched += [f"{case}: {sentence}" for sentence in lonely]
        known = len(rows) + len(pairs)
        manifest = _manifest(pred, case)
        for structure, pred_part, ref_part in pairs:
            row = _scored(case, structure, pred_part, ref_part, tolerance_mm=tolerance_mm)
            if row is not None:
                rows.append(context.placed(row, manifest))
            if progress is not None:
                progress(len(rows), known)
    if not rows:
        listed = "; ".join(unmatched[:5]) or "both sides are empty"
        cause = f"Nothing in it could be paired with {ref} ({listed})."
        raise InputError(cause, path=pred, remedy="Check file names, or give the label names.")
    return EvaluationTable(tuple(rows), tuple(unmatched), tolerance_mm)


class _Context:
    """What a row's name, case and manifest say of it besides its figures."""

    def __init__(self, cases: CaseTable, tree: KnowledgeTree) -> None:
        self._cases = cases
        self._tree = tree
        self._meanings: dict[str, tuple[str, str]] = {}

    def placed(self, row: EvaluationRow, manifest: Manifest | None) -> EvaluationRow:
        """The row with its concept, region, data set, modality and presence score."""
        columns = self._cases.get(row.case, {})
        records = manifest.prompts if manifest is not None else ()
        scores = [record.presence for record in records if record.prompt == row.structure]
        recorded = manifest.input.modality if manifest is not None else None
        concept, region = self._meaning(row.structure)
        return replace(
            row,
            concept=concept,
            region=region,
            dataset=columns.get("dataset", ""),
            modality=columns.get("modality", "").lower() or recorded or "",
            presence=scores[0] if scores else None,
        )

    def _meaning(self, structure: str) -> tuple[str, str]:
        """Concept and region of a name."""
        if structure not in self._meanings:
            ids = resolve(structure, self._tree).concepts
            concepts = [self._tree[concept] for concept in ids]
            regions = {region_of(concept) for concept in concepts}
            name = ids[0] if len(ids) == 1 else normalise(structure)
            # several structures from several regions are of none
            region = "whole_body" if len(regions) > 1 else next(iter(regions), "other")
            self._meanings[structure] = name, region
        return self._meanings[structure]


def _manifest(pred: Path, case: str) -> Manifest | None:
    """The manifest of a case's result folder, if it is one."""
    folders = (pred, pred / case, pred / f"{case}{CHANNEL}")
    found = (folder for folder in folders if (folder / MANIFEST_NAME).is_file())
    return next((read_manifest(folder) for folder in found), None)


def _check_cases(table: CaseTable, cases: Sequence[str]) -> None:
    missing = [case for case in cases if case not in table]
    if missing:
        cause = f"The table of cases lacks {', '.join(map(repr, missing))}."
        raise InputError(cause, remedy="Give each case a line.")


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
