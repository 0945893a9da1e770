"""The command line as a whole: help, usage errors, bugs, and what an error looks like."""

from __future__ import annotations

import subprocess
import sys

import pytest

from textseg import __version__
from textseg.cli.terminal import plain
from textseg.segmenter import Segmenter

VERBS = ("predict", "evaluate", "resolve", "concepts", "models", "export")
HEAVY = ("torch", "numpy", "nibabel", "SimpleITK", "scipy", "lightning", "matplotlib", "pydicom")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def imported_by(*arguments: str) -> set[str]:
    """Which heavy packages a command line imports, in a process of its own."""
    code = f"""
import sys
from textseg.cli import main
code = main({list(arguments)!r})
print("IMPORTED", *[name for name in {HEAVY!r} if name in sys.modules])
assert code == 0, code
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_version_is_the_packages(textseg):
    assert textseg("--version").out == f"textseg {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_verb_and_the_exit_codes(textseg, arguments):
    said = textseg(*arguments)
    assert said.code == 0
    assert all(f"\n  {verb} " in said.out for verb in (*VERBS, "fit", "pretrain"))
    assert "Exit codes" in said.out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(textseg, verb):
    said = textseg(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: textseg {verb}")


def test_help_imports_nothing_heavy():
    assert imported_by("predict", "--help") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("resolve", "left kidney", "--any", "--json"),
        ("resolve", "left kidney", "--any"),
        ("concepts", "left kidney"),
        ("concepts", "--supported"),
        ("models", "list"),
    ],
    ids=" ".join,
)
def test_questions_about_words_are_answered_without_torch(arguments):
    assert "torch" not in imported_by(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict",),
        ("predict", "scan.nii.gz"),
        ("predict", "scan.nii.gz", "liver", "--wrong"),
        ("predict", "scan.nii.gz", "liver", "--threshold", "1.5"),
        ("predict", "scan.nii.gz", "liver", "--format", "dicom"),
        ("predict", "scan.nii.gz", "liver", "spleen", "-o", "mask.nii.gz"),
        ("predict", "scan.nii.gz", "liver", "--modality", "us"),
        ("prdict", "scan.nii.gz", "liver"),
        ("resolve",),
        ("models",),
        ("models", "show"),
        ("concepts", "--kind", "spaceship"),
        ("evaluate", "a.nii.gz"),
        ("export", "last.ckpt"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_code_2(textseg, arguments):
    said = textseg(*arguments)
    assert said.code == 2
    assert len(said.lines) == 1
    assert said.err.startswith("error[usage] ")
    assert "--help" in said.err


@pytest.fixture
def broken(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("the flux\ncapacitor is empty")

    monkeypatch.setattr(Segmenter, "from_pretrained", fail)


def test_a_bug_is_one_line_that_says_so(predict, scan, broken):
    said = predict(scan, "liver")
    assert said.code == 1
    assert len(said.lines) == 1
    assert said.err.startswith("error[bug] RuntimeError: the flux capacitor is empty. ")
    assert "--debug" in said.err


def test_debug_shows_the_traceback(predict, scan, broken):
    said = predict(scan, "liver", "--debug")
    assert said.code == 1
    assert "Traceback (most recent call last)" in said.err
    assert said.lines[-1].startswith("error[bug] ")


def test_debug_after_a_double_dash_is_a_prompt(predict, scan, broken, model, textseg):
    said = textseg("predict", "-m", model, "--", scan, "liver", "--debug")
    assert said.code == 1
    assert "Traceback" not in said.err


def test_a_failed_allocation_is_a_lack_of_memory_not_a_bug(predict, scan, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("Unable to allocate 12.0 GiB")

    monkeypatch.setattr(Segmenter, "from_pretrained", fail)
    said = predict(scan, "liver")
    assert said.code == 5
    assert said.err.startswith("error[E501 out-of-memory] ")


def test_a_reader_that_goes_away_is_no_error_message():
    code = "import sys; from textseg.cli import main; sys.exit(main(['concepts', '--json']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (141, "")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2Jcleared", "\udcff", "left\u202ekidney", "a\0b"])
def test_whatever_is_shown_stays_on_one_printable_line(text):
    shown = plain(text)
    assert shown.isprintable()
    assert shown.encode()


@pytest.mark.parametrize("text", ["left kidney", "左腎", "Nebenniere, größer als 3 cm", "[red]x"])
def test_ordinary_text_is_shown_as_it_is(text):
    assert plain(text) == text


def test_an_error_about_an_odd_path_is_still_one_line(textseg):
    # what a shell passes on for a byte that is not UTF-8
    said = textseg("predict", "no\udcffsuch\nfile.nii.gz", "liver")
    assert said.code == 3
    assert len(said.lines) == 1
    assert said.err.startswith("error[E301 missing] no\\udcffsuch file.nii.gz: ")
