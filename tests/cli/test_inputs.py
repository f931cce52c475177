"""Odd files, folders and names on the command line: one line each, in any terminal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.tones import RATE, said
from tests.sounds import encode

ROOT = Path(__file__).parents[2]


def speech(
    *arguments: object, content: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tests.e2e.tones", *map(str, arguments)]
    environment = os.environ | environment
    return subprocess.run(command, capture_output=True, input=content, cwd=ROOT, env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A word in each of several odd files."""
    low = said([(0.3, "low")], 1.0)
    content = encode(low, RATE)
    unfinished = content[:4] + bytes(4) + content[8:40] + bytes(4) + content[44:]
    (tmp_path / "unfinished.wav").write_bytes(unfinished)
    (tmp_path / "inverted.wav").write_bytes(encode(np.stack([low, -low], axis=1), RATE))
    (tmp_path / "gr\u00f6\u00dfe.wav").write_bytes(content)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xfcr.wav")).write_bytes(content)
    (tmp_path / "dir.wav").mkdir()
    shutil.copy(tmp_path / "unfinished.wav", tmp_path / "._hidden.wav")
    (tmp_path / "phone.m4a").write_bytes(b"no sound")
    return tmp_path


@pytest.mark.parametrize("command", ["recognize", "scan"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_files_of_a_folder_are_taken_and_told_in_one_line_each(
    command: str, encoding: str, folder: Path
) -> None:
    table = speech(command, "--model", "tones", folder, PYTHONIOENCODING=encoding)
    assert table.returncode == 0, table.stderr
    notes = table.stderr.decode(encoding).splitlines()
    assert len(notes) == 3
    assert all(note.startswith("speech: note: ") for note in notes)
    assert "1 (hidden): ._hidden.wav" in notes[0]
    assert "phone.m4a" in notes[0]
    assert any("unfinished.wav: the recording was not finished" in note for note in notes)
    assert any("inverted.wav: the channels cancel each other out" in note for note in notes)
    if encoding == "utf-8":
        assert "gr\u00f6\u00dfe.wav" in table.stdout.decode()
        assert "t\u00fcr.wav" in table.stdout.decode()
    rows = speech(command, "--model", "tones", folder, "--json", PYTHONIOENCODING=encoding)
    labels = [json.loads(row)["label"] for row in rows.stdout.splitlines()]
    assert labels == ["low"] * 4


@pytest.mark.parametrize("command", ["recognize", "scan"])
def test_a_recording_comes_through_standard_input(command: str) -> None:
    content = encode(said([(0.3, "low")], 1.0), RATE, "FLAC")
    done = speech(command, "--model", "tones", "-", "--json", content=content)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "low"
