"""The page without a browser: its answers, what it says of bad files, how it starts and ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("gradio")

from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from gradio_client.exceptions import AppError  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.testclient import TestClient

import app
from speech.errors import ModelError, SpeechError
from speech.web.models import Shelf
from speech.web.sessions import Listeners
from tests.e2e.tones import recognizer, said
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


def connected(address: str) -> Client:
    patience = {"timeout": 120.0}  # a busy machine is no failure
    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs=patience)


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


def test_of_a_recording_of_two_clips_the_loudest_one_is_recognised(tmp_path):
    samples = 0.01 * noise(seconds=2)
    samples[8_000:24_000] += tone(1, 16_000)
    path = tmp_path / "two.wav"
    path.write_bytes(encode(samples, 16_000))
    answer = app.answer(by_loudness(), str(path))
    assert answer.status == "Of 2.00 s, this is the loudest 1 s."
    assert answer.probabilities is not None
    assert answer.probabilities["yes"] > 0.9
    assert answer.recording == {"audio": f"gradio_api/file={path}"}


def test_a_longer_recording_becomes_a_timeline_and_its_files(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(encode(said([(0.5, "low"), (2.0, "high")], 4.0), 16_000))
    answer = app.answer(recognizer(), str(path))
    assert answer[:3] == (None, None, None)
    assert answer.status == "Heard 4.0 s with 2 commands."
    assert answer.recording is not None
    timeline = answer.recording["timeline"]
    assert [found["label"] for found in timeline["detections"]] == ["low", "high"]
    assert set(timeline["files"]) == {"csv", "json", "txt"}
    assert str(tmp_path) not in str(timeline)


@pytest.mark.parametrize(
    "content", [b"", b"this is no sound\n", encode(tone(1, 16_000), 16_000)[:2000]]
)
def test_a_bad_file_becomes_one_message_without_the_servers_folder(tmp_path, content):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    answer = app.answer(by_loudness(), str(path))
    assert answer[:3] == (None, None, None)
    assert answer.recording is None
    assert answer.status.startswith(f"{app.MARK} bad.wav: expected ")
    assert str(tmp_path) not in answer.status
    assert "\n" not in answer.status


def test_two_hours_in_a_small_file_are_refused_before_they_are_recognised(tmp_path):
    heard: list[npt.NDArray[np.float32]] = []
    path = tmp_path / "silence.flac"
    path.write_bytes(encode(np.zeros(7200 * 8_000, np.int16), 8_000, "FLAC"))
    assert path.stat().st_size < 1_000_000
    status = app.answer(by_loudness(heard), str(path)).status
    assert status.startswith(f"{app.MARK} silence.flac: expected at most 60 minutes, got more; cut")
    assert not heard


def test_an_hour_of_silence_is_an_answer_like_any_other(tmp_path):
    path = tmp_path / "silence.flac"
    path.write_bytes(encode(np.zeros(3600 * 8_000, np.int16), 8_000, "FLAC"))
    assert app.answer(by_loudness(), str(path)).status == "Heard 3600.0 s with 0 commands."


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_of_an_m4a_it_says_what_it_reads_and_how_to_convert(wav, tmp_path):
    path = tmp_path / "memo.m4a"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", wav(), "-c:a", "aac", str(path)], check=True, timeout=60
    )
    status = app.answer(by_loudness(), str(path)).status
    assert status.startswith(f"{app.MARK} memo.m4a: expected WAV, FLAC, OGG, Opus or MP3, got")
    assert status.endswith("convert it, for example: ffmpeg -i INPUT output.wav")


def test_a_model_that_fails_becomes_a_message(wav):
    recognizer = by_loudness()

    def fail(waveforms):
        raise ModelError("expected a model, got none; train it again")

    recognizer._infer = fail
    assert app.answer(recognizer, wav()).status.startswith(f"{app.MARK} expected a model")


def test_no_recording_is_an_invitation():
    assert app.answer(by_loudness(), None) == app.Answer(None, None, None, app.INVITATION, None)


def test_the_page_has_one_endpoint_called_recognize():
    blocks = app.build_app(Shelf(by_loudness()))
    info = blocks.get_api_info()
    assert list(info["named_endpoints"]) == ["/recognize"]
    assert blocks.delete_cache == (60, 300)
    assert not blocks.analytics_enabled


# gradio 6.31 counts its requests with what pandas 3 deprecates
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")
def test_a_program_can_ask_the_page(wav, monkeypatch, capfd):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    blocks = app.serve(Shelf(by_loudness()), app.Address(port=free_port()))
    try:
        client = connected(str(blocks.local_url))
        label, waveform, mfcc, status, recording = client.predict(
            handle_file(wav()), api_name="/recognize"
        )
        with pytest.raises(AppError, match="not in the list of choices"):
            client.predict(handle_file(wav()), model="../commands-8", api_name="/recognize")
    finally:
        blocks.close(verbose=False)
    assert "timeline" not in recording
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

    def serve(shelf, address, *, debug):
        served.append(address)
        raise SpeechError("enough")

    monkeypatch.setattr(app, "serve", serve)
    assert app.main([]) == SpeechError.exit_code
    assert capsys.readouterr().err == "app.py: enough\n"
    assert app.main(["--host", "0.0.0.0"]) == SpeechError.exit_code
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("app.py: warning: --host 0.0.0.0 lets others")
    assert error == "app.py: enough"
    assert "--ssl-certfile" in warning
    assert app.main(["--share"]) == SpeechError.exit_code
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("app.py: warning: --share gives this page a public address")
    assert served == [app.Address(), app.Address("0.0.0.0"), app.Address(share=True)]


def test_a_certificate_that_is_not_there_is_one_sentence(refused, tmp_path):
    address = app.Address(certificate=str(tmp_path / "none.pem"))
    with pytest.raises(SpeechError, match=r"expected a file in PEM format, got none; check"):
        app.serve(Shelf(by_loudness()), address)


def test_a_space_of_hugging_face_is_served_where_it_says(monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    options = app._parse([])
    assert (options.host, options.port) == ("0.0.0.0", 7861)


def test_by_https_the_page_hears_a_program_too(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    address = app.Address(port=free_port(), certificate=str(certificate), key=str(key))
    blocks = app.serve(Shelf(by_loudness()), address)
    url = str(blocks.local_url)
    try:
        assert url.startswith("https://")
        answer = httpx.post(f"{url}live", json={}, verify=False, timeout=60)
    finally:
        blocks.close(verbose=False)
    assert answer.json()["labels"] == list(LABELS)


@pytest.fixture
def live():
    """The routes of the Live tab, without Gradio, and who listens."""
    listeners = Listeners(most=2)
    routes = app.live_routes(Shelf(by_loudness()), listeners)
    with TestClient(Starlette(routes=routes)) as client:
        yield client, listeners


SOUND = {"Content-Type": "application/octet-stream"}


def test_what_a_page_says_is_heard_and_forgotten_when_it_ends(live):
    client, listeners = live
    key = client.post("/live", json={}).json()["key"]
    pcm = np.round(32767 * tone(0.4, 16_000)).astype("<i2").tobytes()
    said = []
    for sound in (pcm, bytes(48_000)):
        answer = client.post(f"/live/{key}?rate=16000&lost=0", content=sound, headers=SOUND).json()
        said += [m["label"] for m in answer["messages"] if m["type"] == "detection"]
    assert said == ["yes"]
    assert client.post(f"/live/{key}/end", json={}).status_code == 200
    assert not len(listeners)
    answer = client.post(f"/live/{key}?rate=16000", content=pcm, headers=SOUND)
    assert answer.status_code == 400
    assert "press Start again" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "problem"),
    [
        ("", b"{}", {"Content-Type": "text/plain"}, "expected the content type application/json"),
        ("", b"{", {"Content-Type": "application/json"}, "Expecting"),
        ("", b"[]", {"Content-Type": "application/json"}, "no attribute"),
        ("", b'{"model": "../x"}', {"Content-Type": "application/json"}, "one of the models"),
        ("", b'{"threshold": 7}', {"Content-Type": "application/json"}, "threshold=7"),
        ("", b'{"smoothing": 0.25}', {"Content-Type": "application/json"}, "whole number"),
        ("/KEY?rate=5", b"ab", SOUND, "expected a rate of"),
        ("/KEY?rate=nan", b"ab", SOUND, "expected a rate of"),
        ("/KEY?rate=16000&lost=-1", b"ab", SOUND, "expected seconds lost"),
        ("/KEY?rate=16000", b"abc", SOUND, "whole 16-bit samples"),
        ("/KEY?rate=16000", bytes(65_000), SOUND, "at most 2 s"),
        ("", b" " * 5000, {"Content-Type": "application/json"}, "at most 4096 bytes"),
        ("/KEY?rate=16000", bytes(800_000), SOUND, "send shorter pieces"),
        ("/nobody?rate=16000", b"ab", SOUND, "press Start again"),
    ],
)
def test_what_is_wrong_with_a_request_becomes_a_sentence(live, path, body, headers, problem):
    client, _ = live
    key = client.post("/live", json={}).json()["key"]
    answer = client.post(f"/live{path.replace('KEY', key)}", content=body, headers=headers)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]
    pcm = bytes(3200)
    assert client.post(f"/live/{key}?rate=16000", content=pcm, headers=SOUND).status_code == 200


def test_a_model_that_fails_while_it_listens_becomes_a_sentence_and_a_line_in_the_log(caplog):
    recognizer = by_loudness()
    routes = app.live_routes(Shelf(recognizer), Listeners())
    with TestClient(Starlette(routes=routes)) as client:
        key = client.post("/live", json={}).json()["key"]

        def fail(waveforms):
            raise TypeError("no such thing")

        recognizer._infer = fail
        sound = np.full(3200, 99, "<i2").tobytes()
        answer = client.post(f"/live/{key}?rate=16000", content=sound, headers=SOUND)
    assert answer.status_code == 500
    assert "got TypeError: no such thing" in answer.json()["error"]
    assert "failed" in caplog.text


def test_no_more_listen_than_may(live):
    client, _ = live
    answers = [client.post("/live", json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 400]
    assert "expected at most 2 pages" in answers[-1].json()["error"]


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
        client = connected(f"http://127.0.0.1:{port}/")
        client.predict(handle_file(wav()), api_name="/recognize")
        assert list(folder.rglob("*.wav"))
        process.send_signal(stop)
        assert process.wait(30) == 0
        watchdog.cancel()
    assert not list(folder.rglob("*.wav"))
