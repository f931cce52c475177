"""Makes the files beside it, against which the tests hold today's code.

Usage: python tests/golden/make_golden.py [FOLDER OF SPEECH COMMANDS]

Each mfcc_*.npz holds a waveform (int16), a FeatureConfig (JSON) and its MFCC as ``speech.features``
gives them; make them anew only when the features are meant to change, and with them every model.
With the folder of the corpus given, official_split.csv is made too: names of clips and their
official split, nothing that anybody spoke.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speech.features import FeatureConfig, mfcc

HERE = Path(__file__).parent
RATE = 16_000
CONFIGS = {
    "default": FeatureConfig(),
    "coarse": FeatureConfig(
        clip_seconds=0.5, window_seconds=0.04, hop_seconds=0.02, n_mels=40, n_mfcc=13, fmax=4_000.0
    ),
}


def waveforms() -> dict[str, npt.NDArray[np.int16]]:
    """One second each: what is steady, what moves, what is sudden, what is hardly there."""
    rng = np.random.default_rng(2018)
    time = np.arange(RATE) / RATE
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 40))
    chirp = np.sin(2 * np.pi * (50 * time + 3_900 * time**2))
    clicks = np.zeros(RATE)
    clicks[::1_777] = 1
    loud = {
        "vowel": 0.2 * vowel * np.hanning(RATE),
        "chirp": 0.7 * chirp,
        "clicks": 0.9 * clicks,
        "hiss": 0.1 * rng.standard_normal(RATE),
        "whisper": 2e-4 * rng.standard_normal(RATE),
    }
    return {name: np.round(32_767 * wave).astype(np.int16) for name, wave in loud.items()}


def make_mfcc() -> None:
    for sound, wave in waveforms().items():
        for name, config in CONFIGS.items():
            clip = wave[: config.n_samples]
            np.savez_compressed(
                HERE / f"mfcc_{sound}_{name}.npz",
                waveform=clip,
                config=json.dumps(config.to_dict()),
                mfcc=mfcc(clip / np.float32(32_768), config),
            )


def make_split(corpus: Path, count: int = 30) -> None:
    """Clips of the validation list, and as many that are on no list and so in training."""
    listed = set((corpus / "validation_list.txt").read_text().split())
    words = [p for p in corpus.iterdir() if p.is_dir() and not p.name.startswith("_")]
    names = sorted(f"{p.parent.name}/{p.name}" for word in words for p in word.iterdir())
    validation = [name for name in names if name in listed]
    train = [name for name in names if name not in listed]
    with (HERE / "official_split.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["clip", "split"])
        for split, clips in (("train", train), ("validation", validation)):
            rows.writerows([clip, split] for clip in clips[:: len(clips) // count][:count])


if __name__ == "__main__":
    make_mfcc()
    for folder in sys.argv[1:]:
        make_split(Path(folder))
