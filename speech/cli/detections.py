"""What a terminal does with a live session: it prints lines and starts programs."""

import contextlib
import difflib
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any

import typer

from speech.detection import Detection
from speech.live.session import HINTS, Event, Item, Status

CLEAR = "\r\x1b[K"  # empties the last line of a terminal
_FLOOR = 1e-5
_MOST_CHILDREN = 8
_FIELDS = ("label", "probability", "time")
_FIELD = re.compile(r"\{([a-z]+)\}")
# what means something else than itself to a shell, where it stands outside of quotes
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_SHELL_WORD = re.compile(r"[|&;<>]+|`|\$[\w({]+")


class Launcher:
    """Starts a command for each detection, without a shell and without waiting for it.

    What a command prints goes to standard error, since standard output belongs to the detections.
    A context manager: at its end, commands that still run get two seconds.

    Args:
        command: Split once as a shell would, without its other powers. ``{label}``,
            ``{probability}`` (0 to 1) and ``{time}`` (in seconds) are filled in, wherever they
            stand.

    Raises:
        typer.BadParameter: An open quotation, a misspelled name in braces, nothing at all, a
            program that is not there, or a word that only a shell understands.
    """

    def __init__(self, command: str) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise typer.BadParameter(
                f"expected a command, got {command!r} ({error}); close the quotation"
            ) from error
        if word := _SHELL_WORD.search(_QUOTED.sub("", command)):
            raise typer.BadParameter(
                f"expected a program and its arguments, got {word[0]!r}, which only a shell "
                "understands; put quotes around it if it is meant as it stands, or start a script"
            )
        for name in _FIELD.findall(" ".join(self._arguments)):
            if name not in _FIELDS and difflib.get_close_matches(name, _FIELDS):
                raise typer.BadParameter(
                    f"expected {', '.join(f'{{{field}}}' for field in _FIELDS)} to be filled in, "
                    f"got {{{name}}}; write one of them, or leave it out"
                )
        program = self._arguments[0] if self._arguments else ""
        if not _FIELD.search(program) and shutil.which(program) is None:
            raise typer.BadParameter(
                f"expected a program that can be run, got {program!r}; check its name and path "
                "(what only a shell knows, such as cd, belongs into a script)"
            )
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        give_up = time.monotonic() + 2.0
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, give_up - time.monotonic()))

    def run(self, detection: Detection) -> list[Event]:
        """Start it; returns nothing, or an event that says why it was not started."""
        self.reap()
        values = {
            "label": detection.label,
            "probability": f"{detection.probability:.4f}",
            "time": f"{detection.time:.3f}",
        }
        arguments = [
            _FIELD.sub(lambda match: values.get(match[1], match[0]), argument)
            for argument in self._arguments
        ]
        if len(self._children) >= _MOST_CHILDREN:
            problem = f"{arguments[0]} was not started: {_MOST_CHILDREN} of them still run"
            return [Event("exec", detection.time, problem)]
        try:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr
            )
        except (OSError, ValueError) as error:
            problem = f"{arguments[0]} could not be started: {error}"
            return [Event("exec", detection.time, problem)]
        self._children.append(child)
        return []

    def reap(self) -> None:
        """Let those that have ended go."""
        self._children = [child for child in self._children if child.poll() is None]


def live_lines(item: Item, as_json: bool = False, columns: int = 0) -> tuple[str, str]:
    """What an item of a live session adds to standard output and to standard error.

    Args:
        item: From ``speech.live.session.run``.
        as_json: Detections and events as JSON lines, all on standard output, no status.
        columns: Width of the terminal that shows the status, in one line that is written over;
            0 for none.
    """
    if isinstance(item, Status):
        return "", CLEAR + _status_line(item, columns) if columns else ""
    if as_json:
        return json.dumps(_fields(item)) + "\n", ""
    clear = CLEAR if columns else ""
    if isinstance(item, Detection):
        return f"{item.time:.1f} s  {item.label}  {item.probability:.2f}\n", clear
    if columns and item.kind in HINTS:
        return "", ""  # the status shows it for as long as it is so
    option = " (--rate)" if item.kind == "note" else ""
    return "", f"{clear}speech: {item.message}{option}\n"


def _fields(item: Detection | Event) -> dict[str, Any]:
    if isinstance(item, Event):
        return {
            "type": "event",
            "event": item.kind,
            "time": round(item.time, 3),
            "message": item.message,
        }
    return {
        "type": "detection",
        "label": item.label,
        "probability": round(item.probability, 4),
        "time": round(item.time, 3),
        "start": round(item.start, 3),
    }


def meter(peak: float) -> str:
    """The level of a sound as a bar of 60 dB; ``peak`` is its highest sample, in [0, 1]."""
    decibels = 20 * math.log10(max(peak, _FLOOR))
    bars = round(min(max(decibels + 60, 0), 60) / 3)
    return f"[{'#' * bars:20}] {decibels:4.0f} dB"


def _status_line(status: Status, columns: int) -> str:
    parts = [
        f"{status.time:7.1f} s  {meter(status.peak)}",
        f"{status.label} {status.probability:.2f}",
        HINTS.get(status.hint, ""),
        f"{status.dropped} dropped" if status.dropped else "",
        f"{status.overflows} overflows" if status.overflows else "",
    ]
    return "  ".join(part for part in parts if part)[: columns - 1]
