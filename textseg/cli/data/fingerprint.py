"""``textseg data fingerprint``: what the scans and masks of a data set measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textseg.cli.data.arguments import Folder, Source
from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    cells,
    make_table,
    print_json,
    print_rich,
    progress_bar,
)

if TYPE_CHECKING:
    from textseg.datasets.fingerprint import Facts, Fingerprint, Spread

Workers = Annotated[
    int, typer.Option(min=0, metavar="N", help="Cases to read at a time; each takes memory.")
]


def fingerprint(
    source: Source,
    folder: Folder = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Also write it to this JSON file.")
    ] = None,
    workers: Workers = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure a data set: grids, intensities, and how large each structure is."""
    from textseg.atomic import exists_error, write_json

    if output is not None and output.exists() and not overwrite:
        raise exists_error(output)
    found = take_fingerprint(source, folder, workers=workers)
    content = found.model_dump(mode="json")
    if output is not None:
        write_json(output, content, overwrite=overwrite)
    if as_json:
        print_json(content, indent=2)
    else:
        _print_grids(found)
        _print_concepts(found.total)


def take_fingerprint(source: str, folder: Path | None, *, workers: int) -> Fingerprint:
    """The fingerprint of what the arguments name, with a progress bar."""
    from textseg.datasets.fingerprint import fingerprint as measure
    from textseg.datasets.sources import cases_of
    from textseg.knowledge import load_user_tree

    cases = cases_of(source, folder)
    with progress_bar(source, unit="cases", shown=True) as move:
        return measure(cases, tree=load_user_tree(), workers=workers, progress=move)


def _print_grids(found: Fingerprint) -> None:
    groups = {**found.datasets, **({"all": found.total} if len(found.datasets) > 1 else {})}
    table = make_table("", *groups)
    rows = {name: dict(_grid_rows(facts)) for name, facts in groups.items()}
    for label in dict.fromkeys(label for of in rows.values() for label in of):
        table.add_row(*cells(label, *(of.get(label, "-") for of in rows.values())))
    print_rich(table)


def _grid_rows(facts: Facts) -> list[tuple[str, str]]:
    """What a group of cases measures, but for its concepts: label and text."""
    sequences = [
        f"{count} {name} {sequence}".rstrip()
        for name, counts in facts.modalities.items()
        for sequence, count in counts.items()
    ]
    axes = ("left-right", "back-front", "feet-head")
    spreads = (
        ("voxels", facts.shape),
        ("spacing mm", facts.spacing_mm),
        ("field of view mm", facts.field_of_view_mm),
    )
    return [
        ("cases", f"{facts.cases:,} ({facts.images:,} with a scan)"),
        ("modality", "\n".join(sequences)),
        ("orientation", ", ".join(f"{count} {name}" for name, count in facts.orientations.items())),
        *(
            (f"{what}, {axis}", _spread(spread))
            for what, three in spreads
            for axis, spread in zip(axes, three, strict=True)
        ),
        ("in memory", f"{facts.bytes / 1e9:,.2f} GB"),
        *(
            (
                f"intensity in {name} masks",
                f"{i.mean:.4g} ± {i.sd:.4g}, middle 99 %: {i.p0_5:.4g} to {i.p99_5:.4g}",
            )
            for name, i in facts.intensities.items()
        ),
    ]


def _spread(spread: Spread) -> str:
    return f"{spread.median:.4g} ({spread.min:.4g} to {spread.max:.4g})"


def _print_concepts(facts: Facts) -> None:
    numbers = ("cases", "median ml", "p10 ml", "p90 ml", "least ml", "box mm")
    table = make_table("concept", *numbers, numbers=numbers)
    for concept, held in facts.concepts.items():
        seen = [f"{held.present} of {held.known}"]
        if held.volume_ml is not None and held.extent_mm is not None:
            ml = held.volume_ml
            seen += [f"{size:.3g}" for size in (ml.median, ml.p10, ml.p90, ml.min)]
            seen.append(" x ".join(f"{mm:.3g}" for mm in held.extent_mm))
        table.add_row(*cells(concept, *seen))
    print_rich(table)
