"""Every example runs, with a recording in place of the microphone."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLES = PROJECT / "examples"
RECORDING = PROJECT / "speech" / "web" / "static" / "examples" / "seven_words.flac"
WORDS = ["yes", "left", "stop", "up", "right", "go", "no"]


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_keyboard_names_a_key_for_every_word():
    lines = [line.split() for line in run("keyboard.py", "--wav", RECORDING).splitlines()]
    assert [line[2] for line in lines] == WORDS
    assert [line[4] for line in lines] == ["y", "left", "esc", "up", "right", "enter", "n"]


def test_the_lamp_is_lit_and_put_out_by_its_two_words():
    assert re.findall(r"on|off", run("led.py", "--wav", RECORDING)) == ["off", "on"]
    other = run("led.py", "--wav", RECORDING, "--on", "yes", "--off", "no")
    assert re.findall(r"on|off", other) == ["on", "off"]


def test_the_snake_goes_where_it_is_told_and_ends_at_no():
    text = run("snake.py", "--wav", RECORDING, "--seed", 1)
    assert text.rstrip().splitlines()[-1].startswith("The game is over.")
    frames = text.split("\033[H\033[J")[1:]
    heads = []
    for frame in frames:
        rows = frame.splitlines()[:12]
        (head,) = [(row.index("O"), y) for y, row in enumerate(rows) if "O" in row]
        heads.append(head)
    moves = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(heads)]
    assert moves[0] == (1, 0), "it begins to the right"
    paused = moves.index((0, 0))
    assert set(moves[paused : paused + 3]) == {(0, 0)}, "stop"
    assert (1, 0) in moves[paused:], "go"


def test_the_snake_grows_when_it_eats_and_dies_when_it_bites_itself(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from snake import Snake

    game = Snake(seed=0)
    for _ in range(4):
        game.food = game._next_head(game.direction)
        game.step()
    assert game.score == 4
    assert not game.over
    game.obey("left")
    assert game.direction == "right", "not into its own neck"
    for word in ("down", "left", "up"):
        game.obey(word)
        game.step()
    assert game.over


def test_the_subtitles_hold_every_word_in_the_order_of_time(tmp_path):
    subtitles = tmp_path / "words.srt"
    assert "7 commands" in run("subtitles.py", RECORDING, subtitles)
    entry = r"(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n(\w+)\n"
    entries = re.findall(entry, subtitles.read_text())
    assert [e[0] for e in entries] == list("1234567")
    assert [e[3] for e in entries] == WORDS
    assert all(e[1] < e[2] for e in entries)


def test_the_notebook_runs_from_top_to_bottom(monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text())
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert names["prediction"].label == "left"
    assert [detection.label for detection in names["detections"]] == WORDS


def test_the_readme_names_every_example():
    text = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert files == set(re.findall(r"\]\((\w+\.\w+)\)", text))
