"""The Teach tab without a page: what the server keeps of a lesson, and its requests."""

import io
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("gradio")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from speech.errors import SpeechError, TeachError
from speech.teach.takes import save_takes
from speech.web import lessons
from speech.web.lessons import MAX_TAKES, MAX_WORDS, NO_WORD, Lesson, Lessons
from speech.web.models import ModelRegistry
from speech.web.routes import live_routes, teach_routes
from speech.web.sessions import Listeners
from tests.e2e import tones
from tests.hearing import by_loudness

RATE = 16_000
SOUND = {"Content-Type": "application/octet-stream"}


def pcm(pitch: float = 500.0, rate: int = RATE) -> bytes:
    """Half a second, with a quarter of silence at both ends."""
    time_ = np.arange(rate // 2) / rate
    word = 0.3 * np.sin(2 * np.pi * pitch * time_) * np.hanning(rate // 2)
    return np.round(32767 * np.pad(word, rate // 4)).astype("<i2").tobytes()


def fake_teach(takes, *, keep=(), negatives=(), on_progress=lambda done, total: None):
    """A model of tones, whatever the takes; its sentences are what it was given."""
    on_progress(1, 1)

    def save(folder):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"a model")
        save_takes(takes, folder / "takes.zip")

    given = [*takes, *keep, *(f"not {len(wrong)}" for wrong in negatives)]
    quality = SimpleNamespace(sentences=lambda: given, to_dict=dict)
    return SimpleNamespace(quality=quality, recognizer=tones.recognizer(), save=save)


def lesson(teach=fake_teach, turn=None) -> Lesson:
    return Lesson(turn or threading.Lock(), teach)


def filled(*labels: str, takes: int = 3) -> Lesson:
    kept = lesson()
    for word, label in enumerate(labels):
        for number in range(takes):
            kept.add_take(label, pcm(300 + 100 * word + 10 * number), RATE)
    return kept


def shape(kept: Lesson) -> dict[str, int]:
    return {word["label"]: len(word["takes"]) for word in kept.state()["words"]}


def taught(kept: Lesson, keep=()):
    """What has become of it."""
    kept.start(keep)
    while (work := kept.state()["work"])["state"] in ("waiting", "teaching"):
        time.sleep(0.01)
    return work


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_take_is_kept_as_it_was_said_at_one_rate(rate):
    kept = lesson()
    number = kept.add_take("lamp", pcm(rate=rate), rate)
    sound = np.frombuffer(kept.sound(number), "<i2")
    expected = np.frombuffer(pcm(), "<i2")
    np.testing.assert_allclose(sound, expected, atol=60)
    assert kept.state()["words"][0]["takes"] == [{"id": number, "seconds": 1.0, "fault": None}]


def test_a_take_that_looks_wrong_is_told_with_the_remedy():
    kept = lesson()
    kept.add_take("lamp", pcm(), RATE)
    kept.add_take("lamp", bytes(RATE), RATE)
    good, silent = kept.state()["words"][0]["takes"]
    assert good["fault"] is None
    reason, remedy = silent["fault"]
    assert "silent" in reason
    assert remedy
    kept.remove("lamp", silent["id"])
    assert shape(kept) == {"lamp": 1}


def test_what_is_deleted_is_gone_and_the_rest_stays():
    kept = filled("lamp", "music")
    first = kept.state()["words"][0]["takes"][0]["id"]
    kept.remove("lamp", first)
    assert shape(kept) == {"lamp": 2, "music": 3}
    with pytest.raises(TeachError, match="reload the page"):
        kept.sound(first)
    kept.remove("music")
    kept.remove("music")  # twice is no harm
    assert shape(kept) == {"lamp": 2}


@pytest.mark.parametrize(
    ("sound", "rate", "problem"),
    [
        (b"", RATE, "whole 16-bit samples"),
        (b"abc", RATE, "whole 16-bit samples"),
        (bytes(9 * RATE), RATE, "at most 4 s"),
        (pcm(), 5, "expected a rate of"),
    ],
)
def test_a_bad_take_is_a_sentence_and_changes_nothing(refused, sound, rate, problem):
    kept = filled("lamp")
    before = kept.state()
    assert problem in refused(SpeechError, lambda: kept.add_take("lamp", sound, rate))
    assert problem in refused(SpeechError, lambda: kept.add_take("new", sound, rate))
    assert kept.state() == before


@pytest.mark.parametrize("label", ["a/b", "<b>x</b>", "it's", 'a "b"', "x" * 51, " ", "unknown"])
def test_a_name_that_is_none_is_a_sentence_and_changes_nothing(refused, label):
    kept = filled("lamp")
    before = kept.state()
    refused(TeachError, lambda: kept.add_word(label))
    refused(TeachError, lambda: kept.add_take(label, pcm(), RATE))
    assert kept.state() == before


def test_no_more_is_kept_than_may_be(refused, monkeypatch):
    kept = filled("word 0", takes=MAX_TAKES)
    assert "50 takes" in refused(TeachError, lambda: kept.add_take("word 0", pcm(), RATE))
    for number in range(1, MAX_WORDS):
        kept.add_word(f"word {number}")
    assert "20 words" in refused(TeachError, lambda: kept.add_word("one more"))
    assert "20 words" in refused(TeachError, lambda: kept.add_take("one more", pcm(), RATE))
    monkeypatch.setattr(lessons, "MAX_SECONDS", 50.5)
    assert "50.5 s" in refused(TeachError, lambda: kept.add_take("word 1", pcm(), RATE))
    assert shape(kept) == {"word 0": MAX_TAKES} | {f"word {n}": 0 for n in range(1, MAX_WORDS)}


def test_saved_takes_come_back_sample_by_sample_and_only_once():
    kept = filled("lamp on", "ночь")
    content = kept.saved()
    other = lesson()
    for _ in range(2):
        other.load(content)
    assert shape(other) == {"lamp on": 3, "ночь": 3}
    for label, waveforms in kept.takes().items():
        for before, after in zip(waveforms, other.takes()[label], strict=True):
            np.testing.assert_array_equal(before, after)


def test_once_taught_the_zip_has_the_model_too_and_loads_as_well():
    kept = filled("lamp", "music")
    assert taught(kept)["sentences"] == ["lamp", "music"]
    content = kept.saved()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("my-words/model.onnx") == b"a model"
    other = lesson()
    other.load(content)
    assert shape(other) == {"lamp": 3, "music": 3}
    kept.remove("music")  # the model is not of these takes any more
    with zipfile.ZipFile(io.BytesIO(kept.saved())) as archive:
        assert not [name for name in archive.namelist() if "model" in name]


def test_what_is_none_of_the_words_is_taught_saved_and_loaded_as_that():
    kept = filled("lamp")
    wrong = kept.add_take(NO_WORD, pcm(900), RATE)
    assert [*kept.takes()] == ["lamp"]
    assert taught(kept)["sentences"] == ["lamp", "not 16000"]
    other = lesson()
    other.load(kept.saved())
    assert shape(other) == {"lamp": 3, NO_WORD: 1}
    np.testing.assert_array_equal(other.negatives()[0], kept.negatives()[0])
    kept.remove(NO_WORD, wrong)
    assert not kept.negatives()


def zip_of(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, inside in members.items():
            archive.writestr(name, inside)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip at all",
        zip_of(),
        zip_of(**{"../../lamp/1.wav": b"RIFF"}),
        zip_of(**{"/etc/lamp/1.wav": b"RIFF"}),
        zip_of(**{"lamp/1.wav": b"no sound"}),
        zip_of(**{"my-words/takes.zip": b"no zip"}),
        zip_of(**{"lamp/1.wav": bytes(100 << 20)}),
        zip_of(**{"my-words/takes.zip": bytes(100 << 20)}),
    ],
    ids=["empty", "text", "none", "above", "root", "no-sound", "inner", "bomb", "inner-bomb"],
)
def test_a_zip_of_somebody_else_is_a_sentence_and_changes_nothing(refused, content):
    kept = filled("lamp")
    before = kept.state()
    refused(SpeechError, lambda: kept.load(content))
    assert kept.state() == before


def test_a_zip_that_is_too_much_changes_nothing(refused):
    full = filled("lamp", takes=MAX_TAKES)
    kept = filled("lamp", takes=1)
    kept.add_take("lamp", pcm(900), RATE)
    before = kept.state()
    assert "50 takes" in refused(TeachError, lambda: kept.load(full.saved()))
    assert kept.state() == before


@pytest.mark.parametrize("is_taught", [False, True])
def test_a_full_disk_is_a_sentence_nothing_is_half_saved_and_the_takes_stay(
    refused, monkeypatch, tmp_path, is_taught
):
    kept = filled("lamp", "music")
    content = kept.saved()
    if is_taught:
        taught(kept)
    before = kept.state()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as disk:
        disk.setattr(zipfile.ZipFile, "writestr", full)
        assert "'No space left on device'; make room" in refused(TeachError, kept.saved)
        disk.setattr(Path, "write_bytes", full)
        assert "No space left" in refused(TeachError, lambda: kept.load(content))
        assert kept.state() == before
    [folder] = tmp_path.iterdir()
    assert not [*folder.iterdir()], "what was begun is gone"
    other = lesson()
    other.load(kept.saved())
    assert shape(other) == {"lamp": 3, "music": 3}


def test_two_pages_that_teach_at_once_take_turns_and_keep_apart():
    entered, leave = threading.Event(), threading.Event()

    def slowly(takes, **options):
        entered.set()
        assert leave.wait(60)
        return fake_teach(takes, **options)

    both = Lessons(teach=slowly)
    first, second = (both.get(both.begin()) for _ in range(2))
    first.add_take("lamp", pcm(), RATE)
    second.add_take("music", pcm(), RATE)
    first.start()
    assert entered.wait(60)
    second.start(["yes"])
    assert second.state()["work"] == {"state": "waiting"}
    with pytest.raises(TeachError, match="one model at a time"):
        first.start()
    leave.set()
    for page, sentences in ((first, ["lamp"]), (second, ["music", "yes"])):
        while page.state()["work"]["state"] != "taught":
            time.sleep(0.01)
        assert page.state()["work"]["sentences"] == sentences
    assert first.recognizer() is not second.recognizer()


def test_what_goes_wrong_while_it_is_taught_is_a_sentence_and_the_last_model_stays(caplog):
    errors: list[Exception] = []

    def unreliable(takes, **options):
        if errors:
            raise errors.pop()
        return fake_teach(takes, **options)

    kept = lesson(unreliable)
    with pytest.raises(TeachError, match="press Teach first"):
        kept.recognizer()
    kept.add_take("lamp", pcm(), RATE)
    assert taught(kept)["state"] == "taught"
    model = kept.recognizer()
    errors.append(TeachError("expected takes that differ, got the same; record them again"))
    assert taught(kept)["error"].startswith("expected takes that differ")
    errors.append(MemoryError("no such room"))
    assert "MemoryError: no such room" in taught(kept)["error"]
    assert "could not be taught" in caplog.text
    assert kept.recognizer() is model
    assert taught(kept)["state"] == "taught"


def test_a_page_that_is_closed_waits_for_no_model():
    turn = threading.Lock()
    kept = lesson(turn=turn)
    kept.add_take("lamp", pcm(), RATE)
    with turn:
        kept.start()
        kept.close()
    while kept.state()["work"]["state"] == "waiting":
        time.sleep(0.01)
    assert kept.state()["work"]["state"] == "failed"


@pytest.fixture
def client():
    """The routes of both tabs, without Gradio; two pages may teach."""
    pages, registry = Lessons(limit=2, teach=fake_teach), ModelRegistry(by_loudness())
    routes = [*teach_routes(registry, pages), *live_routes(registry, Listeners(), pages)]
    with TestClient(Starlette(routes=routes)) as client:
        yield client


def test_by_requests_a_word_is_taught_tried_live_and_saved(client):
    key = client.post("/teach", json={}).json()["key"]
    assert client.post(f"/teach/{key}/add", json={"label": "lamp"}).json()["words"]
    answer = client.post(f"/teach/{key}/take?label=lamp&rate=16000", content=pcm(), headers=SOUND)
    take = answer.json()["take"]
    assert client.post(f"/teach/{key}/sound", json={"take": take}).content == pcm()
    work = client.post(f"/teach/{key}/start", json={}).json()["work"]
    while work["state"] in ("waiting", "teaching"):
        work = client.post(f"/teach/{key}/look", json={}).json()["work"]
    assert work["state"] == "taught"
    assert work["model"]["commands"] == ["low", "high"]
    live = client.post("/live", json={"model": "by-loudness", "lesson": key}).json()
    assert live["commands"] == ["low", "high"]
    assert client.post("/live", json={"model": "by-loudness"}).json()["commands"] == ["yes", "no"]
    saved = client.post(f"/teach/{key}/save", json={}).content
    client.post(f"/teach/{key}/remove", json={"label": "lamp"})
    answer = client.post(f"/teach/{key}/load", content=saved, headers=SOUND).json()
    assert [word["label"] for word in answer["words"]] == ["lamp"]
    assert client.post(f"/teach/{key}/end", json={}).status_code == 200
    for path, body in ((f"/teach/{key}/look", {}), ("/live", {"lesson": key})):
        answer = client.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["unknown"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "problem"),
    [
        ("/KEY/add", b"{}", {"Content-Type": "text/plain"}, "the content type application/json"),
        ("/KEY/add", b"{", {"Content-Type": "application/json"}, "Expecting"),
        ("/KEY/add", b"[]", {"Content-Type": "application/json"}, "no attribute"),
        ("/KEY/add", b" " * 5000, {"Content-Type": "application/json"}, "at most 4096 bytes"),
        ("/KEY/start", b'{"keep": 3}', {"Content-Type": "application/json"}, "expected"),
        ("/KEY/save", b"{}", {"Content-Type": "application/json"}, "expected"),
        ("/KEY/sound", b'{"take": 9}', {"Content-Type": "application/json"}, "number of a take"),
        ("/KEY/take?label=x&rate=16000", b"abc", SOUND, "whole 16-bit samples"),
        ("/KEY/take?label=x&rate=nan", b"ab", SOUND, "expected a rate of"),
        ("/KEY/take?label=x&rate=16000", bytes(2_000_000), SOUND, "send shorter pieces"),
        ("/KEY/load", b"no zip", SOUND, "expected"),
        ("/nobody/look", b"{}", {"Content-Type": "application/json"}, "does not know"),
    ],
)
def test_what_is_wrong_with_a_request_becomes_a_sentence(client, path, body, headers, problem):
    key = client.post("/teach", json={}).json()["key"]
    answer = client.post(f"/teach{path.replace('KEY', key)}", content=body, headers=headers)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]
    answer = client.post(f"/teach/{key}/look", json={}).json()
    assert answer["words"] == []


def test_no_more_pages_teach_than_may(client):
    answers = [client.post("/teach", json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 400]
    assert "expected at most 2 pages" in answers[-1].json()["error"]
