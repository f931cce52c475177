"""Sounds for the tests, and files that hold them."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

Array = npt.NDArray[Any]

# format, subtype, tolerance of the decoded tone
FORMATS = [
    ("WAV", "PCM_U8", 0.02),
    ("WAV", "PCM_16", 1e-3),
    ("WAV", "PCM_24", 1e-3),
    ("WAV", "PCM_32", 1e-3),
    ("WAV", "FLOAT", 1e-3),
    ("WAV", "DOUBLE", 1e-3),
    ("FLAC", "PCM_16", 1e-3),
    ("FLAC", "PCM_24", 1e-3),
    ("OGG", "VORBIS", 0.1),
    ("OGG", "OPUS", 0.1),
    ("MP3", "MPEG_LAYER_III", 0.1),
]
RATES = (8_000, 16_000, 44_100, 48_000, 192_000)
CHANNELS = (1, 2, 6)


def possible(subtype: str, rate: int, channels: int) -> bool:
    if subtype == "OPUS":
        return rate in (8_000, 16_000, 48_000)
    return subtype != "MPEG_LAYER_III" or (rate <= 48_000 and channels <= 2)


def tone(seconds: float, rate: int, frequency: float = 90.0) -> Array:
    """90 Hz, since of six channels one is the subwoofer's to a lossy coder."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def encode(samples: Array, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def noise(seconds: float = 4.0, rate: int = 16_000) -> Array:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))
