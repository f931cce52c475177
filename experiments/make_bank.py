"""Makes saved_models/commands-8/bank.npz: what `speech teach` tells words from, and is judged on.

    python experiments/make_bank.py RECORDINGS

The bank holds vectors of the encoder alone, in 8 bits, none of the sound. What each source gives is
in SOURCES; the words and phrases that docs/teach.md measures on are in none of them. The projection
comes from the part that trains. Takes ten minutes on two cores.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, fit_length, load_audio
from speech.formats.from_onnx import read_onnx
from speech.formats.weights import WordBranch
from speech.installation import DEFAULT_MODEL, find_model
from speech.teach.bank import FILE, TRAINING_STEPS, Bank, Vectors
from speech.teach.encoder import STEP, open_encoder
from speech.teach.takes import RATE
from speech.teach.variants import noise

WIDTH, N_PARTS = 256, 2
# folder below the given one, what is taken of it, and for which part
SPEECH_TRAINING = ("negative_speech/smart_mirror", "synthetic_speech/sentences")
SPEECH_HELD_OUT = (
    "negative_speech/alexa",
    "negative_speech/computer",
    "negative_speech/view_glass",
    "read_sentences",
)
WORDS_TRAINING = {"speech_commands": 16, "isolated_words": 25, "synthetic_speech/words": 1}
NOISE_TRAINING = "speech_commands/_background_noise_"
HELD_OUT_SECONDS = 980  # of each source, or the file would be too large
EVERY_OTHER = 3  # of the synthetic sentences: real speech counts more


def main() -> None:
    """Write the bank, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    shared, model = parser.parse_args().shared, find_model(parser.parse_args().model)
    raw = RawEncoder(model)
    words = np.concatenate([raw.vectors(clips) for clips in word_clips(shared)])
    rooms = [raw.stream(w, TRAINING_STEPS) for w in room_streams(shared)]
    speech = [
        raw.stream(w, TRAINING_STEPS) for n in SPEECH_TRAINING for w in spoken_streams(shared / n)
    ]
    branch = raw.branch(np.concatenate([words, *speech]))
    held_out = [
        raw.stream(w, 1)
        for name in SPEECH_HELD_OUT
        for w in first_seconds(spoken_streams(shared / name), HELD_OUT_SECONDS)
    ]
    bank = Bank(
        branch,
        tuple(project(branch, rows) for rows in (*speech, *rooms, *(row[None] for row in words))),
        tuple(project(branch, rows) for rows in held_out),
    )
    path = model / FILE
    bank.write(path)
    print(f"{path}: {path.stat().st_size:,} bytes, {bank.hours:.2f} hours held out, ", end="")
    print(f"{sum(map(len, bank.training)):,} vectors that train")


class RawEncoder:
    """The network of a model, whose vectors are not projected yet."""

    def __init__(self, model: Path) -> None:
        metadata, front, network = read_onnx(model / "model.onnx")
        n_steps = metadata.features.n_frames
        for _ in network.convolutions:
            n_steps = -(-n_steps // 2)
        ends = np.linspace(0, n_steps, N_PARTS + 1).round().astype(int)
        self.parts = np.zeros((N_PARTS, n_steps), np.float32)
        for row, (first, last) in enumerate(itertools.pairwise(ends)):
            self.parts[row, first:last] = 1 / (last - first)
        n_layers = len(network.lstm_layers)
        width = (1 + n_layers * N_PARTS) * len(network.classifier[0])
        # a last number that is always one before the vector's length is taken away
        branch = WordBranch(
            self.parts,
            np.eye(width, width + 1, dtype=np.float32),
            np.eye(1, width + 1, width, dtype=np.float32)[0],
        )
        self.second = metadata.features.n_samples
        self.recognizer = open_encoder(front, dataclasses.replace(network, branch=branch), metadata)

    def vectors(self, clips: npt.NDArray[np.float32]) -> Vectors:
        """What the branch projects, float32 (n, width)."""
        rows = self.recognizer.embed(clips)
        result: Vectors = rows[:, :-1] / rows[:, -1:]
        return result

    def stream(self, waveform: Waveform, steps: int) -> Vectors:
        """A vector at every so many steps."""
        windows = np.lib.stride_tricks.sliding_window_view(waveform, self.second)
        return self.vectors(np.ascontiguousarray(windows[:: steps * STEP]))

    def branch(self, rows: Vectors) -> WordBranch:
        """The projection to the directions that vary most, whose weight is evened half out."""
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        values, directions = np.linalg.eigh(np.cov(((rows - mean) / deviation).T))
        values, directions = values[::-1][:WIDTH], directions[:, ::-1][:, :WIDTH]
        kernel = directions * (values + 0.05 * values.mean()) ** -0.25
        kernel = kernel / deviation[:, np.newaxis]
        scale = np.abs(kernel).max(axis=0) / 127
        kernel = (np.rint(kernel / scale) * scale).astype(np.float32)  # as it is kept
        return WordBranch(self.parts, kernel, (-mean @ kernel).astype(np.float32))


def project(branch: WordBranch, rows: Vectors) -> Vectors:
    """As the graph does it."""
    vectors = rows @ branch.kernel + branch.bias
    result: Vectors = vectors / np.sqrt(np.mean(vectors**2, axis=1, keepdims=True) + 1e-6)
    return result


def spoken_streams(folder: Path) -> Iterator[Waveform]:
    """The recordings of a folder one behind the other, in streams of about a minute."""
    paths = sorted(folder.glob("*.ogg"))
    if "synthetic" in str(folder):
        paths = paths[::EVERY_OTHER]
    for first in range(0, len(paths), 20):
        yield np.concatenate([load_audio(path, RATE) for path in paths[first : first + 20]])


def first_seconds(streams: Iterator[Waveform], seconds: float) -> Iterator[Waveform]:
    """Streams until there are so many seconds of them."""
    for stream in streams:
        yield stream[: max(0, round(seconds * RATE))]
        seconds -= len(stream) / RATE
        if seconds < 2:
            return


def room_streams(shared: Path) -> Iterator[Waveform]:
    """Recorded noise, synthesized noise and digital silence, at several levels."""
    rng = np.random.default_rng(0)
    for path in sorted((shared / NOISE_TRAINING).glob("*.flac")):
        recorded = load_audio(path, RATE, max_seconds=200)[: 20 * RATE]
        yield recorded * np.float32(10 ** rng.uniform(-1.5, 0))
    for _ in range(40):
        made = noise(3 * RATE, rng) * np.float32(10 ** rng.uniform(-4, -1))
        yield np.clip(made, -1, 1).astype(np.float32)
    yield np.zeros(2 * RATE, np.float32)


def word_clips(shared: Path) -> Iterator[npt.NDArray[np.float32]]:
    """Single words as clips of a second, a few of each word."""
    rng = np.random.default_rng(1)
    for name, count in WORDS_TRAINING.items():
        clips = []
        for folder in sorted((shared / name).iterdir()):
            if folder.is_dir() and not folder.name.startswith(("zh_", "_back")):
                paths = sorted(folder.iterdir())
                chosen = rng.permutation(len(paths))[:count]
                clips += [fit_length(load_audio(paths[i], RATE), RATE) for i in chosen]
        yield np.stack(clips)


if __name__ == "__main__":
    main()
