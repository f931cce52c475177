"""What the project's ways of running a model gain over a baseline that anyone would write first.

python benchmarks/compare.py MODEL_FOLDER [--rounds 5] [--markdown docs/performance.md]

The baseline is librosa with its defaults and Keras's ``model.predict``. Beside it stand the model
files that ``speech benchmark`` measures, ONNX Runtime with more threads, windows that share
nothing, and the MFCC by themselves; and how the cost grows with clips, length and streams. The
variants take turns in every round. Wants the extra ``train``.
"""

import argparse
import functools
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from speech.detection import DecoderConfig
from speech.evaluation import benchmark as bench
from speech.evaluation.benchmark import Measurement, Metric, Row
from speech.files import write_text
from speech.recognizer import load
from speech.stream import StreamDecoder

BASELINE = "librosa + Keras model.predict (baseline)"
MFCC_BASELINE = "librosa, one by one (baseline)"
OTHERS = "## The page in the browser"
MFCC = Metric("MFCC alone, clips/s", more_is_better=True)
CLIPS = Metric("With the number of clips: ms per clip")
LENGTH = Metric("With the length of a recording: s per minute")
STREAMS = Metric("With the number of live streams: % of a core each")
# what somebody writes who has a Keras model and a file, with the libraries' defaults
PROGRAM = """
import sys, librosa, keras, numpy as np
import speech.model
model = keras.saving.load_model(sys.argv[1], compile=False)
y, rate = librosa.load(sys.argv[2], sr=16000)
mfcc = librosa.feature.mfcc(
    y=y, sr=rate, n_mfcc=40, n_mels=80, n_fft=480, hop_length=160, center=False
).T
print(model.labels[int(model.predict(mfcc[np.newaxis], verbose=0).argmax())])
"""


def main() -> None:
    """Measure, and print the page or write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with model.keras and its exports")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the page here instead")
    options = parser.parse_args()
    rounds = f"--rounds {options.rounds}"
    command = f"python benchmarks/compare.py {options.folder} {rounds}"
    page = bench.markdown(compare(options.folder, options.rounds), command)
    if options.markdown is None:
        print(page)
        return
    before = options.markdown.read_text("utf-8") if options.markdown.is_file() else ""
    _, heading, others = before.partition(OTHERS)  # what experiments/app_latency.py wrote
    write_text(options.markdown, f"{page}\n{heading}{others}" if heading else page)


def compare(folder: Path, rounds: int) -> list[Measurement]:
    """Every variant, round by round; the baselines are marked."""
    files = bench.model_files(folder)
    keras_file = files["Keras, predict_on_batch"]
    fastest, file = next(iter(files.items()))
    rows: list[Row] = []
    for _ in range(rounds):
        for variant, path in files.items():
            rows += bench.measure_file(variant, path)
        for metric, how, value in bench.in_child(measure_growth, file):
            rows.append((metric, f"{fastest}, {how}", value))
        program = [sys.executable, "-c", PROGRAM, str(keras_file)]
        rows += bench.measure_process(BASELINE, program)
        rows += bench.in_child(measure_baseline, keras_file)
    return bench.collect(rows, (BASELINE, MFCC_BASELINE))


def measure_growth(file: Path) -> list[Row]:
    """How the cost grows with threads, clips, length and streams; in a process of its own."""
    recognizer, cores = load(file), os.cpu_count() or 1
    clips, many = bench.synthetic_batch(recognizer), load(file, threads=cores)
    seconds = min(bench.seconds_per_call(lambda: many.probabilities(clips), 3))
    rows: list[Row] = [(bench.THROUGHPUT, f"{cores} threads", len(clips) / seconds)]
    single = bench.SCAN_SECONDS / bench.scan_seconds(recognizer, bench.SCAN_SECONDS, 1)
    rows.append((bench.SCANNING, "window by window", single))
    for count in (1, 8, 64, len(clips)):
        action = functools.partial(recognizer.probabilities, clips[:count])
        milliseconds = 1e3 * min(bench.seconds_per_call(action, 5)) / count
        rows.append((CLIPS, f"{count} at once", milliseconds))
    for minutes in (1, 10):
        seconds = bench.scan_seconds(recognizer, 60.0 * minutes, bench.BATCH_SIZE)
        rows.append((LENGTH, f"{minutes} minutes long", seconds / minutes))
    for streams in (1, 8):
        decoders = [StreamDecoder(recognizer, DecoderConfig()) for _ in range(streams)]
        percent = 100 * bench.live_share(decoders) / streams
        rows.append((STREAMS, f"{streams} at once", percent))
    return rows


def measure_baseline(file: Path) -> list[Row]:
    """librosa and Keras with their defaults, and the MFCC alone; in a process of its own."""
    import librosa

    from speech.features import mfcc
    from speech.formats.backends import load_keras

    model = load_keras(file)
    features = model.features
    clips = bench.synthetic_audio(
        bench.BATCH_SIZE * features.n_samples / features.sample_rate, features.sample_rate
    ).reshape(bench.BATCH_SIZE, features.n_samples)
    mels: dict[str, Any] = {"n_mels": features.n_mels, "n_mfcc": features.n_mfcc}
    frames: dict[str, Any] = {"n_fft": features.n_fft, "hop_length": features.hop_length}

    def one_mfcc() -> Any:
        y = clips[0]
        rate = features.sample_rate
        return librosa.feature.mfcc(y=y, sr=rate, center=False, **frames, **mels).T[np.newaxis]

    rows: list[Row] = []
    variants: dict[str, Callable[[], Any]] = {
        BASELINE: lambda: model.predict(one_mfcc(), verbose=0),
        "librosa + Keras model(x)": lambda: model(one_mfcc(), training=False),
    }
    for variant, action in variants.items():
        rows += [(metric, variant, value) for metric, value in bench.latencies(action, 20)]
    seconds = statistics.median(bench.seconds_per_call(variants[BASELINE], 20))
    rows.append((bench.THROUGHPUT, BASELINE, 1 / seconds))
    step = DecoderConfig().step_seconds
    rows.append((bench.SCANNING, BASELINE, step / seconds))
    seconds = statistics.median(bench.seconds_per_call(one_mfcc, bench.N_CLIPS))
    rows.append((MFCC, MFCC_BASELINE, 1 / seconds))
    batched: dict[str, Callable[[], Any]] = {"librosa, batched": lambda: mfcc(clips, features)}
    if (onnx := file.with_name("model.onnx")).is_file():
        batched["in the ONNX graph, batched"] = functools.partial(load(onnx).mfcc, clips)
    for variant, action in batched.items():
        rows.append((MFCC, variant, len(clips) / min(bench.seconds_per_call(action, 3))))
    return rows


if __name__ == "__main__":
    main()
