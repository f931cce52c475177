"""The server of the page: its addresses, and its routes for live sound without Gradio."""

import shutil
import stat
import subprocess
import tempfile
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

pytest.importorskip("gradio")

from gradio_client import handle_file  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.testclient import TestClient

from speech.environment import private_folder
from speech.errors import SpeechError
from speech.web.address import Address, is_loopback
from speech.web.models import ModelRegistry
from speech.web.routes import live_routes
from speech.web.server import serve
from speech.web.sessions import Listeners
from tests.hearing import LABELS, by_loudness
from tests.sounds import tone
from tests.web.serving import client_of, free_port, word_file


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
    assert is_loopback(host) is loopback


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two certificates with their keys, as (certificate, key)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    pairs = [(folder / f"{name}.pem", folder / f"{name}.key") for name in ("one", "two")]
    for certificate, key in pairs:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
    return pairs


def test_a_certificate_and_a_key_that_do_not_fit_are_one_sentence(refused, pairs, tmp_path):
    (one, key), (_, other_key) = pairs
    absent, text = tmp_path / "none.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", str(key), "-out", str(locked)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    Address(certificate=one, key=key).check()
    for certificate, private, problem in (
        (absent, key, "none.pem: expected a file in PEM format, got none; check the path"),
        (one, absent, "none.pem: expected a file in PEM format, got none; check the path"),
        (one, None, "expected a certificate and its private key"),
        (None, key, "expected a certificate for the key"),
        (one, other_key, "check that they belong together and are not swapped"),
        (key, one, "check that they belong together and are not swapped"),
        (text, key, "expected a certificate and its private key"),
        (one, locked, "without a password"),
    ):
        address = Address(certificate=certificate, key=private)
        message = refused(SpeechError, lambda: serve(ModelRegistry(by_loudness()), address))  # noqa: B023
        assert problem in message


def test_by_https_a_program_is_answered_too(pairs):
    certificate, key = pairs[0]
    address = Address(port=free_port(), certificate=certificate, key=key)
    blocks = serve(ModelRegistry(by_loudness()), address)
    url = str(blocks.local_url)
    try:
        assert url.startswith("https://")
        answer = httpx.post(f"{url}live", json={}, verify=False, timeout=60)
    finally:
        blocks.close(verbose=False)
    assert answer.json()["labels"] == list(LABELS)


def test_what_it_prints_for_others_is_where_others_reach_it():
    address = Address("0.0.0.0", free_port())
    urls = address.for_others()
    assert urls
    assert not Address().for_others()
    assert Address("speech.local", 80).for_others() == ["http://speech.local:80/"]
    blocks = serve(ModelRegistry(by_loudness()), address)
    try:
        for url in urls:
            host = urlsplit(url).hostname
            assert host
            assert not is_loopback(host)
            if host.replace(".", "").isdecimal():
                answer = httpx.post(f"{url}live", json={}, timeout=60, trust_env=False)
                assert answer.status_code == 200
    finally:
        blocks.close(verbose=False)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder as the machine's folder for temporary files."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


# gradio 6.31 counts its requests with what pandas 3 deprecates
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")
def test_uploads_go_to_a_folder_of_this_users_own(temporary):
    (temporary / "gradio").write_text("another user's, and so closed to this one")
    blocks = serve(ModelRegistry(by_loudness()), Address(port=free_port()))
    try:
        client = client_of(str(blocks.local_url))
        client.predict(handle_file(word_file(temporary)), api_name="/recognize")
    finally:
        blocks.close(verbose=False)
    folder = private_folder("uploads")
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (temporary / "gradio").is_file()


@pytest.fixture
def live():
    """The routes of the Live tab, without Gradio, and who listens."""
    listeners = Listeners(limit=2)
    routes = live_routes(ModelRegistry(by_loudness()), listeners)
    with TestClient(Starlette(routes=routes)) as client:
        yield client, listeners


SOUND = {"Content-Type": "application/octet-stream"}


def test_what_a_page_sends_is_decoded_and_forgotten_when_it_ends(live):
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
    routes = live_routes(ModelRegistry(recognizer), Listeners())
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
