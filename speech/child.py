"""Calling a function in a process of its own, which may crash without taking this one along."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from speech.errors import SpeechError

T = TypeVar("T")

_CALL, _ANSWER = "call.pickle", "answer.pickle"
# modules are looked for where they are looked for here
_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from speech import child
child.answer(sys.argv[1])
"""


class ChildError(SpeechError):
    """A child process ended without an answer: it crashed, was killed, or its code is at fault."""


def call(
    function: Callable[..., T], *arguments: Any, environment: Mapping[str, str] | None = None
) -> T:
    """Call a function in a fresh interpreter and return what it returns.

    Args:
        function: One at the top of a module.
        arguments: Anything that pickle takes, as what is returned has to be.
        environment: Variables to set there, besides those that are set here.

    Raises:
        SpeechError: What the function raised, if it is a ``SpeechError``.
        ChildError: Anything else that kept it from returning; names the exit status and the last
            line that the child wrote.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / _CALL).write_bytes(pickle.dumps((function, arguments)))
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, scratch, *sys.path],
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        answer = folder / _ANSWER
        if done.returncode or not answer.is_file():
            lines = done.stderr.strip().splitlines() or ["it wrote nothing"]
            raise ChildError(f"exit status {done.returncode} of a child process: {lines[-1]}")
        # both files are written here, into a folder that belongs to this user alone
        result: T | SpeechError = pickle.loads(answer.read_bytes())  # noqa: S301
    if isinstance(result, SpeechError):
        raise result
    return result


def answer(scratch: str) -> None:
    """What the child does with the folder of ``call``."""
    folder = Path(scratch)
    function, arguments = pickle.loads((folder / _CALL).read_bytes())  # noqa: S301
    try:
        result = function(*arguments)
    except SpeechError as error:
        result = error
    (folder / _ANSWER).write_bytes(pickle.dumps(result))
