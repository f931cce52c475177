"""Make the example clips of the File tab, by the speech synthesis of espeak-ng.

python experiments/make_clips.py

Nobody's voice is in them. The network learned from people; that it knows these words too is luck,
and says nothing about how good it is.
"""

import io
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

FOLDER = Path(__file__).parents[1] / "speech" / "web" / "static" / "examples"
RATE = 16_000
PEAK = 0.5
HISS = 0.001  # digital silence between the words would be unlike any room
LONG = (
    *(("yes", "en-us+f4"), ("left", "en-us+Annie"), ("stop", "en-us+m1"), ("up", "en-us+m7")),
    *(("right", "en-us+m3"), ("go", "en-us+m3"), ("no", "en-us+Andy")),
)


def spoken(word: str, voice: str) -> npt.NDArray[np.float64]:
    """The word, mono, at 16 kHz."""
    command = ["espeak-ng", "-v", voice, "-s", "130", "--stdout", word]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav))
    resampled: npt.NDArray[np.float64] = soxr.resample(samples, rate, RATE)
    loudest = float(np.abs(resampled).max())
    return PEAK / loudest * resampled


def clip(words: tuple[tuple[str, str], ...], pause: float) -> npt.NDArray[np.float64]:
    """The words one after another, in a little hiss, a pause around each."""
    rng = np.random.default_rng(0)
    silence = np.zeros(round(pause * RATE))
    parts = [silence]
    for word, voice in words:
        parts += [spoken(word, voice), silence]
    whole = np.concatenate(parts)
    return whole + rng.normal(0, HISS, len(whole))


def main() -> None:
    """Write both clips to where the page looks for them."""
    soundfile.write(FOLDER / "left.wav", clip((("left", "en-us+f4"),), 0.2), RATE)
    soundfile.write(FOLDER / "seven_words.flac", clip(LONG, 1.2), RATE)


if __name__ == "__main__":
    main()
