"""Corpora with damaged, endless and odd files: all are named, and a few do not stop the rest."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.audio import load_audio, to_float
from speech.data.corpus import Clip, Corpus, index_corpus
from speech.data.recordings import Recordings, decode, read_speech
from speech.errors import CorpusError, SpeechWarning
from speech.features import FeatureConfig
from tests.sounds import encode, noise

CONFIG = FeatureConfig(sample_rate=8_000, n_mels=20, n_mfcc=8, fmax=4_000.0)
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A hundred short clips, of which the tests damage some."""
    root = tmp_path_factory.mktemp("hundred")
    rng = np.random.default_rng(1)
    names = [f"word/{n:08x}_nohash_0.wav" for n in range(100)]
    (root / "word").mkdir()
    for name in names:
        soundfile.write(root / name, rng.normal(0, 0.1, 800), 8_000)
    return Corpus(root, tuple(Clip(name, "word", "train") for name in names), ())


@pytest.fixture
def damaged(hundred: Corpus) -> Iterator[Callable[..., None]]:
    contents = {clip.path: (hundred.root / clip.path).read_bytes() for clip in hundred.clips}

    def damage(*indices: int) -> None:
        for index in indices:
            path = hundred.clips[index].path
            (hundred.root / path).write_bytes(contents[path][: 100 + index])

    yield damage
    for path, content in contents.items():
        (hundred.root / path).write_bytes(content)


def test_one_damaged_file_in_a_hundred_is_left_out_told_and_remembered(
    hundred: Corpus, damaged: Callable[..., None], tmp_path: Path, refused: Refused
) -> None:
    damaged(17)
    path = hundred.clips[17].path
    for _ in range(2):  # decoded, and opened again
        with pytest.warns(SpeechWarning, match="1 of 100 files cannot be decoded") as told:
            recordings = decode(hundred, CONFIG, tmp_path)
        assert path in str(told[0].message)
        assert "truncated" in str(told[0].message)
        assert [skipped.path for skipped in recordings.skipped] == [path]
        assert "truncated" in recordings.left_out[0]
    assert len(recordings.samples) == len(recordings.corpus.clips) == 99
    for clip, samples in zip(recordings.corpus.clips, recordings.samples, strict=True):
        sound = load_audio(hundred.root / clip.path, 8_000)
        np.testing.assert_array_equal(to_float(samples)[3_600:4_400], sound)
    assert recordings.features(CONFIG).shape[0] == 99
    message = refused(CorpusError, lambda: decode(hundred, CONFIG, tmp_path, strict=True))
    assert path in message


def test_more_damaged_files_stop_it_and_one_error_names_them_all(
    hundred: Corpus, damaged: Callable[..., None], tmp_path: Path, refused: Refused
) -> None:
    bad = (3, 40, 99)
    damaged(*bad)
    message = refused(CorpusError, lambda: decode(hundred, CONFIG, tmp_path))
    assert "at most 1% of files damaged, got 3 of 100" in message.splitlines()[0]
    assert len(message.splitlines()) == 4
    for index, line in zip(bad, message.splitlines()[1:], strict=True):
        assert hundred.clips[index].path in line
        assert "truncated" in line
    assert not list(tmp_path.iterdir())


def test_strict_stops_at_a_single_one_also_when_nothing_is_decoded_yet(
    hundred: Corpus, damaged: Callable[..., None], tmp_path: Path, refused: Refused
) -> None:
    damaged(5)
    message = refused(CorpusError, lambda: decode(hundred, CONFIG, tmp_path, strict=True))
    assert hundred.clips[5].path in message
    assert not list(tmp_path.iterdir())


def test_damaged_noise_is_left_out_as_well(hundred: Corpus, tmp_path: Path) -> None:
    noises = []
    for name, seconds in (("a", 2.0), ("b", 0.0), ("c", 3.0)):
        path = hundred.root / "_background_noise_" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(noise(seconds), 16_000))
        noises.append(path.relative_to(hundred.root).as_posix())
    corpus = Corpus(hundred.root, hundred.clips, tuple(noises))
    with pytest.warns(SpeechWarning, match=r"b\.wav"):
        recordings = decode(corpus, CONFIG, tmp_path)
    assert recordings.corpus.noise == (noises[0], noises[2])
    assert [len(part) for part in recordings.noise] == [16_000, 24_000]


def test_noise_and_speech_may_last_longer_than_ten_minutes(hundred: Corpus, tmp_path: Path) -> None:
    long = np.random.default_rng(2).integers(-3_000, 3_000, 11 * 60 * 8_000).astype(np.int16)
    folder = tmp_path / "long"
    folder.mkdir()
    soundfile.write(folder / "long.wav", long, 8_000)
    np.testing.assert_array_equal(read_speech([folder], CONFIG).samples, long)
    path = hundred.root / "_background_noise_" / "long.wav"
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, long, 8_000)
    corpus = Corpus(hundred.root, hundred.clips, ("_background_noise_/long.wav",))
    np.testing.assert_array_equal(decode(corpus, CONFIG, tmp_path / "c").noise[0], long)


def test_a_recording_in_blocks_is_resampled_without_seams(tmp_path: Path) -> None:
    samples = noise(20.0, 44_100)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    got = to_float(read_speech([tmp_path], CONFIG).samples)
    np.testing.assert_allclose(got, load_audio((samples, 44_100), 8_000), atol=1e-4)


def test_a_few_damaged_recordings_of_speech_are_left_out(tmp_path: Path, refused: Refused) -> None:
    for number in range(100):
        soundfile.write(tmp_path / f"{number:03d}.wav", noise(0.1, 8_000), 8_000)
    (tmp_path / "050.wav").write_bytes(b"RIFF")
    with pytest.warns(SpeechWarning, match=r"1 of 100 files .*050\.wav"):
        speech = read_speech([tmp_path], CONFIG)
    assert len(speech.samples) == 99 * 800
    assert [skipped.path for skipped in speech.skipped] == ["050.wav"]
    assert "050.wav" in refused(CorpusError, lambda: read_speech([tmp_path], CONFIG, strict=True))


def test_odd_clips_are_used_and_told(hundred: Corpus, tmp_path: Path) -> None:
    path = hundred.root / hundred.clips[0].path
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(4) + content[8:40] + bytes(4) + content[44:])
    try:
        with pytest.warns(SpeechWarning, match="was not finished"):
            recordings = decode(hundred, CONFIG, tmp_path)
    finally:
        path.write_bytes(content)
    assert len(recordings.notes) == 1
    assert hundred.clips[0].path in recordings.notes[0]


def test_a_cache_that_cannot_be_written_is_one_sentence_and_names_its_parameter(
    tiny_corpus: Path, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "file").write_text("no folder")
    corpus = index_corpus(tiny_corpus)
    message = refused(CorpusError, lambda: decode(corpus, CONFIG, tmp_path / "file" / "cache"))
    assert "expected a folder for decoded clips" in message
    assert "--" not in message
    with pytest.raises(CorpusError) as caught:
        decode(corpus, CONFIG, tmp_path / "file" / "cache")
    assert caught.value.parameter == "cache"


def test_a_cache_of_an_earlier_version_is_read(tiny_corpus: Path, tmp_path: Path) -> None:
    first = decode(index_corpus(tiny_corpus), CONFIG, tmp_path)
    facts = first.folder / "digest.json"
    facts.write_text(json.dumps({"sha256": first.digest}))
    again: Recordings = decode(index_corpus(tiny_corpus), CONFIG, tmp_path)
    assert again.digest == first.digest
    assert not again.skipped
    assert not again.duplicates
    assert not again.notes
