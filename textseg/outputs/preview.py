"""A picture to judge masks by: axial, coronal and sagittal planes, outlines over the scan.

Radiological display: the patient's right is on the left of axial and coronal planes, the front is
up in axial and on the left in sagittal planes, and every plane has its true proportions.
"""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textseg.errors import ModelError
from textseg.imaging import affine as affines
from textseg.imaging.volume import Modality, Volume
from textseg.outputs.statistics import plane_counts

__all__ = ["require_matplotlib", "write_preview"]

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]

BACKGROUND, TEXT, FAINT = "#0d1014", "#e8edf2", "#8a94a0"
SOFT_TISSUE_HU = (-160.0, 240.0)
# bright on grey anatomy and apart from one another, also with red-green colour blindness
COLOURS = (
    "#ffb000",
    "#3fc5f0",
    "#ff5f9e",
    "#7ee081",
    "#b18cff",
    "#ff7a45",
    "#f4e04d",
    "#2dd4bf",
    "#e879f9",
    "#9db4ff",
)
_FILL_ALPHA = 0.22
_PANEL_HEIGHT_INCHES = 4.2
_LEAST_WIDTH_INCHES = 7.5
_MAX_LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class Plane:
    """One of the three views, in terms of right-anterior-superior axes.

    Attributes:
        across: The axis that the plane is perpendicular to.
        right: Axis along the picture's width, and whether it runs towards the right edge.
        up: Axis along the picture's height, running towards the upper edge.
        letters: What lies at the left, right, lower and upper edge.
    """

    name: str
    across: int
    right: tuple[int, bool]
    up: int
    letters: tuple[str, str, str, str]


PLANES = (
    Plane("axial", 2, (0, False), 1, ("R", "L", "P", "A")),
    Plane("coronal", 1, (0, False), 2, ("R", "L", "I", "S")),
    Plane("sagittal", 0, (1, False), 2, ("A", "P", "I", "S")),
)


@dataclass(frozen=True)
class Structure:
    """One mask as the picture shows it."""

    name: str
    colour: str
    volume_ml: float
    slices: tuple[Mask, Mask, Mask]


def require_matplotlib() -> None:
    """Returns if a preview can be drawn.

    Raises:
        ModelError: matplotlib is not installed (E403).
    """
    if importlib.util.find_spec("matplotlib") is None:
        cause = "A preview needs matplotlib, which is not installed."
        raise ModelError(cause, code="E403", remedy='Run: pip install "textseg[viewer]"')


def write_preview(target: Path | BytesIO, volume: Volume, masks: Mapping[str, Mask]) -> None:
    """Writes a PNG of the three planes that show most of the masks.

    Args:
        target: Where to write; PNG whatever its suffix.
        volume: The scan; its first channel is drawn.
        masks: By name, on the volume's grid; each is looked at twice, one at a time.

    Raises:
        ModelError: matplotlib is not installed (E403).
    """
    require_matplotlib()
    indices = best_planes(volume, masks)
    structures = [
        Structure(
            name=name,
            colour=colour_of(index),
            volume_ml=int(np.count_nonzero(mask)) * volume.geometry.voxel_volume_ml,
            slices=slices_of(mask, volume, indices),
        )
        for index, (name, mask) in enumerate(masks.items())
    ]
    _draw(target, volume, structures, indices)


def colour_of(index: int) -> str:
    """A colour of its own for each structure: the table first, then hues by the golden ratio."""
    if index < len(COLOURS):
        return COLOURS[index]
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1.0, 0.55, 1.0)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def best_planes(volume: Volume, masks: Mapping[str, Mask]) -> tuple[int, int, int]:
    """For each RAS axis the plane in which the masks, each by its own size, show most."""
    permutation, flips = affines.closest_axes(volume.geometry.affine)
    shape = [volume.geometry.shape[axis] for axis in permutation]
    scores = [np.zeros(size) for size in shape]
    for mask in masks.values():
        counts = plane_counts(mask)
        for axis in range(3):
            area = counts[permutation[axis]][:: -1 if flips[axis] else 1]
            scores[axis] += area / max(1, int(area.max()))
    x, y, z = (
        int(score.argmax()) if score.any() else size // 2
        for score, size in zip(scores, shape, strict=True)
    )
    return x, y, z


def _turned(array: NDArray[Any], volume: Volume) -> NDArray[Any]:
    """A view with axes closest to right, anterior, superior."""
    permutation, flips = affines.closest_axes(volume.geometry.affine)
    turned = array.transpose(permutation)
    x, y, z = (slice(None, None, -1 if flipped else 1) for flipped in flips)
    return turned[x, y, z]


def slices_of(
    array: NDArray[Any], volume: Volume, indices: tuple[int, int, int]
) -> tuple[Any, Any, Any]:
    """The array's three planes as pictures: rows from the bottom up, columns left to right."""
    turned = _turned(array, volume)
    pictures = []
    for plane in PLANES:
        picture = np.take(turned, indices[plane.across], axis=plane.across)
        # of the two axes left, the picture's width is always the first
        columns = picture if plane.right[1] else picture[::-1]
        pictures.append(np.ascontiguousarray(columns.T))
    axial, coronal, sagittal = pictures
    return axial, coronal, sagittal


def _draw(
    target: Path | BytesIO,
    volume: Volume,
    structures: Sequence[Structure],
    indices: tuple[int, int, int],
) -> None:
    # Figure without pyplot: no global state, no window system, safe in threads
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = [size_mm(plane, volume) for plane in PLANES]
    tallest = max(height for _, height in sizes)
    inches_per_mm = _PANEL_HEIGHT_INCHES / tallest
    widths = [width * inches_per_mm for width, _ in sizes]
    num_rows = -(-len(structures) // _MAX_LEGEND_COLUMNS) if len(structures) > 1 else 0
    top, bottom, gap = 0.62, 0.28 + 0.26 * num_rows, 0.16
    # room for the title above scans that are tall and thin
    width = max(_LEAST_WIDTH_INCHES, sum(widths) + gap * 4)
    height = top + _PANEL_HEIGHT_INCHES + bottom
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND, dpi=160)
    FigureCanvasAgg(figure)
    window = grey_window(volume.data[0], volume.modality)
    left = (width - sum(widths) - gap * 2) / 2
    scans = slices_of(volume.data[0], volume, indices)
    for number, (plane, scan) in enumerate(zip(PLANES, scans, strict=True)):
        panel_height = sizes[number][1] * inches_per_mm
        offset = bottom + (_PANEL_HEIGHT_INCHES - panel_height) / 2
        box = (left / width, offset / height, widths[number] / width, panel_height / height)
        axes = figure.add_axes(box)
        draw_plane(axes, plane, scan, number, structures=structures, volume=volume, window=window)
        left += widths[number] + gap
    _draw_texts(figure, volume, structures, top=1 - 0.26 / height, bottom=0.12 / height)
    figure.savefig(target, format="png", facecolor=BACKGROUND, metadata={"Software": "textseg"})


def size_mm(plane: Plane, volume: Volume) -> tuple[float, float]:
    """Width and height of a plane's picture."""
    extent = _extent_mm(volume)
    return extent[plane.right[0]], extent[plane.up]


def _extent_mm(volume: Volume) -> list[float]:
    permutation, _ = affines.closest_axes(volume.geometry.affine)
    return [volume.geometry.shape[axis] * volume.geometry.spacing_mm[axis] for axis in permutation]


def grey_window(data: Image, modality: Modality | None) -> tuple[float, float]:
    """Intensities shown as black and white: soft tissue for CT, else most of what is not air."""
    if modality == "ct":
        return SOFT_TISSUE_HU
    # every few voxels are plenty for a percentile, and sorting all of them is slow
    step = max(1, round((data.size / 2_000_000) ** (1 / 3)))
    sample = data[::step, ::step, ::step]
    tissue = sample[sample > sample.min()]
    if not tissue.size:
        return float(sample.min()), float(sample.min()) + 1.0
    low, high = np.percentile(tissue, [1.0, 99.5])
    return float(low), max(float(high), float(low) + 1e-6)


def draw_plane(
    axes: Any,
    plane: Plane,
    scan: Image,
    number: int,
    *,
    structures: Sequence[Structure],
    volume: Volume,
    window: tuple[float, float],
) -> None:
    width, height = size_mm(plane, volume)
    extent = (0.0, width, 0.0, height)
    axes.set_facecolor("black")
    axes.imshow(
        scan,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        extent=extent,
        origin="lower",
        interpolation="bilinear",
        aspect="equal",
    )
    for structure in structures:
        fill_mask(axes, structure.slices[number], structure.colour, extent=extent)
        outline_mask(axes, structure.slices[number], structure.colour, extent=extent)
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    _draw_letters(axes, plane)


def fill_mask(
    axes: Any,
    mask: Mask,
    colour: str,
    *,
    extent: tuple[float, float, float, float],
    alpha: float = _FILL_ALPHA,
) -> None:
    """A layer of colour through which the scan is seen."""
    from matplotlib.colors import to_rgb

    layer = np.zeros((*mask.shape, 4), dtype=np.float32)
    layer[..., :3] = to_rgb(colour)
    layer[..., 3] = mask * alpha
    axes.imshow(layer, extent=extent, origin="lower", interpolation="nearest", aspect="equal")


def draw_legend(
    figure: Any,
    handles: Sequence[Any],
    labels: Sequence[str],
    *,
    corner: tuple[float, float],
    ncols: int,
    fontsize: float = 9,
) -> None:
    """What the colours mean, from the lower left corner, a share of the figure, upwards."""
    legend = figure.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=corner,
        ncols=ncols,
        frameon=False,
        fontsize=fontsize,
        labelcolor=TEXT,
        handlelength=1.2,
        handleheight=0.6,
        borderpad=0,
        borderaxespad=0,
        columnspacing=2.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def outline_mask(
    axes: Any, mask: Mask, colour: str, *, extent: tuple[float, float, float, float]
) -> None:
    """A crisp line, halfway between voxels inside and outside."""
    if not mask.any():
        return
    rows, columns = mask.shape
    # one row of zeros all around closes outlines that run along the picture's edge
    x = (np.arange(-1, columns + 1) + 0.5) * extent[1] / columns
    y = (np.arange(-1, rows + 1) + 0.5) * extent[3] / rows
    inside = np.pad(mask.astype(np.float32), 1)
    axes.contour(x, y, inside, levels=[0.5], colors=[colour], linewidths=1.1, antialiased=True)


def _draw_letters(axes: Any, plane: Plane) -> None:
    left, right, lower, upper = plane.letters
    places = (
        (left, 0.015, 0.5, "left", "center"),
        (right, 0.985, 0.5, "right", "center"),
        (lower, 0.5, 0.015, "center", "bottom"),
        (upper, 0.5, 0.985, "center", "top"),
    )
    for letter, x, y, horizontal, vertical in places:
        _write(axes, letter, (x, y), align=(horizontal, vertical), size=9, colour=TEXT)
    _write(axes, plane.name, (0.02, 0.985), align=("left", "top"), size=7.5, colour=FAINT)


def _write(
    axes: Any,
    text: str,
    at: tuple[float, float],
    *,
    align: tuple[str, str],
    size: float,
    colour: str,
) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        *at,
        text,
        ha=align[0],
        va=align[1],
        fontsize=size,
        color=colour,
        transform=axes.transAxes,
        # dark rim: the letters stay readable over bright bone
        path_effects=[withStroke(linewidth=1.8, foreground="black")],
        parse_math=False,
    )


def _draw_texts(
    figure: Any, volume: Volume, structures: Sequence[Structure], *, top: float, bottom: float
) -> None:
    from matplotlib.lines import Line2D

    labels = [f"{_short(s.name)}  ·  {_volume_text(s.volume_ml)}" for s in structures]
    margin = 0.16 / figure.get_figwidth()
    title = labels[0] if len(labels) == 1 else f"{len(labels)} structures"
    colour = structures[0].colour if len(structures) == 1 else TEXT
    look = {"va": "center", "parse_math": False}
    figure.text(margin, top, title, color=colour, fontsize=13, weight="bold", **look)
    scan = _scan_text(volume)
    figure.text(1 - margin, top, scan, color=FAINT, fontsize=8, ha="right", **look)
    if len(structures) > 1:
        handles = [
            Line2D([], [], color=s.colour, linewidth=3, solid_capstyle="butt") for s in structures
        ]
        columns = min(len(structures), _MAX_LEGEND_COLUMNS)
        draw_legend(figure, handles, labels, corner=(margin, bottom), ncols=columns)


def _scan_text(volume: Volume) -> str:
    name = volume.source.path.name if volume.source.path else "scan in memory"
    spacing = " x ".join(f"{step:.3g}" for step in volume.geometry.spacing_mm)
    return f"{_short(name)}    {(volume.modality or 'unknown modality').upper()}    {spacing} mm"


def _short(text: str, *, limit: int = 48) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= limit else f"{printable[: limit - 1]}…"


def _volume_text(volume_ml: float) -> str:
    """Three significant digits, without exponents.

    >>> _volume_text(1523.4), _volume_text(15.234), _volume_text(0.01523)
    ('1523 ml', '15.2 ml', '0.0152 ml')
    """
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.3g} ml"
