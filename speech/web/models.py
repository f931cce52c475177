"""Registry of models, each loaded on first use."""

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speech.errors import ModelError
from speech.formats.folder import ModelFolder
from speech.labels import SILENCE, UNKNOWN, commands
from speech.recognizer import Recognizer

_IMAGE = re.compile(r"^!\[[^]]*\]\([^)]*\)\n*", re.MULTILINE)


class ModelRegistry:
    """Models by name; safe for threads.

    Args:
        first: The one to begin with, which is loaded already.
        home: Its folder; None where it has none.
        folders: Where more models are, a folder each; of two of one name the later counts.
        load: How a model's folder becomes a recognizer; None for no more models.
    """

    def __init__(
        self,
        first: Recognizer,
        home: Path | None = None,
        folders: Sequence[Path] = (),
        load: Callable[[Path], Recognizer] | None = None,
    ) -> None:
        self.first = first.name
        self._load = load
        self._first_place = home
        self._loaded = {first.name: first}
        self._homes: dict[str, Path] = {}
        for folder in folders if load is not None else ():
            if folder.is_dir():
                models = (path for path in sorted(folder.iterdir()) if any(path.glob("model.*")))
                self._homes |= {path.name: path for path in models}
        if home is not None and home.is_dir():
            self._homes[first.name] = home
        elif home is not None:
            self._homes.pop(first.name, None)  # another model of the same name
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """All of them, the one to begin with first."""
        return [self.first, *(name for name in self._homes if name != self.first)]

    def get(self, name: str | None = None) -> Recognizer:
        """The model of this name, ready and warm; by default the one to begin with.

        Raises:
            ModelError: There is none, or it cannot be loaded.
        """
        name = name or self.first
        with self._lock:
            if name not in self._loaded:
                if self._load is None or name not in self._homes:
                    raise self._unknown(name)
                self._loaded[name] = warm_up(self._load(self._homes[name]))
            return self._loaded[name]

    def place(self, name: str | None = None) -> Path:
        """The folder of the model of this name, or its file; by default the one to begin with.

        Raises:
            ModelError: There is none, or it has no file.
        """
        name = name or self.first
        if name not in self.names:
            raise self._unknown(name)
        place = self._first_place if name == self.first else self._homes[name]
        if place is None:
            raise ModelError(
                f"expected a model in a file, got {name!r}, which has none; choose another"
            )
        return place

    def card(self, name: str) -> str:
        """The model card as Markdown without its pictures, or why there is none."""
        path = self._file(name, lambda folder: folder.card)
        if path is None:
            return f"There is no model card for `{name}`; `speech evaluate` writes one."
        return _IMAGE.sub("", path.read_text("utf-8"))

    def metrics(self, name: str) -> Mapping[str, Any]:
        """What was measured of the model; empty where nothing was."""
        path = self._file(name, lambda folder: folder.metrics)
        try:
            content = json.loads(path.read_text("utf-8")) if path else {}
        except ValueError:
            content = {}
        return content if isinstance(content, dict) else {}

    def summary(self, name: str) -> str:
        """What the model does and how often it is right, in a sentence or two of Markdown.

        Raises:
            ModelError: As ``get``.
        """
        recognizer = self.get(name)
        words = commands(recognizer.labels)
        others = {UNKNOWN: "other words", SILENCE: "silence"}
        rest = " and ".join(text for label, text in others.items() if label in recognizer.labels)
        text = (
            f"`{name}` recognizes {len(words)} commands ({', '.join(words)}) in clips of "
            f"{recognizer.features.clip_seconds:g} s{f', and tells {rest} apart' if rest else ''}."
        )
        metrics = self.metrics(name)
        try:
            low, high = (100 * metrics[key] for key in ("accuracy_low", "accuracy_high"))
            measured = (
                f" It was right for {100 * metrics['accuracy']:.1f} % of {metrics['n']:,} clips of "
                f"{metrics['split']} speakers (95 % interval {low:.1f} to {high:.1f} %)."
            )
        except (KeyError, TypeError, ValueError):
            measured = ""
        return text + measured

    def picture(self, name: str, file: str) -> Path | None:
        """One of the pictures beside the model, if it is there."""
        return self._file(name, lambda folder: folder.path / file)

    def _unknown(self, name: str) -> ModelError:
        return ModelError(
            f"expected one of the models {', '.join(self.names)}, got {name!r}; choose one of them"
        )

    def _file(self, name: str, which: Callable[[ModelFolder], Path]) -> Path | None:
        home = self._homes.get(name)
        path = which(ModelFolder(home)) if home else None
        return path if path and path.is_file() else None


def warm_up(recognizer: Recognizer) -> Recognizer:
    """Give it a first clip, which compiles its features, so that no user waits; returns it."""
    # not digital silence, for which a graph may have a shorter path
    clip = np.zeros((1, recognizer.features.n_samples), np.float32)
    clip[0, ::50] = 0.1
    recognizer.probabilities(clip)
    recognizer.mfcc(clip)
    return recognizer
