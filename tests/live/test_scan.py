"""Long recordings: the same detections as the live decoder, in less time and no more memory."""

import csv
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from speech.architecture import ModelConfig
from speech.audio import load_audio, open_audio, read_blocks
from speech.data.annotations import audacity_text, read_labels
from speech.detection import DecoderConfig, Detection
from speech.errors import AudioError
from speech.features import FeatureConfig, mfcc
from speech.formats.metadata import WINDOW_HOPS
from speech.live.scan import (
    BATCH,
    Timeline,
    clock,
    csv_of,
    document,
    fields,
    file_names,
    scan_file,
    word_or_timeline,
    words_of,
)
from speech.recognizer import Recognizer
from speech.stream import SlidingWindowClassifier, StreamDecoder
from tests import sounds
from tests.e2e import tones

LABELS = ("low", "high", "unknown", "silence")


def pitched(frames: np.ndarray) -> np.ndarray:
    """A network on MFCC: how much the two pitches stand out of each window, in its own way."""
    weights = np.random.default_rng(8).normal(0, 0.02, (frames.shape[2], 4))
    scores = (frames.astype(np.float64) @ weights).mean(axis=1)
    rows = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


class OnFrames(Recognizer):
    """A recogniser that computes the MFCC of each frame once, and counts what it is asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.samples = 0
        self.clips = 0
        config = ModelConfig(labels=LABELS, features=FeatureConfig())
        super().__init__("frames", config, self._clips, windows=self._stretch)

    def _clips(self, waveforms: np.ndarray) -> np.ndarray:
        self.clips += len(waveforms)
        return pitched(mfcc(waveforms, self.features))

    def _stretch(self, waveform: np.ndarray) -> np.ndarray:
        frames = mfcc(waveform, self.features)
        every = sliding_window_view(frames, self.features.n_frames, axis=0)[::WINDOW_HOPS]
        self.batches.append(len(every))
        self.samples += waveform.size
        return pitched(every.swapaxes(1, 2))


def wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def words(n: int, seconds: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.uniform(0, seconds - 1, n))
    return tones.said([(float(s), ("low", "high")[rng.integers(2)]) for s in starts], seconds, rate)


def live(recognizer: Recognizer, path: Path) -> list[Detection]:
    """What the decoder says that hears one window at a time."""
    decoder = StreamDecoder(recognizer)
    found = [d for block, rate in read_blocks(path) for d in decoder.push(block, rate)]
    return found + decoder.flush()


def alike(found, expected) -> bool:
    return [(d.label, d.time, d.start) for d in found] == [
        (d.label, d.time, d.start) for d in expected
    ] and np.allclose([d.probability for d in found], [d.probability for d in expected], atol=1e-5)


@settings(max_examples=8)
@given(st.integers(0, 12), st.floats(1.5, 40.0), st.sampled_from([16_000, 44_100, 8_000]))
def test_a_scan_detects_what_the_live_decoder_detects(tmp_path_factory, n, seconds, rate):
    path = wav(tmp_path_factory.mktemp("scan") / "a.wav", words(n, seconds, rate), rate)
    recognizer = tones.recognizer()
    timeline = scan_file(recognizer, path)
    assert alike(timeline.detections, live(recognizer, path))
    assert timeline.seconds == pytest.approx(soundfile.info(path).duration, abs=1e-3)


@settings(max_examples=6)
@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=4), st.integers(2, 64))
def test_features_once_a_frame_give_the_probabilities_of_every_window(sizes, batch):
    audio = words(5, 6.0).astype(np.float32)
    audio[30_000:52_000] = 0.0  # a muted microphone
    one, many = (SlidingWindowClassifier(OnFrames(), 0.1, size) for size in (1, batch))
    expected = np.concatenate([one.push(audio), one.flush()])
    rows: list = []
    first = 0
    while first < len(audio):
        size = sizes[len(rows) % len(sizes)]
        rows.append(many.push(audio[first : first + size]))
        first += size
    found = np.concatenate([*rows, many.flush()])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05, "the windows have to differ"


def test_features_are_computed_once_a_frame_and_the_network_is_asked_in_batches(tmp_path):
    recognizer = OnFrames()
    scan_file(recognizer, wav(tmp_path / "a.wav", words(30, 120.0)))
    assert recognizer.samples < 1.1 * 120 * 16_000, "not ten times, as windows overlap"
    assert recognizer.clips == 1, "the answer to silence"
    assert max(recognizer.batches) == BATCH
    assert len(recognizer.batches) <= 1200 / BATCH + 2


def test_where_a_step_is_no_whole_number_of_frames_windows_are_asked_one_by_one_all_the_same():
    config = DecoderConfig(step_seconds=0.125, smoothing_seconds=0.25)
    audio = words(5, 6.0).astype(np.float32)
    recognizer = OnFrames()
    found = StreamDecoder(recognizer, config, batch_size=16).push(audio)
    assert not recognizer.batches
    assert alike(found, StreamDecoder(OnFrames(), config).push(audio))


def test_memory_does_not_grow_with_the_recording(tmp_path):
    def silent(waveforms: np.ndarray) -> np.ndarray:
        return np.tile(np.array([0, 0, 0, 1], np.float32), (len(waveforms), 1))

    recognizer = Recognizer("silent", ModelConfig(labels=LABELS, features=FeatureConfig()), silent)
    minute = np.round(3000 * words(20, 60.0)).astype(np.int16)
    peaks = []
    for minutes in (2, 20):
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
            for _ in range(minutes):
                file.write(minute)
        tracemalloc.start()
        try:
            assert scan_file(recognizer, path).seconds == 60 * minutes
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000  # a minute of samples is 3,840,000


@pytest.mark.parametrize(("kind", "subtype", "_tolerance"), sounds.FORMATS)
def test_progress_is_told_in_bytes_up_to_the_end(tmp_path, kind, subtype, _tolerance):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(sounds.encode(sounds.noise(30.0, 48_000), 48_000, kind, subtype))
    told: list[tuple[int, int]] = []
    scan_file(tones.recognizer(), path, on_progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {path.stat().st_size}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] >= 0.9 * told[-1][1]


def test_a_word_in_less_than_a_window_is_detected(tmp_path):
    path = wav(tmp_path / "short.wav", tones.said([(0.05, "low")], 0.5))
    timeline = scan_file(tones.recognizer(), path)
    assert [d.label for d in timeline.detections] == ["low"]
    assert timeline.detections[0].time <= timeline.seconds == 0.5
    assert scan_file(tones.recognizer(), wav(path, words(0, 1.0)[:1])).detections == ()


def test_no_samples_at_all_are_refused(tmp_path, refused):
    path = wav(tmp_path / "empty.wav", np.zeros(0))
    for read in (scan_file, word_or_timeline):
        assert "got none" in refused(AudioError, lambda read=read: read(tones.recognizer(), path))


def test_a_file_that_cannot_be_read_is_refused_as_by_the_door_of_audio(tmp_path, refused):
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear sir or madam")
    for path in (tmp_path, tmp_path / "nothing.wav", letter):
        by_scan = refused(AudioError, lambda path=path: scan_file(tones.recognizer(), path))
        assert by_scan == refused(AudioError, lambda path=path: list(read_blocks(path)))


# --- what a page shows of it ---------------------------------------------------------------------

WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]


@pytest.fixture
def long(tmp_path):
    return wav(tmp_path / "some words.wav", tones.said(WORDS, 5.0))


def test_the_peaks_are_high_where_something_is_said(long):
    peaks = np.array(scan_file(tones.recognizer(), long).peaks)
    times = np.arange(len(peaks)) * 5.0 / len(peaks)
    speaking = np.any([(times >= s) & (times < s + 0.38) for s, _ in WORDS], axis=0)
    quiet = np.all([(times < s - 0.02) | (times >= s + 0.42) for s, _ in WORDS], axis=0)
    assert peaks[speaking].min() > 0.2
    assert peaks[quiet].max() < 0.05


def test_a_click_in_an_hour_is_in_the_peaks_at_its_time(tmp_path):
    path = tmp_path / "hour.flac"
    hour = np.zeros(3600 * 8_000, np.int16)
    hour[round(0.7501 * len(hour))] = 20_000
    path.write_bytes(sounds.encode(hour, 8_000, "FLAC"))
    peaks = scan_file(tones.recognizer(), path).peaks
    assert len(peaks) == 1200
    assert [i for i, peak in enumerate(peaks) if peak] == [900]
    assert max(peaks) == pytest.approx(20_000 / 32_768, abs=1e-3)


def test_the_document_says_the_same_in_each_form_and_names_no_folder(long, tmp_path):
    found = document(scan_file(tones.recognizer(), long))
    assert json.loads(json.dumps(found)) == found
    rows = list(csv.DictReader(found["files"]["csv"].splitlines()))
    labels = [line.split("\t") for line in found["files"]["txt"].splitlines()]
    summary = json.loads(found["files"]["json"])
    said_words = [word for _, word in WORDS]
    assert [row["label"] for row in rows] == said_words
    assert [label for _, _, label in labels] == said_words
    assert [d["label"] for d in summary["detections"]] == said_words
    assert {row["file"] for row in rows} == {"some words.wav"} == {summary["name"]}
    assert str(tmp_path) not in str(found)


def test_too_long_a_recording_is_refused(long, refused):
    message = refused(AudioError, lambda: scan_file(tones.recognizer(), long, max_seconds=4.9))
    assert "at most" in message
    assert scan_file(tones.recognizer(), long, max_seconds=5.0).seconds == 5.0


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize(("seconds", "short"), [(0.1, True), (2.0, True), (2.01, False)])
def test_two_clips_are_one_word_as_load_audio_gives_it(tmp_path, seconds, short, rate):
    path = wav(tmp_path / "a.wav", words(1, 3.0, rate)[: round(seconds * rate)], rate)
    found = word_or_timeline(tones.recognizer(), path)
    assert isinstance(found, Timeline) is not short
    if short:
        np.testing.assert_array_equal(found, load_audio(path))
    else:
        assert found == scan_file(tones.recognizer(), path)


@pytest.mark.parametrize("seconds", [0.5, 5.0])
def test_an_upload_is_decoded_once(tmp_path, monkeypatch, seconds):
    reads: list = []

    def counted(source, **options):
        reads.append(source)
        return open_audio(source, **options)

    monkeypatch.setattr("speech.live.scan.open_audio", counted)
    sound = words(0, 5.0)[: round(seconds * 16_000)]
    word_or_timeline(tones.recognizer(), wav(tmp_path / "a.wav", sound))
    assert len(reads) == 1


# --- what is written ----------------------------------------------------------------------------

FOUND = (Detection("left", 0.91234, 3661.25, 3660.1), Detection("go", 0.8, 4000.0, 3999.0))
TIMELINE = Timeline(Path("a, b.wav"), 5000.0, FOUND)


def test_csv_and_audacity_labels_are_read_again_as_what_was_found(tmp_path):
    text = csv_of([TIMELINE, TIMELINE])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4
    assert rows[0]["file"] == "a, b.wav"
    for name, content in (
        ("a.csv", csv_of([TIMELINE])),
        ("a.txt", audacity_text(words_of(TIMELINE))),
    ):
        (tmp_path / name).write_text(content)
        assert read_labels(tmp_path / name) == tuple(words_of(TIMELINE))


def test_the_fields_are_those_of_listen_and_the_file():
    first, _ = fields(TIMELINE)
    assert first == {
        "file": "a, b.wav",
        "label": "left",
        "probability": 0.9123,
        "time": 3661.25,
        "start": 3660.1,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00:00.0"), (59.96, "0:01:00.0"), (3661.25, "1:01:01.2"), (36_000.0, "10:00:00.0")],
)
def test_a_time_is_written_in_hours_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


def test_recordings_of_one_name_in_different_folders_get_files_of_different_names(tmp_path):
    paths = [tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav", tmp_path / "b" / "x.flac"]
    names = file_names(paths, ".txt")
    assert names == ["a-x.wav.txt", "b-x.wav.txt", "b-x.flac.txt"]
    assert file_names(paths[:1], ".txt") == ["x.wav.txt"]
