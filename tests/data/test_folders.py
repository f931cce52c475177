"""One walk through folders of recordings: what it finds, passes over, and says of that."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from speech.data.folders import find_audio
from speech.errors import AudioError
from tests.conftest import write
from tests.sounds import noise


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "clip.wav"
    write(path, noise(1.0))
    return path


def found_in(folder: Path, notes: list[str]) -> list[str]:
    files = find_audio([folder], on_note=notes.append)
    return [path.relative_to(folder).as_posix() for path in files]


def test_every_recording_below_is_found_and_the_rest_is_told_in_one_sentence(
    tmp_path: Path, clip: Path
) -> None:
    folder = tmp_path / "recordings"
    sounds = (
        "a.wav",
        "b/c.FLAC",
        "b/d.oga",
        "dir.wav/e.aiff",
        "f.aif",
        "g.caf",
        "h.w64",
        "readme.au",
    )
    (folder / "LICENSE").parent.mkdir()
    (folder / "LICENSE").write_text("as you like")
    others = ("._a.wav", ".DS_Store", ".Trashes/x.wav", "j.m4a", "k.webm", "notes.txt")
    for name in (*sounds, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / name)
    os.mkfifo(folder / "pipe.wav")
    (folder / "broken.wav").symlink_to("nowhere.wav")
    notes: list[str] = []
    assert sorted(found_in(folder, notes)) == sorted(sounds)
    [note] = notes
    assert "\n" not in note
    for text in ("3 (hidden)", "2 (a format that cannot be read here", "j.m4a", "k.webm",
                 "1 (no recording): notes.txt", "2 (neither a file nor a folder)"):  # fmt: skip
        assert text in note, note


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "recordings"
    shutil.copytree(clip.parent, folder / "z")
    (folder / "outside").symlink_to(clip.parent)
    (folder / "a").symlink_to(folder / "z")
    (folder / "z" / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "linked.wav").symlink_to(clip)
    notes: list[str] = []
    found = found_in(folder, notes)
    assert sorted(found) == ["linked.wav", "outside/clip.wav", "z/clip.wav"]
    assert "2 (link to a folder that was already read): " in notes[0]
    assert "loop" in notes[0]


def test_files_and_standard_input_are_taken_as_they_are(tmp_path: Path, clip: Path) -> None:
    odd = tmp_path / "clip.dat"
    shutil.copy(clip, odd)
    sources = [odd, Path("-"), tmp_path / "nowhere.wav"]
    assert find_audio(sources) == sources


def test_a_folder_without_recordings_is_refused_and_what_it_holds_is_told(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "a.m4a").write_bytes(b"")
    notes: list[str] = []
    message = refused(AudioError, lambda: find_audio([tmp_path], on_note=notes.append))
    assert str(tmp_path) in message
    assert "a.m4a" in notes[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_folder_that_may_not_be_opened_is_told(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    notes: list[str] = []
    assert found_in(tmp_path, notes) == ["elsewhere/clip.wav"]
    assert "locked" in notes[0]
