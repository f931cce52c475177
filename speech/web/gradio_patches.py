"""Gradio, imported with what the page needs changed in it; import ``gradio`` from here only.

What Gradio offers a setting for is set in ``server``. What is left are the patches of its
internals, each with its reason. They hold for the versions that the project allows and were tried
with 6.31; with any other version none is made, and the page works without them: it starts later and
costs a little processor time while it waits.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from speech.environment import quiet_gradio

_FIRST, _BEYOND = (6, 31), (7, 0)
_VERSION = tuple(int(part) for part in version("gradio").split(".")[:2])
_IS_KNOWN = _FIRST <= _VERSION < _BEYOND
_IDLE_SECONDS, _IDLE_PROGRESS_SECONDS = 0.05, 0.1

quiet_gradio()


@contextmanager
def _without_stub_files() -> Iterator[None]:
    """Keep Gradio from parsing its own sources while it is imported.

    At every import it writes stubs for editors beside its sources: half of the time that the import
    takes, and a write to a folder that may belong to somebody else. It leaves out components that
    come from no file, so within this context the class of a component has none.
    """
    original = inspect.getfile

    def getfile(value: Any) -> str:
        if getattr(value, "__module__", "").startswith("gradio."):
            raise OSError
        return original(value)

    if _IS_KNOWN:
        setattr(inspect, "getfile", getfile)  # noqa: B010  # mypy: a function is no variable
    try:
        yield
    finally:
        setattr(inspect, "getfile", original)  # noqa: B010


with _without_stub_files():
    import gradio

__all__ = ["gradio", "slow_down_queue"]


def slow_down_queue(blocks: gradio.Blocks) -> None:
    """Let a served page look for work 20 times a second.

    Gradio looks a thousand times a second unless it runs on Windows, which is a tenth of a core all
    day.
    """
    queue: Any = getattr(blocks, "_queue", None)
    if _IS_KNOWN and hasattr(queue, "sleep_when_free"):
        queue.sleep_when_free = _IDLE_SECONDS
        queue.progress_update_sleep_when_free = _IDLE_PROGRESS_SECONDS
