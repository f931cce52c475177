"""A real browser, whose microphone plays a file, and the page that it looks at."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.hearing import by_loudness

MICROPHONE_RATE = 48_000
_PATIENCE = 60_000  # milliseconds; shared machines are slow at times
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def microphone_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's microphone hears: silence, a word-like chirp of 0.6 s, silence."""
    time = np.arange(round(0.6 * MICROPHONE_RATE)) / MICROPHONE_RATE
    chirp = np.sin(2 * np.pi * (300 + 1500 * time) * time)
    # as loud and as soft as speech is within a word, which gain control would even out
    envelope = np.sin(np.pi * time / 0.6) ** 2 * (0.55 + 0.45 * np.sin(2 * np.pi * 5 * time))
    silence = np.zeros(round(0.8 * MICROPHONE_RATE))
    path = tmp_path_factory.mktemp("microphone") / "chirp.wav"
    samples = np.concatenate([silence, 0.6 * envelope * chirp, silence])
    soundfile.write(path, samples, MICROPHONE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def browser(skip_or_fail, microphone_wav):
    """Chromium, once for all tests."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        skip_or_fail("playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        skip_or_fail("chromium is not installed")
    microphone = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone_wav}",
    )
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, *microphone])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def heard() -> list[npt.NDArray[np.float32]]:
    """The clips that the recogniser behind the page was asked about, in order."""
    return []


@pytest.fixture(scope="session")
def address(heard, tmp_path_factory) -> Iterator[str]:
    """Where the page is served."""
    pytest.importorskip("gradio")
    import app

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        recognizer = by_loudness(heard)
        # as main() does: where numba has no cache yet, the first MFCC takes half a minute
        app.answer_waveform(recognizer, np.zeros(recognizer.features.n_samples, np.float32))
        heard.clear()
        blocks = app.serve(recognizer, "127.0.0.1", port)
        yield str(blocks.local_url)
        blocks.close(verbose=False)


@pytest.fixture
def open_page(browser, address, heard) -> Iterator[Callable[..., object]]:
    """Open the page; whatever it then asks for has to be on this machine."""
    contexts, requests, errors = [], [], []

    def open_it(**options):
        context = browser.new_context(permissions=["microphone"], **options)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.goto(address)
        page.locator("#status [role=status]").wait_for()
        return page

    heard.clear()
    yield open_it
    for context in contexts:
        context.close()
    assert requests
    outside = [url for url in requests if _host(url) not in ("127.0.0.1", "")]
    assert not outside
    assert not errors


def _host(url: str) -> str:
    """ "" where nothing is asked of any host."""
    parts = urlsplit(url)
    return "" if parts.scheme in ("data", "blob") else str(parts.hostname)
