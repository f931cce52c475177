"""Long recordings to a timeline of detections, in memory that does not grow with their length."""

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speech.audio import OnNote, Waveform, open_audio, resample, resample_blocks, warn
from speech.audio_files import FileSource
from speech.data.annotations import Word, audacity_text, csv_text
from speech.detection import DecoderConfig, Detection
from speech.errors import AudioError
from speech.files import readable_name
from speech.installation import DEFAULT_MODEL
from speech.live.session import decoder_for
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder

BATCH = 256  # windows in one call of the network: half a minute of sound
_SHORT_CLIPS = 2  # a recording of at most so many clips is taken for one word
_COLUMNS = 1200
_SLICE_SECONDS = 0.02

Blocks = Iterator[tuple[Waveform, int]]


class Timeline(NamedTuple):
    """The commands of a recording.

    Attributes:
        path: The recording.
        seconds: Its length.
        detections: In the order of time.
        peaks: Highest absolute sample of each of at most 1200 equal pieces, in [0, 1].
    """

    path: Path
    seconds: float
    detections: tuple[Detection, ...]
    peaks: tuple[float, ...] = ()

    def __repr__(self) -> str:
        words = ", ".join(f"{d.label} at {d.time:.1f} s" for d in self.detections[:8])
        more = "" if len(self.detections) <= 8 else ", ..."
        return f"<Timeline of {self.path.name}, {self.seconds:.1f} s: {words or 'nothing'}{more}>"


def scan(
    source: FileSource,
    model: Recognizer | str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    threshold: float | None = None,
) -> Iterator[Detection]:
    """Find the commands in a recording of any length, one after the other.

    They are found about half a minute of sound at a time, in memory that does not grow with it.

    Args:
        source: As ``load_audio`` takes it, but no array.
        model: As ``load`` takes it, or a model that is loaded.
        threshold: Smoothed probability in (0, 1] that every command has to reach; by default those
            of the model.

    Yields:
        Detections in the order of time.

    Raises:
        AudioError: The recording cannot be read.
        ModelError: As ``load``.
        ValueError: The threshold is out of range.

    Example:
        >>> [detection.label for detection in speech.scan("seven_words.flac")]
        ['yes', 'left', 'stop', 'up', 'right', 'go', 'no']
    """
    recognizer = model if isinstance(model, Recognizer) else load(model)
    config = decoder_for(recognizer, threshold).config
    return _detections(recognizer, config, _limited(source, math.inf, no_progress, warn))


def _detections(
    recognizer: Recognizer, config: DecoderConfig | None, blocks: Blocks
) -> Iterator[Detection]:
    decoder = StreamDecoder(recognizer, config, batch_size=BATCH)
    rate = recognizer.features.sample_rate
    for samples in gathered(blocks, rate, round(BATCH * decoder.config.step_seconds * rate)):
        yield from decoder.push(samples, rate)
    yield from decoder.flush()


def scan_file(
    recognizer: Recognizer,
    path: Path,
    config: DecoderConfig | None = None,
    *,
    max_seconds: float = float("inf"),
    on_progress: OnProgress = no_progress,
    on_note: OnNote = warn,
) -> Timeline:
    """Find the commands in a recording of any length, exactly as ``StreamDecoder`` would.

    It is that decoder, fed with half a minute at a time: then the features of a frame are computed
    once, and not once for each window that it lies in, and the network is asked in batches.

    Args:
        recognizer: The model.
        path: The recording.
        config: When to detect; by default what the model says.
        max_seconds: Longest recording accepted.
        on_progress: Told how many bytes of how many were read.
        on_note: As for ``load_audio``.

    Raises:
        AudioError: It cannot be read, is empty, or is too long.
        ValueError: Config and model do not fit.
    """
    return _timeline(recognizer, path, config, _limited(path, max_seconds, on_progress, on_note))


def word_or_timeline(
    recognizer: Recognizer,
    path: Path,
    *,
    max_seconds: float = float("inf"),
    on_progress: OnProgress = no_progress,
    on_note: OnNote = warn,
) -> Waveform | Timeline:
    """Read a recording that may be one word or a long one; it is decoded once.

    Args:
        recognizer: The model.
        path: The recording.
        max_seconds: Longest recording accepted.
        on_progress: As ``scan_file``.
        on_note: As for ``load_audio``.

    Returns:
        The samples of a recording of at most two clips, as ``load_audio`` gives them; the timeline
        of a longer one.

    Raises:
        AudioError: As ``scan_file``.
    """
    blocks = _limited(path, max_seconds, on_progress, on_note)
    most = _SHORT_CLIPS * recognizer.features.clip_seconds
    head: list[tuple[Waveform, int]] = []
    frames = 0
    for block, rate in blocks:
        head.append((block, rate))
        frames += len(block)
        if frames > most * rate:
            return _timeline(recognizer, path, None, itertools.chain(head, blocks))
    if not frames:
        raise no_sound(path)
    samples = np.concatenate([block for block, _ in head])
    return resample(samples, head[0][1], recognizer.features.sample_rate)


def _timeline(
    recognizer: Recognizer, path: Path, config: DecoderConfig | None, blocks: Blocks
) -> Timeline:
    outline = _Outline()
    detections = tuple(_detections(recognizer, config, outline.watch(blocks)))
    if not outline.seconds:
        raise no_sound(path)
    return Timeline(path, outline.seconds, detections, outline.peaks())


def no_sound(path: Path) -> AudioError:
    """The error for a recording without samples."""
    return AudioError(f"{path}: expected at least one sample, got none; record it again")


def _limited(
    source: FileSource, max_seconds: float, on_progress: OnProgress, on_note: OnNote
) -> Blocks:
    with open_audio(source, on_note=on_note) as file:
        # before anything is decoded, where the header says it
        _check_seconds(file.name, file.seconds or 0.0, max_seconds)
        frames = 0
        for block in file.blocks():
            frames += len(block)
            _check_seconds(file.name, frames / file.sample_rate, max_seconds)
            yield block, file.sample_rate
            on_progress(file.bytes_read, file.n_bytes)


def _check_seconds(name: str, seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise AudioError(
            f"{name}: expected at most {max_seconds / 60:g} minutes, got more; cut it, for "
            f"example: ffmpeg -i INPUT -t {max_seconds:g} output.wav"
        )


def gathered(blocks: Blocks, sample_rate: int, size: int) -> Iterator[Waveform]:
    """A recording at the rate of the model in equal pieces, so that each batch is a full one.

    Args:
        blocks: Mono samples and their rate in Hz, which is the same for all.
        sample_rate: Of the result, in Hz.
        size: Samples in a piece, the last one excepted.

    Yields:
        float32 (size,) in [-1, 1).
    """
    first = next(blocks, None)
    if first is None:
        return
    sound = (block for block, _ in itertools.chain([first], blocks))
    waiting: list[Waveform] = []
    n = 0
    for block in resample_blocks(sound, first[1], sample_rate):
        waiting.append(block)
        n += len(block)
        while n >= size:
            joined = np.concatenate(waiting)
            yield joined[:size]
            waiting, n = [joined[size:]], n - size
    if n:
        yield np.concatenate(waiting)


class _Outline:
    """The length and the peaks of a recording whose blocks pass by, in bounded memory."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._slices = np.zeros(0, np.float32)
        self._slice_seconds = _SLICE_SECONDS
        self._rest = np.zeros(0, np.float32)  # of a slice that is not complete

    def watch(self, blocks: Blocks) -> Blocks:
        frames, rate = 0, 1
        for block, rate in blocks:
            frames += len(block)
            self._add(np.abs(block), rate)
            yield block, rate
        if len(self._rest):
            self._slices = np.append(self._slices, self._rest.max())
        self.seconds = frames / rate

    def _add(self, sizes: Waveform, rate: int) -> None:
        size = round(self._slice_seconds * rate)
        sizes = np.concatenate([self._rest, sizes])
        whole = len(sizes) // size * size
        slices = sizes[:whole].reshape(-1, size).max(axis=1, initial=0.0)
        self._slices, self._rest = np.concatenate([self._slices, slices]), sizes[whole:]
        while len(self._slices) >= 16 * _COLUMNS:
            pairs = len(self._slices) // 2 * 2
            odd = self._slices[pairs:]
            self._slices = self._slices[:pairs].reshape(-1, 2).max(axis=1)
            # the one that is left over belongs to the next slice, which is twice as long
            self._rest = np.concatenate([np.repeat(odd, size), self._rest])
            self._slice_seconds *= 2
            size = round(self._slice_seconds * rate)

    def peaks(self) -> tuple[float, ...]:
        if not len(self._slices):
            return ()
        n = min(_COLUMNS, len(self._slices))
        starts = np.linspace(0, len(self._slices), n, endpoint=False).astype(int)
        highest = np.minimum(1.0, np.maximum.reduceat(self._slices, starts))
        return tuple(highest.astype(float).round(3).tolist())


# --- what is written ------------------------------------------------------------------------------


def fields(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """One dict a detection, JSON-able; times in seconds."""
    for detection in timeline.detections:
        yield {
            "file": readable_name(timeline.path),
            "label": detection.label,
            "probability": round(detection.probability, 4),
            "time": round(detection.time, 3),
            "start": round(detection.start, 3),
        }


def document(timeline: Timeline) -> dict[str, Any]:
    """All of a timeline, JSON-able, for a page; it names the file without its folder.

    Returns:
        ``name``, ``seconds``, ``detections`` (a dict each), ``peaks``, and ``files``: the
        detections as the text of files, by suffix (csv, json, and txt for Audacity).
    """
    timeline = timeline._replace(path=Path(timeline.path.name))
    rows = [{key: row[key] for key in row if key != "file"} for row in fields(timeline)]
    summary = {
        "name": str(timeline.path),
        "seconds": round(timeline.seconds, 3),
        "detections": rows,
    }
    files = {
        "csv": csv_of([timeline]),
        "json": json.dumps(summary, indent=2) + "\n",
        "txt": audacity_text(words_of(timeline)),
    }
    return {**summary, "peaks": list(timeline.peaks), "files": files}


def csv_of(timelines: Sequence[Timeline]) -> str:
    """A CSV file of all detections, which ``speech.data.annotations.read_labels`` reads."""
    rows = [
        (readable_name(t.path), f"{d.start:.3f}", f"{d.time:.3f}", d.label, f"{d.probability:.4f}")
        for t in timelines
        for d in t.detections
    ]
    return csv_text(("file", "start", "end", "label", "probability"), rows)


def words_of(timeline: Timeline) -> list[Word]:
    """The detections as labels from the start of the window to the decision."""
    return [Word(d.start, d.time, d.label) for d in timeline.detections]


def file_names(paths: Sequence[Path], suffix: str) -> list[str]:
    """A file name for each recording that differs from those of the others."""
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    return ["-".join(path.resolve().relative_to(common).parts) + suffix for path in paths]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as ``1:02:03.4``."""
    tenths = round(10 * seconds)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
