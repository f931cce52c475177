"""The command line: the only place that prints and exits.

Exit codes: 0 done, 1 unexpected, 2 usage, 3 audio, 4 corpus, 5 model, 6 microphone, 7 not enough
data, 8 words that cannot be taught, 9 no cluster of Ray, 130 Ctrl-C.
Heavy packages are imported by the command that needs them, so that --help answers at once.
"""

import io
import sys
from typing import Annotated

import typer

from speech.cli import (
    diagnose,
    distill,
    evaluate,
    explain,
    listen,
    page,
    record,
    score,
    teach,
    train,
    tune,
    wyoming,
)
from speech.cli.console import show_anything, show_notes, warn
from speech.errors import SpeechError
from speech.installation import install_command

app = typer.Typer(
    name="speech",
    help="Train, evaluate and run spoken-command models.",
    epilog="Exit codes: 0 done, 1 unexpected, 2 usage, 3 audio, 4 corpus, 5 model, 6 microphone, "
    "7 not enough data to show what was asked for, 8 words of one's own that cannot be taught, "
    "9 no cluster of Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
for commands in (
    *(listen, page, wyoming, record, teach, train),
    *(distill, tune, evaluate, score, explain, diagnose),
):
    app.add_typer(commands.app)

# which extra brings a package that some commands can do without
_EXTRAS = {
    **dict.fromkeys(("matplotlib", "gradio"), "app"),
    **dict.fromkeys(("wyoming", "zeroconf"), "wyoming"),
    **dict.fromkeys(("keras", "librosa", "numba", "tensorflow", "threadpoolctl"), "train"),
    **dict.fromkeys(("filelock", "fsspec", "optuna", "pyarrow"), "cluster"),
}


def main() -> None:
    """Run the command line; turn every error into one line and an exit code."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")  # accepted behind the command too, where people type it
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_anything()
    show_notes()
    try:
        app()
    except SpeechError as error:
        if debug:
            raise
        _fail(_with_option(error), error.exit_code)
    except Exception as error:
        if debug:
            raise
        _fail(_unexpected(error), 1)


def _show_version(wanted: bool) -> None:
    if wanted:
        import speech

        typer.echo(f"speech {speech.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Train, evaluate and run spoken-command models."""


def _with_option(error: SpeechError) -> str:
    """The library names its parameter; here that is the option by which a user chooses."""
    option = f" (--{error.parameter.replace('_', '-')})" if error.parameter else ""
    return f"{error}{option}"


def _unexpected(error: Exception) -> str:
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in _EXTRAS:
        return (
            f"expected the package {package} for this, got none; install it with: "
            f"{install_command(_EXTRAS[package])}"
        )
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def _fail(message: str, code: int) -> None:
    warn(message)
    raise SystemExit(code)
