"""Takes by text-to-speech: a first model of words that nobody has spoken yet.

Two engines: the program espeak-ng, plain and everywhere, and Kokoro-82M (Apache-2.0,
https://huggingface.co/hexgrad/Kokoro-82M), whose files the user has to bring in a folder. Nothing
is downloaded.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, load_audio
from speech.errors import AudioError, TeachError
from speech.files import sha256
from speech.progress import OnProgress
from speech.teach.takes import RATE, check_label, trim

# how the files of synthetic takes are named, by which a folder tells that it holds some
PREFIX = "synthetic-"

VOICES = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us+m1", "en-us+m3"),
    *("en-us+m7", "en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-gb+f5", "en-gb+m4"),
)
_VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
_WORDS_A_MINUTE, _PITCHES = (120, 210), (30, 70)
_ESPEAK_SECONDS = 30.0
_MARGIN_SECONDS = 0.1
_PEAKS = (0.1, 0.7)  # of the loudest sample

_KOKORO_FILE, _KOKORO_RATE = "kokoro_int8.onnx", 24_000
_KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
_STYLES, _STYLE = 510, 256  # a voice: a style for each number of symbols
_SPEEDS = (0.75, 1.25)
# what Kokoro was trained on, where espeak-ng writes something else
_SYMBOLS = (
    *(("eɪ", "A"), ("oʊ", "O"), ("aɪ", "I"), ("aʊ", "W"), ("ɔɪ", "Y"), ("əʊ", "Q")),  # noqa: RUF001
    *(("tʃ", "ʧ"), ("dʒ", "ʤ"), ("ɚ", "əɹ"), ("ɜː", "ɜɹ"), ("r", "ɹ")),
    *(("ɐ", "ə"), ("ᵻ", "ɪ"), ("ː", "")),  # noqa: RUF001
)


class Engine(Protocol):
    """Something that speaks.

    Attributes:
        name: For the card of a model.
        voices: How many there are before one speaks again.
    """

    name: str
    voices: int

    def say(self, text: str, take: int, rng: np.random.Generator) -> Waveform:
        """The text in the voice of this take, float32 (n,) at 16 kHz, at any level."""
        ...


def synthesize(
    text: str, n: int, engine: Engine, *, seed: int = 0, on_progress: OnProgress | None = None
) -> list[Waveform]:
    """Takes of a word in different voices, speeds, pitches and levels.

    Args:
        text: The word or phrase, as ``check_label`` wants it.
        n: How many takes.
        engine: What speaks.
        seed: The same one gives the same takes.
        on_progress: Called with takes done and n.

    Returns:
        n takes, float32 (n_samples,) at 16 kHz, with a tenth of a second around the word.

    Raises:
        TeachError: No word, or the engine cannot speak it.

    Example:
        >>> class Beep:
        ...     name, voices = "a beep", 1
        ...     def say(self, text, take, rng):
        ...         return np.sin(np.arange(8000, dtype=np.float32))
        >>> [len(take) for take in synthesize("beep", 2, Beep())]
        [11200, 11200]
    """
    text = check_label(text)
    rng = np.random.default_rng(seed)
    takes = []
    for take in range(n):
        spoken = trim(np.pad(engine.say(text, take, rng), round(_MARGIN_SECONDS * RATE)))
        peak = float(np.abs(spoken).max(initial=0))
        if not peak:
            raise TeachError(
                f"{text!r}: expected {engine.name} to speak it, got silence; spell it otherwise"
            )
        takes.append((spoken * (rng.uniform(*_PEAKS) / peak)).astype(np.float32))
        if on_progress is not None:
            on_progress(take + 1, n)
    return takes


class Espeak:
    """The program espeak-ng: a formant synthesizer whose voices are plainly synthetic.

    Args:
        language: As ``espeak-ng --voices`` lists them; "en" for a mixture of English accents.

    Raises:
        TeachError: The program is not installed.
    """

    name = "espeak-ng"

    def __init__(self, language: str = "en") -> None:
        if shutil.which("espeak-ng") is None:
            raise TeachError(
                "expected the program espeak-ng to speak, got none; install it: apt-get install "
                "espeak-ng, or brew install espeak-ng"
            )
        self._voices = (
            VOICES if language == "en" else tuple(f"{language}{variant}" for variant in _VARIANTS)
        )
        self.voices = len(self._voices)

    def say(self, text: str, take: int, rng: np.random.Generator) -> Waveform:
        """As ``Engine``."""
        speed, pitch = rng.integers(*_WORDS_A_MINUTE), rng.integers(*_PITCHES)
        voice = self._voices[take % self.voices]
        content = _espeak(text, "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout")
        try:
            # written to a pipe, its header says no length
            return load_audio(content, RATE, on_note=lambda _: None)
        except AudioError as error:
            raise TeachError(f"{text!r}: espeak-ng did not speak it: {error}") from error


def _espeak(text: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["espeak-ng", *arguments],
            input=text.encode(),
            capture_output=True,
            timeout=_ESPEAK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TeachError(
            f"{text!r}: expected espeak-ng to speak it, got {type(error).__name__}; try it in a "
            "terminal"
        ) from error
    if done.returncode or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip() or "no sound"
        raise TeachError(
            f"{text!r}: expected espeak-ng to speak it, got {reason:.200}; choose another language"
        )
    return done.stdout


class Kokoro:
    """The neural voices of Kokoro-82M, of files in a folder.

    Args:
        folder: Holds ``kokoro_int8.onnx``, ``vocab.json`` and ``voices/*.bin``.

    Raises:
        TeachError: A file is missing or another one, or espeak-ng, which tells the sounds of a
            word, is not installed.
        ModuleNotFoundError: Without ONNX Runtime, which the plain install brings.
    """

    name = "Kokoro-82M"

    def __init__(self, folder: Path) -> None:
        Espeak()
        file = folder / _KOKORO_FILE
        if not file.is_file() or sha256(file) != _KOKORO_SHA256:
            raise TeachError(
                f"{folder}: expected {_KOKORO_FILE} with the digest {_KOKORO_SHA256[:8]}..., got "
                f"{'another one' if file.is_file() else 'none'}; docs/teach.md says how to get it"
            )
        try:
            content = json.loads((folder / "vocab.json").read_text("utf-8"))
            self._ids: dict[str, int] = content["vocab"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TeachError(
                f"{folder}: expected vocab.json with the symbols of Kokoro, got "
                f"{type(error).__name__}; docs/teach.md says how to get it"
            ) from error
        self._styles = dict(_kokoro_voices(folder))
        self._names = sorted(self._styles)
        self.voices = len(self._names)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is fatal: errors are raised
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )

    def say(self, text: str, take: int, rng: np.random.Generator) -> Waveform:
        """As ``Engine``: a voice, more or less blended with another one."""
        name = self._names[take % self.voices]
        other = self._names[int(rng.integers(self.voices))]
        symbols = phonemes(text, "en-gb" if name.startswith("b") else "en-us") + "."
        ids = [self._ids[symbol] for symbol in symbols if symbol in self._ids]
        share = np.float32(rng.uniform(0.5, 1.0))
        style = share * self._styles[name] + (1 - share) * self._styles[other]
        (audio,) = self._session.run(
            ["audio"],
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": style[len(ids)][np.newaxis],
                "speed": np.array([rng.uniform(*_SPEEDS)], np.float32),
            },
        )
        return load_audio((np.clip(audio, -1, 1), _KOKORO_RATE), RATE)


def _kokoro_voices(folder: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """English voices (names that begin with a or b) where there are any, else all of them."""
    paths = sorted((folder / "voices").glob("*.bin"))
    paths = [path for path in paths if path.name.startswith(("a", "b"))] or paths
    if not paths:
        raise TeachError(
            f"{folder}: expected voices/*.bin, got none; docs/teach.md says how to get them"
        )
    for path in paths:
        style = np.fromfile(path, "<f4")
        if style.size != _STYLES * _STYLE or not np.isfinite(style).all():
            raise TeachError(
                f"{path}: expected a voice of {_STYLES} x {_STYLE} numbers, got {style.size}; "
                "copy it again"
            )
        yield path.stem, style.reshape(_STYLES, _STYLE)


def phonemes(text: str, voice: str) -> str:
    """The sounds of a text in the symbols that Kokoro knows.

    Args:
        text: At most a phrase.
        voice: Of espeak-ng, which knows how words are spoken.

    Raises:
        TeachError: espeak-ng cannot.
    """
    written = _espeak(text, "-q", "--ipa=3", "-v", voice).decode()
    spoken = " ".join(written.replace("\u200d", "").split())
    for theirs, ours in _SYMBOLS:
        spoken = spoken.replace(theirs, ours)
    return spoken


def is_synthetic(paths: Sequence[Path]) -> bool:
    """Whether any of these files is a synthetic take, by its name."""
    return any(path.name.startswith(PREFIX) for path in paths)
