"""Long recordings in pieces that any worker can take, and their answers put together exactly."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from speech.audio import Waveform
from speech.detection import (
    DecoderConfig,
    DecoderState,
    Detection,
    PosteriorDecoder,
    Posteriors,
    samples_per_step,
)
from speech.features import FeatureConfig
from speech.live.scan import BATCH, Blocks, gathered
from speech.recognizer import Recognizer
from speech.stream import SlidingWindowClassifier


class Piece(NamedTuple):
    """A stretch of a recording.

    Attributes:
        sound: float32 (n,) in [-1, 1) at the model's rate.
        before: float32 (n_samples - step,), the sound before it; silence at the beginning.
        first: The number of the window that its first step completes, from 0 on.
        is_last: Whether the recording ends with it.
    """

    sound: Waveform
    before: Waveform
    first: int
    is_last: bool


class Answer(NamedTuple):
    """What a worker says of a piece.

    Attributes:
        head: float64 (n, n_classes), the rows of the windows whose decision depends on what was
            said before the piece; mostly one or two seconds, in the worst case all.
        detections: Those behind the head.
        state: Of the decoder at the end of the piece; None where the head is all of it.
        seconds: Length of the recording, up to the end of the piece.
        is_last: As in the piece.
    """

    head: Posteriors
    detections: tuple[Detection, ...]
    state: DecoderState | None
    seconds: float
    is_last: bool


def divide(
    blocks: Blocks, features: FeatureConfig, step_seconds: float, batches: int
) -> Iterator[Piece]:
    """Divide a recording.

    Args:
        blocks: As ``speech.audio.read_blocks`` yields them.
        features: Those of the model.
        step_seconds: From window to window, that of the decoder.
        batches: Length of a piece, in batches of 256 windows: the network then sees the batches of
            an undivided recording, and answers the same to the last bit.

    Yields:
        Pieces in their order; nothing for a recording without samples.
    """
    step = samples_per_step(step_seconds, features.sample_rate, features.n_samples)
    before = np.zeros(features.n_samples - step, np.float32)
    first = 0
    waiting: Waveform | None = None
    for sound in gathered(blocks, features.sample_rate, batches * BATCH * step):
        if waiting is not None:
            yield Piece(waiting, before, first, False)
            before = np.concatenate([before, waiting])[len(waiting) :]
            first += batches * BATCH
        waiting = sound
    if waiting is not None:
        yield Piece(waiting, before, first, True)


class PieceDecoder:
    """Finds the detections of pieces; any worker may have any piece.

    Args:
        recognizer: The model.
        config: When to detect.

    Raises:
        ValueError: Config and model do not fit.
    """

    def __init__(self, recognizer: Recognizer, config: DecoderConfig) -> None:
        self._windows = SlidingWindowClassifier(recognizer, config.step_seconds, BATCH)
        self._decoder = decoder_like(recognizer, config, self._windows.silence_posterior)
        features = recognizer.features
        self._rate = features.sample_rate
        self._step = samples_per_step(config.step_seconds, self._rate, features.n_samples)

    def __call__(self, piece: Piece) -> Answer:
        """The answer to a piece."""
        self._windows.reset(piece.before)
        rows = self._windows.push(piece.sound, self._rate)
        if piece.is_last:
            rows = np.concatenate([rows, self._windows.flush()])
        self._decoder.reset()
        begin = self._decoder.begin_at_calm(rows, piece.first) if piece.first else 0
        found = tuple(self._decoder.decode(rows[begin:]))
        state = self._decoder.state if begin < len(rows) or not piece.first else None
        seconds = (piece.first * self._step + len(piece.sound)) / self._rate
        return Answer(rows[:begin].copy(), found, state, seconds, piece.is_last)


class Joiner:
    """Puts the answers to the pieces of recordings together, one recording after the other.

    Args:
        recognizer: The model.
        config: When to detect.

    Raises:
        ValueError: Config and model do not fit.
    """

    def __init__(self, recognizer: Recognizer, config: DecoderConfig) -> None:
        # what comes before a recording matters to its first piece only, which has no head
        self._decoder = decoder_like(recognizer, config, np.zeros(len(recognizer.labels)))
        self.reset()

    def reset(self) -> None:
        """Forget the recording so far."""
        self._decoder.reset()
        self._found: list[Detection] = []

    def add(self, answer: Answer) -> tuple[Detection, ...] | None:
        """Take the next answer; the detections of the recording once it was the last one."""
        self._found += self._decoder.decode(answer.head)
        self._found += answer.detections
        if answer.state is not None:
            self._decoder.state = answer.state
        if not answer.is_last:
            return None
        found = self._found
        self.reset()
        # no time lies after the end of the recording
        return tuple(dataclasses.replace(d, time=min(d.time, answer.seconds)) for d in found)


def decoder_like(
    recognizer: Recognizer, config: DecoderConfig, before: Posteriors
) -> PosteriorDecoder:
    """The rule for a model whose answer to digital silence is float64 (n_classes,)."""
    return PosteriorDecoder(config, recognizer.labels, recognizer.features, before)
