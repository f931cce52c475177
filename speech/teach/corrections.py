"""What a user said about a taught model's mistakes: recordings beside it, until it learns them."""

import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, load_audio, rms, to_mono
from speech.data.folders import PassedOver, walk
from speech.errors import TeachError
from speech.files import replacing
from speech.teach.takes import RATE, check_takes, read_takes, trim, wav_bytes

FOLDER = "corrections"
NEGATIVES = "_wrong_"  # no word may begin so
_RECENT_SECONDS = 10.0
_SAID_SECONDS = 2.5  # whoever said a word has pressed a key by then
_PAUSE_SECONDS, _MARGIN_SECONDS, _FRAME_SECONDS = 0.4, 0.2, 0.01
_LOUD = 0.1  # of the loudest frame


class RecentSound:
    """The last ten seconds of a stream."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[npt.NDArray[Any], int]] = deque()
        self._held = 0.0
        self.seconds = 0.0  # received so far

    def push(self, samples: npt.NDArray[Any], sample_rate: int) -> None:
        """Remember a block of the stream, (n,) or (n, channels)."""
        if not len(samples):
            return
        self._blocks.append((samples, sample_rate))
        self._held += len(samples) / sample_rate
        self.seconds += len(samples) / sample_rate
        while self._held - len(self._blocks[0][0]) / self._blocks[0][1] > _RECENT_SECONDS:
            oldest, rate = self._blocks.popleft()
            self._held -= len(oldest) / rate

    def latest(self) -> Waveform:
        """What was said just now, float32 (n,) at 16 kHz."""
        return self.between(self.seconds - _SAID_SECONDS, self.seconds)

    def between(self, start: float, end: float) -> Waveform:
        """A stretch, in seconds of the stream, float32 (n,) at 16 kHz; what is left of it."""
        if not self._blocks:
            return np.zeros(0, np.float32)
        rate = self._blocks[-1][1]  # a microphone that comes back may have another one
        held = [to_mono(samples, r)[0] for samples, r in self._blocks if r == rate]
        sound = np.concatenate(held)
        first = round((start - self.seconds) * rate) + len(sound)
        last = round((end - self.seconds) * rate) + len(sound)
        piece = sound[max(0, first) : max(0, last)]
        return load_audio((piece, rate), RATE) if len(piece) else piece


class Corrections:
    """The recordings in the folder ``corrections`` of a taught model.

    Args:
        model: The folder of the model.
    """

    def __init__(self, model: Path) -> None:
        self.folder = model / FOLDER

    def keep_wrong(self, take: Waveform) -> Path:
        """Keep the sound of a detection, float32 (n,) at 16 kHz, in which its word was not said.

        Raises:
            TeachError: It was over for too long, or cannot be written.
        """
        if len(take) < RATE // 4:
            raise TeachError(
                "expected a detection of the last seconds, got an older one; say it sooner"
            )
        return self._write(NEGATIVES, take)

    def keep_said(self, word: str, take: Waveform) -> Path:
        """Keep what was said, float32 (n,) at 16 kHz, as a take of a word.

        Raises:
            TeachError: There is no word in it, or it cannot be written.
        """
        take = _last_word(take)
        if fault := next((f for f in check_takes([take]) if f.is_fatal), None):
            raise TeachError(
                f"expected {word!r} in the last seconds, got a take that is {fault.reason}; "
                "say it again, with a pause before and behind it"
            )
        return self._write(word, trim(take))

    def _write(self, name: str, take: Waveform) -> Path:
        folder = self.folder / name
        number = 1
        while (path := folder / f"{number}.wav").exists():
            number += 1
        try:
            with replacing(path) as part:
                part.write_bytes(wav_bytes(take))
        except OSError as error:
            raise TeachError(
                f"{path}: expected to keep a correction, got: {error.strerror or error}; make room"
            ) from error
        return path

    def takes(self) -> dict[str, list[Waveform]]:
        """The takes of each word."""
        words = any(p.is_dir() and p.name != NEGATIVES for p in self._places())
        return read_takes(self.folder) if words else {}

    def negatives(self) -> list[Waveform]:
        """What was detected wrongly."""
        place = self.folder / NEGATIVES
        paths = walk(place, PassedOver()) if place.is_dir() else []
        return [load_audio(path, RATE) for path in paths]

    def _places(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def forget(self) -> None:
        """Delete them, since they were learned from."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _last_word(take: Waveform) -> Waveform:
    """What was said after the last pause; all of it where there is none."""
    frame = round(_FRAME_SECONDS * RATE)
    if len(take) < frame:
        return take
    levels = rms(take[: len(take) // frame * frame].reshape(-1, frame))[:, 0]
    loud = np.flatnonzero(levels >= _LOUD * levels.max())
    pauses = np.flatnonzero(np.diff(loud) > _PAUSE_SECONDS / _FRAME_SECONDS)
    if not pauses.size:
        return take
    first = int(loud[pauses[-1] + 1]) * frame
    return take[max(0, first - round(_MARGIN_SECONDS * RATE)) :]
