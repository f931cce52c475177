"""What the commands of the terminal share: tables and progress bars, through rich."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_MODEL = Path("saved_models/commands-8")
ModelOption = Annotated[Path, typer.Option("--model", help="Folder of a model, or its file.")]


def console() -> Any:
    """Where tables are printed; in a pipe or a file they are not cut to 80 columns.

    What stands in a cell is text, not markup: a file may be called ``[old].wav``.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False)


def table(*columns: str) -> Any:
    """An empty table with these columns."""
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


@contextlib.contextmanager
def progress(what: str, *, in_bytes: bool = False) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere; yields a function of (done, total)."""
    from rich import progress as bars
    from rich.console import Console

    count = (bars.DownloadColumn(), bars.TransferSpeedColumn()) if in_bytes else ()
    name = bars.TextColumn("{task.description}", markup=False)  # a file's may hold brackets
    columns = (name, bars.BarColumn(), *count, bars.TimeRemainingColumn())
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
