"""Teaching: real takes of one speaker in, a model that everything else takes out."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import speech
from speech.errors import TeachError
from speech.formats.from_onnx import read_onnx
from speech.teach import saving
from speech.teach.encoder import shares_of
from speech.teach.quality import Quality
from speech.teach.takes import RATE, read_takes, save_takes
from speech.teach.teaching import teach
from tests.conftest import PROJECT


def tone(pitch: float, seed: int, seconds: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    wave = rng.uniform(0.1, 0.4) * np.hanning(n) * np.sin(2 * np.pi * pitch * np.arange(n) / RATE)
    wave = np.pad(wave, RATE // 3)
    return (wave + rng.normal(0, 1e-3, len(wave))).astype(np.float32)


def tones(n: int = 3, seconds: float = 0.4) -> dict[str, list[np.ndarray]]:
    return {
        name: [tone(pitch * (1 + 0.01 * i), i, seconds) for i in range(n)]
        for name, pitch in (("low", 300.0), ("high", 1500.0))
    }


def test_other_takes_of_the_speaker_are_recognized(taught_digits, digit_takes):
    right = n = 0
    for word, takes in digit_takes(8, 20).items():
        for take in takes:
            right += taught_digits.recognizer.recognize_waveform(take).answer == word
            n += 1
    assert right >= 0.9 * n


def test_taught_words_are_found_in_a_stream_and_commands_that_were_kept_as_well(
    taught_digits, digit_takes
):
    gap = np.zeros(RATE, np.float32)
    takes = [of_word[0] for of_word in digit_takes(20, 21).values()]
    decoder = speech.StreamDecoder(taught_digits.recognizer)
    stream = np.concatenate([gap, *(part for take in takes for part in (take, gap))])
    found = [d.label for d in decoder.push(stream) + decoder.flush()]
    assert found == list(digit_takes(20, 21))
    assert taught_digits.labels == ("six", "seven", "eight", "nine", "yes", "stop", "unknown",
                                    "silence")  # fmt: skip


def test_what_is_left_by_the_words_is_divided_as_the_base_divides_it(taught_digits, digit_takes):
    base = speech.load()
    clips = np.stack([speech.audio.fit_length(t, RATE) for t in digit_takes(30, 33)["six"]])
    clips = np.concatenate([clips, np.zeros((1, RATE), np.float32)])
    found = taught_digits.recognizer.probabilities(clips)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    rest = found[:, 4:] / found[:, 4:].sum(axis=1, keepdims=True)
    expected = base.probabilities(clips) @ shares_of(base.labels, ("yes", "stop"))
    np.testing.assert_allclose(rest, expected, atol=1e-4)


def test_windows_of_a_stretch_are_those_of_its_clips_also_of_phrases():
    model = teach(tones(seconds=1.9)).recognizer
    assert model.features.clip_seconds == 2.0
    rng = np.random.default_rng(0)
    stretch = rng.normal(0, 0.05, 4 * RATE).astype(np.float32)
    clips = np.lib.stride_tricks.sliding_window_view(stretch, 2 * RATE)[::1600]
    np.testing.assert_allclose(
        model.windows(stretch, 1600), model.probabilities(np.ascontiguousarray(clips)), atol=1e-5
    )


def test_the_quality_says_what_it_counted_and_comes_back_from_json(taught_digits):
    quality = taught_digits.quality
    assert quality.n_takes == 32
    assert quality.hits >= 28
    assert quality.hours >= 1.0
    low, high = quality.false_accepts_per_hour[1:]
    assert low <= quality.false_accepts_per_hour[0] <= high
    assert Quality.from_dict(quality.to_dict()) == quality
    text = " ".join(quality.sentences())
    assert f"{quality.hits} of 32 takes" in text
    assert "per hour" in text


def test_the_same_takes_make_the_same_model():
    assert teach(tones()).content == teach(tones()).content


def test_a_saved_model_opens_like_any_other_and_is_taught_again_from_its_takes(
    taught_digits, digit_takes, tmp_path
):
    folder = tmp_path / "mine"
    taught_digits.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "metrics.json", "model.onnx", "takes.zip",
    ]  # fmt: skip
    again = speech.load(folder)
    clips = np.stack([speech.audio.fit_length(digit_takes(9, 10)["six"][0], RATE)])
    np.testing.assert_array_equal(
        again.probabilities(clips), taught_digits.recognizer.probabilities(clips)
    )
    takes = read_takes(folder / "takes.zip")
    assert {label: len(of_word) for label, of_word in takes.items()} == dict.fromkeys(
        ("six", "seven", "eight", "nine"), 8
    )
    card = (folder / "README.md").read_text("utf-8")
    assert "`six`" in card
    assert "`yes`" in card
    assert read_onnx(folder / "model.onnx")[2].head is not None
    with pytest.raises(TeachError, match=r"expected a model that was trained, got .+ taught"):
        teach(tones(), base=folder)


def test_a_full_disk_leaves_the_old_model_whole(taught_digits, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    taught_digits.save(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_json", full)
    with pytest.raises(TeachError, match="No space left"):
        taught_digits.save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(TeachError, match="No space left"):
        taught_digits.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_that_save_at_once_leave_the_files_of_one(tmp_path):
    models = [teach({word: tones()[word]}) for word in ("low", "high")]
    threads = [
        threading.Thread(target=lambda m=model: [m.save(tmp_path / "mine") for _ in range(5)])
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (word,) = read_takes(tmp_path / "mine" / "takes.zip")
    assert speech.load(tmp_path / "mine").labels[0] == word
    assert f"`{word}`" in (tmp_path / "mine" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("takes", "options", "got"),
    [
        ({}, {}, "got none"),
        ({"lamp": []}, {}, "got none"),
        ({"lamp": [np.zeros(RATE, np.float32)]}, {}, "silent"),
        ({"lamp": [tone(400, 1, 30.0)]}, {}, "s of sound"),
        ({"a": [tone(400, 1)], "b": [tone(400, 1)]}, {}, "the same one for 'a' and 'b'"),
        ({"lamp": [tone(400, 1)] * 2_000}, {}, "2,000"),
        ({"a/b": [tone(400, 1)]}, {}, "'/'"),
        ({f"w{i}": [tone(400, i)] for i in range(60)}, {}, "60"),
        (tones(), {"keep": ["maybe"]}, "'maybe'"),
        (tones() | {"yes": [tone(700, 1)]}, {"keep": ["yes"]}, "as both"),
        (tones(), {"rate_per_hour": 0.0}, "got 0"),
        (tones(), {"base": PROJECT / "docs"}, "model.onnx"),
    ],
)
def test_what_cannot_be_taught_is_refused_in_one_sentence(takes, options, got):
    with pytest.raises(speech.SpeechError, match="expected") as caught:
        teach(takes, **options)
    assert got in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_word_and_one_take_are_enough_to_begin():
    model = teach({"low": tones()["low"][:1]})
    assert model.labels == ("low", "unknown", "silence")
    assert any("at least 3" in sentence for sentence in model.quality.sentences())


def test_a_take_that_is_another_word_is_said_to_be_unlike_the_others(digit_takes):
    takes = {"six": [*digit_takes(0, 6)["six"], digit_takes(0, 1)["nine"][0]]}
    faults = teach(takes).quality.faults["six"]
    assert [(f.index, f.reason) for f in faults if f.reason == "unlike the others"] == [
        (6, "unlike the others")
    ]


def test_the_command_teaches_without_tensorflow_and_takes_words_away_again(tmp_path):
    save_takes(tones(), tmp_path / "takes.zip")
    program = """
import sys
class Forbidden:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("tensorflow", "keras", "librosa", "numba", "scipy", "sklearn"):
            raise AssertionError(name)
sys.meta_path.insert(0, Forbidden())
from speech.cli.main import main
main()
"""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, "teach", *arguments],
            capture_output=True, text=True, cwd=tmp_path, check=False,
            env={"PYTHONPATH": str(PROJECT), "PATH": ""},
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    assert "listen --model mine" in run("takes.zip", "--out", "mine", "--keep", "yes")
    assert speech.load(tmp_path / "mine").labels[:3] == ("low", "high", "yes")
    assert "high" in run("--out", "mine", "--remove", "low")
    assert speech.load(tmp_path / "mine").labels == ("high", "yes", "unknown", "silence")
    assert "expected words to remove" in run("--out", "mine", "--remove", "lamp")
    assert speech.load(tmp_path / "mine").labels == ("high", "yes", "unknown", "silence")
