"""What it costs to look inside the bundled model, on one core.

python benchmarks/inside.py [--rounds 30]

Wants the extra ``train``, for threadpoolctl.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_limits

from speech.inside.attribution import attribute
from speech.inside.explanation import explain, open_model, read_clip
from speech.inside.packing import pack
from speech.inside.trace import log_mel, trace

CLIP = Path(__file__).parents[1] / "speech" / "web" / "static" / "examples" / "left.wav"


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """The median of so many rounds, after one that does not count."""
    call()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def main() -> None:
    """Print a line for each part of the work."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with threadpool_limits(1):
        model = open_model()
        clip = read_clip(CLIP, model, on_note=lambda _: None)
        whole = explain(model, clip)
        live = explain(model, clip, unfolded=False)
        calls: dict[str, Callable[[], object]] = {
            "the front end": lambda: log_mel(model.front, model.config.features, clip),
            "the trace: every gate, cell and state": lambda: trace(model.network, whole.mfcc),
            "both (live)": lambda: explain(model, clip, unfolded=False),
            "both, and the answer after each step": lambda: explain(model, clip),
            f"packing in 8 bits, {len(pack(live, 8)) / 1000:.0f} kB": lambda: pack(live, 8),
            f"packing in 16 bits, {len(pack(whole)) / 1000:.0f} kB": lambda: pack(whole),
            "attributions": lambda: attribute(model, whole.log_mel),
        }
        for name, call in calls.items():
            print(f"{milliseconds(call, rounds):7.2f} ms  {name}")


if __name__ == "__main__":
    main()
