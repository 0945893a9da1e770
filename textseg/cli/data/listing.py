"""``textseg data list`` and ``show``: the public data sets of the label space."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textseg.cli.terminal import DebugFlag, JsonFlag, cells, make_table, print_json, print_rich

if TYPE_CHECKING:
    from textseg.datasets import DatasetSpec


def list_(
    modality: Annotated[
        Literal["ct", "mr", "pet"] | None, typer.Option(help="Only scans of this modality.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Only this body region.")] = None,
    concept: Annotated[
        str | None, typer.Option(metavar="ID", help="Only data sets that label this concept.")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="The small samples that checked this package instead.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Totals in place of the list.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List the public data sets of the label space, or what they add up to.

    Extra ones, which are not of the label space, are listed as such and not added up.
    """
    from textseg.datasets import extra, load_registry, registered, summarise

    registry = load_registry()
    known, more = registered(registry), extra(registry)
    public = {**known, **more}
    others = {name: spec for name, spec in registry.items() if name not in public}
    listed = known if stats else public
    chosen = {
        name: spec
        for name, spec in (others if samples else listed).items()
        if (modality is None or modality in spec.modality)
        and (region is None or region == spec.region)
        and (concept is None or concept in (*spec.concepts, *spec.derived))
    }
    if stats:
        totals = asdict(summarise(chosen))
        if as_json:
            print_json(totals, indent=1)
        else:
            _print_pairs((key.replace("_", " "), f"{value:,}") for key, value in totals.items())
    elif as_json:
        print_json([{**_facts(s), "extra": s.name in more} for s in chosen.values()], indent=1)
    else:
        _print_list(chosen.values(), extra=more)


def show(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="Name, or a YAML file.")],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say what is known of a data set: terms, layout on disk, labels, faults."""
    from textseg.datasets import find_dataset

    spec = find_dataset(name)
    if as_json:
        print_json(spec.model_dump(mode="json"), indent=1)
        return
    facts = {key: value for key, value in _facts(spec).items() if key != "labels" and value}
    _print_pairs((key.replace("_", " "), _as_text(value)) for key, value in facts.items())
    table = make_table("label", "concepts")
    for key, concepts in spec.labels.items():
        table.add_row(*cells(str(key), ", ".join(concepts) or "-"))
    print_rich(table)


def _facts(spec: DatasetSpec) -> dict[str, Any]:
    """What a data set is, in the order of its file."""
    facts = spec.model_dump(mode="json", exclude={"folder", "cases"})
    facts["num_concepts"] = len(spec.concepts) + len(spec.derived)
    return facts


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_as_text(item)}".strip(": ") for key, item in value.items())
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_list(specs: Iterable[DatasetSpec], *, extra: Container[str]) -> None:
    table = make_table(
        "name", "modality", "region", "scans", "concepts", "access", numbers=("scans", "concepts")
    )
    for spec in specs:
        table.add_row(
            *cells(
                f"{spec.name} (extra)" if spec.name in extra else spec.name,
                ", ".join(spec.modalities),
                spec.region,
                "?" if spec.scans is None else f"{spec.scans:,}",
                str(len(spec.concepts) + len(spec.derived)),
                spec.access,
            )
        )
    print_rich(table)


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    table = make_table("", "")
    for pair in pairs:
        table.add_row(*cells(*pair))
    print_rich(table)
