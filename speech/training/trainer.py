"""Training: one plain loop that can be killed at any moment and goes on to the same result."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from speech.data.evaluation_set import ClipSet, calibration_half, evaluation_set
from speech.data.recordings import ContinuousSpeech, Recordings
from speech.errors import ModelError
from speech.evaluation.metrics import fit_temperature
from speech.features import mfcc
from speech.files import replacing, write_json
from speech.formats.folder import ModelFolder
from speech.labels import LabelSet
from speech.model import CommandModel, save_model
from speech.training.batches import ClipSource, prefetch
from speech.training.config import TrainConfig
from speech.training.provenance import provenance

Report = Callable[[Mapping[str, Any]], None]


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
    write_json(ModelFolder(run).config, config.to_dict() | {"labels": list(labels.labels)})
    features = mfcc(validation.waveforms, config.features)
    log = _tensorboard_writer(tensorboard)
    while len(state.history) < config.epochs and state.epochs_since_best() < config.patience:
        row = _one_epoch(state, source, report)
        with state.averaged():
            row |= _validate(model, features, validation)
            state.history.append(row)
            if state.epochs_since_best() == 0:
                state.keep_best()
        state.save()
        write_json(ModelFolder(run).history, state.history)
        report(row)
        log(row)
    state.load_best()
    half = calibration_half(validation.names)
    logits = predict_logits(model, features[half])
    model.temperature = fit_temperature(logits, validation.truth[half])
    model.provenance["parameters"] = model.count_params()
    save_model(model, ModelFolder(run).keras)
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
        schedule,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
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
                "lower the learning rate, or resume from the last epoch with another seed"
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
        self.path = ModelFolder(run).checkpoint
        self.history: list[dict[str, Any]] = []
        self._best: list[npt.NDArray[Any]] = []

    def _key(self) -> str:
        data = self.model.provenance["corpus"], self.model.provenance["speech"]
        return json.dumps([self.config.to_dict(), self.model.labels, data], sort_keys=True)

    def epochs_since_best(self) -> int:
        scores = [(row["val_accuracy"], -row["val_loss"]) for row in self.history]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average stands in for the weights, where the recipe wants one."""
        if not self.config.ema:
            yield
            return
        weights = self.model.trainable_variables
        raw = [keras.ops.convert_to_numpy(v) for v in weights]
        self.optimizer.finalize_variable_values(weights)
        yield
        for variable, value in zip(weights, raw, strict=True):
            variable.assign(value)

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
                    "config, label set or corpus; use the same options, or another folder"
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
