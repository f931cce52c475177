"""The Teach tab in a real browser: from the first click to the first word that is detected live."""

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal

from speech.audio import load_audio
from speech.live.scan import scan_file
from speech.recognizer import load
from speech.teach.takes import read_takes, save_takes
from speech.web.page import EXAMPLES
from tests.e2e.conftest import FAKE, MICROPHONE_RATE
from tests.e2e.test_browser import expect_contrast, open_tab
from tests.e2e.test_browser_live import pytestmark
from tests.security.conftest import record

__all__ = ["pytestmark", "record"]
ROOT = Path(__file__).parents[2]
RATE = 16_000
NAMES = ("lamp on", "музыка", "third", "fourth")
PAUSE = 1.1  # seconds between two words
# Presses the key before each word of the microphone that is wanted, in the time of the sound,
# with which a busy machine may be late.
SPEAKER = """(labels) => {
  const teach = document.querySelector("speech-teach");
  const recorder = document.querySelector("speech-take-recorder");
  const receive = recorder.receive;
  let [said, quiet, isLoud] = [0, 0, false];
  recorder.receive = function (piece) {
    receive.call(this, piece);
    quiet = piece.some((sample) => Math.abs(sample) > 1500) ? 0 : quiet + 1;
    isLoud ||= quiet === 0;
    if (isLoud && quiet === 6) { isLoud = false; said += 1; }
    const label = labels[said];
    if (isLoud || quiet < 6 || this.take || !label) return;
    teach.choose(label);
    for (const type of ["keydown", "keyup"]) {
      this.button.dispatchEvent(new KeyboardEvent(type, { key: " ", bubbles: true }));
    }
  };
}"""


def variants(word: np.ndarray, n: int) -> list[np.ndarray]:
    """Takes of a word, float64 at 16 kHz: faster and slower, louder and softer."""
    rates = np.linspace(0.93, 1.07, n)
    takes = [scipy.signal.resample(word, round(len(word) * rate)) for rate in rates]
    return [take * gain for take, gain in zip(takes, np.geomspace(0.5, 0.9, n), strict=True)]


@pytest.fixture(scope="module")
def words() -> list[np.ndarray]:
    """The first four words of the example, each at full scale."""
    example = EXAMPLES / "seven_words.flac"
    samples = load_audio(example, RATE).astype(np.float64)
    found = scan_file(load(ROOT / "saved_models" / "commands-8"), example).detections
    cut = [samples[round(RATE * (d.time - 0.8)) :][: round(RATE * 0.8)] for d in found[:4]]
    return [word * scipy.signal.windows.tukey(len(word), 0.1) / np.abs(word).max() for word in cut]


@pytest.fixture(scope="module")
def saved(words, tmp_path_factory) -> Path:
    """A zip of six takes of each word, as the tab saves them."""
    path = tmp_path_factory.mktemp("takes") / "my-words.zip"
    pause = RATE // 4
    takes = {
        name: [np.pad(take, pause).astype(np.float32) for take in variants(word, 6)]
        for name, word in zip(NAMES[:2], words, strict=False)
    }
    save_takes(takes, path)
    return path


def say(takes: list[np.ndarray]) -> np.ndarray:
    """The takes one after the other, at the rate of the microphone, in a quiet room."""
    pause = np.zeros(round(PAUSE * RATE))
    spoken = np.concatenate([np.zeros(RATE), *(part for take in takes for part in (take, pause))])
    spoken = scipy.signal.resample_poly(spoken, MICROPHONE_RATE // RATE, 1)
    return spoken + np.random.default_rng(1).normal(0, 0.0005, len(spoken))


def name_words(page, *names: str) -> None:
    for name in names:
        page.get_by_label("A word or a short phrase").fill(name)
        page.keyboard.press("Enter")
        page.locator(".teach-choose", has_text=name).wait_for()


def load_zip(page, path: Path) -> None:
    open_tab(page, "Teach")
    page.locator("speech-teach input[type=file]").set_input_files(path)
    expect_line(page, "2 words with 12 takes")


def expect_line(page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".teach-status")).to_contain_text(text)


def expect_taught(page) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".teach-outcome")).to_contain_text("Taught in ")
    expect(page.locator(".teach-report")).to_be_visible()


def teach(page) -> None:
    page.get_by_role("button", name="Teach", exact=True).click()
    expect_taught(page)


def takes_of(page) -> dict[str, int]:
    rows = page.locator(".teach-words > li").all()
    return {
        row.get_attribute("data-word"): row.locator(".teach-takes > li").count() for row in rows
    }


def count_of(page, n: int) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".teach-takes > li")).to_have_count(n)


def from_click_to_detection(page, words, n_takes: int) -> float:
    """Name, record, teach and try the words; the seconds from the first click on."""
    from playwright.sync_api import expect

    names = NAMES[: len(words)]
    page.locator("speech-live").evaluate("live => { live.dataset.patience = 60; }")
    began = time.monotonic()
    open_tab(page, "Teach")
    name_words(page, *names)
    page.evaluate(SPEAKER, [None, *(name for name in names for _ in range(n_takes))])
    page.get_by_role("button", name="Turn on the microphone").click()
    count_of(page, n_takes * len(names))
    assert takes_of(page) == dict.fromkeys(names, n_takes)
    assert page.locator(".teach-takes .fault p").all_inner_texts() == []
    teach(page)
    page.get_by_role("button", name="Try it live").click()
    expect(page.locator(".live-chips li")).to_have_text([*names])
    detection = page.locator("speech-live tr.detection").last  # the first one that was detected
    expect(detection).to_contain_text(names[0])
    return time.monotonic() - began


def spoken(words, n_takes: int) -> np.ndarray:
    """One take of the first word that nobody records, then all takes of all words."""
    takes = [variants(word, 2 * n_takes - 1) for word in words]
    return say([takes[0][n_takes - 1 + n_takes % 2], *(t for each in takes for t in each[::2])])


def test_two_words_are_named_recorded_taught_detected_live_and_corrected(
    open_page, speaking, address, words, capsys
):
    from playwright.sync_api import expect

    page = open_page(address, speaking(spoken(words[:2], 3), "two words"))
    seconds = from_click_to_detection(page, words[:2], 3)
    with capsys.disabled():
        print(f"\n2 words x 3 takes, first click to first detection: {seconds:.0f} s")
    page.get_by_role("button", name="Stop listening").click()
    detection = page.locator("speech-live tr.detection").last
    detection.get_by_role("button", name="Wrong?").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert takes_of(page) == dict.fromkeys(NAMES[:2], 3), "nothing is kept before the answer"
    detection.get_by_role("button", name="Wrong?").click()
    page.get_by_role("dialog").get_by_role("button", name=f"I said “{NAMES[1]}”").click()
    count_of(page, 7)
    assert takes_of(page)[NAMES[1]] == 4
    detection.get_by_role("button", name="Wrong?").click()
    page.get_by_role("dialog").get_by_role("button", name="None of my words").click()
    count_of(page, 8)
    assert takes_of(page) == {NAMES[0]: 3, NAMES[1]: 4, "": 1}
    page.get_by_role("button", name="Back to ").click()
    expect(page.locator(".live-chips li")).to_have_text(["yes", "no"])


@pytest.mark.campaign
def test_four_words_are_taught_within_two_minutes(open_page, speaking, address, words, record):
    """Eight takes of each, a minute of recording; the figure is recorded and not asserted."""
    samples = spoken(words, 8)
    page = open_page(address, speaking(samples, "four words"))
    seconds = from_click_to_detection(page, words, 8)
    record(
        "four words taught in the page",
        {
            "takes of each": 8,
            "recording, s": round(len(samples) / MICROPHONE_RATE),
            "first click to first detection, s": round(seconds),
        },
    )


def tab_to(page, name: str) -> None:
    """Press Tab until it is there, which shows by an outline."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found, outline = page.evaluate(
            """() => {
                const at = document.activeElement;
                const name = at.getAttribute("aria-label") || at.labels?.[0]?.innerText;
                return [name || at.innerText, getComputedStyle(at).outlineStyle];
            }"""
        )
        if found.strip().startswith(name):
            assert outline == "solid"
            return
    raise AssertionError(f"no press of Tab leads to {name}")


def test_the_keyboard_alone_names_records_and_deletes(open_page):
    page = open_page()
    tab_to(page, "Teach")
    page.keyboard.press("Enter")
    tab_to(page, "A word or a short phrase")
    page.keyboard.type("lamp")
    page.keyboard.press("Enter")
    expect_line(page, "“lamp” is there.")
    tab_to(page, "Turn on the microphone")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Record “lamp”").wait_for()
    page.keyboard.press("Space")  # a tap: it ends by itself, since the microphone beeps
    count_of(page, 1)
    page.keyboard.down("Space")
    page.wait_for_timeout(900)
    page.keyboard.up("Space")
    count_of(page, 2)
    tab_to(page, "Play take 2 of lamp, 1.")
    tab_to(page, "Delete take 2 of lamp")
    page.keyboard.press("Enter")
    count_of(page, 1)
    page.keyboard.press("Shift+Tab")
    tab_to(page, "Delete take 1 of lamp")
    page.keyboard.press("Space")
    count_of(page, 0)


def test_a_button_that_is_held_records_until_it_is_let_go(open_page):
    page = open_page()
    open_tab(page, "Teach")
    name_words(page, "lamp")
    page.get_by_role("button", name="Turn on the microphone").click()
    page.get_by_role("button", name="Record “lamp”").hover()
    page.mouse.down()
    page.get_by_role("button", name="Recording").wait_for()
    page.wait_for_timeout(900)
    page.mouse.up()
    count_of(page, 1)
    seconds = page.evaluate(
        """(([{ pcm, rate }]) => pcm.length / rate)(
            [...document.querySelector("speech-teach").sounds.values()])"""
    )
    assert seconds > 0.8
    page.get_by_role("button", name="Microphone on").click()
    page.get_by_role("button", name="Turn on the microphone").wait_for()


def test_a_take_is_shown_replayed_and_deleted(open_page, saved):
    page = open_page()
    load_zip(page, saved)
    painted = page.locator(".teach-takes canvas").evaluate_all(
        """(all) => all.every((canvas) => canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0))"""
    )
    assert painted
    page.evaluate(
        """() => {
            window.played = [];
            window.speechPlay = (samples, rate) => window.played.push([samples.length, rate]);
        }"""
    )
    page.get_by_role("button", name="Play take 2 of lamp on").click()
    take = read_takes(saved)[NAMES[0]][1]
    assert page.evaluate("window.played") == [[len(take), RATE]]
    page.get_by_role("button", name="Delete take 2 of lamp on").click()
    count_of(page, 11)
    page.get_by_role("button", name="Delete the word lamp on").click()
    count_of(page, 6)
    assert takes_of(page) == {NAMES[1]: 6}


def test_saved_takes_come_back_sample_by_sample(open_page, saved, tmp_path):
    page = open_page()
    load_zip(page, saved)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save takes (zip)").click()
    download.value.save_as(tmp_path / "again.zip")
    before, after = read_takes(saved), read_takes(tmp_path / "again.zip")
    assert [*before] == [*after]
    for name in NAMES[:2]:
        for one, other in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(one, other)
    page.get_by_role("button", name="Delete the word lamp on").click()
    count_of(page, 6)
    load_zip(page, tmp_path / "again.zip")
    count_of(page, 12)


def test_what_is_no_word_and_no_zip_is_a_sentence_and_nothing_is_lost(open_page, saved, tmp_path):
    page = open_page()
    load_zip(page, saved)
    page.get_by_label("A word or a short phrase").fill("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    expect_line(page, "<img src=x onerror=alert(1)>")
    assert page.locator("speech-teach img").count() == 0
    page.get_by_label("A word or a short phrase").fill("lamp {{value}} ${1} **b**")
    page.keyboard.press("Enter")
    expect_line(page, "choose another name")
    foreign = tmp_path / "<b>foreign<i>.zip"
    foreign.write_bytes(b"no zip at all")
    page.locator("speech-teach input[type=file]").set_input_files(foreign)
    expect_line(page, "the file: expected")
    assert page.locator("speech-teach b").count() == 0
    assert takes_of(page) == dict.fromkeys(NAMES[:2], 6)


def test_a_full_disk_of_the_server_is_a_sentence_and_the_takes_are_saved_later(
    open_page, saved, monkeypatch
):
    page = open_page()
    load_zip(page, saved)
    downloads: list[object] = []
    page.on("download", lambda download: downloads.append(download))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(zipfile.ZipFile, "writestr", full)
        page.get_by_role("button", name="Save takes (zip)").click()
        outcome = page.locator("speech-teach .error", has_text="'No space left on device'; make")
        outcome.wait_for()
    assert not downloads
    assert takes_of(page) == dict.fromkeys(NAMES[:2], 6)
    with page.expect_download():
        page.get_by_role("button", name="Save takes (zip)").click()


def test_takes_that_the_server_has_forgotten_are_sent_again(open_page, saved):
    page = open_page()
    load_zip(page, saved)
    page.evaluate("window.speechAsk(`teach/${document.querySelector('speech-teach').key}/end`)")
    name_words(page, "third")
    assert takes_of(page) == dict.fromkeys(NAMES[:2], 6) | {"third": 0}
    page.get_by_role("button", name="Play take 2 of lamp on").click()


def test_a_microphone_that_was_not_allowed_is_a_sentence_here_too(open_page, launch):
    from playwright.sync_api import expect

    page = open_page(chromium=launch(FAKE), permissions=())
    open_tab(page, "Teach")
    name_words(page, "lamp")
    page.get_by_role("button", name="Turn on the microphone").click()
    hint = page.locator("speech-take-recorder p")
    expect(hint).to_contain_text("was not allowed to use the microphone: allow it")
    expect(hint).to_contain_text("then press the button again.")


def test_two_pages_that_teach_at_once_get_their_own_words(open_page, saved, tmp_path):
    """One is dark and one is narrow, where every text stands out and nothing lies aside."""
    from playwright.sync_api import expect

    takes = read_takes(saved)
    names = ("first", "second")
    looks: tuple[dict[str, Any], ...] = (
        {"color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}},
    )
    pages = []
    for name, look, word in zip(names, looks, NAMES[:2], strict=True):
        save_takes({name: takes[word]}, tmp_path / f"{name}.zip")
        page = open_page(**look)
        open_tab(page, "Teach")
        page.locator("speech-teach input[type=file]").set_input_files(tmp_path / f"{name}.zip")
        expect_line(page, "1 word with 6 takes")
        pages.append(page)
    for page in pages:
        page.get_by_role("button", name="Teach", exact=True).click()
    for name, page in zip(names, pages, strict=True):
        expect_taught(page)
        expect(page.locator("speech-live .live-chips li")).to_have_text([name])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_text("Keep other commands too").wait_for(state="attached")
        expect_contrast(page)
