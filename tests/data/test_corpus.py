"""The laws of speech.data: official splits, fair draws, honest caches, the same set for all."""

import csv
import hashlib
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speech.audio import load_audio, to_float, to_int16
from speech.data import recordings as recordings_module
from speech.data.corpus import draw_evenly, index_corpus, speaker_split
from speech.data.datasets import dataset_specs, parse_labels
from speech.data.recordings import Recordings, decode, read_speech
from speech.environment import cache_folder
from speech.errors import CorpusError, SpeechWarning
from speech.features import FeatureConfig, mfcc
from speech.labels import LabelSet

Array = npt.NDArray[Any]
MakeCorpus = Callable[..., Path]
CONFIG = FeatureConfig(sample_rate=8_000, n_mels=20, n_mfcc=8, fmax=4_000.0)
TWO = LabelSet("two", ("yes", "no"))
with (Path(__file__).parents[1] / "golden" / "official_split.csv").open(newline="") as _file:
    OFFICIAL = list(csv.DictReader(_file))


def official(filename: str) -> str:
    """which_set of the corpus's README, once more (its MAX_NUM_WAVS_PER_CLASS is 2**27 - 1)."""
    speaker = filename.split("/")[-1].partition("_nohash_")[0].encode()
    percentage = (int(hashlib.sha1(speaker).hexdigest(), 16) % 2**27) * (100.0 / (2**27 - 1))
    if percentage < 10:
        return "validation"
    return "test" if percentage < 20 else "train"


@pytest.fixture(scope="module")
def tiny(tiny_corpus: Path) -> Recordings:
    return decode(index_corpus(tiny_corpus), CONFIG)


# --- splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: row["clip"])
def test_the_split_is_that_of_the_official_lists(row: dict[str, str]) -> None:
    assert speaker_split(row["clip"]) == row["split"] == official(row["clip"])


def test_the_sample_of_the_lists_holds_both_splits() -> None:
    assert Counter(row["split"] for row in OFFICIAL) == {"train": 30, "validation": 30}


@given(st.text("0123456789abcdef", min_size=1, max_size=12), st.integers(0, 999), st.text("abc/"))
def test_the_speaker_alone_decides_and_by_the_official_formula(
    speaker: str, number: int, folder: str
) -> None:
    split = official(f"{speaker}_nohash_0.wav")
    for suffix in (".wav", ".flac", ".ogg"):
        assert speaker_split(f"{folder}/{speaker}_nohash_{number}{suffix}") == split
    assert speaker_split(f"{speaker}.wav") == split  # own recordings need not follow the habit


def test_ten_percent_of_speakers_validate_and_ten_test() -> None:
    counts = Counter(speaker_split(f"{n:08x}_nohash_0.wav") for n in range(20_000))
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_formula_lists_and_manifest_agree_on_the_whole_real_corpus(speech_commands: Path) -> None:
    corpus = index_corpus(speech_commands)
    assert len(corpus.clips) > 1_000
    assert corpus.split_conflicts == ()
    listed = set((speech_commands / "validation_list.txt").read_text().split())
    for clip in corpus.clips:
        assert clip.split == official(clip.path)
        assert (clip.split == "validation") == (clip.path in listed)
    speakers = {split: {speaker_of(c.path) for c in corpus.clips if c.split == split}
                for split in ("train", "validation")}  # fmt: skip
    assert not speakers["train"] & speakers["validation"]


def speaker_of(path: str) -> str:
    return Path(path).name.split("_nohash_")[0]


# --- scan ----------------------------------------------------------------------------------------


def test_a_scan_finds_every_clip_once_with_its_word_and_split(tiny_corpus: Path) -> None:
    corpus = index_corpus(tiny_corpus)
    assert [clip.path for clip in corpus.clips] == sorted(
        path.relative_to(tiny_corpus).as_posix() for path in tiny_corpus.glob("[a-z]*/*.wav")
    )
    assert Counter(clip.split for clip in corpus.clips) == {"train": 24, "validation": 8, "test": 8}
    assert Counter(clip.word for clip in corpus.clips) == dict.fromkeys(corpus.words(), 10)
    assert corpus.words() == ("bed", "cat", "no", "yes")
    assert corpus.noise == ("_background_noise_/hiss.wav", "_background_noise_/hum.wav")
    assert corpus.split_conflicts == ()


def test_a_corpus_without_lists_is_split_by_its_speakers(
    tmp_path: Path, make_corpus: MakeCorpus
) -> None:
    make_corpus(tmp_path)
    listed = index_corpus(tmp_path)
    for path in tmp_path.glob("*_list.txt"):
        path.unlink()
    assert index_corpus(tmp_path) == listed


def test_the_lists_of_the_wav_corpus_hold_for_other_suffixes(
    tmp_path: Path, make_corpus: MakeCorpus
) -> None:
    make_corpus(tmp_path, ".flac")
    for path in tmp_path.glob("*_list.txt"):
        path.write_text(path.read_text().replace(".flac", ".wav"))
    assert not index_corpus(tmp_path).split_conflicts


def test_disagreements_of_list_and_hash_are_reported_and_never_train(
    tmp_path: Path, make_corpus: MakeCorpus
) -> None:
    make_corpus(tmp_path)
    clips = index_corpus(tmp_path).clips
    moved = next(clip.path for clip in clips if clip.split == "train")
    dropped = next(clip.path for clip in clips if clip.split == "validation")
    untested = next(clip.path for clip in clips if clip.split == "test")
    validation, testing = tmp_path / "validation_list.txt", tmp_path / "testing_list.txt"
    validation.write_text(validation.read_text().replace(dropped, moved))
    testing.write_text(testing.read_text().replace(f"{untested}\n", ""))
    with pytest.warns(SpeechWarning, match="3 clips whose list and speaker hash"):
        corpus = index_corpus(tmp_path)
    assert sorted(corpus.split_conflicts) == sorted([moved, dropped, untested])
    for clip in corpus.clips:
        if clip.path in corpus.split_conflicts:
            assert clip.split != "train"


def test_what_is_no_clip_is_passed_over(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    make_corpus(tmp_path)
    before = index_corpus(tmp_path)
    clip = tmp_path / before.clips[0].path
    for name in (".git/a.wav", "_other_/a.wav", "yes/.a.wav", "yes/notes.txt", "stray.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(clip, tmp_path / name)
    (tmp_path / "yes" / "folder.wav").mkdir()
    shutil.copy(clip, tmp_path / "yes" / "a.m4a")
    notes: list[str] = []
    assert index_corpus(tmp_path, on_note=notes.append) == before
    [note] = notes
    for name in (".git", "_other_", ".a.wav", "notes.txt", "stray.wav", "folder.wav", "a.m4a"):
        assert name in note
    (tmp_path / "_unknown_").mkdir()
    shutil.copy(clip, tmp_path / "_unknown_" / "0a_nohash_0.WAV")
    assert "_unknown_" in index_corpus(tmp_path, on_note=notes.append).words()


def test_a_folder_without_clips_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "yes").mkdir()
    assert str(tmp_path) in refused(CorpusError, lambda: index_corpus(tmp_path))
    assert "nowhere" in refused(CorpusError, lambda: index_corpus(tmp_path / "nowhere"))


# --- label sets and recipes ----------------------------------------------------------------------


def test_the_named_label_sets_are_what_their_names_say() -> None:
    eight = parse_labels("commands-8")
    assert eight.labels == (
        "yes", "no", "up", "down", "left", "right", "stop", "go", "unknown", "silence",
    )  # fmt: skip
    assert len(parse_labels("commands-12").labels) == 12
    for name, count in (("words-30", 30), ("words-35", 35)):
        words = parse_labels(name)
        assert words.labels == words.words
        assert len(words.labels) == count


def test_words_of_ones_own_gain_unknown_and_silence() -> None:
    labels = parse_labels(" left, right ,")
    assert labels.labels == ("left", "right", "unknown", "silence")
    assert parse_labels("computer").labels == ("computer", "unknown", "silence")
    assert parse_labels("gro\u0308\u00dfe").words == ("gr\u00f6\u00dfe",)


@pytest.mark.parametrize(
    "text",
    ["", ",", "yes,yes", "yes,Yes", "yes,unknown", "Silence,yes", "commands-9", "Commands-8"],
)
def test_labels_that_make_no_sense_are_refused(text: str, refused: Callable[..., str]) -> None:
    message = refused(CorpusError, lambda: parse_labels(text))
    assert repr(text) in message
    assert "commands-8" in message


def test_recipes_can_be_checked_and_their_label_sets_be_learned() -> None:
    assert set(dataset_specs()) >= {"speech_commands_v0.01", "speech_commands_v0.02"}
    for name, recipe in dataset_specs().items():
        assert recipe.name == name
        assert recipe.archive.url.startswith("https://")
        assert re.fullmatch(r"[0-9a-f]{64}", recipe.archive.sha256)
        assert recipe.licence
        assert recipe.attribution
        assert recipe.citation
        for labels in recipe.label_sets.values():
            assert len(set(labels.labels)) == len(labels.labels) >= 2
            assert parse_labels(labels.name) == labels


# --- draws ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 120), st.integers(0, 2**32 - 1))
def test_a_draw_is_even_without_duplicates_and_as_large_as_can_be(
    sizes: list[int], count: int, seed: int
) -> None:
    edges = np.cumsum([0, *sizes])
    groups = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
    drawn = draw_evenly(groups, count, np.random.default_rng(seed))
    assert drawn.dtype == np.int64
    assert len(drawn) == min(count, sum(sizes))
    assert len(set(drawn.tolist())) == len(drawn)
    shares = [int(np.isin(group, drawn).sum()) for group in groups]
    most = max(shares, default=0)
    for share, size in zip(shares, sizes, strict=True):
        assert share >= min(size, most - 1)  # behind by one, or exhausted
    again = draw_evenly(groups, count, np.random.default_rng(seed))
    np.testing.assert_array_equal(drawn, again)


def test_every_member_of_a_group_can_be_drawn() -> None:
    groups = [np.arange(5), np.arange(5, 8)]
    rng = np.random.default_rng(0)
    seen = np.concatenate([draw_evenly(groups, 3, rng) for _ in range(200)])
    assert set(seen.tolist()) == set(range(8))


# --- decoding and caches -------------------------------------------------------------------------


@given(st.lists(st.integers(-32768, 32767), min_size=1))
def test_int16_goes_to_float_and_back_exactly(samples: list[int]) -> None:
    exact = np.array(samples, np.int16)
    np.testing.assert_array_equal(to_int16(to_float(exact)), exact)


def test_float_beyond_full_scale_is_clipped_and_not_wrapped() -> None:
    assert to_int16(np.array([1.5, 1.0, -1.0, -1.5], np.float32)).tolist() == [
        32767, 32767, -32768, -32768,
    ]  # fmt: skip


def test_decoded_clips_are_what_the_audio_door_gives(tmp_path: Path, tiny_corpus: Path) -> None:
    corpus = index_corpus(tiny_corpus)
    recordings = decode(corpus, FeatureConfig(), tmp_path)
    assert recordings.samples.shape == (40, 16_000)
    for index in (0, 17, 39):
        expected = load_audio(tiny_corpus / corpus.clips[index].path)
        np.testing.assert_array_equal(to_float(recordings.samples[index]), expected)
    for name, noise in zip(corpus.noise, recordings.noise, strict=True):
        np.testing.assert_array_equal(to_float(noise), load_audio(tiny_corpus / name))


def test_a_second_decode_opens_the_first_without_decoding(
    tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decode(index_corpus(tiny_corpus), CONFIG, tmp_path)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(recordings_module, "load_audio", never)
    second = decode(index_corpus(tiny_corpus), CONFIG, tmp_path)
    np.testing.assert_array_equal(first.samples, second.samples)
    assert (first.digest, first.folder) == (second.digest, second.folder)
    assert len(list(tmp_path.iterdir())) == 1


def test_features_are_those_of_the_clips_and_are_computed_once(
    tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = decode(index_corpus(tiny_corpus), CONFIG, tmp_path)
    features = recordings.features(CONFIG)
    assert features.shape == (40, CONFIG.n_frames, CONFIG.n_mfcc)
    expected = mfcc(to_float(recordings.samples[3]), CONFIG)
    np.testing.assert_allclose(features[3], expected, atol=1e-4)
    monkeypatch.delattr(recordings_module, "mfcc")
    np.testing.assert_array_equal(recordings.features(CONFIG), features)


def test_another_hop_gives_another_file_of_features(tmp_path: Path, tiny_corpus: Path) -> None:
    recordings = decode(index_corpus(tiny_corpus), CONFIG, tmp_path)
    fields = CONFIG.to_dict() | {"hop_seconds": 0.02}
    shapes = [recordings.features(c).shape for c in (CONFIG, FeatureConfig.from_dict(fields))]
    assert shapes == [(40, 98, 8), (40, 49, 8)]
    assert len(list(recordings.folder.glob("mfcc-*.npy"))) == 2
    assert {p.suffix for p in recordings.folder.iterdir()} == {".npy", ".json"}  # no scratch left


def test_a_changed_clip_rate_or_length_gives_another_folder(
    tmp_path: Path, make_corpus: MakeCorpus
) -> None:
    root = make_corpus(tmp_path / "corpus")
    found = [decode(index_corpus(root), CONFIG, tmp_path / "cache")]
    for change in ({"sample_rate": 16_000}, {"clip_seconds": 0.5}):
        config = FeatureConfig.from_dict(CONFIG.to_dict() | change)
        found.append(decode(index_corpus(root), config, tmp_path / "cache"))
    one, other = (root / clip.path for clip in index_corpus(root).clips[:2])
    shutil.copyfile(other, one)
    found.append(decode(index_corpus(root), CONFIG, tmp_path / "cache"))
    assert len({recordings.folder for recordings in found}) == 4
    assert [r.digest == found[0].digest for r in found] == [True, True, True, False]


def test_the_digest_depends_on_names_and_contents_alone(
    tmp_path: Path, make_corpus: MakeCorpus
) -> None:
    one, other = make_corpus(tmp_path / "one"), make_corpus(tmp_path / "other")
    for path in other.rglob("*.wav"):
        os.utime(path, (0, 0))
    digests = [
        decode(index_corpus(root), CONFIG, tmp_path / "cache").digest for root in (one, other)
    ]
    assert digests[0] == digests[1]
    clip = other / index_corpus(other).clips[0].path
    clip.rename(clip.with_name("moved_nohash_0.wav"))
    moved = index_corpus(other, on_note=lambda _note: None)
    assert decode(moved, CONFIG, tmp_path / "cache").digest != digests[0]


def test_wav_flac_and_ogg_hold_the_same_corpus(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    decoded = {}
    for suffix in (".wav", ".flac", ".ogg"):
        root = make_corpus(tmp_path / suffix, suffix)
        corpus = index_corpus(root)
        assert not corpus.split_conflicts
        decoded[suffix] = decode(corpus, CONFIG, tmp_path / "cache")
    wav, flac, ogg = (decoded[suffix].samples.astype(float) for suffix in decoded)
    np.testing.assert_array_equal(wav, flac)
    assert np.sqrt(np.mean((wav - ogg) ** 2)) < 0.1 * np.sqrt(np.mean(wav**2))


def test_short_clips_are_padded_and_long_ones_cut(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    root = make_corpus(tmp_path / "corpus")
    paths = [root / clip.path for clip in index_corpus(root).clips[:2]]
    for path, n in zip(paths, (4_000, 80_000), strict=True):
        path.unlink()
        soundfile.write(path, np.full(n, 0.25), 16_000)
    samples = decode(index_corpus(root), FeatureConfig(), tmp_path / "cache").samples
    assert np.flatnonzero(samples[0]).tolist() == list(range(6_000, 10_000))
    assert (samples[1] == 8_192).all()


def test_a_clip_that_cannot_be_decoded_is_named_and_nothing_is_kept(
    tmp_path: Path, make_corpus: MakeCorpus
) -> None:
    root = make_corpus(tmp_path / "corpus")
    broken = root / index_corpus(root).clips[7].path
    broken.write_bytes(b"no sound at all")
    with pytest.raises(CorpusError, match=re.escape(str(broken))) as caught:
        decode(index_corpus(root), CONFIG, tmp_path / "cache")
    assert "remove or replace this file" in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_progress_counts_every_clip(tmp_path: Path, tiny_corpus: Path) -> None:
    seen: list[tuple[int, int]] = []
    decode(index_corpus(tiny_corpus), CONFIG, tmp_path, lambda *now: seen.append(now))
    assert seen == [(n, 40) for n in range(1, 41)]


def test_the_users_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPEECH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SPEECH_CACHE")
    assert cache_folder().name == "speech-commands"


# --- continuous speech ---------------------------------------------------------------------------


def test_continuous_speech_is_all_recordings_below_the_folders_in_order(tmp_path: Path) -> None:
    pieces = {"b/deep/2.wav": 9_000, "b/1.flac": 5_000, "a/3.wav": 4_000}
    for name, n in pieces.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.full(n, n, np.int16), CONFIG.sample_rate)
    (tmp_path / "b" / "notes.txt").write_text("no sound")
    with pytest.warns(SpeechWarning, match=r"notes\.txt"):
        speech = read_speech([tmp_path / "b", tmp_path / "a"], CONFIG)
    expected = np.repeat([5_000, 9_000, 4_000], [5_000, 9_000, 4_000])
    np.testing.assert_array_equal(speech.samples, expected)
    assert speech.names == (str(tmp_path / "b"), str(tmp_path / "a"))
    (tmp_path / "b" / "notes.txt").unlink()
    digests = {speech.digest, read_speech([tmp_path / "b"], CONFIG).digest}
    assert len(digests) == 2


def test_folders_without_enough_speech_are_refused(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.warns(SpeechWarning, match=r"notes\.txt"):
        refused(CorpusError, lambda: read_speech([tmp_path], CONFIG))
    (tmp_path / "notes.txt").unlink()
    refused(CorpusError, lambda: read_speech([tmp_path / "nowhere"], CONFIG))
    soundfile.write(tmp_path / "a.wav", np.zeros(CONFIG.n_samples), CONFIG.sample_rate)
    refused(CorpusError, lambda: read_speech([tmp_path], CONFIG))
    (tmp_path / "b.wav").write_bytes(b"broken")
    with pytest.raises(CorpusError, match=r"b\.wav"):
        read_speech([tmp_path], CONFIG)
