"""What models make of people, words and rooms of other sources, which nothing trained on.

    python experiments/measure_strangers.py ../shared/strangers MODEL [MODEL ...]

Layout: SOURCE/WORD/clip; WORD is a command of the model, ``room``, or any other word. Files right
below SOURCE are continuous speech, of which each second counts.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.audio import fit_length, load_audio
from speech.audio_files import SUFFIXES
from speech.labels import commands
from speech.recognizer import load

BATCH = 1024


def clips(folder: Path, rate: int, n: int) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """All clips of each (source, word), float32 (clips, n); long rooms and speech by the second."""
    found: dict[tuple[str, str], list[npt.NDArray[np.float32]]] = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.lower().endswith(SUFFIXES):
            continue
        source, *words = path.relative_to(folder).parts[:-1]
        word = words[0] if words else "speech"
        waveform = load_audio(path, rate, max_seconds=7200)
        pieces = [fit_length(waveform, n)]
        if word in ("room", "speech") and len(waveform) > n:
            pieces = [waveform[i : i + n] for i in range(0, len(waveform) - n + 1, n)]
        found.setdefault((source, word), []).extend(pieces)
    return {key: np.stack(rows) for key, rows in found.items()}


def counts(model: Any, folder: Path) -> dict[str, tuple[int, int]]:
    """For each row of the table how many clips were right, of how many."""
    given = clips(folder, model.features.sample_rate, model.features.n_samples)
    batch = np.concatenate(list(given.values()))
    answers = np.concatenate(
        [
            model.probabilities(batch[i : i + BATCH]).argmax(axis=1)
            for i in range(0, len(batch), BATCH)
        ]
    )
    found: dict[str, list[bool]] = {}
    for (source, word), mine in zip(
        given, np.split(answers, np.cumsum([len(c) for c in given.values()])[:-1]), strict=True
    ):
        labels = [model.labels[i] for i in mine]
        if word in commands(model.labels):
            right = [label == word for label in labels]
            row = f"{source} commands right"
        else:
            kind = {"room": "rooms", "speech": "speech"}.get(word, "other words")
            right = [label not in commands(model.labels) for label in labels]
            row = f"{source} {kind} not a command"
        found.setdefault(row, []).extend(right)
        found[f"  {source} {word}"] = right
    return {key: (sum(rows), len(rows)) for key, rows in sorted(found.items())}


def main(folder: Path, paths: list[Path]) -> None:
    """Print one line for each row, one column for each model."""
    tables = [counts(load(path), folder) for path in paths]
    print("|".join(["row".ljust(40), *(str(p.parent.name or p.name).rjust(16) for p in paths)]))
    for key in tables[0]:
        cells = [f"{t[key][0]}/{t[key][1]} {t[key][0] / t[key][1]:.1%}" for t in tables]
        print("|".join([key.ljust(40), *(cell.rjust(16) for cell in cells)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]])
