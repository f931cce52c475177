"""Does the network wait for its data, and how many threads should it have?

What two cores share, their cache, their memory and perhaps their arithmetic, slows the network as
soon as the other one works at all. So it is also measured beside a process that has nothing to do
with it: no way of making the data on the other core can be faster than that. Each row is a process
of its own, since TensorFlow reads its thread counts once.

Usage: python docs/experiments/training_speed.py CORPUS
"""

import os
import subprocess
import sys
import time
from pathlib import Path

STEPS, RUNS = 20, 5
# as the data do, and nothing of theirs: transforms of a hundred clips
NEIGHBOUR = """
import numpy
clips = numpy.random.default_rng(0).standard_normal((100, 16_000), numpy.float32)
while True:
    numpy.fft.irfft(numpy.fft.rfft(clips))
"""


def measure(root: Path) -> None:
    """Print one row: clips/s of the network alone and beside others, of the data, and of both."""
    from speech.batches import ClipSource
    from speech.benchmark import training_rates
    from speech.corpus import LabelSet, decode, scan
    from speech.model import CommandModel
    from speech.train_config import TrainConfig
    from speech.training import compile_model

    config = TrainConfig()
    labels = LabelSet.parse("commands-8")
    source = ClipSource(decode(scan(root), config.features), labels, config)
    model = CommandModel(labels.labels, config.features, config.architecture)
    compile_model(model, config, source.steps())
    batches = [batch for _, batch in zip(range(3), source.batches(0), strict=False)]
    for batch in batches:
        model.train_on_batch(*batch)
    rates: dict[str, list[float]] = {
        name: [] for name in ("network", "data", "both", "beside", "waiting")
    }
    for _ in range(RUNS):
        speeds, waiting = training_rates(model, source, batches[0], STEPS)
        for name, speed in zip(("network", "data", "both"), speeds, strict=True):
            rates[name].append(speed)
        rates["waiting"].append(waiting)
        with subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) as neighbour:
            time.sleep(1)
            began = time.perf_counter()
            for _ in range(STEPS):
                model.train_on_batch(*batches[0])
            seconds = time.perf_counter() - began
            neighbour.kill()
        rates["beside"].append(STEPS * config.batch_size / seconds)
    cells = [f"{min(r):.0f} to {max(r):.0f}" for n, r in rates.items() if n != "waiting"]
    longest = f"{max(rates['waiting']):.1%}"
    print(f"| {os.environ['TF_NUM_INTRAOP_THREADS']} |", " | ".join(cells), f"| {longest} |")


def main(root: Path) -> None:
    """Print the Markdown table."""
    print(
        "| Threads of the network | Network alone | Data alone | Both | Network beside another "
        "process | Waiting, at most |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for threads in ("1", "2"):
        environment = os.environ | {
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, __file__, str(root), "row"]
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    measure(Path(sys.argv[1])) if sys.argv[2:] == ["row"] else main(Path(sys.argv[1]))
