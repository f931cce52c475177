"""The page in a real browser, as a user meets it: recordings, the model, and its look."""

import json

import pytest

from tests.e2e.tones import said
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
    page.locator("#recording input[type=file]").set_input_files(file)


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def label(page):
    return page.get_by_test_id("label-output-value")


def expect_status(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#status [role=status]")).to_contain_text(text)


def expect_label(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(label(page)).to_have_text(text)


def pictures(page):
    return page.locator("#clip img[alt]").all()


def test_an_uploaded_word_is_shown_with_its_probabilities_and_pictures(open_page):
    page = open_page()
    open_tab(page, "File")
    upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    expect_status(page, "yes, 97%")
    assert page.locator("speech-timeline audio").count() == 1
    assert page.get_by_role("meter", name="yes").get_attribute("aria-valuenow") == "97"
    assert page.get_by_role("meter").count() == 4
    page.get_by_alt_text("Waveform of the clip").wait_for()
    page.get_by_alt_text("Mel-frequency cepstral coefficients").wait_for()
    for picture in pictures(page):
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1200


def test_a_bad_file_gets_a_message_and_the_next_good_one_is_recognised(open_page):
    page = open_page()
    open_tab(page, "File")
    upload(page, "first.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    page.get_by_role("button", name="Clear").click()
    expect_status(page, "Upload WAV")
    upload(page, "text.wav", b"this is no sound\n")
    expect_status(page, "text.wav: expected WAV, FLAC, OGG, Opus or MP3, got something else")
    assert label(page).count() == 0, "the old label must not stand beside the message"
    assert not pictures(page)
    assert "Traceback" not in page.content()
    page.get_by_role("button", name="Clear").click()
    upload(page, "empty.wav", b"")
    expect_status(page, "empty.wav: expected an audio file")
    page.get_by_role("button", name="Clear").click()
    upload(page, "soft.wav", encode(0.1 * tone(0.7, RATE), RATE))
    expect_label(page, "no")
    expect_status(page, "no, 97%")


def test_a_name_is_never_markup(open_page):
    page = open_page()
    open_tab(page, "File")
    upload(page, "<img src=x onerror=alert(1)>{{value}}${1}**b**.wav", b"this is no sound\n")
    expect_status(page, ".wav: expected WAV")
    assert page.locator("#status [role=status]").locator("img, strong").count() == 0


def test_a_long_recording_is_a_timeline_whose_words_can_be_played_and_saved(
    open_page, tones_address
):
    page = open_page(tones_address)
    open_tab(page, "File")
    words = [(0.5, "low"), (2.0, "high"), (4.0, "low")]
    upload(page, "first.wav", encode(tone(0.8, RATE), RATE))
    expect_status(page, ", ")
    page.get_by_role("button", name="Clear").click()
    expect_status(page, "Upload WAV")
    upload(page, "{{name}} <b>.wav", encode(said(words, 6.0), RATE))
    expect_status(page, "3 commands in 6.0 s.")
    rows = page.locator("speech-timeline tbody tr")
    expect_texts(rows.locator("td:nth-child(2)"), [word for _, word in words])
    assert not pictures(page)
    assert page.locator("speech-timeline b").count() == 0
    page.get_by_role("button", name="Listen to high").click()
    page.wait_for_function("document.querySelector('speech-timeline audio').currentTime > 1")
    for button, part in (("CSV", ",high,"), ("JSON", '"label": "high"'), ("Audacity", "\thigh\n")):
        with page.expect_download() as download:
            page.locator("speech-timeline").get_by_role("button", name=button).click()
        assert part in download.value.path().read_text("utf-8")


def expect_texts(locator, texts: list[str]) -> None:
    from playwright.sync_api import expect

    expect(locator).to_have_text(texts)


def test_an_example_that_comes_along_is_recognised(open_page, tones_address):
    page = open_page(tones_address)
    open_tab(page, "File")
    page.get_by_role("button", name="Example: one word").click()
    expect_status(page, "(the loudest 1 s of ")
    page.get_by_role("button", name="Example: seven words").click()
    expect_status(page, " commands in 16.6 s.")


def test_the_model_tab_shows_what_the_model_is_and_how_to_make_another(open_page):
    page = open_page()
    open_tab(page, "Model")
    page.get_by_text("There is no model card for by-loudness").wait_for()
    page.get_by_role("button", name="Train a model of your own").click()
    page.get_by_text("speech train --data my_words").wait_for()


def test_a_narrow_screen_needs_no_sideways_scrolling(open_page):
    page = open_page(viewport={"width": 390, "height": 844})
    for tab in ("Live", "File", "Model"):
        open_tab(page, tab)
        if tab == "File":
            upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
            expect_label(page, "yes")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_the_keyboard_reaches_everything_and_shows_where_it_is(open_page):
    page = open_page()
    assert {"Live", "Start", "Advanced"} <= reached(page)
    open_tab(page, "File")
    page.get_by_role("button", name="Example: one word").wait_for()
    assert {"Example: one word", "Example: seven words"} <= reached(page)


def reached(page) -> set[str]:
    """What some presses of Tab reach, each with a visible outline."""
    names = set()
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
        if outline == "solid":
            names.add(name.strip())
    return names


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colours_that_the_user_prefers(open_page, scheme):
    page = open_page(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (brightness > 600) == (scheme == "light"), colour
