"""Prove that a change of the code changed no answer: record before it, compare after it.

    git worktree add ../before COMMIT
    (cd ../before && PYTHONPATH=. python THIS_FILE record CORPUS before.npz)
    python tests/golden/compare_answers.py record CORPUS after.npz
    python tests/golden/compare_answers.py compare before.npz after.npz

It uses public names alone, so that the same file runs on both sides. Recorded are the probabilities
of 500 clips of the corpus, spread evenly over its sorted files, and the detections of a stream of
ten minutes made of such clips with gaps, fed to the live decoder in pieces of a tenth of a second.
"""

import sys
from pathlib import Path

import numpy as np

import speech

N_CLIPS = 500
STREAM_SECONDS = 600
GAP_SECONDS = 0.4
MODEL = Path("saved_models/commands-8")


def record(corpus: Path, target: Path) -> None:
    """Write what the shipped model says of the corpus to an .npz file."""
    recognizer = speech.load(MODEL)
    features = recognizer.features
    paths = sorted(corpus.glob("[a-z]*/*_nohash_*"))
    spread = np.linspace(0, len(paths) - 1, N_CLIPS).astype(int)
    clips = np.zeros((N_CLIPS, features.n_samples), np.float32)
    for row, index in enumerate(spread):
        samples = speech.load_audio(paths[index], features.sample_rate)[: features.n_samples]
        clips[row, : len(samples)] = samples
    rng = np.random.default_rng(0)
    gap = np.zeros(round(GAP_SECONDS * features.sample_rate), np.float32)
    pieces = [piece for row in rng.permutation(N_CLIPS) for piece in (clips[row], gap)]
    stream = np.concatenate(pieces)[: STREAM_SECONDS * features.sample_rate]
    decoder = speech.StreamDecoder(recognizer)
    tenth = features.sample_rate // 10
    detections = [
        detection
        for start in range(0, len(stream), tenth)
        for detection in decoder.push(stream[start : start + tenth])
    ]
    detections += decoder.flush()
    np.savez(
        target,
        paths=np.array([str(paths[index].relative_to(corpus)) for index in spread]),
        probabilities=recognizer.probabilities(clips),
        labels=np.array([detection.label for detection in detections]),
        times=np.array(
            [[detection.start, detection.time, detection.probability] for detection in detections]
        ),
    )


def compare(before: Path, after: Path) -> int:
    """Print what differs between two such files; returns the exit status."""
    differing = 0
    with np.load(before) as old, np.load(after) as new:
        print(f"{len(new['paths'])} clips, {len(new['labels'])} detections")
        for name in old.files:
            equal = old[name].shape == new[name].shape and bool((old[name] == new[name]).all())
            print(f"{name}: {'equal, bit for bit' if equal else 'DIFFERENT'}")
            differing += not equal
    return int(differing > 0)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", corpus, target]:
            record(Path(corpus), Path(target))
        case ["compare", before, after]:
            sys.exit(compare(Path(before), Path(after)))
        case _:
            sys.exit(__doc__)
