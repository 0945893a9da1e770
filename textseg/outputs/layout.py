"""Where the files of one scan go, settled before any work is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from textseg.atomic import exists_error
from textseg.errors import InputError
from textseg.outputs.formats import MaskFormat, format_named, format_of
from textseg.outputs.manifest import MANIFEST_NAME
from textseg.outputs.naming import file_names

__all__ = ["INSTANCES_ENDING", "OutputPlan", "plan_output"]

INSTANCES_ENDING = "_instances"
"""What follows the name of a mask in that of its map of single pieces."""


@dataclass(frozen=True)
class OutputPlan:
    """Paths of everything a run may write for one scan.

    Attributes:
        masks: For each prompt its files, one per format, the first being the one the manifest
            names.
        statistics: None if not wanted.
        preview: None if not wanted.
        manifest: The JSON file written last.
        instances: For each prompt the map of its single pieces; empty if not wanted.
    """

    masks: Mapping[str, tuple[tuple[Path, MaskFormat], ...]]
    statistics: Path | None
    preview: Path | None
    manifest: Path
    instances: Mapping[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The one folder that all files lie in."""
        return self.manifest.parent

    def paths(self) -> Iterator[Path]:
        """Every path, the manifest last."""
        for files in self.masks.values():
            yield from (path for path, _ in files)
        yield from self.instances.values()
        yield from (path for path in (self.statistics, self.preview) if path is not None)
        yield self.manifest

    def check(self, *, overwrite: bool) -> None:
        """Fails before the work rather than after it if a result is already there.

        Raises:
            ResourceError: One of the paths exists, and it may not be replaced (E504).
        """
        existing = next((path for path in self.paths() if path.exists()), None)
        if existing is not None and not overwrite:
            raise exists_error(existing)


def plan_output(
    out: Path,
    prompts: Sequence[str],
    *,
    formats: Sequence[str] = ("nifti",),
    stats: bool = True,
    preview: bool = False,
    instances: bool = False,
) -> OutputPlan:
    """The files for these prompts in the folder ``out``, or ``out`` itself for a single mask.

    A name that ends like a mask file (``liver.nii.gz``) asks for that one file, whatever
    ``formats`` says; its manifest is ``liver.json``.

    Raises:
        InputError: A single file was asked for several prompts, or a format is unknown.
    """
    single = format_of(out)
    distinct = list(dict.fromkeys(prompts))
    if single is not None:
        if len(distinct) != 1:
            cause = f"One file cannot hold the masks of {len(distinct)} prompts."
            raise InputError(cause, path=out, remedy="Give a folder instead.")
        stem = out.name[: -len(single.suffix)]
        return OutputPlan(
            masks={distinct[0]: ((out, single),)},
            statistics=out.with_name(f"{stem}.statistics.json") if stats else None,
            preview=out.with_name(f"{stem}.png") if preview else None,
            manifest=out.with_name(f"{stem}.json"),
            instances=_instance_maps({distinct[0]: stem}, out.parent) if instances else {},
        )
    # asked for twice, a format is still written once
    chosen = [format_named(name) for name in dict.fromkeys(formats)]
    if not chosen:
        raise InputError("No mask format was chosen.", remedy="Use nifti.")
    names = file_names(distinct)
    return OutputPlan(
        masks={
            prompt: tuple((out / f"{name}{entry.suffix}", entry) for entry in chosen)
            for prompt, name in names.items()
        },
        statistics=out / "statistics.json" if stats else None,
        preview=out / "preview.png" if preview else None,
        manifest=out / MANIFEST_NAME,
        instances=_instance_maps(names, out) if instances else {},
    )


def _instance_maps(names: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """A file for each prompt, never that of a mask: "cyst instances" is a prompt like any other."""
    taken = set(names.values())
    maps = {}
    for prompt, name in names.items():
        is_taken = f"{name}{INSTANCES_ENDING}" in taken
        ending = "-instances" if is_taken else INSTANCES_ENDING
        maps[prompt] = folder / f"{name}{ending}.nii.gz"
    return maps
