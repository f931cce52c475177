"""What the server keeps for each open page, under a key that nobody else can guess."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from speech.errors import SpeechError

T = TypeVar("T")


class UnknownPageError(SpeechError):
    """A key under which nothing is kept (any more)."""


class OpenPages(Generic[T]):
    """One object for each page, dropped after a while without a request; safe for threads.

    Args:
        limit: How many there may be at once.
        idle_seconds: After so long without a request an object is dropped.
        who: What a page does, for the sentences: ``"listen"``.
        remedy: What the user of a page does whose object is gone.
        clock: Seconds that never go back.

    Example:
        >>> pages = OpenPages(1, 60.0, "listen", "press Start again")
        >>> pages.get(pages.add("an object"))
        'an object'
    """

    def __init__(
        self,
        limit: int,
        idle_seconds: float,
        who: str,
        remedy: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._who = who
        self._remedy = remedy
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, tuple[T, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, item: T) -> str:
        """Keep it; returns its key.

        Raises:
            SpeechError: There are as many as there may be.
        """
        key = secrets.token_urlsafe(16)
        with self._lock:
            now = self._clock()
            idle = [k for k, (_, at) in self._open.items() if now - at > self._idle_seconds]
            for old in idle:
                del self._open[old]
            if len(self._open) >= self._limit:
                raise SpeechError(
                    f"expected at most {self._limit} pages that {self._who} at once, got one more; "
                    "stop another one, or try again in a minute"
                )
            self._open[key] = item, now
        return key

    def get(self, key: str) -> T:
        """What is kept under this key.

        Raises:
            UnknownPageError: There is none, perhaps since the page was silent for too long.
        """
        with self._lock:
            if key not in self._open:
                raise UnknownPageError(
                    f"expected a page that may {self._who}, got one that this server does not know "
                    f"(any more); {self._remedy}"
                )
            item, _ = self._open[key]
            self._open[key] = item, self._clock()
        return item

    def remove(self, key: str) -> T:
        """Take it out.

        Raises:
            UnknownPageError: There is none.
        """
        item = self.get(key)
        with self._lock:
            self._open.pop(key, None)
        return item
