"""Which scans an input means, and where the results of each of them go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from textseg.cli.jobs import Job, Jobs, Question
from textseg.errors import InputError, ResourceError
from textseg.imaging import gate
from textseg.imaging.channels import by_channel
from textseg.imaging.readers import dicom
from textseg.outputs.formats import format_of
from textseg.outputs.layout import INSTANCES_ENDING
from textseg.outputs.manifest import MANIFEST_NAME, read_manifest

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh")
_RESULT_ENDING = "_textseg"


def plan_jobs(source: Path, out: Path | None, question: Question) -> Jobs:
    """The scans in ``source``, each with the place of its results.

    A file or a folder of DICOM slices is one scan, and ``out`` is its place. Any other folder is
    searched with its subfolders, and each scan gets a folder of its own below ``out``. Hidden
    files and results of earlier runs are passed over.

    Raises:
        InputError: The source is missing or cannot be read.
    """
    gate.check_path(source)
    place = out if out is not None else default_place(source)
    found = _find_scans(source, skip=place) if source.is_dir() else [source]
    if not found or found == [source]:
        # a folder in which nothing was found is left to the reader, whose error says why
        return Jobs((Job(source, source.name or str(source), place, question),), is_batch=False)
    names = _folder_names(source, found)
    jobs = [
        Job(scan, str(scan.relative_to(source)), place / names[scan], question) for scan in found
    ]
    return Jobs(tuple(jobs), is_batch=True)


def plan_channels(named: Iterable[tuple[str, Path]], out: Path | None, question: Question) -> Jobs:
    """The one scan with such channels; without ``out``, its results go beside the first.

    Raises:
        InputError: A channel is given twice, or its file is missing or cannot be read.
    """
    channels = by_channel(named)
    for path in channels.values():
        gate.check_path(path)
    return Jobs((channel_job(channels, out, question),), is_batch=False)


def channel_job(channels: Mapping[str, Path], out: Path | None, question: Question) -> Job:
    """The job of a scan with such channels, at least one, named as ``by_channel`` does."""
    first = next(iter(channels.values()))
    place = out if out is not None else default_place(first)
    # on a cluster the worker is in another folder
    absolute = tuple((name, path.absolute()) for name, path in channels.items())
    return Job(first, first.name, place, question, absolute)


def default_place(source: Path) -> Path:
    """``<stem>_textseg`` beside the scan if that folder is writable, else in the current one."""
    scan = source.absolute() if source.name not in {"", ".."} else source.resolve()
    folder = scan.parent if os.access(scan.parent, os.W_OK) else Path.cwd()
    return folder / f"{stem(scan)}{_RESULT_ENDING}"


def stem(scan: Path) -> str:
    """Name of a scan without the suffix of its format."""
    lower = scan.name.lower()
    suffix = next((s for s in _SUFFIXES if lower.endswith(s) and not scan.is_dir()), "")
    return scan.name[: len(scan.name) - len(suffix)] or scan.name


def check_writable(folder: Path) -> None:
    """Fails before the work if the folder could not be made, or written into.

    Raises:
        ResourceError: E503.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return
    cause = "is not writable." if nearest.is_dir() else "is a file, not a folder."
    raise ResourceError(cause, code="E503", path=nearest, remedy="Choose another -o.")


def _find_scans(root: Path, *, skip: Path) -> list[Path]:
    """Scan files and DICOM folders at or below ``root``, in a stable order."""

    def fail(error: OSError) -> None:
        cause = f"cannot be searched ({error.strerror})."
        raise InputError(cause, code="E303", path=error.filename) from error

    found: list[Path] = []
    for name, folders, files in os.walk(root, onerror=fail):
        folder = Path(name)
        visible = sorted(folder / file for file in files if not file.startswith("."))
        scans = [path for path in visible if path.name.lower().endswith(_SUFFIXES)]
        if folder != root and _is_result(folder, skip):
            folders.clear()
        elif scans:
            found += [path for path in scans if not _is_single_result(path)]
        elif any(_is_dicom(path) for path in visible):
            found.append(folder)
            # its reader looks into the subfolders itself
            folders.clear()
        folders[:] = sorted(f for f in folders if not f.startswith("."))
    return found


def _is_result(folder: Path, place: Path) -> bool:
    is_named_so = folder.name.endswith(_RESULT_ENDING)
    return is_named_so or folder.absolute() == place.absolute() or (folder / MANIFEST_NAME).exists()


def _is_single_result(path: Path) -> bool:
    """Whether a file is a mask or a map of instances that an earlier run wrote beside the scans."""
    own = stem(path)
    names = dict.fromkeys((own, own.removesuffix(INSTANCES_ENDING)))
    return any(_answers_for(path.with_name(f"{name}.json"), path.name) for name in names)


def _answers_for(manifest: Path, name: str) -> bool:
    """Whether a file is the manifest of a result to which a file of that name belongs."""
    if not manifest.is_file():
        return False
    try:
        return name in {record.name for record in read_manifest(manifest).files}
    except InputError:
        # a JSON file of another kind, as many data sets have them
        return False


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return dicom.recognises(file.read(132))
    except OSError:
        return False


def _folder_names(root: Path, scans: list[Path]) -> dict[Path, Path]:
    """A folder for each scan, relative to the output: its place and stem; no two are equal."""
    stems = [scan.relative_to(root).with_name(stem(scan)) for scan in scans]
    names = {}
    for scan, own in zip(scans, stems, strict=True):
        name = own if stems.count(own) == 1 else scan.relative_to(root)
        # a folder called x.nii.gz would read as the file of a single mask
        is_file_name = format_of(name) is not None
        names[scan] = name.with_name(name.name.replace(".", "_")) if is_file_name else name
    return names
