"""Ray itself: reaching a cluster or starting one here, and its errors as one line each."""

import contextlib
import importlib
import importlib.metadata
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from speech.environment import quiet_ray
from speech.errors import SpeechError
from speech.installation import install_command

LOCAL = "local"
_CONNECT_SECONDS = 5.0


class ClusterError(SpeechError):
    """Ray is not installed, not reachable, or has given a job up."""

    exit_code = 9


@contextlib.contextmanager
def cluster(address: str, **local: Any) -> Iterator[Any]:
    """The module ``ray``, connected for as long as the context lasts.

    Args:
        address: ``local`` starts a cluster of one node here and ends it with the context;
            ``auto`` is the one that ``ray start`` has started here, ``HOST:PORT`` and
            ``ray://HOST:PORT`` are others.
        **local: What ``ray.init`` is told of a cluster that is started here, such as ``num_cpus``.

    Raises:
        ClusterError: Ray is not installed, the address cannot be reached, Python or Ray there are
            of another version, or Ray gave the work up.
    """
    quiet_ray()
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            f"expected Ray to be installed for this, got none ({error}); install it with: "
            f"{install_command('cluster')}"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address, local)
    try:
        yield ray
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise refusal(error) from error
    finally:
        if ours:
            ray.shutdown()


class Origin(NamedTuple):
    """Where a command was given; its workers get it along with their work.

    Attributes:
        version: Of this package.
        folder: The working folder, from which relative paths count.
    """

    version: str
    folder: Path

    @classmethod
    def here(cls) -> "Origin":
        """That of this process."""
        return cls(importlib.metadata.version("speech-commands"), Path.cwd())

    def join(self) -> None:
        """Work as if the command had been given on this machine of a cluster.

        Raises:
            ClusterError: Another version of this package is installed here.
        """
        here = Origin.here()
        if here.version != self.version:
            raise ClusterError(
                f"expected speech-commands {self.version} on all machines, got {here.version} on "
                "one; install the same there"
            )
        with contextlib.suppress(OSError):  # not here: then the paths have to be absolute
            os.chdir(self.folder)


def _connect(ray: Any, address: str, local: dict[str, Any]) -> None:
    try:
        _knock(address)
        given = {"include_dashboard": False, **local} if address == LOCAL else {}
        with _signals_kept():
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, **given)
        # it tells of lost workers on standard output, among the results; the work goes on anyway
        inside: Any = importlib.import_module("ray._private.worker")
        inside.print_to_stdstream = _say_nothing
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        if "mismatch" in str(error):  # Ray's, of which each line holds a version
            raise ClusterError(
                f"{address}: expected the versions of this machine there, got: "
                f"{' '.join(str(error).split())}; install the same on all machines",
                parameter="ray",
            ) from error
        raise ClusterError(
            f"{address}: expected a Ray cluster of this version that can be reached, got "
            f"{_line(error)!r}; start one with: ray start --head; one that listens but lets nobody "
            "in wants its token: RAY_AUTH_MODE=token, and its ~/.ray/auth_token here",
            parameter="ray",
        ) from error


def _say_nothing(*_: object, **__: object) -> None: ...


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM, and aborts with a trace; it shall end a command as it does elsewhere."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself tries for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


@contextlib.contextmanager
def cancelled_after(ray: Any, tasks: Iterable[Any]) -> Iterator[None]:
    """Cancel the tasks that are left in ``tasks`` at the end, which an exception may bring."""
    try:
        yield
    finally:
        for task in tasks:
            ray.cancel(task, force=True)


def refusal(error: BaseException) -> SpeechError:
    """The error of this package that a task raised, or one that says what Ray says."""
    cause: BaseException | None = error
    while cause is not None:
        for each in (cause, getattr(cause, "cause", None), getattr(cause, "_base_exc", None)):
            if isinstance(each, SpeechError):
                return each
        cause = cause.__cause__
    return ClusterError(
        f"expected a cluster that goes on, got an error from Ray ({_line(error)}); what was "
        "written before stays, run the same command again to go on from there"
    )


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
