"""The laws of measuring on unseen sources, on tones whose every answer is known."""

import json

import numpy as np
import pytest
import soundfile

from speech.errors import CorpusError
from speech.evaluation.metrics import wilson_interval
from speech.evaluation.model_card import evaluate
from speech.evaluation.unseen import find_word_folders, measure_unseen
from speech.evaluation.unseen_card import section
from speech.recognizer import Recognizer
from tests import tiny
from tests.e2e import tones


def write(path, seconds=1.0, words=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tones.said(list(words), seconds), tones.RATE, subtype="PCM_16")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """One source with a command, another word and a room; one of speech with one false accept."""
    root = tmp_path_factory.mktemp("strangers")
    for number in range(6):
        write(root / "one" / "low" / f"{number}.wav", 1.2, [(0.3, "low")])
        write(root / "one" / "cat" / f"{number}.wav", 1.2, [(0.3, "high")] if number < 2 else [])
        write(root / "two" / "room" / f"{number}.wav", 2.0)
    write(root / "two" / "high" / "0.wav", 1.0, [(0.3, "low")])
    write(root / "talk" / "radio" / "a.wav", 20.0, [(5.0, "low")])
    return root


@pytest.fixture(scope="module")
def unseen(strangers):
    return measure_unseen(tones.recognizer(), [strangers])


def test_the_name_of_a_folder_says_what_is_wanted_of_its_clips(unseen):
    rows = {(row["source"], row["kind"]): (row["n"], row["right"]) for row in unseen["clips"]}
    assert rows == {
        ("one", "commands"): (6, 6),
        ("one", "other words"): (6, 4),
        ("two", "commands"): (1, 0),
        ("two", "rooms"): (6, 6),
    }
    total = {row["kind"]: row for row in unseen["total"]}
    assert (total["commands"]["n"], total["commands"]["right"]) == (7, 6)
    assert (total["commands"]["low"], total["commands"]["high"]) == wilson_interval(6, 7)
    assert total["commands"]["by_word"] == {"low": [6, 6, 6], "high": [1, 0, 0]}


def test_long_recordings_are_continuous_speech_for_the_live_decoder(unseen):
    [row] = unseen["speech"]
    assert row["source"] == "radio"
    assert row["false_accepts"] == 1
    assert row["false_accepts_per_hour"] == pytest.approx(180, rel=0.01)
    assert row["low"] < 180 < row["high"]


def test_the_figures_are_json_and_every_row_of_the_page_fits_its_header(unseen):
    assert json.loads(json.dumps(unseen)) == unseen
    page = section(unseen)
    assert "**Nothing was trained or tuned on them.**" in page
    assert "| one | other words not called a command | 6 | 66.7% |" in page
    assert "`cat` 4/6" in page
    for part in page.split("\n\n"):
        if part.startswith("|"):
            assert len({row.count("|") for row in part.splitlines()}) == 1


def test_acceptance_turns_doubtful_commands_into_none(strangers):
    recognizer = tones.recognizer()
    plain = measure_unseen(recognizer, [strangers / "one"])
    recognizer.acceptance = {"low": 0.5, "high": 0.999}
    strict = measure_unseen(recognizer, [strangers / "one"])
    other = [next(r for r in m["clips"] if r["kind"] == "other words") for m in (plain, strict)]
    assert [row["right"] for row in other] == [4, 4]
    assert [row["right_with_acceptance"] for row in other] == [4, 6]


def test_a_folder_of_words_is_a_source_and_so_is_one_of_sources(strangers):
    each = find_word_folders([strangers / "one"])
    assert [(f.source, f.word, len(f.paths)) for f in each] == [
        ("one", "cat", 6),
        ("one", "low", 6),
    ]
    assert {f.source for f in find_word_folders([strangers])} == {"one", "two", "talk"}


def test_a_source_that_trained_is_said_in_red(strangers):
    recognizer = tones.recognizer()
    recognizer.provenance = {"sources": [{"name": "one", "role": "words"}]}
    unseen = measure_unseen(recognizer, [strangers / "one"])
    assert unseen["trained_on"] == ["one"]
    assert "> [!CAUTION]\n> The model was trained on folders of these names: `one`" in section(
        unseen
    )


def test_a_file_that_cannot_be_read_is_left_out_and_said(tmp_path):
    write(tmp_path / "a" / "low" / "good.wav", 1.0, [(0.3, "low")])
    (tmp_path / "a" / "low" / "bad.wav").write_text("Dear sir or madam")
    unseen = measure_unseen(tones.recognizer(), [tmp_path])
    assert unseen["total"][0]["n"] == 1
    [reason] = unseen["unreadable"]
    assert reason.startswith("a/low/bad.wav: ")
    assert "1 files were left out" in section(unseen)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_recordings_is_refused(name, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    message = refused(CorpusError, lambda: find_word_folders([tmp_path / name]))
    assert "SOURCE/WORD/" in message


def test_the_card_shows_unseen_sources_above_the_validation_figure(tmp_path):
    for number in range(3):
        path = tmp_path / "strange" / "low" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = tiny.tone("low", np.random.default_rng(number))
        soundfile.write(path, sound, tiny.FEATURES.sample_rate, subtype="PCM_16")

    def low(x):
        return np.tile(np.array([0.7, 0.1, 0.1, 0.1], np.float32), (len(x), 1))

    recognizer = Recognizer("low", tiny.CONFIG, low)
    out = tmp_path / "out"
    evaluate(recognizer, tiny.recordings(tmp_path), out, unseen=[tmp_path / "strange"])
    page = (out / "README.md").read_text()
    assert page.index("## On unseen sources") < page.index("## On validation speakers")
    assert "| strange | commands recognized | 3 | 100.0% |" in page
    saved = json.loads((out / "metrics.json").read_text())
    assert saved["unseen"]["total"][0]["right"] == 3
