"""The wheel holds everything a prediction needs, shown by installing it away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
DATA_FOLDERS = ["knowledge_tree", "datasets_registry", "configs"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    result = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("textseg-*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """A fresh environment with textseg from the wheel and everything else from this one."""
    home = tmp_path_factory.mktemp("elsewhere")
    environment = home / "venv"
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    python = environment / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", wheel]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, *install], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # Stands after the environment's own packages in sys.path, and an editable textseg among those
    # here stays unseen, because .pth files are not followed twice.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def run(elsewhere):
    """Runs a program of the fresh environment in a folder outside the checkout."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(elsewhere), "TMPDIR": str(elsewhere)}

    def run(program, *arguments):
        path = elsewhere / "venv" / "bin" / program
        return subprocess.run(
            [path, *arguments],
            cwd=elsewhere,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("folder", DATA_FOLDERS)
def test_every_data_file_of_the_checkout_is_in_the_wheel(folder, names):
    files = {path for path in (CHECKOUT / folder).rglob("*") if path.is_file()}
    assert files
    packed = {f"textseg/_data/{path.relative_to(CHECKOUT).as_posix()}" for path in files}
    assert packed <= names


def test_the_embedded_model_is_in_the_wheel(names):
    files = {"model.safetensors", "manifest.json", "CARD.md"}
    assert {f"textseg/models/nano/{name}" for name in files} <= names


def test_every_module_and_the_type_marker_are_in_the_wheel(names):
    modules = {path.relative_to(CHECKOUT).as_posix() for path in CHECKOUT.glob("textseg/**/*.py")}
    assert modules | {"textseg/py.typed"} <= names


def test_the_wheel_holds_licences_and_nothing_that_belongs_to_development(names):
    outside = {name for name in names if not name.startswith("textseg/")}
    assert all(name.split("/")[0].endswith(".dist-info") for name in outside)
    assert {name.rpartition("/")[2] for name in outside} >= {"LICENSE", "NOTICE", "METADATA"}
    assert not any("__pycache__" in name or name.endswith((".ckpt", ".partial")) for name in names)


def test_the_installed_package_is_the_one_that_runs(run, elsewhere):
    result = run("python", "-c", "import textseg; print(textseg.__file__)")
    assert result.returncode == 0, result.stderr
    assert (elsewhere / "venv").resolve() in Path(result.stdout.strip()).resolve().parents


def test_the_installed_package_finds_its_data(run, elsewhere):
    program = (
        "from textseg.resources import data_folder, models_folder\n"
        f"print(*(data_folder(name) for name in {DATA_FOLDERS}), models_folder(), sep='\\n')"
    )
    folders = [Path(line) for line in run("python", "-c", program).stdout.splitlines()]
    assert len(folders) == len(DATA_FOLDERS) + 1
    assert all(folder.is_dir() and elsewhere in folder.parents for folder in folders)


def test_the_installed_command_segments_a_scan(run, elsewhere):
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[-1:1:41j, -1:1:35j, -1:1:27j]
    body = (x / 0.9) ** 2 + (y / 0.8) ** 2 + 0 * z < 1
    hounsfield = np.where(body, 40, -1000) + rng.normal(0, 15, body.shape)
    image = nib.Nifti1Image(hounsfield.astype(np.int16), np.diag([6.0, 6.5, 8.0, 1.0]))
    nib.save(image, elsewhere / "scan.nii.gz")

    result = run("textseg", "predict", "scan.nii.gz", "liver", "left kidney", "-o", "out")
    assert result.returncode == 0, result.stdout + result.stderr
    manifest = json.loads((elsewhere / "out" / "textseg.json").read_text(encoding="utf-8"))
    assert [prompt["prompt"] for prompt in manifest["prompts"]] == ["liver", "left kidney"]
    assert {prompt["status"] for prompt in manifest["prompts"]} <= {"ok", "not_found"}
    for record in manifest["files"]:
        assert (elsewhere / "out" / record["name"]).is_file()
    for prompt in manifest["prompts"]:
        if prompt["status"] == "ok":
            assert nib.load(elsewhere / "out" / prompt["file"]).shape == body.shape
