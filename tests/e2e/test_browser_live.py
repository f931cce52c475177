"""The Live tab in a real browser, into whose microphone words are said."""

import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from speech.audio import load_audio
from speech.evaluation.scoring import shift_thresholds
from speech.live.scan import scan_file
from speech.live.session import decoder_for
from speech.recognizer import load
from speech.stream import StreamDecoder
from speech.web.address import Address
from speech.web.sessions import Listener
from tests.e2e import tones
from tests.e2e.conftest import ALLOWED, FAKE, MICROPHONE_RATE
from tests.web.proxy import proxied
from tests.web.serving import free_port

pytestmark = [
    pytest.mark.browser,
    # gradio 6.31 counts its requests with what pandas 3 deprecates
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
ROOT = Path(__file__).parents[2]
WORDS = ("low", "high", "high", "low")
MARGIN = 0.7  # of the logarithm of the odds: 0.98 becomes 0.99


def speech(words=WORDS) -> np.ndarray:
    """The words, 1.4 s apart, after the time that a browser takes to listen."""
    times = [1.5 + 1.4 * i for i in range(len(words))]
    return tones.said([*zip(times, words, strict=True)], times[-1] + 2.0, MICROPHONE_RATE)


def start(page, patient=True) -> None:
    """Press Start; a patient page waits for a busy machine and drops nothing."""
    if patient:
        page.locator("speech-live").evaluate("live => { live.dataset.patience = 60; }")
    page.get_by_role("button", name="Start listening").click()
    page.locator("speech-live[data-state=listening]").wait_for()


def stop(page) -> None:
    page.get_by_role("button", name="Stop listening").click()
    expect_status(page, "Stopped")


def expect_status(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".live-status")).to_contain_text(text)


def expect_words(page, words) -> None:
    """Those of the history, of which the newest stands above."""
    from playwright.sync_api import expect

    cells = page.locator("speech-live tr.detection td:nth-child(2)")
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


def shifted_detections(recognizer, samples) -> list[list[str]]:
    """The words with thresholds that are ``MARGIN`` higher, wherever the steps may begin."""
    config = decoder_for(recognizer).config
    strict = shift_thresholds(config, MARGIN)
    results = []
    for shift in range(0, round(config.step_seconds * 16_000), 200):
        decoder = StreamDecoder(recognizer, strict)
        found = decoder.push(np.pad(samples, (shift, 0)), 16_000) + decoder.flush()
        results.append([detection.label for detection in found])
    return results


def surely_detected(recognizer, samples) -> list[str]:
    """The words, if they are the same wherever the steps begin."""
    first, *others = shifted_detections(recognizer, samples)
    return first if all(words == first for words in others) else []


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
        if word not in sure and len(sure) < 4 and surely_detected(shipped, clip) == [word]:
            sure[word] = clip
    whole = np.concatenate([*sure.values()])
    assert surely_detected(shipped, whole) == [*sure]
    return [*sure], whole.astype(np.float64)


def test_the_shipped_model_detects_words_of_people_in_their_order(
    open_page, speaking, serve, shipped, spoken_words
):
    words, samples = spoken_words
    said = np.pad(scipy.signal.resample_poly(samples, 3, 1), (72_000, 96_000))
    page = open_page(serve(shipped), speaking(said, "people"))
    start(page)
    expect_words(page, words)
    stop(page)


def test_the_server_gets_what_the_microphone_gets_and_keeps_nothing(
    open_page, speaking, tones_address, monkeypatch
):
    received = []
    push = Listener.push

    def spy(self, pcm, rate, lost=0.0):
        received.append((np.frombuffer(pcm, "<i2"), rate, lost))
        return push(self, pcm, rate, lost)

    monkeypatch.setattr(Listener, "push", spy)
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = sorted(folder.rglob("*"))
    page = open_page(tones_address, speaking(speech(), "four"))
    start(page)
    expect_words(page, WORDS)
    stop(page)
    assert sorted(folder.rglob("*")) == before
    assert not [lost for *_, lost in received if lost]
    rates = {rate for _, rate, _ in received}
    assert len(rates) == 1
    whole = np.concatenate([samples for samples, *_ in received]) / 32768
    at_16k = load_audio((whole.astype(np.float32), rates.pop()), 16_000)
    source = load_audio((speech().astype(np.float32), MICROPHONE_RATE), 16_000)
    words = [source[at : at + 8_000] for at in range(23_200, 90_401, 22_400)]
    # the median, since a busy machine leaves gaps in what a browser records
    assert np.median([correlation(at_16k, word) for word in words]) > 0.98


def correlation(received, source) -> float:
    """The highest over all shifts, of which a quarter of a sample is the smallest."""
    received, source = (scipy.signal.resample_poly(samples, 4, 1) for samples in (received, source))
    products = scipy.signal.correlate(received, source, mode="valid")
    energy = np.cumsum(np.concatenate([[0.0], received**2]))
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


def test_what_was_detected_can_be_replayed_saved_and_cleared(open_page, speaking, tones_address):
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
    assert page.locator("speech-live tr.detection").count() == 0


def test_the_drawer_begins_with_the_models_settings_and_changes_what_is_detected(
    open_page, speaking, tones_address
):
    page = open_page(tones_address, speaking(speech(), "four"))
    page.get_by_text("Advanced").click()
    threshold = page.get_by_label("Threshold of all words")
    assert threshold.input_value() == "0.8"
    assert page.get_by_label("Smoothing").input_value() == "0.3"
    assert not page.get_by_label("Let the browser process the sound").is_checked()
    threshold.fill("1")
    start(page)
    page.wait_for_function("document.querySelector('speech-live').answered > 3.5")
    assert page.locator("speech-live tr.detection").count() == 0
    page.get_by_role("button", name="Back to the model's").click()
    assert threshold.input_value() == "0.8"
    page.locator("speech-live tr.detection").first.wait_for()
    stop(page)


def test_words_to_say_light_up_and_the_microphone_shows_on_every_tab(
    open_page, speaking, tones_address
):
    from playwright.sync_api import expect

    page = open_page(tones_address, speaking(speech(), "four"))
    chips = page.locator(".live-chips li")
    expect(chips).to_have_text(["low", "high"])
    expect(page.locator(".live-canvas")).to_be_hidden()
    start(page)
    expect(page.locator(".live-chips li.lit")).to_have_text("low")
    expect(page.locator(".live-chips li.lit")).to_have_text("high")
    page.get_by_role("tab", name="File").click()
    badge = page.get_by_role("button", name="Microphone on")
    expect(badge).to_be_visible()
    assert page.title().startswith("● ")
    badge.click()
    expect(badge).to_have_count(0)
    assert not page.title().startswith("● ")
    page.get_by_role("tab", name="Live").click()
    expect_status(page, "Stopped")
    expect(page.get_by_role("meter", name="Level")).to_have_attribute("aria-valuenow", "-60")
    expect(page.locator(".live-chips li.lit")).to_have_count(0)


def test_a_near_miss_is_shown_with_what_it_needed_and_a_higher_sensitivity_detects_it(
    open_page, speaking, tones_address
):
    from playwright.sync_api import expect

    noise = tones.said([], 6.0, MICROPHONE_RATE)
    soft = noise + 0.72 * (tones.said([(2.0, "high")], 6.0, MICROPHONE_RATE) - noise)
    page = open_page(tones_address, speaking(soft, "soft"))
    start(page)
    near = page.locator("speech-live tr.near")
    expect(near).to_have_count(1)
    expect(near).to_contain_text("high? ")
    expect(near).to_contain_text(" %, needs 80 %")
    expect_words(page, [])
    stop(page)
    page.get_by_label("High", exact=True).check()
    again = open_page(tones_address, speaking(soft, "soft again"))
    again.get_by_label("High", exact=True).check()
    start(again)
    expect_words(again, ["high"])
    expect(again.locator("speech-live tr.near")).to_have_count(0)


def test_rows_of_an_earlier_run_are_told_apart(open_page, speaking, tones_address):
    from playwright.sync_api import expect

    page = open_page(tones_address, speaking(speech(("high", "low")), "two apart"))
    start(page)
    expect_words(page, ("high", "low"))
    stop(page)
    expect(page.locator("speech-live tr.earlier")).to_have_count(0)
    start(page)
    expect(page.locator("speech-live tr.earlier.detection")).to_have_count(2)
    runs = page.locator("speech-live tr.run")
    expect(runs).to_have_count(2)
    expect(runs.first).to_contain_text("Microphone, from ")
    stop(page)


def test_the_demo_needs_no_microphone_and_its_words_are_detected(open_page, launch, serve, shipped):
    from speech.web.page import DEMO, EXAMPLES

    results = shifted_detections(shipped, load_audio(EXAMPLES / DEMO, 16_000))
    sure = [word for word in results[0] if all(word in words for words in results)]
    assert len(sure) >= 4
    page = open_page(serve(shipped), launch(ALLOWED))
    page.locator("speech-live").evaluate("live => { live.dataset.patience = 60; }")
    page.get_by_role("button", name="Play the demo").click()
    expect_status(page, "Watch them light up")
    expect_status(page, "The demo is over.")
    words = page.locator("speech-live tr.detection td:nth-child(2)").all_inner_texts()
    said = iter(reversed(words))
    assert all(word in said for word in sure), words
    expected = iter(d.label for d in scan_file(shipped, EXAMPLES / DEMO).detections)
    assert all(word in expected for word in reversed(words)), words


def test_where_the_server_stops_the_page_says_so_and_goes_on_when_it_is_back(
    open_page, speaking, tmp_path, monkeypatch
):
    from speech.web.models import ModelRegistry
    from speech.web.server import serve as serve_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    address = Address(port=free_port())
    blocks = serve_page(ModelRegistry(tones.recognizer()), address)
    page = open_page(str(blocks.local_url), speaking(speech(), "four"))
    start(page)
    blocks.close(verbose=False)
    expect_status(page, "The server stopped; press Start when it is back.")
    blocks = serve_page(ModelRegistry(tones.recognizer()), address)
    try:
        expect_status(page, "The server is back; press Start.")
        start(page)
        expect_status(page, "Listening to")
        stop(page)
    finally:
        blocks.close(verbose=False)


def test_below_a_path_of_a_proxy_the_page_listens_and_takes_files(
    open_page, speaking, tmp_path, monkeypatch
):
    from playwright.sync_api import expect

    from speech.web.models import ModelRegistry
    from speech.web.server import serve as serve_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    port = free_port()
    address = Address(port=port, root_path="/speech")
    blocks = serve_page(ModelRegistry(tones.recognizer()), address)
    try:
        with proxied(port, "/speech") as below:
            page = open_page(f"{below}/", speaking(speech(), "four"))
            start(page)
            expect_words(page, WORDS)
            stop(page)
            page.get_by_role("tab", name="File").click()
            page.get_by_role("button", name="Example: seven words").click()
            expect(page.locator("#status [role=status]")).to_contain_text(" in 16.6 s.")
            page.wait_for_function(
                "document.querySelector('speech-timeline audio').readyState >= 1"
            )
    finally:
        blocks.close(verbose=False)


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
