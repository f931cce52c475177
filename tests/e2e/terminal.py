"""A terminal of a command's own, which a test reads and writes."""

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Terminal:
    """A running command whose terminal is read and written as a person would."""

    def __init__(self, *arguments: object, program: str = "speech") -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self._seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", program, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, text: str) -> str:
        """Read up to a text; returns what came before it."""
        while text not in self._seen:
            try:
                self._seen += os.read(self._ours, 4096).decode(errors="replace")
            except OSError:  # of Linux, where a terminal's other side is closed
                raise AssertionError(f"{text!r} never came: {self._seen}") from None
        before, _, self._seen = self._seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it wrote last."""
        rest = self._seen
        try:
            while piece := os.read(self._ours, 4096):
                rest += piece.decode(errors="replace")
        except OSError:
            pass
        return self.process.wait(), rest

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
