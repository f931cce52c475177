"""``speech record`` in a terminal of its own, whose microphone plays what a server gets."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.e2e import sound_card
from tests.e2e.terminal import Terminal
from tests.e2e.tones import PITCH, RATE, said

pytestmark = [pytest.mark.sound, pytest.mark.timeout(180)]


@pytest.fixture
def record(card, tmp_path) -> Iterator[Callable[..., Terminal]]:
    running: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        given = ("--device", sound_card.DEVICE, "--out", tmp_path / "words", "--seconds", "1.5")
        running.append(Terminal("record", *arguments, *given))
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()


@pytest.fixture(scope="module")
def word(folder) -> Path:
    path = folder / "said.wav"
    soundfile.write(path, said([(0.3, "low")], 0.9), RATE, subtype="PCM_16")
    return path


def test_takes_are_trimmed_and_saved_after_the_user_agreed(card, record, word, tmp_path):
    folder = tmp_path / "words" / "hey robot"
    folder.mkdir(parents=True)
    (folder / "2.ogg").write_bytes(b"somebody's")
    terminal = record("hey robot", "--takes", "2")
    for number in (1, 2):
        terminal.until(f"take {number} of 2: say 'hey robot'")
        assert "dB" in terminal.until("now"), "a level meter"
        assert card.play(word).wait() == 0
        terminal.until("good: 0.")
    terminal.until("save 2 takes in ")
    assert [path.name for path in folder.iterdir()] == ["2.ogg"], "nothing before the answer"
    terminal.type("y\n")
    status, rest = terminal.end()
    assert status == 0
    assert f"speech teach {tmp_path / 'words'}" in rest.replace("\r\n", "")
    assert sorted(path.name for path in folder.iterdir()) == ["1.wav", "2.ogg", "3.wav"]
    for name in ("1.wav", "3.wav"):
        samples, rate = soundfile.read(folder / name)
        assert rate == RATE
        assert 0.4 <= len(samples) / rate <= 0.8, "the word and a margin, not the silence"
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(PITCH["low"], abs=10)


def test_a_silent_take_is_recorded_again_and_a_no_leaves_nothing(card, record, word, tmp_path):
    terminal = record("robot", "--takes", "1")
    terminal.until("now")
    terminal.until("this take is silent: record it again")
    terminal.until("take 1 of 1")
    terminal.until("now")
    card.play(word).wait()
    terminal.until("good")
    terminal.until("save 1 takes")
    terminal.type("x\nn\n")
    status, rest = terminal.end()
    assert status == 0
    assert "nothing was saved" in rest
    assert not (tmp_path / "words").exists()


def test_ctrl_c_ends_it_and_nothing_is_saved(card, record, tmp_path):
    terminal = record("robot")
    terminal.until("now")
    time.sleep(0.2)
    terminal.process.send_signal(signal.SIGINT)
    status, rest = terminal.end()
    assert status == 130
    assert "Traceback" not in rest
    assert not (tmp_path / "words").exists()
