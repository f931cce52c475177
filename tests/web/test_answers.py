"""Recordings and what the File tab says of them, without a browser and without a server."""

import shutil
import subprocess

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("gradio")

from speech.audio import FORMATS
from speech.errors import ModelError
from speech.web.answers import ERROR_MARK, INVITATION, Answer, answer_file
from tests.e2e.tones import recognizer, said
from tests.hearing import LABELS, by_loudness
from tests.sounds import encode, noise, tone


@pytest.fixture
def wav(tmp_path):
    def write(name="word.wav", seconds=1.0, volume=1.0, rate=16_000):
        path = tmp_path / name
        path.write_bytes(encode(volume * tone(seconds, rate), rate))
        return str(path)

    return write


@pytest.mark.parametrize(("volume", "label"), [(1.0, "yes"), (0.1, "no"), (0.0, "silence")])
def test_the_answer_is_the_recognizers(wav, volume, label):
    answer = answer_file(by_loudness(), wav(volume=volume))
    assert answer.probabilities is not None
    assert tuple(answer.probabilities) == LABELS
    assert max(answer.probabilities, key=answer.probabilities.__getitem__) == label
    assert answer.status == f"{label}, 97 %"


@pytest.mark.parametrize(
    ("probabilities", "sentence"),
    [
        ((0.02, 0.01, 0.96, 0.01), "unknown, 96 %"),
        ((0.34, 0.05, 0.6, 0.01), "unknown (perhaps yes, 34 %)"),
        ((0.9, 0.05, 0.04, 0.01), "yes, 90 %"),
        ((0.01, 0.01, 0.01, 0.97), "silence, 97 %"),
    ],
)
def test_where_no_command_is_accepted_the_nearest_one_is_named(wav, probabilities, sentence):
    recognizer = by_loudness()
    recognizer._infer = lambda clips: np.tile(np.float32(probabilities), (len(clips), 1))
    assert answer_file(recognizer, wav()).status == sentence


def test_what_is_odd_about_a_recording_is_told_with_its_answer(tmp_path):
    path = tmp_path / "odd.wav"
    one = tone(1.0, 16_000)
    path.write_bytes(encode(np.stack([one, -one], axis=1), 16_000))
    answer = answer_file(by_loudness(), str(path))
    assert answer.status.startswith("yes, 97 %. Note: the channels cancel each other out")
    assert str(tmp_path) not in answer.status


def test_the_pictures_are_sharp_and_of_one_size(wav):
    answer = answer_file(by_loudness(), wav())
    assert answer.waveform is not None
    assert answer.mfcc is not None
    assert answer.waveform.size == answer.mfcc.size == (1200, 648)
    assert np.asarray(answer.waveform).std() > 1
    assert np.asarray(answer.mfcc).std() > 1


def test_any_rate_becomes_that_of_the_model(wav):
    clips: list[npt.NDArray[np.float32]] = []
    answer_file(by_loudness(clips), wav(rate=44_100))
    assert clips[0].shape == (16_000,)
    np.testing.assert_allclose(clips[0][500:-500], tone(1, 16_000)[500:-500], atol=1e-3)


def test_of_a_recording_of_two_clips_the_loudest_one_is_recognized(tmp_path):
    samples = 0.01 * noise(seconds=2)
    samples[8_000:24_000] += tone(1, 16_000)
    path = tmp_path / "two.wav"
    path.write_bytes(encode(samples, 16_000))
    answer = answer_file(by_loudness(), str(path))
    assert answer.status == "yes, 97 % (the loudest 1 s of 2.00 s)"
    assert answer.probabilities is not None
    assert answer.probabilities["yes"] > 0.9
    assert answer.recording == {"audio": f"gradio_api/file={path}"}


def test_a_longer_recording_becomes_a_timeline_and_its_files(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(encode(said([(0.5, "low"), (2.0, "high")], 4.0), 16_000))
    answer = answer_file(recognizer(), str(path))
    assert answer[:3] == (None, None, None)
    assert answer.status == "2 commands in 4.0 s."
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
    answer = answer_file(by_loudness(), str(path))
    assert answer[:3] == (None, None, None)
    assert answer.recording is None
    assert answer.status.startswith(f"{ERROR_MARK} bad.wav: expected ")
    assert str(tmp_path) not in answer.status
    assert "\n" not in answer.status


def test_two_hours_in_a_small_file_are_refused_before_they_are_recognized(tmp_path):
    clips: list[npt.NDArray[np.float32]] = []
    path = tmp_path / "silence.flac"
    path.write_bytes(encode(np.zeros(7200 * 8_000, np.int16), 8_000, "FLAC"))
    assert path.stat().st_size < 1_000_000
    status = answer_file(by_loudness(clips), str(path)).status
    assert status.startswith(
        f"{ERROR_MARK} silence.flac: expected at most 60 minutes, got more; cut"
    )
    assert not clips


def test_an_hour_of_silence_is_an_answer_like_any_other(tmp_path):
    path = tmp_path / "silence.flac"
    path.write_bytes(encode(np.zeros(3600 * 8_000, np.int16), 8_000, "FLAC"))
    assert answer_file(by_loudness(), str(path)).status == "0 commands in 3600.0 s."


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_of_an_m4a_it_says_what_it_reads_and_how_to_convert(wav, tmp_path):
    path = tmp_path / "memo.m4a"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", wav(), "-c:a", "aac", str(path)], check=True, timeout=60
    )
    status = answer_file(by_loudness(), str(path)).status
    assert status.startswith(f"{ERROR_MARK} memo.m4a: expected {FORMATS}, got")
    assert status.endswith("convert it, for example: ffmpeg -i INPUT output.wav")


def test_a_model_that_fails_becomes_a_message(wav):
    recognizer = by_loudness()

    def fail(waveforms):
        raise ModelError("expected a model, got none; train it again")

    recognizer._infer = fail
    assert answer_file(recognizer, wav()).status.startswith(f"{ERROR_MARK} expected a model")


def test_no_recording_is_an_invitation():
    assert answer_file(by_loudness(), None) == Answer(None, None, None, INVITATION, None)
