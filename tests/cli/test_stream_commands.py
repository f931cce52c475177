"""``speech scan`` and ``speech score-stream`` as people run them; the network knows tones."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.data.annotations import read_labels
from speech.data.corpus import speaker_split
from tests.e2e.tones import RATE, said

ROOT = Path(__file__).parents[2]
WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]
SPOKEN = [word for _, word in WORDS]
LABELS = "start,end,label\n0.5,0.9,low\n2.0,2.4,high\n3.5,3.9,low\n"


def speech(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.e2e.tones", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def wav(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    return wav(tmp_path_factory.mktemp("words") / "words.wav", said(WORDS, 5.0))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Tones by a dozen validation speakers, a word that is none, noise; a folder of speech."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(2)
    names = (f"{number:08x}_nohash_0.wav" for number in range(10_000))
    chosen = [name for name in names if speaker_split(name) == "validation"][:12]
    for word in ("low", "high", "cat"):
        for name in chosen:
            spoken = [] if word == "cat" else [(float(rng.uniform(0.1, 0.5)), word)]
            wav(root / "clips" / word / name, said(spoken, 1.0))
    wav(root / "clips" / "_background_noise_" / "hiss.wav", rng.normal(0, 0.05, 30 * RATE))
    talk = rng.normal(0, 0.05, 60 * RATE) * (1 + np.sin(np.arange(60 * RATE) / 2000))
    wav(root / "talk" / "a.wav", talk)
    return root


def score(corpus: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    given = ("--data", corpus / "clips", "--speech", corpus / "talk")
    return speech("score-stream", "tones", *given, *arguments)


# --- scan ---------------------------------------------------------------------------------------


def test_a_scan_prints_a_table_of_times_and_labels(words):
    result = speech("scan", words)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if "words.wav" in line]
    assert [line[2] for line in lines] == SPOKEN
    assert all(re.fullmatch(r"0:00:0\d\.\d", line[1]) for line in lines)
    assert result.stderr == ""


def test_the_name_of_a_file_is_shown_as_it_is(words, tmp_path):
    path = tmp_path / "[old] {take} :dog:.wav"
    path.write_bytes(words.read_bytes())
    shown = speech("scan", path).stdout
    assert path.name in shown


def test_a_scan_says_what_listen_says_of_the_same_file(words):
    listened = speech("listen", "--wav", words, "--json").stdout.splitlines()
    scanned = speech("scan", words, "--json").stdout.splitlines()
    for one, other in zip(map(json.loads, scanned), map(json.loads, listened), strict=True):
        assert one.pop("file") == str(words)
        assert other.pop("type") == "detection"
        assert one == pytest.approx(other, abs=2e-4)


def test_a_scan_of_a_folder_writes_csv_labels_and_pictures(words, tmp_path):
    for folder in ("a", "b"):
        wav(tmp_path / "in" / folder / "x.wav", said(WORDS[:1], 2.0))
    out = tmp_path / "out"
    files = ("--csv", out / "all.csv", "--audacity", out / "labels", "--png", out / "png")
    result = speech("scan", tmp_path / "in", words, *files)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((out / "all.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["low", "low", *SPOKEN]
    assert len(list((out / "labels").iterdir())) == len(list((out / "png").iterdir())) == 3
    [labels] = [p for p in (out / "labels").iterdir() if p.name.endswith("words.wav.txt")]
    assert [word.label for word in read_labels(labels)] == SPOKEN
    for picture in (out / "png").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_recording_gives_one_file_of_labels(words, tmp_path):
    target = tmp_path / "labels.txt"
    assert speech("scan", words, "--audacity", target).returncode == 0
    assert [word.label for word in read_labels(target)] == SPOKEN


def test_a_bad_recording_among_good_ones_is_named_and_the_others_are_scanned(words, tmp_path):
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear sir or madam")
    short = wav(tmp_path / "short.wav", said([(0.05, "high")], 0.5))
    result = speech("scan", letter, short, words, "--json")
    assert result.returncode == 3
    [complaint] = result.stderr.splitlines()
    assert "letter.wav: expected" in complaint
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["label"] for row in found] == ["high", *SPOKEN]
    assert found[0]["file"] == str(short)


# --- score-stream -------------------------------------------------------------------------------


def test_a_score_leaves_json_and_a_picture_and_says_it_in_a_table(corpus, tmp_path):
    result = score(corpus, "--out", tmp_path, "--seed", "3", "--gap", "0.5", "0.8")
    assert result.returncode == 0, result.stderr
    for condition in ("clean", "10 dB"):
        assert re.search(rf"{condition}\s+commands\s+\d+\.\d\s+\d+\.\d% of", result.stdout)
    content = json.loads((tmp_path / "stream.json").read_text())
    assert (tmp_path / "stream_det.png").read_bytes().startswith(b"\x89PNG")
    assert content["seed"] == 3
    assert content["gap_seconds"] == [0.5, 0.8]
    assert content["choosing"] is None
    assert content["decoder"]["thresholds"] == {"low": 0.7}
    assert [one["name"] for one in content["speech"]] == ["talk"]
    clean = content["measuring"]["clean"]
    assert clean["commands"]["hit_rate"] > 0.9
    assert clean["speech"]["false_alarms"] == 0
    printed = score(corpus, "--out", tmp_path / "b", "--seed", "3", "--gap", "0.5", "0.8", "--json")
    again = json.loads(printed.stdout)
    assert {**again, "command": ""} == {**content, "command": ""}, "a seed decides all of it"


@pytest.mark.slow
def test_thresholds_are_chosen_on_other_streams_and_what_they_rest_on_is_told(corpus, tmp_path):
    wanted = ("--max-false-alarms-per-hour", "1", "--out", tmp_path)
    result = score(corpus, *wanted)
    assert result.returncode == 0, result.stderr
    [line] = result.stderr.splitlines()
    assert re.search(r"0\.01 hours .* can show 360\.0 false alarms an hour at best, not 1", line)
    content = json.loads((tmp_path / "stream.json").read_text())
    assert content["choosing"]["rate"] == 1.0
    assert content["choosing"]["config"] == content["decoder"]
    assert content["measuring"]["clean"]["commands"]["hit_rate"] > 0.9


def test_a_recording_of_ones_own_is_scored_with_its_labels(words, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(LABELS)
    given = ("--recording", words, "--labels", labels)
    result = speech("score-stream", "tones", *given, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["measuring"]["words.wav"]["recording"]
    assert (found["hits"], found["misses"], found["false_alarms"]) == (3, 0, 0)
    assert "100.0% of 3" in speech("score-stream", "tones", *given).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--data", "/nowhere"), 4, "/nowhere: expected the folder of a corpus"),
        (("--recording", "WORDS", "--labels", "BAD"), 4, "bad.csv, line 2: expected start, end"),
        (("--recording", "WORDS", "--labels", "LATE"), 4, "got 5.00 s"),
        (("--recording", "SHORT", "--labels", "GOOD"), 3, "expected at least a window of 1 s"),
        (("--recording", "/nowhere.wav", "--labels", "GOOD"), 3, "/nowhere.wav: expected an audio"),
        (("--recording", "WORDS"), 2, "expected --recording and --labels together"),
        (("--snr", "loud"), 2, "expected clean, or numbers of dB, got 'loud'"),
        (("--snr", "10,10"), 2, "expected different conditions"),
        (("--gap", "2", "1"), 2, "expected gaps from 0 to 60 s"),
        (("--store",), 2, "expected --max-false-alarms-per-hour beside --store"),
        (("--max-false-alarms-per-hour", "1"), 2, "expected --speech to choose thresholds on"),
    ],
)
def test_bad_input_gives_one_line_and_its_exit_code(arguments, code, message, words, tmp_path):
    files = {
        "WORDS": words,
        "SHORT": wav(tmp_path / "short.wav", said([], 0.5)),
        "GOOD": tmp_path / "good.csv",
        "BAD": tmp_path / "bad.csv",
        "LATE": tmp_path / "late.csv",
    }
    files["GOOD"].write_text(LABELS)
    files["BAD"].write_text("start,end,label\nfirst,second,yes\n")
    files["LATE"].write_text("start,end,label\n90,91,yes\n")
    result = speech("score-stream", "tones", *(files.get(a, a) for a in arguments))
    assert result.returncode == code, result.stderr
    assert message in re.sub(r"[│\s]+", " ", result.stderr)
    assert "Traceback" not in result.stderr
    if code != 2:
        assert len(result.stderr.splitlines()) == 1
