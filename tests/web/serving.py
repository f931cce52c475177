"""What the tests of the server share: a port, a client, a recording."""

import socket
from pathlib import Path

from gradio_client import Client  # type: ignore[import-untyped]

from tests.sounds import encode, tone


def free_port() -> int:
    """A port at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client_of(address: str) -> Client:
    """A program that asks the page."""
    patience = {"timeout": 120.0}  # a busy machine is no failure
    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs=patience)


def word_file(folder: Path) -> Path:
    """A second of a loud tone, as a WAV file in a folder."""
    path = folder / "word.wav"
    path.write_bytes(encode(tone(1.0, 16_000), 16_000))
    return path
