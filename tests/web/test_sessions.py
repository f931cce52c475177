"""Live sessions without a page: their messages, and that they are kept apart."""

from collections.abc import Iterator

import numpy as np
import pytest

from speech.errors import AudioError, SpeechError
from speech.web.sessions import Listener, Listeners, model_settings
from tests.e2e.tones import LABELS, RATE, recognizer, said

WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]


def pieces(samples: np.ndarray, seconds: float = 0.1, rate: int = RATE) -> Iterator[bytes]:
    pcm = np.round(32767 * samples).astype("<i2")
    size = round(seconds * rate)
    return (pcm[i : i + size].tobytes() for i in range(0, len(pcm), size))


def told(listener: Listener, samples: np.ndarray, rate: int = RATE) -> list[dict]:
    found = [m for piece in pieces(samples, rate=rate) for m in listener.push(piece, rate)]
    return found + listener.end()


def detections(messages: list[dict]) -> list[tuple[str, float]]:
    return [(m["label"], m["time"]) for m in messages if m["type"] == "detection"]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_each_word_is_told_once_at_its_time(rate):
    found = detections(told(Listener(recognizer()), said(WORDS, 5.0, rate), rate))
    assert [label for label, _ in found] == [word for _, word in WORDS]
    for (start, _), (_, time) in zip(WORDS, found, strict=True):
        assert start < time < start + 1.2


def test_every_step_tells_the_probability_of_every_class():
    steps = [m for m in told(Listener(recognizer()), said(WORDS, 5.0)) if m["type"] == "step"]
    assert len(steps) == 50
    np.testing.assert_allclose([m["time"] for m in steps], 0.1 * np.arange(1, 51), atol=1e-6)
    for message in steps:
        assert sum(message["probabilities"]) == pytest.approx(1, abs=0.01)
        assert 0 <= message["peak"] <= 1


def test_the_size_of_the_pieces_changes_no_detection():
    samples = said(WORDS, 5.0)
    each = []
    for seconds in (0.05, 0.1, 0.35):
        listener = Listener(recognizer())
        found = [m for piece in pieces(samples, seconds) for m in listener.push(piece, RATE)]
        each.append(detections(found + listener.end()))
    assert each[0] == each[1] == each[2]


def test_lost_sound_shifts_the_times_and_joins_no_halves():
    samples = said([(0.8, "low"), (3.0, "high")], 5.0)
    listener = Listener(recognizer())
    cut = round(1.0 * RATE)  # in the middle of the first word
    lost = round(0.6 * RATE)
    found = [m for piece in pieces(samples[:cut]) for m in listener.push(piece, RATE)]
    found += listener.push(samples[:0].tobytes(), RATE, lost=lost / RATE)
    rest = samples[cut + lost :]
    found += [m for piece in pieces(rest) for m in listener.push(piece, RATE)]
    assert [label for label, _ in detections(found)] == ["high"]
    whole = detections(told(Listener(recognizer()), samples))
    assert detections(found)[0][1] == pytest.approx(whole[-1][1], abs=0.1 + 1e-6)


def test_listeners_are_not_mixed_up():
    speeches = [[(0.5, "low"), (2.0, "low")], [(0.5, "high"), (2.0, "high")], WORDS]
    model = recognizer()
    listeners = [Listener(model) for _ in speeches]
    found: list[list[dict]] = [[] for _ in speeches]
    for parts in zip(*(pieces(said(words, 5.0)) for words in speeches), strict=True):
        for listener, part, messages in zip(listeners, parts, found, strict=True):
            messages += listener.push(part, RATE)
    for words, messages in zip(speeches, found, strict=True):
        assert [label for label, _ in detections(messages)] == [word for _, word in words]


def test_the_settings_are_the_models_unless_others_are_wanted():
    assert model_settings(recognizer())["commands"] == ["low", "high"]
    assert model_settings(recognizer())["labels"] == list(LABELS)
    assert Listener(recognizer()).settings()["threshold"] == 0.8
    chosen = Listener(recognizer(), 0.95, 0.5).settings()
    assert (chosen["threshold"], chosen["smoothing"]) == (0.95, 0.5)
    assert detections(told(Listener(recognizer(), 1.0), said(WORDS, 5.0))) == []


@pytest.mark.parametrize(
    "chosen",
    [
        *((0.0, None), (1.5, None), ("a", None), (None, 0.25), (None, -1)),
        *((None, None, "extreme"), (None, None, 1.0)),
    ],
)
def test_settings_that_do_not_fit_are_refused(refused, chosen):
    assert "set them back" in refused(SpeechError, lambda: Listener(recognizer(), *chosen))


@pytest.mark.parametrize(
    ("pcm", "rate", "lost"),
    [(b"abc", RATE, 0.0), (bytes(4 * RATE + 2), RATE, 0.0), (b"ab", 1, 0.0), (b"ab", RATE, -1.0)],
)
def test_what_is_no_sound_is_refused_and_changes_nothing(refused, pcm, rate, lost):
    listener = Listener(recognizer())
    samples = said(WORDS, 5.0)
    found = []
    for index, piece in enumerate(pieces(samples)):
        if index % 10 == 5:
            refused(AudioError, lambda: listener.push(pcm, rate, lost))
        found += listener.push(piece, RATE)
    expected = detections(told(Listener(recognizer()), samples))
    assert detections(found + listener.end()) == expected


@pytest.mark.parametrize(
    ("sensitivity", "expected"), [("low", 0.947), ("medium", 0.8), ("high", 0.472)]
)
def test_a_sensitivity_moves_all_thresholds_by_the_same_odds(sensitivity, expected):
    settings = Listener(recognizer(), sensitivity=sensitivity).settings()
    assert (
        settings["thresholds"]["high"] == settings["threshold"] == pytest.approx(expected, abs=1e-3)
    )

    def odds(label):
        return settings["thresholds"][label] / (1 - settings["thresholds"][label])

    assert odds("high") / odds("low") == pytest.approx((0.8 / 0.2) / (0.7 / 0.3))


def softly(words: list[tuple[float, str]], seconds: float, volume: float) -> np.ndarray:
    """The words as ``said`` says them, softer."""
    noise = said([], seconds)
    return noise + volume * (said(words, seconds) - noise)


def near_misses(messages: list[dict]) -> list[str]:
    return [m["label"] for m in messages if m["type"] == "near"]


def test_a_command_below_its_threshold_is_a_near_miss_with_what_it_needed():
    # of a little less energy than the network of tones wants to be sure
    messages = told(Listener(recognizer()), softly([(0.5, "high")], 3.0, 0.72))
    assert not detections(messages)
    (near,) = [m for m in messages if m["type"] == "near"]
    highest = max(m["probabilities"][1] for m in messages if m["type"] == "step")
    assert (near["label"], near["threshold"]) == ("high", 0.8)
    assert near["probability"] == highest
    assert 0.48 < near["probability"] < 0.8
    assert 0.5 < near["time"] < 2.0


def test_what_is_detected_is_no_near_miss_and_what_is_improbable_is_none():
    messages = told(Listener(recognizer()), said(WORDS, 5.0))
    assert len(detections(messages)) == 3
    assert not near_misses(messages)
    assert not near_misses(told(Listener(recognizer()), softly(WORDS, 5.0, 0.4)))


def test_a_higher_sensitivity_detects_what_was_a_near_miss():
    samples = softly([(0.5, "high")], 3.0, 0.72)
    messages = told(Listener(recognizer(), sensitivity="high"), samples)
    assert [label for label, _ in detections(messages)] == ["high"]
    assert not near_misses(messages)


def test_a_quiet_and_a_clipping_microphone_are_told():
    quiet = told(Listener(recognizer()), np.full(6 * RATE, 0.001))
    assert quiet[-1]["hint"].startswith("too quiet")
    loud = told(Listener(recognizer()), np.sign(said(WORDS, 5.0)))
    assert loud[-1]["hint"].startswith("clipping")


def test_who_is_silent_for_a_minute_makes_room():
    now = [0.0]
    listeners = Listeners(limit=1, clock=lambda: now[0])
    first = listeners.add(Listener(recognizer()))
    with pytest.raises(SpeechError, match="at most 1 pages"):
        listeners.add(Listener(recognizer()))
    now[0] = 59.0
    listeners.get(first)
    now[0] = 61.0
    with pytest.raises(SpeechError, match="at most 1 pages"):
        listeners.add(Listener(recognizer()))
    now[0] = 120.0
    second = listeners.add(Listener(recognizer()))
    assert first != second
    with pytest.raises(SpeechError, match="press Start again"):
        listeners.get(first)
    listeners.remove(second)
    assert not len(listeners)
