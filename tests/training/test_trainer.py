import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from speech.data.recordings import ContinuousSpeech
from speech.errors import ModelError
from speech.features import mfcc
from speech.labels import LabelSet
from speech.model import load_model
from speech.training.augment import AugmentConfig
from speech.training.batches import ClipSource, prefetch
from speech.training.config import TrainConfig
from speech.training.provenance import code_digest
from speech.training.trainer import train
from tests import tiny

ROOT = Path(__file__).parents[2]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    data = tiny.recordings(tmp_path)
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
model = train(tiny.recordings(run), tiny.LABELS, config, run, resume=resume, report=report)
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
        data = tiny.recordings(tmp_path, shuffled=name == "shuffled", n_validation=40)
        train(data, tiny.LABELS, config, tmp_path / name)
        final.append(json.loads((tmp_path / name / "history.json").read_text())[-1])
    assert final[0]["val_accuracy"] > 0.9
    # silence, a quarter of the clips, is told from tones even then; the rest is three-way chance
    assert final[1]["val_accuracy"] < 0.25 + 0.75 * 0.55


def test_an_exploding_gradient_stops_the_run_with_a_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"gradient exploded in epoch 1, step 1.*--learning-rate"):
        train(tiny.recordings(tmp_path), tiny.LABELS, tiny.config(explosion=1e-9), tmp_path)


def test_the_run_folder_holds_config_history_and_model(tmp_path):
    train(tiny.recordings(tmp_path), tiny.LABELS, tiny.config(), tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved.pop("labels") == ["low", "high", "unknown", "silence"]
    assert TrainConfig.from_dict(saved) == tiny.config()
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(0 < row["gradient_norm"] <= row["gradient_norm_max"] for row in history)
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"config.json", "history.json", "model.keras", "checkpoint.npz"}


def test_the_model_carries_the_digests_of_its_data_and_its_code(tmp_path):
    model = train(tiny.recordings(tmp_path), tiny.LABELS, tiny.config(epochs=1), tmp_path / "run")
    saved = load_model(tmp_path / "run" / "model.keras").provenance
    assert saved["code"] == model.provenance["code"] == code_digest()
    assert saved["corpus"]["sha256"] == "0" * 64
    assert saved["seed"] == 1
    assert saved["parameters"] == model.count_params()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    data = tiny.recordings(tmp_path)
    train(data, tiny.LABELS, tiny.config(epochs=1), tmp_path / "run")
    with pytest.raises(ModelError, match="another config"):
        train(data, tiny.LABELS, tiny.config(seed=9), tmp_path / "run", resume=True)


def test_training_stops_when_validation_no_longer_improves(tmp_path):
    config = tiny.config(epochs=50, patience=2, learning_rate=0.0)
    rows: list = []
    train(tiny.recordings(tmp_path), tiny.LABELS, config, tmp_path, report=rows.append)
    # without learning the weights stay, but batch normalisation still settles for some epochs
    assert sum("val_accuracy" in row for row in rows) < 50


def test_an_epoch_has_the_shares_that_the_recipe_asks_for(tmp_path):
    config = tiny.config(epoch_clips=200, unknown_share=0.2, silence_share=0.1)
    plan = ClipSource(tiny.recordings(tmp_path, n_train=50), tiny.LABELS, config).plan(0)
    np.testing.assert_array_equal(np.bincount(plan[:, 1]), [70, 70, 40, 20])
    assert ((plan[:, 0] == -1) == (plan[:, 1] == 3)).all()


def test_continuous_speech_takes_its_share_of_unknown_and_no_more(tmp_path):
    data = tiny.recordings(tmp_path, n_train=50)
    spoken = ContinuousSpeech(np.arange(40_000, dtype=np.int16) % 1000, "0", ("folder",))
    config = tiny.config(epoch_clips=200, unknown_share=0.2, silence_share=0.1, speech_share=0.25)
    source = ClipSource(data, tiny.LABELS, config, spoken)
    plan = source.plan(0)
    np.testing.assert_array_equal(np.bincount(plan[:, 1]), [70, 70, 40, 20])
    windows = plan[plan[:, 0] == -2]
    assert len(windows) == 10
    assert set(windows[:, 1]) == {tiny.LABELS.labels.index("unknown")}
    x, _ = next(source.batches(0))
    assert np.isfinite(x).all()
    assert x.shape == (16, tiny.FEATURES.n_frames, tiny.FEATURES.n_mfcc)


def test_halves_are_the_beginning_of_a_word_and_the_end_of_another(tmp_path, monkeypatch):
    """In the tiny corpus a word is a tone: the two halves differ in their pitch."""
    heard = []

    def seen(waveforms, config):
        heard.append(waveforms.copy())
        return mfcc(waveforms, config)

    monkeypatch.setattr("speech.training.batches.mfcc", seen)
    config = tiny.config(unknown_share=0.5, spliced_share=1.0)
    source = ClipSource(tiny.recordings(tmp_path), tiny.LABELS, config)
    labels = np.concatenate([y.argmax(axis=1) for _, y in source.batches(0)])
    made = np.concatenate(heard)[labels == tiny.LABELS.labels.index("unknown")]
    middle = made.shape[1] // 2
    pitches = [
        np.abs(np.fft.rfft(half, axis=1)).argmax(axis=1) * tiny.FEATURES.sample_rate / middle
        for half in (made[:, :middle], made[:, middle:])
    ]
    tones = np.array(list(tiny.TONES.values()))
    first, second = (np.abs(np.log(p[:, None] / tones)).argmin(axis=1) for p in pitches)
    assert (first != second).all()
    assert {*first} == {*second} == set(range(len(tones)))


def test_no_clip_of_a_validation_speaker_is_ever_drawn(tmp_path):
    data = tiny.recordings(tmp_path)
    source = ClipSource(data, tiny.LABELS, tiny.config())
    drawn = np.concatenate([source.plan(epoch)[:, 0] for epoch in range(5)])
    assert {data.corpus.clips[i].split for i in drawn if i >= 0} == {"train"}


def test_a_batch_is_decided_by_seed_and_epoch_alone(tmp_path):
    data = tiny.recordings(tmp_path)
    config = tiny.config(augment=AugmentConfig())
    batches = [list(ClipSource(data, tiny.LABELS, config).batches(e)) for e in (1, 1, 2)]
    for (x, y), (x2, y2) in zip(batches[0], batches[1], strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
    assert not np.array_equal(batches[0][0][0], batches[2][0][0])


def test_a_word_without_training_clips_is_named(tmp_path):
    labels = LabelSet("x", ("low", "missing"))
    with pytest.raises(ModelError, match="none of missing"):
        ClipSource(tiny.recordings(tmp_path), labels, tiny.config())


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
