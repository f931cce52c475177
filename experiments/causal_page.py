"""The tables of docs/causal.md: what causal students cost beside their teacher, and what they find.

python experiments/causal_page.py TEACHER STUDENT [STUDENT] [--rounds 3]

All are measured in the same rounds by ``speech.evaluation.benchmark``, the ONNX files only; hits
and false accepts are those that `speech score` wrote into the folders of the models, and the
short trainings those of ``gpu_results/students.json``.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from speech.architecture import KERNEL, Architecture
from speech.environment import command_line
from speech.evaluation import benchmark as bench
from speech.evaluation.markdown import interval, table
from speech.features import FeatureConfig
from speech.files import write_text
from speech.formats.folder import ModelFolder
from speech.installation import find_model
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder

PAGE = Path(__file__).parents[1] / "docs" / "causal.md"
EXAMPLE = Path(__file__).parents[1] / "examples" / "c" / "stream.c"
C_SECONDS = 600
TRIED = Path(__file__).parent / "gpu_results" / "students.json"
SHORT = {
    "look-ahead of 40 ms": "ahead-40",
    "look-ahead of nothing": "ahead-0",
    "look-ahead of 120 ms": "ahead-120",
    "look-ahead of 200 ms": "ahead-200",
    "40 ms, pre-trained by forecasting": "forecast",
}
RATES = (5, 10, 20, 40)  # false accepts per hour
WINDOWS_PER_SECOND = 10  # of a live decoder that is given clips
BYTES = {1: 2, 4: 8, 6: 1, 8: 8, 9: 1}  # of LiteRT's kinds that do not take four: schema.fbs


def multiplications(architecture: Architecture, features: FeatureConfig, n_classes: int) -> float:
    """Millions in a second of sound, of the network without its front end."""
    frames, width = 1 / features.hop_seconds, features.n_mfcc
    if not architecture.causal:
        frames = WINDOWS_PER_SECOND * features.n_frames
    total = 0.0
    for filters in architecture.conv_filters:
        frames /= 2
        total += frames * KERNEL * width * filters
        width = filters
    directions = 1 + architecture.bidirectional
    for _ in range(architecture.lstm_layers):
        gates = 4 * architecture.lstm_units * (width + architecture.lstm_units)
        total += frames * directions * gates
        width = directions * architecture.lstm_units
    return (total + frames * width * n_classes) / 1e6


def costs(folders: list[Path], rounds: int) -> str:
    """The table of costs."""
    rows: list[bench.Row] = []
    for _ in range(rounds):
        for folder in folders:
            file = ModelFolder(folder).onnx
            measured = bench.in_child(_measured, file)
            rows += [(metric, folder.name, value) for metric, value in measured]
    names = [folder.name for folder in folders]
    cells = [
        (metric, variant, median, spread, ratio)
        for metric, variant, median, spread, ratio in bench.table(
            bench.collect(rows, baselines=names[:1])
        )
    ]
    cells += [*in_pieces(folders, rounds), *in_c(folders, rounds), *_sizes(folders)]
    return table(("", "model", "median", "spread", "better"), cells, align="llrrr")


def in_c(folders: list[Path], rounds: int) -> Iterator[tuple[str, str, str, str, str]]:
    """What a stream costs where `examples/c` runs it, a LiteRT file of each causal model."""
    import ai_edge_litert

    library = ai_edge_litert.__path__[0]
    with tempfile.TemporaryDirectory() as name:
        program, recording = Path(name, "stream"), Path(name, "sound.wav")
        linked = ["-O2", f"-L{library}", "-lLiteRt", f"-Wl,-rpath,{library}"]
        subprocess.run(["cc", "-std=c11", EXAMPLE, "-o", program, *linked], check=True)
        soundfile.write(recording, bench.synthetic_audio(C_SECONDS, 16_000), 16_000, "PCM_16")
        for folder in folders:
            files = sorted(folder.glob("*.tflite"))
            if not files and load(folder).causality is not None:
                made = [sys.executable, "-m", "speech", "export", str(folder), "--to", "tflite"]
                subprocess.run([*made, "--out", name], check=True, capture_output=True)
                files = [Path(name, "model.tflite")]
            for file in files:
                spent = [_processor_seconds([program, file, recording]) for _ in range(rounds)]
                low, *_, high = sorted(100 * seconds / C_SECONDS for seconds in spent)
                middle = statistics.median(100 * seconds / C_SECONDS for seconds in spent)
                spread = f"{low:.3f} to {high:.3f}"
                yield (
                    f"Live in C, {file.name}, % of a core",
                    folder.name,
                    f"{middle:.3f}",
                    spread,
                    "",
                )


def in_pieces(folders: list[Path], rounds: int) -> Iterator[tuple[str, str, str, str, str]]:
    """What a stream costs a causal model that is given several steps at a call."""
    for folder in folders:
        model: Recognizer = load(folder)
        if model.step_seconds is None:
            continue
        sound = bench.synthetic_audio(60, model.features.sample_rate)
        for steps in (3, 5):
            size = round(steps * model.step_seconds * model.features.sample_rate)
            spent = []
            for _ in range(rounds):
                decoder = StreamDecoder(model, batch_size=steps)
                before = time.process_time()
                for first in range(0, len(sound), size):
                    decoder.push(sound[first : first + size])
                spent.append(100 * (time.process_time() - before) / 60)
            name = f"Live, in pieces of {steps * model.step_seconds:g} s, % of a core"
            spread = f"{min(spent):.3f} to {max(spent):.3f}"
            yield name, folder.name, f"{statistics.median(spent):.3f}", spread, ""


def _processor_seconds(command: list[Path]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _measured(file: Path) -> list[tuple[bench.Metric, float]]:
    return bench.measure_loaded(file)


def _sizes(folders: list[Path]) -> Iterator[tuple[str, str, str, str, str]]:
    for folder in folders:
        model: Recognizer = load(folder)
        architecture = Architecture.from_dict(model.provenance["train"]["architecture"])
        work = multiplications(architecture, model.features, len(model.labels))
        accuracy = json.loads(ModelFolder(folder).metrics.read_text("utf-8"))["accuracy"]
        amounts = {
            "Parameters": f"{model.provenance['parameters']:,}",
            "Multiplications a second, live, millions": f"{work:.1f}",
            "Single clips of the validation speakers right": f"{accuracy:.1%}",
            "Size of model.onnx, MB": f"{ModelFolder(folder).onnx.stat().st_size / 1e6:.2f}",
        }
        if model.causality is not None:
            numbers = sum(array.size for array in model.begin().arrays.values())
            amounts["State of a stream, bytes"] = f"{4 * numbers:,}"
        for small in folder.glob("*-int8.tflite"):
            graph = litert_graph(small)
            amounts["Graph of model-int8.tflite, bytes"] = f"{len(graph):,}"
            amounts["Memory of a step of it, inputs and states included, bytes"] = (
                f"{working_memory(graph):,}"
            )
        for name, amount in amounts.items():
            yield name, folder.name, amount, "", ""


def litert_graph(path: Path) -> bytes:
    """A LiteRT file without the description behind it, which a microcontroller leaves out."""
    with zipfile.ZipFile(path) as archive:
        return path.read_bytes()[: archive.infolist()[0].header_offset]


def working_memory(graph: bytes) -> int:
    """The most bytes of tensors that are needed at a time, as if placed without a gap."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(graph))
    (subgraph,) = model.subgraphs
    first = dict.fromkeys(subgraph.inputs, 0)
    last = dict(first)
    for number, operator in enumerate(subgraph.operators):
        for tensor in operator.inputs:
            if tensor in first:  # the others are constants
                last[tensor] = number
        for tensor in operator.outputs:
            first[tensor] = last[tensor] = number
    last |= dict.fromkeys(subgraph.outputs, len(subgraph.operators))
    most = 0
    for number in range(len(subgraph.operators)):
        live = [subgraph.tensors[i] for i in first if first[i] <= number <= last[i]]
        most = max(most, sum(math.prod(map(int, t.shape)) * BYTES.get(t.type, 4) for t in live))
    return most


def found(folders: list[Path]) -> str:
    """The table of hits and false accepts, from the streams of `speech score`."""
    rows = []
    for folder in folders:
        content: dict[str, Any] = json.loads(ModelFolder(folder).stream_metrics.read_text("utf-8"))
        for condition in ("clean", "10 dB"):
            kinds = content["evaluation"][condition]
            words, speech = kinds["commands"], kinds["speech"]
            low, high = (speech[f"false_accepts_per_hour_{end}"] for end in ("low", "high"))
            rows.append(
                (
                    folder.name,
                    condition,
                    f"{words['hit_rate']:.1%}",
                    f"{speech['false_accepts_per_hour']:.1f}",
                    interval(low, high, ".1f"),
                    f"{1000 * words['latency_median']:.0f} ms",
                )
            )
    head = ("model", "condition", "commands found", "false accepts per hour", "95 % interval")
    return table((*head, "median latency"), rows, align="llrrrr")


def equal(folders: list[Path]) -> str:
    """The table of hits at equal rates of false accepts, all thresholds moved together."""
    rows = []
    for folder in folders:
        content: dict[str, Any] = json.loads(ModelFolder(folder).stream_metrics.read_text("utf-8"))
        for condition in ("clean", "10 dB"):
            curve = content["evaluation"][condition]["det"]  # threshold, misses, false accepts
            best = [max(1 - m for _, m, rate in curve if rate <= limit) for limit in RATES]
            rows.append((folder.name, condition, *(f"{hits:.1%}" for hits in best)))
    head = ("model", "condition", *(f"at most {rate} an hour" for rate in RATES))
    return table(head, rows, align="ll" + "r" * len(RATES))


def tried() -> str:
    """The table of the short trainings: seeds and the mean of how many steps are right."""
    runs: dict[str, Any] = json.loads(TRIED.read_text("utf-8"))
    rows = []
    for meaning, start in SHORT.items():
        right = [run["val_accuracy"] for name, run in runs.items() if name.startswith(start)]
        loss = [run["val_loss"] for name, run in runs.items() if name.startswith(start)]
        mean, mean_loss = (sum(values) / len(values) for values in (right, loss))
        each = ", ".join(f"{value:.1%}" for value in right)
        rows.append((meaning, f"{mean:.1%}", each, f"{mean_loss:.3f}"))
    head = ("change", "steps right, mean", "each seed", "cross-entropy, mean")
    return table(head, rows, align="lrrr")


def main() -> None:
    """Measure, and write the tables into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="0 leaves the costs as they are")
    arguments = parser.parse_args()
    folders = [find_model(path) for path in arguments.models]
    text = PAGE.read_text("utf-8")
    tables = {"found": found(folders), "equal": equal(folders), "tried": tried()}
    if arguments.rounds:
        tables["costs"] = costs(folders, arguments.rounds)
    for name, made in tables.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = f"{before}{start}{made}\n{end}{after}"
    write_text(PAGE, text)
    print(command_line())


if __name__ == "__main__":
    main()
