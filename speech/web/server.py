"""The server of the page: where it listens, its start and its end."""

import json
import signal
import time

import numpy as np

from speech.environment import prepare_server
from speech.errors import SpeechError
from speech.recognizer import Recognizer
from speech.web.address import Address
from speech.web.answers import MAX_MEGABYTES, answer_waveform
from speech.web.gradio_patches import gradio as gr
from speech.web.gradio_patches import slow_down_queue
from speech.web.inside import Explainer
from speech.web.lessons import Lessons
from speech.web.models import ModelRegistry
from speech.web.page import EXAMPLES, STATIC, build_page, page_theme
from speech.web.routes import inside_routes, live_routes, teach_routes
from speech.web.sessions import Listeners

_SCRIPTS = (
    "model.js",
    "source.js",
    "rolling.js",
    "correction.js",
    "history.js",
    "live.js",
    "timeline.js",
    "recorder.js",
    "inside.js",
    "inside_tab.js",
    "takes.js",
    "teach.js",
)
_STYLES = ("page.css", "inside.css")
_FIRST_PAGE_SECONDS = 5.0  # a browser has loaded the page by then


def serve(registry: ModelRegistry, address: Address) -> gr.Blocks:
    """Build the page and serve it from a thread; ``close()`` of the result ends that.

    Raises:
        SpeechError: Nothing can listen at that address, its certificate is not right, or there is
            no folder for temporary files.
    """
    address.check()
    prepare_server(public=address.share)
    blocks = build_page(registry)
    lessons = Lessons()
    routes = [
        *live_routes(registry, Listeners(), lessons),
        *teach_routes(registry, lessons),
        *inside_routes(Explainer(registry)),
    ]
    try:
        blocks.launch(
            server_name=address.host,
            server_port=address.port,
            share=address.share,
            ssl_certfile=str(address.certificate) if address.certificate else None,
            ssl_keyfile=str(address.key) if address.key else None,
            root_path=address.root_path.rstrip("/"),
            ssl_verify=False,  # Gradio asks itself whether it is there
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=f"{MAX_MEGABYTES}mb",
            allowed_paths=[str(EXAMPLES)],
            theme=page_theme(),
            css="".join((STATIC / name).read_text("utf-8") for name in _STYLES),
            head=_scripts(),
            app_kwargs={"routes": routes},
        )
    except OSError as error:
        raise SpeechError(
            f"expected an address to listen at, got {address.host} port {address.port}, which is "
            "taken or not of this machine; choose another port or host"
        ) from error
    slow_down_queue(blocks)
    return blocks


def _scripts() -> str:
    pages = {path.stem: path.read_text("utf-8") for path in STATIC.glob("*.html")}
    worklet = json.dumps((STATIC / "worklet.js").read_text("utf-8"))
    scripts = [
        f"window.speechPages = {json.dumps(pages)};",
        f"window.speechWorklet = `data:text/javascript,${{encodeURIComponent({worklet})}}`;",
    ]
    scripts += [(STATIC / name).read_text("utf-8") for name in _SCRIPTS]
    return "\n".join(f"<script>{script}</script>" for script in scripts)


def wait(blocks: gr.Blocks, recognizer: Recognizer) -> None:
    """Serve until Ctrl-C or SIGTERM, then delete what was uploaded."""
    # a service manager's stop must clean up as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # the first pictures take a second or two: when the page is there and somebody looks at it
        time.sleep(_FIRST_PAGE_SECONDS)
        answer_waveform(recognizer, np.zeros(recognizer.features.n_samples, np.float32))
    except KeyboardInterrupt:
        blocks.close(verbose=False)
    else:
        blocks.block_thread()
