"""The page in a real browser, as a user meets it."""

import json

import numpy as np
import pytest
import scipy.signal

from speech.audio import fit_length, load_audio
from tests.sounds import encode, tone

pytestmark = [
    pytest.mark.browser,
    # gradio 6.31 counts its requests with what pandas 3 deprecates
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
RATE = 16_000


def upload(page, name: str, content: bytes) -> None:
    choose(page, {"name": name, "mimeType": "audio/wav", "buffer": content})


def choose(page, file) -> None:
    field = page.locator("#recording input[type=file]")
    if not field.count():
        page.get_by_role("button", name="Upload file").click()
    field.set_input_files(file)


def label(page):
    return page.get_by_test_id("label-output-value")


def expect_status(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#status [role=status]")).to_contain_text(text)


def expect_label(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(label(page)).to_have_text(text)


def pictures(page):
    return page.locator("img[alt]").all()


def test_an_uploaded_word_is_shown_with_its_probabilities_and_pictures(open_page):
    page = open_page()
    upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    expect_status(page, "Heard 0.80 s.")
    assert page.get_by_role("meter", name="yes").get_attribute("aria-valuenow") == "97"
    assert page.get_by_role("meter").count() == 4
    page.get_by_alt_text("Waveform of the clip").wait_for()
    page.get_by_alt_text("Mel-frequency cepstral coefficients").wait_for()
    for picture in pictures(page):
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1200


def test_a_bad_file_gets_a_message_and_the_next_good_one_is_recognised(open_page):
    page = open_page()
    upload(page, "first.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    page.get_by_role("button", name="Clear").click()
    expect_status(page, "Record one word")
    upload(page, "text.wav", b"this is no sound\n")
    expect_status(page, "text.wav: expected WAV, FLAC, OGG, Opus or MP3, got something else")
    assert label(page).count() == 0, "the old label must not stand beside the message"
    assert not pictures(page)
    assert "Traceback" not in page.content()
    page.get_by_role("button", name="Clear").click()
    upload(page, "soft.wav", encode(0.1 * tone(0.7, RATE), RATE))
    expect_label(page, "no")
    expect_status(page, "Heard 0.70 s.")


def test_a_name_is_never_markup(open_page):
    page = open_page()
    upload(page, "<img src=x onerror=alert(1)>{{value}}${1}**b**.wav", b"this is no sound\n")
    expect_status(page, ".wav: expected WAV")
    assert page.locator("#status [role=status]").locator("img, strong").count() == 0


def test_a_file_that_is_too_large_is_refused_and_the_page_goes_on(open_page, tmp_path):
    page = open_page()
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(53_000_000))
    choose(page, large)
    page.get_by_text("exceed the maximum allowed size").wait_for()
    upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")


def record(page, seconds: float) -> None:
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1000 * seconds)
    page.locator("#recording").get_by_role("button", name="Stop", exact=True).first.click()


def test_a_recorded_word_is_recognised_as_the_microphone_heard_it(open_page, heard, microphone_wav):
    page = open_page()
    record(page, seconds=5)
    expect_label(page, "yes")
    expect_status(page, "this is the loudest 1 s.")
    assert len(heard) == 1, "one recording is one question"
    # the browser's noise suppression and gain control would leave about 0.8 of the correlation
    source = fit_length(load_audio(microphone_wav, RATE), RATE)
    assert correlation(heard[0], source) > 0.99
    assert np.abs(heard[0]).max() == pytest.approx(np.abs(source).max(), rel=0.05)


def correlation(one, other) -> float:
    """The highest over all shifts, of which a quarter of a sample is the smallest."""
    fine = [scipy.signal.resample_poly(samples, 4, 1) for samples in (one, other)]
    return float(scipy.signal.correlate(*fine).max() / np.prod([np.linalg.norm(x) for x in fine]))


def test_a_narrow_screen_needs_no_sideways_scrolling(open_page):
    page = open_page(viewport={"width": 390, "height": 844})
    upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_reaches_recording_and_uploading_and_shows_where_it_is(open_page):
    page = open_page()
    page.get_by_role("button", name="Record", exact=True).wait_for()
    reached = {}
    for _ in range(12):
        page.keyboard.press("Tab")
        name, outline = json.loads(
            page.evaluate(
                """() => {
                    const at = document.activeElement;
                    return JSON.stringify([
                        at.getAttribute("aria-label") || at.innerText,
                        getComputedStyle(at).outlineStyle,
                    ]);
                }"""
            )
        )
        reached[name] = outline
    for name in ("Record", "Upload file"):
        assert reached.get(name) == "solid", reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colours_that_the_user_prefers(open_page, scheme):
    page = open_page(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (brightness > 600) == (scheme == "light"), colour
