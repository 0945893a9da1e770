"""The page on training leads from a folder of scans to masks: its commands run, in its order."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys

import documents
import muted
import nibabel as nib
import numpy as np
import pytest
import yaml
from fakes import KIDNEY_LEFT, KIDNEY_RIGHT, LIVER, SPLEEN, ellipsoid, torso_labels, write_nifti

from textseg.cli import main
from textseg.datasets import load_cases
from textseg.training.sampling import DomainConfig

pytestmark = [
    pytest.mark.slow,
    *muted.TRAINING,
]

PAGE = documents.CHECKOUT / "docs" / "training.md"
SHORT = {
    "accelerator": "cpu",
    "enable_progress_bar": "false",
    "enable_model_summary": "false",
    "check_val_every_n_epoch": 1,
}
"""Settings of the trainer that every run here has besides those of the page."""
NAMES = {"liver": LIVER, "spleen": SPLEEN, "left kidney": KIDNEY_LEFT, "right kidney": KIDNEY_RIGHT}
INSIDE = {"lesion": 40, "phantom insert": 900}
"""What lies within the liver where a mask has a name for it, with its brightness."""
HOUNSFIELD = {LIVER: 110, SPLEEN: 130, KIDNEY_LEFT: 180, KIDNEY_RIGHT: 180}
NUM_CASES = 6


def blocks_of(section, *languages):
    """The fenced blocks below a heading of the page, in these languages."""
    text = PAGE.read_text(encoding="utf-8").splitlines()
    heading = {number: line for number, line in enumerate(text, start=1) if line.startswith("## ")}
    return [
        block
        for block in documents.blocks(PAGE)
        if block.language in languages
        and heading[max(n for n in heading if n < block.line)] == f"## {section}"
    ]


def commands_of(section):
    return [
        line for block in blocks_of(section, "console") for line in documents.shell_lines(block)
    ]


OTHER_RUNS = [
    line
    for section in ("Mixtures", "Part of the network", "Runs and checkpoints", "GPUs")
    for line in commands_of(section)
    if line.startswith("textseg fit ")
]


def write_torso(folder, case, *, names):
    """A torso in CT and its mask, with something in the liver where that has a name."""
    shape = (54 + case, 48, 45)
    anatomy = torso_labels(shape, shift=0.01 * case)
    scan = np.where(ellipsoid(shape, (0.5, 0.45, 0.5), (0.48, 0.45, 0.9)), -60.0, -1000.0)
    for value, number in HOUNSFIELD.items():
        scan[anatomy == value] = number
    mask = np.zeros(shape, np.uint8)
    for value, name in enumerate(names, start=1):
        mask[anatomy == NAMES.get(name)] = value
        if name in INSIDE:
            inside = ellipsoid(shape, (0.68, 0.6, 0.68), (0.08, 0.1, 0.09))
            mask[inside], scan[inside] = value, INSIDE[name]
    scan += np.random.default_rng(case).normal(0, 12, shape)
    name = f"case_{case:03d}"
    write_nifti(folder / f"imagesTr/{name}_0000.nii.gz", scan.astype(np.int16), (4.0, 4.0, 4.0))
    write_nifti(folder / f"labelsTr/{name}.nii.gz", mask, (4.0, 4.0, 4.0))


def write_nnunet(folder, names, *, num_cases):
    for case in range(num_cases):
        write_torso(folder, case, names=names)
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: i for i, name in enumerate(names, start=1)}},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """Where the commands of the page run."""
    folder = tmp_path_factory.mktemp("own")
    write_nnunet(folder / "Dataset001_Abdomen", [*NAMES, "lesion"], num_cases=NUM_CASES)
    write_nnunet(folder / "Decathlon/Task09_Spleen", ["spleen"], num_cases=2)
    scan = folder / "Dataset001_Abdomen/imagesTr/case_000_0000.nii.gz"
    (folder / "scan.nii.gz").write_bytes(scan.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # LightningCLI warns if pytest's own arguments stand there
        patch.setattr(sys, "argv", ["textseg"])
        yield folder


def shortening(words, *, epochs):
    """What a command of the page is given here in addition, so that it is soon done."""
    if words[0] == "fit":
        options = {**SHORT, "max_epochs": epochs}
        trainer = [f"--trainer.{key}={value}" for key, value in options.items()]
        return [*trainer, "--data.steps=2", "--data.workers=0"]
    return ["--workers=0"] if words[:2] == ["data", "prepare"] else []


@pytest.fixture(scope="module", name="walked")
def _walked(folder):
    """The folder after all commands of the steps; what the reader edits is edited as shown."""
    edited, _ = blocks_of("Steps", "yaml")
    (names,) = blocks_of("Steps", "json")
    (folder / "names.json").write_text(names.text, encoding="utf-8")
    epochs = 0
    for line in commands_of("Steps"):
        words = shlex.split(line)[1:]
        epochs += words[0] == "fit"
        assert main([*words, *shortening(words, epochs=epochs)]) == 0, line
        if words[:2] == ["data", "add"]:
            drafted = (folder / "my-set.yaml").read_text("utf-8")
            (folder / "drafted.yaml").write_text(drafted, encoding="utf-8")
            head = drafted.partition("labels:\n")[0]
            (folder / "my-set.yaml").write_text(head + edited.text, encoding="utf-8")
    return folder


def test_the_labels_are_drafted_as_the_page_shows_them(walked):
    edited, _ = blocks_of("Steps", "yaml")
    drafted = (walked / "drafted.yaml").read_text("utf-8")
    assert drafted.endswith(edited.text.replace("5: liver_tumor", "5: null"))


def test_the_plan_is_the_one_the_page_shows(walked):
    _, shown = blocks_of("Steps", "yaml")
    lines = (walked / "plan.yaml").read_text("utf-8").splitlines()
    assert [line for line in lines if "#" not in line] == shown.text.splitlines()


def test_a_plan_takes_the_place_of_every_key_of_the_example(walked, capsys):
    planned = yaml.safe_load((walked / "plan.yaml").read_text("utf-8"))["data"]["domains"][0]
    (domain,) = printed_by("textseg fit -c finetune -c plan.yaml", capsys)["data"]["domains"]
    expected = DomainConfig(**planned)
    assert domain == json.loads(json.dumps(dataclasses.asdict(expected)))


def test_a_run_leaves_what_the_page_says(walked):
    files = re.findall(r"^\| `(runs/finetune/[^`]+)`", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(files) == 5
    assert [file for file in files if not (walked / file).is_file()] == []
    metrics = [walked / f"runs/finetune/version_{run}/metrics.csv" for run in (0, 1)]
    epochs = [path.read_text("utf-8").splitlines()[-1].split(",")[0] for path in metrics]
    assert epochs == ["0", "1"]


def test_the_model_finds_the_liver_of_a_scan_it_was_not_trained_on(walked, capsys):
    scan, mask = (nib.load(walked / name) for name in ("scan.nii.gz", "out/liver.nii.gz"))
    assert mask.shape == scan.shape
    assert np.array_equal(mask.affine, scan.affine)
    capsys.readouterr()
    assert main([*shlex.split(commands_of("Steps")[-1])[1:], "--json"]) == 0
    rows = {row["structure"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows) == {"liver", "left kidney"}
    # nano's own weights find most of it
    assert rows["liver"]["dice"] > 0.3
    card = (walked / "my-model/CARD.md").read_text("utf-8")
    assert "| my-set | 2 | 5 |" in card


def test_a_structure_of_ones_own_is_trained_and_known_where_its_file_is_not(
    tmp_path, monkeypatch, capsys
):
    write_nnunet(tmp_path / "Dataset002_Phantom", ["phantom insert"], num_cases=NUM_CASES)
    scan = tmp_path / "Dataset002_Phantom/imagesTr/case_000_0000.nii.gz"
    (tmp_path / "scan.nii.gz").write_bytes(scan.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["textseg"])
    section = "A structure the tree does not know"
    (stanza,) = blocks_of(section, "text")
    (tmp_path / "my.tree").write_text(stanza.text, encoding="utf-8")
    here, there = (
        [shlex.split(line)[1:] for line in documents.shell_lines(block)]
        for block in blocks_of(section, "console")
    )
    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "home"))
    for words in here:
        assert main([*words, *shortening(words, epochs=1)]) == 0, words
    assert "lab.phantom_insert" in (tmp_path / "phantoms.yaml").read_text("utf-8")
    assert (tmp_path / "phantom-model/vocabulary.tree").read_text("utf-8") == stanza.text

    monkeypatch.setenv("TEXTSEG_HOME", str(tmp_path / "elsewhere"))
    capsys.readouterr()
    for words in there:
        assert main(words) == 0, words
    assert "phantom insert" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "phantom-out/textseg.json").read_text("utf-8"))
    (answer,) = manifest["prompts"]
    assert answer["concepts"] == ["lab.phantom_insert"]
    assert answer["status"] in {"ok", "not_found"}
    assert main(["resolve", "test object", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == "reject"


def test_a_mixture_is_joined_to_one_list(walked):
    for line in commands_of("Mixtures"):
        words = shlex.split(line)
        if words[0] == "textseg" and words[1] == "data":
            assert main([*words[1:], "--workers=0"]) == 0
        elif words[0] != "textseg":
            program = [sys.executable] if words[0] == "python" else [words[0]]
            subprocess.run([*program, *words[1:]], cwd=walked, check=True)
    cases = load_cases(walked / "prepared/cases.json")
    assert [case.dataset for case in cases].count("my-set") == NUM_CASES
    assert [case.dataset for case in cases].count("msd-spleen") == 2
    assert len({case.id for case in cases}) == NUM_CASES + 2


@pytest.mark.parametrize("line", OTHER_RUNS, ids=range(len(OTHER_RUNS)))
def test_fit_accepts_the_options_of_the_page(line, walked, capsys):
    (heads,) = blocks_of("Mixtures", "yaml")
    (walked / "heads.yaml").write_text(heads.text, encoding="utf-8")
    parsed = printed_by(line, capsys)
    first, *others = parsed["data"]["domains"]
    assert (first["name"], first["spacing_mm"]) == ("my-set", [4.0, 4.0, 4.0])
    assert [other["name"] for other in others] == ["head-mr"] * ("heads.yaml" in line)
    if "weights" in line:
        assert first["datasets"] == ["my-set", "msd-spleen"]
        assert first["weights"] == {"my-set": 4}
    if "second" in line:
        callback = parsed["trainer"]["callbacks"][-1]["init_args"]
        assert callback["folder"] == "runs/second"


def printed_by(line, capsys):
    """The configuration that a command would run with; nothing is built."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(line)[1:], "--print_config"])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    return yaml.safe_load(said.out)
