"""One thing done to many items: in this process one after the other, or by tasks of Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from speech.cluster.engine import Origin, cancelled_after, cluster
from speech.errors import SpeechError

T = TypeVar("T")
R = TypeVar("R")


def each(
    function: Callable[[T], R], items: Sequence[T], address: str = "", **local: Any
) -> Iterator[tuple[T, R | SpeechError]]:
    """Call a function with each item, and go on where one of them has an error of this package.

    Args:
        function: What is done. With an address it travels to the workers, as do items and results;
            files that it reads or writes have to lie where all machines see them.
        items: In the order in which they begin.
        address: As for ``speech.cluster.engine.cluster``, each item a task of one core; ""
            calls the function here.
        **local: As for ``cluster``.

    Yields:
        Items with what the function returned or raised, in the order in which they end.

    Raises:
        ClusterError: As ``cluster``.

    Example:
        >>> [result for _, result in each(len, ["yes", "no"])]
        [3, 2]
    """
    if not address:
        for item in items:
            yield item, _outcome(function, item)
        return
    with cluster(address, **local) as ray:
        task = ray.remote(num_cpus=1)(_answer)
        given = ray.put(function)
        here = Origin.here()
        running = {task.remote(given, item, here): item for item in items}
        with cancelled_after(ray, running):
            while running:
                [done], _ = ray.wait(list(running))
                yield running.pop(done), ray.get(done)


def _answer(function: Callable[[T], R], item: T, origin: Origin) -> R | SpeechError:
    """What a worker does."""
    origin.join()
    return _outcome(function, item)


def _outcome(function: Callable[[T], R], item: T) -> R | SpeechError:
    try:
        return function(item)
    except SpeechError as error:
        return error
