"""The ``textseg`` command: one module per verb; torch is imported inside a verb, never before.

``predict`` makes masks and ``evaluate`` scores them; ``resolve``, ``concepts`` and ``models`` say
what can be asked for; ``fit``, ``pretrain``, ``export`` and ``card`` train and describe models;
``bench`` measures.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer

from textseg import __version__
from textseg.cli import bench, concepts, data, evaluate, models, predict, resolve, train
from textseg.cli.terminal import UsageError, say
from textseg.errors import ResourceError, TextsegError

__all__ = ["app", "main"]

_BROKEN_PIPE = 141

app = typer.Typer(
    name="textseg",
    help=(
        "Text-prompted 3D medical image segmentation: a scan and a phrase in, a mask on the "
        "scan's own grid out."
    ),
    epilog=(
        "Exit codes: 0 done (a structure that is not in the scan is an answer); 1 a bug; 2 wrong "
        "usage; 3 a scan that cannot be used; 4 a model that cannot be used; 5 memory, disk or "
        "permissions; 6 a batch in which some scans failed; 7 a prompt that names nothing "
        "(predict: only with --strict-prompts); 130 or 143 stopped."
    ),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("resolve")(resolve.resolve)
app.add_typer(concepts.app, name="concepts")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("fit", context_settings={**_PASSED_ON, "help_option_names": []})(train.fit)
app.command("validate", context_settings={**_PASSED_ON, "help_option_names": []})(train.validate)
app.command("test", context_settings={**_PASSED_ON, "help_option_names": []})(train.test)
_AFTER_STAGE = {**_PASSED_ON, "allow_interspersed_args": False}
app.command("pretrain", context_settings=_AFTER_STAGE)(train.pretrain)
app.command("export")(train.export)
app.command("card")(train.card)
app.command("text-benchmark")(train.text_benchmark)
app.command("bench")(bench.bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"textseg {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; a foreseen error is one line on stderr."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = typer.main.get_command(app).main(
            args=given, prog_name="textseg", standalone_mode=False
        )
        # a reader that has gone away shows only when the last words are sent
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as stop:
        # typer, too, exits when the reader of its output has gone away, but as if by a bug
        if not isinstance(stop, BrokenPipeError) and not isinstance(
            stop.__context__, BrokenPipeError
        ):
            raise
        # the interpreter flushes once more on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except Exception as error:
        if _is_debugging(given):
            traceback.print_exception(error)
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    """Says what went wrong in one line; returns the exit code."""
    if isinstance(error, MemoryError):
        error = ResourceError(
            f"out of memory ({error or 'an allocation failed'}).",
            code="E501",
            remedy="Ask for fewer prompts at once, or use a machine with more memory.",
        )
    if isinstance(error, TextsegError):
        say(error.line())
        return error.exit_code
    if isinstance(error, UsageError):
        command = getattr(getattr(error, "ctx", None), "command_path", "textseg")
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        say(f"error[usage] {message}. See: {command} --help")
        return 2
    if isinstance(error, typer.Abort):
        say("error[E130 cancelled] stopped.")
        return 130
    say(
        f"error[bug] {type(error).__name__}: {error}. This is a fault in textseg, not in your "
        "input; please report it with what --debug prints."
    )
    return 1


def _is_debugging(arguments: Sequence[str]) -> bool:
    return "--debug" in takewhile(lambda argument: argument != "--", arguments)
