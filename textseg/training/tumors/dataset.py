"""Made-up brain tumors with reports as a data set on disk, in the layout of TextBraTS."""

from __future__ import annotations

import gzip
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from torch import Generator

from textseg.atomic import exists_error, make_folder, write_atomically, write_json
from textseg.datasets import Case, patient_of
from textseg.imaging import Geometry
from textseg.training.tumors.canvas import CHANNELS, fineness
from textseg.training.tumors.cases import (
    Ambiguity,
    TumorCase,
    TumorPlan,
    draw_plan,
    make_case,
)
from textseg.training.tumors.heads import Head, find_heads, load_head, phantom_head
from textseg.training.tumors.reports import ReportStyle, findings_of, swapped, write_report

__all__ = ["HeadSource", "TumorDatasetConfig", "WrittenTumors", "make_tumor", "write_tumor_dataset"]

Split: TypeAlias = Literal["train", "test"]
Progress = Callable[[int, int], None]

LISTS: dict[Split, str] = {"train": "Train.json", "test": "Test.json"}
FOLDS = 5
VALIDATION_FOLD = 0
"""Fold of the training list whose reports have the forms kept for testing, as the test cases do."""
_SHIFTS = (0, 1, 3, 4, 2)
"""Turns of the folds, round by round: kinds of cases take turns too, and each is in every fold."""
TEST_EVERY = 4
"""Of so many patients, the heads of one are for test cases alone."""

_COMPRESSION_LEVEL = 3
_FINEST_MM = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TumorDatasetConfig:
    """What to write.

    Attributes:
        cases: Number of training cases, a fifth of them for validation.
        test: Number of test cases.
        ambiguous: Share of cases that cannot be told without their report.
        seed: Of everything; with it, a case depends on its number and split alone.
        spacing_mm: Voxel size.
        style: How much the reports say.
    """

    cases: int = 60
    test: int = 20
    ambiguous: float = 0.5
    seed: int = 0
    spacing_mm: float = 3.0
    style: ReportStyle = field(default_factory=ReportStyle)


@dataclass(frozen=True)
class WrittenTumors:
    """What was written.

    Attributes:
        train: The list of training and validation cases.
        test: The list of test cases.
        ambiguous: How many cases leave something to their report, by what.
    """

    train: Path
    test: Path
    ambiguous: dict[str, int]


@dataclass(frozen=True, eq=False)
class ReportedTumor:
    """A case with what is written beside it.

    Attributes:
        name: Of the case.
        head: Name of the brain it is made of.
        plan: What it shows.
        case: Images and reference.
        report: What is true of it.
        swapped_report: What could be true of the same images, or of others.
        fold: Its part of the training cases; 0 for validation, and for test cases.
    """

    name: str
    head: str
    plan: TumorPlan
    case: TumorCase
    report: str
    swapped_report: str
    fold: int


def write_tumor_dataset(
    out: Path,
    config: TumorDatasetConfig,
    *,
    heads: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenTumors:
    """Writes images, labels and reports, and the lists of them last.

    Args:
        out: Folder to write into.
        config: What to write.
        heads: Case list of label maps with whole brains; None for phantom heads. Where they are of
            several patients, test cases are made of heads of other patients than training cases.
        overwrite: Replace what is there.
        progress: Called with cases done and cases to do.

    Raises:
        ModelError: E404, the case list is faulty or holds no brain.
        InputError: A label map is damaged or is of no whole brain.
        ResourceError: The lists are there already (E504), or the disk refuses.
    """
    lists = {split: out / name for split, name in LISTS.items()}
    for path in lists.values():
        if path.exists() and not overwrite:
            raise exists_error(path)
    source = HeadSource(find_heads(heads) if heads is not None else (), config.spacing_mm)
    for name in ("images", "labels", "reports"):
        make_folder(out / name)
    counts: dict[Split, int] = {"train": config.cases, "test": config.test}
    total, done = sum(counts.values()), 0
    told = dict.fromkeys(("which", "extent"), 0)
    for split, count in counts.items():
        entries = []
        for number in range(count):
            made = make_tumor(config, split, number, heads=source)
            entries.append(_write(made, out, overwrite=overwrite))
            if made.plan.ambiguous != "none":
                told[made.plan.ambiguous] += 1
            done += 1
            if progress is not None:
                progress(done, total)
        write_json(lists[split], {"training": entries}, overwrite=overwrite)
    return WrittenTumors(lists["train"], lists["test"], told)


class HeadSource:
    """Brains for each split: of label maps, read when first needed, or phantoms."""

    def __init__(self, cases: Sequence[Case] = (), spacing_mm: float = 3.0) -> None:
        self._step_mm = max(_FINEST_MM, spacing_mm / fineness(spacing_mm))
        patients = list(dict.fromkeys(map(_patient, cases)))
        if len(cases) == 1:
            _log.warning("There is only one head, so test cases are made of it as well.")
        elif len(patients) == 1:
            _log.warning("All heads are of one patient, so test cases are made of them as well.")
        step = min(TEST_EVERY, len(patients))
        kept = patients[step - 1 :: step] if patients else []
        test = tuple(case for case in cases if _patient(case) in kept)
        train = tuple(case for case in cases if _patient(case) not in kept) or tuple(cases)
        self._cases: dict[Split, Sequence[Case]] = {"train": train, "test": test}
        self._train_patients = list(dict.fromkeys(map(_patient, train)))
        self._load = lru_cache(maxsize=None)(self._read)

    def of(self, split: Split, number: int, generator: Generator) -> tuple[Head, int]:
        """The head of a case and its fold; validation has patients of its own if it can."""
        cases = self._cases[split]
        if not cases:
            return phantom_head(generator), _fold(number)
        # a shift in every round, so that no head meets only every other kind of case
        place = (number + number // len(cases)) % len(cases)
        head = self._load(split, place)
        if split == "test" or len(self._train_patients) < FOLDS:
            return head, _fold(number)
        return head, self._train_patients.index(_patient(cases[place])) % FOLDS

    def _read(self, split: Split, place: int) -> Head:
        return load_head(self._cases[split][place], spacing_mm=self._step_mm)


def _patient(case: Case) -> tuple[str, str]:
    """Whose head it is; patients of two data sets may have one name."""
    return case.dataset, patient_of(case)


def make_tumor(
    config: TumorDatasetConfig, split: Split, number: int, *, heads: HeadSource | None = None
) -> ReportedTumor:
    """A case of the data set, with its report and what could be said instead.

    Args:
        config: Seed, voxel size, share of ambiguous cases, style of the reports.
        split: Part of the data set.
        number: Number of the case in it, from 0.
        heads: Brains to choose from; phantoms if left out.
    """
    key = f"{config.seed}/{split}/{number}"
    plan = draw_plan(_generator(f"{key}/plan"), ambiguous=_ambiguity(number, config.ambiguous))
    source = heads or HeadSource(spacing_mm=config.spacing_mm)
    head, fold = source.of(split, number, _generator(f"{key}/head"))
    fold = VALIDATION_FOLD if split == "test" else fold
    case = make_case(plan, head, spacing_mm=config.spacing_mm)
    findings = findings_of(plan, case)
    instead = swapped(findings, case, plan, _generator(f"{key}/swap"))
    report, swapped_report = (
        write_report(
            stated,
            seed=_number(f"{key}/report"),
            held_out=fold == VALIDATION_FOLD,
            style=config.style,
        )
        for stated in (findings, instead)
    )
    name = f"{split}{number:04}"
    return ReportedTumor(name, head.name, plan, case, report, swapped_report, fold)


def _fold(number: int) -> int:
    """The fold of a case that has no head of a fold."""
    return (number - _SHIFTS[number // FOLDS % FOLDS]) % FOLDS


def _ambiguity(number: int, share: float) -> Ambiguity:
    """What the case of a number leaves to its report; the kinds take turns."""
    before, after = (int(share * n + 1e-9) for n in (number, number + 1))
    if before == after:
        return "none"
    return "which" if after % 2 else "extent"


def _number(key: str) -> int:
    """A seed that hangs on every letter of the key, below 2**62."""
    return int.from_bytes(hashlib.blake2s(key.encode(), digest_size=8).digest(), "big") >> 2


def _generator(key: str) -> Generator:
    return Generator().manual_seed(_number(key))


def _write(made: ReportedTumor, out: Path, *, overwrite: bool) -> dict[str, Any]:
    """The entry of a case in its list; its files are written."""
    files = {name: f"images/{made.name}_{name}.nii.gz" for name in CHANNELS}
    label = f"labels/{made.name}_seg.nii.gz"
    texts = (f"reports/{made.name}.txt", f"reports/{made.name}_swapped.txt")
    case, plan = made.case, made.plan
    for file, data in (*zip(files.values(), case.images, strict=True), (label, case.labels)):
        _write_bytes(out / file, _nifti(data, case.geometry), overwrite=overwrite)
    for file, text in zip(texts, (made.report, made.swapped_report), strict=True):
        _write_bytes(out / file, f"{text}\n".encode(), overwrite=overwrite)
    return {
        "fold": made.fold,
        "image": list(files.values()),
        "label": label,
        "report": texts[0],
        "swapped_report": texts[1],
        "ambiguous": plan.ambiguous,
        "kind": plan.kind,
        "side": plan.site.side,
        "lobe": plan.site.lobe,
        "edema": plan.edema,
        "head": made.head,
    }


def _write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write, overwrite=overwrite)


def _nifti(data: NDArray[Any], geometry: Geometry) -> bytes:
    """A compressed NIfTI file; the same voxels give the same bytes."""
    image: Any = Nifti1Image(np.asfortranarray(data), geometry.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), _COMPRESSION_LEVEL, mtime=0)
