"""What the Inside tab is sent: what a model does with a recording, an example, or live sound."""

import threading
from pathlib import Path

import numpy as np

from speech.audio import MAX_RATE, AudioSource, check_rate, resample, to_float
from speech.errors import AudioError, SpeechError
from speech.inside.explanation import OpenModel, explain, open_model, read_clip
from speech.inside.packing import pack
from speech.web.models import ModelRegistry
from speech.web.page import EXAMPLE_NAMES, EXAMPLES

MAX_RECORDING_BYTES = 32 << 20  # a minute of stereo at 96 kHz, 24 bits
MAX_LIVE_SECONDS = 4.0  # a page sends one clip
MAX_LIVE_BYTES = round(MAX_LIVE_SECONDS * MAX_RATE) * 2


class Explainer:
    """Looks inside the models of a page, one clip at a time; safe for threads.

    Args:
        registry: The models; each is opened when it is first asked for.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._open: dict[Path, OpenModel] = {}
        self._lock = threading.Lock()

    def recording(self, model: str | None, content: bytes) -> bytes:
        """A packed explanation (``speech.inside.packing``) of the bytes of an audio file.

        Raises:
            ModelError: No such model, or none that can be explained.
            AudioError: Not audio, too long or too short.
        """
        return self._recording(model, content)

    def example(self, model: str | None, name: str) -> bytes:
        """The same of a recording that comes along.

        Raises:
            SpeechError: There is no such example.
        """
        if name not in EXAMPLE_NAMES:
            raise SpeechError(
                f"expected one of {', '.join(EXAMPLE_NAMES)}, got {name!r:.60}; choose one of them"
            )
        return self._recording(model, EXAMPLES / name)

    def sound(self, model: str | None, pcm: bytes, rate: float, *, moving: bool) -> bytes:
        """The same of the last seconds that a page received from its microphone.

        Args:
            model: Its name; None for the one to begin with.
            pcm: Signed 16-bit little-endian mono samples; the end of them is explained.
            rate: Their sample rate in Hz.
            moving: Whether more will follow at once: then it goes without the sound itself and
                without the probabilities of each step, which take most of the time.

        Raises:
            AudioError: Another rate, half a sample, none or too many.
        """
        hertz = check_rate(rate, "the microphone")
        if not pcm or len(pcm) % 2 or len(pcm) > 2 * MAX_LIVE_SECONDS * hertz:
            raise AudioError(
                f"expected whole 16-bit samples of at most {MAX_LIVE_SECONDS:g} s, "
                f"got {len(pcm)} bytes; send the last clip only"
            )
        samples = to_float(np.frombuffer(pcm, "<i2").astype(np.int16))
        with self._lock:
            opened = self._model(model)
            features = opened.config.features
            waveform = resample(samples, hertz, features.sample_rate)[-features.n_samples :]
            clip = np.pad(waveform, (features.n_samples - len(waveform), 0))
            return pack(explain(opened, clip, unfolded=not moving), with_sound=not moving)

    def _recording(self, model: str | None, source: AudioSource) -> bytes:
        notes: list[str] = []
        with self._lock:
            opened = self._model(model)
            clip = read_clip(source, opened, on_note=notes.append)
            return pack(explain(opened, clip), with_sound=True, note="; ".join(notes))

    def _model(self, name: str | None) -> OpenModel:
        path = self._registry.place(name)
        if path not in self._open:
            try:
                self._open[path] = open_model(path)
            except SpeechError as error:
                # where the server keeps it means nothing to the user
                raise type(error)(str(error).replace(str(path), path.name)) from error
        return self._open[path]
