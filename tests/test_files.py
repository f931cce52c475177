"""The laws of speech.files: a file is the old one or the whole new one, whoever writes."""

import json
import threading
from pathlib import Path

import pytest

from speech import errors
from speech.files import replacing, write_json, write_text


def test_a_file_is_replaced_when_the_writer_is_done_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == path.parent
        assert part.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a.md", "né à Köln ⚠")
    assert (tmp_path / "new" / "folder" / "a.md").read_bytes().decode() == "né à Köln ⚠"


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"accuracy": 0.1, "labels": ["yes"]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"accuracy": 0.1, "labels": ["yes"]}
    assert text.endswith("}\n")


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    start = threading.Barrier(4)

    def write(letter: str) -> None:
        start.wait()
        for _ in range(50):
            write_text(path, letter * 10_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(path.read_text()) < set("abcd")
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_every_error_is_a_speech_error_with_a_status_of_its_own() -> None:
    kinds = [
        errors.AudioError,
        errors.CorpusError,
        errors.ModelError,
        errors.MicrophoneError,
    ]
    assert all(issubclass(kind, errors.SpeechError) for kind in kinds)
    assert [kind.exit_code for kind in kinds] == [3, 4, 5, 6]
    assert errors.SpeechError.exit_code == 1  # 2 is that of wrong arguments
