"""Measures what synthetic takes teach and what real ones add, and writes a table of docs/teach.md.

    python experiments/measure_synthetic.py ../shared kokoro --out docs/teach.md

The words are the digits six to nine of spoken_digits. They are taught by synthetic takes, by real
takes of one speaker, or by both, and tested on the same speaker's other takes and on those of the
five other speakers. Each figure is the mean of several speakers who teach. The folder of Kokoro's
files is made as docs/teach.md says. Takes half an hour on two cores.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from measure_teach import DIGITS, Bench, Take, draws, takes_of

from speech.evaluation.markdown import table
from speech.teach.synthesis import Engine, Espeak, Kokoro, synthesize

SYNTHETIC, REAL, DRAWS = 20, (0, 3, 8), 2
BEGIN, END = "<!-- synthetic: begin -->", "<!-- synthetic: end -->"
HEADER = (
    "synthetic takes of a word", "real takes of a word", "detected of the same speaker",
    "detected of other speakers", "false accepts per hour",
)  # fmt: skip


def spoken(engine: Engine) -> list[Take]:
    """Synthetic takes of the words."""
    return [
        Take(word, engine.name, take)
        for word in DIGITS
        for take in synthesize(word, SYNTHETIC, engine)
    ]


def main() -> None:
    """Measure, and put the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("kokoro", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bench = Bench(options.shared, None)
    digits = takes_of(options.shared / "spoken_digits", list(DIGITS))
    voices: dict[str, list[Take]] = {"none": []}
    for engine in (Espeak(), Kokoro(options.kokoro)):
        voices[f"{SYNTHETIC} by {engine.name}"] = spoken(engine)
    rows = []
    for name, synthetic in voices.items():
        for n in REAL:
            if not synthetic and not n:
                continue
            figures = []
            same, others = (list(draws(digits, max(n, 1), w, DRAWS)) for w in ("same", "others"))
            for (train, own), (_, foreign) in zip(same, others, strict=True):
                two = bench.taught_once(synthetic + (train if n else []), [own, foreign])
                figures.append([two[0].detected, two[1].detected, two[0].false_accepts])
            mean = np.mean(figures, axis=0)
            rows.append((name, n, f"{mean[0]:.1%}", f"{mean[1]:.1%}", f"{mean[2]:.1f}"))
            print(json.dumps(rows[-1]), flush=True)
    text = table(HEADER, rows, "lrrrr")
    if options.out:
        page = options.out.read_text("utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        options.out.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
