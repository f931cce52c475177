"""The recogniser in a browser: speak and see what it heard, or upload a recording."""

import argparse
import inspect
import io
import ipaddress
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock
from urllib.parse import quote

import numpy as np
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from speech.audio import FORMATS, Waveform, fit_length, load_audio
from speech.errors import SpeechError
from speech.live.recording import MAX_MEGABYTES, MAX_SECONDS, Progress, commands_in, is_short
from speech.recognizer import Recognizer, load
from speech.web.models import Shelf, warmed
from speech.web.sessions import MOST_BYTES, Listener, Listeners, settings

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # is read when Gradio is imported


def _file_of(value: Any, known: Callable[[Any], str] = inspect.getfile) -> str:
    """Where something is defined; no component of Gradio is told.

    At every import Gradio parses its own sources to write stubs for editors beside them, in half of
    the time that the import takes. It leaves out components that come from no file.
    """
    if getattr(value, "__module__", "").startswith("gradio."):
        raise OSError
    return known(value)


with mock.patch("inspect.getfile", _file_of):
    import gradio as gr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
MODELS = HERE / "saved_models"
DEFAULT_MODEL = MODELS / "commands-8"
PAGE = HERE / "speech" / "page"
EXAMPLES = PAGE / "examples"
SCRIPTS = ("model.js", "microphone.js", "rolling.js", "live.js", "timeline.js")
MOST_SETTINGS = 4096  # bytes of what a page asks for when it begins
MARK = "⚠"
INVITATION = (
    f"Upload {FORMATS}, at most {MAX_SECONDS / 60:g} minutes and {MAX_MEGABYTES} MB: one word, or "
    "a long recording to find the commands in."
)
# Set in the width of a telephone, so that the words in a picture stay legible there.
FIGSIZE = (5.0, 2.7)
PIXELS_PER_INCH = 240
PICTURES = {
    "Confusion matrix": "confusion.png",
    "Reliability": "reliability.png",
    "Learning curves": "learning_curves.png",
}
OWN_MODEL = """Record a folder of clips for each word (`my_words/start/anna_nohash_0.wav`), then:

```sh
speech train --data my_words --labels start,stop --out saved_models/mine
python app.py --model saved_models/mine
```

Every folder in `saved_models/` can be chosen above. More: `docs/use.md`.
"""
# What stands in an attribute is encoded, since neither a file's name nor a label is markup.
MODEL_TEMPLATE = (
    '<speech-model data-speech-model="${encodeURIComponent(JSON.stringify(value))}"></speech-model>'
)
TIMELINE_TEMPLATE = (
    '${value ? `<speech-timeline data-recording="${encodeURIComponent(JSON.stringify(value))}">'
    "</speech-timeline>` : ''}"
)
STATUS_TEMPLATE = f"<p class=\"${{value.startsWith('{MARK}') ? 'error' : ''}}\">{{{{value}}}}</p>"

PAGE_SECONDS = 5.0  # a browser has loaded the page by then

_log = logging.getLogger("speech.app")


class Answer(NamedTuple):
    """What the page shows for one recording: the values of its five outputs.

    Attributes:
        probabilities: Probability of each label, or None where no clip was recognised.
        waveform: Picture of the clip that the network heard.
        mfcc: Picture of that clip's features.
        status: One sentence for the user; an error begins with ``MARK``.
        recording: Where to listen to it (``audio``), and of a long one its ``timeline``, which is
            what ``commands_in`` returns.
    """

    probabilities: dict[str, float] | None
    waveform: Image.Image | None
    mfcc: Image.Image | None
    status: str
    recording: dict[str, Any] | None


def answer(
    recognizer: Recognizer, path: str | None, progress: Progress = lambda _share: None
) -> Answer:
    """Recognise the recording in a file; whatever is wrong with it becomes the status."""
    if path is None:
        return Answer(None, None, None, INVITATION, None)
    audio = {"audio": f"gradio_api/file={quote(path)}"}
    try:
        if is_short(recognizer, Path(path)):
            waveform = load_audio(path, recognizer.features.sample_rate)
            return answer_waveform(recognizer, waveform)._replace(recording=audio)
        found = commands_in(recognizer, Path(path), progress=progress)
    except SpeechError as error:
        # the folder is a temporary one of the server and means nothing to the user
        message = str(error).replace(path, Path(path).name)
        return Answer(None, None, None, f"{MARK} {message}", None)
    count = len(found["detections"])
    status = f"Heard {found['seconds']:.1f} s with {count} command{'' if count == 1 else 's'}."
    return Answer(None, None, None, status, {**audio, "timeline": found})


def answer_waveform(recognizer: Recognizer, waveform: Waveform) -> Answer:
    """Recognise samples (n,) at the model's rate, and draw what the network heard."""
    from speech.evaluation import plots  # not for the first page to wait for

    features = recognizer.features
    clip = fit_length(waveform, features.n_samples)
    prediction = recognizer.recognize_waveform(clip)
    seconds = len(waveform) / features.sample_rate
    status = f"Heard {seconds:.2f} s."
    if len(waveform) > len(clip):
        status = f"Of {seconds:.2f} s, this is the loudest {features.clip_seconds:g} s."
    mfcc = recognizer.mfcc(clip[None])[0]
    return Answer(
        prediction.probabilities,
        _picture(plots.waveform(clip, features.sample_rate, figsize=FIGSIZE)),
        _picture(plots.mfcc_image(mfcc, features, figsize=FIGSIZE)),
        status,
        None,
    )


def _picture(figure: "Figure") -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH)
    return Image.open(buffer)


def build_app(shelf: Shelf) -> gr.Blocks:
    """The page, not yet served; its endpoint is ``/recognize``."""
    # what people upload stays on the disk for five minutes at most
    blocks = gr.Blocks(title="Speech commands", delete_cache=(60, 300))
    with blocks:
        gr.Markdown("# Speech commands")
        heading = gr.HTML(
            settings(shelf.get()),
            html_template=MODEL_TEMPLATE,
            apply_default_css=False,
            elem_id="speech-model",
        )
        with gr.Tabs():
            with gr.Tab("Live"):
                gr.HTML("<speech-live></speech-live>", apply_default_css=False)
            with gr.Tab("File", render_children=True):
                ask = _file_tab()
            with gr.Tab("Model", render_children=True):
                chosen = _model_tab(shelf, heading)

        def recognize(
            path: str | None,
            model: str = shelf.first,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> Answer:
            try:
                return answer(shelf.get(model), path, progress)
            except SpeechError as error:
                return Answer(None, None, None, f"{MARK} {error}", None)

        ask(recognize, chosen)
    return blocks


def _file_tab() -> Callable[[Callable[..., Answer], gr.Dropdown], None]:
    upload = gr.File(label="A recording", elem_id="recording", height=150)
    with gr.Row():
        for path, words in _examples():
            button = gr.Button(words, size="sm")
            button.click(lambda path=path: path, None, upload, api_visibility="private")
    status = _status()
    recording = gr.HTML(
        None, html_template=TIMELINE_TEMPLATE, apply_default_css=False, elem_id="timeline"
    )
    with gr.Row(elem_id="clip"):
        label = gr.Label(label="Probabilities", num_top_classes=12, elem_id="answer")
        with gr.Column():
            waveform = _frame("Waveform", "Waveform of the clip that was recognised")
            features = _frame("MFCC", "Mel-frequency cepstral coefficients of that clip over time")

    def ask(recognize: Callable[..., Answer], chosen: gr.Dropdown) -> None:
        upload.change(
            recognize,
            [upload, chosen],
            [label, waveform, features, status, recording],
            api_name="recognize",
            show_progress="minimal",
            show_progress_on=status,
            concurrency_limit=2,
        )

    return ask


def _examples() -> list[tuple[str, str]]:
    """The clips that come along, and what to call them."""
    names = {"left.wav": "Example: one word", "seven_words.flac": "Example: seven words"}
    return [(str(EXAMPLES / file), name) for file, name in names.items()]


def _status() -> gr.HTML:
    return gr.HTML(
        INVITATION,
        # double braces escape: the name of a file is not markup
        html_template=STATUS_TEMPLATE,
        js_on_load="element.setAttribute('role', 'status');",
        elem_id="status",
    )


def _frame(heading: str, description: str) -> gr.Image:
    gr.Markdown(f"## {heading}")  # not Gradio's label, which would cover a corner of the picture
    return gr.Image(
        show_label=False,
        alt_text=description,
        format="png",
        type="pil",
        interactive=False,
        buttons=[],
        elem_classes="picture",
    )


def _model_tab(shelf: Shelf, heading: gr.HTML) -> gr.Dropdown:
    def show(name: str) -> tuple[Any, ...]:
        try:
            recognizer = shelf.get(name)
        except SpeechError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return settings(recognizer), shelf.card(name), *pictures(name)

    def pictures(name: str) -> list[Image.Image | None]:
        paths = [shelf.picture(name, file) for file in PICTURES.values()]
        return [Image.open(path) if path else None for path in paths]

    chosen = gr.Dropdown(shelf.names, value=shelf.first, label="Model", filterable=False)
    with gr.Row():
        frames = [
            gr.Image(
                image, show_label=False, alt_text=title, interactive=False, buttons=["fullscreen"]
            )
            for title, image in zip(PICTURES, pictures(shelf.first), strict=True)
        ]
    with gr.Accordion("Train a model of your own", open=False):
        gr.Markdown(OWN_MODEL)
    card = gr.Markdown(shelf.card(shelf.first), elem_id="card")
    chosen.change(show, chosen, [heading, card, *frames], api_visibility="private")
    return chosen


def live_routes(shelf: Shelf, listeners: Listeners) -> list[Route]:
    """What the Live tab asks the server: to begin, to hear a piece of sound, to end."""

    async def begin(request: Request) -> Any:
        _check_length(request, MOST_SETTINGS)
        wanted = await request.json()

        def listener() -> Listener:
            name, *numbers = (wanted.get(key) for key in ("model", "threshold", "smoothing"))
            return Listener(shelf.get(name), *numbers)

        made = await run_in_threadpool(listener)
        return {"key": listeners.add(made), **made.hello()}

    async def hear(request: Request) -> Any:
        _check_length(request, MOST_BYTES)
        listener = listeners.get(request.path_params["key"])
        query = request.query_params
        rate, lost = float(query.get("rate", "0")), float(query.get("lost", "0"))
        pcm = await request.body()
        began = time.perf_counter()
        messages = await run_in_threadpool(listener.hear, pcm, rate, lost)
        return {"messages": messages, "took": time.perf_counter() - began}

    async def end(request: Request) -> Any:
        listener = listeners.remove(request.path_params["key"])
        return {"messages": await run_in_threadpool(listener.end)}

    # a page of another origin may not send these types without being asked first, and Gradio
    # refuses such a question
    return [
        Route("/live", _answering(begin, "application/json"), methods=["POST"]),
        Route("/live/{key}", _answering(hear, "application/octet-stream"), methods=["POST"]),
        Route("/live/{key}/end", _answering(end, "application/json"), methods=["POST"]),
    ]


def _check_length(request: Request, most: int) -> None:
    # who does not say how much it is might send without end
    if int(request.headers.get("content-length", most + 1)) > most:
        raise SpeechError(f"expected at most {most} bytes, got more; send shorter pieces")


def _answering(
    handler: Callable[[Request], Awaitable[Any]], content_type: str
) -> Callable[[Request], Awaitable[JSONResponse]]:
    """The handler with whatever it raises as a sentence for the page."""

    async def endpoint(request: Request) -> JSONResponse:
        try:
            given = request.headers.get("content-type", "nothing")
            if given != content_type:
                raise SpeechError(f"expected the content type {content_type}, got {given}; send it")
            return JSONResponse(await handler(request))
        except (SpeechError, ValueError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except Exception as error:
            _log.exception("an answer to the Live tab failed")
            kind = type(error).__name__
            message = f"expected an answer of the model, got {kind}: {error}; see the server's log"
            return JSONResponse({"error": message}, 500)

    return endpoint


class Address(NamedTuple):
    """Where the page is served.

    Attributes:
        host: Name or number of this machine.
        port: Port to listen at.
        share: Whether Gradio's servers also give it a public address.
        certificate: File of the TLS certificate; "" for plain HTTP.
        key: File of its private key.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    certificate: str = ""
    key: str = ""

    def warning(self) -> str:
        """What to think of where others can reach it, or ""."""
        if self.share:
            return (
                "warning: --share gives this page a public address through Gradio's servers, "
                "without a password; what visitors say passes through them"
            )
        if _is_loopback(self.host):
            return ""
        remedy = "; their browsers allow it no microphone without --ssl-certfile and --ssl-keyfile"
        return (
            f"warning: --host {self.host} lets others on the network use this page, without a "
            f"password{'' if self.certificate else remedy}"
        )


def serve(shelf: Shelf, address: Address, *, debug: bool = False) -> gr.Blocks:
    """Build the page and serve it from a thread; ``close()`` of the result ends that.

    Raises:
        SpeechError: Nothing can listen at that address, or there is no such certificate.
    """
    for file in (address.certificate, address.key):
        if file and not Path(file).is_file():
            raise SpeechError(f"{file}: expected a file in PEM format, got none; check the path")
    blocks = build_app(shelf)
    fonts = ["system-ui", "sans-serif"]
    scripts = [f"<script>{(PAGE / name).read_text('utf-8')}</script>" for name in SCRIPTS]
    try:
        blocks.launch(
            server_name=address.host,
            server_port=address.port,
            share=address.share,
            ssl_certfile=address.certificate or None,
            ssl_keyfile=address.key or None,
            ssl_verify=False,  # Gradio asks itself whether it is there
            prevent_thread_lock=True,
            quiet=True,
            show_error=debug,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=f"{MAX_MEGABYTES}mb",
            allowed_paths=[str(EXAMPLES)],
            theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["monospace"]),
            css=(PAGE / "page.css").read_text("utf-8"),
            head="\n".join(scripts),
            app_kwargs={"routes": live_routes(shelf, Listeners())},
        )
        # elsewhere than on Windows Gradio looks a thousand times a second whether there is work,
        # which is a tenth of a core all day; as often as there is enough
        blocks._queue.sleep_when_free = 0.05
        blocks._queue.progress_update_sleep_when_free = 0.1
    except OSError as error:
        raise SpeechError(
            f"expected an address to listen at, got {address.host} port {address.port}, which is "
            "taken or not of this machine; choose another with --port or --host"
        ) from error
    return blocks


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; returns the exit status."""
    options = _parse(argv)
    address = Address(
        options.host, options.port, options.share, options.ssl_certfile, options.ssl_keyfile
    )
    if not address.share:
        # Gradio asks its own server whether it is there, which is nothing for a proxy
        os.environ["NO_PROXY"] = "*"
    try:
        recognizer = warmed(load(options.model))
        if warning := address.warning():
            _say(warning)
        home = options.model if options.model.is_dir() else None
        shelf = Shelf(recognizer, home, MODELS, load)
        blocks = serve(shelf, address, debug=options.debug)
    except SpeechError as error:
        if options.debug:
            raise
        _say(str(error))
        return error.exit_code
    public: Any = blocks.share_url
    if public:
        _say(f"public: {public}")
    _say(f"open {blocks.local_url} (Ctrl+C ends it)")
    # a service manager's stop must clean up as Ctrl+C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # the first pictures take a second or two: when the page is there and somebody looks at it
        time.sleep(PAGE_SECONDS)
        answer_waveform(recognizer, np.zeros(recognizer.features.n_samples, np.float32))
    except KeyboardInterrupt:
        blocks.close(verbose=False)
    else:
        blocks.block_thread()
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    add: Any = parser.add_argument
    # Hugging Face tells a Space by Gradio's variables where to listen
    host = os.environ.get("GRADIO_SERVER_NAME", Address().host)
    port = os.environ.get("GRADIO_SERVER_PORT", str(Address().port))
    add("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model, or its file")
    add("--host", default=host, help="address to listen at (default: %(default)s)")
    add("--port", type=_port, default=port, help="port to listen at (default: %(default)s)")
    add("--share", action="store_true", help="also give it a public address, by Gradio's servers")
    add("--ssl-certfile", default="", help="TLS certificate (PEM), which makes it https")
    add("--ssl-keyfile", default="", help="private key of that certificate (PEM)")
    add("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _say(message: str) -> None:
    sys.stderr.write(f"app.py: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
