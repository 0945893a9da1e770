"""A case to train on: in memory, or prepared on disk and read crop by crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textseg.datasets import Case
from textseg.datasets.label_map import read_pair, sample_voxels
from textseg.datasets.store import SUFFIX, StoredArray
from textseg.imaging import (
    Geometry,
    Grid,
    IntensityScale,
    Source,
    Volume,
    intensity_scale,
    ras_spacing_mm,
    to_grid,
)
from textseg.network.report_encoder import ReportEncoder
from textseg.training.body import body_distances
from textseg.training.conditions import CaseReport, encode_report, scan_channels
from textseg.training.domain_labels import DomainLabels

Part = tuple[slice, slice, slice]


class Voxels(Protocol):
    """What part of an array can be had of: an array in memory, or a stored one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along X Y Z."""
        ...

    def __getitem__(self, part: Part, /) -> NDArray[Any]: ...


class ScanVoxels(NamedTuple):
    """One channel of a scan.

    Attributes:
        voxels: ``X Y Z`` raw intensities.
        scale: How those become model input.
    """

    voxels: Voxels
    scale: IntensityScale

    def read_image(self, part: Part) -> Tensor:
        """Raw intensities of a part, float32."""
        return torch.from_numpy(np.asarray(self.voxels[part], dtype=np.float32))


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A case, in RAS axis order at its own spacing.

    Attributes:
        id: Identifier of the case.
        dataset: Name of its data set.
        values: ``X Y Z``, values of its mask.
        table: Label of each value: 0 unlabelled, 1..L, above L unnamed tissues, IGNORE.
        known: ``K`` bool, the prompts annotated in this case.
        spacing_mm: Voxel size per axis.
        spots: Some voxels of each label there is, ``n 3``.
        image: ``X Y Z`` raw intensities of the scan, if there is one of a single channel.
        scale: How those become model input.
        distances: ``2 X Y Z`` body distances for CT synthesis.
        channels: A scan of several channels, by their names.
        report: What was reported of the scan.
    """

    id: str
    dataset: str
    values: Voxels
    table: Tensor
    known: Tensor
    spacing_mm: tuple[float, float, float]
    spots: Mapping[int, Tensor]
    image: Voxels | None = None
    scale: IntensityScale | None = None
    distances: Tensor | None = None
    channels: Mapping[str, ScanVoxels] = field(default_factory=dict)
    report: CaseReport | None = None

    @property
    def scan(self) -> Mapping[str, ScanVoxels]:
        """The channels of the scan by their names, "" where there is one; empty without a scan."""
        if self.image is None or self.scale is None:
            return self.channels
        return {"": ScanVoxels(self.image, self.scale)}

    @property
    def can_be_mirrored(self) -> bool:
        """Whether everything known of the case is known of its mirror image as well."""
        return self.report is None or self.report.mirrored is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X Y Z."""
        x, y, z = self.values.shape
        return x, y, z

    def read_labels(self, part: Part) -> Tensor:
        """Labels of a part of the case, int32."""
        table = self.table.numpy().astype(np.int32)
        return torch.from_numpy(table.take(np.asarray(self.values[part])))


def load_case(
    case: Case,
    labels: DomainLabels,
    *,
    with_body: bool = False,
    channels: Sequence[str] = (),
    encoder: ReportEncoder | None = None,
) -> TrainingCase:
    """A case ready to be sampled; what is prepared stays on disk.

    Args:
        case: A labelled case.
        labels: The domain's labels.
        with_body: Compute the body distances that CT synthesis needs.
        channels: Names of the channels that the domain takes; none for a single image.
        encoder: What makes tokens of its report; without one, the report is left out.

    Raises:
        InputError: A file is damaged, or scan and mask do not share a grid (E321).
        ModelError: The scan has none of the channels, or the encoder cannot take the report (E404).
    """
    names = scan_channels(case, channels) if case.has_scan else ()
    report = encode_report(case, encoder)
    if case.masks.get("") is not None and case.masks[""].suffix == SUFFIX and not with_body:
        return _stored(case, labels, names, report)
    scan, (seen, mask) = read_pair(case)
    values, spacing = _in_ras(mask.values.astype(np.float32), mask.geometry)
    table, known = labels.translate(seen, values=mask.present())
    held = values.astype(np.int32)
    count = len(labels.labels)
    spots = {
        label: torch.from_numpy(places)
        for label, places in sample_voxels(table.numpy()[held]).items()
        if 0 < label <= count
    }
    distances = None
    if with_body:
        distances = body_distances(table[torch.from_numpy(held).long()], spacing).half()
    single, several = _by_name({} if scan is None else _read_scan(scan, names))
    return TrainingCase(
        id=case.id,
        dataset=case.dataset,
        values=held.astype(np.int16 if held.max() < 2**15 else np.int32),
        table=table,
        known=known,
        spacing_mm=spacing,
        spots=spots,
        image=single and single.voxels,
        scale=single and single.scale,
        distances=distances,
        channels=several,
        report=report,
    )


def _stored(
    case: Case, labels: DomainLabels, names: Sequence[str], report: CaseReport | None
) -> TrainingCase:
    """A prepared case; only what was written beside its arrays is read."""
    values = StoredArray(case.masks[""])
    spots: Mapping[str, Any] = values.about["spots"]
    table, known = labels.translate(case, values=[int(value) for value in spots])
    by_label: dict[int, list[Tensor]] = {}
    for value, places in spots.items():
        if 0 < (label := int(table[int(value)])) <= len(labels.labels):
            by_label.setdefault(label, []).append(torch.tensor(places))
    files = {name: case.channels[name] for name in names}
    if case.image is not None:
        files[""] = case.image
    arrays = {name: StoredArray(path) for name, path in files.items()}
    single, several = _by_name(
        {name: ScanVoxels(a, IntensityScale(**a.about["scale"])) for name, a in arrays.items()}
    )
    return TrainingCase(
        id=case.id,
        dataset=case.dataset,
        values=values,
        table=table,
        known=known,
        spacing_mm=values.geometry.spacing_mm,
        spots={label: torch.cat(places) for label, places in by_label.items()},
        image=single and single.voxels,
        scale=single and single.scale,
        channels=several,
        report=report,
    )


def _read_scan(scan: Volume, names: Sequence[str]) -> dict[str, ScanVoxels]:
    """The channels of a scan that are wanted, "" for the only one."""
    places = {name: scan.channels.index(name) for name in names} or {"": 0}
    read = {name: _in_ras(scan.data[place], scan.geometry)[0] for name, place in places.items()}
    return {
        name: ScanVoxels(voxels, intensity_scale(torch.from_numpy(voxels), scan.modality))
        for name, voxels in read.items()
    }


def _by_name(scan: dict[str, ScanVoxels]) -> tuple[ScanVoxels | None, dict[str, ScanVoxels]]:
    """The channel without a name, and those that have one."""
    return scan.pop("", None), scan


def _in_ras(
    data: NDArray[np.float32], geometry: Geometry
) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """Voxels ``X Y Z`` in RAS axis order at their own spacing, and that spacing."""
    volume = Volume(data[None], geometry, None, Source(None, "array"))
    spacing = ras_spacing_mm(geometry)
    turned, _ = to_grid(volume, Grid(spacing))
    return turned[0].numpy(), spacing
