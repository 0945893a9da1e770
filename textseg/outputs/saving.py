"""Writes a segmentation's files so that the manifest appears last, and only if all is well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from textseg import atomic
from textseg.errors import InputError
from textseg.outputs.formats import MaskFormat
from textseg.outputs.instances import Instances, InstanceStatistics, write_instances
from textseg.outputs.layout import OutputPlan
from textseg.outputs.manifest import FileRecord, Manifest, PromptRecord, read_manifest
from textseg.outputs.preview import require_matplotlib, write_preview

if TYPE_CHECKING:
    from textseg.outputs.segmentation import PromptResult, Segmentation

__all__ = ["preview_of", "save_result"]

Mask = NDArray[np.bool_]


def save_result(
    segmentation: Segmentation, plan: OutputPlan, *, least_instance_ml: float = 0.0
) -> Manifest:
    """Writes everything the plan names and returns the manifest; replaces what is there.

    A kill in between leaves whole files and no manifest, which the next run treats as unfinished.

    Args:
        segmentation: The result.
        plan: Its files.
        least_instance_ml: Smaller pieces are no instances.
    """
    if plan.preview:
        # a missing extra is better known before the first file than after the last
        require_matplotlib()
    atomic.make_folder(plan.folder)
    outdated = _withdraw(plan.manifest) | set(plan.paths())
    files: list[FileRecord] = []
    prompts: list[PromptRecord] = []
    pieces: dict[str, tuple[InstanceStatistics, ...]] = {}
    for result in segmentation.values():
        written = _write_masks(result, plan)
        files += written
        if plan.instances:
            found = result.find_instances(least_ml=least_instance_ml) if written else None
            files += _write_instances(result, found, plan.instances[result.prompt])
            pieces[result.prompt] = found.statistics if found else ()
        prompts.append(_with_file(result.record(), written))
    if plan.statistics:
        files.append(_write_statistics(segmentation, plan.statistics, pieces))
    if plan.preview:
        files.append(_write_preview(segmentation, plan.preview))
    _remove(outdated - {plan.folder / record.name for record in files})
    manifest = segmentation.manifest.model_copy(
        update={"prompts": tuple(prompts), "files": tuple(files)}
    )
    if plan.instances:
        settings = {**manifest.run.settings, "least_instance_ml": float(least_instance_ml)}
        run = manifest.run.model_copy(update={"settings": settings})
        manifest = manifest.model_copy(update={"run": run})
    atomic.write_json(plan.manifest, manifest.model_dump(mode="json"), overwrite=True)
    return manifest


def _withdraw(manifest: Path) -> set[Path]:
    """Takes back an earlier result's commit mark; returns the files it answered for."""
    try:
        earlier = read_manifest(manifest)
    except InputError:
        # absent, or not ours to interpret: nothing is known about other files
        earlier = None
    _remove({manifest})
    return {manifest.parent / record.name for record in earlier.files} if earlier else set()


def _write_masks(result: PromptResult, plan: OutputPlan) -> list[FileRecord]:
    if result.status != "ok":
        return []
    records = []
    for path, entry in plan.masks[result.prompt]:

        def write(temporary: Path, entry: MaskFormat = entry) -> None:
            entry.write(temporary, result.mask, result.volume, label=result.prompt)

        digest = atomic.write_atomically(path, write, suffix=entry.suffix, overwrite=True)
        records.append(FileRecord(name=path.name, sha256=digest))
    return records


def _with_file(record: PromptRecord, written: list[FileRecord]) -> PromptRecord:
    if not written:
        return record
    return record.model_copy(update={"file": written[0].name, "sha256": written[0].sha256})


def _write_instances(result: PromptResult, found: Instances | None, path: Path) -> list[FileRecord]:
    if found is None:
        return []
    labels = found.labels

    def write(temporary: Path) -> None:
        write_instances(temporary, labels, result.volume, label=result.prompt)

    digest = atomic.write_atomically(path, write, suffix=".nii.gz", overwrite=True)
    return [FileRecord(name=path.name, sha256=digest)]


def _write_statistics(
    segmentation: Segmentation,
    path: Path,
    pieces: Mapping[str, tuple[InstanceStatistics, ...]],
) -> FileRecord:
    content = {
        result.record().prompt: {
            "status": result.status,
            **result.statistics,
            **({"instances": pieces[result.prompt]} if result.prompt in pieces else {}),
        }
        for result in segmentation.values()
    }
    digest = atomic.write_json(path, content, overwrite=True)
    return FileRecord(name=path.name, sha256=digest)


def preview_of(segmentation: Segmentation) -> bytes:
    """The preview as the bytes of a PNG.

    Raises:
        ModelError: matplotlib is not installed (E403).
    """
    picture = BytesIO()
    _draw_preview(segmentation, picture)
    return picture.getvalue()


def _write_preview(segmentation: Segmentation, path: Path) -> FileRecord:
    def write(temporary: Path) -> None:
        _draw_preview(segmentation, temporary)

    digest = atomic.write_atomically(path, write, suffix=".png", overwrite=True)
    return FileRecord(name=path.name, sha256=digest)


def _draw_preview(segmentation: Segmentation, target: Path | BytesIO) -> None:
    found = {prompt: result for prompt, result in segmentation.items() if result.status == "ok"}
    write_preview(target, segmentation.volume, _MasksOf(found))


class _MasksOf(Mapping[str, Mask]):
    """Masks by prompt, restored one at a time as they are looked at."""

    def __init__(self, results: Mapping[str, PromptResult]) -> None:
        self._results = results

    def __getitem__(self, prompt: str) -> Mask:
        return self._results[prompt].mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)


def _remove(paths: set[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise atomic.storage_error(error, path) from error
