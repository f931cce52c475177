"""The Live tab in a real browser, into whose microphone words are said."""

import csv
import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from speech.audio import load_audio
from speech.labels import commands
from speech.live.scan import scan_file
from speech.live.session import decoder_for
from speech.recognizer import load
from speech.stream import StreamDecoder
from speech.web.sessions import Listener
from tests.e2e import tones
from tests.e2e.conftest import ALLOWED, FAKE, MICROPHONE_RATE

pytestmark = [
    pytest.mark.browser,
    # gradio 6.31 counts its requests with what pandas 3 deprecates
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
ROOT = Path(__file__).parents[2]
WORDS = ("low", "high", "high", "low")
MARGIN = 0.03  # of a probability over its threshold


def speech(words=WORDS) -> np.ndarray:
    """The words, 1.4 s apart, after the time that a browser takes to listen."""
    times = [1.5 + 1.4 * i for i in range(len(words))]
    return tones.said([*zip(times, words, strict=True)], times[-1] + 2.0, MICROPHONE_RATE)


def start(page, patient=True) -> None:
    """Press Start; a patient page waits for a busy machine and drops nothing."""
    if patient:
        page.locator("speech-live").evaluate("live => { live.dataset.patience = 60; }")
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator("speech-live[data-state=listening]").wait_for()


def stop(page) -> None:
    page.get_by_role("button", name="Stop", exact=True).click()
    expect_status(page, "Stopped")


def expect_status(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".live-status")).to_contain_text(text)


def expect_words(page, words) -> None:
    """Those of the history, of which the newest stands above."""
    from playwright.sync_api import expect

    cells = page.locator("speech-live tbody td:nth-child(2)")
    expect(cells).to_have_text([*reversed(words)])


def test_words_appear_in_the_order_in_which_they_are_said(open_page, speaking, tones_address):
    page = open_page(tones_address, speaking(speech(), "four"))
    start(page)
    expect_status(page, "Listening to")
    expect_words(page, WORDS)
    assert page.locator(".live-word").inner_text() == WORDS[-1]
    times = page.evaluate("document.querySelector('speech-live').history.map((d) => d.time)")
    assert times == sorted(times, reverse=True)
    stop(page)
    expect_words(page, WORDS)


@pytest.fixture(scope="module")
def shipped():
    return load(ROOT / "saved_models" / "commands-8")


def surely_heard(recognizer, samples) -> list[str]:
    """The words that every threshold could be ``MARGIN`` higher for, wherever the steps begin."""
    config = decoder_for(recognizer).config
    words = list(commands(recognizer.labels))
    strict = {word: config.thresholds.get(word, config.threshold) + MARGIN for word in words}
    heard = []
    for shift in range(0, round(config.step_seconds * 16_000), 200):
        decoder = StreamDecoder(recognizer, dataclasses.replace(config, thresholds=strict))
        found = decoder.push(np.pad(samples, (shift, 0))) + decoder.flush()
        heard.append([detection.label for detection in found])
    return heard[0] if all(each == heard[0] for each in heard) else []


def people() -> Iterator[tuple[str, np.ndarray]]:
    """Clips of words, half a second of silence after each; none where the corpus is not."""
    corpus = Path(os.environ.get("SPEECH_COMMANDS_DIR", ROOT.parent / "shared" / "speech_commands"))
    listed = corpus / "validation_list.txt"
    for name in sorted(listed.read_text().split()) if listed.is_file() else ():
        word = name.partition("/")[0]
        if word in ("left", "stop", "yes", "right"):
            yield word, np.pad(load_audio(corpus / name, 16_000), (0, 8_000))


def synthesiser(recognizer) -> Iterator[tuple[str, np.ndarray]]:
    """The words of the example, each with some of the pause around it."""
    example = ROOT / "speech" / "web" / "static" / "examples" / "seven_words.flac"
    samples = load_audio(example, 16_000)
    for found in scan_file(recognizer, example).detections:
        yield found.label, samples[round(16_000 * (found.start - 0.3)) :][: round(16_000 * 1.6)]


@pytest.fixture(scope="module")
def spoken_words(shipped) -> tuple[list[str], np.ndarray]:
    """Four words that the model is sure of from a file, and them in a row, at 16 kHz.

    They are said by people where their clips are, else by a synthesiser. In a browser the steps of
    the decoder begin anywhere in the recording, which moves the probability of a word by 0.02.
    """
    sure: dict[str, np.ndarray] = {}
    for word, clip in itertools.chain(people(), synthesiser(shipped)):
        if word not in sure and len(sure) < 4 and surely_heard(shipped, clip) == [word]:
            sure[word] = clip
    whole = np.concatenate([*sure.values()])
    assert surely_heard(shipped, whole) == [*sure]
    return [*sure], whole.astype(np.float64)


def test_the_shipped_model_hears_words_of_people_in_their_order(
    open_page, speaking, serve, shipped, spoken_words
):
    words, samples = spoken_words
    said = np.pad(scipy.signal.resample_poly(samples, 3, 1), (72_000, 96_000))
    page = open_page(serve(shipped), speaking(said, "people"))
    start(page)
    expect_words(page, words)
    stop(page)


def test_the_server_hears_what_the_microphone_hears_and_keeps_nothing(
    open_page, speaking, tones_address, monkeypatch
):
    heard = []
    push = Listener.push

    def spy(self, pcm, rate, lost=0.0):
        heard.append((np.frombuffer(pcm, "<i2"), rate, lost))
        return push(self, pcm, rate, lost)

    monkeypatch.setattr(Listener, "push", spy)
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = sorted(folder.rglob("*"))
    page = open_page(tones_address, speaking(speech(), "four"))
    start(page)
    expect_words(page, WORDS)
    stop(page)
    assert sorted(folder.rglob("*")) == before
    assert not [lost for *_, lost in heard if lost]
    rates = {rate for _, rate, _ in heard}
    assert len(rates) == 1
    whole = np.concatenate([samples for samples, *_ in heard]) / 32768
    at_16k = load_audio((whole.astype(np.float32), rates.pop()), 16_000)
    source = load_audio((speech().astype(np.float32), MICROPHONE_RATE), 16_000)
    words = [source[at : at + 8_000] for at in range(23_200, 90_401, 22_400)]
    # the median, since a busy machine leaves gaps in what a browser records
    assert np.median([correlation(at_16k, word) for word in words]) > 0.98


def correlation(heard, source) -> float:
    """The highest over all shifts, of which a quarter of a sample is the smallest."""
    heard, source = (scipy.signal.resample_poly(samples, 4, 1) for samples in (heard, source))
    products = scipy.signal.correlate(heard, source, mode="valid")
    energy = np.cumsum(np.concatenate([[0.0], heard**2]))
    norms = np.sqrt(energy[len(source) :] - energy[: -len(source)]) * np.linalg.norm(source)
    return float((products / norms).max())


def test_three_who_speak_at_once_are_not_mixed_up(open_page, speaking, tones_address):
    speeches = {
        "a": ("low", "low", "high"),
        "b": ("high", "high", "high", "low"),
        "c": ("low", "high"),
    }
    pages = [open_page(tones_address, speaking(speech(w), name)) for name, w in speeches.items()]
    for page in pages:
        start(page)
    for page, words in zip(pages, speeches.values(), strict=True):
        expect_words(page, words)
        stop(page)


def test_a_slow_model_drops_sound_and_says_so_instead_of_lagging(open_page, speaking, serve):
    import time

    slow = tones.recognizer()
    infer = slow._infer

    def slowly(waveforms):
        time.sleep(0.3)  # three times as long as the sound lasts
        return infer(waveforms)

    slow._infer = slowly
    page = open_page(serve(slow), speaking(speech(), "four"))
    start(page, patient=False)
    expect_status(page, "This is too slow for the sound:")
    page.wait_for_function("document.querySelector('speech-live').captured > 4")
    live = page.locator("speech-live")
    assert float(live.get_attribute("data-dropped") or 0) > 0
    assert float(live.get_attribute("data-waiting") or 9) <= 0.5
    stop(page)


def test_what_was_heard_can_be_replayed_saved_and_cleared(open_page, speaking, tones_address):
    page = open_page(tones_address, speaking(speech(("high", "low")), "two"))
    start(page)
    expect_words(page, ("high", "low"))
    loudness = page.evaluate(
        """document.querySelector("speech-live").history.map(({ sound }) =>
            Math.max(...sound))"""
    )
    assert min(loudness) > 0.2, "the replay has to hold the word"
    page.get_by_role("button", name="Replay high").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text("utf-8").splitlines()))
    assert [row["label"] for row in rows] == ["high", "low"]
    page.get_by_role("button", name="Clear").click()
    assert page.locator("speech-live tbody tr").count() == 0


def test_the_drawer_begins_with_the_models_settings_and_changes_what_is_detected(
    open_page, speaking, tones_address
):
    page = open_page(tones_address, speaking(speech(), "four"))
    page.get_by_text("Advanced").click()
    threshold = page.get_by_label("Threshold")
    assert threshold.input_value() == "0.8"
    assert page.get_by_label("Smoothing").input_value() == "0.3"
    assert not page.get_by_label("Let the browser process the sound").is_checked()
    threshold.fill("1")
    start(page)
    page.wait_for_function("document.querySelector('speech-live').answered > 3.5")
    assert page.locator("speech-live tbody tr").count() == 0
    page.get_by_role("button", name="Back to the model's").click()
    assert threshold.input_value() == "0.8"
    page.locator("speech-live tbody tr").first.wait_for()
    stop(page)


def test_a_microphone_that_was_not_allowed_is_a_sentence(open_page, launch, tones_address):
    page = open_page(tones_address, launch(FAKE), permissions=())
    page.get_by_role("button", name="Start").click()
    expect_status(page, "was not allowed to use the microphone: allow it")
    assert page.get_by_role("button", name="Start").is_enabled()


def test_no_microphone_is_a_sentence(open_page, launch, tones_address):
    page = open_page(tones_address, launch(ALLOWED))
    page.get_by_role("button", name="Start").click()
    expect_status(page, "No microphone was found: connect one")


def test_an_insecure_address_is_a_sentence(open_page, launch, tones_address):
    elsewhere = launch("--host-resolver-rules=MAP speech.test 127.0.0.1")
    at = tones_address.replace("127.0.0.1", "speech.test")
    page = open_page(at, elsewhere, permissions=())
    page.get_by_role("button", name="Start").click()
    expect_status(page, "speech.test")
    expect_status(page, "--ssl-certfile")


def test_a_model_that_fails_is_a_sentence_and_the_page_goes_on(open_page, speaking, serve):
    broken = tones.recognizer()
    infer = broken._infer
    page = open_page(serve(broken), speaking(speech(), "four"))

    def fail(waveforms):
        raise TypeError("no such thing")

    broken._infer = fail
    page.get_by_role("button", name="Start").click()
    expect_status(page, "got TypeError: no such thing")
    broken._infer = infer
    start(page)
    expect_words(page, WORDS)
    stop(page)
