"""The Inside tab in a real browser: the cursor, the numbers at it, and cells that move live."""

import json

import numpy as np
import pytest

from speech.audio import load_audio
from speech.recognizer import load
from tests.e2e.conftest import MICROPHONE_RATE
from tests.e2e.test_browser import expect_contrast, reached
from tests.e2e.test_browser_explained import assert_equations_hold, step
from tests.test_docs import CLIP
from tests.web.test_inside import SHIPPED

pytestmark = [
    pytest.mark.browser,
    # gradio 6.31 counts its requests with what pandas 3 deprecates
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PARTS = ("layer.0.forward", "layer.0.backward", "layer.1.forward", "layer.1.backward")
# A canvas as text, to see whether it has changed
DRAWN = "document.querySelector('[data-panel=%s] canvas').toDataURL()"


@pytest.fixture(scope="module")
def inside_address(serve) -> str:
    return str(serve(load(SHIPPED), SHIPPED))


def open_inside(page) -> None:
    page.get_by_role("tab", name="Inside").click()
    page.get_by_role("button", name="Example: one word").wait_for()


def expect_status(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".inside-status")).to_contain_text(text)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_a_word_is_looked_into_at_a_cursor_that_keys_move_and_that_follows_the_sound(
    open_page, inside_address, scheme, width
):
    page = open_page(inside_address, color_scheme=scheme, viewport={"width": width, "height": 844})
    open_inside(page)
    page.get_by_role("button", name="Example: one word").click()
    expect_status(page, "the loudest part is explained")
    assert page.locator(".inside-answer").inner_text() == "commands-8: left (100 %)"
    assert page.locator(".inside-panels figcaption").count() == 12
    panels = page.locator(".inside-panels")
    for part in PARTS:
        page.locator("[name=part]").select_option(part)
        panels.press("Home")
        assert step(page) == 1
        for _ in range(3):
            panels.press("ArrowRight")
            panels.press("ArrowUp")
            assert_equations_hold(page)
        assert step(page) == 4
    panels.press("Home")
    panels.press(" ")
    page.wait_for_function(
        "document.querySelector('.inside-panels').getAttribute('aria-valuenow') > 0.4"
    )
    page.wait_for_function("document.querySelector('.inside audio').ended")
    assert step(page) == 25
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect_contrast(page)
    page.get_by_role("tab", name="Inside").focus()
    names = reached(page)
    assert {"Look inside live", "Open a recording", "Play"} <= names
    assert any(name.startswith("Time in the clip") for name in names)


def test_cells_and_gates_move_while_one_speaks_and_the_last_second_is_kept(
    open_page, speaking, inside_address
):
    word = load_audio(CLIP, MICROPHONE_RATE)
    said = np.concatenate([np.zeros(MICROPHONE_RATE, np.float32), *[word] * 8])
    page = open_page(inside_address, speaking(said.astype(np.float64), "inside"))
    open_inside(page)
    page.get_by_role("button", name="Look inside live").click()
    expect_status(page, "what you see is the last second")
    page.locator(".inside-panels canvas").first.wait_for()
    for panel in ("waveform", "cells"):  # what is out of sight is not drawn meanwhile
        page.locator(f"[data-panel={panel}]").scroll_into_view_if_needed()
        before = json.dumps(page.evaluate(DRAWN % panel))
        page.wait_for_function(f"{DRAWN % panel} !== {before}")
    assert_equations_hold(page)
    page.locator(".inside-answer", has_text="left").wait_for()
    page.get_by_role("button", name="Stop and keep the last second").click()
    page.locator("[data-panel=probabilities]").wait_for()
    expect_status(page, "The last second.")
    assert_equations_hold(page)
    assert page.get_by_role("button", name="Play", exact=True).is_visible()
    assert page.get_by_role("button", name="Microphone on").count() == 0


def test_what_cannot_be_explained_is_a_line_and_the_next_recording_is_looked_into(
    open_page, inside_address, tones_address
):
    page = open_page(inside_address)
    open_inside(page)

    def choose(name: str, content: bytes) -> None:
        file = {"name": name, "mimeType": "audio/wav", "buffer": content}
        page.locator("speech-inside input[type=file]").set_input_files(file)

    choose("<b>notes.wav", b"this is no sound\n")
    expect_status(page, "<b>notes.wav: expected WAV")
    assert page.locator(".inside-panels").count() == 0
    choose("left.wav", CLIP.read_bytes())
    expect_status(page, "left.wav: the recording lasts 1.52 s")
    page.locator(".inside-panels").wait_for()
    choose("notes.wav", b"")
    expect_status(page, "got an empty file")
    assert not page.locator(".inside-panels").is_visible()
    other = open_page(tones_address)
    open_inside(other)
    other.get_by_role("button", name="Example: one word").click()
    expect_status(other, "Example: one word: expected a model in a file, got 'tones'")
