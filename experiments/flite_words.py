"""Speak the words of the synthetic source by Flite too: four other voices, one of them Scottish.

    python experiments/flite_words.py ../shared datasets/sources/flite_words

Needs the program flite (Debian's package of that name). Each command is spoken at eight speeds by
each voice, each other word at two.
"""

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from speech.data.datasets import parse_labels

VOICES = ("awb", "kal16", "rms", "slt")
COMMAND_SPEEDS, SPEEDS = 8, 2


def speak(word: str, voice: str, stretch: float, path: Path) -> None:
    """Write a word, ``stretch`` times as long as the voice says it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = word.replace("-", " ")
    length = f"duration_stretch={stretch:.2f}"
    command = ["flite", "-voice", voice, "--setf", length, "-t", text, "-o", str(path)]
    subprocess.run(command, check=True)


def main(shared: Path, out: Path) -> None:
    """Write one WAV file for each word, voice and speed."""
    rng = random.Random(0)
    commands = parse_labels("commands-8").words
    words = sorted(path.name for path in (shared / "synthetic_speech" / "words").iterdir())
    spoken = [
        (word, voice, rng.uniform(0.7, 1.4), out / word / f"{voice}_nohash_{number}.wav")
        for word, voice in product(words, VOICES)
        for number in range(COMMAND_SPEEDS if word in commands else SPEEDS)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(speak, *zip(*spoken, strict=True)))  # a list, so that errors are raised


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
