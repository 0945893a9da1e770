"""Pictures of what the network makes of the validation scans, drawn while it trains."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from textseg.atomic import make_folder, write_atomically
from textseg.datasets import load_cases
from textseg.errors import ModelError
from textseg.imaging import Volume
from textseg.outputs import preview
from textseg.training.metrics import dice
from textseg.training.validation import ValidationCase, answer_case

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

_WIDTH_INCHES, _MOST_ROW_INCHES, _TITLE_INCHES, _LEGEND_ROW_INCHES = 9.0, 4.5, 0.5, 0.26
_LEGEND_COLUMNS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """A structure as the reference has it and as the network found it, on the scan's grid."""

    name: str
    reference: Mask
    prediction: Mask


class SampleOverlays(lightning.Callback):
    """Draws predicted beside reference outlines after each validation.

    A PNG a scan, ``overlays/epoch=0003-<case>.png``, which TensorBoard and W&B are shown as well.
    Averaged weights (``EMAWeightAveraging``) are drawn where those are validated. Needs
    matplotlib; without it there is one warning and no picture.

    Args:
        folder: Where ``overlays`` goes; the log's folder by default.
        cases: Scans of each domain, its first ones.
        prompts: Structures of a scan, its largest ones.
    """

    def __init__(self, folder: str | None = None, cases: int = 1, prompts: int = 6) -> None:
        self.folder = folder
        self.cases = cases
        self.prompts = prompts
        self._can_draw = True

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Warns if there will be no pictures."""
        try:
            preview.require_matplotlib()
        except ModelError as error:
            self._can_draw = False
            logger.warning("no overlays: %s", error)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws after the last scan, while the weights are still those that were scored."""
        if trainer.sanity_checking or batch_idx + 1 < trainer.num_val_batches[dataloader_idx]:
            return
        # every process has to ask for the log's folder
        folder = Path(self.folder or trainer.log_dir or trainer.default_root_dir) / "overlays"
        if self._can_draw and trainer.is_global_zero:
            self._draw(trainer, pl_module, folder)

    def _draw(
        self, trainer: lightning.Trainer, task: lightning.LightningModule, folder: Path
    ) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        listed = {(case.dataset, case.id): case for case in load_cases(datamodule.cases_path)}
        make_folder(folder)
        for case in self._first(datamodule.validation):
            shown = _compare(task, datamodule, _largest(case, self.prompts))
            volume = listed[case.dataset, case.id].read_image()
            name = re.sub(r"[^\w.-]+", "_", case.id)
            path = folder / f"epoch={trainer.current_epoch:04d}-{name}.png"
            write_overlay(path, volume, shown, title=f"{case.id}, epoch {trainer.current_epoch}")
            for each in trainer.loggers:
                _show(each, f"overlays/{name}", path, step=trainer.global_step)

    def _first(self, cases: Sequence[ValidationCase]) -> Iterator[ValidationCase]:
        """The first scans of every domain."""
        for domain in sorted({case.domain for case in cases}):
            yield from [case for case in cases if case.domain == domain][: self.cases]


def write_overlay(
    path: Path, volume: Volume, structures: Sequence[Compared], *, title: str = ""
) -> None:
    """Writes a PNG: three planes with the reference masks, and below them with the predicted ones.

    The planes are those that show most of the reference, whose outlines the lower row repeats as
    dashed lines.

    Args:
        path: Where to write; a picture that is there is replaced.
        volume: The scan.
        structures: What to draw, on the scan's grid.
        title: Stands above.
    """
    figure = _figure(volume, structures, title)

    def write(temporary: Path) -> None:
        figure.savefig(temporary, format="png", facecolor=preview.BACKGROUND)

    write_atomically(path, write, suffix=".png", overwrite=True)


def _largest(case: ValidationCase, count: int) -> ValidationCase:
    """The case with its largest structures only, the largest first."""
    held, sizes = np.unique(case.reference, return_counts=True)
    size = dict(zip(held.tolist(), sizes.tolist(), strict=True))
    voxels = {row: sum(size.get(v, 0) for v in values) for row, values in case.values.items()}
    rows = sorted(voxels, key=lambda row: -voxels[row])[:count]
    return dataclasses.replace(case, values={row: case.values[row] for row in rows})


def _compare(task: Any, datamodule: Any, case: ValidationCase) -> list[Compared]:
    """The structures of a case beside what the network finds of them."""
    domain = datamodule.domains[case.domain]
    queries, labels = datamodule.prompts[case.domain]
    space = labels.space
    answers = answer_case(task.network, case, queries[domain.modality], window=domain.window)
    return [
        Compared(
            name=space.tree[space.concepts[row]].name,
            reference=np.isin(case.reference, case.values[row]),
            prediction=answer.mask,
        )
        for row, answer in answers
    ]


def _figure(volume: Volume, structures: Sequence[Compared], title: str) -> Any:
    # Figure without pyplot: no global state, no window system
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    indices = preview.best_planes(volume, {s.name: s.reference for s in structures})
    reference = [_drawn(s, s.reference, k, volume, indices) for k, s in enumerate(structures)]
    found = [_drawn(s, s.prediction, k, volume, indices) for k, s in enumerate(structures)]
    widths, heights = zip(*(preview.size_mm(p, volume) for p in preview.PLANES), strict=True)
    row = max(heights) * min(_WIDTH_INCHES / sum(widths), _MOST_ROW_INCHES / max(heights))
    below = 0.2 + _LEGEND_ROW_INCHES * -(-len(structures) // _LEGEND_COLUMNS)
    height = _TITLE_INCHES + 2 * row + 0.15 + below
    figure = Figure((_WIDTH_INCHES + 0.6, height), facecolor=preview.BACKGROUND, dpi=130)
    FigureCanvasAgg(figure)
    edges = {"top": 1 - _TITLE_INCHES / height, "bottom": below / height}
    figure.subplots_adjust(left=0.04, right=0.98, wspace=0.03, hspace=0.15 / row, **edges)
    panels = figure.subplots(2, 3, width_ratios=widths)
    _draw_rows(panels, volume, indices, reference=reference, found=found)
    _draw_texts(figure, title, reference, height=height)
    return figure


def _drawn(
    structure: Compared, mask: Mask, number: int, volume: Volume, indices: tuple[int, int, int]
) -> preview.Structure:
    """One of a structure's two masks as the picture shows it."""
    return preview.Structure(
        name=f"{structure.name}, Dice {dice(structure.prediction, structure.reference):.2f}",
        colour=preview.colour_of(number),
        volume_ml=int(np.count_nonzero(mask)) * volume.geometry.voxel_volume_ml,
        slices=preview.slices_of(mask, volume, indices),
    )


def _draw_rows(
    panels: Any,
    volume: Volume,
    indices: tuple[int, int, int],
    *,
    reference: Sequence[preview.Structure],
    found: Sequence[preview.Structure],
) -> None:
    scans = preview.slices_of(volume.data[0], volume, indices)
    window = preview.grey_window(volume.data[0], volume.modality)
    rows = (("reference", reference), ("prediction", found))
    for axes, (name, structures) in zip(panels, rows, strict=True):
        for number, plane in enumerate(preview.PLANES):
            preview.draw_plane(
                axes[number],
                plane,
                scans[number],
                number,
                structures=structures,
                volume=volume,
                window=window,
            )
        axes[0].set_ylabel(name, color=preview.TEXT, fontsize=10)
    for structure in reference:
        for axes, mask in zip(panels[1], structure.slices, strict=True):
            _dash(axes, mask, structure.colour)


def _dash(axes: Any, mask: Mask, colour: str) -> None:
    """The mask's outline as a dashed line."""
    if not mask.any():
        return
    _, width, _, height = axes.get_images()[0].get_extent()
    rows, columns = mask.shape
    # one row of zeros all around closes outlines that run along the picture's edge
    x, y = width / columns / 2, height / rows / 2
    axes.contour(
        np.pad(mask.astype(np.float32), 1),
        levels=[0.5],
        extent=(-x, width + x, -y, height + y),
        colors=[colour],
        linewidths=1.1,
        linestyles="dashed",
    )


def _draw_texts(
    figure: Any, title: str, structures: Sequence[preview.Structure], *, height: float
) -> None:
    """The title above, and what the colours mean below."""
    from matplotlib.lines import Line2D

    top = 1 - _TITLE_INCHES / 2 / height
    look = {"va": "center", "parse_math": False}
    figure.text(0.02, top, title, color=preview.TEXT, fontsize=12, **look)
    note = "dashed: outline of the reference"
    figure.text(0.98, top, note, color=preview.FAINT, fontsize=9, ha="right", **look)
    preview.draw_legend(
        figure,
        [Line2D([], [], color=s.colour, linewidth=3) for s in structures],
        [s.name for s in structures],
        corner=(0.02, 0.1 / height),
        ncols=_LEGEND_COLUMNS,
    )


def _show(each: Any, name: str, path: Path, *, step: int) -> None:
    """Hands a picture to W&B or TensorBoard; other loggers have no place for one."""
    if hasattr(each, "log_image"):
        each.log_image(name, [str(path)], step=step)
    elif hasattr(each.experiment, "add_image"):
        from matplotlib.image import imread

        each.experiment.add_image(name, imread(path)[..., :3], step, dataformats="HWC")
