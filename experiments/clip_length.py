"""How should a clip shorter than a second reach the network: padded, and where, or at its length?

Reading only the frames of the clip is what masking would do, exactly, since a masked LSTM skips the
padded steps. Usage: python experiments/clip_length.py CORPUS [MODEL]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from speech.audio import Waveform, load_audio
from speech.data.corpus import index_corpus
from speech.evaluation.metrics import wilson_interval
from speech.features import mfcc
from speech.model import load_model


def main(root: Path, model_file: Path) -> None:
    """Print a Markdown table: accuracy on the short validation clips, by treatment."""
    model = load_model(model_file)
    features = model.features
    n_samples = features.n_samples
    rng = np.random.default_rng(0)
    words = set(model.labels)
    clips = [c for c in index_corpus(root).clips if c.split == "validation" and c.word in words]
    loaded = [(load_audio(root / c.path, features.sample_rate), c.word) for c in clips]
    short = [(w, word) for w, word in loaded if features.n_fft <= len(w) < n_samples]

    def hiss(waveform: Waveform) -> Waveform:
        padded = np.pad(waveform, (n_samples - len(waveform)) // 2 + 1)[:n_samples]
        return (padded + rng.normal(0, 1e-3, len(padded))).astype(np.float32)

    treatments: dict[str, Callable[[Waveform], Waveform]] = {
        "zeros at both sides": lambda w: np.pad(
            w, ((n_samples - len(w)) // 2, n_samples - len(w) - (n_samples - len(w)) // 2)
        ),
        "zeros at the end": lambda w: np.pad(w, (0, n_samples - len(w))),
        "zeros at both sides, hiss of RMS 0.001 over all": hiss,
        "its own length (as masking)": lambda w: w,
    }
    print(
        f"{len(short)} of {len(clips)} validation clips of the words are shorter than a second.\n"
    )
    print("| A short clip gets | Accuracy | 95 % interval |\n| --- | ---: | --- |")
    for name, treat in treatments.items():
        right = 0
        for waveform, word in short:
            logits = model.predict_on_batch(mfcc(treat(waveform), features)[np.newaxis])
            right += model.labels[int(np.argmax(logits))] == word
        low, high = wilson_interval(right, len(short))
        print(f"| {name} | {right / len(short):.2%} | {low:.2%} to {high:.2%} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path((sys.argv[2:] or ["saved_models/commands-8/model.keras"])[0]))
