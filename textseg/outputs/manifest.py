"""``textseg.json``: what was asked, what was done, and which files hold the answer.

It is written last, so its presence says that a run finished, and it lists a hash of every file, so
that a later run can tell whether the answer is still whole.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from textseg.atomic import file_sha256
from textseg.errors import InputError
from textseg.outputs.settings import Setting

if TYPE_CHECKING:
    from textseg.imaging.volume import Source, Volume
    from textseg.prompts.report import Finding
    from textseg.reports.given import GivenReport

__all__ = [
    "MANIFEST_NAME",
    "ChannelRecord",
    "FileRecord",
    "FindingRecord",
    "FindingsRecord",
    "GridRecord",
    "InputRecord",
    "Manifest",
    "ModelRecord",
    "PromptRecord",
    "ReportRecord",
    "RunRecord",
    "SoftwareRecord",
    "Status",
    "channel_records",
    "encodable",
    "is_complete",
    "read_manifest",
]

MANIFEST_NAME = "textseg.json"

Status = Literal["ok", "not_found", "ambiguous", "unsupported", "reject"]


def _bare_name(name: str) -> str:
    # files named here are hashed and, when overwritten, deleted: never outside the folder
    if name in {"", ".", ".."} or "\\" in name or PurePath(name).name != name:
        raise ValueError(f"{name!r} is not the name of a file in the manifest's own folder")
    return name


FileName = Annotated[str, AfterValidator(_bare_name)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SoftwareRecord(_Record):
    """Versions of what computed the result."""

    textseg: str
    torch: str
    python: str

    @classmethod
    def current(cls) -> SoftwareRecord:
        """The versions installed here, found without importing torch."""
        return cls(
            textseg=_installed_version("textseg"),
            torch=_installed_version("torch"),
            python=platform.python_version(),
        )


class ModelRecord(_Record):
    """The weights, by name, version and hash."""

    name: str
    version: str
    sha256: str


class InputRecord(_Record):
    """The scan, and how its modality became known."""

    path: str | None
    format: str
    sha256: str | None
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    modality: str | None
    metadata: dict[str, str] = Field(default_factory=dict)


class ChannelRecord(_Record):
    """A named channel of the scan, or one that the model takes and the scan lacks.

    Attributes:
        name: Such as ``t1ce``.
        path: Its file or folder; None for a scan in memory, and for a channel that is missing.
        sha256: Of the file.
        is_missing: The model's stand-in took its place.
    """

    name: str
    path: str | None = None
    sha256: str | None = None
    is_missing: bool = False


class ReportRecord(_Record):
    """A report that was given with the scan.

    Its words are a patient's, so the manifest keeps none of them, nor the name of their file; the
    hash tells whether another report is the same one.

    Attributes:
        sha256: Of its text, or of the file of its features.
        given_as: Which of the two.
        is_read: Whether the network sees it; False for a network that reads no reports.
    """

    sha256: str
    given_as: Literal["text", "features"] = "text"
    is_read: bool

    @classmethod
    def of(cls, report: GivenReport, *, is_read: bool) -> ReportRecord:
        """What may be kept of a report."""
        kind: Literal["text", "features"] = "text" if report.features is None else "features"
        return cls(sha256=report.sha256, given_as=kind, is_read=is_read)


class FindingRecord(_Record):
    """Where a report states something, and what else it says of it.

    The words are a patient's, so the manifest keeps none of them; sentence and characters find
    them again in the report. A finding that is denied has no record.

    Attributes:
        sentence: Its index, from 0.
        characters: First and past-last one of the words in the report, without blanks before it.
        uncertain: The report does not commit itself.
        history: The report speaks of an earlier time.
        size_mm: As stated; empty if it is not.
        reason: Why it was not asked for; None if it was.
    """

    sentence: int
    characters: tuple[int, int]
    uncertain: bool = False
    history: bool = False
    size_mm: tuple[float, ...] = ()
    reason: str | None = None

    @classmethod
    def of(cls, finding: Finding) -> FindingRecord:
        """What may be kept of a finding."""
        # what could not be understood is quoted in the reason
        quotes = any(told in (finding.reason or "") for told in finding.resolution.warnings)
        return cls(
            sentence=finding.index,
            characters=finding.span,
            uncertain=finding.uncertain,
            history=finding.history,
            size_mm=finding.size_mm,
            reason="Its words are not understood." if quotes else finding.reason,
        )


class FindingsRecord(_Record):
    """Which findings of a report were not asked for, where its findings are the prompts.

    Attributes:
        passed_over: Those that are no prompts, in the order of the report.
        num_denied: How many more it says are not there.
    """

    passed_over: tuple[FindingRecord, ...] = ()
    num_denied: int = 0

    @classmethod
    def of(cls, findings: Sequence[Finding]) -> FindingsRecord:
        """Of all findings of a report."""
        stated = [finding for finding in findings if not finding.negated]
        passed_over = [FindingRecord.of(f) for f in stated if f.reason is not None]
        return cls(passed_over=tuple(passed_over), num_denied=len(findings) - len(stated))


class GridRecord(_Record):
    """One pass of the model over the scan at one spacing.

    Attributes:
        domain: Of the model.
        spacing_mm: Voxel size of the working grid.
        shape: Its voxels.
        window: Voxels of a window.
        windows: How many cover it.
        windows_skipped: How many of them were not run: nothing is in them, or beyond the region.
        roi: Where a region was asked for, ``auto: `` and the windows it took, or ``off: `` and why.
        roi_box: First and past-last voxel of the region along each axis; outside nothing is found.
    """

    domain: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    windows: int
    windows_skipped: int
    roi: str | None = None
    roi_box: tuple[tuple[int, int], ...] | None = None


class RunRecord(_Record):
    """How the run was carried out; the part of the manifest that the engine knows.

    Attributes:
        channels: Those that have names, in the order given, then those the scan lacks.
        report: None if there was none.
        findings: Of the report, if they were the prompts.
        grids: One for each domain of the model that was asked.
        settings: What else decides the answer; see ``Settings``.
        timings_s: Seconds of each stage.
        peak_memory_bytes: Of the process so far, if the system tells.
    """

    model: ModelRecord
    device: str
    precision: str
    channels: tuple[ChannelRecord, ...] = ()
    report: ReportRecord | None = None
    findings: FindingsRecord | None = None
    grids: tuple[GridRecord, ...] = ()
    settings: dict[str, Setting] = Field(default_factory=dict)
    timings_s: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None


class PromptRecord(_Record):
    """One prompt: what it was taken to mean and what came of it.

    ``said`` tells where a report states it, if the prompt was made of one.
    """

    prompt: str
    status: Status
    reason: str | None = None
    concepts: tuple[str, ...] = ()
    method: str | None = None
    confidence: float | None = None
    presence: float | None = None
    threshold: float | None = None
    islands_dropped: int | None = None
    file: FileName | None = None
    sha256: str | None = None
    suggestions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    said: tuple[FindingRecord, ...] = ()


class FileRecord(_Record):
    """A file of the result, beside the manifest."""

    name: FileName
    sha256: str


class Manifest(_Record):
    """The whole record of one scan."""

    schema_version: Literal[1] = 1
    software: SoftwareRecord
    input: InputRecord
    run: RunRecord
    prompts: tuple[PromptRecord, ...]
    files: tuple[FileRecord, ...] = ()
    warnings: tuple[str, ...] = ()


def channel_records(volume: Volume, missing: Collection[str]) -> tuple[ChannelRecord, ...]:
    """The named channels of a scan, and those that were missing."""

    def record(name: str, source: Source) -> ChannelRecord:
        path = encodable(str(source.path)) if source.path else None
        return ChannelRecord(name=name, path=path, sha256=source.sha256)

    # of one that a caller made up, each channel counts as from where the volume is
    sources = volume.sources or (volume.source,) * len(volume.channels)
    given = map(record, volume.channels, sources)
    return (*given, *(ChannelRecord(name=name, is_missing=True) for name in missing))


def encodable(text: str) -> str:
    """The text with bytes that are not UTF-8 (as a shell may pass them) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_manifest(path: Path) -> Manifest:
    """The manifest in a result folder, or in the JSON file given.

    Raises:
        InputError: There is none (E301), it cannot be read (E303), or it is not a manifest that
            this version understands (E300).
    """
    file = _manifest_path(path)
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        cause = "There is no manifest, so no finished result."
        raise InputError(cause, code="E301", path=file) from error
    except OSError as error:
        cause = f"The manifest cannot be read ({error.strerror})."
        raise InputError(cause, code="E303", path=file) from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its start"
        cause = f"Not a textseg manifest of schema 1: {first['msg']} at {where}."
        raise InputError(cause, path=file) from error


def is_complete(
    path: Path,
    *,
    prompts: Collection[str] | None = None,
    input_sha256: str | None = None,
    model_sha256: str | None = None,
) -> bool:
    """Whether a result is finished, undamaged, and the answer to the same question.

    Args:
        path: A result folder, or the JSON file of a single mask.
        prompts: Every one of these must have been asked; None asks nothing about prompts.
        input_sha256: The scan's hash must equal this, if given.
        model_sha256: The weights' hash must equal this, if given.
    """
    try:
        manifest = read_manifest(path)
    except InputError:
        return False
    asked = {entry.prompt for entry in manifest.prompts}
    same_question = (
        set(prompts or ()) <= asked
        and input_sha256 in {None, manifest.input.sha256}
        and model_sha256 in {None, manifest.run.model.sha256}
    )
    folder = _manifest_path(path).parent
    return same_question and all(_is_whole(folder, record) for record in manifest.files)


def _is_whole(folder: Path, record: FileRecord) -> bool:
    try:
        return file_sha256(folder / record.name) == record.sha256
    except OSError:
        return False


def _manifest_path(path: Path) -> Path:
    return path / MANIFEST_NAME if path.is_dir() else path


def _installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
