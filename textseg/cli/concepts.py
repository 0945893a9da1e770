"""``textseg concepts``: what can be asked for, and by what name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    cells,
    make_table,
    plain,
    print_json,
    print_rich,
    warn,
)
from textseg.errors import UnknownConcept

if TYPE_CHECKING:
    from rich.tree import Tree

    from textseg.knowledge import Concept, KnowledgeTree

Supported = frozenset[str]

_LEAST_SCORE = 0.6
_FOUND_BY_DEFAULT = 10
_SHOWN_NEIGHBOURS = 12


def concepts(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="A name, or something like it.")
    ] = None,
    supported: Annotated[
        bool, typer.Option("--supported", help="Only what the model can segment.")
    ] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name or folder.")] = "nano",
    region: Annotated[str | None, typer.Option(help="Only this body region, e.g. abdomen.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. bone.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most rows to show; 10 for a search, else all.")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List or search what has a name.

    An exact name shows its card; anything else lists what is called much like it.
    """
    from textseg.knowledge import load_tree

    tree = load_tree()
    able = supported_by(model)
    keep = _filter(tree, region=region, kind=kind, able=able if supported else None)
    if text is None:
        found = [concept for concept in tree if keep(concept)]
        _print_list(tree, found[:limit], able, total=len(found), as_json=as_json)
        return
    exact = [concept for concept in tree.lookup(text) if keep(concept)]
    if len(exact) == 1:
        _print_card(tree, exact[0], able, model=model, as_json=as_json)
        return
    near = _search(tree, text, keep, limit=limit or _FOUND_BY_DEFAULT)
    _print_list(tree, exact or near, able, total=len(exact or near), as_json=as_json)


def supported_by(model: str) -> Supported:
    """Ids of the concepts a model was trained on."""
    from textseg.network.weights import find_model, read_model_manifest

    return read_model_manifest(find_model(model)).supported


def _filter(
    tree: KnowledgeTree, *, region: str | None, kind: str | None, able: Supported | None
) -> Callable[[Concept], bool]:
    """Whether a concept is wanted; an unknown region or kind is a usage error that lists them."""
    for option, value, known in (
        ("--region", region, {c.region for c in tree}),
        ("--kind", kind, {c.kind for c in tree}),
    ):
        if value is not None and value not in known:
            raise UsageError(f"{option} {value!r} is none of {', '.join(sorted(known))}.")

    def keep(concept: Concept) -> bool:
        return (
            region in {None, concept.region}
            and kind in {None, concept.kind}
            and (able is None or bool(tree.leaves(concept.id, able)))
        )

    return keep


def _search(
    tree: KnowledgeTree, text: str, keep: Callable[[Concept], bool], *, limit: int
) -> list[Concept]:
    from textseg.knowledge import search

    # what the filters drop must not take the places of what they keep
    matches = search(tree, text, limit=10 * limit)
    found = [m.concept for m in matches if m.score >= _LEAST_SCORE and keep(m.concept)][:limit]
    if not found:
        remedy = "List all with `textseg concepts`, what a model knows with --supported."
        raise UnknownConcept(f"nothing is called {text!r} or much like it.", remedy=remedy)
    return found


def _print_list(
    tree: KnowledgeTree, found: Sequence[Concept], able: Supported, *, total: int, as_json: bool
) -> None:
    if as_json:
        print_json([_card(tree, concept, able) for concept in found], indent=2)
        return
    table = make_table("name", "id", "kind", "region", "model")
    for concept in found:
        how = _support(tree, concept, able)
        table.add_row(*cells(concept.name, concept.id, concept.kind, concept.region, how))
    print_rich(table)
    if len(found) < total:
        warn(f"{len(found)} of {total} shown; raise --limit for more.")


def _support(tree: KnowledgeTree, concept: Concept, able: Supported) -> str:
    """How the model segments a concept: as itself, as a union, or not at all."""
    leaves = tree.leaves(concept.id, able)
    if leaves == (concept.id,):
        return "yes"
    return f"as {len(leaves)} parts" if len(leaves) > 1 else "yes" if leaves else "-"


def _card(tree: KnowledgeTree, concept: Concept, able: Supported) -> dict[str, Any]:
    """Everything there is to say about a concept, in JSON's own types."""
    fields = asdict(concept)
    del fields["base"], fields["ambiguous"]
    return {
        **fields,
        "definition": tree.definition(concept.id),
        "children": tree.children(concept.id),
        "parts": tree.parts(concept.id),
        "counterpart": tree.counterpart(concept.id),
        "segmented_as": tree.leaves(concept.id, able),
    }


def _print_card(
    tree: KnowledgeTree, concept: Concept, able: Supported, *, model: str, as_json: bool
) -> None:
    card = _card(tree, concept, able)
    if as_json:
        print_json(card, indent=2)
        return
    from rich.text import Text
    from rich.tree import Tree

    place = [concept.kind, concept.region, concept.system, f"{concept.side or 'no'} side"]
    heading = Text.assemble((plain(concept.name), "bold"), f"  {concept.id}")
    root = Tree(heading)
    root.add(Text(", ".join(word.replace("_", " ") for word in place)))
    root.add(Text(plain(card["definition"])))
    other = [name for name in concept.synonyms if name != concept.name]
    if other:
        root.add(Text(plain(f"also: {', '.join(other)}")))
    for title, ids in (
        ("a kind of", concept.is_a),
        ("part of", concept.part_of),
        ("other side", (card["counterpart"],) if card["counterpart"] else ()),
        ("kinds", card["children"]),
        ("parts", card["parts"]),
        ("contains", concept.contains),
        (f"{model} segments it as", card["segmented_as"]),
    ):
        _add_branch(root, title, ids, tree)
    if not card["segmented_as"]:
        root.add(Text(f"{plain(model)} cannot segment it"))
    print_rich(root)


def _add_branch(root: Tree, title: str, ids: Sequence[str], tree: KnowledgeTree) -> None:
    from rich.text import Text

    if not ids:
        return
    branch = root.add(Text(plain(title), style="cyan"))
    for concept_id in ids[:_SHOWN_NEIGHBOURS]:
        branch.add(Text.assemble(plain(tree[concept_id].name), (f"  {concept_id}", "dim")))
    if len(ids) > _SHOWN_NEIGHBOURS:
        branch.add(Text(f"and {len(ids) - _SHOWN_NEIGHBOURS} more"))
