"""The keys of ``speech listen``, pressed in a terminal while a taught model listens."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.teach.corrections import Corrections
from speech.teach.saving import TAKES
from tests.e2e.terminal import Terminal
from tests.e2e.tones import PITCH, RATE, said

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def model(tmp_path) -> Path:
    """The folder of a model that was taught; the tones answer in its place."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / TAKES).touch()
    return tmp_path / "mine"


@pytest.fixture
def listen(model, tmp_path) -> Iterator[Callable[..., Terminal]]:
    running: list[Terminal] = []
    wav = tmp_path / "words.wav"
    soundfile.write(wav, said([(0.5, "low"), (2.2, "high")], 30.0), RATE, subtype="PCM_16")

    def start(*arguments: object) -> Terminal:
        given = ("listen", "--wav", wav, "--realtime", "--model", model)
        running.append(Terminal(*given, *arguments, program="tests.e2e.tones"))
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()


def pitch(take: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(take))) * RATE / len(take))


def test_what_the_user_says_was_wrong_is_kept_after_a_yes_and_what_was_said_as_a_take(
    model, listen
):
    terminal = listen()
    terminal.until("w for 'that was wrong'")
    terminal.type("w")
    terminal.until("nothing was detected so far")
    terminal.until("low  0.")
    terminal.type("w")
    terminal.until("keep the second of 'low' at 1.")
    terminal.type("n")
    terminal.until("not kept")
    assert not (model / "corrections").exists()
    terminal.type("w")
    terminal.until("keep the second of 'low' at 1.")
    terminal.type("y")
    terminal.until("kept: ")
    terminal.until("high  0.")
    terminal.type("s")
    terminal.until("1 low, 2 high?")
    terminal.type("12\x7f\n")
    terminal.until("kept: ")
    terminal.type("s7\n")
    terminal.until("not kept")
    terminal.process.send_signal(signal.SIGINT)
    status, rest = terminal.end()
    assert status == 0
    assert "speech teach --again" in rest
    kept = Corrections(model)
    [wrong] = kept.negatives()
    assert pitch(wrong) == pytest.approx(PITCH["low"], abs=5)
    assert 0.5 <= len(wrong) / RATE <= 1.7
    [(word, [take])] = kept.takes().items()
    assert word == "low", "as the user says, not as was detected"
    assert pitch(take) == pytest.approx(PITCH["high"], abs=5)
    assert 0.3 <= len(take) / RATE <= 0.8, "trimmed"
    kept.forget()
    assert not kept.negatives()
    assert not kept.takes()


def test_nothing_but_silence_is_no_take(model, listen, tmp_path):
    soundfile.write(tmp_path / "words.wav", np.zeros(30 * RATE), RATE, subtype="PCM_16")
    terminal = listen()
    terminal.until("dB")
    terminal.type("s1\n")
    assert "silent" in terminal.until("say it again")
    assert not (model / "corrections").exists()


def test_a_pipe_has_no_keys_and_a_model_that_nobody_taught_neither(model, listen):
    (model / TAKES).unlink()
    terminal = listen()
    shown = terminal.until("low  0.")
    assert "keys:" not in shown
