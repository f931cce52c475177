"""The page without a browser: its answers, what it says of bad files, how it starts and ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("gradio")

from gradio_client import Client, handle_file  # type: ignore[import-untyped]

import app
from speech.errors import ModelError, SpeechError
from tests.hearing import LABELS, by_loudness
from tests.sounds import encode, noise, tone

PROJECT = Path(__file__).resolve().parents[1]
# main() as the user calls it, but with nothing heavy under it
MAIN = """
import sys
import app
from tests.hearing import by_loudness
app.load = lambda path: by_loudness()
sys.exit(app.main())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def wav(tmp_path):
    def write(name="word.wav", seconds=1.0, volume=1.0, rate=16_000):
        path = tmp_path / name
        path.write_bytes(encode(volume * tone(seconds, rate), rate))
        return str(path)

    return write


@pytest.mark.parametrize(("volume", "label"), [(1.0, "yes"), (0.1, "no"), (0.0, "silence")])
def test_the_answer_is_the_recognisers(wav, volume, label):
    answer = app.answer(by_loudness(), wav(volume=volume))
    assert answer.probabilities is not None
    assert tuple(answer.probabilities) == LABELS
    assert max(answer.probabilities, key=answer.probabilities.__getitem__) == label
    assert answer.status == "Heard 1.00 s."


def test_the_pictures_are_sharp_and_of_one_size(wav):
    answer = app.answer(by_loudness(), wav())
    assert answer.waveform is not None
    assert answer.mfcc is not None
    assert answer.waveform.size == answer.mfcc.size == (1200, 648)
    assert np.asarray(answer.waveform).std() > 1
    assert np.asarray(answer.mfcc).std() > 1


def test_any_rate_is_heard_at_the_models(wav):
    heard: list[npt.NDArray[np.float32]] = []
    app.answer(by_loudness(heard), wav(rate=44_100))
    assert heard[0].shape == (16_000,)
    np.testing.assert_allclose(heard[0][500:-500], tone(1, 16_000)[500:-500], atol=1e-3)


def test_of_a_long_recording_it_says_that_the_loudest_second_was_used(tmp_path):
    samples = 0.01 * noise(seconds=4)
    samples[32_000:48_000] += tone(1, 16_000)
    path = tmp_path / "long.wav"
    path.write_bytes(encode(samples, 16_000))
    answer = app.answer(by_loudness(), str(path))
    assert answer.status == "Of 4.00 s, this is the loudest 1 s."
    assert answer.probabilities is not None
    assert answer.probabilities["yes"] > 0.9


@pytest.mark.parametrize(
    "content", [b"", b"this is no sound\n", encode(tone(1, 16_000), 16_000)[:2000]]
)
def test_a_bad_file_becomes_one_message_without_the_servers_folder(tmp_path, content):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    answer = app.answer(by_loudness(), str(path))
    assert answer[:3] == (None, None, None)
    assert answer.status.startswith(f"{app.MARK} bad.wav: expected ")
    assert str(tmp_path) not in answer.status
    assert "\n" not in answer.status


def test_too_long_a_recording_becomes_a_message(wav):
    assert "at most 60 s" in app.answer(by_loudness(), wav(seconds=61, rate=8_000)).status


def test_a_model_that_fails_becomes_a_message(wav):
    recognizer = by_loudness()

    def fail(waveforms):
        raise ModelError("expected a model, got none; train it again")

    recognizer._infer = fail
    assert app.answer(recognizer, wav()).status.startswith(f"{app.MARK} expected a model")


def test_no_recording_is_an_invitation():
    assert app.answer(by_loudness(), None) == (None, None, None, app.INVITATION)


def test_the_page_has_one_endpoint_called_recognize():
    blocks = app.build_app(by_loudness())
    info = blocks.get_api_info()
    assert list(info["named_endpoints"]) == ["/recognize"]
    assert blocks.delete_cache == (60, 300)
    assert not blocks.analytics_enabled


def test_a_program_can_ask_the_page(wav, monkeypatch, capfd):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    blocks = app.serve(by_loudness(), "127.0.0.1", free_port())
    try:
        client = Client(blocks.local_url, verbose=False, analytics_enabled=False)
        label, waveform, mfcc, status = client.predict(handle_file(wav()), api_name="/recognize")
    finally:
        blocks.close(verbose=False)
    assert label["label"] == "yes"
    assert {entry["label"] for entry in label["confidences"]} == set(LABELS)
    assert Path(waveform).is_file()
    assert Path(mfcc).is_file()
    assert status == "Heard 1.00 s."
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("example.org", False),
    ],
)
def test_only_loopback_is_taken_for_loopback(host, loopback):
    assert app._is_loopback(host) is loopback


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=PROJECT, timeout=120
    )


def test_without_its_model_it_ends_with_the_errors_code_and_one_line(tmp_path):
    done = run("app.py", "--model", str(tmp_path / "absent"))
    assert done.returncode == ModelError.exit_code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"app.py: {tmp_path / 'absent'}: expected the folder of a model")


def test_a_port_that_is_taken_is_one_line_that_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("-c", MAIN, "--port", str(port))
    assert done.returncode == SpeechError.exit_code
    assert done.stderr == (
        f"app.py: expected an address to listen at, got 127.0.0.1 port {port}, which is taken or "
        "not of this machine; choose another with --port or --host\n"
    )


@pytest.mark.parametrize("port", ["0", "65536", "many"])
def test_a_port_that_there_cannot_be_is_a_usage_error(port, capsys):
    with pytest.raises(SystemExit) as ended:
        app.main(["--port", port])
    assert ended.value.code == 2
    assert f"expected a port from 1 to 65535, got {port}" in capsys.readouterr().err


def test_only_where_others_can_reach_it_does_it_warn(monkeypatch, capsys):
    monkeypatch.setattr(app, "load", lambda path: by_loudness())
    monkeypatch.setenv("NO_PROXY", "")
    served = []

    def serve(recognizer, host, port, *, debug):
        served.append((host, port))
        raise SpeechError("enough")

    monkeypatch.setattr(app, "serve", serve)
    assert app.main([]) == SpeechError.exit_code
    assert capsys.readouterr().err == "app.py: enough\n"
    assert app.main(["--host", "0.0.0.0"]) == SpeechError.exit_code
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("app.py: warning: --host 0.0.0.0 lets others")
    assert error == "app.py: enough"
    assert served == [("127.0.0.1", 7860), ("0.0.0.0", 7860)]


def test_debug_shows_where_it_failed(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ModelError):
        app.main(["--debug", "--model", str(tmp_path / "absent")])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_deletes_the_recordings_and_ends_well(stop, wav, tmp_path):
    port = free_port()
    folder = tmp_path / "temporary"
    # behind a proxy that is not there: the app needs nothing from outside
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "--port", str(port)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "GRADIO_TEMP_DIR": str(folder), "NO_PROXY": "", **proxies},
    )
    with process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stderr is not None
        assert (
            process.stderr.readline() == f"app.py: open http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
        )
        client = Client(f"http://127.0.0.1:{port}/", verbose=False, analytics_enabled=False)
        client.predict(handle_file(wav()), api_name="/recognize")
        assert list(folder.rglob("*.wav"))
        process.send_signal(stop)
        assert process.wait(30) == 0
        watchdog.cancel()
    assert not list(folder.rglob("*.wav"))
