"""Names as people and systems write them, and the splits of corpora of one's own."""

import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from speech.data.annotations import Word, read_labels
from speech.data.corpus import (
    Corpus,
    index_corpus,
    require_words,
    speaker_of,
    speaker_split,
)
from speech.data.recordings import decode
from speech.errors import CorpusError, SpeechWarning
from speech.features import FeatureConfig
from speech.files import decode_text, readable_name
from tests.sounds import encode, noise

CONFIG = FeatureConfig(sample_rate=8_000, n_mels=20, n_mfcc=8, fmax=4_000.0)
NFC, NFD = "gr\u00f6\u00dfe", unicodedata.normalize("NFD", "gr\u00f6\u00dfe")


def clips(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(noise(1.0) * (1 + number / 1000), 16_000))
    return root


def indexed(root: Path) -> tuple[Corpus, list[str]]:
    notes: list[str] = []
    return index_corpus(root, on_note=notes.append), notes


def splits(corpus: Corpus, word: str) -> Counter[str]:
    return Counter(clip.split for clip in corpus.clips if clip.word == word)


# --- names ---------------------------------------------------------------------------------------


def test_names_are_text_in_composed_letters_whatever_system_wrote_them() -> None:
    assert NFC != NFD
    latin = os.fsdecode(NFC.encode("latin-1"))
    for name in (NFC, NFD, latin, Path(latin)):
        assert readable_name(name) == NFC
        readable_name(name).encode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_texts_of_any_editor_are_read(encoding: str, tmp_path: Path) -> None:
    assert decode_text(f"{NFC}/a.wav\n".encode(encoding)) == f"{NFC}/a.wav\n"
    (tmp_path / "labels.csv").write_bytes(f"start,end,label\n1,2,{NFC}\n".encode(encoding))
    assert read_labels(tmp_path / "labels.csv") == (Word(1.0, 2.0, NFC),)


@pytest.mark.parametrize("folder", [NFD, os.fsdecode(NFC.encode("latin-1"))])
def test_a_word_in_another_encoding_is_the_word_and_its_clips_are_decoded(
    folder: str, tmp_path: Path
) -> None:
    root = clips(tmp_path / "corpus", *(f"{folder}/{n:08x}_nohash_0.wav" for n in range(3)))
    corpus, _ = indexed(root)
    assert corpus.words() == (NFC,)
    require_words(corpus, [NFC])
    recordings = decode(corpus, CONFIG, tmp_path / "cache")
    assert len(recordings.samples) == 3
    assert recordings.samples.any(axis=1).all()


def test_the_digest_does_not_depend_on_the_encoding_of_names(tmp_path: Path) -> None:
    digests = set()
    for place, folder in (("a", NFC), ("b", NFD), ("c", os.fsdecode(NFC.encode("latin-1")))):
        root = clips(tmp_path / place, f"{folder}/{folder}_nohash_0.wav")
        digests.add(decode(indexed(root)[0], CONFIG, tmp_path / "cache").digest)
    assert len(digests) == 1


def test_folders_that_differ_in_capitals_or_encoding_are_one_word_and_told(tmp_path: Path) -> None:
    root = clips(
        tmp_path,
        *("Left/a_nohash_0.wav", "left/a_nohash_0.wav", "LEFT/b_nohash_0.wav"),
        *(f"{NFC}/a_nohash_0.wav", f"{NFD}/a_nohash_0.wav", "right/a_nohash_0.wav"),
    )
    corpus, notes = indexed(root)
    assert corpus.words() == (NFC, "left", "right")
    assert Counter(clip.word for clip in corpus.clips) == {"left": 3, NFC: 2, "right": 1}
    assert any("LEFT, Left, left are taken for one word, left" in note for note in notes)
    assert sum("one word" in note for note in notes) == 2


def test_the_same_clip_under_two_words_is_told(tmp_path: Path) -> None:
    root = clips(tmp_path / "corpus", "left/a_nohash_0.wav", "right/b_nohash_0.wav")
    shutil.copy(root / "left/a_nohash_0.wav", root / "right/a_nohash_0.wav")
    corpus, _ = indexed(root)
    for _ in range(2):  # decoded, and opened again
        with pytest.warns(SpeechWarning, match="1 clips are under two words"):
            recordings = decode(corpus, CONFIG, tmp_path / "cache")
        assert recordings.duplicates == (("left/a_nohash_0.wav", "right/a_nohash_0.wav"),)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_any_editor_and_system_name_the_same_clips(
    encoding: str, slash: str, end: str, tmp_path: Path
) -> None:
    names = [f"{word}/{n:08x}_nohash_0.wav" for word in (NFD, "left") for n in range(30)]
    root = clips(tmp_path, *names)
    listed = [unicodedata.normalize("NFC", n) for n in names if speaker_split(n) == "validation"]
    assert listed
    text = end.join(["", ".", *(name.replace("/", slash) for name in listed), ""])
    (root / "validation_list.txt").write_bytes(text.encode(encoding))
    corpus, notes = indexed(root)
    assert not corpus.split_conflicts
    assert not corpus.split_by_clip
    assert {readable_name(c.path) for c in corpus.clips if c.split == "validation"} == set(listed)
    assert not [note for note in notes if "differ" in note]


def test_words_that_are_not_there_are_named_with_the_nearest_that_are(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    corpus, _ = indexed(clips(tmp_path, "left/a.wav", "Right/a.wav", "stop/a.wav"))
    message = refused(CorpusError, lambda: require_words(corpus, ["left", "lefft", "right", "xyz"]))
    assert "the words lefft, right, xyz, got none" in message
    assert "(nearest: left for lefft, Right for right)" in message
    assert "choose among Right, left, stop" in message
    require_words(corpus, ["left", "stop"])


# --- splits --------------------------------------------------------------------------------------


def test_a_speaker_stands_in_the_name_or_is_not_known() -> None:
    assert speaker_of("left/0132a06d_nohash_2.wav") == "0132a06d"
    assert speaker_of("left/anna take 1.wav") is None


@pytest.mark.parametrize("speaker", ["anna", "me", "bob"])
def test_the_clips_of_one_person_are_divided_clip_by_clip(speaker: str, tmp_path: Path) -> None:
    root = clips(
        tmp_path, *(f"{w}/{speaker}_nohash_{n}.wav" for w in ("a", "b") for n in range(20))
    )
    corpus, notes = indexed(root)
    for word in ("a", "b"):
        counts = splits(corpus, word)
        assert counts["train"] >= 10
        assert counts["validation"] >= 1
        assert counts["test"] >= 1
    assert corpus.split_by_clip == ("a", "b")
    assert (corpus.n_speakers, corpus.speakers_known) == (1, True)
    [note] = notes
    assert "divided clip by clip" in note
    assert "not for new ones" in note


def test_names_that_do_not_say_who_speaks_are_not_taken_for_speakers(tmp_path: Path) -> None:
    corpus, notes = indexed(clips(tmp_path, *(f"a/take {n}.wav" for n in range(30))))
    assert (corpus.n_speakers, corpus.speakers_known) == (0, False)
    assert corpus.split_by_clip == ("a",)
    assert "do not say who speaks" in notes[0]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_even_of_few_clips_each_split_gets_one_as_far_as_there_are(n: int, tmp_path: Path) -> None:
    corpus, _ = indexed(clips(tmp_path, *(f"a/take {k}.wav" for k in range(n))))
    counts = splits(corpus, "a")
    assert counts["train"] >= 1
    assert (counts["validation"] >= 1) == (n > 1)
    assert (counts["test"] >= 1) == (n > 2)


def test_a_clip_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    names = [f"a/take {n}.wav" for n in range(60)]
    few, _ = indexed(clips(tmp_path, *names[:40]))
    before = {clip.path: clip.split for clip in few.clips}
    many, _ = indexed(clips(tmp_path, *names))
    assert {clip.path: clip.split for clip in many.clips if clip.path in before} == before


def test_many_speakers_are_divided_by_speaker_and_a_word_of_ones_own_beside_them_by_clip(
    tmp_path: Path,
) -> None:
    names = [f"yes/{n:08x}_nohash_0.wav" for n in range(40)]
    own = [f"hey/anna_nohash_{n}.wav" for n in range(20)]
    assert speaker_split(own[0]) != "train"
    corpus, _ = indexed(clips(tmp_path, *names, *own))
    assert corpus.split_by_clip == ("hey",)
    for clip in corpus.clips:
        if clip.word == "yes":
            assert clip.split == speaker_split(clip.path)
    assert splits(corpus, "hey")["train"] >= 10
    # the same beside the lists of the corpus, which do not know the word
    listed = [name for name in names if speaker_split(name) == "validation"]
    (tmp_path / "validation_list.txt").write_text("\n".join(listed))
    assert indexed(tmp_path)[0] == corpus


def test_many_speakers_of_whom_none_trains_stay_a_corpus_to_measure_on(tmp_path: Path) -> None:
    names = [f"yes/{n:08x}_nohash_0.wav" for n in range(400)]
    chosen = [name for name in names if speaker_split(name) == "validation"][:12]
    corpus, notes = indexed(clips(tmp_path, *chosen))
    assert splits(corpus, "yes") == {"validation": 12}
    assert not notes


def test_every_clip_tells_its_source(tiny_corpus: Path) -> None:
    assert {clip.source for clip in index_corpus(tiny_corpus).clips} == {tiny_corpus.name}
