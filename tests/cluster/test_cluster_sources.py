"""What a source holds, wherever it lies, and one line for what cannot be read."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from speech.audio import load_audio
from speech.cluster.results import Results
from speech.cluster.sources import Found, at_hand, find
from speech.errors import AudioError, SpeechError
from speech.files import sha256
from tests import sounds

fsspec = pytest.importorskip("fsspec", reason="the extra cluster is not installed")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two recordings, one of them in a folder of its own, and a text."""
    folder = tmp_path / "archive"
    for name in ("a.wav", "deep/b.flac"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = Path(name).suffix[1:].upper()
        (folder / name).write_bytes(sounds.encode(sounds.noise(), 16_000, kind))
    (folder / "notes.txt").write_text("no sound")
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(archive: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(archive))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def names(*sources: str) -> list[str]:
    return [found.name for found in find(sources) if isinstance(found, Found)]


def test_folders_patterns_and_files_of_this_machine(archive):
    a, b = str(archive / "a.wav"), str(archive / "deep" / "b.flac")
    assert names(str(archive)) == [a, b]
    assert names(f"{archive}/**/*.flac", a) == [b, a]
    [note] = [found for found in find([str(archive)]) if isinstance(found, str)]
    assert "notes.txt" in note


def test_what_lies_in_memory_is_found_and_fetched_whole(archive):
    memory = fsspec.filesystem("memory")
    memory.put(str(archive), "/memory-archive", recursive=True)
    found = names("memory://memory-archive")
    assert found == ["memory:///memory-archive/a.wav", "memory:///memory-archive/deep/b.flac"]
    assert names("memory://memory-archive/*/*.flac") == found[1:]
    for name, path in zip(found, (archive / "a.wav", archive / "deep/b.flac"), strict=True):
        with at_hand(name) as (file, digest):
            assert digest == sha256(path)
            assert (load_audio(file) == load_audio(path)).all()
        assert not file.exists()


def test_a_web_server_that_knows_no_ranges_is_read_once_from_its_beginning(archive, server):
    assert names(server) == [f"{server}/a.wav", f"{server}/deep/b.flac"]
    with at_hand(f"{server}/a.wav") as (file, digest):
        assert digest == sha256(archive / "a.wav")
        assert load_audio(file).size
    with pytest.raises(AudioError) as caught, at_hand(f"{server}/none.wav"):
        pass
    assert f"{server}/none.wav: expected" in str(caught.value)


def test_a_damaged_recording_is_named_by_its_address(archive, server):
    (archive / "cut.wav").write_bytes((archive / "a.wav").read_bytes()[:1000])
    with pytest.raises(AudioError) as caught, at_hand(f"{server}/cut.wav") as (file, _):
        load_audio(file)
    assert str(caught.value).startswith(f"{server}/cut.wav: expected")


@pytest.mark.parametrize("place", ["empty", "none", "none/*.wav"])
def test_a_source_without_recordings_is_refused(tmp_path, place, refused):
    (tmp_path / "empty").mkdir()
    refused(AudioError, lambda: names(str(tmp_path / place)))


def test_an_address_that_nobody_reads_is_refused(refused):
    assert "none-such" in refused(AudioError, lambda: names("none-such://bucket/folder"))
    refused(AudioError, lambda: names("http://127.0.0.1:9/folder"))
    refused(AudioError, lambda: names("memory://nowhere"))


def row(name: str, content: str = "c") -> dict[str, object]:
    return {"file": name, "content": content, "bytes": 3, "seconds": 1.0}


def test_tables_of_a_scan_that_was_killed_are_swept_and_their_recordings_done_again(tmp_path):
    one = {"start": 0.0, "end": 0.5, "label": "yes", "probability": 0.9}
    results = Results(str(tmp_path), "m" * 64)
    results.add(row("a"), [one])
    results.write()
    results.add(row("b"), [one, one])
    results.write()
    # killed before the table that is written last
    (tmp_path / "recordings/model=mmmmmmmmmmmm/part-00001.parquet").unlink()
    again = Results(str(tmp_path), "m" * 64)
    assert again.done == {("a", "c")}
    again.add(row("b"), [one, one])
    again.write()
    pandas = pytest.importorskip("pandas")
    detections = pandas.read_parquet(tmp_path / "detections")
    assert detections["file"].tolist() == ["a", "b", "b"]
    # another model has done nothing yet
    assert not Results(str(tmp_path), "n" * 64).done


def test_what_could_not_be_fetched_is_tried_again_and_what_is_damaged_is_not(tmp_path):
    results = Results(str(tmp_path), "m" * 64)
    results.add(row("damaged"), [], "expected sound, got none")
    results.add(row("away", ""), [], "expected an answer, got none")
    results.write()
    assert Results(str(tmp_path), "m" * 64).done == {("damaged", "c")}


def test_results_that_cannot_be_kept_are_refused_in_one_line(tmp_path, monkeypatch, refused):
    (tmp_path / "file").write_text("")
    refused(SpeechError, lambda: Results(str(tmp_path / "file"), "m" * 64))
    results = Results(str(tmp_path), "m" * 64)
    results.add(row("a"), [])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert "No space left" in refused(SpeechError, results.write)
    assert not list(tmp_path.glob("recordings/*/*"))
