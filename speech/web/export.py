"""A model as a folder of static files: a page that listens in the browser without any server.

What is the page's own lies in ``standalone/``; the Live tab it shares with ``speech app``. ONNX
Runtime's WebAssembly is no part of this package: it comes from the npm package ``onnxruntime-web``,
of one version, whose digest stands here.
"""

import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speech.data.download import Archive, download
from speech.detection import DecoderConfig
from speech.environment import cache_folder
from speech.errors import CorpusError, ModelError, SpeechError
from speech.files import sha256
from speech.formats.carried import refuse_causal
from speech.formats.folder import ModelFolder
from speech.formats.metadata import FORMAT
from speech.labels import SILENCE, UNKNOWN
from speech.live import session
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer, load
from speech.stream import chosen_for
from speech.web import near_misses
from speech.web.sessions import DEMO_WORDS, SENSITIVITIES

RUNTIME = Archive(
    # by the address that npm asks where nothing else is configured
    "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.24.3.tgz",
    "d521349a11a1f6012ce6b21fcdafce310b3111bbb7552a1d1f7dcb2714b76d78",
    30_848_838,
)
_PACKAGE = Path(RUNTIME.url).stem.replace("web-", "web@")
# of the builds in it the one for processors only, a third of the others
_RUNTIME_FILES = {
    "onnxruntime.js": "package/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
_STATIC = Path(__file__).parent / "static"
_STANDALONE = Path(__file__).parent / "standalone"
_SHARED = (
    *("model.js", "source.js", "rolling.js", "history.js", "live.js"),
    *("live.html", "page.css", "worklet.js"),
)
_DEMO = "live/demo"
_MARK = '<meta name="generator" content="speech export --to web">'


class ExportedPage(NamedTuple):
    """A page that was written.

    Attributes:
        path: The folder.
        files: How many files the page has.
        size: Their bytes.
    """

    path: Path
    files: int
    size: int


def export_page(
    model: Path,
    out: Path | None = None,
    runtime: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> ExportedPage:
    """Write a page that listens with a model in the browser, and needs no server of its own.

    Any server of static files shows it, below any path: GitHub Pages, a static Space, or
    ``python -m http.server``. The files of an earlier page are replaced, others stay.

    Args:
        model: The folder of a model that has a ``model.onnx``, or an ``.onnx`` file.
        out: The folder of the page; by default one beside the others of the working folder, which
            is called like the model, with ``-web`` behind it.
        runtime: The npm package ``onnxruntime-web`` of the version that ``RUNTIME`` names, as the
            file that ``npm pack`` makes; by default it is downloaded once and kept.
        on_progress: Told bytes done and bytes in all of that download.

    Raises:
        ModelError: Not a model, none for a browser, or the package cannot be had.
        SpeechError: The folder holds another page, or cannot be written.
    """
    file = ModelFolder(model).onnx if model.is_dir() else model
    if file.suffix != ".onnx" or not file.is_file():
        got = f"a {file.suffix or 'nameless'} file" if file.is_file() else "no file there"
        raise ModelError(
            f"{file}: expected an .onnx file, which is what a browser can run, got {got}; make one "
            "with: speech export FOLDER_OF_THE_MODEL"
        )
    recognizer = load(file)
    refuse_causal(file, recognizer)
    chosen_for(recognizer)  # refused here, not in the browser
    if model.is_dir():
        ModelFolder(model).refuse_stale(file)
    name = (model if model.is_dir() else model.parent).absolute().name
    out = out or Path(f"{name}-web")
    _refuse_other_page(out)
    package = _checked(runtime) if runtime else _fetch(on_progress)
    files = dict(_page(name, recognizer, file)) | _unpack(package)
    files["service-worker.js"] = service_worker(files)
    try:
        _write(files, out)
    except OSError as error:
        raise SpeechError(
            f"{out}: expected a folder that can be written, got the error {error.strerror!r}; "
            "choose another one"
        ) from error
    return ExportedPage(out, len(files), sum(map(len, files.values())))


def constants() -> dict[str, Any]:
    """What the page's own decoder and meter share with those of Python, under the page's names."""
    return {
        "format": FORMAT,
        "others": [UNKNOWN, SILENCE],
        "decoder": DecoderConfig().to_dict(),
        "sensitivities": SENSITIVITIES,
        "nearMiss": {"begins": near_misses.BEGINS, "ends": near_misses.ENDS},
        "hints": session.HINTS,
        "meter": {
            "tickSeconds": session.TICK_SECONDS,
            "ticks": session.METER_TICKS,
            "clipped": session.CLIPPED,
            "clippedSamples": session.CLIPPED_SAMPLES,
            "quiet": session.QUIET,
        },
        "demo": DEMO_WORDS,
    }


def _refuse_other_page(out: Path) -> None:
    index = out / "index.html"
    if out.exists() and not out.is_dir():
        raise SpeechError(f"{out}: expected a folder, got a file; choose another name")
    if index.exists() and _MARK not in index.read_text("utf-8", "replace"):
        raise SpeechError(
            f"{index}: expected no page there, or an earlier export, got another page; choose "
            "another folder"
        )


def _page(name: str, recognizer: Recognizer, file: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the page, with their contents, but for the runtime and the service worker."""
    for path in sorted(_STANDALONE.iterdir()):
        yield path.name, path.read_bytes()
    for shared in _SHARED:
        yield shared, (_STATIC / shared).read_bytes()
    if set(DEMO_WORDS) <= set(recognizer.labels):
        yield _DEMO, (_STATIC / "examples" / "seven_words.flac").read_bytes()
    index = (_STANDALONE / "index.html").read_text("utf-8")
    yield "index.html", index.replace("NAME", html.escape(name)).encode()
    text = f"// Made by speech export.\nexport default {json.dumps(constants(), indent=2)};\n"
    yield "constants.js", text.encode()
    yield "model.onnx", file.read_bytes()


def service_worker(files: Mapping[str, bytes]) -> bytes:
    """The service worker with the digest of each file, and of all of them for its version."""
    digests = {
        path: f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"
        for path, content in sorted(files.items())
        if path != "service-worker.js"
    }
    version = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
    text = (_STANDALONE / "service-worker.js").read_text("utf-8")
    text = text.replace("FILES = {};", f"FILES = {json.dumps(digests, indent=2)};")
    return text.replace("VERSION", version).encode()


def _write(files: Mapping[str, bytes], out: Path) -> None:
    """All files beside the folder first, and then each at its place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        for path, content in files.items():
            part = Path(scratch) / path
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
        for path in files:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / path).replace(out / path)


def _checked(package: Path) -> Path:
    got = "no file" if not package.is_file() else f"SHA-256 {sha256(package)}"
    if got != f"SHA-256 {RUNTIME.sha256}":
        raise ModelError(
            f"{package}: expected {Path(RUNTIME.url).name} (SHA-256 {RUNTIME.sha256}), got {got}; "
            f"get it with: npm pack {_PACKAGE}"
        )
    return package


def _fetch(on_progress: OnProgress) -> Path:
    """The package from the registry that npm is told to use, or, without npm, from npm's own."""
    url = RUNTIME.url
    if npm := shutil.which("npm"):
        command = [npm, "config", "get", "registry"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if said.startswith(("https://", "http://")):
            url = f"{said.rstrip('/')}/{RUNTIME.url.split('/', 3)[3]}"
    try:
        archive = dataclasses.replace(RUNTIME, url=url)
        return download(archive, cache_folder() / "runtime", on_progress)
    except CorpusError as error:
        raise ModelError(
            f"{error}, or get that file elsewhere (npm pack {_PACKAGE}) and name it",
            parameter="runtime",
        ) from error


def _unpack(package: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(package) as tar:
        for path, member in _RUNTIME_FILES.items():
            content = tar.extractfile(member)
            assert content is not None  # the digest of the package was right
            files[path] = re.sub(rb"\n//# sourceMappingURL=\S+\n?$", b"\n", content.read())
    return files
