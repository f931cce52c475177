"""``speech scan``, ``score`` and ``tune-thresholds`` as people run them, on tones."""

import csv
import json
import os
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
    return speech("score", "tones", *given, *arguments)


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


@pytest.mark.parametrize("name", ["größe 🐕.wav", "gr\udcf6\udcdfe.wav"])
def test_a_name_that_the_terminal_cannot_show_is_shown_with_escapes(words, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(words.read_bytes())
    for encoding in ("ascii", "utf-8", "latin-1"):
        for arguments in ((), ("--json",)):
            result = subprocess.run(
                [sys.executable, "-m", "tests.e2e.tones", "scan", os.fsencode(path), *arguments],
                capture_output=True,
                cwd=ROOT,
                env=os.environ | {"PYTHONIOENCODING": encoding},
            )
            assert result.returncode == 0, result.stderr
            assert result.stdout.count(b"low") == 2


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


# --- score and tune-thresholds ------------------------------------------------------------------


@pytest.mark.slow
def test_a_score_leaves_json_and_a_picture_and_says_it_in_a_table(corpus, tmp_path):
    result = score(corpus, "--out", tmp_path, "--seed", "3")
    assert result.returncode == 0, result.stderr
    for condition in ("clean", "10 dB"):
        assert re.search(rf"{condition}\s+commands\s+\d+\.\d\s+\d+\.\d% of", result.stdout)
    assert re.search(r"different words\s+\d+%\s+\d+%\s+\d+%\s+\d+%\s+\d+%", result.stdout)
    content = json.loads((tmp_path / "stream.json").read_text())
    assert (tmp_path / "stream_det.png").read_bytes().startswith(b"\x89PNG")
    assert content["seed"] == 3
    assert content["decoder"]["thresholds"] == {"low": 0.7}
    assert [source["name"] for source in content["speech"]] == ["talk"]
    clean = content["evaluation"]["clean"]
    assert clean["commands"]["hit_rate"] > 0.9
    assert clean["speech"]["false_accepts"] == 0
    assert list(content["fast_words"]["same word"]) == [
        f"pause {g} s" for g in (0, 0.1, 0.2, 0.3, 0.5)
    ]
    printed = score(corpus, "--out", tmp_path / "b", "--seed", "3", "--json")
    again = json.loads(printed.stdout)
    assert {**again, "command": ""} == {**content, "command": ""}, "a seed decides all of it"


def test_a_rate_that_the_speech_cannot_show_is_refused_with_an_exit_code_of_its_own(corpus):
    given = ("--data", corpus / "clips", "--speech", corpus / "talk", "--rate", "1")
    result = speech("tune-thresholds", "tones", *given)
    assert result.returncode == 7
    [line] = result.stderr.splitlines()
    assert re.search(r"3 hours, got 0\.02 hours, which can show 180\.0 per hour at best", line)
    assert result.stdout == ""


@pytest.mark.slow
def test_thresholds_are_chosen_for_the_decoder_and_for_clips(corpus):
    given = ("--data", corpus / "clips", "--speech", corpus / "talk", "--rate", "200")
    result = speech("tune-thresholds", "tones", *given, "--accept-rate", "0.5")
    assert result.returncode == 0, result.stderr
    assert re.search(r"0\.02 hours of speech, which can show 180\.0 at best", result.stdout)
    assert re.search(r"low\s+0\.\d+\s+0\.\d+", result.stdout)
    assert "Nothing is written" in result.stdout


def test_a_recording_of_ones_own_is_scored_with_its_labels(words, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(LABELS)
    result = speech("score-recording", words, labels, "--model", "tones", "--json")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)["evaluation"]["words.wav"]["recording"]
    assert (metrics["hits"], metrics["misses"], metrics["false_accepts"]) == (3, 0, 0)
    assert "100.0% of 3" in speech("score-recording", words, labels, "--model", "tones").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("score", "--data", "/nowhere"), 4, "/nowhere: expected the folder of a corpus"),
        (("score-recording", "WORDS", "BAD"), 4, "bad.csv, line 2: expected start, end"),
        (("score-recording", "WORDS", "LATE"), 4, "got 5.00 s"),
        (("score-recording", "SHORT", "GOOD"), 3, "expected at least a window of 1 s"),
        (("score-recording", "/nowhere.wav", "GOOD"), 3, "/nowhere.wav: expected an audio"),
        (("score-recording", "WORDS"), 2, "Missing argument"),
        (("score", "--snr", "loud"), 2, "expected clean, or numbers of dB, got 'loud'"),
        (("score", "--snr", "10,10"), 2, "expected different conditions"),
        (("tune-thresholds",), 2, "expected --negative-speech to choose thresholds on"),
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
    result = speech(*(files.get(a, a) for a in arguments))
    assert result.returncode == code, result.stderr
    assert message in re.sub(r"[│\s]+", " ", result.stderr)
    assert "Traceback" not in result.stderr
    if code != 2:
        assert len(result.stderr.splitlines()) == 1
