"""`speech explain`: what it prints and writes, and what it refuses in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.test_docs import CLIP

ROOT = Path(__file__).parents[2]


def explain(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "speech", "explain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_clip_is_explained_as_json_picture_and_page_at_once(tmp_path):
    png, html = tmp_path / "left.png", tmp_path / "left.html"
    done = explain(CLIP, "--json", "--png", png, "--html", html)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answer"] == found["without"][0]["label"] == "left"
    arrays = {name: np.array(rows) for name, rows in found["arrays"].items()}
    cells = {n: arrays[f"layer.1.forward.{n}"] for n in ("input_gate", "forget_gate", "candidate")}
    cell = arrays["layer.1.forward.cell"]
    written = (cells["input_gate"] * cells["candidate"])[1:]
    np.testing.assert_allclose(cells["forget_gate"][1:] * cell[:-1] + written, cell[1:], atol=1e-4)
    difference = found["attribution"]["score"] - found["attribution"]["silence_score"]
    np.testing.assert_allclose(arrays["attribution"].sum(), difference, rtol=0.01)
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1_000
    assert len(html.read_bytes()) < 1_000_000


def test_the_page_asks_for_nothing_and_says_what_is_in_a_name_as_text(tmp_path):
    clip = tmp_path / "<b>no&tag.wav"
    clip.write_bytes(CLIP.read_bytes())
    html = tmp_path / "page.html"
    done = explain(clip, "--html", html)
    assert done.returncode == 0, done.stderr
    assert "the whole network" in done.stdout
    text = html.read_text("utf-8")
    assert "&lt;b&gt;no&amp;tag.wav" in text
    assert "<b>no" not in text
    assert not re.search(r"https?:|<link|@import|url\(|fetch\(|import\(", text)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))


def test_what_cannot_be_explained_is_one_line_with_its_exit_code(tmp_path):
    short, text, litert = (tmp_path / n for n in ("short.wav", "text.wav", "model.tflite"))
    soundfile.write(short, np.zeros(400), 16_000)
    text.write_text("no sound")
    litert.write_bytes(b"TFL3")
    cases = [
        ((short,), 3, "one frame"),
        ((text,), 3, "text.wav"),
        ((tmp_path / "nobody.wav",), 3, "nobody.wav"),
        ((CLIP, "--model", litert), 5, "can be explained"),
        ((CLIP, "--label", "maybe"), 5, "expected one of yes"),
    ]
    for arguments, code, words in cases:
        page = tmp_path / "page.html"
        done = explain(*arguments, "--html", page)
        assert done.returncode == code, done.stderr
        lines = [line for line in done.stderr.splitlines() if "note:" not in line]
        assert len(lines) == 1
        assert words in lines[0]
        assert not page.exists()
        assert not done.stdout
