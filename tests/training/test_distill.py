"""A causal student learns from streams what its teacher says of clips, without its mistakes."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from speech.architecture import ModelConfig
from speech.data.recordings import ContinuousSpeech
from speech.errors import ModelError
from speech.model import Architecture
from speech.recognizer import Recognizer, load
from speech.training import distill as distillation
from speech.training.distill import _accelerated_mfcc, distill, stream_mfcc
from speech.training.sources import Source, TrainingData
from speech.training.streams import Said, StreamPlan, corrected, make_streams
from speech.training.trainer import train
from tests import tiny

LABELS = ("low", "high", "unknown", "silence")
RATE = tiny.FEATURES.sample_rate
STUDENT = Architecture((8, 8), 1, 12, bidirectional=False, pooling="state", causal=True)


def hears_tones(waveforms: np.ndarray) -> np.ndarray:
    """The most power at the pitch of a word within its tenth; silence where there is little."""
    power = np.abs(np.fft.rfft(waveforms * np.hanning(waveforms.shape[1]))) ** 2
    frequency = np.fft.rfftfreq(waveforms.shape[1], 1 / RATE)
    shares = [
        power[:, np.abs(frequency / tiny.TONES[word] - 1) < 0.15].sum(axis=1)
        for word in ("low", "high")
    ]
    total = power.sum(axis=1)
    quiet = np.sqrt(np.mean(waveforms**2, axis=1)) < 1e-3
    rows = np.stack([*(s / total * 0.96 + 0.01 for s in shares), 0 * total, 0.01 + 0 * total], 1)
    rows[:, 2] = 1 - rows.sum(axis=1)
    rows[quiet] = 0, 0, 0.02, 0.98
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def teacher() -> Recognizer:
    return Recognizer("teacher", ModelConfig(labels=LABELS, features=tiny.FEATURES), hears_tones)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> TrainingData:
    made = tiny.data(tmp_path_factory.mktemp("corpus"))
    hum = np.random.default_rng(3).normal(0, 800, 20 * RATE).astype(np.int16)
    return dataclasses.replace(
        made, speech=((Source("talk", "speech"), ContinuousSpeech(hum, "0" * 64, ("talk",))),)
    )


def test_the_truth_of_a_stream_takes_the_teachers_mistakes_away(teacher):
    ends = np.array([0.2, 1.0, 2.0])
    answers = np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.4, 0.1, 0.1], [0.0, 0.2, 0.3, 0.5]])
    said = [Said(0.7, 0.95, LABELS.index("high"))]
    before, inside, after = corrected(answers, said, ends, teacher, 0.5)
    np.testing.assert_allclose(before, [0, 0, 0.9, 0.1])
    # what is no command of the clip is unknown; the command itself gets the other half
    np.testing.assert_allclose(inside, [0, 0.2 + 0.5, 0.25, 0.05])
    np.testing.assert_allclose(after, [0, 0, 0.5, 0.5])


def test_streams_are_decided_by_their_seed_and_every_target_is_a_distribution(data, teacher):
    plan = StreamPlan(hours=0.01, segment_seconds=4)
    streams = make_streams(data, teacher, plan, 0.08, seed=3)
    again = make_streams(data, teacher, plan, 0.08, seed=3)
    np.testing.assert_array_equal(streams.waveforms, again.waveforms)
    assert streams.waveforms.shape == (9, 4 * RATE)
    assert streams.targets.shape == (9, 50, len(LABELS))
    np.testing.assert_allclose(streams.targets.astype(float).sum(axis=2), 1, atol=2e-3)
    assert streams.targets[:, :, :2].max() > 0.9, "commands are said and found"
    other = make_streams(data, teacher, plan, 0.08, seed=4)
    assert (other.waveforms != streams.waveforms).any()


def test_frames_of_a_stream_end_with_every_hop():
    features = tiny.FEATURES
    sound = np.zeros((1, 10 * features.hop_length), np.float32)
    sound[0, 5 * features.hop_length :] = 0.5
    frames = stream_mfcc(sound, features)
    assert frames.shape == (1, 10, features.n_mfcc)
    changed = np.abs(frames - frames[:, :1]).max(axis=(0, 2)) > 1
    assert not changed[:5].any()
    assert changed[5]


def test_a_student_is_trained_resumed_and_saved_with_its_causality(data, teacher, tmp_path):
    config = tiny.config(
        epochs=3, epoch_clips=24, batch_size=4, architecture=STUDENT, word_loss=0.0,
        label_smoothing=0.0, n_backgrounds=8, ema_momentum=0.5,
    )  # fmt: skip
    plan = StreamPlan(hours=0.02, segment_seconds=4, look_ahead_seconds=0.08)
    first = dataclasses.replace(config, epochs=1)
    distill(data, teacher, first, plan, tmp_path)
    rows: list[float] = []
    model = distill(
        data, teacher, config, plan, tmp_path, resume=True,
        report=lambda row: rows.append(row["val_loss"]) if "val_loss" in row else None,
    )  # fmt: skip
    assert len(rows) == 2, "the first epoch was not trained again"
    assert rows[-1] < 1.2, "better than an even guess of four, 1.39"
    assert model.causality is not None
    assert model.causality.look_ahead_seconds == 0.08
    assert load(tmp_path / "model.keras").causality == model.causality
    assert model.provenance["streams"] == plan.to_dict()
    assert model.provenance["teacher"]["name"] == "teacher"


def test_a_student_is_validated_by_the_share_of_the_teacher_that_it_learns(
    data, teacher, tmp_path, monkeypatch
):
    shares = []

    def noted(*arguments, teacher_share=None, **options):
        shares.append(teacher_share)
        return make_streams(*arguments, teacher_share=teacher_share, **options)

    monkeypatch.setattr(distillation, "make_streams", noted)
    config = tiny.config(
        epochs=1,
        epoch_clips=4,
        batch_size=4,
        architecture=STUDENT,
        teacher_share=0.9,
        n_backgrounds=8,
    )
    distill(data, teacher, config, StreamPlan(hours=0.01, segment_seconds=4), tmp_path)
    assert shares == [0.9, 0.9]


def test_an_architecture_that_looks_back_from_the_end_is_refused(data, teacher, tmp_path):
    with pytest.raises(ModelError, match="expected a causal architecture at 16000 Hz, got"):
        distill(data, teacher, tiny.config(), StreamPlan(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_causal_architecture_is_not_trained_on_clips(data, tmp_path, refused):
    config = tiny.config(architecture=STUDENT)
    message = refused(ModelError, lambda: train(data, tiny.LABELS, config, tmp_path / "run"))
    assert message.endswith("speech distill MODEL")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"hours": 0}, {"segment_seconds": 1}, {"look_ahead_seconds": 2}]
)
def test_a_plan_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match="must"):
        StreamPlan(**changes)


def test_streams_on_an_accelerator_have_the_frames_of_librosa():
    features = dataclasses.replace(tiny.FEATURES, clip_seconds=2.0)
    sound = np.random.default_rng(0).normal(0, 0.1, (2, 2 * RATE)).astype(np.float32)
    frames = keras.ops.convert_to_numpy(_accelerated_mfcc(features)(sound))
    np.testing.assert_allclose(frames, stream_mfcc(sound, features), atol=2e-3)


def test_an_accelerator_trains_on_the_same_batches(data, teacher, tmp_path, monkeypatch):
    config = tiny.config(
        epochs=1, epoch_clips=8, batch_size=4, architecture=STUDENT, word_loss=0.0,
        label_smoothing=0.0, n_backgrounds=8,
    )  # fmt: skip
    plan = StreamPlan(hours=0.01, segment_seconds=4)
    losses = []
    for number, accelerated in enumerate((False, True)):
        monkeypatch.setattr(distillation, "has_accelerator", accelerated.__bool__)
        distill(data, teacher, config, plan, tmp_path / str(number))
        (row,) = json.loads((tmp_path / str(number) / "history.json").read_text())
        losses.append(row["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_of_commands_said_close_together_the_last_one_counts(teacher):
    clip = teacher.features.clip_seconds
    said = [
        Said(0.1 * clip, 0.4 * clip, LABELS.index("low")),
        Said(0.5 * clip, 0.9 * clip, LABELS.index("high")),
    ]
    answers = np.full((2, 4), 0.25)
    first, second = corrected(answers, said, np.array([0.6, 1.0]) * clip, teacher, 0.5)
    assert first[LABELS.index("low")] >= 0.5
    assert second[LABELS.index("high")] >= 0.5
    assert second[LABELS.index("low")] == 0.125
