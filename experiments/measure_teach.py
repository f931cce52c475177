"""Measures `speech teach` on words that had no part in it, and writes docs/teach.md's tables.

    python experiments/measure_teach.py RECORDINGS --out docs/teach.md

The words are the twelve Mandarin ones of isolated_words (34 speakers, two takes each, so that their
takes are of as many speakers), ten phrases of two of these, and the digits six to nine of
spoken_digits (six speakers, one of whom teaches). Each figure is the mean over several draws of the
takes. Vectors are computed once; a taught model's answers are then its head's.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, fit_length, load_audio, resample
from speech.evaluation.markdown import table
from speech.recognizer import Recognizer
from speech.recognizer import load as load_model
from speech.teach import judging, teaching, thresholds
from speech.teach.encoder import STEP, Encoder, side_by_side
from speech.teach.head import fit
from speech.teach.takes import RATE, extent

N_TAKES = (3, 5, 10, 20)
DRAWS = 3
OTHERS = ("jarvis", "snowboy")
DIGITS = ("six", "seven", "eight", "nine")
ACCEPTED = 0.01
TESTED = 15  # takes of a speaker and digit
PHRASES = ((0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (0, 5), (6, 7), (6, 8), (9, 10), (11, 10))
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


@dataclasses.dataclass(frozen=True)
class Take:
    """A recording of a word by somebody."""

    word: str
    speaker: str
    waveform: Waveform = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one model does: shares in [0, 1], and false accepts per hour."""

    right: float
    accepted: float
    false_accepts: float
    detected: float


def takes_of(folder: Path, words: list[str]) -> list[Take]:
    """The recordings of some words, by name."""
    return [
        Take(word, path.name.split("_nohash_")[0], load_audio(path, RATE))
        for word in words
        for path in sorted((folder / word).iterdir())
    ]


def phrases(takes: list[Take]) -> list[Take]:
    """Two words of one speaker behind each other, a quarter faster, some in both orders."""
    by_both: dict[tuple[str, str], list[Waveform]] = {}
    for take in takes:
        start, end = extent(take.waveform) or (0, len(take.waveform))
        by_both.setdefault((take.word, take.speaker), []).append(take.waveform[start:end])
    words, speakers = sorted({t.word for t in takes}), sorted({t.speaker for t in takes})
    pause = np.zeros(RATE // 4, np.float32)
    joined = []
    for first, second in PHRASES:
        for speaker in speakers:
            both = [by_both.get((words[i], speaker), []) for i in (first, second)]
            for one, other in zip(*both, strict=False):
                slow = np.concatenate([pause, one, other, pause])
                fast = resample(slow, RATE * 5 // 4, RATE)
                joined.append(Take(f"{words[first]} {words[second]}", speaker, fast))
    return joined


class Bench:
    """The encoder, and the vectors that were computed already."""

    def __init__(self, shared: Path, cache: Path | None) -> None:
        self.encoder = Encoder.of_model("commands-8")
        self.plain: Recognizer = load_model("commands-8")
        self.streams = [
            np.concatenate([load_audio(p, RATE) for p in paths[first : first + 20]])
            for name in OTHERS
            for paths in [sorted((shared / "negative_speech" / name).glob("*.ogg"))]
            for first in range(0, len(paths), 20)
        ]
        self.hours = sum(map(len, self.streams)) / RATE / 3600
        self._cache = cache
        self._clips: dict[tuple[int, tuple[int, ...]], npt.NDArray[np.float32]] = {}

    @functools.cached_property
    def seconds(self) -> list[npt.NDArray[np.float32]]:
        """The vectors of other speech, one a tenth of a second."""
        if self._cache and self._cache.exists():
            with np.load(self._cache) as kept:
                return [kept[name] for name in kept.files]
        vectors = [_windows(self.encoder.recognizer.embed, s) for s in self.streams]
        if self._cache:
            np.savez(self._cache, *vectors)
        return vectors

    @functools.cached_property
    def plain_seconds(self) -> list[npt.NDArray[np.float32]]:
        """The same as the classifier reads it."""
        return [_windows(self.plain.embed, s, 5) for s in self.streams]

    def vectors(self, takes: list[Take], offsets: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Of clips of these takes, as a recognizer cuts them."""
        n = self.encoder.n_samples(offsets)
        for take in takes:
            if (id(take), offsets) not in self._clips:
                clip = fit_length(take.waveform, n)[np.newaxis]
                self._clips[id(take), offsets] = self.encoder.embed(clip, offsets)[0]
        return np.stack([self._clips[id(take), offsets] for take in takes])

    def taught(self, train: list[Take], test: list[Take]) -> Figures:
        """What the head of a taught model says; the model itself gives the same."""
        return self.taught_once(train, [test])[0]

    def taught_once(self, train: list[Take], tests: list[list[Take]]) -> list[Figures]:
        """The same of several sets of takes."""
        words = sorted({take.word for take in train})
        takes = {w: [(0, t.waveform) for t in train if t.word == w] for w in words}
        material = teaching.material_of(takes, self.encoder)
        offsets = material.offsets
        names = thresholds.Words(len(words), tuple(words), self.encoder.metadata.features)
        config = teaching.decoder_of(self.encoder, ())
        fitted = judging.fit_and_choose(material, names, config, teaching.RATE_PER_HOUR)
        streams = [
            judging.probabilities(fitted.weights, side_by_side(s, offsets))[:, : len(words)]
            for s in self.seconds
        ]
        count = sum(thresholds.count(streams, fitted.thresholds, config, names))
        each = np.array(fitted.thresholds)
        figures = []
        for test in tests:
            rows = judging.probabilities(fitted.weights, self.vectors(test, offsets))
            rows = rows[:, : len(words)]
            truth = np.array([words.index(take.word) for take in test])
            own = rows[np.arange(len(rows)), truth]
            is_detected = (own >= each[truth]) & (rows.argmax(axis=1) == truth)
            figures.append(
                Figures(
                    *_shares(rows, np.concatenate(streams), truth),
                    false_accepts=count / self.hours,
                    detected=float(np.mean(is_detected)),
                )
            )
        return figures

    def frozen(self, train: list[Take], test: list[Take]) -> Figures:
        """The same with what the classifier reads, of the takes alone, as it was done before."""
        words = sorted({take.word for take in train})
        seconds = np.concatenate(self.plain_seconds)
        mean, deviation = seconds.mean(axis=0), seconds.std(axis=0)

        def read(takes: list[Take]) -> npt.NDArray[np.float32]:
            clips = np.stack([fit_length(take.waveform, RATE) for take in takes])
            rows: npt.NDArray[np.float32] = (self.plain.embed(clips) - mean) / deviation
            return rows

        truth = np.array([words.index(take.word) for take in train])
        weights = fit(read(train), truth, np.ones(len(train), np.float32), len(words))
        rows = judging.probabilities(weights, read(test))
        others = judging.probabilities(weights, ((seconds - mean) / deviation).astype(np.float32))
        truth = np.array([words.index(take.word) for take in test])
        return Figures(*_shares(rows, others, truth), float("nan"), float("nan"))


def _windows(
    embed: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    stream: Waveform,
    n: int = 1,
) -> npt.NDArray[np.float32]:
    every = np.lib.stride_tricks.sliding_window_view(stream, RATE)[:: n * STEP]
    return embed(np.ascontiguousarray(every))


def _shares(
    rows: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
    truth: npt.NDArray[np.int64],
) -> tuple[float, float]:
    """Takes called by their word; and those accepted where 1 % of other windows are."""
    threshold = np.quantile(others.max(axis=1), 1 - ACCEPTED)
    return (
        float(np.mean(rows.argmax(axis=1) == truth)),
        float(np.mean(rows.max(axis=1) > threshold)),
    )


def draws(
    takes: list[Take], n: int, who: str, n_draws: int
) -> Iterator[tuple[list[Take], list[Take]]]:
    """Takes to teach and takes to test, several times.

    ``who`` is ``many`` (each take of another speaker, tested on the rest), ``same`` or ``others``
    (one speaker teaches, tested on the same one's other takes or on the other speakers').
    """
    words = sorted({take.word for take in takes})
    speakers = sorted({take.speaker for take in takes})
    for draw in range(n_draws):
        rng = np.random.default_rng([draw, 5])
        order = [str(s) for s in rng.permutation(speakers)]
        teachers = set(order[: max(n, 3)] if who == "many" else order[:1])
        if who == "many":
            teachers = set(order[: min(n, len(order) - 8)])
        train: list[Take] = []
        for word in words:
            of_word = [t for t in takes if t.word == word and t.speaker in teachers]
            if who == "many":  # first one take of each speaker
                seen: dict[str, int] = {}
                ranked: list[tuple[int, int, Take]] = []
                for i in rng.permutation(len(of_word)):
                    take = of_word[int(i)]
                    seen[take.speaker] = seen.get(take.speaker, 0) + 1
                    ranked.append((seen[take.speaker], len(ranked), take))
                train += [take for _, _, take in sorted(ranked, key=lambda r: r[:2])[:n]]
            else:
                train += [of_word[int(i)] for i in rng.permutation(len(of_word))[:n]]
        ids = {id(take) for take in train}
        same = who == "same"
        rest = [t for t in takes if id(t) not in ids and (t.speaker in teachers) == same]
        chosen: list[Take] = []
        for speaker in speakers:
            for word in words:
                of_both = [t for t in rest if t.speaker == speaker and t.word == word]
                chosen += of_both[:TESTED]
        yield train, chosen


def main() -> None:
    """Measure, and put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cache", type=Path, help="Keeps the vectors of other speech (.npz).")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--takes", type=int, nargs="*", default=list(N_TAKES))
    options = parser.parse_args()
    bench = Bench(options.shared, options.cache)
    mandarin = sorted(p.name for p in (options.shared / "isolated_words").glob("zh_*"))
    sets = {
        "12 Mandarin words, each take of another speaker": (
            takes_of(options.shared / "isolated_words", mandarin), "many"),
    }  # fmt: skip
    chinese, _ = next(iter(sets.values()))
    sets["10 phrases of two of them, each take of another speaker"] = (phrases(chinese), "many")
    digits = takes_of(options.shared / "spoken_digits", list(DIGITS))
    sets["4 digits of one speaker, tested on the same"] = (digits, "same")
    sets["4 digits of one speaker, tested on others"] = (digits, "others")
    rows: list[tuple[str, ...]] = []
    for name, (takes, who) in sets.items():
        for n in options.takes:
            for way, measure in (("frozen", bench.frozen), ("taught", bench.taught)):
                figures = [measure(*draw) for draw in draws(takes, n, who, options.draws)]
                mean = [
                    float(np.mean([dataclasses.astuple(f)[i] for f in figures])) for i in range(4)
                ]
                row = (
                    name, n, way, f"{mean[0]:.1%}", f"{mean[1]:.1%}",
                    *(("", "") if way == "frozen" else (f"{mean[3]:.1%}", f"{mean[2]:.1f}")),
                )  # fmt: skip
                rows.append(row)
                print(json.dumps(row), flush=True)
                write(rows, options.out)


def write(rows: list[tuple[str, ...]], page: Path | None) -> None:
    """Put the table between the marks of the page."""
    header = (
        "words", "takes", "how", "called by their word", "accepted at 1 % of other windows",
        "called and over the threshold", "false accepts per hour",
    )  # fmt: skip
    if page is not None:
        text = page.read_text("utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        tables = table(header, rows, "lrlrrrr")
        page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
