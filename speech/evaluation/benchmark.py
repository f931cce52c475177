"""What a model costs on this machine: size, start, memory, latency, throughput, live decoding."""

import dataclasses
import importlib.util
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from speech import keras_file
from speech.audio import Waveform, to_int16
from speech.errors import ModelError
from speech.formats.backends import check
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder, plain_config

T = TypeVar("T")

N_CLIPS, BATCH_SIZE, LIVE_SECONDS, SCAN_SECONDS = 100, 256, 30, 300
VARIANTS = {  # the file in a model's folder, and what it is called in the table
    "model.onnx": "ONNX",
    "model-int8.onnx": "ONNX, int8",
    "model.tflite": "LiteRT",
    "model-int8.tflite": "LiteRT, int8",
    "model.keras": "Keras, predict_on_batch",
}


class Metric(NamedTuple):
    """What is measured: its name with the unit, and whether more of it is better."""

    name: str
    more_is_better: bool = False


SIZE = Metric("Size, MB")
PROCESS = Metric("A whole process for one clip, s")
MEMORY = Metric("Its resident memory, MB")
LOADING = Metric("Loading, s")
MEDIAN = Metric("One clip, waveform to probabilities, median ms")
TAIL = Metric("One clip, 95th percentile, ms")
THROUGHPUT = Metric(f"Batches of {BATCH_SIZE}, clips/s", more_is_better=True)
LIVE = Metric("Live, an answer every 0.1 s (causal: every step), % of a core")
SCANNING = Metric("Scanning a recording, times real time", more_is_better=True)

Row = tuple[Metric, str, float]  # metric, variant, value


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One metric of one variant.

    Attributes:
        metric: What is measured, with its unit.
        variant: What it is measured on.
        values: One per round.
        more_is_better: As for clips per second; less is better as for seconds.
        is_baseline: Whether the other variants of the metric are compared with this one.
    """

    metric: str
    variant: str
    values: tuple[float, ...]
    more_is_better: bool = False
    is_baseline: bool = False


def benchmark(
    folder: Path,
    rounds: int = 5,
    on_progress: OnProgress = no_progress,
    *,
    others: Sequence[Path] = (),
) -> list[Measurement]:
    """Measure every model file in a folder, each in fresh processes.

    The files take turns, round by round, so that what else the machine does meets all of them.

    Args:
        folder: Of a model. Files that nothing installed here can run are left out.
        rounds: Values per metric.
        on_progress: Called with (rounds done, rounds) after each.
        others: Folders of more models, beside which the files of the first are the baseline.

    Raises:
        ModelError: No model there, or one that ``speech.load`` refuses.
    """
    files = model_files(folder)
    baselines = []
    if others:
        baselines = [f"{folder.name}, {variant}" for variant in files][:1]
        files = {
            f"{each.name}, {variant}": file
            for each in (folder, *others)
            for variant, file in model_files(each).items()
        }
    rows: list[Row] = []
    for done in range(rounds):
        for variant, file in files.items():
            rows += measure_file(variant, file)
        on_progress(done + 1, rounds)
    return collect(rows, baselines)


def model_files(folder: Path) -> dict[str, Path]:
    """The model files of a folder that can run here, by variant, each checked.

    The ``.keras`` file of a causal model is not among them: only exports carry a state.

    Raises:
        ModelError: There is none, or one is refused.
    """
    files = {v: folder / name for name, v in VARIANTS.items() if (folder / name).is_file()}
    if importlib.util.find_spec("tensorflow") is None:
        files.pop(VARIANTS["model.keras"], None)
    if not files:
        raise ModelError(
            f"{folder}: expected the folder of a model, got no model.onnx in it; "
            "make one with: speech train"
        )
    for file in files.values():
        check(file)  # here, since a child process only says that it failed
    trained = files.get(VARIANTS["model.keras"])
    if trained is not None and keras_file.read(trained)[0].causality is not None:
        del files[VARIANTS["model.keras"]]
        if not files:
            raise ModelError(
                f"{folder}: expected an export of the causal model in it, got {trained.name} "
                "alone; make one with: speech export"
            )
    return files


def collect(rows: Sequence[Row], baselines: Sequence[str] = ()) -> list[Measurement]:
    """One measurement for each metric and variant; variants of these names are baselines."""
    values: dict[tuple[Metric, str], list[float]] = {}
    for metric, variant, value in rows:
        values.setdefault((metric, variant), []).append(value)
    return [
        Measurement(m.name, variant, tuple(v), m.more_is_better, variant in baselines)
        for (m, variant), v in values.items()
    ]


def measure_file(variant: str, file: Path) -> Iterator[Row]:
    """All metrics of one model file, one value each."""
    yield SIZE, variant, file.stat().st_size / 1e6
    program = [sys.executable, "-m", "speech", "recognize", "--json", "--model", str(file)]
    yield from measure_process(variant, program)
    for metric, value in in_child(measure_loaded, file):
        yield metric, variant, value


def measure_process(variant: str, command: Sequence[str]) -> list[Row]:
    """Time and memory of a whole process; the path of a clip is appended to its command."""
    with tempfile.TemporaryDirectory() as folder:
        clip = _clip_file(Path(folder))
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(clip)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ModelError(
            f"{variant}: expected a process that recognizes a clip, got exit code "
            f"{process.returncode}; try: speech recognize"
        )
    in_bytes = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return [(PROCESS, variant, seconds), (MEMORY, variant, in_bytes / 1e6)]


def in_child(function: Callable[[Path], list[T]], argument: Path) -> list[T]:
    """Call a function in a fresh process, so that no variant warms up another."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, argument).result()


def synthetic_audio(seconds: float, sample_rate: int) -> Waveform:
    """Bursts of noise at the pace of words, float32 (n,); the cost does not depend on the content.

    Args:
        seconds: Length.
        sample_rate: In Hz.
    """
    n = round(seconds * sample_rate)
    bursts = np.abs(np.sin(np.pi * np.arange(n) / sample_rate)) ** 4
    return (0.1 * bursts * np.random.default_rng(0).standard_normal(n)).astype(np.float32)


def synthetic_batch(recognizer: Recognizer) -> npt.NDArray[np.float32]:
    """``BATCH_SIZE`` clips for a model, float32 (BATCH_SIZE, n_samples)."""
    rate, n = recognizer.features.sample_rate, recognizer.features.n_samples
    return synthetic_audio(BATCH_SIZE * n / rate, rate).reshape(BATCH_SIZE, n)


def _clip_file(folder: Path) -> Path:
    path = folder / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(to_int16(synthetic_audio(1, 16_000)).tobytes())
    return path


def seconds_per_call(action: Callable[[], Any], count: int) -> list[float]:
    """Wall-clock seconds of each of ``count`` calls, after one that warms up."""
    action()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return seconds


def latencies(action: Callable[[], Any], count: int = N_CLIPS) -> list[tuple[Metric, float]]:
    """Median and 95th percentile of the time of a call."""
    seconds = sorted(seconds_per_call(action, count))
    tail = seconds[round(0.95 * (count - 1))]
    return [(MEDIAN, 1e3 * statistics.median(seconds)), (TAIL, 1e3 * tail)]


def measure_loaded(file: Path) -> list[tuple[Metric, float]]:
    """What a loaded model costs; called in a process of its own."""
    started = time.perf_counter()
    recognizer = load(file)
    rows = [(LOADING, time.perf_counter() - started)]
    clips = synthetic_batch(recognizer)
    rows += latencies(lambda: recognizer.probabilities(clips[:1]))
    seconds = min(seconds_per_call(lambda: recognizer.probabilities(clips), 3))
    rows.append((THROUGHPUT, BATCH_SIZE / seconds))
    rows.append((LIVE, 100 * live_share([StreamDecoder(recognizer, plain_config(recognizer))])))
    rows.append((SCANNING, SCAN_SECONDS / scan_seconds(recognizer, SCAN_SECONDS, BATCH_SIZE)))
    return rows


def live_share(decoders: Sequence[StreamDecoder]) -> float:
    """Share of a core, in [0, 1], that live streams take whose sound comes in steps."""
    rate, config = decoders[0].recognizer.features.sample_rate, decoders[0].config
    step = round(config.step_seconds * rate)
    live = synthetic_audio(LIVE_SECONDS, rate)
    started = time.process_time()
    for first in range(0, len(live), step):
        for decoder in decoders:
            decoder.push(live[first : first + step])
    return (time.process_time() - started) / LIVE_SECONDS


def scan_seconds(recognizer: Recognizer, seconds: float, batch_size: int) -> float:
    """Seconds that a recording of this length takes, read in pieces as ``speech scan`` does."""
    rate = recognizer.features.sample_rate
    scanner = StreamDecoder(recognizer, plain_config(recognizer), batch_size=batch_size)
    recording = synthetic_audio(seconds, rate)
    size = round(BATCH_SIZE * scanner.config.step_seconds * rate)
    started = time.perf_counter()
    for first in range(0, len(recording), size):
        scanner.push(recording[first : first + size])
    scanner.flush()
    return time.perf_counter() - started


# --- the table ----------------------------------------------------------------------------------


def table(measurements: Sequence[Measurement]) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of text: metric, variant, median, spread, and how much better than the baseline.

    The last is empty where a metric has no baseline, and for the baseline itself.
    """
    for metric in dict.fromkeys(m.metric for m in measurements):
        variants = [m for m in measurements if m.metric == metric]
        baseline = next((statistics.median(m.values) for m in variants if m.is_baseline), None)
        for m in variants:
            median = statistics.median(m.values)
            ratio = ""
            if baseline and median and not m.is_baseline:
                better = median / baseline if m.more_is_better else baseline / median
                ratio = f"{better:.3g} times"
            spread = f"{min(m.values):.3g} to {max(m.values):.3g}"
            yield metric, m.variant, f"{median:.3g}", spread, ratio


def markdown(measurements: Sequence[Measurement], command: str) -> str:
    """The measurements as a page in Markdown.

    Args:
        measurements: What ``benchmark`` returned.
        command: The command line that made them.
    """
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    rounds = max((len(m.values) for m in measurements), default=0)
    parts = [
        "# What it costs\n",
        f"Made by `{command}` on {os.cpu_count()} cores ({system}). Each figure is the median of "
        f"{rounds} rounds with the smallest and largest value beside it; the variants take turns "
        "in each round, because other programs share the machine. One thread is used unless a "
        "number of threads stands beside the variant; Keras uses the threads of TensorFlow.\n",
    ]
    rows = list(table(measurements))
    for metric in dict.fromkeys(row[0] for row in rows):
        mine = [row[1:] for row in rows if row[0] == metric]
        columns = 4 if any(row[-1] for row in mine) else 3
        head = ("Variant", "Median", "Spread", "Against the baseline")[:columns]
        parts.append(f"## {metric}\n")
        parts.append(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (columns - 1)}")
        parts += [f"| {' | '.join(row[:columns])} |" for row in mine]
        parts[-1] += "\n"
    return "\n".join(parts)
