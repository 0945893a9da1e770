"""``textseg data fingerprint`` and ``plan``, from files to what they print."""

from __future__ import annotations

import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from tests.datasets.trees import SPACING_MM, write_tree
from textseg.cli.data.fingerprint import fingerprint
from textseg.cli.data.plan import plan
from textseg.datasets.registry import read_spec
from textseg.errors import ModelError, ResourceError
from textseg.knowledge import load_tree

DESCRIPTION = {
    "name": "toy",
    "title": "Toy",
    "modality": {"ct": []},
    "region": "abdomen",
    "layout": {"kind": "nnunet", "folder": "Dataset001_Toy"},
    "labels": {1: "liver", 2: "kidney.left", 3: "kidney.right"},
    "complete": "all",
    "licence": "CC0-1.0",
    "citation": "Nobody 2020.",
    "homepage": "https://example.org",
}


@pytest.fixture
def run(tmp_path):
    """Runs a command on a data set of two cases; errors pass through."""
    spec = tmp_path / "toy.yaml"
    spec.write_text(yaml.safe_dump(DESCRIPTION))
    write_tree(read_spec(spec, load_tree()), tmp_path / "data")
    app = typer.Typer()
    app.command("fingerprint")(fingerprint)
    app.command("plan")(plan)

    def call(verb, *options, folder=True):
        words = [verb, str(spec), *([str(tmp_path / "data")] if folder else []), *options]
        said = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert said.exit_code == 0
        return said.stdout

    return call


def test_fingerprint_prints_grids_and_concepts(run):
    lines = run("fingerprint").splitlines()
    spacing = next(line for line in lines if "spacing mm, feet-head" in line)
    assert f"{SPACING_MM[2]:g} ({SPACING_MM[2]:g} to" in spacing
    liver = next(line for line in lines if line.split()[:1] == ["liver"])
    assert " ".join(liver.split()) == "liver 2 of 2" + 4 * " 0.00113" + " 0.5 x 0.75 x 3"


def test_fingerprint_writes_what_it_prints_as_json_once(run, tmp_path):
    target = tmp_path / "f.json"
    printed = json.loads(run("fingerprint", "--json", "-o", target, "--workers", 2))
    assert json.loads(target.read_text()) == printed
    assert printed["datasets"]["toy"]["cases"] == 2
    with pytest.raises(ResourceError, match="E504"):
        run("fingerprint", "-o", target)
    run("fingerprint", "-o", target, "--overwrite")


def test_plan_prints_each_choice_with_its_reason(run):
    printed = run("plan", "--memory-gb", 2)
    assert "domain toy" in printed
    assert "every case is ct." in printed
    assert "of 2 GB there are" in printed


def test_plan_needs_no_cases_where_there_is_a_fingerprint(run, tmp_path):
    run("fingerprint", "-o", tmp_path / "f.json")
    options = ("--memory-gb", 2, "--json")
    known = run("plan", "--fingerprint", tmp_path / "f.json", *options, folder=False)
    assert known == run("plan", *options)


def test_plan_refuses_the_fingerprint_of_another_data_set(run, tmp_path):
    text = run("fingerprint", "--json").replace('"toy"', '"other"')
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ModelError, match=r"E406.*f\.json.*of other, not of"):
        run("plan", "--fingerprint", tmp_path / "f.json")


def test_plan_writes_a_domain_once(run, tmp_path):
    target = tmp_path / "plan.yaml"
    printed = json.loads(run("plan", "-o", target, "--json"))
    (entry,) = yaml.safe_load(target.read_text())["data"]["domains"]
    assert entry == printed["domain"]
    assert (entry["name"], entry["datasets"]) == ("toy", ["toy"])
    with pytest.raises(ResourceError, match="E504"):
        run("plan", "-o", target)
    run("plan", "-o", target, "--overwrite", "--network", "nano")
    assert target.read_text().startswith("# Proposed by")


def test_a_wider_network_takes_more_memory(run):
    def memory(*options):
        printed = json.loads(run("plan", "--memory-gb", 2, "--json", *options))
        return next(e["value"] for e in printed["estimates"] if e["key"] == "memory_bytes")

    assert memory("--network", "ablation") < memory("--network", "nano")


def test_a_network_without_a_configuration_is_refused(run):
    with pytest.raises(ModelError, match=r"E401.*'huge'.*nano"):
        run("plan", "--network", "huge")
