"""What recognising and training cost, each way beside the plain one, in one run."""

import dataclasses
import functools
import importlib.util
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from speech.detection import DecoderConfig
from speech.errors import ModelError
from speech.formats.backends import check
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder

if TYPE_CHECKING:
    from speech.model import CommandModel
    from speech.training.batches import Batch, ClipSource

T = TypeVar("T")

_CLIPS, _BATCH, _LIVE_SECONDS, _SCAN_SECONDS = 100, 256, 30, 300
_BATCHES = f"Batches of {_BATCH}, clips/s"
_SCANNING = "Scanning a recording, times real time"
_MODELS = {  # the file of a model's folder, and what its way is called
    "model.onnx": "ONNX",
    "model-int8.onnx": "ONNX, int8",
    "model.tflite": "LiteRT",
    "model-int8.tflite": "LiteRT, int8",
    "model.keras": "Keras, predict_on_batch",
}
# What somebody writes who has a Keras model and a file, with the libraries' defaults.
_PLAIN = """
import sys, librosa, keras, numpy as np
import speech.model
model = keras.saving.load_model(sys.argv[1], compile=False)
y, rate = librosa.load(sys.argv[2], sr=16000)
mfcc = librosa.feature.mfcc(
    y=y, sr=rate, n_mfcc=40, n_mels=80, n_fft=480, hop_length=160, center=False
).T
print(model.labels[int(model.predict(mfcc[np.newaxis], verbose=0).argmax())])
"""
_PLAIN_NAME = "librosa + Keras model.predict, plain"


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure of one way.

    Attributes:
        group: What is measured, with its unit.
        way: How it is done.
        values: One a round.
        plain: Whether this is what the others of the group are compared with.
        more_is_better: Clips per second, and not seconds.
    """

    group: str
    way: str
    values: tuple[float, ...]
    plain: bool = False
    more_is_better: bool = False


def benchmark(
    folder: Path,
    corpus: Path | None = None,
    rounds: int = 5,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> list[Measure]:
    """Measure every file of a model's folder, and the plain path beside them.

    The ways take turns, round by round, so that what else the machine does meets all of them.

    Args:
        folder: Of a model; the plain path needs its ``model.keras`` and the extra ``train``.
        corpus: For the training's speed; without it, that is left out.
        rounds: How often.
        tell: Told (rounds done, rounds) after each.

    Raises:
        ModelError: No model there.
    """
    files = {way: folder / name for name, way in _MODELS.items() if (folder / name).is_file()}
    if importlib.util.find_spec("tensorflow") is None:
        files.pop("Keras, predict_on_batch", None)
    if not files:
        raise ModelError(f"{folder}: expected the folder of a model, got no model.onnx in it")
    for file in files.values():
        check(file)  # here, since a process that measures only says that it failed
    collected: dict[tuple[str, str, bool, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        clip = _clip_file(Path(scratch))
        for done in range(rounds):
            for group, way, value, plain, more in _round(files, clip, corpus):
                collected.setdefault((group, way, plain, more), []).append(value)
            tell(done + 1, rounds)
    return [
        Measure(group, way, tuple(values), plain, more)
        for (group, way, plain, more), values in collected.items()
    ]


def _round(
    files: Mapping[str, Path], clip: Path, corpus: Path | None
) -> Iterator[tuple[str, str, float, bool, bool]]:
    """Group, way, value, whether it is the plain way, whether more is better."""
    for way, file in files.items():
        yield "Size, MB", way, file.stat().st_size / 1e6, False, False
        command = [sys.executable, "-m", "speech", "recognize", "--json", str(clip)]
        for group, value in _cold(way, [*command, "--model", str(file)]):
            yield group, way, value, False, False
        for group, value, more in _in_child(_running, file):
            yield group, way, value, False, more
    first, file = next(iter(files.items()))
    for group, how, value, more in _in_child(_growing, file):
        yield group, f"{first}, {how}", value, False, more
    keras_file = files.get("Keras, predict_on_batch")
    if keras_file is None:
        return
    program = [sys.executable, "-c", _PLAIN, str(keras_file), str(clip)]
    for group, value in _cold(_PLAIN_NAME, program):
        yield group, _PLAIN_NAME, value, True, False
    for group, way, value, more in _in_child(_plainly, keras_file):
        yield group, way, value, way in (_PLAIN_NAME, "librosa, one by one"), more
    if corpus is not None:
        for group, way, value, more in _in_child(_training, corpus):
            yield group, way, value, way == "the network alone", more


Row = tuple[str, float, bool]  # group, value, whether more is better
WayRow = tuple[str, str, float, bool]


def _cold(way: str, command: list[str]) -> list[tuple[str, float]]:
    """Time and memory of a whole process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ModelError(f"{way}: expected to recognise a clip, got exit {process.returncode}")
    in_bytes = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return [
        ("A whole process for one clip, s", seconds),
        ("Resident memory of it, MB", in_bytes / 1e6),
    ]


def _in_child(function: Callable[[Path], list[T]], argument: Path) -> list[T]:
    """In a fresh process, so that no way warms up another."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, argument).result()


def _clip_file(folder: Path) -> Path:
    import soundfile

    path = folder / "clip.wav"
    soundfile.write(path, _audio(1, 16_000), 16_000)
    return path


def _audio(seconds: float, sample_rate: int) -> Any:
    """Bursts of noise at the pace of words, float32; what it costs does not hang on what it is."""
    n = round(seconds * sample_rate)
    bursts = np.abs(np.sin(np.pi * np.arange(n) / sample_rate)) ** 4
    return (0.1 * bursts * np.random.default_rng(0).standard_normal(n)).astype(np.float32)


def _times(action: Callable[[], Any], count: int) -> list[float]:
    action()  # warm
    times = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return times


def _latencies(action: Callable[[], Any], count: int = _CLIPS) -> list[Row]:
    times = sorted(_times(action, count))
    return [
        ("One clip, waveform to probabilities, median ms", 1e3 * statistics.median(times), False),
        ("One clip, 95th percentile, ms", 1e3 * times[round(0.95 * (count - 1))], False),
    ]


def _running(file: Path) -> list[Row]:
    """What a loaded model costs; runs in a process of its own."""
    started = time.perf_counter()
    recognizer = load(file)
    rows: list[Row] = [("Loading, s", time.perf_counter() - started, False)]
    rate, n = recognizer.features.sample_rate, recognizer.features.n_samples
    clips = _audio(_BATCH * n / rate, rate).reshape(_BATCH, n)
    rows += _latencies(lambda: recognizer.probabilities(clips[:1]))
    seconds = min(_times(lambda: recognizer.probabilities(clips), 3))
    rows.append((_BATCHES, _BATCH / seconds, True))

    share = _live_share([StreamDecoder(recognizer, DecoderConfig())])
    rows.append(("Live, ten windows a second, % of a core", 100 * share, False))
    speed = _SCAN_SECONDS / _scan_seconds(recognizer, _SCAN_SECONDS, _BATCH)
    rows.append((_SCANNING, speed, True))
    return rows


def _live_share(decoders: list[StreamDecoder]) -> float:
    """Share of a core that live streams take which come in steps, as from microphones."""
    rate, config = decoders[0].recognizer.features.sample_rate, decoders[0].config
    step = round(config.step_seconds * rate)
    live = _audio(_LIVE_SECONDS, rate)
    spent = time.process_time()
    for first in range(0, len(live), step):
        for decoder in decoders:
            decoder.push(live[first : first + step])
    return (time.process_time() - spent) / _LIVE_SECONDS


def _scan_seconds(recognizer: Recognizer, seconds: float, batch_size: int) -> float:
    """Time for a recording in pieces of a batch, as ``speech scan`` reads it."""
    rate = recognizer.features.sample_rate
    scanner = StreamDecoder(recognizer, DecoderConfig(), batch_size=batch_size)
    long = _audio(seconds, rate)
    size = round(_BATCH * scanner.config.step_seconds * rate)
    started = time.perf_counter()
    for first in range(0, len(long), size):
        scanner.push(long[first : first + size])
    scanner.flush()
    return time.perf_counter() - started


def _growing(file: Path) -> list[WayRow]:
    """How the cost grows with threads, clips, length and streams; runs in a process of its own."""
    recognizer = load(file)
    rate, n = recognizer.features.sample_rate, recognizer.features.n_samples
    clips = _audio(_BATCH * n / rate, rate).reshape(_BATCH, n)
    cores = os.cpu_count() or 1
    many = load(file, threads=cores)
    seconds = min(_times(lambda: many.probabilities(clips), 3))
    rows: list[WayRow] = [(_BATCHES, f"{cores} threads", _BATCH / seconds, True)]
    naive = _SCAN_SECONDS / _scan_seconds(recognizer, _SCAN_SECONDS, 1)
    rows.append((_SCANNING, "window by window", naive, True))
    for count in (1, 8, 64, _BATCH):
        seconds = min(_times(functools.partial(recognizer.probabilities, clips[:count]), 5))
        rows.append(("With clips: ms a clip", f"{count} at once", 1e3 * seconds / count, False))
    for minutes in (1, 10):
        seconds = _scan_seconds(recognizer, 60.0 * minutes, _BATCH)
        group = "With length: s for a minute of a recording"
        rows.append((group, f"{minutes} minutes long", seconds / minutes, False))
    for streams in (1, 8):
        share = _live_share([StreamDecoder(recognizer, DecoderConfig()) for _ in range(streams)])
        group = "With live streams: % of a core each"
        rows.append((group, f"{streams} at once", 100 * share / streams, False))
    return rows


def _plainly(file: Path) -> list[WayRow]:
    """librosa and Keras with their defaults, and the MFCC by themselves."""
    import librosa

    from speech.features import mfcc
    from speech.formats.backends import load_keras

    model = load_keras(file)
    features = model.features
    rate, n = features.sample_rate, features.n_samples
    clips = _audio(_BATCH * n / rate, rate).reshape(_BATCH, n)

    def plain_mfcc(clip: Any) -> Any:
        sizes: dict[str, Any] = {
            "n_fft": features.n_fft,
            "hop_length": features.hop_length,
            "center": False,
        }
        mels: dict[str, Any] = {"n_mels": features.n_mels, "n_mfcc": features.n_mfcc}
        return librosa.feature.mfcc(y=clip, sr=rate, **sizes, **mels).T[np.newaxis]

    rows: list[WayRow] = []
    ways = {
        _PLAIN_NAME: lambda: model.predict(plain_mfcc(clips[0]), verbose=0),
        "librosa + Keras model(x), plain": lambda: model(plain_mfcc(clips[0]), training=False),
    }
    for way, action in ways.items():
        rows += [(group, way, value, more) for group, value, more in _latencies(action, 20)]
    window = ways[_PLAIN_NAME]
    seconds = statistics.median(_times(window, 20))
    rows.append((_BATCHES, _PLAIN_NAME, 1 / seconds, True))
    rows.append((_SCANNING, _PLAIN_NAME, 0.1 / seconds, True))
    group = "MFCC alone, clips/s"
    one_by_one = statistics.median(_times(lambda: plain_mfcc(clips[0]), _CLIPS))
    rows.append((group, "librosa, one by one", 1 / one_by_one, True))
    batched = min(_times(lambda: mfcc(clips, features), 3))
    rows.append((group, "librosa, batched", _BATCH / batched, True))
    onnx = file.with_name("model.onnx")
    if onnx.is_file():
        recognizer = load(onnx)
        in_graph = min(_times(lambda: recognizer.mfcc(clips), 3))
        rows.append((group, "in the ONNX graph, batched", _BATCH / in_graph, True))
    return rows


def _training(corpus: Path) -> list[WayRow]:
    """Steps of the recipe: the network alone, its data alone, and both as in training."""
    from speech.environment import share_cores

    share_cores()
    from speech.data.corpus import index_corpus
    from speech.data.datasets import parse_labels
    from speech.data.recordings import decode
    from speech.model import CommandModel
    from speech.training.batches import ClipSource
    from speech.training.config import TrainConfig
    from speech.training.trainer import compile_model

    config, labels, steps = TrainConfig(), parse_labels("commands-8"), 20
    source = ClipSource(decode(index_corpus(corpus), config.features), labels, config)
    model = CommandModel(labels.labels, config.features, config.architecture)
    compile_model(model, config, source.steps())
    batches = source.batches(0)
    first = next(batches)
    for batch in (first, next(batches)):
        model.train_on_batch(*batch)
    rates, waiting = training_rates(model, source, first, steps)
    ways = ("the network alone", "the data by itself", "both, as trained")
    rows = [("Training, clips/s", way, rate, True) for way, rate in zip(ways, rates, strict=True)]
    return [*rows, ("Training, time waiting for data, %", ways[2], 100 * waiting, False)]


def training_rates(
    model: "CommandModel", source: "ClipSource", batch: "Batch", steps: int
) -> tuple[list[float], float]:
    """What the network takes, what the data take, and both together with the data made ahead.

    Args:
        model: Compiled.
        source: Of the batches.
        batch: One of them, for the network alone.
        steps: How many batches each way.

    Returns:
        Clips a second of the three ways, and the share of the time that the third waited for data.
    """
    from speech.training.batches import prefetch

    clock = [time.perf_counter()]
    for _ in range(steps):
        model.train_on_batch(*batch)
    clock.append(time.perf_counter())
    for _ in zip(range(steps), source.batches(1), strict=False):
        pass
    clock.append(time.perf_counter())
    waited, ahead = 0.0, prefetch(source.batches(2))
    for _ in range(steps):
        asked = time.perf_counter()
        made = next(ahead)
        waited += time.perf_counter() - asked
        model.train_on_batch(*made)
    clock.append(time.perf_counter())
    ahead.close()
    rates = steps * source.config.batch_size / np.diff(clock)
    return rates.tolist(), waited / (clock[3] - clock[2])


# --- the table ----------------------------------------------------------------------------------


def table(measures: list[Measure]) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of text: group, way, median, spread, and how much better than the plain way."""
    groups = dict.fromkeys(m.group for m in measures)
    for group in groups:
        ways = [m for m in measures if m.group == group]
        plain = next((statistics.median(m.values) for m in ways if m.plain), None)
        for m in ways:
            median = statistics.median(m.values)
            ratio = ""
            if plain and median and not m.plain:
                ratio = f"{median / plain if m.more_is_better else plain / median:.3g} times"
            spread = f"{min(m.values):.3g} to {max(m.values):.3g}"
            yield group, m.way, f"{median:.3g}", spread, ratio


def markdown(measures: list[Measure], command: str) -> str:
    """The page of docs/performance.md.

    Args:
        measures: What ``benchmark`` returned.
        command: That made them.
    """
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    rounds = max((len(m.values) for m in measures), default=0)
    parts = [
        "# What it costs\n",
        f"Made by `{command}` on {os.cpu_count()} cores ({system}): the median of {rounds} rounds, "
        "their spread, and how much better than the plain way of the same table. The ways take "
        "turns in each round. The machine is shared: compare within the page. One thread, where "
        "no number stands, but in TensorFlow's own processes. Files that `speech export` made "
        "beside the model are measured too.\n",
    ]
    rows = list(table(measures))
    for group in dict.fromkeys(row[0] for row in rows):
        parts.append(f"## {group}\n")
        parts.append(
            "| Way | Median | Spread | Against the plain way |\n| --- | ---: | ---: | ---: |"
        )
        parts += [f"| {' | '.join(row[1:])} |" for row in rows if row[0] == group]
        parts[-1] += "\n"
    return "\n".join(parts)
