"""The pictures of a card, drawn for a model whose masks are known beforehand."""

from __future__ import annotations

import re
import sys
from types import MappingProxyType

import matplotlib.image
import numpy as np
import pytest
from fakes import bare_case, write_nifti
from levels import level_segmenter
from matplotlib.colors import to_rgb
from PIL import Image

from textseg.errors import ModelError
from textseg.network.weights import Domain
from textseg.outputs.preview import COLOURS
from textseg.training.card_pictures import MOST_BYTES, pictures_section, write_pictures
from textseg.training.cli import card
from textseg.training.sampling import DomainConfig
from textseg.training.scores import score_model

FOUND = {
    "liver": 8,
    "spleen": 7,
    "gallbladder": 6,
    "pancreas": 5,
    "stomach": 4,
    "heart": 3,
    "aorta": 2,
    "duodenum": 1,
    "trachea": 0,
}
"""Of the eight layers of each structure, how many the model finds."""
HU = {concept: -240.0 + 60 * number for number, concept in enumerate(FOUND)}
TORSO = Domain(
    name="torso-ct",
    spacing_mm=(3.0, 3.0, 3.0),
    window=(16, 24, 12),
    modalities=("ct",),
    concepts=tuple(HU),
)
SHAPE = (53, 47, 19)


def dice_of(concept):
    return 2 * FOUND[concept] / (8 + FOUND[concept])


def phantom():
    """A scan and its reference: three by three boxes, of which the scan shows the found layers."""
    labels = np.zeros(SHAPE, dtype=np.int16)
    scan = np.full(SHAPE, -1000, dtype=np.float32)
    for number, (concept, layers) in enumerate(FOUND.items()):
        x, y = 14 + 10 * (number % 3), 10 + 10 * (number // 3)
        labels[x : x + 8, y : y + 7, 6:13] = number + 1
        scan[x : x + layers, y : y + 7, 6:13] = HU[concept]
    return scan, labels


def write_scan(
    folder, *, scan=None, case_id="scan", dataset="phantom", known=9, flip_x=False, pad=0
):
    """A case of the phantom with its first known structures, and so many voxels of air around."""
    drawn, labels = phantom()
    scan = np.pad(drawn if scan is None else scan, pad, constant_values=-1000)
    labels = np.pad(labels, pad)
    write_nifti(folder / f"{case_id}.nii.gz", scan, (3, 3, 3), flip_x=flip_x)
    write_nifti(folder / f"{case_id}_label.nii.gz", labels, (3, 3, 3), flip_x=flip_x)
    concepts = tuple(FOUND)[:known]
    return bare_case(
        id=case_id,
        dataset=dataset,
        split="val",
        modality="ct",
        image=folder / f"{case_id}.nii.gz",
        masks={"": folder / f"{case_id}_label.nii.gz"},
        labels=MappingProxyType({value: (name,) for value, name in enumerate(concepts, start=1)}),
        unnamed=tuple(range(known + 1, 10)),
        annotated=concepts,
        complete=frozenset(concepts),
        licence="CC0-1.0",
    )


def scored(cases):
    """A model and its scores on these cases."""
    segmenter = level_segmenter(HU, TORSO)
    domain = DomainConfig(
        name="torso-ct",
        datasets=[],
        modality="ct",
        spacing_mm=3.0,
        window=(16, 24, 12),
        validation=list(dict.fromkeys(case.dataset for case in cases)),
    )
    return segmenter, score_model(segmenter, [domain], cases)


def draw(folder, cases, **settings):
    segmenter, scores = scored(cases)
    return write_pictures(folder, scores, segmenter=segmenter, cases=cases, **settings)


def count_of(picture, colour):
    """Pixels of a colour."""
    return int((np.abs(picture[..., :3] - np.array(colour)).max(axis=2) < 0.06).sum())


def planes(path):
    """A picture without its title and its legend."""
    picture = matplotlib.image.imread(path)
    return picture[40 : int(picture.shape[0] * 0.75)]


def test_a_scan_has_a_picture_of_its_best_and_one_of_its_worst_structures(tmp_path):
    good, failure = draw(tmp_path, [write_scan(tmp_path)])
    assert (good.kind, failure.kind) == ("good", "failure")
    assert {good.case_id, failure.case_id} == {"scan"}
    names = list(FOUND)
    for picture, shown in ((good, names[:4]), (failure, names[:4:-1])):
        listed = [f"{name} {dice_of(name):.2f}" for name in shown]
        listed[0] += " (no mask)" if shown[0] == "trachea" else ""
        assert picture.caption.endswith(f"Dice: {', '.join(listed)}.")
        assert "4 of 9 structures" in picture.caption
        with Image.open(tmp_path / picture.file) as drawn:
            assert drawn.format == "PNG"
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "phantom-scan-good.png",
        "phantom-scan-failure.png",
    }


def test_dice_is_that_of_the_scores(tmp_path):
    case = write_scan(tmp_path)
    segmenter, scores = scored([case])
    rows = {row.name: f"{row.dice:.2f}" for row in scores.cases[0].structures}
    pictures = write_pictures(tmp_path, scores, segmenter=segmenter, cases=[case])
    shown = re.findall(r"(\w+) (\d\.\d\d)", " ".join(picture.caption for picture in pictures))
    assert len(shown) == 8
    assert all(rows[name] == dice for name, dice in shown)


def test_the_mask_is_an_area_and_the_reference_a_line(tmp_path):
    good, failure = draw(tmp_path, [write_scan(tmp_path)])
    first = np.array(to_rgb(COLOURS[0]))
    # the liver is all found: black in the scan's window, under a layer of color
    best = planes(tmp_path / good.file)
    area = count_of(best, 0.45 * first)
    assert area > 500
    assert count_of(best, first) > 50
    # of the trachea nothing is found
    worst = planes(tmp_path / failure.file)
    assert count_of(worst, 0.45 * first) < 0.2 * area  # the edge of a line is half as bright, too
    assert count_of(worst, first) > 50


def test_a_picture_is_the_same_however_the_file_runs(tmp_path):
    straight = draw(tmp_path / "a", [write_scan(tmp_path / "a")])
    turned = draw(tmp_path / "b", [write_scan(tmp_path / "b", flip_x=True)])
    for one, other in zip(straight, turned, strict=True):
        first = matplotlib.image.imread(tmp_path / "a" / one.file)
        second = matplotlib.image.imread(tmp_path / "b" / other.file)
        np.testing.assert_array_equal(first, second)


def test_what_is_far_from_the_structures_is_left_out(tmp_path):
    close = draw(tmp_path / "a", [write_scan(tmp_path / "a")])
    wide = draw(tmp_path / "b", [write_scan(tmp_path / "b", pad=12)])
    for one, other in zip(close, wide, strict=True):
        first = matplotlib.image.imread(tmp_path / "a" / one.file)
        second = matplotlib.image.imread(tmp_path / "b" / other.file)
        np.testing.assert_array_equal(first, second)


def test_noise_is_drawn_less_sharp_to_stay_small(tmp_path):
    noise = np.random.default_rng(0).normal(0, 150, SHAPE).astype(np.float32)
    clear = draw(tmp_path / "a", [write_scan(tmp_path / "a")])
    rough = draw(tmp_path / "b", [write_scan(tmp_path / "b", scan=noise)])
    sizes = []
    for folder, pictures in (("a", clear), ("b", rough)):
        path = tmp_path / folder / pictures[0].file
        assert path.stat().st_size <= MOST_BYTES
        with Image.open(path) as picture:
            sizes.append(picture.width)
    assert sizes[1] < sizes[0]


def test_the_first_scans_of_each_data_set_that_hold_enough_are_drawn(tmp_path):
    cases = [
        write_scan(tmp_path, case_id="few", known=7),
        write_scan(tmp_path, case_id="one"),
        write_scan(tmp_path, case_id="two", known=8),
        write_scan(tmp_path, case_id="three"),
        write_scan(tmp_path, case_id="other", dataset="elsewhere"),
    ]
    drawn = [picture.case_id for picture in draw(tmp_path, cases)]
    assert drawn == ["one", "one", "two", "two", "other", "other"]
    assert len(draw(tmp_path, cases, most_scans=1)) == 4


def test_without_enough_structures_the_section_says_so(tmp_path):
    pictures = draw(tmp_path, [write_scan(tmp_path, known=7)])
    assert pictures == []
    assert not (tmp_path / "pictures").exists()
    assert pictures_section(pictures).splitlines() == [
        "## Pictures",
        "",
        "No validation scan holds 8 structures to show.",
    ]


def test_the_section_shows_each_picture_above_its_caption(tmp_path):
    pictures = draw(tmp_path, [write_scan(tmp_path)])
    lines = pictures_section(pictures).splitlines()
    assert lines[0] == "## Pictures"
    for picture in pictures:
        [place] = [number for number, line in enumerate(lines) if f"]({picture.file})" in line]
        assert (tmp_path / picture.file).is_file()
        assert lines[place + 1 : place + 3] == ["", picture.caption]


def test_without_matplotlib_the_error_comes_before_the_work(tmp_path, monkeypatch):
    case = write_scan(tmp_path)
    segmenter, scores = scored([case])
    segmenter.network.asked.clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModelError, match=r"textseg\[viewer\]") as caught:
        write_pictures(tmp_path, scores, segmenter=segmenter, cases=[case])
    assert caught.value.code == "E403"
    assert segmenter.network.asked == []


def test_without_matplotlib_a_card_is_refused_before_anything_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="matplotlib"):
        card(None, tmp_path, config=tmp_path / "none.yaml")
