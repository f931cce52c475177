"""Takes of real people where they are at hand, and a model that was taught them once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Waveform, load_audio
from speech.teach.takes import RATE
from speech.teach.teaching import TaughtModel, teach
from tests.conftest import PROJECT

SPEAKER = "jackson"
WORDS = ("six", "seven", "eight", "nine")
N_TAKES = 8


@pytest.fixture(scope="session")
def spoken_digits() -> Path:
    """The folder of real digits, which neither the encoder nor the bank knows."""
    folder = PROJECT.parent / "shared" / "spoken_digits"
    if not folder.is_dir():
        pytest.skip(f"no real digits in {folder}")
    return folder


@pytest.fixture(scope="session")
def digit_takes(spoken_digits) -> Callable[..., dict[str, list[Waveform]]]:
    """Takes of one speaker: ``digit_takes(first, last)``."""

    def read(first: int = 0, last: int = N_TAKES, speaker: str = SPEAKER):
        return {
            word: [
                np.pad(load_audio(path, RATE), RATE // 4)
                for path in sorted((spoken_digits / word).glob(f"{speaker}_*"))[first:last]
            ]
            for word in WORDS
        }

    return read


@pytest.fixture(scope="session")
def taught_digits(digit_takes) -> TaughtModel:
    """Four digits, eight takes each, of one speaker, and two commands that were kept."""
    return teach(digit_takes(), keep=("yes", "stop"))
