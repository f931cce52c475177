"""How much memory does training take on a corpus of full size?

Generates a corpus of so many clips of noise in a temporary folder, trains one short epoch of the
words-35 recipe on it, and prints the peak of the memory that the process owns (anonymous) and of
the decoded corpus that the system maps from disk, which it takes back when it wants the memory.

Usage: python docs/experiments/memory.py [CLIPS]
"""

import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from speech.train_config import TrainConfig


def main(n_clips: int) -> None:
    """Print a Markdown table, for a tenth of the clips and for all of them."""
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    print("| Clips | Decoding | Own memory, peak | Mapped from disk, peak | Clips/s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for n in (n_clips // 10, n_clips):
        child = os.fork()  # a process of its own: a peak never falls
        if not child:
            _one(n)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit("the run failed")


def _one(n_clips: int) -> None:
    import soundfile

    from speech.corpus import LabelSet, decode, recipes, scan
    from speech.training import train

    words = recipes()["speech_commands_v0.02"].label_sets["words-35"].words
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "corpus"
        noise = rng.normal(0, 3_000, 32_000).astype(np.int16)
        for name in (*words, "_background_noise_"):
            (root / name).mkdir(parents=True)
        soundfile.write(root / "_background_noise_" / "hiss.wav", np.tile(noise, 10), 16_000)
        for i in range(n_clips):
            start = int(rng.integers(16_000))
            path = root / words[i % len(words)] / f"{rng.integers(2**32):08x}_nohash_{i % 5}.wav"
            soundfile.write(path, noise[start : start + 16_000], 16_000)
        peaks = {"RssAnon": 0, "RssFile": 0}
        threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
        started = time.perf_counter()
        recordings = decode(scan(root), _config().features, Path(folder) / "cache")
        decoding = time.perf_counter() - started
        train(recordings, LabelSet.parse("words-35"), _config(), Path(folder) / "run")
        (epoch,) = json.loads((Path(folder) / "run" / "history.json").read_text("utf-8"))
    own, mapped = (f"{peaks[name] / 2**20:.2f} GiB" for name in ("RssAnon", "RssFile"))
    speed = f"{epoch['clips_per_second']:.0f}"
    row = (f"{len(recordings.corpus.clips):,}", f"{decoding:.0f} s", own, mapped, speed)
    print(f"| {' | '.join(row)} |", flush=True)


def _config() -> "TrainConfig":
    from speech.train_recipes import read_recipe

    return dataclasses.replace(read_recipe("words-35")[1], epochs=1, epoch_clips=24_000)


def _watch(peaks: dict[str, int]) -> None:
    while True:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        status = dict(line.split(":", 1) for line in lines)
        for name in peaks:
            peaks[name] = max(peaks[name], int(status[name].split()[0]))
        time.sleep(0.2)


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["105829"])[0]))
