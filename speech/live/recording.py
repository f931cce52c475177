"""An uploaded recording, short or long, as a page shows it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from speech.audio import read_blocks
from speech.data.annotations import audacity_text
from speech.errors import AudioError
from speech.live.scan import csv_of, fields, scan, words_of
from speech.recognizer import Recognizer

MAX_SECONDS = 3600.0
MAX_MEGABYTES = 250
_SHORT_CLIPS = 2
_COLUMNS = 1200
_SLICE_SECONDS = 0.02

Progress = Callable[[float], object]


def is_short(recognizer: Recognizer, source: Path) -> bool:
    """Whether a recording is of at most two clips, and so is taken for one word.

    Raises:
        AudioError: As ``read_blocks``.
    """
    most = _SHORT_CLIPS * recognizer.features.clip_seconds
    frames = 0
    for block, rate in read_blocks(source):
        frames += len(block)
        if frames > most * rate:
            return False
    return True


def commands_in(
    recognizer: Recognizer,
    source: Path,
    *,
    max_seconds: float = MAX_SECONDS,
    progress: Progress = lambda _share: None,
) -> dict[str, Any]:
    """The timeline of a long recording, JSON-able, in memory that does not grow with it.

    It is read twice: the first time tells whether it is whole and not too long, before minutes are
    spent on it.

    Args:
        recognizer: The model.
        source: The file.
        max_seconds: Longest recording accepted.
        progress: Is told from time to time which share is done.

    Returns:
        ``name``, ``seconds``, ``detections`` (a dict each), ``peaks`` (the highest sample of each
        of at most 1200 equal pieces, in [0, 1]), and ``files``: the detections as the text of
        files, by suffix (csv, json, and txt for Audacity).

    Raises:
        AudioError: It cannot be read, or is too long.
    """
    seconds, peaks = _outline(source, max_seconds)
    found = scan(recognizer, source, progress=lambda done, total: progress(done / max(total, 1)))
    found = found._replace(path=Path(source.name), seconds=seconds)
    rows = [{key: row[key] for key in row if key != "file"} for row in fields(found)]
    summary = {"name": source.name, "seconds": round(seconds, 3), "detections": rows}
    files = {
        "csv": csv_of([found]),
        "json": json.dumps(summary, indent=2) + "\n",
        "txt": audacity_text(words_of(found)),
    }
    return {**summary, "peaks": peaks, "files": files}


def _outline(source: Path, max_seconds: float) -> tuple[float, list[float]]:
    """The length in seconds, and the peaks."""
    slices: list[float] = []
    frames, rate = 0, 1
    for block, rate in read_blocks(source):
        frames += len(block)
        if frames > max_seconds * rate:
            raise AudioError(
                f"{source}: expected at most {max_seconds / 60:g} minutes, got more; cut it, for "
                f"example: ffmpeg -i INPUT -t {max_seconds:g} output.wav"
            )
        starts = np.arange(0, len(block), round(_SLICE_SECONDS * rate))
        slices += np.maximum.reduceat(np.abs(block), starts).tolist()
    if not slices:
        raise AudioError(f"{source}: expected at least one sample, got none; record it again")
    starts = np.linspace(0, len(slices), min(_COLUMNS, len(slices)), endpoint=False).astype(int)
    peaks = np.minimum(1.0, np.maximum.reduceat(np.array(slices), starts))
    return frames / rate, peaks.round(3).tolist()
