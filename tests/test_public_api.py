"""The names a program may rely on: few, sorted, importable, documented."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import textseg
from textseg import errors

PROMISED = {
    "InputError",
    "ModelError",
    "PromptError",
    "ResourceError",
    "Segmentation",
    "Segmenter",
    "TextsegError",
    "load_tree",
    "read_volume",
    "resolve",
}
"""What the README and the user guide use; taking one of these away breaks programs."""


def test_the_promised_names_are_public():
    assert set(textseg.__all__) >= PROMISED


def test_public_names_are_few_sorted_and_unique():
    assert len(textseg.__all__) <= 16
    assert list(textseg.__all__) == sorted(set(textseg.__all__))


@pytest.mark.parametrize("name", textseg.__all__)
def test_a_public_name_is_importable_and_documented(name):
    thing = getattr(textseg, name)
    assert inspect.isclass(thing) or callable(thing)
    # A dataclass without a docstring gets its own signature as one.
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("name", textseg.__all__)
def test_public_functions_and_methods_say_what_they_give_back(name):
    thing = getattr(textseg, name)
    members = vars(thing).items() if inspect.isclass(thing) else [(name, thing)]
    silent = [
        member
        for member, value in members
        if inspect.isfunction(value) and not member.startswith("_") and not value.__doc__
    ]
    assert silent == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="segmentor"):
        _ = textseg.segmentor


def test_a_star_import_brings_exactly_the_public_names():
    program = (
        "before = set(globals()) | {'before'}\n"
        "from textseg import *\n"
        "print(*sorted(set(globals()) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == list(textseg.__all__)


def test_completion_lists_the_public_names():
    assert set(textseg.__all__) <= set(dir(textseg))


def test_the_version_is_that_of_the_project():
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    assert textseg.__version__ == declared


def test_the_changelog_describes_the_version():
    changelog = Path(__file__).resolve().parent.parent / "CHANGELOG.md"
    headings = re.findall(r"^## \[(.+?)\]", changelog.read_text(encoding="utf-8"), re.MULTILINE)
    assert textseg.__version__ in headings


def test_every_error_is_a_textseg_error_with_its_own_exit_code():
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    assert all(issubclass(kind, errors.TextsegError) for kind in kinds.values())
    branches = errors.TextsegError.__subclasses__()
    own = [kind for kind in branches if kind.__module__ == errors.__name__]
    assert sorted(kind.exit_code for kind in own) == [3, 4, 5, 7, 130]


def test_the_package_says_that_it_is_typed():
    assert (Path(textseg.__file__).parent / "py.typed").is_file()
