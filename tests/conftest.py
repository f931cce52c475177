"""What the tests share: real clips where they are at hand, and a tiny corpus that always is."""

import gc
import hashlib
import os
import re
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import settings

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
PROJECT = Path(__file__).resolve().parents[1]
RATE = 16_000

# A busy machine is no counterexample, and what CI finds has to be found again.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if IN_CI else "here")


def pytest_configure() -> None:
    # a shell that runs the tests in the background has them, and all their children, ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "speech_commands" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.corpus)


@pytest.fixture(scope="session")
def skip_or_fail() -> Callable[[str], None]:
    """Call it where a browser or a sound server is missing: a skip here, a failure in CI."""

    def refuse(reason: str) -> None:
        if IN_CI:
            pytest.fail(f"CI has to bring it: {reason}")
        pytest.skip(reason)

    return refuse


@pytest.fixture(autouse=True)
def absl_logs_to_the_real_stderr() -> None:
    """Absl, which TensorFlow logs by, closes its stream when uvicorn sets logging up.

    Had TensorFlow been imported in an earlier test or by collecting one, that would be pytest's.
    """
    if "absl.logging" in sys.modules:
        handler = sys.modules["absl.logging"].get_absl_handler()
        handler.python_handler.stream = sys.__stderr__


@pytest.fixture
def held_by_speech() -> Iterator[Callable[[], int]]:
    """Traces memory; called, it tells the bytes that speech/ holds, not threads of other tests."""
    ours = tracemalloc.Filter(True, str(PROJECT / "speech" / "*"), all_frames=True)

    def held() -> int:
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
        return sum(trace.size for trace in traces)

    tracemalloc.start(4)
    yield held
    tracemalloc.stop()


@pytest.fixture(scope="session")
def speech_commands() -> Path:
    """The folder of real Speech Commands clips; marks the test as ``corpus``."""
    chosen = os.environ.get("SPEECH_COMMANDS_DIR")
    folder = Path(chosen) if chosen else PROJECT.parent / "shared" / "speech_commands"
    if not (folder / "validation_list.txt").is_file():
        pytest.skip(
            f"no real clips in {folder}: set SPEECH_COMMANDS_DIR to a Speech Commands folder"
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests neither read nor fill the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECH_CACHE", str(folder))
        yield folder


def synthetic_corpus(root: Path, suffix: str = ".wav") -> Path:
    """Forty one-second clips in the official layout, with both lists and two noise files.

    A word is a chord of its own, so that a network can learn it: yes, no, bed and cat, ten
    speakers each, six of them in training, two in validation, two in testing.
    """
    rng = np.random.default_rng(7)
    time = np.arange(RATE) / RATE
    words = {"yes": (300, 900), "no": (450, 1400), "bed": (700, 2100), "cat": (1000, 3100)}
    lists: dict[str, list[str]] = {"train": [], "validation": [], "testing": []}
    for speaker, split in _speakers():
        for word, chord in words.items():
            name = f"{word}/{speaker}_nohash_0{suffix}"
            voice = rng.uniform(0.95, 1.05)
            tone = sum(np.sin(2 * np.pi * f * voice * time) for f in chord)
            envelope = np.exp(-(((time - rng.uniform(0.4, 0.6)) / 0.15) ** 2))
            clip = 0.2 * rng.uniform(0.5, 1.5) * envelope * tone + rng.normal(0, 0.003, RATE)
            write(root / name, clip)
            lists[split].append(name)
    for split in ("validation", "testing"):
        (root / f"{split}_list.txt").write_text("".join(f"{n}\n" for n in sorted(lists[split])))
    write(root / "_background_noise_" / f"hiss{suffix}", rng.normal(0, 0.05, 10 * RATE))
    hum = np.sin(2 * np.pi * 50 * np.arange(8 * RATE) / RATE)
    write(
        root / "_background_noise_" / f"hum{suffix}",
        0.1 * hum + rng.normal(0, 0.01, 8 * RATE),
    )
    return root


def write(path: Path, samples: npt.NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.round(32_767 * samples).astype(np.int16), RATE)


def _speakers() -> Iterator[tuple[str, str]]:
    wanted = {"train": 6, "validation": 2, "testing": 2}
    for number in range(1000):
        speaker = f"{number * 2654435761 % 2**32:08x}"
        hashed = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27
        percentage = hashed * (100.0 / (2**27 - 1))
        split = "validation" if percentage < 10 else "testing" if percentage < 20 else "train"
        if wanted[split]:
            wanted[split] -= 1
            yield speaker, split


@pytest.fixture
def make_corpus() -> Callable[..., Path]:
    """``synthetic_corpus(root, suffix)``, for tests that change what they get."""
    return synthetic_corpus


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic corpus, written once; not to be changed."""
    return synthetic_corpus(tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture
def refused() -> Callable[..., str]:
    """The message of the error that a call raises, which has to say three things."""

    def message(kind: type[Exception], call: Callable[[], object]) -> str:
        with pytest.raises(kind) as caught:
            call()
        text = str(caught.value)
        assert re.search(r"expected .+ got .+; \w+", text, re.DOTALL), text
        return text

    return message
