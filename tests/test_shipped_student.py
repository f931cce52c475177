"""What docs/causal.md says of the causal students, held to the files that ship."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import speech
from speech.audio import load_audio
from speech.stream import classifier_for

sys.path.append(str(Path(__file__).parents[1] / "experiments"))
from causal_page import litert_graph, working_memory

ROOT = Path(__file__).parent.parent
NAMES = ("commands-8-stream", "commands-8-tiny")
TINY = ROOT / "saved_models" / "commands-8-tiny" / "model-int8.tflite"
EXAMPLE = ROOT / "speech" / "web" / "static" / "examples" / "seven_words.flac"


@pytest.fixture(scope="module", params=NAMES)
def student(request):
    return speech.load(ROOT / "saved_models" / request.param)


def test_the_student_is_causal_and_says_whose_student_it_is(student):
    teacher = speech.load("commands-8")
    assert student.labels == teacher.labels
    assert student.step_seconds == pytest.approx(0.04)
    assert student.provenance["teacher"]["name"] == "commands-8"
    assert len(student.provenance["teacher"]["code"]) == 64, "whatever its teacher is today"
    assert "gpu_streams.py" in student.provenance["command"]


def test_the_page_quotes_what_was_measured_of_teacher_and_student(student):
    page = (ROOT / "docs" / "causal.md").read_text("utf-8")
    for name in ("commands-8", student.name):
        content = json.loads((ROOT / "saved_models" / name / "stream.json").read_text())
        for condition in ("clean", "10 dB"):
            kinds = content["evaluation"][condition]
            hits = f"{kinds['commands']['hit_rate']:.1%}"
            rate = f"{kinds['speech']['false_accepts_per_hour']:.1f}"
            assert f"| {name} | {condition} | {hits} | {rate} |" in page
    assert student.decoder == content["decoder"], "the score is of the settings that ship"


def test_the_readme_quotes_the_stream_score_of_the_larger_student():
    readme = (ROOT / "README.md").read_text("utf-8")
    content = json.loads((ROOT / "saved_models" / NAMES[0] / "stream.json").read_text())
    for name, condition in (("clean", "clean"), ("10 dB", "noise at 10 dB SNR")):
        words, others = (content["evaluation"][name][kind] for kind in ("commands", "speech"))
        figures = f"{words['hit_rate']:.1%} | {others['false_accepts']}"
        late = f"{1000 * words['latency_median']:.0f} ms"
        assert f"| {NAMES[0]} | {condition} | {figures} | {late} |" in readme


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


def test_the_tiny_graph_fits_into_64_kib_and_a_step_into_25_kb():
    graph = litert_graph(TINY)
    assert len(graph) <= 64 * 1024
    assert working_memory(graph) <= 25_000
    page = (ROOT / "docs" / "causal.md").read_text("utf-8")
    assert f"{len(graph):,}" in page
    assert f"{working_memory(graph):,}" in page


def test_int8_answers_most_steps_as_float_does():
    sound = load_audio(EXAMPLE, 16_000)
    whole = sound[: len(sound) // 640 * 640]
    answers = [
        model.advance(whole, model.begin())[0].argmax(axis=1)
        for model in (speech.load(TINY), speech.load(TINY.parent / "model.onnx"))
    ]
    assert np.mean(answers[0] == answers[1]) > 0.97
