"""Draws the pictures of the README by the commands that stand below them there.

    python tests/pictures.py example_ct.nii.gz

The CT is the example of TotalSegmentator's tests, the head the one that ``make demo`` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from documents import CHECKOUT, blocks, shell_lines, small_picture
from nilearn.datasets import load_mni152_template

from textseg.cli import main as textseg

README = CHECKOUT / "README.md"
PICTURES = CHECKOUT / "docs" / "pictures"
CT, HEAD = "example_ct.nii.gz", "demo/mni152.nii.gz"


def commands() -> dict[str, list[str]]:
    """The words of the command behind each picture, by the folder it writes to."""
    lines = [
        shlex.split(line)[1:]
        for block in blocks(README)
        if block.language == "console"
        for line in shell_lines(block)
        if line.startswith("textseg predict") and ({CT, HEAD} & set(shlex.split(line)))
    ]
    return {words[words.index("-o") + 1]: words for words in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ct", type=Path, help=f"the scan that the README calls {CT}")
    scan = parser.parse_args().ct.resolve()
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copy(scan, CT)
        Path(HEAD).parent.mkdir()
        load_mni152_template(resolution=1).to_filename(HEAD)
        for out, words in commands().items():
            if textseg(words):
                raise SystemExit(f"textseg {shlex.join(words)} failed")
            drawn = small_picture(Path(out, "preview.png").read_bytes(), width=900)
            (PICTURES / f"{out}.png").write_bytes(drawn)


if __name__ == "__main__":
    main()
