"""Pictures for a model's card: of a scan, the structures it finds best and those it finds worst."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from textseg.atomic import make_folder, write_atomically
from textseg.datasets import Case, LabelSpace
from textseg.imaging import Geometry, Volume
from textseg.outputs import preview
from textseg.training.metrics import dice
from textseg.training.overlays import Compared
from textseg.training.scores import (
    CaseScore,
    ModelScores,
    ScanSegmenter,
    StructureScore,
    prompt_for,
    read_scan,
)

__all__ = ["CardPicture", "pictures_section", "write_pictures"]

Kind: TypeAlias = Literal["good", "failure"]

FOLDER = "pictures"
LEAST_SHOWN, MOST_SHOWN = 4, 6
"""Structures of a picture; a scan has enough of them for two pictures that share none."""
MOST_BYTES = 60_000

_RANKS: Mapping[Kind, str] = {"good": "highest", "failure": "lowest"}
_HEADS: Mapping[Kind, str] = {"good": "Best", "failure": "Worst"}
_WIDTH_INCHES, _MOST_ROW_INCHES, _TITLE_INCHES, _LEGEND_ROW_INCHES = 7.2, 3.2, 0.4, 0.22
_LEGEND_COLUMNS = 2
_FILL_ALPHA = 0.45
_MOST_DPI, _LEAST_DPI, _DPI_STEP = 120, 40, 10
_MARGIN_MM = 15.0


@dataclass(frozen=True)
class CardPicture:
    """A picture that was written.

    Attributes:
        file: Its path, from the folder of the card on, with ``/`` between folders.
        caption: What it shows, as one line of Markdown.
        kind: Whether it shows what the model does best or worst on the scan.
        case_id: The scan.
    """

    file: str
    caption: str
    kind: Kind
    case_id: str


def write_pictures(
    folder: Path,
    scores: ModelScores,
    *,
    segmenter: ScanSegmenter,
    cases: Sequence[Case],
    most_scans: int = 2,
) -> list[CardPicture]:
    """Draws a good example and a failure of each scan that holds enough structures.

    Args:
        folder: Where ``CARD.md`` lies; the pictures go to ``pictures`` in it and replace those of
            the same names.
        scores: Say which structures of which scans the model finds best and worst.
        segmenter: The model that was scored.
        cases: Every scored scan is among them.
        most_scans: Scans of a data set, its first ones.

    Raises:
        ModelError: matplotlib is not installed (E403).
    """
    preview.require_matplotlib()
    listed = {(case.dataset, case.id): case for case in cases}
    written: list[CardPicture] = []
    for score in _scans_to_show(scores.cases, most_scans):
        make_folder(folder / FOLDER)
        written += _write_scan(folder, score, segmenter, listed[score.dataset, score.id])
    return written


def pictures_section(pictures: Sequence[CardPicture]) -> str:
    """The section of a card that shows the pictures, in Markdown."""
    lines = ["## Pictures", ""]
    if not pictures:
        least = 2 * LEAST_SHOWN
        return "\n".join([*lines, f"No validation scan holds {least} structures to show."])
    lines.append(
        "Lines are outlines of the reference, colored areas the model's masks. Each scan is shown "
        "twice: the structures with the highest Dice, whatever it is, then those with the lowest. "
        "The planes are those with most of the reference; a small structure may lie beside them."
    )
    for picture in pictures:
        title = f"{picture.case_id}, {_RANKS[picture.kind]} Dice"
        lines += ["", f"![{title}]({picture.file})", "", picture.caption]
    return "\n".join(lines)


def _scans_to_show(scores: Sequence[CaseScore], most_scans: int) -> list[CaseScore]:
    """The first scans of each data set among those with enough structures."""
    shown: dict[str, list[CaseScore]] = {}
    for score in scores:
        if len(score.structures) >= 2 * LEAST_SHOWN:
            shown.setdefault(score.dataset, []).append(score)
    return [score for group in shown.values() for score in group[:most_scans]]


def _ranked(score: CaseScore) -> dict[Kind, list[StructureScore]]:
    """The best and the worst structures; of those with the same Dice, the largest."""
    count = min(MOST_SHOWN, len(score.structures) // 2)
    best = sorted(score.structures, key=lambda row: (-row.dice, -row.reference_ml))[:count]
    others = [row for row in score.structures if row not in best]
    worst = sorted(others, key=lambda row: (row.dice, -row.reference_ml))[:count]
    return {"good": best, "failure": worst}


def _write_scan(
    folder: Path, score: CaseScore, segmenter: ScanSegmenter, case: Case
) -> list[CardPicture]:
    """Both pictures of a scan, which is segmented once."""
    ranked = _ranked(score)
    volume, compared = _compare(
        segmenter, case, score.domain, [*ranked["good"], *ranked["failure"]]
    )
    written = []
    for kind, rows in ranked.items():
        shown = [compared[row.concept] for row in rows]
        name = re.sub(r"[^\w.-]+", "_", f"{score.dataset}-{score.id}-{kind}") + ".png"
        title = f"{score.id}: {_RANKS[kind]} Dice of {len(score.structures)} structures"
        _write(folder / FOLDER / name, _small_png(_figure(*_cut_out(volume, shown), title)))
        written.append(
            CardPicture(f"{FOLDER}/{name}", _caption(score, kind, shown), kind, score.id)
        )
    return written


def _compare(
    segmenter: ScanSegmenter, case: Case, domain: str, rows: Sequence[StructureScore]
) -> tuple[Volume, dict[str, Compared]]:
    """The scan, and of each structure the reference beside what the model finds."""
    [offered] = [each.concepts for each in segmenter.manifest.domains if each.name == domain]
    pair, values = read_scan(case, LabelSpace(tuple(offered), segmenter.tree))
    prompts = {row.concept: prompt_for(segmenter, row.concept) for row in rows}
    result = segmenter(pair.scan, list(prompts.values()), modality=case.modality)
    return pair.scan, {
        row.concept: Compared(
            name=row.name,
            reference=np.isin(pair.labels, values[row.concept]),
            prediction=result[prompts[row.concept]].mask,
        )
        for row in rows
    }


def _cut_out(volume: Volume, structures: Sequence[Compared]) -> tuple[Volume, list[Compared]]:
    """The part of the scan that holds all references and masks, with a margin around it."""
    shape, spacing = volume.geometry.shape, volume.geometry.spacing_mm
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        held = [mask.any(axis=others) for s in structures for mask in (s.reference, s.prediction)]
        places = np.flatnonzero(np.any(held, axis=0))
        margin = round(_MARGIN_MM / spacing[axis])
        box.append((max(0, places[0] - margin), min(shape[axis], places[-1] + margin + 1)))
    x, y, z = (slice(start, stop) for start, stop in box)
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.to_world(np.array([[start for start, _ in box]]))[0]
    data = volume.data[:, x, y, z]
    part = Volume(data, Geometry(data.shape[1:], affine), volume.modality, volume.source)
    return part, [Compared(s.name, s.reference[x, y, z], s.prediction[x, y, z]) for s in structures]


def _caption(score: CaseScore, kind: Kind, shown: Sequence[Compared]) -> str:
    return (
        f"**{_HEADS[kind]}** on {score.id} ({score.dataset}): the {len(shown)} of "
        f"{len(score.structures)} structures with the {_RANKS[kind]} Dice: "
        f"{', '.join(map(_with_dice, shown))}."
    )


def _with_dice(structure: Compared) -> str:
    """Name and Dice of what is drawn."""
    missed = "" if structure.prediction.any() else " (no mask)"
    return f"{structure.name} {dice(structure.prediction, structure.reference):.2f}{missed}"


def _write(path: Path, png: bytes) -> None:
    def put(temporary: Path) -> None:
        temporary.write_bytes(png)

    write_atomically(path, put, overwrite=True)


def _small_png(figure: Any) -> bytes:
    """The figure as sharp as the limit of bytes allows."""
    from PIL import Image

    stored = BytesIO()
    for dpi in range(_MOST_DPI, _LEAST_DPI - 1, -_DPI_STEP):
        drawn, stored = BytesIO(), BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, facecolor=preview.BACKGROUND)
        with Image.open(drawn) as picture:
            # the default method merges the rare colours of small structures into one
            few = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
        few.save(stored, "PNG", optimize=True)
        if stored.tell() <= MOST_BYTES:
            break
    return stored.getvalue()


def _figure(volume: Volume, structures: Sequence[Compared], title: str) -> Any:
    # Figure without pyplot: no global state, no window system
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widths, heights = zip(*(preview.size_mm(p, volume) for p in preview.PLANES), strict=True)
    row = max(heights) * min(_WIDTH_INCHES / sum(widths), _MOST_ROW_INCHES / max(heights))
    below = 0.2 + _LEGEND_ROW_INCHES * -(-len(structures) // _LEGEND_COLUMNS)
    height = _TITLE_INCHES + row + below
    figure = Figure((_WIDTH_INCHES, height), facecolor=preview.BACKGROUND)
    FigureCanvasAgg(figure)
    edges = {"top": 1 - _TITLE_INCHES / height, "bottom": below / height}
    figure.subplots_adjust(left=0.015, right=0.985, wspace=0.03, **edges)
    panels = figure.subplots(1, 3, width_ratios=widths)
    _draw_planes(panels, volume, structures)
    _draw_texts(figure, title, structures, height=height)
    return figure


def _draw_planes(panels: Any, volume: Volume, structures: Sequence[Compared]) -> None:
    """The planes that show most of the reference."""
    indices = preview.best_planes(volume, {s.name: s.reference for s in structures})
    window = preview.grey_window(volume.data[0], volume.modality)
    scans = preview.slices_of(volume.data[0], volume, indices)
    for number, (axes, plane) in enumerate(zip(panels, preview.PLANES, strict=True)):
        look: dict[str, Any] = {"structures": (), "volume": volume, "window": window}
        preview.draw_plane(axes, plane, scans[number], number, **look)
    for place, structure in enumerate(structures):
        colour = preview.colour_of(place)
        references = preview.slices_of(structure.reference, volume, indices)
        found = preview.slices_of(structure.prediction, volume, indices)
        for axes, reference, mask in zip(panels, references, found, strict=True):
            extent = axes.get_images()[0].get_extent()
            preview.fill_mask(axes, mask, colour, extent=extent, alpha=_FILL_ALPHA)
            preview.outline_mask(axes, reference, colour, extent=extent)


def _draw_texts(figure: Any, title: str, structures: Sequence[Compared], *, height: float) -> None:
    """The title above, and what the colours mean below."""
    from matplotlib.patches import Patch

    top = 1 - _TITLE_INCHES / 2 / height
    look = {"va": "center", "parse_math": False}
    figure.text(0.015, top, title, color=preview.TEXT, fontsize=9, **look)
    note = "line: reference    area: mask"
    figure.text(0.985, top, note, color=preview.FAINT, fontsize=8, ha="right", **look)
    preview.draw_legend(
        figure,
        [Patch(color=preview.colour_of(place)) for place in range(len(structures))],
        [_with_dice(structure) for structure in structures],
        corner=(0.015, 0.1 / height),
        ncols=_LEGEND_COLUMNS,
        fontsize=8.5,
    )
