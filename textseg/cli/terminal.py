"""What the commands say, and where: answers on stdout, everything else on stderr, a line each."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from textseg.errors import Cancelled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
DebugFlag = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error, and log everything.")
]

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""A wrong command line; typer carries click inside itself or imports it, by version."""

_LOGGERS = ("textseg", "py.warnings")


class Terminated(Cancelled):
    """The system asked the process to end."""

    exit_code: ClassVar[int] = 143


def plain(text: str) -> str:
    """The text on one line, with control characters and stray bytes spelled out.

    >>> plain("left" + chr(10) + "kidney")
    'left kidney'
    """

    def shown(character: str) -> str:
        if character.isspace():
            return " "
        if character.isprintable():
            return character
        return character.encode("unicode_escape").decode()

    return "".join(map(shown, text))


def say(line: str) -> None:
    """One line on stderr, whatever is in it."""
    encoding = sys.stderr.encoding or "utf-8"
    typer.echo(plain(line).encode(encoding, "backslashreplace").decode(encoding), err=True)


def warn(line: str, *, kind: str | None = None) -> None:
    """A warning on stderr; ``kind`` is its name, such as ``not-found``."""
    say(f"warning[{kind}] {line}" if kind else f"warning: {line}")


def print_json(content: Any, *, indent: int | None = None) -> None:
    """JSON on stdout, with escapes only where the terminal's encoding needs them."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, indent=indent, allow_nan=False)
    typer.echo(text)


def print_rich(content: Any, *, title: str | None = None) -> None:
    """A table or tree on stdout, with a line above it; in a file it keeps its full width."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        wide = Console(width=10_000)
        console = Console(width=max(80, wide.measure(content).maximum))
    if title is not None:
        console.print(Text(plain(title), style="bold"), soft_wrap=True)
    console.print(content)


def make_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; columns named in ``numbers`` are aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def cells(*texts: str) -> tuple[Text, ...]:
    """Table cells that show the texts as they are; square brackets are no mark-up."""
    from rich.text import Text

    return tuple(Text(plain(text)) for text in texts)


@contextmanager
def progress_bar(label: str, *, unit: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr and the function that moves it: units done, units to do.

    Nothing is shown where stderr is no terminal, or ``shown`` is false.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = _stderr_console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    # stdout must not pass through the bar's console, or answers would end up on stderr
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not (shown and console.is_terminal),
    ) as progress:
        task = progress.add_task(plain(label), total=None)

        def move(done: int, total: int) -> None:
            if progress.tasks[0].completed > done:
                # a second pass over the scan starts the clock anew
                progress.reset(task, total=total)
            progress.update(task, completed=done, total=total)

        yield move


@contextmanager
def logging_to_stderr(*, verbose: bool, debug: bool) -> Iterator[None]:
    """Shows the library's log on stderr: warnings always, more on request."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR
    handler = _EchoHandler(level)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (old_level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old_level)
            logger.propagate = propagate


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turns SIGINT into ``Cancelled`` and SIGTERM into ``Terminated``, raised where work is.

    Writers clean up on the way out as after any other error.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        kind = Cancelled if number == signal.SIGINT else Terminated
        raise kind(
            f"stopped by {signal.Signals(number).name};",
            remedy="finished results are complete, and --resume goes on from here.",
        )

    if threading.current_thread() is not threading.main_thread():
        # only the main thread may set handlers, and only there would they run
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _EchoHandler(logging.Handler):
    """Writes to whatever stderr is at that moment, so that lines pass above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


def _stderr_console() -> Console:
    from rich.console import Console

    return Console(stderr=True)
