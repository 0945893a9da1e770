"""What the commands on a data set's cases take alike: which data set, and where it is."""

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="Name of a data set, its YAML file, or a case list (JSON)."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="FOLDER",
        help="Where the data set is unpacked; none for a case list.",
        show_default=False,
    ),
]
