"""The laws of what speech.data hands to evaluation: the same for all, and never trained on."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech.audio import MIN_RATE, to_float
from speech.data.corpus import (
    Clip,
    Corpus,
    index_corpus,
    indices_by_word,
    speaker_of,
    speaker_split,
)
from speech.data.datasets import parse_labels
from speech.data.evaluation_set import calibration_half, evaluation_set
from speech.data.recordings import Recordings, decode
from speech.errors import CorpusError
from speech.features import FeatureConfig
from speech.labels import LabelSet

CONFIG = FeatureConfig(sample_rate=8_000, n_mels=20, n_mfcc=8, fmax=4_000.0)
TWO = LabelSet("two", ("yes", "no"))


@pytest.fixture(scope="module")
def tiny(tiny_corpus: Path) -> Recordings:
    return decode(index_corpus(tiny_corpus), CONFIG)


def eight_words(folder: Path) -> Recordings:
    """Recordings that need no files: eight words, some others, noise that counts its samples."""
    rng = np.random.default_rng(3)
    words = [*parse_labels("commands-8").words, "bed", "cat", "dog"]
    clips = tuple(
        Clip(f"{word}/{speaker:03x}_nohash_0.wav", word, split)
        for word in sorted(words)
        for speaker in range(60)
        for split in [speaker_split(f"{speaker:03x}_nohash_0.wav")]
    )
    noise = ("_background_noise_/a.wav", "_background_noise_/b.wav")
    samples = rng.integers(-3_000, 3_000, (len(clips), MIN_RATE)).astype(np.int16)
    backgrounds = tuple(
        rng.integers(-3_000, 3_000, n * MIN_RATE).astype(np.int16) for n in (60, 31)
    )
    return Recordings(Corpus(folder, clips, noise, ()), samples, backgrounds, "0" * 64, folder)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_evaluation_set_is_the_same_for_everybody_with_its_seed(
    tmp_path: Path, split: Any
) -> None:
    recordings, labels = eight_words(tmp_path), parse_labels("commands-8")
    one, same, other = (evaluation_set(recordings, labels, split, seed) for seed in (0, 0, 1))
    assert one.names == same.names
    np.testing.assert_array_equal(one.waveforms, same.waveforms)
    np.testing.assert_array_equal(one.truth, same.truth)
    assert one.names != other.names
    known = len(labels.words) * len(indices_by_word(recordings.corpus, split)["yes"])
    assert one.names[:known] == other.names[:known]  # the words are all of them


def test_unknown_and_silence_are_about_a_tenth_each(tmp_path: Path) -> None:
    clips = evaluation_set(eight_words(tmp_path), parse_labels("commands-8"))
    counts = np.bincount(clips.truth, minlength=10)
    assert len(counts) == 10
    np.testing.assert_allclose(counts / counts.sum(), 0.1, atol=0.01)


def test_every_clip_has_the_label_of_its_word_and_the_samples_of_its_file(tmp_path: Path) -> None:
    recordings, labels = eight_words(tmp_path), parse_labels("commands-8")
    clips = evaluation_set(recordings, labels)
    index = {clip.path: i for i, clip in enumerate(recordings.corpus.clips)}
    assert clips.waveforms.dtype == np.float32
    assert len(set(clips.names)) == len(clips.names)
    for name, wave, truth in zip(clips.names, clips.waveforms, clips.truth, strict=True):
        if name in index:
            word = name.split("/")[0]
            assert recordings.corpus.clips[index[name]].split == "validation"
            assert labels.labels[truth] == (word if word in labels.words else "unknown")
            np.testing.assert_array_equal(wave, to_float(recordings.samples[index[name]]))
        else:
            assert labels.labels[truth] == "silence"


def test_unknown_is_drawn_evenly_from_the_other_words(tmp_path: Path) -> None:
    clips = evaluation_set(eight_words(tmp_path), parse_labels("commands-8"), "train")
    words = Counter(
        n.split("/")[0] for n, t in zip(clips.names, clips.truth, strict=True) if t == 8
    )
    assert set(words) == {"bed", "cat", "dog"}
    assert max(words.values()) - min(words.values()) <= 1


@pytest.mark.parametrize(("split", "first", "last"), [("validation", 0.8, 1), ("train", 0, 0.8)])
def test_silence_can_be_found_again_and_lies_in_the_part_of_its_split(
    split: Any, first: float, last: float, tmp_path: Path
) -> None:
    recordings = eight_words(tmp_path)
    clips = evaluation_set(recordings, parse_labels("commands-8"), split)
    noise = dict(zip(recordings.corpus.noise, recordings.noise, strict=True))
    silent = [(n, w) for n, w, t in zip(clips.names, clips.waveforms, clips.truth, strict=True)
              if t == 9]  # fmt: skip
    assert silent
    for name, wave in silent:
        file, start, gain = re.split("[@*]", name)
        crop = noise[file][int(start) : int(start) + MIN_RATE]
        assert first * len(noise[file]) <= int(start)
        assert int(start) + MIN_RATE <= last * len(noise[file])
        scaled = np.clip(to_float(crop) * float(gain), -1, 1)
        np.testing.assert_allclose(wave, scaled, atol=2e-3)
        assert 0.0009 < np.sqrt(np.mean(wave**2)) < 0.34


def test_the_noise_that_evaluates_is_never_trained_on(tmp_path: Path) -> None:
    recordings = eight_words(tmp_path)
    for noise, train, rest in zip(
        recordings.noise, recordings.noise_for("train"), recordings.noise_for("test"), strict=True
    ):
        np.testing.assert_array_equal(np.concatenate([train, rest]), noise)
        assert len(rest) == pytest.approx(0.2 * len(noise), abs=1)


def test_the_splits_share_no_clip_and_no_speaker(tiny: Recordings) -> None:
    found: dict[str, set[str | None]] = {}
    splits: list[Any] = ["train", "validation", "test"]
    for split in splits:
        for indices in indices_by_word(tiny.corpus, split).values():
            found.setdefault(split, set()).update(
                speaker_of(tiny.corpus.clips[i].path) for i in indices
            )
    assert [len(found[split]) for split in splits] == [6, 2, 2]
    assert not found["train"] & (found["validation"] | found["test"])


def test_a_label_set_without_unknown_or_silence_gets_none(tiny: Recordings) -> None:
    words = LabelSet("words", ("yes", "no"), unknown=False, silence=False)
    assert sorted(evaluation_set(tiny, words).truth.tolist()) == [0, 0, 1, 1]
    assert sorted(evaluation_set(tiny, TWO).truth.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_split_without_clips_of_these_labels_is_refused(
    tiny: Recordings, refused: Callable[..., str]
) -> None:
    numbers = LabelSet("numbers", ("one", "two"))
    assert "one, two" in refused(CorpusError, lambda: evaluation_set(tiny, numbers))


def test_one_speaker_never_calibrates_and_measures_the_calibration(tmp_path: Path) -> None:
    names = [f"{word}/{n:08x}_nohash_{k}.wav" for n in range(2_000) for k, word in enumerate("ab")]
    half = calibration_half(names)
    assert half.dtype == bool
    np.testing.assert_array_equal(half[::2], half[1::2])
    assert half.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("suffix", ["_nohash_{k}.wav", ".wav"])
def test_of_one_speaker_some_clips_calibrate_and_others_measure(suffix: str) -> None:
    names = [f"yes/anna{suffix.format(k=k)}".replace(".wav", f"{k}.wav") for k in range(40)]
    half = calibration_half([name.replace("anna4", "anna_4") for name in names])
    assert 8 < half.sum() < 32


def test_all_splits_together_are_every_clip_of_the_words(tmp_path: Path) -> None:
    recordings, labels = eight_words(tmp_path), parse_labels("commands-8")
    clips = evaluation_set(recordings, labels, "all")
    known = [n for n, t in zip(clips.names, clips.truth, strict=True) if t < 8]
    assert known == [c.path for w in labels.words for c in recordings.corpus.clips if c.word == w]
    noise = dict(zip(recordings.corpus.noise, recordings.noise, strict=True))
    for name in (n for n, t in zip(clips.names, clips.truth, strict=True) if t == 9):
        file, start, _ = re.split("[@*]", name)
        assert int(start) >= 0.8 * len(noise[file]) - 1, "this noise trains"
