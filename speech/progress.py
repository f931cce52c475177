"""The one way in which long work tells how far it is."""

from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[int, int], object]
"""Called with (done, total) from time to time, in bytes, clips or steps; total is 0 if unknown."""


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""
