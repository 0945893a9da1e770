"""Writes ``knowledge_tree/imported/`` anew: ``python -m knowledge_tree.build [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path

from knowledge_tree.build.names import choose_names
from knowledge_tree.build.sources import FOLDER, read_rows, read_uberon
from knowledge_tree.build.writing import write_trees
from textseg.knowledge import load_tree


def main(folder: Path) -> None:
    """Writes the imported part of the tree into ``folder``."""
    rows = read_rows(read_uberon())
    names = choose_names(rows, load_tree(FOLDER.parent / "curated"))
    for path in write_trees(rows, names, folder):
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER.parent / "imported")
