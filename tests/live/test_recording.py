"""A long recording as the page shows it: the detections are the decoder's, the outline is true."""

import csv
import json

import numpy as np
import pytest

from speech.errors import AudioError
from speech.live.recording import commands_in, is_short
from speech.live.scan import scan
from tests.e2e.tones import RATE, recognizer, said
from tests.sounds import encode

WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some words.wav"
    path.write_bytes(encode(said(WORDS, 5.0), RATE))
    return path


def test_the_detections_are_those_of_a_scan(file):
    found = commands_in(recognizer(), file)
    expected = scan(recognizer(), file).detections
    assert [(d["label"], d["time"]) for d in found["detections"]] == [
        (d.label, round(d.time, 3)) for d in expected
    ]
    assert [d["label"] for d in found["detections"]] == [word for _, word in WORDS]
    assert found["seconds"] == 5.0
    json.dumps(found)


def test_the_outline_is_high_where_something_is_said(file):
    peaks = np.array(commands_in(recognizer(), file)["peaks"])
    times = np.arange(len(peaks)) * 5.0 / len(peaks)
    speaking = np.any([(times >= s) & (times < s + 0.38) for s, _ in WORDS], axis=0)
    quiet = np.all([(times < s - 0.02) | (times >= s + 0.42) for s, _ in WORDS], axis=0)
    assert peaks[speaking].min() > 0.2
    assert peaks[quiet].max() < 0.05


def test_the_outline_of_an_hour_is_no_larger(tmp_path):
    path = tmp_path / "hour.flac"
    path.write_bytes(encode(np.zeros(3600 * 8_000, np.int16), 8_000, "FLAC"))
    assert len(commands_in(recognizer(), path)["peaks"]) == 1200


def test_the_files_say_the_same_and_name_no_folder(file, tmp_path):
    found = commands_in(recognizer(), file)
    files = found["files"]
    rows = list(csv.DictReader(files["csv"].splitlines()))
    labels = [line.split("\t") for line in files["txt"].splitlines()]
    document = json.loads(files["json"])
    said_words = [word for _, word in WORDS]
    assert [row["label"] for row in rows] == said_words
    assert [label for _, _, label in labels] == said_words
    assert [d["label"] for d in document["detections"]] == said_words
    assert {row["file"] for row in rows} == {"some words.wav"} == {document["name"]}
    assert str(tmp_path) not in str(found)


def test_too_long_a_recording_is_refused(file, refused):
    message = refused(AudioError, lambda: commands_in(recognizer(), file, max_seconds=4.9))
    assert "at most" in message
    assert commands_in(recognizer(), file, max_seconds=5.0)["seconds"] == 5.0


def test_it_tells_how_far_it_is(file):
    told: list[float] = []
    commands_in(recognizer(), file, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(("seconds", "short"), [(0.1, True), (2.0, True), (2.01, False)])
def test_two_clips_are_short(tmp_path, seconds, short):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(np.zeros(round(seconds * RATE)), RATE))
    assert is_short(recognizer(), path) is short
