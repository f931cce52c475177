"""``speech app`` and ``python app.py``: how the page starts, whom it warns, how it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from gradio_client import handle_file  # type: ignore[import-untyped]
from typer.testing import CliRunner

import speech.recognizer
from speech.cli.main import app
from speech.errors import ModelError, SpeechError
from speech.web import server
from speech.web.address import Address
from speech.web.answers import ERROR_MARK
from tests.hearing import by_loudness
from tests.web.serving import client_of, free_port, word_file

PROJECT = Path(__file__).resolve().parents[2]
# the command as the user calls it, but with nothing heavy under it
MAIN = """
import sys
import speech.recognizer
from speech.cli.main import main
from tests.hearing import by_loudness
speech.recognizer.load = lambda path: by_loudness()
sys.argv[1:1] = ["app"]
main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=PROJECT, timeout=120
    )


@pytest.fixture
def served(monkeypatch):
    """The addresses at which the command wanted to serve; it is told then that it cannot."""
    addresses = []

    def serve(registry, address):
        addresses.append(address)
        raise SpeechError("enough")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(speech.recognizer, "load", lambda path: by_loudness())
    return addresses


def invoke(*options: str) -> str:
    """What the command prints until ``serve`` is called."""
    result = CliRunner().invoke(app, ["app", *options])
    assert isinstance(result.exception, SpeechError), result.output
    return result.stderr


def test_without_its_model_it_ends_with_the_errors_code_and_one_line(tmp_path):
    done = run("app.py", "--model", str(tmp_path / "absent"))
    assert done.returncode == ModelError.exit_code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"speech: {tmp_path / 'absent'}: expected ")


def test_debug_shows_where_it_failed(tmp_path):
    done = run("app.py", "--debug", "--model", str(tmp_path / "absent"))
    assert "Traceback" in done.stderr


def test_a_port_that_is_taken_is_one_line_that_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("-c", MAIN, "--port", str(port))
    assert done.returncode == SpeechError.exit_code
    assert done.stderr == (
        f"speech: expected an address to listen at, got 127.0.0.1 port {port}, which is taken or "
        "not of this machine; choose another port or host\n"
    )


@pytest.mark.parametrize("port", ["0", "65536", "many"])
def test_a_port_that_there_cannot_be_is_a_usage_error(port):
    result = CliRunner().invoke(app, ["app", "--port", port])
    assert result.exit_code == 2
    assert "--port" in result.stderr


def test_only_where_others_can_reach_it_does_it_warn(served):
    assert invoke() == ""
    warning = invoke("--host", "0.0.0.0")
    assert warning.startswith("speech: warning: others on the network can use the page at 0.0.0.0")
    assert "without a password; their browsers allow it no microphone" in warning
    assert invoke("--share").startswith("speech: warning: the page gets a public address")
    assert served == [Address(), Address("0.0.0.0"), Address(share=True)]


def test_a_space_of_hugging_face_is_served_where_it_says(served, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    invoke()
    assert served == [Address("0.0.0.0", 7861)]


@contextlib.contextmanager
def started(
    port: int, program: Sequence[str] = ("-c", MAIN), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, once it has said that it serves."""
    process = subprocess.Popen(
        [sys.executable, *program, "--port", str(port)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=PROJECT,
        env={**os.environ, **environment},
    )
    with process:
        watchdog = threading.Timer(300, process.kill)
        watchdog.start()
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line == f"speech: open http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
        yield process
        watchdog.cancel()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_deletes_the_recordings_and_ends_well(stop, tmp_path):
    port = free_port()
    folder = tmp_path / "temporary"
    # behind a proxy that is not there: the app needs nothing from outside
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    with started(port, GRADIO_TEMP_DIR=str(folder), NO_PROXY="", **proxies) as process:
        client = client_of(f"http://127.0.0.1:{port}/")
        client.predict(handle_file(word_file(tmp_path)), api_name="/recognize")
        assert list(folder.rglob("*.wav"))
        process.send_signal(stop)
        assert process.wait(30) == 0
    assert not list(folder.rglob("*.wav"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="wants a folder that nobody can write")
def test_without_a_home_that_can_be_written_it_answers_and_says_nothing(tmp_path):
    port = free_port()
    nowhere = "/proc/nobody"  # not even root can make a folder there
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), nowhere)
    homes |= {"TMPDIR": str(tmp_path), "GRADIO_TEMP_DIR": "", "MPLCONFIGDIR": ""}
    with started(port, ("app.py",), **homes) as process:
        client = client_of(f"http://127.0.0.1:{port}/")
        *_, status, _ = client.predict(handle_file(word_file(tmp_path)), api_name="/recognize")
        assert not status.startswith(ERROR_MARK)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
