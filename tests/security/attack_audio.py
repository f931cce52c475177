"""Attacks on the audio door: ``python -m tests.security.attack_audio MODE N SEED DIR``.

Writes what it is about to try to DIR/last, and at the end its counts as JSON. An attack that gives
neither samples of the promised kind nor an AudioError of one line ends it with a traceback.
"""

import collections
import json
import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speech.audio import MAX_RATE, load_audio
from speech.errors import AudioError
from tests.sounds import FORMATS, encode, tone

MEMORY = 2 << 30
MORE_FORMATS = [("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16"), ("W64", "FLOAT")]
EXTREMES = (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", bytes(4), b"\1\0\0\0", b"\0\0\0\1")


def seeds() -> list[bytes]:
    """A short sound in every format, with one and with two channels, plain and with a tag."""
    made = []
    for kind, subtype in [*((kind, subtype) for kind, subtype, _ in FORMATS), *MORE_FORMATS]:
        for channels in (1, 2):
            sound = np.stack([tone(0.12, 16_000, 440.0)] * channels, axis=1)
            made.append(encode(sound, 16_000, kind, subtype))
    return made


def damaged(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The content after a few of the accidents that fuzzers know."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 3, 8, 40])):
        # the headers are where a parser may stumble
        top = min(len(data), 10 ** chance.randint(1, 5))
        place = chance.randrange(top) if top else 0
        what = chance.randrange(8)
        if what <= 1 and data:
            data[place] ^= 1 << chance.randrange(8)
        elif what == 2 and data:
            data[place] = chance.randrange(256)
        elif what == 3:
            data[place : place + 4] = chance.choice(EXTREMES)
        elif what == 4:
            del data[place : place + chance.randint(1, 200)]
        elif what == 5:
            data[place:place] = chance.randbytes(chance.randint(1, 40))
        elif what == 6:
            other = chance.choice(others)
            start = chance.randrange(len(other))
            data[place:place] = other[start : start + chance.randint(1, 400)]
        else:
            data = data[: chance.randrange(len(data) + 1)]
    return bytes(data)


def array(numbers: np.random.Generator) -> tuple[Any, Any]:
    """Samples and a rate as somebody might pass them who has not read the docstring."""
    shape: tuple[int, ...] = tuple(numbers.integers(0, 4_000, 1))
    if numbers.random() < 0.5:
        shape = (*shape, *numbers.integers(0, 40, numbers.integers(1, 3)))
    if len(shape) == 3:
        shape = (shape[0] % 40, *shape[1:])
    kinds = ("i1", "i2", "i4", "f4", "f8", "f4", "i2", ">i2", ">f4")
    kind = numbers.choice([*kinds, "u1", "u2", "i8", "f2", "?", "c8", "O", "S4", "M8[s]"])
    values = numbers.normal(0, 10.0 ** numbers.integers(-30, 3), shape)
    with np.errstate(all="ignore"):
        samples = values.astype("f8").astype("i8" if kind == "M8[s]" else kind).astype(kind)
    strange = (np.nan, np.inf, -np.inf, 1e30, 1e-45)
    if samples.dtype.kind == "f" and samples.size and numbers.random() < 0.3:
        with np.errstate(over="ignore"):
            samples.reshape(-1)[numbers.integers(samples.size)] = numbers.choice(strange)
    samples = (samples, samples[::-1], samples.T, samples[::2])[numbers.integers(4)]
    rates: list[Any] = [8_000, 16_000, 22_050, 44_100, 48_000, 96_000, MAX_RATE]
    rates += [
        int(numbers.integers(1, 200_000)),
        0,
        -16_000,
        2**62,
        16_000.5,
        np.nan,
        np.inf,
        "16000",
        None,
        True,
        np.float32(16_000),
    ]
    return samples, rates[numbers.integers(len(rates) if numbers.random() < 0.3 else 7)]


def attacks(mode: str, n: int, seed: int, folder: Path) -> Iterator[tuple[str, Any]]:
    """Each attack with a name under which it can be done again."""
    if mode == "files":
        whole = seeds()
        for number in range(n):
            chance = random.Random(f"{seed} {number}")
            content = damaged(chance.choice(whole), whole, chance)
            yield f"file {seed} {number}", content
    elif mode == "arrays":
        for number in range(n):
            yield f"array {seed} {number}", array(np.random.default_rng([seed, number]))
    else:
        for path in sorted((folder / "bombs").iterdir()):
            yield path.name, path


def outcome(source: Any) -> str:
    """``taken`` or ``refused``; everything else is an error."""
    try:
        heard = load_audio(source)
    except AudioError as error:
        text = str(error)
        assert len(text.splitlines()) == 1, text
        assert "expected" in text, text
        assert len(text) < 600, text
        return "refused"
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert 1 <= len(heard) <= 60 * 16_000 + 1
    assert np.isfinite(heard).all()
    assert -1 <= heard.min() <= heard.max() < 1
    return "taken"


def main() -> None:
    mode, n, seed, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts: collections.Counter[str] = collections.Counter(tried=0, taken=0, refused=0)
    for name, source in attacks(mode, n, seed, folder):
        (folder / "last").write_text(name)
        spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        # a hang is ended by the system, with a status of its own
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + 60, resource.RLIM_INFINITY))
        counts[outcome(source)] += 1
        counts["tried"] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
