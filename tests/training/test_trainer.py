import dataclasses
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from speech.errors import ModelError
from speech.labels import LabelSet
from speech.model import Architecture, load_model
from speech.training import trainer
from speech.training.augment import AugmentConfig
from speech.training.batches import prefetch
from speech.training.config import TrainConfig
from speech.training.provenance import code_digest
from speech.training.trainer import predict_logits, train
from tests import tiny

ROOT = Path(__file__).parents[2]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    data = tiny.data(tmp_path)
    augmented = tiny.config(augment=AugmentConfig())
    first, second = (train(data, tiny.LABELS, augmented, tmp_path / run) for run in "ab")
    other = train(data, tiny.LABELS, tiny.config(augment=AugmentConfig(), seed=2), tmp_path / "c")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        (a != b).any() for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
    )


KILLED = """
import os, sys
from pathlib import Path
from speech.training.trainer import train
from tests import tiny
run, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
def report(row):
    print("epoch" if "loss" in row else "step", row["epoch"], flush=True)
config = tiny.config(epochs=4, epoch_clips=256)
model = train(tiny.data(run), tiny.LABELS, config, run, resume=resume, report=report)
import numpy as np
np.savez(run / "final.npz", *model.get_weights())
"""


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_same_weights(tmp_path):
    def command(run: str, how: str) -> list[str]:
        (tmp_path / run).mkdir(exist_ok=True)
        return [sys.executable, "-c", KILLED, str(tmp_path / run), how]

    with subprocess.Popen(
        command("killed", "new"), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as killed:
        assert killed.stdout is not None
        epochs = steps_after = 0
        for line in killed.stdout:  # two whole epochs and three steps of the next
            epochs += line.startswith("epoch")
            steps_after = steps_after + 1 if epochs == 2 else 0
            if steps_after == 4:
                killed.kill()
                break
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "final.npz").exists()
    resumed, _ = (
        subprocess.run(command(run, how), capture_output=True, text=True, check=True, cwd=ROOT)
        for run, how in (("killed", "resume"), ("whole", "new"))
    )
    assert resumed.stdout.count("epoch") == 2, "the finished epochs are not trained again"
    results = [np.load(tmp_path / run / "final.npz") for run in ("whole", "killed")]
    for name in results[0].files:
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_a_tiny_corpus_is_learned_and_with_shuffled_words_validation_stays_at_chance(tmp_path):
    config = tiny.config(epochs=14, epoch_clips=256, patience=99)
    final = []
    for name in ("true", "shuffled"):
        data = tiny.data(tmp_path, shuffled=name == "shuffled", n_validation=40)
        train(data, tiny.LABELS, config, tmp_path / name)
        final.append(json.loads((tmp_path / name / "history.json").read_text())[-1])
    assert final[0]["val_accuracy"] > 0.9
    # silence, a quarter of the clips, is told from tones even then; the rest is three-way chance
    assert final[1]["val_accuracy"] < 0.25 + 0.75 * 0.55


def test_an_exploding_gradient_stops_the_run_with_a_sentence(tmp_path):
    with pytest.raises(
        ModelError, match=r"gradient exploded in epoch 1, step 1.*lower the learning rate"
    ):
        train(tiny.data(tmp_path), tiny.LABELS, tiny.config(max_gradient_norm=1e-9), tmp_path)


def test_the_run_folder_holds_config_history_and_model(tmp_path):
    train(tiny.data(tmp_path), tiny.LABELS, tiny.config(), tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved.pop("labels") == ["low", "high", "unknown", "silence"]
    assert TrainConfig.from_dict(saved) == tiny.config()
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(0 < row["gradient_norm"] <= row["gradient_norm_max"] for row in history)
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"config.json", "history.json", "model.keras", "checkpoint.npz"}


def test_the_model_carries_the_digests_of_its_data_and_its_code(tmp_path):
    model = train(tiny.data(tmp_path), tiny.LABELS, tiny.config(epochs=1), tmp_path / "run")
    saved = load_model(tmp_path / "run" / "model.keras").provenance
    assert saved["code"] == model.provenance["code"] == code_digest()
    assert saved["corpus"]["sha256"] == "0" * 64
    assert saved["seed"] == 1
    assert saved["parameters"] == model.count_params()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    data = tiny.data(tmp_path)
    train(data, tiny.LABELS, tiny.config(epochs=1), tmp_path / "run")
    with pytest.raises(ModelError, match="another config"):
        train(data, tiny.LABELS, tiny.config(seed=9), tmp_path / "run", resume=True)


def test_a_run_from_before_batches_had_parts_goes_on(tmp_path):
    data, run = tiny.data(tmp_path), tmp_path / "run"
    train(data, tiny.LABELS, tiny.config(epochs=1), run)
    checkpoint = run / "checkpoint.npz"
    arrays = dict(np.load(checkpoint))
    key = json.loads(str(arrays["key"]))
    del key[0]["parts"]
    np.savez(checkpoint, **(arrays | {"key": json.dumps(key)}))
    train(data, tiny.LABELS, tiny.config(epochs=2), run, resume=True)
    assert len(json.loads((run / "history.json").read_text())) == 2


def test_training_stops_when_validation_no_longer_improves(tmp_path):
    config = tiny.config(epochs=50, patience=2, learning_rate=1e-12)
    rows: list = []
    train(tiny.data(tmp_path), tiny.LABELS, config, tmp_path, report=rows.append)
    # without learning the weights stay, but batch normalisation still settles for some epochs
    assert sum("val_accuracy" in row for row in rows) < 50


def test_prefetch_keeps_order_and_hands_errors_over():
    assert list(prefetch(range(100), depth=3)) == list(range(100))

    def broken():
        yield 1
        raise OSError("disk gone")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(items)


def test_a_prefetch_that_is_abandoned_ends_its_thread():
    before = set(threading.enumerate())
    items = prefetch(range(10**9), depth=2)
    next(items)
    items.close()
    assert set(threading.enumerate()) <= before


def test_a_finished_run_goes_on_with_more_epochs(tmp_path):
    data = tiny.data(tmp_path)
    train(data, tiny.LABELS, tiny.config(epochs=1), tmp_path / "run")
    train(data, tiny.LABELS, tiny.config(epochs=2), tmp_path / "run", resume=True)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]


def test_a_training_begins_with_the_weights_of_another_model_and_refuses_a_strange_one(tmp_path):
    data, still = tiny.data(tmp_path), tiny.config(epochs=1, learning_rate=1e-12, ema_momentum=0.0)
    first = train(data, tiny.LABELS, tiny.config(epochs=1), tmp_path / "first")
    second = train(data, tiny.LABELS, still, tmp_path / "second", start_from=tmp_path / "first")
    for one, other in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
    assert second.provenance["start_from"]["seed"] == 1
    wider = tiny.config(architecture=Architecture(conv_filters=(8,), lstm_layers=1, lstm_units=9))
    with pytest.raises(ModelError, match="expected the architecture of this training"):
        train(data, tiny.LABELS, wider, tmp_path / "third", start_from=tmp_path / "first")


def test_a_training_begins_with_the_word_head_of_another_that_had_the_same_words(tmp_path):
    data, config = tiny.data(tmp_path), tiny.config(epochs=1, word_loss=0.5, ema_momentum=0.0)
    still = dataclasses.replace(config, learning_rate=1e-12)
    train(data, tiny.LABELS, config, tmp_path / "first")
    train(data, tiny.LABELS, still, tmp_path / "second", start_from=tmp_path / "first")
    with (
        np.load(tmp_path / "first" / "words.npz") as first,
        np.load(tmp_path / "second" / "words.npz") as second,
    ):
        for name in ("projection", "vectors"):
            np.testing.assert_allclose(first[name], second[name], atol=1e-6)


def test_the_word_head_is_saved_beside_the_model_with_its_vocabulary(tmp_path):
    config = tiny.config(epochs=1, word_loss=0.5)
    model = train(tiny.data(tmp_path), tiny.LABELS, config, tmp_path / "run")
    with np.load(tmp_path / "run" / "words.npz") as saved:
        assert saved["words"].tolist() == ["another", "high", "low", "other"]
        assert saved["projection"].shape == (model.classifier.kernel.shape[0], 128)
        assert saved["vectors"].shape == (128, 4)


def test_a_student_follows_its_teacher(tmp_path):
    """With the whole target from a teacher that always says the same, so does the student."""
    data = tiny.data(tmp_path)
    teacher = train(data, tiny.LABELS, tiny.config(epochs=1), tmp_path / "teacher")
    teacher.classifier.set_weights(
        [0 * teacher.classifier.get_weights()[0], np.array([0, 50, 0, 0], np.float32)]
    )
    config = tiny.config(epochs=6, teacher_share=1.0, label_smoothing=0.0)
    student = train(data, tiny.LABELS, config, tmp_path / "student", teachers=[teacher])
    frames = np.random.default_rng(0).normal(0, 1, (20, tiny.FEATURES.n_frames, 13))
    assert (predict_logits(student, frames.astype(np.float32)).argmax(axis=1) == 1).all()


def test_words_alone_train_with_a_warning_and_the_model_says_what_unknown_is(tmp_path, monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(trainer, "warn", notes.append)
    labels = LabelSet("tones", tuple(tiny.TONES))
    model = train(tiny.data(tmp_path), labels, tiny.config(epochs=1), tmp_path / "run")
    [note] = notes
    assert "learned from pieces of the words" in note
    assert note.endswith("speech teach")
    assert model.provenance["unknown"] == "pieces of the words"
    assert model.labels[-2:] == ("unknown", "silence")
