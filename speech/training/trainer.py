"""Training: one plain loop that can be killed at any moment and goes on to the same result."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from speech.audio import warn
from speech.data.evaluation_set import ClipSet, calibration_half, evaluation_set
from speech.environment import command_line
from speech.errors import ModelError
from speech.evaluation.metrics import fit_temperature
from speech.features import mfcc
from speech.files import replacing, write_json
from speech.formats.folder import ModelFolder
from speech.labels import LabelSet
from speech.model import CommandModel, load_model, save_model
from speech.training.batches import Batch, ClipSource, prefetch
from speech.training.config import TrainConfig
from speech.training.network import TrainingModel, fields_of, losses, make_teacher
from speech.training.ops import Tensor
from speech.training.parallel import my_parts
from speech.training.provenance import provenance
from speech.training.sources import TrainingData

Report = Callable[[Mapping[str, Any]], None]


class Source(Protocol):
    """What an epoch's batches come from: ``ClipSource`` or ``distill.StreamSource``."""

    config: TrainConfig

    def steps(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, parts: Sequence[int] | None = None) -> Iterator[Batch]:
        """The batches of an epoch."""


WORDS = "words.npz"  # the output that tells all words apart, beside the model


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
    data: TrainingData,
    labels: LabelSet,
    config: TrainConfig,
    run: Path,
    *,
    teachers: Sequence[CommandModel] = (),
    start_from: Path | None = None,
    resume: bool = False,
    report: Report = lambda _: None,
) -> CommandModel:
    """Train a model in a folder of its own.

    The folder receives ``config.json``, ``history.json``, ``checkpoint.npz`` (after every epoch:
    weights, optimizer and history, so that a killed run resumes exactly), ``words.npz`` (the
    output that tells all words apart, and its vocabulary) and ``model.keras``: the best epoch on
    the validation speakers, with the temperature that half of them call for. Every file is written
    under another name and renamed.

    Args:
        data: The decoded sources.
        labels: The classes.
        config: The recipe.
        run: The folder of the run, created if needed.
        teachers: Models whose mean answer is part of the target (distillation).
        start_from: A ``.keras`` file, or a folder with one, of the same labels, preprocessing and
            architecture, whose weights the training begins with.
        resume: Go on from the checkpoint in ``run``, if there is one; also with more epochs.
        report: Told after every step ``{"epoch", "step", "steps"}`` and after every epoch the row
            of the history.

    Returns:
        The model of the best epoch.

    Raises:
        ModelError: The gradient exploded, the checkpoint belongs to another run, or the
            architecture is causal (``distill``).
    """
    if config.architecture.causal:
        raise ModelError(
            "expected an architecture that is given clips, got a causal one, which learns from a "
            "teacher; train it with: speech distill MODEL"
        )
    run.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)
    source = ClipSource(data, labels, config)
    validation = evaluation_set(data.recordings, labels)
    model = CommandModel(
        labels.labels,
        config.features,
        config.architecture,
        provenance={
            **provenance(data),
            "label_set": labels.name,
            "seed": config.seed,
            "train": config.to_dict(),
            "backend": keras.backend.backend(),
            "command": command_line(),
            **_without_others(source),
        },
    )
    _begin(model, source, start_from)
    whole = TrainingModel(model, len(source.vocabulary) if config.word_loss else 0)
    _begin_words(whole, source, start_from)
    optimizer = compile_model(whole, config, source.steps())
    state = RunState(whole, optimizer, run, config)
    state.teacher = make_teacher(teachers, model.labels)
    if resume:
        state.restore()
    write_json(ModelFolder(run).config, config.to_dict() | {"labels": list(labels.labels)})
    features = mfcc(validation.waveforms, config.features)
    run_epochs(state, source, lambda: _validate(model, features, validation), report)
    _save_trained(state, validation, features, run)
    if whole.head is not None:
        projection, vectors = whole.embedding()
        with replacing(run / WORDS) as part:
            np.savez(part, projection=projection, vectors=vectors, words=source.vocabulary)
    return model


def _without_others(source: ClipSource) -> dict[str, str]:
    """What to say of a model that words alone have trained."""
    if not source.words_alone:
        return {}
    warn(
        "there are no other words and no speech to learn `unknown` from, so it is learned from "
        "pieces of the words, and other speech will be taken for them more often; add other words "
        "or speech, or teach the bundled model with: speech teach"
    )
    return {"unknown": "pieces of the words"}


def _save_trained(
    state: "RunState", validation: ClipSet, features: npt.NDArray[np.float32], run: Path
) -> None:
    """Save the model, then again with its temperature: nothing that fails leaves none."""
    model = state.model.commands
    model.provenance["parameters"] = model.count_params()
    save_model(model, ModelFolder(run).keras)
    half = calibration_half(validation.names)
    if half.any():
        logits = predict_logits(model, features[half])
        model.temperature = fit_temperature(logits, validation.truth[half])
        save_model(model, ModelFolder(run).keras)


def _begin(model: CommandModel, source: ClipSource, start_from: Path | None) -> None:
    """Normalize by the first batches, or take all weights of another model."""
    first = [b.features for _, b in zip(range(16), source.batches(0), strict=False)]
    features = np.concatenate([keras.ops.convert_to_numpy(batch) for batch in first])
    source.fill = features.mean(axis=(0, 1))
    if start_from is None:
        model.normalization.adapt(features)
        return
    file = ModelFolder(start_from).keras if start_from.is_dir() else start_from
    other = load_model(file)
    for name in ("labels", "features", "architecture"):
        if getattr(other, name) != getattr(model, name):
            raise ModelError(
                f"{file}: expected the {name} of this training, {getattr(model, name)}, got "
                f"{getattr(other, name)}; a model of other {name} cannot be trained on"
            )
    model.set_weights(other.get_weights())
    model.normalization.finalize_state()
    model.provenance["start_from"] = other.provenance


def _begin_words(whole: TrainingModel, source: ClipSource, start_from: Path | None) -> None:
    """Take the output that tells words apart, too, where another training left one of the same."""
    if whole.head is None or start_from is None or not (start_from / WORDS).is_file():
        return
    with np.load(start_from / WORDS) as other:
        if tuple(other["words"].tolist()) == source.vocabulary:
            whole.head.projection.set_weights([other["projection"]])
            whole.head.words.assign(other["vectors"])


def compile_model(model: TrainingModel, config: TrainConfig, steps: int) -> MonitoredAdamW:
    """Give a model the optimizer, schedule and loss of the recipe.

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
        use_ema=config.ema_momentum > 0,
        ema_momentum=config.ema_momentum or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        loss=fields_of(losses(config), model.names),
        loss_weights=fields_of({"labels": 1.0, "words": config.word_loss}, model.names),
        metrics={"labels": [keras.metrics.CategoricalAccuracy(name="accuracy")]},
    )
    return optimizer


def run_epochs(
    state: "RunState",
    source: Source,
    validate: Callable[[], Mapping[str, float]],
    report: Report,
) -> None:
    """Train for the epochs that are left; the model has the weights of the best one then.

    Args:
        state: What the run remembers; it is saved after every epoch, with the history beside it.
        source: The batches.
        validate: Measures the averaged weights: ``val_accuracy`` and ``val_loss``, which choose
            the best epoch.
        report: As for ``train``.

    Raises:
        ModelError: The gradient exploded.
    """
    config = state.config
    while len(state.history) < config.epochs and state.epochs_since_best() < config.patience:
        row = _one_epoch(state, source, report)
        with state.averaged():
            row |= validate()
            state.history.append(row)
            if state.epochs_since_best() == 0:
                state.keep_best()
        state.save()
        write_json(ModelFolder(state.path.parent).history, state.history)
        report(row)
    state.load_best()


def _one_epoch(state: "RunState", source: Source, report: Report) -> dict[str, Any]:
    """Train for an epoch; returns its row of the history.

    Raises:
        ModelError: The gradient exploded.
    """
    epoch, steps = len(state.history), source.steps()
    started, waited = time.perf_counter(), 0.0
    losses_, accuracies, norms = [], [], []
    batches = iter(prefetch(source.batches(epoch, my_parts(source.config.parts))))
    for step in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        targets = state.targets(batch)
        logs = state.model.train_on_batch(batch.features, targets, return_dict=True)
        losses_.append(float(logs["loss"]))
        accuracies.append(float(logs.get("labels_accuracy", logs.get("accuracy"))))
        norms.append(float(keras.ops.convert_to_numpy(state.optimizer.gradient_norm)))
        if not (np.isfinite(losses_[-1]) and norms[-1] <= state.config.max_gradient_norm):
            limit = state.config.max_gradient_norm
            raise ModelError(
                f"the gradient exploded in epoch {epoch + 1}, step {step + 1}: expected a norm of "
                f"at most {limit:g}, got {norms[-1]:g} (loss {losses_[-1]:g}); "
                "lower the learning rate, or go on from the last epoch with another seed"
            )
        report({"epoch": epoch, "step": step + 1, "steps": steps})
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "loss": float(np.mean(losses_)),
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
    rows = []
    for start in range(0, len(features), batch_size):
        batch = features[start : start + batch_size]
        filled = np.resize(batch, (batch_size, *batch.shape[1:]))  # one shape: compiled once
        rows.append(keras.ops.convert_to_numpy(model.predict_on_batch(filled))[: len(batch)])
    return np.concatenate(rows)


class RunState:
    """All that a run has to remember from epoch to epoch, in one file.

    Args:
        model: What trains.
        optimizer: What ``compile_model`` gave.
        run: The folder of the run.
        config: The recipe.
    """

    def __init__(
        self, model: TrainingModel, optimizer: MonitoredAdamW, run: Path, config: TrainConfig
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.teacher: Callable[[Tensor], Tensor] | None = None
        self.path = ModelFolder(run).checkpoint
        self.history: list[dict[str, Any]] = []
        self._best: list[npt.NDArray[Any]] = []

    def _key(self) -> str:
        model = self.model.commands
        config = self.config.to_dict()
        for name in ("epochs", "patience"):  # a run may be given more of them
            del config[name]
        fields = [config, model.labels, model.provenance["sources"]]
        return json.dumps(fields, sort_keys=True)

    def targets(self, batch: Batch) -> dict[str, Any]:
        """What the outputs should say of a batch; the teachers have a share of it."""
        labels: Tensor = batch.labels
        if self.teacher is not None:
            share = self.config.teacher_share
            labels = (1 - share) * labels + share * self.teacher(batch.features)
        return fields_of({"labels": labels, "words": batch.words}, self.model.names)

    def epochs_since_best(self) -> int:
        """How many epochs ago the best one was."""
        scores = [(row["val_accuracy"], -row["val_loss"]) for row in self.history]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving average stands in for the weights, where the recipe wants one."""
        if not self.config.ema_momentum:
            yield
            return
        weights = self.model.trainable_variables
        raw = [keras.ops.convert_to_numpy(v) for v in weights]
        self.optimizer.finalize_variable_values(weights)
        for variable in weights:  # JAX would share, and later free, the memory of the average
            variable.assign(keras.ops.convert_to_numpy(variable).copy())
        yield
        for variable, value in zip(weights, raw, strict=True):
            variable.assign(value)

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self._best = [keras.ops.convert_to_numpy(v) for v in self.model.weights]

    def load_best(self) -> None:
        """Take the weights of the best epoch."""
        for variable, value in zip(self.model.weights, self._best, strict=True):
            variable.assign(value)

    def save(self) -> None:
        """Write the checkpoint."""
        # model.variables holds the seeds of the dropout too: without them a resumed run differs
        variables = [*self.model.variables, *self.optimizer.variables]
        arrays = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        arrays |= {f"best{i}": value for i, value in enumerate(self._best)}
        with replacing(self.path) as part:
            np.savez(part, key=self._key(), history=json.dumps(self.history), **arrays)

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.path.exists():
            return
        with np.load(self.path) as saved:
            of_run = json.loads(str(saved["key"]))
            of_run[0].setdefault("parts", 1)  # runs from before batches had parts
            if of_run != json.loads(self._key()):
                raise ModelError(
                    f"{self.path}: expected the checkpoint of this run, got one with another "
                    "config, label set or corpus; use the same options, or another folder"
                )
            self.history = json.loads(str(saved["history"]))
            self._best = [saved[f"best{i}"] for i in range(len(self.model.weights))]
            variables = [*self.model.variables, *self.optimizer.variables]
            for i, variable in enumerate(variables):
                variable.assign(saved[f"v{i}"])


def tensorboard_writer(folder: Path) -> Report:
    """A ``report`` of ``train`` that writes TensorBoard event files."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))

    def write(row: Mapping[str, Any]) -> None:
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        writer.flush()

    return write
