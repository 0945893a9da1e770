"""The page on SAT leads from published files to masks: its commands run, in its order."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import documents
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from fakes import contrast, ellipsoid, torso_labels, write_nifti

from tests.sat.filled import VOCABULARY, save_checkpoint
from textseg.cli import main
from textseg.knowledge import load_classes
from textseg.resources import user_models_folder
from textseg.zoo import ENTRIES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]

PAGE = documents.CHECKOUT / "docs" / "sat.md"
LINES = [
    line
    for block in documents.blocks(PAGE)
    if block.language == "console"
    for line in documents.shell_lines(block)
]
NOT_RUN = (
    'pip install ".[hub,text]"',
    "textseg models download sat-nano",
    "textseg models download sat-nano --require-license unknown,ihtsdo-and-nlm-licences",
    "textseg models download sat-nano --offline",
)
"""Lines that need a network, or what it brought."""
WINDOW = [64, 64, 32]
WORDS = ("left", "kidney", "liver", "spleen", "both", "right")
AFFINE = np.array([[-3.0, 0, 0, 50], [0, 2.5, 0.2, -40], [0, -0.2, 4.0, -60], [0, 0, 0, 1]])
NAMES = ("left kidney", "liver", "spleen")


def write_pieces(path):
    """A vocabulary of the published size, with the marks where the published one has them."""
    pieces = [f"[unused{number}]" for number in range(VOCABULARY)]
    pieces[104:107] = ["[UNK]", "[CLS]", "[SEP]"]
    pieces[2000 : 2000 + len(WORDS)] = WORDS
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")


def write_scan(path):
    """A body in CT of which two windows are needed."""
    shape = (34, 27, 23)
    scan = np.full(shape, -1000.0)
    for radii, hounsfield in (((0.4, 0.42, 0.42), 40), ((0.2, 0.25, 0.2), 110)):
        scan[ellipsoid(shape, (0.5, 0.5, 0.5), radii)] = hounsfield
    scan += np.random.default_rng(0).normal(0, 12, shape)
    nib.save(nib.Nifti1Image(scan.astype(np.int16), AFFINE), path)


def write_data_set(folder):
    """Three scans with masks, described and measured as the page on training says."""
    for case in range(3):
        labels = torso_labels((40, 28, 24))
        write_nifti(folder / f"imagesTr/{case}_0000.nii.gz", contrast(labels), (8.0, 8.0, 8.0))
        write_nifti(folder / f"labelsTr/{case}.nii.gz", labels.astype(np.uint8), (8.0, 8.0, 8.0))
    labels = {"background": 0, "spleen": 1, "liver": 5}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    assert main(["data", "add", str(folder), "-o", "my-set.yaml"]) == 0
    assert main(["data", "fingerprint", "my-set.yaml", str(folder), "-o", "fingerprint.json"]) == 0


def make_windows_small():
    """Edits the imported model: a window of the published size takes minutes on two cores."""
    path = user_models_folder() / "sat-nano" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for domain in manifest["domains"]:
        assert domain["window"] == [288, 288, 96]
        domain["window"] = WINDOW
    path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """Where the commands of the page run."""
    folder = tmp_path_factory.mktemp("sat")
    save_checkpoint(folder / "nano.pth", "nano")
    save_checkpoint(folder / "nano_text_encoder.pth", "text")
    write_pieces(folder / "vocab.txt")
    write_scan(folder / "scan.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TEXTSEG_HOME", str(folder / "home"))
        # LightningCLI warns if pytest's own arguments stand there
        patch.setattr(sys, "argv", ["textseg"])
        write_data_set(folder / "Dataset001_Abdomen")
        yield folder
    shutil.rmtree(folder)  # two gigabytes, which would stay for three runs


@pytest.fixture(scope="module", name="said")
def _said(folder):
    """What each command of the page printed, in the order of the page."""
    said = []
    for line in LINES:
        if line in NOT_RUN:
            continue
        words = shlex.split(line)[1:]
        if words[0] == "fit":
            # what it trains is tested with the configuration itself
            said.append((line, parsed_by(words)))
            continue
        said.append((line, printed_by(words)))
        if words[:2] == ["models", "import"]:
            make_windows_small()
    return said


def printed_by(words):
    """What a command prints, which must succeed."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(words) == 0, words
    return output.getvalue()


def parsed_by(words):
    """The configuration that ``fit`` would run with; nothing is built."""
    with contextlib.redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit) as end:
        main([*words, "--print_config"])
    assert end.value.code == 0
    return output.getvalue()


def only(said, beginning):
    """What was printed by the one command that begins so."""
    (found,) = (text for line, text in said if line.startswith(beginning))
    return found


def masks_of(name):
    """The masks of a result by file name, each seen to lie on the scan's own grid."""
    scan = nib.load("scan.nii.gz")
    masks = {}
    for prompt in read_manifest(name)["prompts"]:
        if prompt["file"] is not None:
            mask = nib.load(f"{name}/{prompt['file']}")
            assert mask.shape == scan.shape
            np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)  # stored in float32
            masks[prompt["prompt"]] = np.asarray(mask.dataobj) > 0
    return masks


def read_manifest(name):
    return json.loads(Path(name, "textseg.json").read_text(encoding="utf-8"))


def test_only_what_needs_a_network_is_not_run():
    assert [line for line in LINES if line in NOT_RUN] == list(NOT_RUN)
    assert {line.split()[0] for line in LINES if line not in NOT_RUN} == {"textseg"}


def test_sizes_and_terms_are_those_of_the_entries():
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for entry in ENTRIES:
        sizes = f"{entry.about_bytes / 1e9:.1f} GB | {entry.installed_bytes / 1e9:.1f} GB |"
        assert re.search(rf"\| `{entry.name}` \|[^|]+\|[^|]+\| {re.escape(sizes)}", text)
        named = re.search(r"--require-license (\S+)", text)[1].split(",")
        assert named == [licence.id for licence in entry.licences]
    assert "tested against a stand-in for the hub, not against the hub itself." in text


def test_show_tells_the_terms_first_and_the_structures_once_there_is_a_model(said):
    before, after = (text for line, text in said if line == "textseg models show sat-nano")
    assert all(licence.id in before for entry in ENTRIES for licence in entry.licences)
    assert "nano_text_encoder.pth" in before
    assert re.search(r"concepts\s+448\b", after)
    assert re.search(r"left kidney\s+kidney\.left", after)


def test_prompts_are_understood_as_the_page_says(said):
    shown = only(said, 'textseg resolve "L kidney"')
    assert re.search(r"L kidney\s+ok\s+left kidney", shown)
    assert shown.count(" ok ") == 3
    assert re.search(r"uterine tube\s+unsupported", only(said, 'textseg resolve "uterine tube"'))


def test_masks_lie_on_the_scan_and_the_manifest_names_the_model(said):
    assert only(said, 'textseg predict scan.nii.gz "left kidney" liver --model sat-nano -o out')
    manifest = read_manifest("out")
    assert manifest["run"]["model"]["name"] == "sat-nano"
    (grid,) = manifest["run"]["grids"]
    assert (grid["domain"], grid["spacing_mm"]) == ("body-ct", [1.0, 1.0, 3.0])
    assert (grid["window"], grid["windows"]) == (WINDOW, 2)
    masks = masks_of("out")
    assert set(masks) == {"left kidney", "liver"}
    assert all(0 < mask.sum() < mask.size for mask in masks.values())
    assert not np.array_equal(*masks.values())


def test_both_ways_to_average_give_the_same_masks(said):
    assert read_manifest("published")["run"]["precision"] == "float32"
    asked = ["scan.nii.gz", "left kidney", "liver", "uterine tube", "-m", "sat-nano"]
    printed_by(["predict", *asked, "-o", "streamed", "--precision", "float32"])
    streamed, published = masks_of("streamed"), masks_of("published")
    for name in ("left kidney", "liver"):
        both = (streamed[name] & published[name]).sum()
        assert 2 * both / (streamed[name].sum() + published[name].sum()) >= 0.995
    *_, tube = read_manifest("streamed")["prompts"]
    assert (tube["status"], tube["file"]) == ("unsupported", None)
    assert "uterus" in tube["suggestions"]
    assert "uterine tube" not in load_classes()


def test_the_code_runs_and_not_found_means_that_no_voxel_is_probable_enough(said):
    (block,) = (block for block in documents.blocks(PAGE) if block.language == "python")
    names = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), names)
    assert output.getvalue() == "ok (34, 27, 23)\n"
    assert set(masks_of("from-python")) == {"left kidney", "liver"}

    segmenter = names["segmenter"]
    with torch.no_grad():
        last = segmenter.network.mask_heads[0][2]
        last.weight.zero_()
        last.bias.fill_(-0.75)  # where GELU is least, so that all logits are small
    answer = segmenter("scan.nii.gz", "liver", modality="ct")["liver"]
    assert answer.status == "not_found"
    assert 0 < answer.presence < 0.5
    assert answer.reason == "Not found in this scan: no voxel reaches probability 0.5."
    lower = segmenter("scan.nii.gz", "liver", modality="ct", threshold=answer.presence / 2)
    assert lower["liver"].status == "ok"


def test_the_plan_for_further_training_fits_the_network(said):
    parsed = yaml.safe_load(only(said, "textseg fit"))
    assert parsed["model"]["init_from"] == "sat-nano"
    assert parsed["data"]["encoder"] == "sat-nano"
    assert parsed["data"]["cases"] == "prepared/cases.json"
    (domain,) = parsed["data"]["domains"]
    assert domain["name"] == "my-set"
    assert all(side % 32 == 0 for side in domain["window"])
    assert max(domain["window"]) >= 64
