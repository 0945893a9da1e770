from __future__ import annotations

import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from textseg.errors import ModelError
from textseg.imaging.volume import Geometry, Source, Volume
from textseg.outputs.preview import BACKGROUND, COLOURS, write_preview


def scan(codes, *, shape=(30, 24, 18), modality="ct"):
    """A scan whose array axes run along the given directions, 1 x 2 x 4 mm, and its mask.

    The mask is a small box far to the right, the front and the top of the patient.
    """
    signs = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    mask = np.ones(shape, dtype=bool)
    for axis, (code, step) in enumerate(zip(codes, (1, 2, 4), strict=True)):
        world, sign = signs[code]
        affine[world, axis] = sign * step
        far = range(2, 6) if sign < 0 else range(shape[axis] - 6, shape[axis] - 2)
        inside = np.isin(np.arange(shape[axis]), far)
        mask &= np.expand_dims(inside, [other for other in range(3) if other != axis])
    data = np.full((1, *shape), 100, dtype=np.float32)
    return Volume(data, Geometry(shape, affine), modality, Source(None, "array")), mask


def read_panels(path):
    """The picture's panels, left to right."""
    picture = matplotlib.image.imread(path)[..., :3]
    inked = np.abs(picture - to_rgb(BACKGROUND)).max(axis=2) > 0.02
    middle = inked[int(picture.shape[0] * 0.55)]
    edges = np.flatnonzero(np.diff(np.r_[False, middle, False].astype(int)))
    panels = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start < 40:
            continue
        column = inked[:, (start + stop) // 2 - 9]
        rows = np.flatnonzero(np.diff(np.r_[False, column, False].astype(int)))
        longest = np.argmax(rows[1::2] - rows[::2])
        panels.append(picture[rows[2 * longest] : rows[2 * longest + 1], start:stop])
    return panels


def place_of(panel, colour):
    """Mean position of a colour, as fractions of width from the left and height from the top."""
    ink = np.abs(panel - to_rgb(colour)).max(axis=2) < 0.1
    rows, columns = np.nonzero(ink)
    assert len(rows) > 20
    return columns.mean() / panel.shape[1], rows.mean() / panel.shape[0]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA", "AIL"])
def test_planes_follow_radiological_display_whatever_the_axis_order(codes, tmp_path):
    volume, mask = scan(codes)
    write_preview(tmp_path / "p.png", volume, {"right kidney": mask})
    axial, coronal, sagittal = read_panels(tmp_path / "p.png")
    for panel in (axial, coronal):
        x, y = place_of(panel, COLOURS[0])
        assert x < 0.5, "the patient's right is on the left"
        assert y < 0.5, "front and head are up"
    x, y = place_of(sagittal, COLOURS[0])
    assert x < 0.5, "the front is on the left"
    assert y < 0.5, "the head is up"


def test_panels_have_the_proportions_of_the_patient(tmp_path):
    volume, mask = scan("RAS")
    write_preview(tmp_path / "p.png", volume, {"right kidney": mask})
    # 30 x 48 x 72 mm
    shapes = [panel.shape for panel in read_panels(tmp_path / "p.png")]
    ratios = [width / height for height, width, _ in shapes]
    assert ratios == pytest.approx([30 / 48, 30 / 72, 48 / 72], rel=0.02)


def test_each_of_several_masks_has_its_own_colour(tmp_path):
    volume, mask = scan("RAS")
    masks = {"first": mask, "second": np.roll(mask, -9, axis=0)}
    write_preview(tmp_path / "p.png", volume, masks)
    axial = read_panels(tmp_path / "p.png")[0]
    first, second = (place_of(axial, colour)[0] for colour in COLOURS[:2])
    # 9 of 30 voxels towards the patient's left
    assert second - first == pytest.approx(9 / 30, abs=0.03)


@pytest.mark.parametrize("modality", ["ct", "mr", None])
def test_odd_scans_and_names_draw_without_complaint(modality, tmp_path):
    volume, mask = scan("LAS", modality=modality)
    flat = Volume(np.zeros_like(volume.data), volume.geometry, modality, volume.source)
    many = {f"$x_{index}$ \n": mask for index in range(12)}
    for number, masks in enumerate(({}, {"none": np.zeros_like(mask)}, many)):
        write_preview(tmp_path / f"{number}.png", flat, masks)
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    volume, mask = scan("RAS")
    with pytest.raises(ModelError, match=r"textseg\[viewer\]") as caught:
        write_preview(tmp_path / "p.png", volume, {"liver": mask})
    assert caught.value.code == "E403"


def test_a_saved_preview_is_listed_in_the_manifest(make_segmentation, box_mask, tmp_path):
    manifest = make_segmentation({"liver": box_mask}).save(tmp_path, preview=True)
    assert "preview.png" in {record.name for record in manifest.files}
