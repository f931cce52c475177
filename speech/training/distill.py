"""Distillation of a causal student: it learns to say at every step what its teacher says of a clip.

The loop, the optimizer and the checkpoint are those of ``speech.training.trainer``; what differs is
the batches (``speech.training.streams``, augmented anew in every epoch) and what chooses the epoch:
how many steps are answered
rightly in streams of the validation speakers.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from speech.architecture import Causality
from speech.environment import command_line
from speech.errors import ModelError
from speech.features import FeatureConfig, mfcc
from speech.files import write_json
from speech.formats.folder import ModelFolder
from speech.labels import SILENCE
from speech.model import CommandModel, save_model
from speech.recognizer import Recognizer
from speech.training.augment import Augmenter
from speech.training.batches import Batch
from speech.training.config import TrainConfig
from speech.training.front_end import make_mfcc
from speech.training.network import TrainingModel
from speech.training.ops import Tensor, compiled, has_accelerator
from speech.training.provenance import provenance
from speech.training.rooms import make_rooms
from speech.training.sources import TrainingData
from speech.training.streams import StreamPlan, Streams, make_streams, silence_target
from speech.training.trainer import Report, RunState, compile_model, run_epochs

_ROOM_WORDS = 4_000  # clips whose pauses and babble make rooms
_VALIDATION_SHARE = 0.05  # of the hours of the plan
_ADAPT_BATCHES = 8


class StreamSource:
    """Draws the batches of an epoch from streams; each is decided by (seed, epoch, number).

    Args:
        streams: What there is to draw from.
        labels: The classes.
        data: Lends noise, and words whose pauses are rooms.
        config: The recipe: ``epoch_clips`` and ``batch_size`` count streams.
        plan: How long a stream is.
    """

    def __init__(
        self,
        streams: Streams,
        labels: Sequence[str],
        data: TrainingData,
        config: TrainConfig,
        plan: StreamPlan,
    ) -> None:
        self.config = config
        self._features = dataclasses.replace(config.features, clip_seconds=plan.segment_seconds)
        first = data.words[0]
        sample = np.sort(
            np.random.default_rng([config.seed, 2]).permutation(first.rows)[:_ROOM_WORDS]
        )
        rooms = make_rooms(
            self._features,
            data.noise,
            np.asarray(first.recordings.samples[sample]),
            config.seed,
            n_synthetic=config.n_backgrounds,
        )
        self._augmenter = Augmenter(config.augment, self._features, rooms)
        self._waveforms = compiled(self._augmenter.waveforms)
        self._cepstra = compiled(self._augmenter.cepstra)
        self._silence = silence_target(labels) if SILENCE in labels else None
        self.fill = np.zeros(config.features.n_mfcc, np.float32)
        self._mfcc = _accelerated_mfcc(self._features) if has_accelerator() else None
        self._hold(streams)

    def _hold(self, streams: Streams) -> None:
        self._streams = streams
        self._samples: Tensor = streams.waveforms
        if self._mfcc is not None:
            self._samples = keras.ops.convert_to_tensor(streams.waveforms)

    def like(self, streams: Streams) -> "StreamSource":
        """The same rooms and microphones for other streams."""
        other = copy.copy(self)
        other._hold(streams)
        return other

    def steps(self) -> int:
        """Batches in an epoch; the last, smaller one is left out."""
        return self.config.epoch_clips // self.config.batch_size

    def batches(self, epoch: int, parts: Sequence[int] | None = None) -> Iterator[Batch]:
        """The batches of an epoch, in an order of its own; ``parts`` has no effect."""
        del parts
        rng = np.random.default_rng([self.config.seed, epoch, 0])
        count, size = len(self._streams.waveforms), self.config.batch_size
        order = np.concatenate(
            [rng.permutation(count) for _ in range(-(-self.config.epoch_clips // count))]
        )
        for step in range(self.steps()):
            rows = np.sort(order[step * size : (step + 1) * size])
            yield self.batch(rows, np.random.default_rng([self.config.seed, epoch, 1, step]))

    def batch(self, rows: np.ndarray[Any, Any], rng: np.random.Generator) -> Batch:
        """Some of the streams, augmented: MFCC, and targets (batch, n_steps, n_classes)."""
        seeds = rng.integers(2**31, size=2).astype(np.uint32)
        silent = np.zeros(len(rows), np.float32)
        targets = self._streams.targets[rows].astype(np.float32)
        if self._silence is not None:
            silent[rng.random(len(rows)) < self.config.silence_share] = 1
            targets[silent > 0] = self._silence
        tables, spans = self._augmenter.tables, self._streams.spans[rows]
        if self._mfcc is not None:
            clips = keras.ops.take(self._samples, rows, axis=0)
            waveforms, stretch = self._waveforms(tables, clips, spans, silent, seeds[0])
            features = self._mfcc(waveforms)
        else:
            clips = self._samples[rows]
            waveforms, stretch = self._waveforms(tables, clips, spans, silent, seeds[0])
            features = stream_mfcc(keras.ops.convert_to_numpy(waveforms), self._features)
        features = self._cepstra(tables, features, stretch, self.fill, seeds[1])
        return Batch(features, targets, np.full(len(rows), -1, np.int32))


def stream_mfcc(
    waveforms: np.ndarray[Any, np.dtype[np.float32]], features: FeatureConfig
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """MFCC of whole streams that silence comes before: a frame ends with every hop.

    Args:
        waveforms: float32 (batch, n).
        features: The preprocessing.

    Returns:
        float32 (batch, n // hop_length, n_mfcc).
    """
    return mfcc(np.pad(waveforms, ((0, 0), (features.n_fft - features.hop_length, 0))), features)


def _accelerated_mfcc(features: FeatureConfig) -> Callable[[Tensor], Tensor]:
    """``stream_mfcc`` of streams of one length, as array code."""
    before = features.n_fft - features.hop_length
    longer = features.clip_seconds + before / features.sample_rate
    whole = make_mfcc(dataclasses.replace(features, clip_seconds=longer))
    return compiled(lambda waveforms: whole(keras.ops.pad(waveforms, ((0, 0), (before, 0)))))


def distill(
    data: TrainingData,
    teacher: Recognizer,
    config: TrainConfig,
    plan: StreamPlan,
    run: Path,
    *,
    resume: bool = False,
    report: Report = lambda _: None,
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> CommandModel:
    """Train a causal student in a folder of its own, as ``trainer.train`` does a teacher.

    Args:
        data: The decoded sources.
        teacher: The model to learn from; its labels are the student's.
        config: The recipe; its architecture is causal.
        plan: The streams.
        run: The folder of the run, created if needed.
        resume: Go on from the checkpoint in ``run``, if there is one.
        report: As for ``trainer.train``.
        on_progress: Told how many streams of how many are built.

    Returns:
        The model of the best epoch.

    Raises:
        ModelError: An architecture that is not causal, features of another rate than the teacher's,
            or as ``trainer.train``.
    """
    architecture, features = config.architecture, config.features
    if not architecture.causal or features.sample_rate != teacher.features.sample_rate:
        raise ModelError(
            f"expected a causal architecture at {teacher.features.sample_rate} Hz, got "
            f"causal={architecture.causal} at {features.sample_rate} Hz; change the recipe"
        )
    run.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    step_seconds = architecture.step_hops * features.hop_seconds
    streams = make_streams(
        data,
        teacher,
        plan,
        step_seconds,
        teacher_share=config.teacher_share,
        seed=config.seed,
        on_progress=on_progress,
    )
    source = StreamSource(streams, teacher.labels, data, config, plan)
    validation = _validation(data, teacher, plan, step_seconds, source, config)
    model = _student(teacher, config, plan, provenance(data))
    _normalize(model, source)
    whole = TrainingModel(model, 0)
    state = RunState(whole, compile_model(whole, config, source.steps()), run, config)
    if resume:
        state.restore()
    write_json(ModelFolder(run).config, config.to_dict() | {"labels": list(teacher.labels)})
    run_epochs(state, source, lambda: _validate(model, validation), report)
    model.provenance["parameters"] = model.count_params()
    save_model(model, ModelFolder(run).keras)
    return model


def _student(
    teacher: Recognizer, config: TrainConfig, plan: StreamPlan, origin: Mapping[str, Any]
) -> CommandModel:
    """The network to train, which says where it comes from."""
    return CommandModel(
        teacher.labels,
        config.features,
        config.architecture,
        causality=Causality(config.architecture.step_hops, plan.look_ahead_seconds),
        provenance={
            **origin,
            "seed": config.seed,
            "train": config.to_dict(),
            "streams": plan.to_dict(),
            "teacher": {"name": teacher.name, **_origin(teacher)},
            "backend": keras.backend.backend(),
            "command": command_line(),
        },
    )


def _origin(teacher: Recognizer) -> dict[str, Any]:
    """By what a teacher can be told from others of its name."""
    known = teacher.provenance
    return {key: known[key] for key in ("corpus", "code", "command") if key in known}


def _normalize(model: CommandModel, source: StreamSource) -> None:
    """Take mean and variance of the first batches; masked places become the mean."""
    first = [b.features for _, b in zip(range(_ADAPT_BATCHES), source.batches(0), strict=False)]
    frames = np.concatenate([keras.ops.convert_to_numpy(batch) for batch in first])
    model.normalization.adapt(frames)
    source.fill = frames.mean(axis=(0, 1))


def _validation(
    data: TrainingData,
    teacher: Recognizer,
    plan: StreamPlan,
    step_seconds: float,
    source: StreamSource,
    config: TrainConfig,
) -> list[Batch]:
    """Streams of the validation speakers, and of no other source, augmented once."""
    clips = data.recordings.corpus.clips
    theirs = [i for i, clip in enumerate(clips) if clip.split == "validation"]
    rows = [np.array(theirs, np.int64), *(words.rows[:0] for words in data.words[1:])]
    size = config.batch_size
    hours = max(plan.hours * _VALIDATION_SHARE, size * plan.segment_seconds / 3600)
    smaller = dataclasses.replace(plan, hours=hours)
    streams = make_streams(
        data,
        teacher,
        smaller,
        step_seconds,
        teacher_share=config.teacher_share,
        seed=config.seed + 1,
        rows=rows,
    )
    held = source.like(streams)
    firsts = range(0, len(streams.waveforms) - size + 1, size)
    return [
        held.batch(np.arange(first, first + size), np.random.default_rng([config.seed, 7, first]))
        for first in firsts
    ]


def _validate(model: CommandModel, batches: Sequence[Batch]) -> dict[str, float]:
    losses, right = [], []
    for batch in batches:
        logits = keras.ops.convert_to_numpy(model.steps(batch.features)).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        losses.append(-np.mean(np.sum(batch.labels * logits, axis=-1)))
        right.append(np.mean(logits.argmax(axis=-1) == batch.labels.argmax(axis=-1)))
    return {"val_loss": float(np.mean(losses)), "val_accuracy": float(np.mean(right))}
