"""Make posteriors.npz: what the bundled model says of 200 streams, window after window.

    python tests/golden/make_posteriors.py DATA SPEECH

DATA is a folder of Speech Commands, SPEECH one of continuous speech. The streams are of every kind
that the decoder meets: words with pauses and without, one said twice, other words, speech, noise.
What is to be detected in them is not in the file: the tests ask ``speech.detection``.
"""

import sys
from pathlib import Path

import numpy as np

from speech.audio import load_audio
from speech.labels import commands
from speech.recognizer import load

N_STREAMS, SECONDS, RATE = 200, 7, 16_000
GOLDEN = Path(__file__).parent / "posteriors.npz"


def main() -> None:
    """Make the file."""
    data, speech = map(Path, sys.argv[1:])
    recognizer = load()
    rng = np.random.default_rng(19)
    names = sorted((data / "validation_list.txt").read_text().split())
    words = [name for name in names if name.split("/")[0] in commands(recognizer.labels)]
    talks = sorted(path for path in speech.rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    streams = []
    for _ in range(N_STREAMS):
        parts = [np.zeros(RATE - RATE // 10, np.float32)]
        while sum(map(len, parts)) < SECONDS * RATE:
            chosen = str(rng.choice(words if rng.random() < 0.8 else names))
            clip = rng.uniform(0.3, 1.0) * load_audio(data / chosen, RATE)
            if rng.random() < 0.1:
                talk = load_audio(talks[rng.integers(len(talks))], RATE)
                clip = talk[rng.integers(max(1, len(talk) - 2 * RATE)) :][: 2 * RATE]
            times = 2 if rng.random() < 0.15 else 1
            pause = np.zeros(int(rng.choice([0, 0.2, 0.8]) * RATE), np.float32)
            parts += times * [clip, pause]
        sound = np.concatenate(parts)[: SECONDS * RATE]
        noisy = sound + rng.choice([0, 0.003, 0.03]) * rng.normal(size=len(sound))
        clipped = np.clip(noisy, -1, 1 - 2**-24).astype(np.float32)
        streams.append(recognizer.windows(clipped, RATE // 10))
    posteriors = np.stack(streams).astype(np.float16)
    np.savez_compressed(GOLDEN, labels=recognizer.labels, posteriors=posteriors)


if __name__ == "__main__":
    main()
