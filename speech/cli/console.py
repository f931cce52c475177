"""What the commands share of the terminal: tables, progress bars and warnings."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from speech.errors import SpeechWarning


def show_anything() -> None:
    """Write what the terminal's encoding lacks as an escape, instead of failing at it.

    A label may be ``größe``, and a file's name may be bytes of another encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_notes() -> None:
    """Print each ``SpeechWarning`` as one line; other warnings stay as they are."""
    others = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **rest: Any) -> None:
        if issubclass(category, SpeechWarning):
            warn(f"note: {message}")
        else:
            others(message, category, *place, **rest)

    warnings.showwarning = show
    warnings.simplefilter("always", SpeechWarning)


def console(*, stderr: bool = False) -> Any:
    """Where tables are printed; in a pipe or a file they are not cut to 80 columns.

    What stands in a cell is text, not markup: a file may be called ``[old].wav``.
    """
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else 200
    return Console(width=width, markup=False, emoji=False, stderr=stderr)


def table(*columns: str) -> Any:
    """An empty table with these columns."""
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def warn(message: str) -> None:
    """One line for the user beside the results."""
    typer.echo(f"speech: {message}", err=True)


@contextlib.contextmanager
def progress(what: str, *, in_bytes: bool = False) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere; yields a function of (done, total[, text])."""
    from rich import progress as bars

    count = (bars.DownloadColumn(), bars.TransferSpeedColumn()) if in_bytes else ()
    name = bars.TextColumn("{task.description}", markup=False)  # a file's may hold brackets
    columns = (name, bars.BarColumn(), *count, bars.TimeRemainingColumn())
    screen = console(stderr=True)
    with bars.Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, text: str | None = None) -> None:
            bar.update(task, completed=done, total=total or None, description=text)

        yield update
