"""``speech.listen``, ``listen_async`` and ``scan``: detections for programs, nothing left open."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

import speech
from speech.errors import SpeechWarning
from speech.live import listen as listening
from speech.live.microphone import Block
from speech.live.scan import scan_file
from tests.e2e.tones import RATE, recognizer, said

WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]
SPOKEN = [word for _, word in WORDS]


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.wav"
    soundfile.write(path, said(WORDS, 5.0), RATE, subtype="PCM_16")
    return path


class Card:
    """A microphone that says the words, is lost for a moment, and then is silent for ever."""

    def __init__(self) -> None:
        self.is_open = False
        self.opened = 0
        self.given: tuple = ()

    @contextlib.contextmanager
    def open(self, device, rate, channel=None) -> Iterator[Iterator[Block]]:
        self.is_open, self.given = True, (device, rate, channel)
        self.opened += 1
        try:
            yield self.blocks()
        finally:
            self.is_open = False

    def blocks(self) -> Iterator[Block]:
        nothing = np.zeros((0, 1), np.int16)
        yield Block(nothing, RATE, "ready", "listening to a card")
        samples = np.round(32767 * said(WORDS, 5.0)).astype(np.int16)
        for first in range(0, len(samples), 800):
            yield Block(samples[first : first + 800, np.newaxis], RATE)
        yield Block(nothing, RATE, "lost", "the microphone was lost; waiting for it")
        yield Block(nothing, RATE, "back", "the microphone is back: a card")
        while True:
            time.sleep(0.001)
            yield Block(np.ones((800, 1), np.int16), RATE)


@pytest.fixture
def card(monkeypatch):
    made = Card()
    monkeypatch.setattr(listening, "microphone_blocks", made.open)
    return made


def test_a_recording_and_a_scan_of_it_give_the_same_detections(words):
    listened = list(speech.listen(words, recognizer()))
    assert [d.label for d in listened] == SPOKEN
    assert listened == list(speech.scan(words, recognizer()))
    assert listened == list(scan_file(recognizer(), words).detections)


def test_the_loop_over_a_microphone_closes_it_when_it_is_left(card):
    notes: list[str] = []
    labels = []
    assert not card.opened
    for detection in speech.listen(
        model=recognizer(), device="usb", channel=2, on_note=notes.append
    ):
        assert card.is_open
        labels.append(detection.label)
        if len(labels) == 2:
            break
    assert labels == SPOKEN[:2]
    assert not card.is_open
    assert card.given == ("usb", RATE, 2)


def test_an_error_in_the_loop_closes_the_microphone_too(card):
    detections = speech.listen(model=recognizer())

    def fails() -> None:
        with contextlib.closing(detections):
            for _ in detections:
                raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert not card.is_open


def test_what_happens_to_the_microphone_is_noted_and_by_default_a_warning(card):
    lose_before_the_last_word(card)
    notes: list[str] = []
    assert len(list(speech.listen(model=recognizer(), on_note=notes.append))) == 3
    assert notes == ["the microphone was lost; waiting for it"]
    with pytest.warns(SpeechWarning, match="was lost") as told:
        list(speech.listen(model=recognizer()))
    assert len(told) == 1


def lose_before_the_last_word(card: Card) -> None:
    def blocks() -> Iterator[Block]:
        nothing = np.zeros((0, 1), np.int16)
        samples = np.round(32767 * said(WORDS, 5.0)).astype(np.int16)
        for first in range(0, len(samples), 800):
            if first == 800 * 60:
                yield Block(nothing, RATE, "lost", "the microphone was lost; waiting for it")
            yield Block(samples[first : first + 800, np.newaxis], RATE)

    card.blocks = blocks  # type: ignore[method-assign]


@pytest.mark.parametrize("given", [{"device": 1}, {"channel": "best"}])
def test_a_recording_and_a_microphone_are_not_both_listened_to(words, given):
    with pytest.raises(ValueError, match="got both"):
        speech.listen(words, recognizer(), **given)


def test_what_is_wrong_with_model_and_threshold_is_said_before_the_loop(words):
    with pytest.raises(ValueError, match="threshold"):
        speech.listen(words, recognizer(), threshold=2.0)
    with pytest.raises(speech.ModelError, match="no file there"):
        speech.scan(words, "no-such-model")


def test_a_recording_that_cannot_be_read_is_refused(refused):
    for function in (speech.listen, speech.scan):
        refused(speech.AudioError, lambda f=function: list(f("nothing.wav", recognizer())))


def test_others_go_on_while_async_for_waits_for_words(card):
    async def others() -> int:
        count = 0
        while True:
            await asyncio.sleep(0)
            count += 1

    async def two_words() -> tuple[list[str], bool]:
        counting = asyncio.create_task(others())
        labels: list[str] = []
        async with contextlib.aclosing(speech.listen_async(model=recognizer())) as detections:
            async for detection in detections:
                labels.append(detection.label)
                if len(labels) == 2:
                    break
        counting.cancel()
        return labels, card.is_open

    labels, _ = asyncio.run(two_words())
    assert labels == SPOKEN[:2]
    for thread in threading.enumerate():
        if thread.name == "listen":
            thread.join(10)
    assert not card.is_open


def test_async_listening_to_a_recording_ends_with_it_and_passes_errors_on(words):
    async def labels(source) -> list[str]:
        return [detection.label async for detection in speech.listen_async(source, recognizer())]

    assert asyncio.run(labels(words)) == SPOKEN
    with pytest.raises(speech.AudioError):
        asyncio.run(labels("nothing.wav"))


def test_what_things_are_is_seen_in_a_session(words):
    decoder = speech.StreamDecoder(recognizer())
    decoder.push(np.zeros(800, np.float32))
    assert repr(decoder) == "<StreamDecoder of tones at 0.05 s, 16000 Hz>"
    assert repr(recognizer()) == "<Recognizer tones: low, high, unknown, silence>"
    assert repr(scan_file(recognizer(), words)).startswith("<Timeline of words.wav, 5.0 s: low at ")
