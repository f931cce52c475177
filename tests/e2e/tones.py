"""Words that are tones, a network that knows them, and ``speech`` with that network for a model.

Run as a program it is the command line, which so starts without TensorFlow.
"""

import signal
from collections.abc import Sequence

import numpy as np

import speech.recognizer
from speech.architecture import ModelConfig
from speech.features import FeatureConfig
from speech.recognizer import Recognizer

RATE = 16_000
LABELS = ("low", "high", "unknown", "silence")
PITCH = {"low": 1000, "high": 2000}  # whole periods in 20 ms, so that frames need no window
WORD_SECONDS = 0.4
AMPLITUDE = 0.25


def said(words: Sequence[tuple[float, str]], seconds: float, rate: int = RATE) -> np.ndarray:
    """float64 mono in [-1, 1]: a burst at each time, in a little noise."""
    audio = np.random.default_rng(4).normal(0, 0.004, round(seconds * rate))
    time = np.arange(round(WORD_SECONDS * rate)) / rate
    for start, word in words:
        first = round(start * rate)
        burst = AMPLITUDE * np.sin(2 * np.pi * PITCH[word] * time)
        audio[first : first + len(burst)] += burst[: len(audio) - first]
    return audio


def infer(waveforms: np.ndarray) -> np.ndarray:
    """Sure of a word if more than about half of the energy of its burst lies in the window."""
    spectra = np.abs(np.fft.rfft(waveforms.astype(np.float64).reshape(-1, 50, 320))) / 160
    shares = (spectra**2).sum(axis=1)[:, [20, 40]] / (WORD_SECONDS * 50 * AMPLITUDE**2)
    words = 0.49 * (1 + np.tanh(12 * (shares - 0.5)))
    words *= np.minimum(1.0, 0.98 / np.maximum(words.sum(axis=1, keepdims=True), 1e-9))
    rest = 1 - words.sum(axis=1, keepdims=True)
    return np.hstack([words, 0.1 * rest, 0.9 * rest]).astype(np.float32)


def recognizer() -> Recognizer:
    decoder = {
        "step_seconds": 0.1,
        "smoothing_seconds": 0.3,
        "threshold": 0.8,
        "thresholds": {"low": 0.7},
        "min_consecutive_windows": 2,
        "release_threshold": 0.5,
        "refractory_seconds": 0.7,
    }
    config = ModelConfig(labels=LABELS, features=FeatureConfig(), decoder=decoder)
    return Recognizer("tones", config, infer)


if __name__ == "__main__":
    speech.recognizer.load = lambda path="", *, threads=1: recognizer()
    from speech.cli.main import main

    # whoever starts the tests in the background has it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
