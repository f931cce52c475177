"""Does a causal model answer the same, however its sound is divided, and as long as it goes on?

python experiments/stream_is_clip.py MODEL CORPUS [--clips 1000] [--hours 10] [--seed 0]

Clips of the corpus, and an hour of them one behind the other, are pushed in random pieces (of 1
sample to 5 seconds) into the ONNX file, a LiteRT file that is exported for this, and as a whole
into Keras, whose MFCC are librosa's. Then a fresh process scans many hours with the ONNX file and
looks at its memory behind each. Prints both tables. Linux only; wants the extras train and export.
"""

import argparse
import functools
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, fit_length, load_audio
from speech.data.corpus import NOISE_FOLDER
from speech.data.folders import find_audio
from speech.environment import command_line
from speech.evaluation.benchmark import in_child
from speech.evaluation.markdown import table
from speech.formats.backends import load_keras
from speech.formats.carried import stream_of
from speech.formats.export import export
from speech.formats.folder import ModelFolder
from speech.installation import find_model
from speech.model import CommandModel
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder, classifier_for
from speech.training.distill import stream_mfcc
from speech.training.ops import compiled

Waveforms = npt.NDArray[np.float32]  # (n, samples)
Rows = npt.NDArray[np.floating[Any]]

MINUTE, HOUR = 60, 3600  # seconds
LONGEST = 5.0  # seconds of a piece
AT_ONCE = 250  # steps in one call, of a scan


def in_keras(model: CommandModel, sounds: Waveforms) -> Rows:
    """The answers at each step of streams (n, samples) given in one piece: (n, steps, classes)."""
    features = model.features
    tail, size = features.n_fft - features.hop_length, MINUTE * features.sample_rate
    frames = [stream_mfcc(sounds[:, :size], features)]
    for first in range(size, sounds.shape[1], size):  # an hour of spectra is too much for memory
        part = stream_mfcc(sounds[:, first - tail : first + size], features)
        count = min(size, sounds.shape[1] - first) // features.hop_length
        frames.append(part[:, -count:])
    logits = compiled(model.steps)(np.concatenate(frames, axis=1))
    rows: Rows = np.asarray(keras.ops.softmax(logits / model.temperature))
    return rows


def in_pieces(recognizer: Recognizer, sound: Waveform, rng: np.random.Generator) -> Rows:
    """The same, pushed in random pieces by the way of every live stream."""
    assert recognizer.step_seconds is not None
    stream = classifier_for(recognizer, recognizer.step_seconds, int(rng.integers(1, AT_ONCE)))
    longest, rows, at = LONGEST * recognizer.features.sample_rate, [], 0
    while at < len(sound):
        size = round(longest ** rng.uniform())  # as many of ten samples as of ten thousand
        rows.append(stream.push(sound[at : at + size]))
        at += size
    return np.concatenate(rows)


def differences(
    model: CommandModel, files: dict[str, Recognizer], clips: Waveforms, hour: Waveform
) -> Iterator[tuple[str, ...]]:
    """A row for streams of the clips, for the clips given as such, and for the hour."""
    features, causality = model.features, model.causality
    assert causality is not None
    rng = np.random.default_rng(len(clips))
    tail = features.n_fft - features.hop_length  # which the state of a new stream begins with
    streams = stream_of(clips, causality, features)[:, tail:]
    right = in_keras(model, streams)

    def largest(pairs: Iterable[tuple[Rows, Rows]]) -> str:
        return f"{max(np.abs(one - other).max() for one, other in pairs):.1e}"

    def divided(file: Recognizer, sounds: Waveforms, rows: Rows) -> str:
        if file is files["Keras"]:  # which carries no state
            return ""
        return largest((in_pieces(file, s, rng), r) for s, r in zip(sounds, rows, strict=True))

    def whole(file: Recognizer) -> str:
        return largest([(file.probabilities(clips), right[:, -1])])

    yield (
        f"{len(clips):,} clips as streams in random pieces, {right[..., 0].size:,} steps",
        *(divided(file, streams, right) for file in files.values()),
    )
    yield f"{len(clips):,} clips given as clips", *map(whole, files.values())
    rows = in_keras(model, hour[np.newaxis])
    name = f"an hour in random pieces, {rows.shape[1]:,} steps"
    yield name, *(divided(file, hour[np.newaxis], rows) for file in files.values())


def memory(sound: Path, hours: int, file: Path) -> list[tuple[float, int]]:
    """Of each hour, in a process of its own: megabytes resident behind it, and detections."""
    recognizer = load(file)
    decoder = StreamDecoder(recognizer, batch_size=AT_ONCE)
    samples = np.load(sound, mmap_mode="r")
    size = 10 * recognizer.features.sample_rate
    rows = []
    for _ in range(hours):
        found = 0
        for first in range(0, len(samples), size):
            found += len(decoder.push(samples[first : first + size]))
        status = Path("/proc/self/status").read_text("utf-8")
        rows.append((int(re.findall(r"RssAnon:\s*(\d+) kB", status)[0]) / 1024, found))
    return rows


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--hours", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = find_model(options.model)
    model = load_keras(ModelFolder(folder).keras)
    rng = np.random.default_rng(options.seed)
    paths = [p for p in find_audio([options.corpus]) if p.parent.name != NOISE_FOLDER]  # of minutes
    rate, n = model.features.sample_rate, model.features.n_samples
    chosen = rng.permutation(len(paths))[: max(options.clips, HOUR)]
    clips = np.stack([fit_length(load_audio(paths[i], rate), n) for i in chosen])
    hour = np.resize(clips, HOUR * rate)
    with tempfile.TemporaryDirectory() as name:
        small = export(folder, "tflite", Path(name)).path
        files = {
            "Keras": load(ModelFolder(folder).keras),
            "ONNX": load(folder),
            "LiteRT": load(small),
        }
        rows = list(differences(model, files, clips[: options.clips], hour))
        np.save(Path(name) / "hour.npy", hour)
        measure = functools.partial(memory, Path(name) / "hour.npy", options.hours)
        held = in_child(measure, ModelFolder(folder).onnx)
    print(f"`{command_line()}`\n")
    print(table(("Largest difference to Keras in one piece", *files), rows), end="\n\n")
    hours = [(i, f"{mb:.1f}", f"{found:,}") for i, (mb, found) in enumerate(held, 1)]
    print(table(("Hours of stream", "MB of memory", "Detections in the last hour"), hours))


if __name__ == "__main__":
    main()
