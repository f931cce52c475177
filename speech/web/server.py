"""The server of the page: where it listens, its routes for live sound, its start and end."""

import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from speech.environment import prepare_server
from speech.errors import SpeechError
from speech.recognizer import Recognizer
from speech.web.address import Address
from speech.web.answers import MAX_MEGABYTES, answer_waveform
from speech.web.gradio_patches import gradio as gr
from speech.web.gradio_patches import slow_down_queue
from speech.web.models import ModelRegistry
from speech.web.page import DEMO, EXAMPLES, STATIC, build_page, page_theme
from speech.web.sessions import MAX_CHUNK_BYTES, Listener, Listeners

_SCRIPTS = (
    "model.js",
    "source.js",
    "rolling.js",
    "history.js",
    "live.js",
    "timeline.js",
    "recorder.js",
)
_MAX_SETTINGS_BYTES = 4096  # of what a page asks for when it begins
_FIRST_PAGE_SECONDS = 5.0  # a browser has loaded the page by then

_log = logging.getLogger("speech.web")


def serve(registry: ModelRegistry, address: Address) -> gr.Blocks:
    """Build the page and serve it from a thread; ``close()`` of the result ends that.

    Raises:
        SpeechError: Nothing can listen at that address, its certificate is not right, or there is
            no folder for temporary files.
    """
    address.check()
    prepare_server(public=address.share)
    blocks = build_page(registry)
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
            css=(STATIC / "page.css").read_text("utf-8"),
            head=_scripts(),
            app_kwargs={"routes": live_routes(registry, Listeners())},
        )
    except OSError as error:
        raise SpeechError(
            f"expected an address to listen at, got {address.host} port {address.port}, which is "
            "taken or not of this machine; choose another port or host"
        ) from error
    slow_down_queue(blocks)
    return blocks


def _scripts() -> str:
    live = json.dumps((STATIC / "live.html").read_text("utf-8"))
    scripts = [f"window.speechLivePage = {live};"]
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


def live_routes(registry: ModelRegistry, listeners: Listeners) -> list[Route]:
    """The requests of the Live tab: begin, push a piece of sound, end; and the demo's recording."""

    async def begin(request: Request) -> Any:
        _check_length(request, _MAX_SETTINGS_BYTES)
        settings = await request.json()

        def make() -> Listener:
            keys = ("model", "threshold", "smoothing", "sensitivity")
            model, *others = (settings.get(key) for key in keys)
            return Listener(registry.get(model), *others)

        listener = await run_in_threadpool(make)
        return {"key": listeners.add(listener), **listener.settings()}

    async def push(request: Request) -> Any:
        _check_length(request, MAX_CHUNK_BYTES)
        listener = listeners.get(request.path_params["key"])
        query = request.query_params
        rate, lost = float(query.get("rate", "0")), float(query.get("lost", "0"))
        pcm = await request.body()
        began = time.perf_counter()
        messages = await run_in_threadpool(listener.push, pcm, rate, lost)
        return {"messages": messages, "took": time.perf_counter() - began}

    async def end(request: Request) -> Any:
        listener = listeners.remove(request.path_params["key"])
        return {"messages": await run_in_threadpool(listener.end)}

    async def demo(_: Request) -> FileResponse:
        return FileResponse(EXAMPLES / DEMO, media_type="audio/flac")

    # a page of another origin may not send these types without being asked first, and Gradio
    # refuses such a question
    return [
        Route("/live/demo", demo, methods=["GET"]),
        Route("/live", _answering(begin, "application/json"), methods=["POST"]),
        Route("/live/{key}", _answering(push, "application/octet-stream"), methods=["POST"]),
        Route("/live/{key}/end", _answering(end, "application/json"), methods=["POST"]),
    ]


def _check_length(request: Request, limit: int) -> None:
    # whoever does not say how long the body is might send without end
    if int(request.headers.get("content-length", limit + 1)) > limit:
        raise SpeechError(f"expected at most {limit} bytes, got more; send shorter pieces")


def _answering(
    handler: Callable[[Request], Awaitable[Any]], content_type: str
) -> Callable[[Request], Awaitable[JSONResponse]]:
    """The handler with whatever it raises as a sentence for the page."""

    async def endpoint(request: Request) -> JSONResponse:
        try:
            received = request.headers.get("content-type", "nothing")
            if received != content_type:
                raise SpeechError(
                    f"expected the content type {content_type}, got {received}; send it"
                )
            return JSONResponse(await handler(request))
        except (SpeechError, ValueError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except Exception as error:
            _log.exception("an answer to the Live tab failed")
            kind = type(error).__name__
            message = f"expected an answer of the model, got {kind}: {error}; see the server's log"
            return JSONResponse({"error": message}, 500)

    return endpoint
