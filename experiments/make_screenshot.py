"""Take pictures of the page: the moving one that the README shows, or every tab in every look.

python experiments/make_screenshot.py          docs/app.webp, the Live tab while words are said
python experiments/make_screenshot.py --all    docs/screenshots: each tab, light and dark, 1280 and
                                               390 pixels wide
python experiments/make_screenshot.py --web    the same of the page of speech export --to web

Into the browser's microphone goes the example with seven synthesized words; the Teach tab loads
takes that are variants of three of them. Wants the extras app and dev, and Chromium. A busy machine
only makes it slower: the page is told to drop no sound.
"""

import argparse
import io
import itertools
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import speech
from speech.audio import load_audio
from speech.live.scan import scan_file
from speech.teach.takes import RATE, save_takes
from speech.web.address import Address
from speech.web.models import ModelRegistry, warm_up
from speech.web.page import EXAMPLES
from speech.web.server import serve

PROJECT = Path(__file__).parents[1]
MODEL = PROJECT / "saved_models" / "commands-8"
README_PICTURE = PROJECT / "docs" / "app.webp"
SCREENSHOTS = PROJECT / "docs" / "screenshots"
WORDS = EXAMPLES / "seven_words.flac"
MICROPHONE_RATE = 48_000
README_WIDTH, README_SECONDS = 860, 9.0  # a little more than GitHub shows; four words
FRAME = 0.125  # seconds of a picture, at least
WIDTHS = {"wide": 1280, "narrow": 390}
PATIENCE = 300_000  # milliseconds
TALLEST = 2_400  # pixels; the rest of the model card is like its beginning
COLORS = 96  # of a picture, which makes it a third as large
SECONDS = 13  # of the words, so that the timeline is full and the last word still fresh


def main() -> None:
    """Serve the page with the model and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of a model")
    parser.add_argument("--all", action="store_true", help="every tab in every look")
    parser.add_argument("--web", action="store_true", help="the exported page in every look")
    parser.add_argument("--only", default="", help="tabs whose names begin so")
    options = parser.parse_args()
    if options.web:
        take_exported(options.model)
        return
    with served(options.model) as address, speaking_browser() as browser:
        if not options.all:
            page = open_page(browser, address, README_WIDTH, "light")
            speak(page, seconds=4.0)
            film(page, README_PICTURE)
            return
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            for name, width in WIDTHS.items():
                page = open_page(browser, address, width, scheme)
                for tab, prepare in TABS.items():
                    if not tab.startswith(options.only):
                        continue
                    prepare(page)
                    keep(page, SCREENSHOTS / f"{tab}-{scheme}-{name}.png")
                page.close()


def take_exported(model: Path) -> None:
    """Pictures of the page that needs no server of its own."""
    from web_page import served as served_files

    from speech.web.export import export_page

    with tempfile.TemporaryDirectory() as folder, speaking_browser() as browser:
        exported = export_page(model, Path(folder) / "page").path
        for (name, width), scheme in itertools.product(WIDTHS.items(), ("light", "dark")):
            with served_files(exported) as address:
                page = open_page(browser, address, width, scheme)
                speak(page)
                keep(page, SCREENSHOTS / f"web-{scheme}-{name}.png")
                page.close()


def film(page: Page, path: Path) -> None:
    """Save what the page shows, down to its timeline, for a while as a moving picture."""
    bottom = page.locator(".live-figure").bounding_box()
    assert bottom is not None
    page.set_viewport_size({"width": README_WIDTH, "height": round(bottom["y"] + bottom["height"])})
    pictures, times = [], [time.monotonic()]
    while times[-1] < times[0] + README_SECONDS:
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        pictures.append(picture)
        page.wait_for_timeout(1000 * max(0.0, times[-1] + FRAME - time.monotonic()))
        times.append(time.monotonic())
    milliseconds = [round(1000 * (b - a)) for a, b in itertools.pairwise(times)]
    first, *others = pictures
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=milliseconds,
        loop=0,
        quality=40,
        method=6,
    )


def keep(page: Page, path: Path) -> None:
    """Save what the page shows, with few colors."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, TALLEST)))
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of the page with this model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    registry = ModelRegistry(warm_up(speech.load(model)), model, [model.parent], speech.load)
    blocks = serve(registry, Address(port=port))
    yield str(blocks.local_url)
    blocks.close(verbose=False)


@contextmanager
def speaking_browser(recording: Path = WORDS, once: bool = False) -> Iterator[Any]:
    """A browser whose microphone says the words of a recording, again and again or once."""
    samples, rate = soundfile.read(recording)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        wav = Path(folder) / "words.wav"
        soundfile.write(wav, soxr.resample(samples, rate, MICROPHONE_RATE), MICROPHONE_RATE)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
                *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
                f"--use-file-for-fake-audio-capture={wav}{'%noloop' * once}",
            ],
        )
        yield browser
        browser.close()


def open_page(browser: Any, address: str, width: int, scheme: str) -> Page:
    """The page, ready, in a window of this width."""
    page: Page = browser.new_page(
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        bypass_csp=True,  # Playwright waits by evaluating texts
    )
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator(".live-button").wait_for()
    page.locator("speech-model p").wait_for()
    return page


def speak(page: Page, seconds: float = SECONDS) -> None:
    """Listen for so long, then look."""
    page.locator("speech-live").evaluate("live => { live.dataset.patience = 600; }")
    page.get_by_role("button", name="Start listening").click()
    page.wait_for_function(f"document.querySelector('speech-live').answered > {seconds}")
    page.mouse.move(0, 0)


def show_drawer(page: Page) -> None:
    """The drawer of the Live tab, listening being over."""
    page.get_by_role("button", name="Stop listening").click()
    page.get_by_text("Advanced").click()
    page.wait_for_timeout(2_000)  # the last word's light goes out


def upload(page: Page, example: str, expected: str) -> None:
    """One of the examples in the File tab."""
    page.get_by_role("tab", name="File").click()
    page.get_by_role("button", name=example).click()
    page.locator("#status").get_by_text(expected).wait_for()
    page.wait_for_timeout(1_000)  # the player and the pictures arrive a little later


def refuse(page: Page) -> None:
    """A file that is no sound."""
    page.locator("#recording").get_by_role("button", name="Clear").click()
    file = {"name": "notes.wav", "mimeType": "audio/wav", "buffer": b"this is no sound\n"}
    page.locator("#recording input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    page.locator("#status .error").wait_for()


def look_inside(page: Page) -> None:
    """The Inside tab with an example."""
    page.get_by_role("tab", name="Inside").click()
    page.get_by_role("button", name="Example: one word").click()
    page.locator("[data-panel=probabilities]").wait_for()


def look_inside_live(page: Page) -> None:
    """The same while somebody speaks, until a word is seen, all of it in sight and so drawn."""
    page.set_viewport_size({"width": page.evaluate("innerWidth"), "height": TALLEST})
    page.get_by_role("button", name="Look inside live").click()
    expected = page.locator(".inside-answer").filter(has_not_text=re.compile("unknown|silence"))
    expected.and_(page.locator(".inside:not(:has([data-panel=probabilities])) *")).wait_for()


def show_model(page: Page) -> None:
    """The Model tab."""
    page.get_by_role("tab", name="Model").click()
    page.locator("#card h1, #card h2").first.wait_for()
    page.wait_for_timeout(1_000)


def takes_of_example(path: Path) -> Path:
    """A zip of eight takes of each of three words: faster and slower, louder and softer."""
    samples = load_audio(WORDS, RATE)
    variants = [*zip(np.linspace(0.92, 1.08, 8), np.geomspace(0.6, 1.6, 8), strict=True)]
    _, *detections = scan_file(speech.load(MODEL), WORDS).detections
    takes = {}
    for found, name in zip(detections, ("lamp on", "music", "time"), strict=False):
        word = samples[round(RATE * (found.time - 0.8)) :][: round(RATE * 0.8)]
        takes[name] = [
            np.pad(gain * soxr.resample(word, RATE, RATE * speed), RATE // 4).astype(np.float32)
            for speed, gain in variants
        ]
    save_takes(takes, path)
    return path


def load_takes(page: Page) -> None:
    """The Teach tab with takes, before they are taught."""
    page.get_by_role("tab", name="Teach").click()
    with tempfile.TemporaryDirectory() as folder:
        path = takes_of_example(Path(folder) / "takes.zip")
        page.locator("speech-teach input[type=file]").set_input_files(path)
        page.get_by_text("3 words with 24 takes").wait_for()


def teach(page: Page) -> None:
    """What they were taught."""
    page.get_by_role("button", name="Teach", exact=True).click()
    page.get_by_text("Taught in").wait_for()
    page.wait_for_timeout(1_000)


TABS = {
    "first": lambda page: page.mouse.move(0, 0),
    "live": speak,
    "live-drawer": show_drawer,
    "file-word": lambda page: upload(page, "Example: one word", "left"),
    "file-long": lambda page: upload(page, "Example: seven words", "commands in"),
    "file-refused": refuse,
    "model": show_model,
    "inside": look_inside,
    "inside-live": look_inside_live,
    "teach": load_takes,
    "teach-taught": teach,  # the last: from then on the page says so on every tab
}


if __name__ == "__main__":
    main()
