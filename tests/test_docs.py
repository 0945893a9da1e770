"""The documentation does what it says: code runs, commands parse, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import sys

import documents
import nibabel as nib
import numpy as np
import pytest
import typer.main

from textseg.cli import app
from textseg.knowledge import load_classes, load_tree
from textseg.network.weights import list_models
from textseg.prompts import resolve
from textseg.zoo.sat import domains

pages = pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
notebooks = pytest.mark.parametrize("path", documents.NOTEBOOKS, ids=lambda path: path.stem)

LARGEST_PICTURE = 60_000
"""Bytes of a picture that is stored in a notebook."""
NEEDS_A_MODEL = {"sat.md", "reports.md"}
"""Pages whose code is run by a test of their own."""
WITH_CODE = [
    page
    for page in documents.PAGES
    if any(block.language == "python" for block in documents.blocks(page))
    and page.name not in NEEDS_A_MODEL
]
COMMANDS = [
    pytest.param(line, id=f"{page.name}:{block.line}:{line[:40]}")
    for page in documents.PAGES
    for block in documents.blocks(page)
    if block.language in {"console", "bash"}
    for line in documents.shell_lines(block)
    if line.startswith("textseg ")
]


@pytest.fixture
def scan_in_cwd(tmp_path, monkeypatch):
    """A small CT-like phantom called ``scan.nii.gz``, where the examples look for it."""
    x, y, z = np.ogrid[-1:1:37j, -1:1:29j, -1:1:23j]
    body = (x / 0.9) ** 2 + (y / 0.8) ** 2 + 0 * z < 1
    organ = (x - 0.35) ** 2 + y**2 + z**2 < 0.15
    noise = np.random.default_rng(0).normal(0, 12, body.shape)
    hounsfield = np.where(organ, 110.0, np.where(body, -20.0, -1000.0)) + noise
    affine = np.diag([7.0, 7.0, 9.0, 1.0])
    image = nib.Nifti1Image(hounsfield.astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_python_blocks_run_in_order(page, scan_in_cwd):
    namespace = {"__name__": "__main__"}
    for block in documents.blocks(page):
        if block.language == "python":
            # Line breaks before the code make a traceback name the line of the page.
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, str(page), "exec"), namespace)
    manifest = json.loads((scan_in_cwd / "out" / "textseg.json").read_text(encoding="utf-8"))
    assert [prompt["prompt"] for prompt in manifest["prompts"]] == ["liver", "left kidney"]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_the_command_line_understands(line, scan_in_cwd):
    (scan_in_cwd / "scans").mkdir()
    name, *words = shlex.split(line)
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        name = words.pop(0)
        command = command.commands[name]
    assert name != "textseg"
    assert command.make_context(name, words).command is command


def test_there_are_commands_and_code_to_test():
    assert len(COMMANDS) >= 10
    assert {page.name for page in WITH_CODE} >= {"README.md", "index.md"}


@pages
def test_make_targets_that_are_mentioned_exist(page):
    makefile = (documents.CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    mentioned = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
    assert mentioned <= targets


@pages
def test_links_lead_to_files_and_headings_that_exist(page):
    text = page.read_text(encoding="utf-8")
    broken = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"https?:|mailto:", link) and not leads_somewhere(link, page)
    ]
    assert broken == []


def leads_somewhere(link, page):
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE) if anchor else []
    slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    return not anchor or anchor in slugs


@pages
def test_fenced_blocks_name_their_language(page):
    unnamed = [block.line for block in documents.blocks(page) if not block.language]
    assert unnamed == []


def test_the_command_reference_is_what_make_docs_writes():
    stored = documents.REFERENCE.read_text(encoding="utf-8")
    assert stored == documents.command_reference(), "run `make docs`"


def test_the_table_of_data_sets_is_what_make_docs_writes():
    stored = documents.REGISTRY.read_text(encoding="utf-8")
    assert stored == documents.registry_page(), "run `make docs`"


def test_the_table_of_sats_classes_is_what_make_docs_writes():
    stored = documents.SAT_CLASSES.read_text(encoding="utf-8")
    assert stored == documents.sat_classes_page(), "run `make docs`"


LABELLED = [
    (label.name, label.concepts, documents.SHOWN_AS[shown])
    for label in load_classes().values()
    for shown in label.modalities
]


def answered(name, modality, *, is_told):
    """Concepts of a class name to a model of SAT, which may be told the kind of scan."""
    return resolve(
        name,
        load_tree(),
        supported={c for d in domains() if modality in d.modalities for c in d.concepts},
        modality=modality if is_told else None,
    ).concepts


def test_each_class_of_sat_means_its_structure_in_a_scan_where_it_is_labelled():
    assert len({name for name, _, _ in LABELLED}) == 451
    assert len(LABELLED) == 498
    others = [row for row in LABELLED if answered(row[0], row[2], is_told=True) != row[1]]
    assert others == []


def test_one_class_of_sat_is_ambiguous_without_a_scan():
    others = {row[0] for row in LABELLED if answered(row[0], row[2], is_told=False) != row[1]}
    assert others == {"tumor"}
    assert "`tumor` is ambiguous" in documents.SAT_CLASSES.read_text(encoding="utf-8")


def test_the_figures_on_prompts_are_what_make_docs_writes():
    stored = documents.FIGURES.read_text(encoding="utf-8")
    assert "\n".join(documents.prompt_accuracy()) in stored, "run `make docs`"


@pytest.mark.slow
def test_the_figures_on_encoders_are_what_make_docs_writes():
    stored = documents.FIGURES.read_text(encoding="utf-8")
    lines = documents.encoder_scores().splitlines()
    assert lines[0] in stored
    for line in lines[2:]:
        name = line.split("|")[1].strip()
        (kept,) = documents.stored_rows(name)
        # another processor may round a tie the other way
        assert percentages(line) == pytest.approx(percentages(kept), abs=1), "run `make docs`"


def percentages(line):
    return [int(number) for number in re.findall(r"(?<= )\d+(?= )", line)]


def test_there_are_notebooks():
    assert documents.NOTEBOOKS


@notebooks
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than")
@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_notebook_prints_what_it_is_stored_with(path, tmp_path, monkeypatch):
    notebook = documents.read_notebook(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["textseg"])  # LightningCLI warns of pytest's own arguments
    shown = documents.run_cells(notebook, name=path.name)
    cells = documents.code_cells(notebook)
    stored = [documents.stored_output(cell) for cell in cells]
    assert any(stored)
    assert [output.text for output in shown] == stored, "run `make docs` and look at the difference"
    pictures = [documents.stored_picture(cell) for cell in cells]
    # the weights decide what a picture shows, so that only its presence is compared
    assert [output.picture is None for output in shown] == [kept is None for kept in pictures]
    assert all(len(kept) <= LARGEST_PICTURE for kept in pictures if kept is not None)


@notebooks
def test_a_notebook_is_one_that_viewers_open(path):
    notebook = documents.read_notebook(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}


def test_the_model_the_documentation_speaks_of_is_embedded():
    assert "nano" in list_models()


def test_the_cost_of_sat_is_what_was_measured_last():
    assert documents.SAT_PAGE.read_text(encoding="utf-8") == documents.sat_page(), "run `make docs`"


def test_speed_and_memory_are_what_was_measured_last():
    written = documents.SPEED_PAGE.read_text(encoding="utf-8")
    assert written == documents.speed_page(), "run `make docs`"


def test_sizes_of_networks_are_what_was_measured_last():
    written = documents.TRAINING_PAGE.read_text(encoding="utf-8")
    assert written == documents.training_page(), "run `make docs`"


def test_what_reports_are_worth_is_what_was_measured_last():
    written = documents.REPORTS_PAGE.read_text(encoding="utf-8")
    assert written == documents.reports_page(), "run `make docs`"
