"""What Ray costs and gives: scans of an hour of sound, and the memory of listing many names.

python benchmarks/cluster.py [--minutes 60] [--rounds 3] [--out docs/cluster.md]

In each round, in this order: `speech scan` in one process; a scan by Ray with one worker, all of
Ray's processes kept to one core; one with one worker, where Ray itself may use another core; the
same on a cluster that runs already; and one with two workers. A worker is a core that Ray may give
away. Wants the extra ``cluster`` and two cores.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import soundfile

from speech.environment import command_line
from speech.evaluation.benchmark import synthetic_audio
from speech.evaluation.markdown import table
from speech.files import write_text

RATE, FILES, NAMES, PORT = 16_000, 12, 100_000, 6399
HOURS, NODES, CORES, PRICE = 50_000, 100, 4, 0.17  # dollars an hour for a machine of four cores
BYTES_PER_SECOND = 8_000  # FLAC of speech at 16 kHz, half of its PCM
# of each kind of scan by Ray: its name, the address, workers, and cores for all processes
KINDS = {
    "core": ("Ray, one worker, all on one core", "local", 1, 1),
    "one": ("Ray, one worker", "local", 1, 2),
    "joined": ("Ray that runs already, one worker", "auto", 1, 2),
    "two": ("Ray, two workers", "local", 2, 2),
}
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_SCAN = """
import sys
from pathlib import Path
from speech.cluster.scan import Job, scan
from speech.installation import find_model
address, cores = sys.argv[3:]
job = Job((sys.argv[1],), find_model("commands-8"), sys.argv[2])
local = {"num_cpus": int(cores)} if address == "local" else {}
print(scan(job, address, **local).seconds)
"""
_PLAIN = """
import sys, time
from pathlib import Path
from speech.data.folders import find_audio
from speech.live.scan import scan_file
from speech.live.session import decoder_for
from speech.recognizer import load
recognizer = load("commands-8")
config = decoder_for(recognizer).config
start = time.perf_counter()
for path in find_audio([Path(sys.argv[1])]):
    scan_file(recognizer, path, config)
print(time.perf_counter() - start)
"""
_LIST = """
import resource, sys
from speech.cluster.sources import find
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(1 for found in find([sys.argv[1]]) if not isinstance(found, str)), before,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(program: str, *arguments: str, cores: int = 2) -> list[float]:
    """The numbers that a program prints last, on so many cores."""
    command = ["taskset", "-c", ",".join(map(str, range(cores))), sys.executable, "-c", program]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def write_recordings(folder: Path, minutes: float) -> None:
    """So much sound in files of equal length."""
    sound = synthetic_audio(60 * minutes / FILES, RATE)
    for number in range(FILES):
        soundfile.write(folder / f"{number:02d}.flac", sound, RATE)


def measure(minutes: float, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind of scan, a value a round."""
    taken: dict[str, list[float]] = {"plain": [], **{kind: [] for kind in KINDS}}
    with tempfile.TemporaryDirectory() as name, running_cluster():
        folder = Path(name)
        sounds = folder / "sounds"
        sounds.mkdir()
        write_recordings(sounds, minutes)
        for number in range(rounds):
            taken["plain"] += run(_PLAIN, str(sounds), cores=1)
            for kind, (_, address, workers, cores) in KINDS.items():
                out = str(folder / f"{kind}{number}")
                taken[kind] += run(_SCAN, str(sounds), out, address, str(workers), cores=cores)
    return taken


@contextlib.contextmanager
def running_cluster() -> Iterator[None]:
    """A cluster of one worker, as somebody has it who scans more than once."""
    program = Path(sys.executable).with_name("ray")
    options = ["--head", "--block", f"--port={PORT}", "--num-cpus=1", "--include-dashboard=false"]
    with subprocess.Popen(
        [program, "start", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as head:
        try:
            wait_for_port()
            yield
        finally:
            os.killpg(head.pid, signal.SIGTERM)


def wait_for_port() -> None:
    """Until the cluster listens, a minute at most."""
    for _ in range(120):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.5)
    raise SystemExit(f"expected a cluster of Ray on port {PORT}, got none in a minute")


def listing() -> tuple[int, float]:
    """How many names were listed, and by how many MB the process grew."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(NAMES):
            (folder / f"{number:06d}.wav").touch()
        count, before, after = run(_LIST, name)
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return int(count), (after - before) / scale


def report(minutes: float, taken: dict[str, list[float]], grown: tuple[int, float]) -> str:
    """The tables of the page."""
    median = {kind: statistics.median(values) for kind, values in taken.items()}
    speed = {kind: 60 * minutes / seconds for kind, seconds in median.items()}
    core, one, joined = (
        _range([ray / plain - 1 for ray, plain in zip(taken[kind], taken["plain"], strict=True)])
        for kind in ("core", "one", "joined")
    )
    efficiencies = [core / 2 / two for core, two in zip(taken["core"], taken["two"], strict=True)]
    names = {"plain": "`speech scan`"} | {kind: name for kind, (name, *_) in KINDS.items()}
    rows = [
        (
            names[kind],
            f"{median[kind]:.1f} s",
            f"{min(v):.1f} to {max(v):.1f} s",
            f"{speed[kind]:.0f}",
        )
        for kind, v in taken.items()
    ]
    per_core = speed["two"] / 2
    seconds = HOURS * 3600 / (per_core * NODES * CORES)
    command = command_line().replace(" ", " benchmarks/", 1)
    return "\n\n".join(
        (
            f"`{command}`, load {os.getloadavg()[0]:.1f} at the end:",
            table((f"{minutes:g} minutes of sound", "median", "spread", "times real time"), rows),
            f"Overhead of Ray with one worker: {one}; of a cluster that runs already {joined}, "
            f"wanted are at most 15%; of all of Ray on the core of the worker {core}. "
            f"Efficiency of two cores against twice one: {_range(efficiencies)}; wanted is at "
            f"least 85%. Listing {grown[0]:,} files took {grown[1]:.0f} MB more memory.",
            f"On paper, for {HOURS:,} hours on {NODES} machines of {CORES} cores, at "
            f"{per_core:.0f} times real time a core: {seconds / 3600:.1f} hours and "
            f"{NODES * seconds / 3600 * PRICE:.0f} dollars, at {PRICE:.2f} an hour for a machine; "
            f"{HOURS * 3600 * BYTES_PER_SECOND / 1e12:.1f} TB of FLAC are read, "
            f"{HOURS * 3600 * BYTES_PER_SECOND / seconds / 1e6:.0f} MB a second.",
        )
    )


def _range(shares: list[float]) -> str:
    return f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = report(options.minutes, measure(options.minutes, options.rounds), listing())
    print(text)
    if options.out:
        page = options.out.read_text("utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        write_text(options.out, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
