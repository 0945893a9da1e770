"""Inference beside its peers and at scale; ``make bench`` measures a short version of both."""

from __future__ import annotations

import fakes
import numpy as np
import pytest
import torch

from tests.bench import commands, inference_peers, scale, tables
from tests.bench.measuring import alone, recorded
from tests.bench.peer_sides import SIDES, installed_sides
from textseg.imaging.phantom import write_torso_phantom
from textseg.network.weights import Domain

CONCEPTS = ("liver", "spleen", "kidney.left")
FASTER, SMALLER = 3.0, 5.0
"""What textseg wants to be beside MONAI, in time and in memory on top of the model."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights; a scan on its grid is one window, so that averaging cannot tell sides."""
    domain = Domain(
        name="torso-ct",
        spacing_mm=(8.0, 8.0, 8.0),
        window=(48, 40, 32),
        modalities=("ct",),
        concepts=CONCEPTS,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fakes.write_model(folder, domains=[domain], network=fakes.tiny_segmenter())
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Axes of different lengths, the first of them to the left."""
    path = tmp_path_factory.mktemp("scans") / "scan.nii.gz"
    return write_torso_phantom(path, (64, 40, 32), (6.0, 8.0, 8.0))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("side", installed_sides())
def test_every_side_finds_the_same_masks_where_one_window_is_all(side, model, small, one_thread):
    num_prompts = len(CONCEPTS) + 2
    first, *_ = SIDES
    expected, found = (list(SIDES[name](str(model), num_prompts)(small)) for name in (first, side))
    assert len(found) == num_prompts
    for mask, reference in zip(found, expected, strict=True):
        assert mask.shape == (64, 40, 32)
        # bytes instead of floats, bfloat16, or logits interpolated in place of probabilities
        assert (mask == reference).mean() > 0.97
    turned = [
        (mask[::-1] == reference).mean() for mask, reference in zip(found, expected, strict=True)
    ]
    assert min(turned) < 0.9
    # beyond the concepts their queries begin again
    assert np.array_equal(found[0], found[len(CONCEPTS)])


def test_agreement_is_the_mean_dice_of_prompts_with_masks(tmp_path):
    masks = np.zeros((3, 8), dtype=np.uint8)
    other = masks.copy()
    masks[0], other[0] = 0b11110000, 0b11000000
    masks[1, 0] = 1
    masks.tofile(tmp_path / "a")
    other.tofile(tmp_path / "b")
    found = inference_peers.agreement(tmp_path / "a", tmp_path / "b", 3)
    assert found == pytest.approx((2 / 3 + 0) / 2)
    empty = np.zeros((2, 4), dtype=np.uint8)
    empty.tofile(tmp_path / "a")
    assert inference_peers.agreement(tmp_path / "a", tmp_path / "a", 2) == 1


def test_records_keep_what_was_measured_last(tmp_path):
    record = tmp_path / "results" / "record.csv"
    rows = [{"side": "a", "s": 1}, {"side": "b", "s": 2}, {"side": "a", "s": 3}]
    assert list(recorded(rows, record, ("side", "s"))) == rows
    assert [(row["side"], row["s"]) for row in tables.latest(record, ("side",))] == [
        ("a", "3"),
        ("b", "2"),
    ]


def test_the_tables_name_the_sides_in_the_order_they_are_measured():
    assert tuple(SIDES) == tables.SIDES


def test_the_table_of_peers_tells_who_is_missing(tmp_path):
    record = tmp_path / "peers.csv"
    about = {"scan": "a", "seconds": 1.5, "peak_gb": 1, "above_model_gb": 0.5, "masks": 1}
    rows = [
        {**about, "prompts": num, "side": side, "dice": 1}
        for num in (128, 32)
        for side in reversed(tables.SIDES[:-1])
    ]
    list(recorded(rows, record, tables.PEERS_COLUMNS))
    head, _, *lines = tables.peers_table(record).splitlines()
    assert head.startswith("| scan | prompts | side | seconds |")
    assert [line.split(" | ")[1:3] for line in lines[:2]] == [
        ["32", "MONAI"],
        ["32", "textseg auto"],
    ]
    assert lines[-2:] == ["", "nnU-Net: not installed."]


def test_growth_is_told_apart_by_what_grows():
    rows = [
        {
            "shape": f"512x512x{slices}",
            "prompts": tables.MANY,
            "peak_gb": 1 + 0.005 * slices,
            "scan_gb": 0.003 * slices,
            "output_gb": 0.001 * slices,
            "slab_gb": 0.5,
        }
        for slices in (200, 400, 600)
    ]
    rows.append({**rows[-1], "prompts": tables.FEW, "peak_gb": 99})
    expected = {"peak": 0.5, "scan": 0.3, "output": 0.1, "slab": 0, "rest": 0.1}
    assert tables.growth(rows) == pytest.approx(expected)


def test_a_command_is_timed_from_its_start_to_the_written_mask(model, tmp_path):
    scan = commands.generated(tmp_path, divide=16)
    spent = commands.timed(scan, str(model))
    assert spent.keys() == set(tables.COMMANDS_COLUMNS) - {"scan"}
    assert spent["backbone_s"] > 0
    assert spent["around_s"] > 0
    assert sum(spent.values()) <= 2 * spent["seconds"]


def test_the_table_of_commands_has_the_last_run_of_each_scan(tmp_path):
    spent = dict.fromkeys(tables.COMMANDS_COLUMNS, "1.00")
    rows = [{**spent, "scan": scan, "seconds": s} for scan, s in (("a", 9), ("b", 2), ("a", 3))]
    list(recorded(rows, tmp_path / "commands.csv", tables.COMMANDS_COLUMNS))
    _, _, *lines = tables.commands_table(tmp_path / "commands.csv").splitlines()
    assert [line.split(" | ")[:2] for line in lines] == [["| a", "3"], ["| b", "2"]]


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A scan to compare the sides on, and its name in the record."""
    return inference_peers.generated(tmp_path_factory.mktemp("scan"), inference_peers.SHORT)


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize("num_prompts", inference_peers.PROMPTS)
def test_beside_peers(num_prompts, generated, tmp_path):
    scan, name = generated
    rows = inference_peers.rows(scan, tmp_path, name=name, prompts=[num_prompts])
    found = {row["side"]: row for row in recorded(rows, tables.PEERS, tables.PEERS_COLUMNS)}
    ours, theirs = found["textseg auto"], found[inference_peers.REFERENCE]
    faster, smaller = (theirs[c] / ours[c] for c in ("seconds", "above_model_gb"))
    below = "" if faster >= FASTER and smaller >= SMALLER else "   below"
    print(
        f"{num_prompts} prompts: {faster:.2f}x in time (wanted {FASTER:g}x), {smaller:.2f}x in "
        f"memory (wanted {SMALLER:g}x at 128){below}"
    )
    assert theirs["masks"] > 0
    # averages of probabilities are not those of logits, and that is all that differs
    assert found["SAT-style loop"]["dice"] - found["textseg float32"]["dice"] < 0.005


@pytest.mark.bench
def test_many_prompts_on_a_long_scan(tmp_path):
    scan = write_torso_phantom(tmp_path / "scan.nii", (256, 256, 300), (1.6, 1.6, 2.0))
    few, many = (
        alone("tests.bench.scale", "--one", scan, n, "--restored")
        for n in (tables.FEW, tables.MANY)
    )
    ratio = many["engine_s"] / few["engine_s"]
    print(f"\n{tables.MANY} prompts take {ratio:.2f} times as long as {tables.FEW} in the engine")
    assert many["peak_gb"] < scale.LIMIT_GB


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_whole_commands(tmp_path, request):
    scans = [commands.generated(tmp_path)]
    if (real := request.config.rootpath.parent / commands.REAL).is_file():
        scans.insert(0, real)
    rows = recorded(commands.rows(scans), tables.COMMANDS, tables.COMMANDS_COLUMNS)
    assert all(float(row["seconds"]) < commands.LIMIT_S for row in rows)
