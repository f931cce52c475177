"""Every figure and table of docs/lstm.md.

python experiments/lstm_page.py --data CORPUS [--only SECTION ...]

Sections: clip, parts, unfolding, lengths, gradients, training, forecast. What is measured is kept
in docs/lstm/measured.json, from which experiments/lstm_figures.py draws the pictures and writes the
tables into the page; without --data that is all that happens. Half of the time goes into
training small networks (experiments/lstm_training.py), which wants TensorFlow.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lstm_figures
import numpy as np
import numpy.typing as npt

from speech.audio import load_audio, to_float
from speech.data.corpus import Corpus, index_corpus
from speech.data.datasets import parse_labels
from speech.data.evaluation_set import ClipSet, evaluation_set
from speech.data.recordings import Recordings, decode
from speech.evaluation.metrics import wilson_interval
from speech.features import FeatureConfig, mfcc
from speech.files import write_json
from speech.inside.attribution import log_odds_gradient
from speech.inside.explanation import OpenModel, explain, open_model, read_clip, unfold
from speech.inside.gradients import backpropagate
from speech.inside.packing import pack, unpack
from speech.inside.parts import answers_without, parts_of
from speech.inside.trace import WHOLE, Ablation, log_mel, trace

Array = npt.NDArray[Any]

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "speech" / "web" / "static" / "examples" / "left.wav"
MEASURED = ROOT / "docs" / "lstm" / "measured.json"
WORDS = ("yes", "no", "up", "down", "left", "right", "stop", "go")
PER_WORD, SOME = 250, 200
SEEDS = (1, 2, 3)


@dataclasses.dataclass
class Data:
    """What is measured on.

    Attributes:
        model: The bundled model.
        recordings: All validation clips of the corpus, and of the words some to train on.
        validation: The clips of the model's evaluation.
    """

    model: OpenModel
    recordings: Recordings
    validation: ClipSet

    def small(self, features: FeatureConfig, n: int) -> tuple[tuple[Array, Array], ...]:
        """MFCC and word of training and of validation clips, at most n a word, normalized."""
        found = []
        for split in ("train", "validation"):
            places, truth = [], []
            for number, word in enumerate(WORDS):
                mine = [
                    i
                    for i, clip in enumerate(self.recordings.corpus.clips)
                    if clip.split == split and clip.word == word
                ][:n]
                places += mine
                truth += [number] * len(mine)
            frames = mfcc(to_float(self.recordings.samples[places]), features)
            found.append((frames, np.array(truth)))
        mean, scale = found[0][0].mean(axis=(0, 1)), found[0][0].std(axis=(0, 1))
        return tuple(((x - mean) / scale, y) for x, y in found)

    def some_mfcc(self) -> tuple[Array, Array]:
        """MFCC and truth of some validation clips, every class among them."""
        rows = np.linspace(0, len(self.validation.truth) - 1, SOME).astype(int)
        clips = self.validation.waveforms[rows]
        return mfcc(clips, self.model.config.features), self.validation.truth[rows]


def read(root: Path) -> Data:
    """Decode what is needed of a corpus."""
    corpus = index_corpus(root)
    taken = dict.fromkeys(WORDS, 0)
    clips = []
    for clip in corpus.clips:
        if clip.split == "train" and clip.word in taken and taken[clip.word] < PER_WORD:
            taken[clip.word] += 1
            clips.append(clip)
        elif clip.split == "validation":
            clips.append(clip)
    part: Corpus = dataclasses.replace(corpus, clips=tuple(clips))
    model = open_model()
    recordings = decode(part, model.config.features, on_note=print)
    return Data(model, recordings, evaluation_set(recordings, parse_labels("commands-8")))


def measure_clip(data: Data) -> dict[str, Any]:
    """The example whose picture is drawn: the numbers of the unit whose memory moves most."""
    model = data.model
    seen = explain(model, read_clip(EXAMPLE, model, on_note=print))
    header, arrays = unpack(pack(seen))
    cell = arrays["layer.0.forward.cell"]
    unit = int(np.ptp(cell, axis=0).argmax())
    names = ("input_gate", "forget_gate", "candidate", "output_gate", "cell", "hidden")
    series = {name: arrays[f"layer.0.forward.{name}"][:, unit].tolist() for name in names}
    return {"unit": unit, "step_times": header["step_times"], "series": series}


def measure_parts(data: Data) -> list[dict[str, Any]]:
    """Accuracy on the validation clips while parts are switched off."""
    clips, truth = data.validation.waveforms, data.validation.truth
    frames = mfcc(clips, data.model.config.features)
    whole = answers_without(data.model.network, frames, WHOLE).argmax(axis=1)
    rows = []
    for name, ablation in parts_of(data.model.network).items():
        answers = answers_without(data.model.network, frames, ablation).argmax(axis=1)
        rows.append(_accuracy(answers == truth) | {"name": name, "changed": _share(answers, whole)})
    return rows


def _share(answers: Array, others: Array) -> float:
    return float((answers != others).mean())


def _accuracy(right: Array) -> dict[str, Any]:
    interval = list(wilson_interval(int(right.sum()), len(right)))
    return {"accuracy": float(right.mean()), "interval": interval, "n": len(right)}


def measure_unfolding(data: Data) -> dict[str, Any]:
    """How early the answer is right, and where the attention lies, on some validation clips."""
    frames, truth = data.some_mfcc()
    model = data.model
    rows = np.stack([unfold(model, one).argmax(axis=1) for one in frames])
    right = (rows == truth[:, np.newaxis]).mean(axis=0)
    seen = trace(model.network, frames)
    words = truth < len(WORDS)
    middles = np.linspace(0, frames.shape[1] - 1, seen.attention.shape[1]).astype(int)
    energy = frames[:, middles, 0]  # the first coefficient is loudness
    order = np.argsort(-energy, axis=1)
    loudest_first = np.take_along_axis(seen.attention, order, axis=1)[words].mean(axis=0)
    return {
        "clips": len(truth),
        "right": right.tolist(),
        "attention_loudest_first": loudest_first.tolist(),
        "attention_by_step": seen.attention[words].mean(axis=0).tolist(),
        "mean": _accuracy(
            answers_without(model.network, frames, Ablation(attention=False)).argmax(1) == truth
        ),
    }


def measure_lengths(data: Data) -> list[dict[str, Any]]:
    """Clips shorter than a second at their own length, and padded with zeros."""
    model, corpus = data.model, data.recordings.corpus
    features, labels = model.config.features, model.config.labels
    chosen = [c for c in corpus.clips if c.split == "validation" and c.word in WORDS]
    treatments: dict[str, Callable[[Array], Array]] = {
        "padded with zeros at both sides": lambda w: _padded(w, features.n_samples, 0.5),
        "padded with zeros at the end": lambda w: _padded(w, features.n_samples, 0.0),
        "as short as it is": lambda w: w,
    }
    right: dict[str, list[bool]] = {name: [] for name in treatments}
    for clip in chosen:
        waveform = load_audio(corpus.root / clip.path, features.sample_rate)
        if features.n_fft <= len(waveform) < features.n_samples:
            for name, treat in treatments.items():
                mel = log_mel(model.front, features, treat(waveform))
                logits = trace(model.network, mel @ model.front.dct.T + model.front.offset).logits
                right[name].append(labels[int(logits.argmax())] == clip.word)
    return [_accuracy(np.array(rows)) | {"name": name} for name, rows in right.items()]


def _padded(waveform: Array, n: int, before: float) -> Array:
    left = int((n - len(waveform)) * before)
    return np.pad(waveform, (left, n - len(waveform) - left))


def measure_gradients(data: Data) -> dict[str, Any]:
    """In the bundled model: the gradient of the answer's log-odds with respect to each state."""
    frames, truth = data.some_mfcc()
    network = data.model.network
    total: dict[str, Array] = {}
    for x, target in zip(frames, truth, strict=True):
        seen = trace(network, x[np.newaxis])
        found = backpropagate(network, seen, log_odds_gradient(seen.logits, int(target)))
        for number, layer in enumerate(found.cell):
            for name, gradient in zip(("forward", "backward"), layer, strict=True):
                key = f"layer {number + 1}, {name}"
                norms = np.linalg.norm(gradient[0], axis=1)
                total[key] = total.get(key, 0) + norms / len(truth)
    return {"clips": len(truth), "norms": {name: norms.tolist() for name, norms in total.items()}}


def measure_training(data: Data) -> dict[str, Any]:
    """The small networks of the comparison."""
    import lstm_training as small

    train, test = data.small(small.FEATURES, PER_WORD)
    found: dict[str, list[Any]] = {}
    for name, variant in small.VARIANTS.items():
        found[name] = [small.train_small(variant, train, test, seed) for seed in SEEDS]
        print(f"{name}: {[run['accuracy'] for run in found[name]]}")
    return {"clips": len(train[1]), "tested": len(test[1]), "networks": found}


def measure_forecast(data: Data) -> dict[str, Any]:
    """The next frames, foreseen by a small LSTM."""
    import lstm_training as small

    features = FeatureConfig(n_mfcc=20)
    (train, _), (test, _) = data.small(features, PER_WORD // 2)
    errors = small.forecast(train, test, SEEDS[0])
    return {"clips": len(train), "tested": len(test), "errors": errors}


SECTIONS: dict[str, Callable[[Data], Any]] = {
    "clip": measure_clip,
    "parts": measure_parts,
    "unfolding": measure_unfolding,
    "lengths": measure_lengths,
    "gradients": measure_gradients,
    "training": measure_training,
    "forecast": measure_forecast,
}


def main() -> None:
    """Measure what is asked for, and draw everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of Speech Commands")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    if arguments.data is not None:
        data = read(arguments.data)
        for name in arguments.only:
            start = time.perf_counter()
            found = SECTIONS[name](data)
            known = json.loads(MEASURED.read_text("utf-8")) if MEASURED.exists() else {}
            write_json(MEASURED, known | {name: _rounded(found)})
            print(f"{name}: {time.perf_counter() - start:.0f} s")
    lstm_figures.draw(MEASURED.parent, json.loads(MEASURED.read_text("utf-8")))


def _rounded(value: Any) -> Any:
    """Five digits say enough."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
