"""Does the network wait for its data, and how many threads should it have?

What two cores share, their cache, their memory and perhaps their arithmetic, slows the network as
soon as the other one works at all. So it is also measured beside another process that makes such
batches as fast as it can: if that slows it as much, it is not the thread that is to blame. Each row
is a process of its own, since TensorFlow reads its thread counts once.

Usage: python docs/experiments/training_speed.py CORPUS
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speech.batches import ClipSource

STEPS, RUNS = 20, 3


def batches_of(root: Path) -> "ClipSource":
    """What the recipe trains on."""
    from speech.batches import ClipSource
    from speech.corpus import LabelSet, decode, scan
    from speech.train_config import TrainConfig

    config = TrainConfig()
    recordings = decode(scan(root), config.features)
    return ClipSource(recordings, LabelSet.parse("commands-8"), config)


def make_data(root: Path) -> None:
    """Make batches for ever, and say when the first is there."""
    source, epoch = batches_of(root), 0
    while True:
        for _ in source.batches(epoch):
            print(flush=True)
        epoch += 1


def measure(root: Path) -> None:
    """Print one row: clips/s of the network alone and beside others, of the data, and of both."""
    from speech.benchmark import training_rates
    from speech.model import CommandModel
    from speech.training import compile_model

    source = batches_of(root)
    config = source.config
    model = CommandModel(source.labels.labels, config.features, config.architecture)
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
        command = [sys.executable, __file__, str(root), "data"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as neighbour:
            assert neighbour.stdout is not None
            neighbour.stdout.readline()
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
        "| Threads of the network | Network alone | Data alone | Both | Network beside a process "
        "that makes data | Waiting, at most |"
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
    work = {"row": measure, "data": make_data}.get("".join(sys.argv[2:]), main)
    work(Path(sys.argv[1]))
