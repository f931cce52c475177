"""The exported page, shown by a plain server of static files in a browser with a microphone."""

import shutil
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from speech.audio import load_audio
from speech.cli.main import app
from speech.live.scan import scan_file
from speech.recognizer import load
from speech.stream import StreamDecoder
from speech.web.export import export_page
from tests.e2e.conftest import ALLOWED, FAKE, MICROPHONE_RATE
from tests.e2e.static_server import static_server

pytestmark = pytest.mark.browser
PROJECT = Path(__file__).parents[2]
WORDS = PROJECT / "speech" / "web" / "static" / "examples" / "seven_words.flac"
PATIENCE = 120_000  # milliseconds
EMBEDDED = """<!doctype html><html lang="en"><head>
<link rel="stylesheet" href="words/speech-commands.css">
<script type="module" src="words/speech-commands.js"></script>
</head><body><speech-commands src="words/model.onnx"></speech-commands></body></html>"""
LISTEN = """async () => {
  const { listen } = await import("/speech-commands.js");
  const [found, steps] = [[], []];
  const listener = await listen({
    src: "/model.onnx",
    onDetection: (detection) => found.push(detection),
    onStep: (step) => steps.push(step),
  });
  while (!steps.length || steps.at(-1).time < 6.5)
    await new Promise((resolve) => setTimeout(resolve, 100));
  await listener.stop();
  return { found, settings: listener.settings, steps: steps.length };
}"""
SCAN = """async ({ pcm, rate }) => {
  const { Engine } = await import("/engine.js");
  const engine = await Engine.open(new URL("/model.onnx", location).href);
  const listener = engine.listener();
  const bytes = Uint8Array.from(atob(pcm), (letter) => letter.charCodeAt());
  const samples = new Int16Array(bytes.buffer);
  const messages = [];
  for (let at = 0; at < samples.length; at += 4000)
    messages.push(...(await listener.push(samples.subarray(at, at + 4000), rate)));
  return [...messages, ...(await listener.end())].filter(({ type }) => type === "detection");
}"""


CLASSIFY = """async ({ clip }) => {
  const { Engine } = await import("/engine.js");
  const engine = await Engine.open(new URL("/model.onnx", location).href);
  return [...(await engine.classify(Float32Array.from(clip)))];
}"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory, skip_or_fail) -> Path:
    """The bundled model as a page."""
    from speech.errors import ModelError

    folder = tmp_path_factory.mktemp("exported") / "page"
    try:
        return export_page(PROJECT / "saved_models" / "commands-8", folder).path
    except ModelError as error:
        return skip_or_fail(f"the npm package of the runtime cannot be had: {error}")


@pytest.fixture(scope="module")
def address(exported):
    with static_server(exported) as address:
        yield address


@pytest.fixture
def visit(launch, address):
    """``visit(path, chromium)``: a page that asks nobody else, and to which nothing is refused."""
    contexts, requests, problems = [], [], []

    def visit(at=address, chromium=None, problems_expected=False, **options):
        context = (chromium or launch(ALLOWED, FAKE)).new_context(
            **{"permissions": ["microphone"], **options}
        )
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        if not problems_expected:
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda said: problems.append(said.text) if is_bad(said) else None)
        page.goto(at)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert requests
    assert not [url for url in requests if "://127.0.0.1:" not in url and "://speech." not in url]
    assert not problems


def is_bad(message) -> bool:
    is_icon = message.location["url"].endswith("/favicon.ico")  # browsers ask for it by themselves
    return message.type in ("error", "warning") and not is_icon


def ready(page) -> None:
    element = page.locator("speech-commands[data-state]")
    assert element.get_attribute("data-state") == "ready", element.inner_text()


def start(page) -> None:
    page.locator("speech-live").evaluate("live => { live.dataset.patience = 60; }")
    page.get_by_role("button", name="Start listening").click()
    page.locator("speech-live[data-state=listening]").wait_for()


def expect_words(page, words) -> None:
    from playwright.sync_api import expect

    cells = page.locator("speech-live tr.detection td:nth-child(2)")
    expect(cells).to_have_text([*reversed(words)], timeout=PATIENCE)


@pytest.fixture(scope="module")
def speaker(speaking):
    """A browser that is told two of the words once, after the time that it takes to listen."""
    sound = load_audio(WORDS, MICROPHONE_RATE).astype(np.float64)[: 5 * MICROPHONE_RATE]
    return speaking(np.pad(sound, (MICROPHONE_RATE // 2, 2 * MICROPHONE_RATE)), "exported")


@pytest.fixture(scope="module")
def scanned():
    return scan_file(load(), WORDS).detections


@pytest.fixture(scope="module")
def said(scanned):
    words = [detection.label for detection in scanned[:2]]
    assert words == ["yes", "left"]
    return words


def scan(page, samples, rate: int) -> list[dict[str, Any]]:
    """The detections of the page in a recording."""
    return page.evaluate(SCAN, {"pcm": b64encode(samples.tobytes()).decode(), "rate": rate})


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_the_page_detects_in_a_recording_is_what_scan_finds(visit, address, scanned, rate):
    samples = np.round(32_768 * load_audio(WORDS, rate)).clip(-32_768, 32_767).astype(np.int16)
    found = scan(visit(f"{address}icon.svg"), samples, rate)
    assert [d["label"] for d in found] == [d.label for d in scanned]
    for got, wanted in zip(found, scanned, strict=True):
        assert got["time"] == pytest.approx(wanted.time, abs=0.11)
        assert got["probability"] == pytest.approx(wanted.probability, abs=0.01)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_model_of_other_words_is_answered_as_in_python(visit, exported, tmp_path, precision):
    from tests import exports, tiny

    folder = shutil.copytree(exported, tmp_path / "page")
    made = exports.model()
    made.decoder = {}  # the usual settings
    exports.write_described(made, folder / "model.onnx", precision=precision)
    recognizer = load(folder / "model.onnx")
    clip = tiny.tone("high", np.random.default_rng(2))
    with static_server(folder) as address:
        page = visit(address)
        ready(page)
        assert page.locator(".live-chips li").all_inner_texts() == ["low", "high"]
        assert page.get_by_role("button", name="Play the demo").count() == 0
        got = page.evaluate(CLASSIFY, {"clip": clip.tolist()})
        page.close()  # before the server, which the service worker may still ask
    expected = recognizer.probabilities(clip[np.newaxis])[0]
    # 8 bits are added up in another order, on another processor
    assert got == pytest.approx(expected, abs=1e-4 if precision == "float32" else 0.02)


def test_what_speech_teach_makes_goes_the_same_way(visit, exported, tmp_path, speech_commands):
    words, clips = ("marvin", "happy"), []
    for word in words:
        takes = sorted((speech_commands / word).iterdir())[:8]
        (tmp_path / "takes" / word).mkdir(parents=True)
        for take in takes[:5]:
            shutil.copy(take, tmp_path / "takes" / word)
        clips += [np.pad(load_audio(take, 16_000), (0, 8_000)) for take in takes[5:]]
    taught = ["teach", str(tmp_path / "takes"), "--out", str(tmp_path / "mine")]
    assert CliRunner().invoke(app, taught).exit_code == 0
    page_of_it = export_page(tmp_path / "mine", tmp_path / "page").path
    pcm = np.round(32_768 * np.concatenate(clips)).clip(-32_768, 32_767).astype(np.int16)
    decoder = StreamDecoder(load(tmp_path / "mine"))
    expected = decoder.push(pcm, 16_000) + decoder.flush()
    assert {d.label for d in expected} == {*words}
    with static_server(page_of_it) as address:
        found = scan(visit(f"{address}icon.svg"), pcm, 16_000)
    assert [d["label"] for d in found] == [d.label for d in expected]


def test_the_demo_is_played_and_listened_to(visit, scanned):
    page = visit(permissions=[])
    ready(page)
    page.locator("speech-live").evaluate("live => { live.dataset.patience = 60; }")
    page.get_by_role("button", name="Play the demo").click()
    page.locator("speech-live tr.detection").first.wait_for()
    assert page.locator(".live-word").inner_text() == scanned[0].label


def test_without_a_connection_a_second_visit_works_all_the_same(visit, exported, speaker, said):
    from playwright.sync_api import expect

    with static_server(exported) as address:
        page = visit(address, chromium=speaker)
        ready(page)
        expect(page.locator("#offline")).to_contain_text("without a connection")
    page.context.set_offline(True)
    page.reload()
    ready(page)
    start(page)
    expect_words(page, said)


def test_a_script_of_another_page_listens(visit, address, speaker, said):
    page = visit(f"{address}LICENSE-onnxruntime.txt", chromium=speaker)
    result = page.evaluate(LISTEN)
    assert [d["label"] for d in result["found"]] == said
    assert result["settings"]["commands"][:2] == ["yes", "no"]
    assert result["steps"] > 50


def test_the_element_works_in_another_page_and_tells_what_was_detected(
    visit, exported, tmp_path, speaker, said
):
    shutil.copytree(exported, tmp_path / "words")
    (tmp_path / "mine.html").write_text(EMBEDDED)
    (tmp_path / "favicon.ico").write_bytes(b"")
    with static_server(tmp_path) as address:
        page = visit(f"{address}mine.html", chromium=speaker)
        ready(page)
        page.evaluate("""() => {
          window.told = [];
          document.querySelector("speech-commands").addEventListener(
            "speech-detection", ({ detail }) => window.told.push(detail.label));
        }""")
        start(page)
        expect_words(page, said)
        assert page.evaluate("window.told") == said


def test_on_a_telephone_words_light_up_and_nothing_is_cut_off(visit, speaker, said):
    telephone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = visit(chromium=speaker, **telephone)
    ready(page)
    start(page)
    page.locator(".live-chips li.lit").first.wait_for()
    expect_words(page, said)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for button in page.get_by_role("button").all():
        if button.is_visible():
            box = button.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
    page.get_by_role("button", name="Stop listening").click()
    assert page.locator(".live-word").inner_text() == said[-1]


def expect_sentence(page, *parts) -> None:
    from playwright.sync_api import expect

    line = page.locator("speech-commands > p.error, .live-status.error")
    for part in parts:
        expect(line).to_contain_text(part)
    assert line.count() == 1
    assert "\n" not in line.inner_text()


def test_a_browser_without_simd_gets_a_sentence(visit, launch):
    old = launch(ALLOWED, FAKE, "--js-flags=--no-enable-sse4-1 --no-enable-sse3 --no-enable-ssse3")
    page = visit(chromium=old)
    expect_sentence(page, "This browser has no WebAssembly SIMD", "use Chrome or Edge 92")


def test_a_browser_without_audio_worklet_gets_a_sentence(visit, launch, address):
    page = visit(address)
    ready(page)
    page.evaluate("delete window.AudioWorkletNode")
    page.get_by_role("button", name="Start listening").click()
    expect_sentence(page, "This browser has no AudioWorklet", "use Chrome or Edge 66")


def test_an_address_that_is_not_safe_gets_a_sentence(visit, launch, address):
    elsewhere = launch("--host-resolver-rules=MAP speech.test 127.0.0.1")
    at = address.replace("127.0.0.1", "speech.test")
    page = visit(at, chromium=elsewhere, permissions=[])
    ready(page)
    page.get_by_role("button", name="Start listening").click()
    expect_sentence(page, "speech.test", "https")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("model.onnx", None, "expected the file model.onnx beside this page, got status 404"),
        ("model.onnx", b"not a model", "expected a model, got another or a damaged file"),
        ("model.onnx", b"", "expected a model of speech export, got another one"),
        ("onnxruntime.wasm", None, "expected a model that this browser can run, got an error"),
        ("engine.js", None, "a file of this page is missing or damaged"),
        ("live.html", None, "expected the file live.html, got status 404"),
    ],
)
def test_a_file_that_is_missing_or_another_gets_a_sentence(
    visit, exported, tmp_path, file, content, sentence
):
    folder = shutil.copytree(exported, tmp_path / "page")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with static_server(folder) as address:
        page = visit(address, problems_expected=True)
        expect_sentence(page, sentence)


def test_a_page_that_is_exported_again_comes_whole_and_new(visit, exported, tmp_path):
    from playwright.sync_api import expect

    folder = shutil.copytree(exported, tmp_path / "page")
    with static_server(folder) as address:
        page = visit(address)
        expect(page.locator("#offline")).to_contain_text("without a connection")
        from speech.web import export

        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        files["index.html"] = files["index.html"].replace(b"<h1>Speech", b"<h1>My speech")
        files["service-worker.js"] = export.service_worker(files)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        page.reload()  # the old one, while the new one is fetched
        ready(page)
        expect(page.locator("#offline")).to_contain_text("without a connection")
        for _ in range(50):
            page.reload()
            ready(page)
            if page.locator("h1").inner_text() == "My speech commands":
                break
            page.wait_for_timeout(200)
        assert page.locator("h1").inner_text() == "My speech commands"
