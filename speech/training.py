"""Training: one plain loop that can be killed at any moment and goes on to the same result."""

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from speech.augment import AugmentConfig, Augmenter
from speech.corpus import (
    UNKNOWN,
    ClipSet,
    ContinuousSpeech,
    LabelSet,
    Recordings,
    calibration_half,
    draw_evenly,
    evaluation_set,
    indices_by_word,
    to_float,
)
from speech.errors import ModelError
from speech.evaluation import fit_temperature
from speech.features import FeatureConfig, check_fields, mfcc
from speech.files import replacing, write_json
from speech.model import Architecture, CommandModel, save_model
from speech.provenance import provenance

T = TypeVar("T")
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Report = Callable[[Mapping[str, Any]], None]

CHECKPOINT, HISTORY, MODEL = "checkpoint.npz", "history.json", "model.keras"
_SILENT, _SPOKEN = -1, -2  # in a plan: no clip, but silence, or a window of continuous speech


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The recipe of a training run.

    Attributes:
        seed: Decides initial weights, order, augmentation and dropout.
        epochs: Number of epochs; the learning rate falls to nearly zero at the last.
        epoch_clips: Clips in an epoch (the corpus is drawn from, not passed through).
        batch_size: Clips in a step.
        learning_rate: Peak of the learning rate, reached after the warm-up.
        warmup_epochs: Length of the linear warm-up.
        weight_decay: Decoupled weight decay (AdamW, Loshchilov and Hutter, arXiv 1711.05101).
        clip_norm: The gradient is scaled down to this global norm (Pascanu et al., 2013).
        label_smoothing: Share of the target spread over all classes.
        unknown_share: Share of unknown among the clips of an epoch.
        silence_share: Share of silence.
        speech_share: Share of windows of continuous speech among unknown, where there is such.
        balanced: Draw every word equally often; else as often as the corpus has it.
        patience: Stop when the validation accuracy has not risen for so many epochs.
        explosion: Stop with an error when the gradient's norm before clipping exceeds this.
        features: The preprocessing.
        architecture: The network.
        augment: The augmentation.
    """

    seed: int = 1
    epochs: int = 70
    epoch_clips: int = 16_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    label_smoothing: float = 0.05
    unknown_share: float = 0.2
    silence_share: float = 0.1
    speech_share: float = 0.4
    balanced: bool = True
    patience: int = 30
    explosion: float = 1e4
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-able dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "TrainConfig":
        """The inverse of ``to_dict``; ValueError names unknown and missing fields."""
        known = check_fields(cls, fields)
        known["features"] = FeatureConfig.from_dict(known["features"])
        known["architecture"] = Architecture.from_dict(known["architecture"])
        known["augment"] = AugmentConfig.from_dict(known["augment"])
        return cls(**known)


@keras.saving.register_keras_serializable(package="speech")
class MonitoredAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW that remembers the global norm of the last gradient, before it was clipped."""

    def build(self, variables: list[Any]) -> None:
        """Create the slots and the remembered norm."""
        super().build(variables)
        self.gradient_norm = self.add_variable(shape=(), name="gradient_norm")

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Remember the norm, then step."""
        if not self.built:
            self.build(list(trainable_variables or ()))
        squares = [keras.ops.sum(keras.ops.square(g)) for g in grads if g is not None]
        self.gradient_norm.assign(keras.ops.sqrt(sum(squares)))
        super().apply(grads, trainable_variables)


class ClipSource:
    """Draws the batches of an epoch; every batch is decided by (seed, epoch, number).

    Args:
        recordings: The decoded corpus; only clips of the training split are touched.
        labels: The classes.
        config: The recipe.
        speech: Continuous speech, windows of which join the unknown words.
    """

    def __init__(
        self,
        recordings: Recordings,
        labels: LabelSet,
        config: TrainConfig,
        speech: ContinuousSpeech | None = None,
    ) -> None:
        self.recordings = recordings
        self.speech = speech
        self.labels = labels
        self.config = config
        by_word = indices_by_word(recordings.corpus, "train")
        self._words = [by_word.pop(word, np.zeros(0, np.int64)) for word in labels.words]
        self._others = list(by_word.values())
        empty = [w for w, clips in zip(labels.words, self._words, strict=True) if not len(clips)]
        if empty or (labels.unknown and not self._others and speech is None):
            raise ModelError(
                f"{recordings.corpus.root}: expected training clips of every word, got none of "
                f"{', '.join(empty or [UNKNOWN])}; choose other --labels or add recordings"
            )
        noise = recordings.noise_part("train")
        self.augmenter = Augmenter(config.augment, config.features, noise, config.seed)
        self.fill = np.zeros(config.features.n_mfcc, np.float32)

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *place])

    def plan(self, epoch: int) -> npt.NDArray[np.int64]:
        """The clips of an epoch in order: int64 (n, 2) of (clip, label).

        Clip -1 is silence and -2 a window of continuous speech, drawn when the batch is made.
        """
        config, rng = self.config, self._generator(epoch, 0)
        n_silence = round(config.epoch_clips * config.silence_share) * self.labels.silence
        n_unknown = round(config.epoch_clips * config.unknown_share) * self.labels.unknown
        sizes = np.array([len(clips) for clips in self._words], float)
        shares = np.ones(len(sizes)) if config.balanced else sizes
        counts = np.round(shares / shares.sum() * (config.epoch_clips - n_silence - n_unknown))
        drawn = [
            np.resize(np.concatenate([rng.permutation(c) for _ in range(int(n // len(c)) + 1)]), n)
            for c, n in zip(self._words, counts.astype(int), strict=True)
        ]
        if self.labels.unknown:
            share = config.speech_share if self._others else 1.0
            n_spoken = round(n_unknown * share) * (self.speech is not None)
            words = draw_evenly(self._others, n_unknown - n_spoken, rng)
            drawn.append(np.concatenate([words, np.full(n_spoken, _SPOKEN)]))
        if self.labels.silence:
            drawn.append(np.full(n_silence, _SILENT))
        label = np.repeat(np.arange(len(drawn)), [len(d) for d in drawn])
        return rng.permutation(np.stack([np.concatenate(drawn), label], axis=1))

    def steps(self) -> int:
        """Batches in an epoch; the last, smaller one is left out."""
        return len(self.plan(0)) // self.config.batch_size

    def batches(self, epoch: int) -> Iterator[Batch]:
        """MFCC (batch, n_frames, n_mfcc) and one-hot labels (batch, n_classes), float32."""
        size = self.config.batch_size
        plan = self.plan(epoch)
        one_hot = np.eye(len(self.labels.labels), dtype=np.float32)
        for step in range(self.steps()):
            rows = plan[step * size : (step + 1) * size]
            yield self._features(rows[:, 0], self._generator(epoch, 1, step)), one_hot[rows[:, 1]]

    def _features(
        self, clips: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        silent, spoken = clips == _SILENT, clips == _SPOKEN
        n_samples = self.config.features.n_samples
        samples = np.empty((len(clips), n_samples), np.int16)
        samples[clips >= 0] = self.recordings.samples[clips[clips >= 0]]
        if self.speech is not None and spoken.any():
            windows = sliding_window_view(self.speech.samples, n_samples)
            samples[spoken] = windows[rng.integers(len(windows), size=spoken.sum())]
        waveforms = np.empty(samples.shape, np.float32)
        waveforms[~silent] = self.augmenter.waveforms(to_float(samples[~silent]), rng)
        waveforms[silent] = self.augmenter.silence(int(silent.sum()), rng)
        return self.augmenter.cepstra(mfcc(waveforms, self.config.features), self.fill, rng)


def prefetch(items: Iterable[T], depth: int = 8) -> Generator[T, None, None]:
    """The same items, made ahead by a thread, so that the network does not wait for them."""
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        end: tuple[None, BaseException | None, bool] = (None, None, True)
        try:
            for item in items:
                ready.put((item, None, False))
                if stopped.is_set():
                    return
        except BaseException as error:  # handed over, not swallowed
            end = (None, error, True)
        ready.put(end)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while True:
            item, error, is_end = ready.get()
            if error is not None:
                raise error
            if is_end:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        while worker.is_alive():  # it may wait for a free place
            while not ready.empty():
                ready.get_nowait()
            worker.join(0.01)


def train(
    recordings: Recordings,
    labels: LabelSet,
    config: TrainConfig,
    run: Path,
    *,
    speech: ContinuousSpeech | None = None,
    resume: bool = False,
    report: Report = lambda _: None,
    tensorboard: Path | None = None,
    command: str = "",
) -> CommandModel:
    """Train a model in a folder of its own.

    The folder receives ``config.json``, ``history.json``, ``checkpoint.npz`` (after every epoch:
    weights, optimiser and history, so that a killed run resumes exactly) and ``model.keras``: the
    best epoch on the validation speakers, with the temperature that half of them call for. Every
    file is written under another name and renamed.

    Args:
        recordings: The decoded corpus.
        labels: The classes.
        config: The recipe.
        run: The folder of the run, created if needed.
        speech: Continuous speech without the words, for the unknown.
        resume: Go on from the checkpoint in ``run``, if there is one.
        report: Told after every step ``{"epoch", "step", "steps"}`` and after every epoch the row
            of the history.
        tensorboard: Also write TensorBoard event files here.
        command: The command line, for the provenance.

    Returns:
        The model of the best epoch.

    Raises:
        ModelError: The gradient exploded, or the checkpoint belongs to another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    source = ClipSource(recordings, labels, config, speech)
    validation = evaluation_set(recordings, labels)
    model = CommandModel(
        labels.labels,
        config.features,
        config.architecture,
        provenance={
            **provenance(recordings, speech),
            "label_set": labels.name,
            "seed": config.seed,
            "train": config.to_dict(),
            "backend": keras.backend.backend(),
            "command": command,
        },
    )
    first = np.concatenate([x for _, (x, _) in zip(range(16), source.batches(0), strict=False)])
    model.normalization.adapt(first)
    source.fill = first.mean(axis=(0, 1))
    state = _RunState(model, compile_model(model, config, source.steps()), run, config)
    if resume:
        state.restore()
    write_json(run / "config.json", config.to_dict() | {"labels": list(labels.labels)})
    features = mfcc(validation.waveforms, config.features)
    log = _tensorboard_writer(tensorboard)
    while len(state.history) < config.epochs and state.epochs_since_best() < config.patience:
        row = _one_epoch(state, source, report)
        row |= _validate(model, features, validation)
        state.history.append(row)
        if state.epochs_since_best() == 0:
            state.keep_best()
        state.save()
        write_json(run / HISTORY, state.history)
        report(row)
        log(row)
    state.load_best()
    half = calibration_half(validation.names)
    logits = predict_logits(model, features[half])
    model.temperature = fit_temperature(logits, validation.truth[half])
    model.provenance["parameters"] = model.count_params()
    save_model(model, run / MODEL)
    return model


def compile_model(model: CommandModel, config: TrainConfig, steps: int) -> MonitoredAdamW:
    """Give a model the optimiser, schedule and loss of the recipe.

    AdamW, linear warm-up, then a cosine down to a thousandth (Loshchilov and Hutter, arXiv
    1608.03983); biases and the scales of batch normalisation are not decayed.
    """
    warmup = round(config.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=config.learning_rate * 1e-2,
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, config.epochs * steps - warmup),
        alpha=1e-3,
    )
    optimizer = MonitoredAdamW(
        schedule, weight_decay=config.weight_decay, global_clipnorm=config.clip_norm
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing
    )
    model.compile(optimizer, loss=loss, metrics=["accuracy"])
    return optimizer


def _one_epoch(state: "_RunState", source: ClipSource, report: Report) -> dict[str, Any]:
    epoch, steps = len(state.history), source.steps()
    started, waited = time.perf_counter(), 0.0
    losses, accuracies, norms = [], [], []
    batches = iter(prefetch(source.batches(epoch)))
    for step in range(steps):
        asked = time.perf_counter()
        x, y = next(batches)
        waited += time.perf_counter() - asked
        logs = state.model.train_on_batch(x, y, return_dict=True)
        losses.append(float(logs["loss"]))
        accuracies.append(float(logs["accuracy"]))
        norms.append(float(keras.ops.convert_to_numpy(state.optimizer.gradient_norm)))
        if not (np.isfinite(losses[-1]) and norms[-1] <= state.config.explosion):
            raise ModelError(
                f"the gradient exploded in epoch {epoch + 1}, step {step + 1}: expected a norm of "
                f"at most {state.config.explosion:g}, got {norms[-1]:g} (loss {losses[-1]:g}); "
                "lower --learning-rate, or --resume from the last epoch with another --seed"
            )
        report({"epoch": epoch, "step": step + 1, "steps": steps})
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "loss": float(np.mean(losses)),
        "accuracy": float(np.mean(accuracies)),
        "learning_rate": float(keras.ops.convert_to_numpy(state.optimizer.learning_rate)),
        "gradient_norm": float(np.mean(norms)),
        "gradient_norm_max": float(np.max(norms)),
        "seconds": seconds,
        "waiting": waited / seconds,
        "clips_per_second": steps * source.config.batch_size / seconds,
    }


def _validate(
    model: CommandModel, features: npt.NDArray[np.float32], clips: ClipSet
) -> dict[str, float]:
    logits = predict_logits(model, features).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return {
        "val_loss": float(-np.mean(log_probabilities[np.arange(len(clips.truth)), clips.truth])),
        "val_accuracy": float(np.mean(logits.argmax(axis=1) == clips.truth)),
    }


def predict_logits(
    model: CommandModel, features: npt.NDArray[np.float32], batch_size: int = 256
) -> npt.NDArray[np.float32]:
    """Logits (n, n_classes) of MFCC (n, n_frames, n_mfcc), dropout off."""
    rows = [
        keras.ops.convert_to_numpy(model.predict_on_batch(features[i : i + batch_size]))
        for i in range(0, len(features), batch_size)
    ]
    return np.concatenate(rows)


class _RunState:
    """All that a run has to remember from epoch to epoch, in one file."""

    def __init__(
        self, model: CommandModel, optimizer: MonitoredAdamW, run: Path, config: TrainConfig
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.path = run / CHECKPOINT
        self.history: list[dict[str, Any]] = []
        self._best: list[npt.NDArray[Any]] = []

    def _key(self) -> str:
        data = self.model.provenance["corpus"], self.model.provenance["speech"]
        return json.dumps([self.config.to_dict(), self.model.labels, data], sort_keys=True)

    def epochs_since_best(self) -> int:
        scores = [(row["val_accuracy"], -row["val_loss"]) for row in self.history]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def keep_best(self) -> None:
        self._best = [keras.ops.convert_to_numpy(v) for v in self.model.weights]

    def load_best(self) -> None:
        for variable, value in zip(self.model.weights, self._best, strict=True):
            variable.assign(value)

    def save(self) -> None:
        # model.variables holds the seeds of the dropout too: without them a resumed run differs
        variables = [*self.model.variables, *self.optimizer.variables]
        arrays = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        arrays |= {f"best{i}": value for i, value in enumerate(self._best)}
        with replacing(self.path) as part:
            np.savez(part, key=self._key(), history=json.dumps(self.history), **arrays)

    def restore(self) -> None:
        if not self.path.exists():
            return
        with np.load(self.path) as saved:
            if str(saved["key"]) != self._key():
                raise ModelError(
                    f"{self.path}: expected the checkpoint of this run, got one with another "
                    "config, label set or corpus; use the same options, or another --out"
                )
            self.history = json.loads(str(saved["history"]))
            self._best = [saved[f"best{i}"] for i in range(len(self.model.weights))]
            variables = [*self.model.variables, *self.optimizer.variables]
            for i, variable in enumerate(variables):
                variable.assign(saved[f"v{i}"])


def _tensorboard_writer(folder: Path | None) -> Callable[[Mapping[str, Any]], None]:
    if folder is None:
        return lambda _: None
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))

    def write(row: Mapping[str, Any]) -> None:
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        writer.flush()

    return write
