"""The page in a real browser, as a user meets it: recordings, the model, and its look."""

import json

import pytest

from speech.audio import FORMATS
from tests.e2e.conftest import MICROPHONE_RATE
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
    expect_status(page, "yes, 97 %")
    assert page.locator("speech-timeline audio").count() == 1
    assert page.get_by_role("meter", name="yes").get_attribute("aria-valuenow") == "97"
    assert page.get_by_role("meter").count() == 4
    page.get_by_alt_text("Waveform of the clip").wait_for()
    page.get_by_alt_text("Mel-frequency cepstral coefficients").wait_for()
    for picture in pictures(page):
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1200


def test_a_bad_file_gets_a_message_and_the_next_good_one_is_recognized(open_page):
    page = open_page()
    open_tab(page, "File")
    upload(page, "first.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    page.get_by_role("button", name="Clear").click()
    expect_status(page, "Upload WAV")
    upload(page, "text.wav", b"this is no sound\n")
    expect_status(page, f"text.wav: expected {FORMATS}, got another kind of file")
    assert label(page).count() == 0, "the old label must not stand beside the message"
    assert not pictures(page)
    assert "Traceback" not in page.content()
    page.get_by_role("button", name="Clear").click()
    upload(page, "empty.wav", b"")
    expect_status(page, "empty.wav: expected an audio file")
    page.get_by_role("button", name="Clear").click()
    upload(page, "soft.wav", encode(0.1 * tone(0.7, RATE), RATE))
    expect_label(page, "no")
    expect_status(page, "no, 97 %")


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
    expect_status(page, " %")
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
    zoom = page.locator(".timeline-zoom")
    assert zoom.locator("output").inner_text() == "0:00.0 to 0:06.0"
    zoom.get_by_role("button", name="Zoom in").click()
    view = "(({ from, to }) => [from, to])(document.querySelector('speech-timeline'))"
    page.wait_for_function(f"(([from, to]) => Math.abs(to - from - 3) < 1e-9)({view})")
    zoom.get_by_role("button", name="Show all").click()
    assert zoom.locator("output").inner_text() == "0:00.0 to 0:06.0"
    for button, part in (("CSV", ",high,"), ("JSON", '"label": "high"'), ("Audacity", "\thigh\n")):
        with page.expect_download() as download:
            page.locator("speech-timeline").get_by_role("button", name=button).click()
        assert part in download.value.path().read_text("utf-8")


def expect_texts(locator, texts: list[str]) -> None:
    from playwright.sync_api import expect

    expect(locator).to_have_text(texts)


def test_an_example_that_comes_along_is_recognized(open_page, tones_address):
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
    page.get_by_role("button", name="Make a model of your own").click()
    page.get_by_text("speech teach my_words").wait_for()


def test_a_narrow_screen_needs_no_sideways_scrolling(open_page):
    page = open_page(viewport={"width": 390, "height": 844})
    for tab in ("Live", "Teach", "File", "Model"):
        open_tab(page, tab)
        if tab == "File":
            upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
            expect_label(page, "yes")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_the_keyboard_reaches_everything_and_shows_where_it_is(open_page):
    page = open_page()
    assert {"Live", "Start listening", "Advanced"} <= reached(page)
    open_tab(page, "File")
    page.get_by_role("button", name="Example: one word").wait_for()
    assert {"Record", "Example: one word", "Example: seven words"} <= reached(page)


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
def test_the_page_follows_the_colors_that_the_user_prefers(open_page, scheme):
    page = open_page(color_scheme=scheme)
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (brightness > 600) == (scheme == "light"), color


def test_a_recording_of_the_microphone_is_recognized_as_a_file_is(
    open_page, speaking, tones_address
):
    words = [(at, word) for at, word in zip((1.0, 2.5, 4.0, 5.5), ("low", "high") * 2, strict=True)]
    spoken = said(words, 8.0, MICROPHONE_RATE)
    page = open_page(tones_address, speaking(spoken, "recorded"))
    open_tab(page, "File")
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Microphone on").wait_for()
    page.get_by_text("Recording 0:07.").wait_for()
    page.get_by_role("button", name="Stop and recognize").click()
    expect_status(page, " commands in ")
    page.locator("speech-timeline tbody tr").nth(2).wait_for()
    assert page.get_by_role("button", name="Microphone on").count() == 0


CONTRASTS = """() => {
  const numbers = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below, alpha) => top.map((c, i) => c * alpha + below[i] * (1 - alpha));
  const background = (element) => {
    if (!element) return [255, 255, 255];
    const [r, g, b, a = 1] = numbers(getComputedStyle(element).backgroundColor);
    return over([r, g, b], a < 1 ? background(element.parentElement) : [0, 0, 0], a);
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest("script, style, :disabled, audio, svg")) continue;
    const style = getComputedStyle(element);
    let alpha = numbers(style.color)[3] ?? 1;
    for (let e = element; e; e = e.parentElement) alpha *= Number(getComputedStyle(e).opacity);
    if (!element.getClientRects().length || alpha === 0) continue;
    const below = background(element);
    const ink = over(numbers(style.color).slice(0, 3), below, alpha);
    const [dark, bright] = [luminance(ink), luminance(below)].sort((a, b) => a - b);
    const contrast = (bright + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (large ? 3 : 4.5)) low.push([text.slice(0, 40), Number(contrast.toFixed(2))]);
  }
  return low;
}"""


def expect_contrast(page) -> None:
    """After what fades in and out: Gradio shows so that it waits for an answer."""
    for _ in range(20):
        if not (low := page.evaluate(CONTRASTS)):
            break
        page.wait_for_timeout(250)
    assert low == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(open_page, scheme):
    """WCAG 2.2, 1.4.3 (AA): 4.5 to 1, and 3 to 1 where the letters are large."""
    page = open_page(color_scheme=scheme)
    page.get_by_text("Advanced").click()
    expect_contrast(page)
    open_tab(page, "File")
    page.get_by_role("button", name="Example: seven words").wait_for()
    expect_contrast(page)
    upload(page, "text.wav", b"this is no sound\n")
    expect_status(page, "text.wav: expected")
    expect_contrast(page)
    page.get_by_role("button", name="Clear").click()
    upload(page, "word.wav", encode(tone(0.8, RATE), RATE))
    expect_label(page, "yes")
    expect_contrast(page)
    open_tab(page, "Model")
    page.get_by_role("button", name="Make a model of your own").click()
    page.get_by_text("speech teach my_words").wait_for()
    expect_contrast(page)
