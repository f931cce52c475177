import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest

from speech.cli.diagnose import Finding, examine
from speech.errors import ModelError
from speech.evaluation.measure import measure
from speech.evaluation.metrics import wilson_interval
from speech.evaluation.model_card import changed_files, evaluate, warnings
from speech.evaluation.stream_card import trained_on
from speech.evaluation.training_data import device_phrase
from speech.recognizer import Recognizer
from tests import tiny


def by_pitch(x: np.ndarray) -> np.ndarray:
    """Probabilities from the strongest frequency: right for nearly every tone."""
    pitch = np.abs(np.fft.rfft(x)).argmax(axis=1) * 16_000 / x.shape[1]
    peak = np.abs(np.fft.rfft(x)).max(axis=1) / np.sqrt(np.sum(x**2, axis=1) + 1e-9)
    label = np.select([peak < 20, abs(pitch - 300) < 60, abs(pitch - 1500) < 200], [3, 0, 1], 2)
    return (0.9 * np.eye(4)[label] + 0.025).astype(np.float32)


def model(labels=tiny.LABELS.labels, provenance=None) -> Recognizer:
    config = dataclasses.replace(tiny.CONFIG, labels=labels, provenance=provenance or {})
    return Recognizer("tones", config, by_pitch)


def test_the_page_the_figures_and_the_list_of_clips_agree(tmp_path):
    data = tiny.recordings(tmp_path)
    out = tmp_path / "out"
    metrics = evaluate(model(provenance={"seed": 7}), data, out)
    saved = json.loads((out / "metrics.json").read_text())
    listed = (out / "clips.csv").read_text().splitlines()
    assert metrics.n == saved["n"] == len(listed) - 1
    assert saved["accuracy"] == metrics.accuracy > 0.9
    page = (out / "README.md").read_text()
    assert f"**Accuracy {metrics.accuracy:.2%}**" in page
    assert data.digest in page
    for picture in ("confusion.png", "reliability.png"):
        assert picture in page
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_the_card_says_how_far_the_seeds_lie_apart(tmp_path):
    def worse(x: np.ndarray) -> np.ndarray:
        right = by_pitch(x)
        right[: len(x) // 2] = 0.25
        return right

    data = tiny.recordings(tmp_path)
    first = model(provenance={"seed": 7})
    other = Recognizer("worse", dataclasses.replace(tiny.CONFIG, provenance={"seed": 8}), worse)
    metrics = evaluate(first, data, tmp_path, others=[other])
    seeds = json.loads((tmp_path / "metrics.json").read_text())["accuracy_of_seeds"]
    assert seeds["7"] == metrics.accuracy
    assert seeds["8"] == evaluate(other, data, tmp_path / "other").accuracy < metrics.accuracy
    apart = f"{100 * (seeds['7'] - seeds['8']):.2f} points apart"
    assert f"| Seeds | {seeds['7']:.2%} with seed 7, {seeds['8']:.2%} with seed 8: {apart} |" in (
        tmp_path / "README.md"
    ).read_text("utf-8")
    with pytest.raises(ModelError, match=r"another seed than 7, got low, high, .* with seed 7"):
        evaluate(first, data, tmp_path / "none", others=[first])
    assert not (tmp_path / "none").exists()


def test_robustness_adds_its_two_tables(tmp_path):
    evaluate(model(), tiny.recordings(tmp_path), tmp_path, robustness=True)
    page = (tmp_path / "README.md").read_text()
    assert "| noise, 10 dB SNR |" in page
    assert "| mains hum | 0.0016 |" in page
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved["conditions"][0]["accuracy"] == saved["accuracy"]
    assert {row["rms"] for row in saved["false_accepts_on_noise"]} == {0.0002, 0.0016, 0.01, 0.1}


def test_the_card_says_which_label_is_weak_what_it_is_taken_for_and_how_few_voices_err(tmp_path):
    def deaf_to_low(x: np.ndarray) -> np.ndarray:
        right = by_pitch(x)
        right[:, [0, 1]] = np.stack([np.full(len(x), 0.01), right[:, 0] + right[:, 1]], axis=1)
        return right / right.sum(axis=1, keepdims=True)

    data = tiny.recordings(tmp_path)
    evaluate(model(), data, tmp_path / "good")
    assert "`low` is recognized in" not in (tmp_path / "good" / "README.md").read_text()
    deaf = Recognizer("tones", tiny.CONFIG, deaf_to_low)
    metrics = evaluate(deaf, data, tmp_path / "weak")
    page = (tmp_path / "weak" / "README.md").read_text()
    n = metrics.support[0]
    assert f"- `low` is recognized in 0 of {n} clips, 0.0%" in page
    assert f"the rest is taken for `high` ({n})." in page
    listed = (tmp_path / "weak" / "clips.csv").read_text().splitlines()[1:]
    speakers = {line.split("/")[1].split("_nohash_")[0] for line in listed if "_nohash_" in line}
    assert f"of {len(speakers)} speakers have {n} of the {n} mistakes" in page


def test_a_model_whose_labels_are_in_another_order_is_refused(tmp_path):
    with pytest.raises(ModelError, match="expected words, then unknown and silence"):
        evaluate(model(("unknown", "low", "high", "silence")), tiny.recordings(tmp_path), tmp_path)


def test_the_card_names_the_digest_of_each_model_file_and_tells_when_one_has_changed(
    tmp_path, monkeypatch
):
    data, out = tiny.recordings(tmp_path, 4, 4), tmp_path / "model"
    out.mkdir()
    assert changed_files(out) is None
    for name in ("model.keras", "model.onnx", "model-int8.tflite"):
        (out / name).write_bytes(name.encode())
    evaluate(model(), data, out)
    assert changed_files(out) == []
    if tool := shutil.which("sha256sum"):
        checked = subprocess.run(
            [tool, "-c", "README.md"], cwd=out, capture_output=True, text=True, check=True
        )
        assert checked.stdout.count(": OK") == 3
    (out / "model.keras").write_bytes(b"another")
    (out / "model.onnx").unlink()
    (out / "model.tflite").write_bytes(b"not on it")
    wrong = ["model.keras", "model.onnx", "model.tflite"]
    assert changed_files(out) == wrong
    monkeypatch.setattr("speech.cli.diagnose._gpu", lambda: Finding("GPU", "not asked"))
    finding = next(f for f in examine(out) if f.what.startswith("Files of"))
    assert all(name in finding.found for name in wrong)
    assert finding.advice


# --- what the card may say of data, license and limits ------------------------------------------


def page_of(tmp_path, recognizer, data=None, **arguments) -> str:
    evaluate(recognizer, data or tiny.recordings(tmp_path), tmp_path / "card", **arguments)
    return (tmp_path / "card" / "README.md").read_text()


def test_a_model_of_ones_own_words_is_not_said_to_have_googles_voices_or_license(tmp_path):
    own = {"corpus": {"name": "my_words", "clips": 128, "sha256": "1" * 64}, "seed": 1}
    page = page_of(tmp_path, model(provenance=own))
    for phrase in ("Google", "volunteers", "Creative Commons", "CPU", "weights are MIT"):
        assert phrase not in page
    assert "`my_words`: the license of these recordings is not recorded" in page
    assert "Whose voices are in `my_words` is not recorded" in page


def test_known_collections_and_the_device_of_the_run_are_named(tmp_path):
    provenance = {
        "sources": [
            {"name": "speech_commands", "role": "words", "clips": 10, "sha256": "1" * 64},
            {"name": "isolated_words", "role": "words", "clips": 10, "sha256": "2" * 64},
        ],
        "device": "an NVIDIA H100",
        "versions": {"tensorflow-cpu": "2.21.0"},
    }
    (tmp_path / "card").mkdir()
    row = dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "gradient_norm"), 0.5
    )
    history = [{**row, "epoch": 1, "seconds": 60.0, "waiting": 0.0}]
    (tmp_path / "card" / "history.json").write_text(json.dumps(history))
    page = page_of(tmp_path, model(provenance=provenance))
    assert "1 epochs in 1 minutes on an NVIDIA H100" in page
    assert "Creative Commons BY 4.0" in page
    assert "34 Chinese students" in page
    assert "- `isolated_words`: DSPSpeech-20 (Zhongyu Chen and others), MIT." in page
    assert device_phrase({"versions": {"tensorflow-cpu": "2.21.0"}}) == " on the CPU"
    assert device_phrase({"versions": {"tensorflow-cpu": "2.21.0", "jax": "0.7"}}) == ""


def test_a_model_that_began_with_the_weights_of_another_names_what_that_was_trained_on(tmp_path):
    first = {"corpus": {"name": "speech_commands", "clips": 9, "sha256": "1" * 64}, "command": "go"}
    own = {"corpus": {"name": "my_words", "clips": 128, "sha256": "2" * 64}, "start_from": first}
    page = page_of(tmp_path, model(provenance=own))
    assert "| Began with | the weights of a model made by `go`" in page
    assert "`speech_commands`: Speech Commands (Pete Warden" in page
    assert "`my_words`: the license of these recordings is not recorded" in page
    recognizer = model(provenance=own)
    assert trained_on(recognizer, tmp_path / "speech_commands")
    assert trained_on(recognizer, tmp_path / "my_words")


def test_few_clips_of_a_label_and_a_thin_calibration_are_said_first_in_red(tmp_path):
    page = page_of(tmp_path, model(), tiny.recordings(tmp_path, n_validation=8))
    head = page.split("## ")[0]
    assert head.count("> [!CAUTION]") == 2
    assert "8 of `low`, 8 of `high`" in head
    assert f"at least {wilson_interval(8, 8)[0]:.0%} are" in head
    assert "The confidence is not calibrated" in head
    many = page_of(tmp_path, model(), tiny.recordings(tmp_path, n_validation=40))
    assert "There are few clips" not in many


def test_only_where_a_temperature_was_fitted_does_the_card_speak_of_who_set_it(tmp_path):
    page = page_of(tmp_path, model())
    assert "on the half of the speakers that did not set the temperature |" in page
    student = page_of(tmp_path, model(provenance={"streams": {"hours": 8.0}}))
    assert "on half of the speakers; no temperature was fitted |" in student
    assert "set the temperature" not in student


def test_files_that_were_left_out_are_said(tmp_path):
    evaluation = measure(model(), tiny.recordings(tmp_path, n_validation=40))
    bad = dataclasses.replace(evaluation, left_out=("low/x.wav: truncated",))
    assert any("1 files were left out" in text for text in warnings(bad))
    assert not any("left out" in text for text in warnings(evaluation))


def test_every_row_of_every_table_has_the_columns_of_its_header(tmp_path):
    page = page_of(tmp_path, model(), robustness=True)
    tables = [part for part in page.split("\n\n") if part.startswith("|")]
    assert len(tables) >= 4
    for text in tables:
        assert len({row.replace(r"\|", "").count("|") for row in text.splitlines()}) == 1


def test_mistakes_are_listed_up_to_a_limit_and_none_is_said(tmp_path):
    data = tiny.recordings(tmp_path, n_validation=40)

    def blind(x: np.ndarray) -> np.ndarray:
        return np.tile(np.array([0.7, 0.1, 0.1, 0.1], np.float32), (len(x), 1))

    page = page_of(tmp_path, Recognizer("blind", tiny.CONFIG, blind), data)
    mistakes = page.split("## Most confident mistakes")[1].split("## ")[0]
    assert "20 of 120." in mistakes
    assert mistakes.count("0.700") == 20
