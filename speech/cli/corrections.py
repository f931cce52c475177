"""The keys of ``speech listen`` by which a user says what was wrong."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from speech.cli.detections import CLEAR
from speech.detection import Detection
from speech.errors import TeachError
from speech.live.session import Item
from speech.teach.corrections import Corrections, RecentSound

if TYPE_CHECKING:
    from speech.live.microphone import Block

_HELP = "keys: w for 'that was wrong', s for 'I said something else'"


class Talk:
    """The keys, and the questions that are asked before anything is kept.

    A context manager, in which keys come one by one and are not shown; Ctrl-C still interrupts.

    Args:
        model: The folder of the model.
        words: Those of its commands that were taught.
    """

    def __init__(self, model: Path, words: Iterable[str]) -> None:
        self._model, self._words = model, list(words)
        self._corrections, self._sound = Corrections(model), RecentSound()
        self._detection: Detection | None = None
        self._asked: Iterator[None] | None = None
        self._key = ""
        self._kept = 0
        self._before: list[Any] = []

    def __enter__(self) -> "Talk":
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
        if self._kept:
            self._tell(f"to learn from what was kept: speech teach --again {self._model}")

    def remembering(self, blocks: "Iterator[Block]") -> "Iterator[Block]":
        """The same blocks, of which the last seconds are remembered."""
        self._tell(_HELP)
        for block in blocks:
            self._sound.push(block.samples, block.sample_rate)
            yield block

    def attend(self, item: Item) -> None:
        """See what is told to the user, and which keys were pressed meanwhile."""
        if isinstance(item, Detection):
            self._detection = item
        while select.select([sys.stdin], [], [], 0)[0]:
            keys = os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
            if not keys:
                break
            for key in keys:
                self._press(key)

    def _press(self, key: str) -> None:
        """The beginning of a correction, or the next part of an answer."""
        self._key = key
        try:
            if self._asked is None:
                questions = {"w": self._wrong, "s": self._said}
                if key not in questions:
                    return self._tell(_HELP)
                self._asked = questions[key]()
            next(self._asked)
        except StopIteration:
            self._asked = None
        except TeachError as error:
            self._asked = None
            self._tell(str(error))

    def _wrong(self) -> Iterator[None]:
        detection = self._detection
        if detection is None:
            return self._tell("nothing was detected so far")
        if detection.label not in self._words:
            return self._tell(f"{detection.label!r} was not taught: give it a higher --threshold")
        # now, since it is forgotten while the user thinks
        take = self._sound.between(detection.start, detection.time)
        self._tell(
            f"keep the second of {detection.label!r} at {detection.time:.1f} s, in which it was "
            "not said? y for yes, another key for no"
        )
        yield
        if self._key.lower() == "y":
            self._keep(self._corrections.keep_wrong(take))
        else:
            self._tell("not kept")

    def _said(self) -> Iterator[None]:
        take = self._sound.latest()
        numbers = ", ".join(f"{n} {word}" for n, word in enumerate(self._words, 1))
        self._tell(f"keep it as a take of: {numbers}? number and Enter, only Enter for no")
        typed = ""
        while True:
            yield
            if self._key in "\r\n":
                break
            typed = typed[:-1] if self._key in "\b\x7f" else typed + self._key
        if typed.isdecimal() and 1 <= int(typed) <= len(self._words):
            self._keep(self._corrections.keep_said(self._words[int(typed) - 1], take))
        else:
            self._tell("not kept")

    def _keep(self, path: Path) -> None:
        self._kept += 1
        self._tell(f"kept: {path}")

    def _tell(self, sentence: str) -> None:
        typer.echo(f"{CLEAR}speech: {sentence}", err=True)
