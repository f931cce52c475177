"""Takes: what is said of them, and zips and folders of them, other people's among these."""

import zipfile

import numpy as np
import pytest

from speech.errors import SpeechWarning, TeachError
from speech.teach import takes as module
from speech.teach.takes import (
    RATE,
    check_label,
    check_takes,
    read_takes,
    save_takes,
    trim,
    wav_bytes,
)


def spoken(seconds: float = 0.4, before: float = 0.3, after: float = 0.3, level: float = 0.3):
    """A tone that swells and fades in faint noise, float32."""
    rng = np.random.default_rng(3)
    n = round(seconds * RATE)
    word = level * np.hanning(n) * np.sin(2 * np.pi * 400 * np.arange(n) / RATE)
    wave = np.pad(word, (round(before * RATE), round(after * RATE)))
    return (wave + rng.normal(0, 5e-4, len(wave))).astype(np.float32)


@pytest.mark.parametrize(
    ("take", "reason", "is_fatal"),
    [
        (np.zeros(RATE, np.float32), "silent", True),
        (np.zeros(0, np.float32), "silent", True),
        (spoken(3.0), "s of sound", True),
        (spoken(0.03), "click", True),
        (spoken()[: round(0.5 * RATE)], "cut off at its end", False),
        (spoken()[round(0.5 * RATE) :], "cut off at its beginning", False),
        (np.clip(20 * spoken(), -1, 0.999).astype(np.float32), "clipped", False),
    ],
)
def test_a_take_that_looks_wrong_is_named_with_its_remedy(take, reason, is_fatal):
    (fault,) = check_takes([spoken(0.5), take])
    assert fault.index == 1
    assert reason in fault.reason
    assert fault.is_fatal == is_fatal
    assert fault.remedy


def test_good_takes_have_no_faults_and_the_same_take_twice_is_one_too_many():
    takes = [spoken(0.4), spoken(0.5), spoken(0.4)]
    (fault,) = check_takes(takes)
    assert (fault.index, fault.is_fatal) == (2, True)
    assert "take 1" in fault.reason
    assert check_takes(takes[:2]) == []


@pytest.mark.parametrize("level", [0.005, 0.05, 0.8])
def test_trimming_leaves_the_word_and_a_margin_however_loud_it_is(level):
    take = spoken(0.5, before=1.0, after=2.0, level=level)
    kept = trim(take) if level > 0.01 else trim(take * np.float32(1))
    assert 0.4 * RATE < len(kept) < 0.9 * RATE
    middle = len(take) - round(2.25 * RATE)
    assert take[middle] in kept


def test_trimming_silence_leaves_it_alone():
    silence = np.zeros(1000, np.float32)
    assert len(trim(silence)) == 1000


@pytest.mark.parametrize(
    "label",
    ["", "  ", "a/b", "..", ".hidden", 'say "hi"', "it's", "<b>x</b>", "x" * 51, "a\nb",
     "a\x1b[31m", "\u202eabc", "unknown", "Silence", "yes,no", "a\\b", "*", "x" * 200],
)  # fmt: skip
def test_labels_that_paths_or_pages_could_not_hold_are_refused(label, refused):
    refused(TeachError, lambda: check_label(label))


@pytest.mark.parametrize("label", ["licht an", "größe", "上海", "go2", "x" * 50])
def test_words_of_any_language_are_labels(label):
    assert check_label(label) == label


def test_a_letter_is_the_same_however_it_is_composed():
    assert check_label("gro\u0308ße") == "größe"


def test_what_was_saved_is_read_again_to_the_last_bit_of_sixteen(tmp_path):
    takes = {"licht an": [spoken(0.4), spoken(0.6)], "上海": [spoken(0.5)]}
    path = tmp_path / "takes.zip"
    save_takes(takes, path)
    found = read_takes(path)
    assert list(found) == list(takes)
    for label, of_word in takes.items():
        for one, other in zip(found[label], of_word, strict=True):
            np.testing.assert_allclose(one, other, atol=1 / 32_768)
    again = tmp_path / "again.zip"
    save_takes(found, again)
    assert again.read_bytes() == path.read_bytes()


def test_a_folder_may_have_any_names_and_formats_and_says_what_it_passed_over(tmp_path):
    import soundfile

    (tmp_path / "lamp" / "old").mkdir(parents=True)
    soundfile.write(tmp_path / "lamp" / "Recording (3).flac", spoken(), RATE)
    soundfile.write(tmp_path / "lamp" / "old" / "x.WAV", np.stack([spoken()] * 2, 1), RATE)
    (tmp_path / "lamp" / "notes.txt").write_text("mine")
    (tmp_path / "_background_noise_").mkdir()
    with pytest.warns(SpeechWarning, match="notes.txt"):
        found = read_takes(tmp_path)
    assert {label: len(of_word) for label, of_word in found.items()} == {"lamp": 2}


def zipped(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"../../evil/1.wav": b"x"},
        {"/etc/1.wav": b"x"},
        {"lamp/deep/1.wav": b"x"},
        {"1.wav": b"x"},
        {"lamp/run.sh": b"x"},
        {"lamp/1.wav": b"no sound"},
        {"<b>/1.wav": b"x"},
        {},
    ],
)
def test_the_zip_of_somebody_else_is_refused_in_one_sentence(members, tmp_path):
    path = zipped(tmp_path / "x.zip", members)
    with pytest.raises(TeachError, match="expected") as caught:
        read_takes(path)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(module, "_MAX_ZIP_BYTES", 1_000_000)
    path = zipped(tmp_path / "x.zip", {"lamp/1.wav": bytes(2_000_000)})
    assert path.stat().st_size < 10_000
    assert "2,000,000" in refused(TeachError, lambda: read_takes(path))


def test_a_truncated_or_locked_zip_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    save_takes({"lamp": [spoken()]}, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(TeachError, match="expected"):
        read_takes(path)
    damaged = bytearray(content)
    damaged[60:90] = bytes(30)
    path.write_bytes(damaged)
    with pytest.raises(TeachError, match="expected"):
        read_takes(path)


def test_a_recording_of_two_minutes_and_two_thousand_takes_are_refused(tmp_path):
    folder = tmp_path / "takes" / "lamp"
    folder.mkdir(parents=True)
    for i in range(2_000):
        (folder / f"{i}.wav").write_bytes(b"")
    with pytest.raises(TeachError, match=r"at most 400 takes .+ 2,000"):
        read_takes(tmp_path / "takes")


def test_a_missing_or_an_empty_folder_says_how_takes_are_made(tmp_path, refused):
    for path in (tmp_path / "none", tmp_path):
        assert "speech record" in refused(TeachError, lambda p=path: read_takes(p))


def test_a_full_disk_leaves_the_old_takes(tmp_path, monkeypatch):
    path = tmp_path / "takes.zip"
    save_takes({"lamp": [spoken()]}, path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(TeachError, match="No space left"):
        save_takes({"lamp": [spoken(0.6)]}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["takes.zip"]


def test_wav_bytes_are_sixteen_bit_mono():
    import io
    import wave

    with wave.open(io.BytesIO(wav_bytes(spoken()))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
