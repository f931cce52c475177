"""The live mode stays up: hours, clocks that jump, many pages at once, pages that send garbage.

Stalled callbacks, devices that go and come back and killed sound servers are in
tests/live/test_microphone.py and tests/e2e/test_listen.py.
"""

import ast
import gc
import json
import random
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.security.conftest import MODEL

pytest.importorskip("gradio")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from speech.web.models import ModelRegistry
from speech.web.routes import live_routes
from speech.web.sessions import MAX_CHUNK_BYTES, Listener, Listeners
from tests.e2e.tones import RATE, recognizer, said
from tests.hearing import by_loudness
from tests.web.test_sessions import WORDS, detections, pieces, told

# what runs while somebody speaks
LIVE = (
    "speech/stream.py",
    "speech/live/session.py",
    "speech/live/sources.py",
    "speech/live/pcm.py",
    "speech/live/listen.py",
    "speech/live/scan.py",
    "speech/web/sessions.py",
    "speech/live/microphone.py",
    "speech/web/server.py",
)
JUMPING = {"time.time", "time.time_ns", "time.localtime", "datetime.now", "dt.datetime.now"}
SESSIONS = 10
HOURS = """
    import os, sys, json
    import numpy as np
    from speech.recognizer import load
    from speech.stream import StreamDecoder
    minutes, page = int(sys.argv[2]), os.sysconf("SC_PAGE_SIZE")
    rng = np.random.default_rng(3)
    decoder, held, detected = StreamDecoder(load(sys.argv[1]), batch_size=32), [], 0
    for _ in range(minutes):
        level = 10.0 ** rng.uniform(-4, -0.5)
        for _ in range(60):
            second = level * rng.standard_normal((44_100, 2))
            detected += len(decoder.push(np.clip(second, -1, 1).astype(np.float32), 44_100))
        with open("/proc/self/statm") as file:
            held.append(int(file.read().split()[1]) * page)
    print(json.dumps({"seconds": decoder.seconds, "resident": held, "detections": detected}))
"""


def stream_of(minutes: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HOURS), str(MODEL), str(minutes)],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict = json.loads(done.stdout)
    assert told["seconds"] == pytest.approx(60 * minutes, abs=0.2)
    after_start, end = told["resident"][minutes // 10], told["resident"][-1]
    assert end < after_start + 4_000_000, told["resident"]
    return told


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells the memory on Linux")
def test_three_minutes_of_stream_take_no_more_memory_than_one():
    stream_of(3)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_an_hour_of_stream_takes_no_more_memory_than_its_beginning(record):
    told = stream_of(60)
    megabytes = [round(held / 1e6, 1) for held in told.pop("resident")]
    record("an hour of stream", told | {"resident MB by minute": megabytes[::10] + megabytes[-1:]})


@pytest.mark.parametrize("file", LIVE)
def test_nothing_that_listens_reads_a_clock_that_can_jump(file):
    tree = ast.parse((PROJECT / file).read_text("utf-8"))
    asked = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not asked & JUMPING


def test_a_clock_that_jumps_forgets_nobody_and_changes_no_detection(monkeypatch):
    expected = detections(told(Listener(recognizer()), said(WORDS, 5.0)))
    chance = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: chance.uniform(-1e9, 4e9))
    listeners = Listeners(limit=3)
    key = listeners.add(Listener(recognizer()))
    messages = []
    for piece in pieces(said(WORDS, 5.0)):
        messages += listeners.get(key).push(piece, RATE)
        listeners.add(Listener(recognizer())) if len(listeners) < 2 else None
    assert detections(messages + listeners.get(key).end()) == expected


def test_ten_who_speak_at_once_are_each_heard_as_if_alone_in_bounded_memory():
    words = [[(0.4 + 0.05 * i, "low"), (2.0, "high")][:: 1 if i % 2 else -1] for i in range(10)]
    speeches = [said(sorted(each), 3.5) for each in words]
    alone = [detections(told(Listener(recognizer()), speech)) for speech in speeches]
    model, listeners = recognizer(), Listeners()
    results: list[list] = [[] for _ in speeches]
    turns: list[int] = []

    def speak(number: int) -> None:
        key = listeners.add(Listener(model))
        for _ in range(2):  # the second time into what the first one has warm_up up
            found = []
            for piece in pieces(speeches[number]):
                found += listeners.get(key).push(piece, RATE)
                turns.append(number)
            results[number].append(found + listeners.get(key).end())

    tracemalloc.start()
    try:
        threads = [threading.Thread(target=speak, args=(number,)) for number in range(SESSIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(listeners) == SESSIONS
    for each, found in zip(alone, results, strict=True):
        assert detections(found[0]) == each
    assert held < 20_000_000
    # fair: at the time when half of all is heard, everybody has had a turn
    assert set(turns[: len(turns) // 2]) == set(range(SESSIONS))


def test_a_page_that_sends_ten_times_too_fast_is_heard_and_leaves_no_queue():
    listener = Listener(recognizer())
    expected = detections(told(Listener(recognizer()), said(WORDS, 5.0)))
    found = [m for piece in pieces(said(WORDS, 5.0), 1.0) for m in listener.push(piece, RATE)]
    assert detections(found + listener.end()) == expected
    tracemalloc.start()
    try:
        for _ in range(100):
            listener.push(bytes(2 * RATE * 2), RATE)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()


def garbage(chance: random.Random, key: str) -> tuple[str, bytes, dict[str, str]]:
    """A request to the Live tab's routes as no page sends it."""
    number = chance.choice(["16000", "0", "-1", "1e9", "nan", "inf", "", "x", "8000", "4" * 400])
    lost = chance.choice(["0", "-1", "nan", "1e30", "", "0.5", "x"])
    paths = ["/live", f"/live/{key}", f"/live/{key}/end/x", "/live/", "/live/%00", "/live/../live"]
    path = chance.choice([*paths, f"/live/{key}", f"/live/{key}", "/live/" + "k" * 3000])
    body = chance.choice(
        [
            chance.randbytes(chance.randint(0, 5_000)),
            bytes(chance.choice([0, 1, 3_200, 64_001, 70_000, MAX_CHUNK_BYTES + 1])),
            b"[" * 4_000,
            b'{"model": ' + chance.choice([b"1", b"null", b'"../../etc/passwd"', b"[]"]) + b"}",
            b'{"threshold": ' + chance.choice([b"NaN", b"1e999", b"-1", b'"x"', b"{}"]) + b"}",
            b'{"smoothing": ' + chance.choice([b"0", b"1e-9", b"true", b"[1]"]) + b"}",
            "\ud800".encode("utf-8", "surrogatepass"),
        ]
    )
    kinds = ["application/octet-stream", "application/json", "text/plain", "multipart/form-data"]
    return f"{path}?rate={number}&lost={lost}", body, {"Content-Type": chance.choice(kinds)}


def test_a_page_that_sends_garbage_gets_sentences_and_disturbs_nobody():
    listeners = Listeners(limit=4)
    expected = detections(told(Listener(recognizer()), said(WORDS, 5.0)))
    chance = random.Random(5)
    answers = dict.fromkeys((200, 400, 404, 405), 0)
    routes = live_routes(ModelRegistry(recognizer()), listeners)
    with TestClient(Starlette(routes=routes), raise_server_exceptions=False) as client:
        good = client.post("/live", json={}).json()["key"]
        bad = client.post("/live", json={}).json()["key"]
        messages = []
        headers = {"Content-Type": "application/octet-stream"}
        for piece in pieces(said(WORDS, 5.0)):
            for _ in range(8):
                path, body, kind = garbage(chance, bad)
                answer = client.post(path, content=body, headers=kind)
                if answer.status_code == 500:  # a sentence too, but the server's fault
                    assert b"RecursionError" in answer.content, (path, answer.text)
                    continue
                answers[answer.status_code] += 1
                assert answer.status_code != 400 or 10 < len(answer.json()["error"]) < 5_000
            answer = client.post(f"/live/{good}?rate={RATE}&lost=0", content=piece, headers=headers)
            assert answer.status_code == 200
            messages += answer.json()["messages"]
        ended = client.post(f"/live/{good}/end", json={}).json()["messages"]
    assert detections(messages + ended) == expected
    assert answers[400] > 100
    assert len(listeners) <= 4


def test_chunks_that_fail_do_not_stay_in_memory():
    listener = Listener(by_loudness())
    listener.push(bytes(3_200), RATE)
    tracemalloc.start()
    try:
        for _ in range(200):
            with pytest.raises(Exception, match="expected"):
                listener.push(bytes(3_201), RATE)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
