"""Real browsers, whose microphones play files, and the pages that they look at."""

import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from speech.recognizer import Recognizer
from tests.e2e import sound_card, tones
from tests.e2e.sound_card import SoundCard
from tests.hearing import by_loudness

MICROPHONE_RATE = 48_000
_PATIENCE = 120_000  # milliseconds; shared machines are slow at times
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
)
ALLOWED = "--use-fake-ui-for-media-stream"  # nobody is there to press Allow
FAKE = "--use-fake-device-for-media-stream"

_reached: list[Any] = []  # hosts that this process, which is the server too, wanted to reach
_watching = threading.Event()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching.is_set():
        return
    if event == "socket.connect":
        _reached.append(arguments[1])
    elif event == "socket.getaddrinfo":
        _reached.append((arguments[0], arguments[1]))


sys.addaudithook(_watch)


def microphone_file(path: Path, samples: npt.NDArray[np.float64]) -> Path:
    """A file that the browser plays into its microphone, 48 kHz."""
    soundfile.write(path, samples, MICROPHONE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def launch(skip_or_fail) -> Iterator[Callable[..., Any]]:
    """``launch(*flags)``: a Chromium with these flags, each kind once for all tests."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        skip_or_fail("playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        skip_or_fail("chromium is not installed")
    expect.set_options(timeout=_PATIENCE)
    browsers: dict[tuple[str, ...], Any] = {}
    with sync_playwright() as playwright:

        def launch(*flags: str) -> Any:
            if flags not in browsers:
                browsers[flags] = playwright.chromium.launch(
                    executable_path=chromium, args=[*QUIET, *flags]
                )
            return browsers[flags]

        yield launch
        for browser in browsers.values():
            browser.close()


@pytest.fixture(scope="session")
def speaking(launch, tmp_path_factory) -> Callable[..., Any]:
    """``speaking(samples, name)``: a browser into whose microphone this is said, once."""
    folder = tmp_path_factory.mktemp("microphones")

    def speaking(samples: npt.NDArray[np.float64], name: str) -> Any:
        path = folder / f"{name}.wav"
        if not path.exists():
            microphone_file(path, samples)
        return launch(ALLOWED, FAKE, f"--use-file-for-fake-audio-capture={path}%noloop")

    return speaking


@pytest.fixture(scope="session")
def browser(launch) -> Any:
    """One whose microphone beeps, for what needs none."""
    return launch(ALLOWED, FAKE)


@pytest.fixture(scope="session")
def serve(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """``serve(recognizer, home)``: the address of a page with that model, which lies there."""
    pytest.importorskip("gradio")
    from speech.web.address import Address
    from speech.web.models import ModelRegistry, warm_up
    from speech.web.server import serve as serve_page

    served = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))

        def serve(recognizer: Recognizer, home: Path | None = None) -> str:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            # where numba has no cache yet, the first MFCC takes half a minute
            blocks = serve_page(ModelRegistry(warm_up(recognizer), home), Address(port=port))
            served.append(blocks)
            return str(blocks.local_url)

        yield serve
        for blocks in served:
            blocks.close(verbose=False)


@pytest.fixture(scope="session")
def address(serve) -> str:
    """A page whose model goes by loudness."""
    return str(serve(by_loudness()))


@pytest.fixture(scope="session")
def tones_address(serve) -> str:
    """A page whose model knows words that are tones."""
    return str(serve(tones.recognizer()))


@pytest.fixture
def open_page(address, browser) -> Iterator[Callable[..., Any]]:
    """Open a page; whatever browser and server then ask for has to be on this machine."""
    contexts, requests, errors = [], [], []

    def open_it(at=address, chromium=browser, permissions=("microphone",), **options):
        context = chromium.new_context(permissions=[*permissions], **options)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.goto(at)
        page.locator("speech-model p").wait_for()
        page.locator(".live-button").wait_for()
        return page

    _reached.clear()
    _watching.set()
    yield open_it
    for context in contexts:
        context.close()
    _watching.clear()
    assert requests
    outside = [url for url in requests if _host(url) not in ("127.0.0.1", "speech.test", "")]
    assert not outside
    assert not [place for place in _reached if not _is_local(place)]
    assert not errors


def _host(url: str) -> str:
    """ "" where nothing is asked of any host."""
    parts = urlsplit(url)
    return "" if parts.scheme in ("data", "blob") else str(parts.hostname)


def _is_local(place: Any) -> bool:
    """Whether an address of a socket, or a name and port that were looked up, is this machine."""
    if not isinstance(place, tuple):
        return True  # a Unix socket
    host = place[0].decode() if isinstance(place[0], bytes) else place[0]
    return host in (None, "localhost", "::1") or str(host).startswith("127.")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="card"))  # pytest's own are too long for a socket
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def card(skip_or_fail, folder) -> Iterator[SoundCard]:
    """A sound card that this process and those it starts can use."""
    if lacking := sound_card.missing():
        skip_or_fail(f"not installed: {lacking}")
    try:
        import sounddevice

        from speech.live.microphone import devices
    except (ImportError, OSError) as error:
        skip_or_fail(f"no PortAudio: {error}")
    made = SoundCard(folder / "card")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.variables.items():
            patch.setenv(name, value)
        made.start()
        sounddevice._terminate()
        sounddevice._initialize()
        if sound_card.DEVICE not in [device.name for device in devices()]:
            made.kill()
            skip_or_fail("ALSA has no plugin for PulseAudio: install libasound2-plugins")
        yield made
        made.kill()
    sounddevice._terminate()
    sounddevice._initialize()
