"""A model of structures that the tree lacks is trained, exported, and used where nobody knows them.

Everything from the user's file to the masks, on a network that hardly learns in so few steps.
"""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from fakes import tiny_encoder, tiny_network, tiny_segmenter, torso_labels, write_model, write_nifti

from textseg import Segmenter
from textseg.cli import main
from textseg.datasets import LabelSpace, load_cases
from textseg.errors import ModelError
from textseg.knowledge import install_vocabulary, installed_vocabularies, load_tree, load_user_tree
from textseg.knowledge.loading import read_stanzas
from textseg.knowledge.vocabularies import MODEL_VOCABULARY
from textseg.training.adaptation import AdaptationConfig
from textseg.training.datamodule import MixtureDataModule
from textseg.training.export import export_model
from textseg.training.sampling import DomainConfig

OWN = """\
[lab.implant]
name: cochlear implant
kind: implant
region: head_neck

[lab.electrode]
name: cochlear implant electrode
kind: implant
region: head_neck
synonyms: CI electrode
sides: left; right
part_of: lab.implant

[lab.insert]
name: phantom insert
kind: implant
"""
ABOUT = {
    "name": "phantoms",
    "title": "Phantoms",
    "modality": {"ct": []},
    "region": "head_neck",
    "layout": {"kind": "files", "images": {"": "{case}_ct.nii"}, "masks": "{case}_seg.nii"},
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody 2020.",
    "homepage": "https://example.org",
    "labels": {
        5: "lab.insert",
        2: "lab.electrode.right",
        3: "lab.electrode.left",
        1: "spleen",
    },
}
SPACING = (4.0, 4.5, 5.0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The machine of somebody who has the vocabulary."""
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.tree").write_text(OWN)
    install_vocabulary(tmp_path / "mine.tree")
    return tmp_path / "home"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Goes to a machine without it."""

    def go():
        monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "elsewhere"))
        assert installed_vocabularies() == {}

    return go


@pytest.fixture
def checkpoint(tmp_path):
    """Of a network that nobody has trained."""
    state = {f"network.{name}": t for name, t in tiny_segmenter().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def domain(**changes):
    return DomainConfig(
        name="phantom-ct",
        datasets=["phantoms"],
        modality="ct",
        spacing_mm=5.0,
        window=(16, 20, 12),
        **changes,
    )


def export(checkpoint, folder, *concepts):
    return export_model(
        checkpoint,
        folder,
        network=tiny_network(),
        adaptation=AdaptationConfig(),
        spaces=[(domain(), LabelSpace(concepts, load_user_tree()))],
        encoder=tiny_encoder(),
        name="phantom",
        version="1",
        licence="CC0-1.0",
    )


def write_scans(folder, cases="ab"):
    folder.mkdir(parents=True)
    for number, case in enumerate(cases):
        labels = torso_labels((24, 22 + number, 20))
        scan = np.random.default_rng(number).normal(0, 20, labels.shape) + 60 * labels
        write_nifti(folder / f"{case}_ct.nii", scan.astype(np.int16), SPACING)
        kept = np.where(np.isin(labels, [*ABOUT["labels"]]), labels, 0)
        write_nifti(folder / f"{case}_seg.nii", kept, SPACING)


def test_a_model_is_used_by_name_and_synonym_where_nobody_has_the_vocabulary(
    home, elsewhere, checkpoint, tmp_path
):
    folder = tmp_path / "phantom"
    manifest = export(checkpoint, folder, "lab.electrode.left", "lab.electrode.right", "liver")
    text = (folder / MODEL_VOCABULARY).read_bytes()
    assert manifest.files == {MODEL_VOCABULARY: hashlib.sha256(text).hexdigest()}
    stanzas = read_stanzas(folder / MODEL_VOCABULARY)
    assert [stanza.id for stanza in stanzas] == ["lab.implant", "lab.electrode"]

    here = Segmenter.from_pretrained(folder, device="cpu", precision="float32")
    elsewhere()
    there = Segmenter.from_pretrained(folder, device="cpu", precision="float32")
    for prompt, sides in (
        ("left cochlear implant electrode", ["left"]),
        ("CI electrode, right", ["right"]),
        ("CI electrodes", ["left", "right"]),
    ):
        answer = there.resolve(prompt)
        assert answer == here.resolve(prompt)
        assert answer.concepts == tuple(f"lab.electrode.{side}" for side in sides)
    assert there.resolve("phantom insert").status == "reject"

    scan = np.random.default_rng(0).normal(0, 300, (18, 13, 15)).astype(np.float32)
    asked = ((scan, np.diag([4.0, 4.0, 4.0, 1.0])), ["left CI electrode", "liver"])
    results = [one(*asked, modality="ct", threshold=0.01) for one in (here, there)]
    for result in results:
        assert result["left CI electrode"].status in {"ok", "not_found"}
        assert result["left CI electrode"].mask.shape == scan.shape
    mine, theirs = (result["left CI electrode"] for result in results)
    assert mine.presence == theirs.presence
    np.testing.assert_array_equal(mine.mask, theirs.mask)


def test_a_model_of_what_ships_has_no_vocabulary_nor_keeps_that_of_another(
    home, checkpoint, tmp_path
):
    folder = tmp_path / "phantom"
    assert export(checkpoint, folder, "lab.insert").files
    assert export(checkpoint, folder, "liver").files == {}
    assert not (folder / MODEL_VOCABULARY).exists()


def test_a_model_of_what_nobody_knows_is_not_written(home, elsewhere, checkpoint, tmp_path):
    space = LabelSpace(("lab.insert",), load_user_tree())
    elsewhere()
    with pytest.raises(ModelError, match=r"E404.*lab\.insert"):
        export(checkpoint, tmp_path / "phantom", *space.concepts)
    assert not (tmp_path / "phantom").exists()


def test_the_command_line_knows_what_a_model_brings_along(
    home, elsewhere, checkpoint, tmp_path, capsys
):
    folder, scan = tmp_path / "phantom", tmp_path / "scan.nii.gz"
    export(checkpoint, folder, "lab.insert", "liver")
    write_nifti(scan, np.random.default_rng(0).normal(0, 300, (18, 13, 15)), (4.0, 4.0, 4.0))
    elsewhere()

    def said(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    answer = json.loads(said("resolve", "phantom inserts", "--model", folder, "--json"))
    assert (answer["status"], answer["concepts"]) == ("ok", ["lab.insert"])
    assert json.loads(said("resolve", "phantom insert", "--json"))["status"] == "reject"
    listed = json.loads(said("concepts", "--supported", "--model", folder, "--json"))
    assert {concept["id"] for concept in listed} == {"lab.insert", "liver"}
    out = ("-o", tmp_path / "out", "--strict-prompts")
    said("predict", scan, "phantom insert", "--model", folder, "--modality", "ct", *out)
    (entry,) = json.loads((tmp_path / "out/textseg.json").read_text())["prompts"]
    assert entry["concepts"] == ["lab.insert"]


def test_a_list_of_prepared_cases_may_name_what_the_user_has_defined(home, elsewhere, tmp_path):
    cases = prepared(tmp_path)
    listed = load_cases(cases)
    assert set(listed[0].concepts) == set(ABOUT["labels"].values())
    elsewhere()
    with pytest.raises(ModelError, match=r"E404.*lab\.insert.*textseg concepts import"):
        load_cases(cases)


def test_training_asks_for_what_the_user_has_defined(home, tmp_path):
    write_model(tmp_path / "words")
    data = MixtureDataModule(prepared(tmp_path), [domain()], encoder=str(tmp_path / "words"))
    data.setup("fit")
    (labels,) = data.labels
    known = set(ABOUT["labels"].values())
    assert set(labels.space.concepts) == known
    assert known <= set(labels.prompts)
    (queries,) = data.queries(tiny_encoder())
    assert torch.isfinite(queries["ct"]).all()
    assert len({tuple(row.tolist()) for row in queries["ct"]}) == len(labels.prompts)


def prepared(folder):
    """The case list that ``textseg data prepare`` writes of the phantoms."""
    write_scans(folder / "scans")
    (folder / "phantoms.yaml").write_text(yaml.safe_dump(ABOUT))
    description = (str(folder / "phantoms.yaml"), str(folder / "scans"))
    for words in (
        ("data", "check", *description),
        ("data", "fingerprint", *description, "-o", str(folder / "fingerprint.json")),
        ("data", "plan", *description, "--fingerprint", str(folder / "fingerprint.json")),
        ("data", "prepare", *description, "--spacing", "5", "-o", str(folder / "prepared")),
    ):
        assert main([*words, "--workers=0"] if words[1] != "plan" else [*words]) == 0
    return folder / "prepared/cases.json"


def test_a_name_of_a_data_set_is_read_as_what_the_user_has_defined(home, tmp_path, monkeypatch):
    folder = tmp_path / "Dataset001_Phantoms"
    write_scans(tmp_path / "scans", cases="a")
    for kind, name in (("images", "a_0000"), ("labels", "a")):
        (folder / f"{kind}Tr").mkdir(parents=True)
        source = tmp_path / f"scans/a_{'ct' if kind == 'images' else 'seg'}.nii"
        nib.save(nib.load(source), folder / f"{kind}Tr/{name}.nii.gz")
    names = {"background": 0, "Phantom Insert": 5, "ci electrode right": 2, "left CI electrode": 3}
    about = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1}
    (folder / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))
    target = tmp_path / "phantoms.yaml"
    assert main(["data", "add", str(folder), "-o", str(target)]) == 0
    labels = yaml.safe_load(target.read_text())["labels"]
    expected = {5: "lab.insert", 2: "lab.electrode.right", 3: "lab.electrode.left"}
    assert {value: labels[value] for value in expected} == expected
    assert "lab.insert" not in load_tree()
