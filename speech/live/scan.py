"""Long recordings to a timeline of detections, in memory that does not grow with their length."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speech.audio import Waveform, open_audio
from speech.data.annotations import Word, csv_text
from speech.detection import DecoderConfig, Detection
from speech.errors import AudioError
from speech.recognizer import Recognizer
from speech.stream import StreamDecoder

Progress = Callable[[int, int], object]

BATCH = 256  # windows in one call of the network: half a minute of sound


class Timeline(NamedTuple):
    """What is said in a recording.

    Attributes:
        path: The recording.
        seconds: Its length.
        detections: In the order of time.
    """

    path: Path
    seconds: float
    detections: tuple[Detection, ...]


def scan(
    recognizer: Recognizer,
    path: Path,
    config: DecoderConfig | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Timeline:
    """Find the commands in a recording of any length, exactly as ``StreamDecoder`` would.

    It is that decoder, fed with half a minute at a time: then the features of a frame are computed
    once, and not once for each window that it lies in, and the network is asked in batches.

    Args:
        recognizer: The model.
        path: The recording.
        config: When to detect; by default what the model says.
        progress: Told how many bytes of how many were read.

    Raises:
        AudioError: It cannot be read.
        ValueError: Config and model do not fit.
    """
    decoder = StreamDecoder(recognizer, config, batch_size=BATCH)
    batch_seconds = BATCH * decoder.config.step_seconds
    found: list[Detection] = []
    for samples, rate in _gathered(_blocks(path, progress), batch_seconds):
        found += decoder.push(samples, rate)
    found += decoder.flush()
    if not decoder.seconds:
        raise AudioError(f"{path}: expected at least one sample, got none; record it again")
    return Timeline(path, decoder.seconds, tuple(found))


def _blocks(path: Path, progress: Progress) -> Iterator[tuple[Waveform, int]]:
    with open_audio(path) as file:
        for block in file.blocks():
            yield block, file.sample_rate
            progress(file.bytes_read, file.n_bytes)


def _gathered(
    blocks: Iterator[tuple[Waveform, int]], seconds: float
) -> Iterator[tuple[Waveform, int]]:
    """The same sound in pieces of so many seconds; a batch is then as large as it may be."""
    waiting: list[Waveform] = []
    n, rate = 0, 0
    for block, rate in blocks:
        size = round(seconds * rate)
        waiting.append(block)
        n += len(block)
        while n >= size:
            joined = np.concatenate(waiting)
            yield joined[:size], rate
            waiting, n = [joined[size:]], n - size
    if n:
        yield np.concatenate(waiting), rate


def fields(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """One dict a detection, JSON-able; times in seconds."""
    for found in timeline.detections:
        yield {
            "file": str(timeline.path),
            "label": found.label,
            "probability": round(found.probability, 4),
            "time": round(found.time, 3),
            "start": round(found.start, 3),
        }


def csv_of(timelines: Sequence[Timeline]) -> str:
    """A CSV file of all detections; ``speech score-stream`` reads start, end and label of it."""
    rows = [
        (str(t.path), f"{d.start:.3f}", f"{d.time:.3f}", d.label, f"{d.probability:.4f}")
        for t in timelines
        for d in t.detections
    ]
    return csv_text(("file", "start", "end", "label", "probability"), rows)


def words_of(timeline: Timeline) -> list[Word]:
    """The detections as labels from the start of the window to the decision."""
    return [Word(found.start, found.time, found.label) for found in timeline.detections]


def file_names(paths: Sequence[Path], suffix: str) -> list[str]:
    """A file name for each recording that differs from those of the others."""
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    return ["-".join(path.resolve().relative_to(common).parts) + suffix for path in paths]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as ``1:02:03.4``."""
    tenths = round(10 * seconds)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
