"""Does the Live tab detect in a browser what `speech scan` finds in the same recording?

python experiments/live_against_scan.py CORPUS [--words 50] [--rounds 3] [--seed 1] [--table]

Words of validation speakers, a pause after each, become one recording. `scan` reads it from the
file; then it goes, once a round, into the microphone of a Chromium that has the page open. What the
page sends is kept, so that a difference can be told apart:

- page against sent: the same samples, decoded at once; how they came (pieces, requests, threads)
  is all that differs;
- sent against file: the file again, begun where the browser began and with the pauses that it made
  (it puts silence where it was kept waiting); how it resampled is all that differs;
- file against scan: the same sound, in which the steps of the decoder lie elsewhere.

Wants the extras app and dev, and Chromium.
"""

import argparse
import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.signal
import soundfile
import soxr
from app_latency import READ, SPY, open_when_there
from make_screenshot import MICROPHONE_RATE, MODEL, served, speaking_browser

import speech
from speech.audio import load_audio
from speech.detection import Detection
from speech.labels import commands
from speech.live.scan import scan_file
from speech.live.session import decoder_for
from speech.recognizer import Recognizer

RATE = 16_000
LEAD = 2.0  # seconds before the first word: a browser takes a while to listen
SLOT = 2.2  # seconds from word to word
NOISE_RMS = 0.0003  # digital silence between the words would be unlike any room
PHASES = 16
PAUSE = 0.005  # seconds of samples that are exactly 0
HISTORY = """document.querySelector("speech-live").history.toReversed().map(
    ({ label, probability, time, start }) => ({ label, probability, time, start }))"""

Samples = npt.NDArray[np.float64]


class Found(NamedTuple):
    """What a path detected of the recording, by word said, and besides."""

    words: tuple[tuple[str, float] | None, ...]
    extra: int


def main() -> None:
    """Make the recording, give it to both, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder with a validation_list.txt")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of a model")
    parser.add_argument("--words", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="also every word")
    options = parser.parse_args()
    model = speech.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words.wav"
        said = record(options.corpus, model, options.words, options.seed, path)
        samples, _ = soundfile.read(path)
        scanned = by_word(scan_file(model, path).detections, 0.0, len(said))
        print(f"{len(said)} words, {len(samples) / MICROPHONE_RATE:.0f} s")
        print(
            f"scan: {right(scanned, said)} right, {others(scanned, said)} as another word, "
            f"{scanned.extra} besides"
        )
        phases(model, samples, scanned, said)
        for number in range(options.rounds):
            paths = one_round(options.model, model, path, samples, len(said))
            paths["scan"] = scanned
            print(f"round {number + 1}, page: {right(paths['page'], said)} right")
            for a, b in (("page", "sent"), ("sent", "file"), ("file", "scan"), ("page", "scan")):
                compare(f"{a} against {b}", paths[a], paths[b], said)
            if options.table:
                table(paths, said)


def record(corpus: Path, model: Recognizer, n: int, seed: int, path: Path) -> list[str]:
    """Write clips of validation speakers, as many of each command; returns their words."""
    words = commands(model.labels)
    names = sorted((corpus / "validation_list.txt").read_text("utf-8").split())
    rng = np.random.default_rng(seed)
    said = [words[i % len(words)] for i in range(n)]
    rng.shuffle(said)
    whole = rng.normal(0, NOISE_RMS, round((LEAD + n * SLOT + 1) * RATE))
    left = {w: rng.permutation([x for x in names if x.startswith(f"{w}/")]).tolist() for w in said}
    for index, word in enumerate(said):
        clip = load_audio(corpus / left[word].pop(), RATE)
        begin = round((LEAD + index * SLOT) * RATE)
        whole[begin : begin + len(clip)] += clip
    soundfile.write(path, soxr.resample(whole, RATE, MICROPHONE_RATE), MICROPHONE_RATE, "PCM_16")
    return said


def one_round(
    folder: Path, model: Recognizer, path: Path, samples: Samples, words: int
) -> dict[str, Found]:
    """Play the recording into the page's microphone."""
    seconds = len(samples) / MICROPHONE_RATE
    with served(folder) as address, speaking_browser(path, once=True) as browser:
        tab = browser.new_page()
        tab.set_default_timeout(600_000)
        tab.add_init_script(SPY)
        open_when_there(tab, address)
        tab.locator("speech-live").evaluate("live => { live.dataset.patience = 600; }")
        tab.get_by_role("button", name="Start", exact=True).click()
        tab.wait_for_function(f"document.querySelector('speech-live').answered > {seconds}")
        tab.get_by_role("button", name="Stop", exact=True).click()
        tab.locator(".live-status", has_text="Stopped").wait_for()
        page = [Detection(**row) for row in tab.evaluate(HISTORY)]
        found = tab.evaluate(READ)
    sent = np.frombuffer(base64.b64decode(found["pcm"]), "<i2") / 32768
    rate = round(found["rate"])  # of the browser's choice
    silent = pauses(sent, rate)
    ahead = begun(sent, rate, silent, samples)
    offset = ahead / MICROPHONE_RATE
    print(
        f"sent at {rate} Hz from {offset:.3f} s of the recording on; the browser made "
        f"{len(silent)} pauses, {1e3 * sum(n for _, n in silent) / rate:.0f} ms in all; the page "
        f"dropped {1e3 * found['dropped']:.0f} ms"
    )
    file = samples[ahead:] if ahead >= 0 else np.pad(samples, (-ahead, 0))
    for begin, n in silent:
        at, size = (round(x / rate * MICROPHONE_RATE) for x in (begin, n))
        file = np.insert(file, at, np.zeros(size))
    return {
        "page": by_word(page, offset, words),
        "sent": by_word(decode(model, sent, rate), offset, words),
        "file": by_word(decode(model, file), offset, words),
    }


def decode(model: Recognizer, samples: Samples, rate: int = MICROPHONE_RATE) -> list[Detection]:
    """What the live decoder finds in samples."""
    decoder = decoder_for(model)
    found = decoder.push(samples.astype(np.float32), rate)
    return found + decoder.flush()


def pauses(sent: Samples, rate: int) -> list[tuple[int, int]]:
    """Begin and length of the digital silences in what was sent; the recording has none."""
    silent = np.diff(np.concatenate([[0], sent == 0, [0]]).astype(int))
    begins, ends = np.flatnonzero(silent == 1), np.flatnonzero(silent == -1)
    last = len(sent) - rate // 2  # from there on the recording may be over
    return [
        (int(begin), int(end - begin))
        for begin, end in zip(begins, ends, strict=True)
        if end - begin > PAUSE * rate and 0 < begin < last
    ]


def begun(sent: Samples, rate: int, silent: Sequence[tuple[int, int]], samples: Samples) -> int:
    """Samples of the recording before the first one sent."""
    gone = [np.arange(begin, begin + n) for begin, n in silent]
    rest = np.delete(sent, np.concatenate(gone)) if gone else sent
    rest = soxr.resample(rest, rate, MICROPHONE_RATE)
    products = scipy.signal.correlate(samples, rest, mode="full", method="fft")
    return int(products.argmax()) - (len(rest) - 1)


def by_word(found: Sequence[Detection], offset: float, n: int) -> Found:
    """The first detection of each word said; ``offset`` is the recording's time at their zero."""
    words: list[tuple[str, float] | None] = [None] * n
    extra = 0
    for detection in found:
        # decided between 0.4 s after a word began and as long after the clip's end
        index = int((detection.time + offset - LEAD - 0.4) // SLOT)
        if 0 <= index < n and words[index] is None:
            words[index] = detection.label, detection.probability
        else:
            extra += 1
    return Found(tuple(words), extra)


def right(found: Found, said: Sequence[str]) -> int:
    """How many words were detected as what they are."""
    return sum(x is not None and x[0] == word for x, word in zip(found.words, said, strict=True))


def others(found: Found, said: Sequence[str]) -> int:
    """How many were detected as another word."""
    return sum(x is not None and x[0] != word for x, word in zip(found.words, said, strict=True))


def differing(a: Found, b: Found) -> list[int]:
    """Which words were not detected alike."""
    labels = [[word and word[0] for word in path.words] for path in (a, b)]
    return [i for i, (x, y) in enumerate(zip(*labels, strict=True)) if x != y]


def phases(model: Recognizer, samples: Samples, scanned: Found, said: Sequence[str]) -> None:
    """How much depends on where the steps begin, by the file alone."""
    step = round(decoder_for(model).config.step_seconds * MICROPHONE_RATE)
    shifts = [step * k // PHASES for k in range(PHASES)]
    each = [by_word(decode(model, samples[s:]), s / MICROPHONE_RATE, len(said)) for s in shifts]
    counts = [right(path, said) for path in each]
    moved = [len(differing(path, scanned)) for path in each[1:]]
    always = sum(
        len({word and word[0] for word in column}) == 1
        for column in zip(*(path.words for path in each), strict=True)
    )
    print(
        f"steps begun at {PHASES} places of {1000 * step / MICROPHONE_RATE:.0f} ms: "
        f"{min(counts)} to {max(counts)} right, mean {np.mean(counts):.1f}; "
        f"{np.mean(moved):.1f} words unlike scan's; {always} alike at all places"
    )


def compare(name: str, a: Found, b: Found, said: Sequence[str]) -> None:
    """One line, and one for each word that differs."""
    unlike = differing(a, b)
    both = [(x[1], y[1]) for x, y in zip(a.words, b.words, strict=True) if x and y]
    apart = max((abs(x - y) for x, y in both), default=0.0)
    print(
        f"  {name}: {len(said) - len(unlike)} equal, {len(unlike)} not; extra {a.extra} and "
        f"{b.extra}; probabilities at most {apart:.4f} apart"
    )
    for i in unlike:
        print(f"    word {i + 1}, {said[i]}: {shown(a.words[i])} against {shown(b.words[i])}")


def shown(found: tuple[str, float] | None) -> str:
    """A detection as text."""
    return f"{found[0]} {found[1]:.3f}" if found else "nothing"


def table(paths: dict[str, Found], said: Sequence[str]) -> None:
    """Every word by every path."""
    for index, word in enumerate(said):
        row = (f"{name} {shown(path.words[index])}" for name, path in paths.items())
        print(f"    {index + 1:3} {word:6}", *row, sep="  ")


if __name__ == "__main__":
    main()
