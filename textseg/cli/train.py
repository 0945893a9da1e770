"""``textseg fit``, ``pretrain``, ``export``, ``card``: training, with Lightning's own options."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textseg.cli.terminal import (
    DebugFlag,
    JsonFlag,
    UsageError,
    logging_to_stderr,
    print_json,
    say,
    warn,
)
from textseg.errors import ModelError

if TYPE_CHECKING:
    from textseg.network.weights import ModelManifest
    from textseg.training.report_gate import ReportGate

_EXTRA = {"lightning", "jsonargparse", "monai", "torchmetrics"}


def fit(context: typer.Context) -> None:
    """Train a segmenter.

    Takes LightningCLI's options, such as -c FILE or --trainer.max_epochs=9; `textseg fit --help`
    lists them. -c nano and other names mean the configurations that come with textseg.
    `--resume FOLDER` goes on from the last checkpoint of a run, `--init-from MODEL` starts from the
    weights of a model. Needs textseg[train].
    """
    with _unasked_advice_muted(), logging_to_stderr(verbose=True, debug=False):
        _training().fit(_passed_on(context))


def validate(context: typer.Context) -> None:
    """Score a checkpoint on the validation scans of its domains.

    Takes what `textseg fit` takes, with --ckpt_path=CKPT or --init-from MODEL. Needs
    textseg[train].
    """
    with _unasked_advice_muted():
        _training().score("validate", _passed_on(context))


def test(context: typer.Context) -> None:
    """Score a checkpoint on the test scans of its domains, with distances and means by region.

    Takes what `textseg fit` takes, with --ckpt_path=CKPT or --init-from MODEL. Writes test.csv
    beside the log. Needs textseg[train].
    """
    with _unasked_advice_muted():
        _training().score("test", _passed_on(context))


def pretrain(
    context: typer.Context,
    stage: Annotated[
        Literal["text-text", "text-atlas"],
        typer.Argument(help="What texts are held against: each other, or labelled scans."),
    ],
) -> None:
    """Train a text encoder on the knowledge tree.

    After the stage it takes LightningCLI's options; `textseg pretrain text-text --help` lists them.
    Needs textseg[train].
    """
    with _unasked_advice_muted():
        _training().pretrain(stage, _passed_on(context))


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="What `textseg fit` wrote.")],
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration of that run.")
    ],
    licence: Annotated[
        str, typer.Option(help="Licence of the weights, which follows from the training data.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Model folder to write; by default the --name in your models folder.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; the folder's by default.")
    ] = None,
    version: Annotated[str, typer.Option(help="Version of the weights.")] = "0.1.0",
    omit: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A concept the model shall not offer; repeatable."),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Case list, if it is no longer where the run found it."),
    ] = None,
    sensitivity_cases: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Validation cases on which a model that reads reports is asked with wrong ones, "
            "to see whether it reads them; 0 for none.",
        ),
    ] = 12,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write no model that ignores the reports it is given.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that is there.")
    ] = False,
    debug: DebugFlag = False,
) -> None:
    """Make a model of a training checkpoint.

    The folder it writes is what `textseg predict --model` takes. With --name and without -o it is
    one of your models: `textseg models list` shows it, and --model takes its name.
    """
    from textseg.atomic import exists_error
    from textseg.network.weights import MANIFEST_FILE
    from textseg.zoo import user_model_path

    if out is None:
        if name is None:
            raise typer.BadParameter("give a --name, or a folder with -o")
        out = user_model_path(name)
    if (out / MANIFEST_FILE).exists() and not overwrite:
        raise exists_error(out / MANIFEST_FILE)
    if strict and sensitivity_cases == 0:
        raise UsageError("--strict needs cases to measure; leave out --sensitivity-cases 0.")
    training = _training()
    with _unasked_advice_muted(), _without_device_notes():
        manifest = training.export(
            checkpoint,
            out,
            config=config,
            cases=cases,
            name=name or out.absolute().name,
            version=version,
            licence=licence,
            omit=omit or (),
            gate=_report_gate(sensitivity_cases, strict=strict),
        )
    say(f"wrote {out}: {manifest.name} {manifest.version}, {len(manifest.supported)} concepts")
    _say_sensitivity(out, manifest)


def card(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or folder of the model.")],
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="Configuration of its training.")
    ],
    cases: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Case list, if it is no longer where the run found it."),
    ] = None,
    corrupt: Annotated[
        bool,
        typer.Option(
            "--corrupt/--no-corrupt",
            help="Score a scan of each data set also with thick slices, a small field of view, "
            "noise, and stored along other axes.",
        ),
    ] = True,
    draw: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Draw the best and the worst structures of some scans. Needs textseg[viewer].",
        ),
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    debug: DebugFlag = False,
) -> None:
    """Score a model on the validation scans of its training, and write its card.

    Writes scores.json and CARD.md into the model's folder.
    """
    training = _training()
    from textseg.network.weights import find_model
    from textseg.segmenter import Segmenter

    folder = find_model(model)
    segmenter = Segmenter.from_pretrained(folder, device=device)
    with _unasked_advice_muted(), _without_device_notes():
        training.card(
            segmenter,
            folder,
            config=config,
            cases=cases,
            corrupt=corrupt,
            draw=draw,
            progress=lambda score: say(f"{score.id}: mean Dice {score.mean_dice:.3f}"),
        )
    say(f"wrote {folder / 'CARD.md'}")


def text_benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Text encoders: models by name or folder."),
    ] = None,
    transformers: Annotated[
        list[str] | None,
        typer.Option(
            "--transformer",
            metavar="MODEL",
            help="A Hugging Face encoder, by folder or name; repeatable. Needs textseg[text].",
        ),
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare text encoders on names that were kept from training.

    Kept, that is, from encoders pretrained with --data.hold_out=true; any other has seen them.
    Matching by spelling and an encoder that learned nothing stand beside them.
    """
    _training()
    from textseg.knowledge import load_tree
    from textseg.training.text_benchmark import TextBenchmark, matchers_of, render_scores

    benchmark = TextBenchmark(load_tree())
    scores = {}
    for name, matcher in matchers_of(models or [], transformers or []):
        scores[name] = benchmark.score(matcher)
        say(f"{name}: {scores[name].synonyms.top1:.1%} of held-out synonyms")
    if as_json:
        print_json({name: score.model_dump() for name, score in scores.items()}, indent=1)
    else:
        typer.echo(render_scores(scores), nl=False)


def _report_gate(limit: int, *, strict: bool) -> ReportGate:
    """What a model that reads reports is asked before it is written."""
    from textseg.segmenter import Segmenter
    from textseg.training.report_gate import ReportGate

    return ReportGate(
        load=Segmenter.from_pretrained,
        warn=lambda line, kind: warn(line, kind=kind),
        limit=limit,
        is_strict=strict,
        progress=lambda done, total: say(f"asked with other reports: case {done} of {total}"),
    )


def _say_sensitivity(folder: Path, manifest: ModelManifest) -> None:
    """What other reports do to the masks of a model, if it was measured."""
    from textseg.training.sensitivity_report import read_sensitivity

    measured = read_sensitivity(folder, sha256=manifest.sha256)
    if measured is None or measured.is_ignored or measured.swapped.changed.mean is None:
        return
    say(
        f"a report that says something else changes {measured.swapped.changed.mean:.0%} of a mask "
        f"and Dice by {-(measured.swapped.difference.mean or 0):+.3f}, over "
        f"{measured.swapped.changed.count} scans"
    )


def _training() -> Any:
    """The training commands, which need more packages than prediction does."""
    try:
        return import_module("textseg.training.cli")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise ModelError(
            f"training needs the package {package}, which is not installed.",
            code="E403",
            remedy='Run: pip install "textseg[train]"',
        ) from error


@contextmanager
def _unasked_advice_muted() -> Iterator[None]:
    """Without Lightning's advice against arguments that are given to it while there are others.

    It takes them for a mistake; here they are the same ones, read once.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        yield


@contextmanager
def _without_device_notes() -> Iterator[None]:
    """Without Lightning's lines on devices, which only training uses."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _passed_on(context: typer.Context) -> list[str]:
    # --debug is ours, whatever the command; Lightning would not know it
    return [argument for argument in context.args if argument != "--debug"]
