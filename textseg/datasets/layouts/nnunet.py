"""The layout of nnU-Net and of the Medical Segmentation Decathlon: ``dataset.json`` at the top."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from textseg.datasets.layouts.found import Found, Holds
from textseg.errors import ModelError

DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class Description:
    """What a ``dataset.json`` says, whichever version of the format it has.

    Attributes:
        channels: What each channel of a scan shows, in their order.
        labels: Value of the mask to name, background left out. Regions of nnU-Net (a name with
            several values) appear under each of their values.
        ending: Suffix of every file.
        pairs: Scan and mask where the file lists them, as the Decathlon's does.
    """

    channels: tuple[str, ...]
    labels: Mapping[int, tuple[str, ...]]
    ending: str
    pairs: tuple[tuple[Path, Path], ...]


class NnUNetLayout(BaseModel):
    """A folder with ``dataset.json``, ``imagesTr`` and ``labelsTr``.

    Scans are one 4-D file per case, as in the Decathlon, or one file per channel with the number
    of the channel at the end of its name, as in nnU-Net.

    Attributes:
        folder: The data set's folder below the root, ``.`` for the root itself.
        sequences: Names of the channels in their order, where the file's own are not the
            registry's.

    Source: Antonelli et al., Nature Communications 2022; Isensee et al., Nature Methods 2021.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["nnunet"]
    folder: str = "."
    sequences: tuple[str, ...] = ()

    @property
    def holds(self) -> Holds:
        """What the masks hold."""
        return "values"

    def find(self, root: Path, structures: Sequence[str]) -> list[Found]:
        """Training scans with their masks, in the order of their names.

        Args:
            root: Folder that holds ``folder``, or that folder.
            structures: Not needed; masks hold every structure.

        Raises:
            ModelError: E406, ``dataset.json`` is missing or damaged.
        """
        folder = root / self.folder
        if not (folder / DATASET_FILE).is_file() and (root / DATASET_FILE).is_file():
            folder = root
        about = read_description(folder / DATASET_FILE)
        pairs = about.pairs or tuple(_listed(folder, about.ending))
        names = self.sequences or (("",) if len(about.channels) == 1 else about.channels)
        return [
            Found(_stem(mask, about.ending), name, image, {"": mask}, volume_index)
            for name, channel in zip(names, range(len(about.channels)), strict=True)
            for scan, mask in pairs
            for image, volume_index in [_channel(scan, channel, about)]
            if image.is_file() and mask.is_file()
        ]


def read_description(path: Path) -> Description:
    """What the file says.

    Raises:
        ModelError: E406, it is missing, no JSON, or lacks channels or labels.
    """
    try:
        raw = json.loads(path.read_bytes())
        channels = raw.get("channel_names") or raw["modality"]
        return Description(
            channels=tuple(str(channels[key]) for key in sorted(channels, key=int)),
            labels=_labels(raw["labels"]),
            ending=raw.get("file_ending", ".nii.gz"),
            pairs=tuple(_pairs(path.parent, raw.get("training", ()))),
        )
    except OSError as error:
        raise ModelError(
            f"cannot be read ({error.strerror}).",
            code="E406",
            path=path,
            remedy="Name the folder that holds dataset.json, imagesTr and labelsTr.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"is not a description of a data set: {type(error).__name__} {error}.",
            code="E406",
            path=path,
        ) from error


def _labels(raw: Mapping[str, Any]) -> dict[int, tuple[str, ...]]:
    """Value to names, from ``{"1": "liver"}`` (Decathlon) or ``{"liver": 1}`` (nnU-Net)."""
    named: dict[int, list[str]] = {}
    for key, item in raw.items():
        if isinstance(item, str):
            values, name = [int(key)], item
        else:
            values, name = [int(v) for v in (item if isinstance(item, list) else [item])], key
        for value in values:
            if value != 0 and name != "ignore":
                named.setdefault(value, []).append(name)
    return {value: tuple(names) for value, names in sorted(named.items())}


def _pairs(folder: Path, training: Sequence[Any]) -> list[tuple[Path, Path]]:
    """Scans and masks the Decathlon's file lists; nnU-Net's lists numbers or nothing."""
    listed = [item for item in training if isinstance(item, dict)]
    return sorted((folder / item["image"], folder / item["label"]) for item in listed)


def _listed(folder: Path, ending: str) -> list[tuple[Path, Path]]:
    """Scan without its channel number, and mask, for every mask."""
    masks = sorted((folder / "labelsTr").glob(f"[!.]*{ending}"))
    return [(folder / "imagesTr" / mask.name, mask) for mask in masks]


def _channel(scan: Path, channel: int, about: Description) -> tuple[Path, int | None]:
    """File and volume of one channel."""
    numbered = scan.with_name(f"{_stem(scan, about.ending)}_{channel:04}{about.ending}")
    if numbered.is_file():
        return numbered, None
    return scan, channel if len(about.channels) > 1 else None


def _stem(path: Path, ending: str) -> str:
    return path.name.removesuffix(ending)
