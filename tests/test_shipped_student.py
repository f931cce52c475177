"""What docs/causal.md says of the causal student, held to the files that ship."""

import json
from pathlib import Path

import numpy as np
import pytest

import speech
from speech.audio import load_audio
from speech.stream import classifier_for

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "saved_models" / "commands-8-stream"
EXAMPLE = ROOT / "speech" / "web" / "static" / "examples" / "seven_words.flac"


@pytest.fixture(scope="module")
def student():
    return speech.load(FOLDER)


def test_the_student_is_causal_and_says_whose_student_it_is(student):
    teacher = speech.load("commands-8")
    assert student.labels == teacher.labels
    assert student.step_seconds == pytest.approx(0.04)
    assert student.provenance["teacher"]["name"] == "commands-8"
    assert student.provenance["teacher"]["provenance"] == teacher.provenance
    assert student.provenance["command"].startswith("speech distill commands-8 ")


def test_the_page_quotes_what_was_measured_of_teacher_and_student(student):
    page = (ROOT / "docs" / "causal.md").read_text("utf-8")
    for name in ("commands-8", "commands-8-stream"):
        content = json.loads((ROOT / "saved_models" / name / "stream.json").read_text())
        for condition in ("clean", "10 dB"):
            kinds = content["evaluation"][condition]
            hits = f"{kinds['commands']['hit_rate']:.1%}"
            rate = f"{kinds['speech']['false_accepts_per_hour']:.1f}"
            assert f"| {name} | {condition} | {hits} | {rate} |" in page
    assert student.decoder == content["decoder"], "the score is of the settings that ship"


def test_most_of_seven_words_are_found_as_they_come_and_in_their_order(student):
    decoder = speech.StreamDecoder(student)
    sound = load_audio(EXAMPLE, 16_000)
    found = []
    for first in range(0, len(sound), 800):
        found += decoder.push(sound[first : first + 800])
    labels = [detection.label for detection in found + decoder.flush()]
    said = iter(("yes", "left", "stop", "up", "right", "go", "no"))
    assert len(labels) >= 4
    assert all(label in said for label in labels), labels


def test_a_stream_is_answered_as_one_piece_of_it(student):
    sound = load_audio(EXAMPLE, 16_000)[: 640 * 200]
    whole, _ = student.advance(sound, student.begin())
    windows = classifier_for(student, 0.04)
    parts = np.concatenate([windows.push(sound[i : i + 801]) for i in range(0, len(sound), 801)])
    np.testing.assert_allclose(parts, whole, atol=1e-5)
