"""The requests of the Live and the Teach tab: their routes, and errors as sentences."""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from speech.errors import SpeechError
from speech.installation import DEFAULT_MODEL
from speech.labels import commands
from speech.web.inside import MAX_LIVE_BYTES, MAX_RECORDING_BYTES, Explainer
from speech.web.lessons import MAX_TAKE_BYTES, MAX_ZIP_BYTES, Lesson, Lessons
from speech.web.models import ModelRegistry
from speech.web.open_pages import UnknownPageError
from speech.web.page import DEMO, EXAMPLES
from speech.web.sessions import MAX_CHUNK_BYTES, Listener, Listeners

_MAX_SETTINGS_BYTES = 4096  # of what a page asks for when it begins
_JSON, _SOUND = "application/json", "application/octet-stream"

_log = logging.getLogger("speech.web")

Answer: TypeAlias = dict[str, Any] | bytes


def live_routes(
    registry: ModelRegistry, listeners: Listeners, lessons: Lessons | None = None
) -> list[Route]:
    """The requests of the Live tab: begin, push a piece of sound, end; and the demo's recording.

    Args:
        registry: The models to choose from.
        listeners: Who listens.
        lessons: The models that pages taught themselves.
    """

    async def begin(request: Request) -> Answer:
        _check_length(request, _MAX_SETTINGS_BYTES)
        settings = await request.json()

        def make() -> Listener:
            keys = ("model", "threshold", "smoothing", "sensitivity")
            model, *others = (settings.get(key) for key in keys)
            lesson = settings.get("lesson")
            if lessons is None or lesson is None:
                return Listener(registry.get(model), *others)
            return Listener(lessons.get(lesson).recognizer(), *others)

        listener = await run_in_threadpool(make)
        return {"key": listeners.add(listener), **listener.settings()}

    async def push(request: Request) -> Answer:
        _check_length(request, MAX_CHUNK_BYTES)
        listener = listeners.get(request.path_params["key"])
        query = request.query_params
        rate, lost = float(query.get("rate", "0")), float(query.get("lost", "0"))
        pcm = await request.body()
        began = time.perf_counter()
        messages = await run_in_threadpool(listener.push, pcm, rate, lost)
        return {"messages": messages, "took": time.perf_counter() - began}

    async def end(request: Request) -> Answer:
        listener = listeners.remove(request.path_params["key"])
        return {"messages": await run_in_threadpool(listener.end)}

    async def demo(_: Request) -> FileResponse:
        return FileResponse(EXAMPLES / DEMO, media_type="audio/flac")

    return [
        Route("/live/demo", demo, methods=["GET"]),
        _route("/live", begin),
        _route("/live/{key}", push, _SOUND),
        _route("/live/{key}/end", end),
    ]


def inside_routes(explainer: Explainer) -> list[Route]:
    """The request of the Inside tab: what a model does with a recording, an example, or live sound.

    Args:
        explainer: What looks inside.
    """

    async def look(request: Request) -> Answer:
        query = request.query_params
        model = query.get("model")
        if "example" in query:
            return await run_in_threadpool(explainer.example, model, query["example"])
        is_live = "rate" in query
        _check_length(request, MAX_LIVE_BYTES if is_live else MAX_RECORDING_BYTES)
        content = await request.body()
        if not is_live:
            return await run_in_threadpool(explainer.recording, model, content)
        rate, moving = float(query["rate"]), "moving" in query
        return await run_in_threadpool(explainer.sound, model, content, rate, moving=moving)

    return [_route("/inside", look, _SOUND)]


def teach_routes(registry: ModelRegistry, lessons: Lessons) -> list[Route]:
    """The requests of the Teach tab; most answer with the whole state of the lesson.

    Args:
        registry: The models, of which the bundled one says which commands can be kept.
        lessons: What pages are being taught.
    """

    def lesson_of(request: Request) -> Lesson:
        return lessons.get(request.path_params["key"])

    async def begin(_: Request) -> Answer:
        has_base = DEFAULT_MODEL in registry.names
        base = await run_in_threadpool(registry.get, DEFAULT_MODEL) if has_base else None
        return {"key": lessons.begin(), "keepable": commands(base.labels) if base else ()}

    async def change(request: Request, method: Callable[[Lesson, Any], object]) -> Answer:
        _check_length(request, _MAX_SETTINGS_BYTES)
        lesson, wanted = lesson_of(request), await request.json()
        await run_in_threadpool(method, lesson, wanted.get)
        return lesson.state()

    async def take(request: Request) -> Answer:
        _check_length(request, MAX_TAKE_BYTES)
        query, pcm = request.query_params, await request.body()
        label, rate = query.get("label", ""), float(query.get("rate", "0"))
        lesson = lesson_of(request)
        number = await run_in_threadpool(lesson.add_take, label, pcm, rate)
        return {"take": number, **lesson.state()}

    async def load(request: Request) -> Answer:
        _check_length(request, MAX_ZIP_BYTES)
        lesson, content = lesson_of(request), await request.body()
        await run_in_threadpool(lesson.load, content)
        return lesson.state()

    async def sound(request: Request) -> Answer:
        return lesson_of(request).sound((await request.json()).get("take"))

    async def save(request: Request) -> Answer:
        return await run_in_threadpool(lesson_of(request).saved)

    async def end(request: Request) -> Answer:
        lessons.remove(request.path_params["key"]).close()
        return {}

    changes: dict[str, Callable[[Lesson, Any], object]] = {
        "look": lambda _lesson, _wanted: None,
        "add": lambda lesson, wanted: lesson.add_word(str(wanted("label", ""))),
        "remove": lambda lesson, wanted: lesson.remove(str(wanted("label", "")), wanted("take")),
        "start": lambda lesson, wanted: lesson.start(wanted("keep", [])),
    }
    return [
        _route("/teach", begin),
        _route("/teach/{key}/take", take, _SOUND),
        _route("/teach/{key}/load", load, _SOUND),
        _route("/teach/{key}/sound", sound),
        _route("/teach/{key}/save", save),
        _route("/teach/{key}/end", end),
        *(
            _route(f"/teach/{{key}}/{name}", partial(change, method=m))
            for name, m in changes.items()
        ),
    ]


def _check_length(request: Request, limit: int) -> None:
    # whoever does not say how long the body is might send without end
    if int(request.headers.get("content-length", limit + 1)) > limit:
        raise SpeechError(f"expected at most {limit} bytes, got more; send shorter pieces")


def _route(
    path: str, handler: Callable[[Request], Awaitable[Answer]], content_type: str = _JSON
) -> Route:
    """A POST request; whatever its handler raises becomes a sentence for the page.

    A page of another origin may not send these content types without being asked first, and Gradio
    refuses such a question.
    """

    async def endpoint(request: Request) -> Response:
        try:
            received = request.headers.get("content-type", "nothing")
            if received != content_type:
                raise SpeechError(
                    f"expected the content type {content_type}, got {received}; send it"
                )
            answer = await handler(request)
        except UnknownPageError as error:
            return JSONResponse({"error": str(error), "unknown": True}, 400)
        except (SpeechError, ValueError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except Exception as error:
            _log.exception("an answer to the page failed")
            kind = type(error).__name__
            message = f"expected an answer of the model, got {kind}: {error}; see the server's log"
            return JSONResponse({"error": message}, 500)
        if isinstance(answer, bytes):
            return Response(answer, media_type=_SOUND)
        return JSONResponse(answer)

    return Route(path, endpoint, methods=["POST"])
