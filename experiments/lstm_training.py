"""Small networks, trained by one short recipe, for docs/lstm.md; experiments/lstm_page.py asks.

Each reads 49 frames of 20 MFCC, one layer of 48 units in one direction, and answers from its last
state only: so the gradient has to come all the way back.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from speech.features import FeatureConfig

Array = npt.NDArray[Any]

FEATURES = FeatureConfig(hop_seconds=0.02, n_mels=40, n_mfcc=20)
UNITS, EPOCHS, BATCH, RATE, CLIP = 48, 15, 64, 0.005, 1.0
FORECAST_UNITS, FORECAST_EPOCHS, HORIZONS = 64, 8, 10


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network of the comparison.

    Attributes:
        cell: "LSTM" or "SimpleRNN".
        clip: The global norm that gradients are clipped to; None for as they are.
        forget_bias: Whether the bias of the forget gate begins at one.
        recurrent: What the recurrent kernel begins with: as Keras names it, or a deviation.
    """

    cell: str = "LSTM"
    clip: float | None = CLIP
    forget_bias: bool = True
    recurrent: str | float = "orthogonal"


VARIANTS = {
    "LSTM": Variant(),
    "plain tanh RNN": Variant("SimpleRNN"),
    "LSTM, badly initialized": Variant(recurrent=1.0, forget_bias=False),
    "LSTM, no clipping": Variant(clip=None),
    "LSTM, no forget bias": Variant(forget_bias=False),
    "LSTM, recurrent kernel not orthogonal": Variant(recurrent=0.05),
    "plain tanh RNN, no clipping": Variant("SimpleRNN", clip=None),
}


def train_small(
    variant: Variant, train: tuple[Array, Array], test: tuple[Array, Array], seed: int
) -> dict[str, Any]:
    """Train one network, and follow its gradients.

    Args:
        variant: The network.
        train: Normalized MFCC float32 (n, n_frames, n_mfcc) and classes int (n,).
        test: The same of other speakers.
        seed: Of weights and order.
    """
    keras.utils.set_random_seed(seed)
    recurrent: Any = variant.recurrent
    if not isinstance(recurrent, str):
        recurrent = keras.initializers.RandomNormal(stddev=recurrent)
    more: dict[str, Any] = {}
    if variant.cell == "LSTM":
        more["unit_forget_bias"] = variant.forget_bias
    layer = getattr(keras.layers, variant.cell)(UNITS, recurrent_initializer=recurrent, **more)
    dense = keras.layers.Dense(int(train[1].max()) + 1)
    model = keras.Sequential([keras.Input(train[0].shape[1:]), layer, dense])
    optimizer = keras.optimizers.Adam(RATE, global_clipnorm=variant.clip)
    optimizer.build(model.trainable_variables)
    before = gradient_by_step(layer.cell, dense, *test)
    norms = fit(model, optimizer, _classification, train, EPOCHS, seed)
    right = int((model.predict(test[0], verbose=0).argmax(axis=1) == test[1]).sum())
    return {
        "accuracy": right / len(test[1]),
        "largest_norm": float(norms.max()),
        "clipped": float((norms > CLIP).mean()),
        "before": before,
        "after": gradient_by_step(layer.cell, dense, *test),
    }


def fit(
    model: keras.Model,
    optimizer: Any,
    loss_of: Callable[[Any, Any], Any],
    data: tuple[Array, Array],
    epochs: int,
    seed: int,
) -> Array:
    """Train, and give the norm of each step's gradient before it was clipped, float (n_steps,)."""

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return tf.linalg.global_norm(gradients)

    order = np.random.default_rng(seed)
    norms: list[float] = []
    for _ in range(epochs):
        rows = order.permutation(len(data[0]))
        for batch in np.split(rows[: len(rows) // BATCH * BATCH], len(rows) // BATCH):
            norm = step(tf.constant(data[0][batch]), tf.constant(data[1][batch]))
            norms.append(float(norm))
    return np.array(norms)


def gradient_by_step(cell: Any, dense: Any, x: Array, y: Array) -> list[float]:
    """The norm of the loss's gradient with respect to the state after each step, clips' mean.

    The state is the memory cell of an LSTM, the hidden state of a plain cell: what is handed on.
    The loss is that of the last step.
    """
    x, y = x[:256], y[:256]
    carried = []
    with tf.GradientTape() as tape:
        states = cell.get_initial_state(batch_size=len(x))
        for t in range(x.shape[1]):
            output, states = cell(tf.constant(x[:, t]), states)
            carried.append(states[-1])
        loss = _classification(tf.constant(y), dense(output)) * len(x)
    gradients = tape.gradient(loss, carried)
    return [float(np.linalg.norm(g.numpy(), axis=1).mean()) for g in gradients]


def forecast(train: Array, test: Array, seed: int) -> dict[str, list[float]]:
    """Train an LSTM to foresee the next frames, and compare it with naive forecasts.

    From the hidden state at a frame a linear layer says by how much each of the next ten frames
    will differ from this one.

    Args:
        train: Normalized MFCC float32 (n, n_frames, n_mfcc).
        test: The same of other speakers.
        seed: Of weights and order.

    Returns:
        The root of the mean squared error at the horizons of 1 to 10 frames, in standard
        deviations of a coefficient, by what foresees: ``LSTM``, ``last value`` and ``mean``.
    """
    keras.utils.set_random_seed(seed)
    n_mfcc = train.shape[2]
    model = keras.Sequential(
        [
            keras.Input((None, n_mfcc)),
            keras.layers.LSTM(FORECAST_UNITS, return_sequences=True),
            keras.layers.Dense(HORIZONS * n_mfcc, kernel_initializer="zeros"),
        ]
    )
    optimizer = keras.optimizers.Adam(RATE, global_clipnorm=CLIP)
    optimizer.build(model.trainable_variables)

    def squared(y: Any, predicted: Any) -> Any:
        return tf.reduce_mean(tf.square(y - predicted))

    known = slice(0, train.shape[1] - HORIZONS)
    fit(model, optimizer, squared, (train[:, known], _changes(train)), FORECAST_EPOCHS, seed)
    changes = _changes(test)
    predicted = model.predict(test[:, known], verbose=0)
    shape = (*changes.shape[:2], HORIZONS, n_mfcc)
    current = np.repeat(test[:, known, np.newaxis], HORIZONS, axis=2)
    errors = {
        "LSTM": (changes - predicted).reshape(shape),
        "last value": changes.reshape(shape),
        "mean": changes.reshape(shape) + current,
    }
    return {
        name: [float(e) for e in np.sqrt((error**2).mean(axis=(0, 1, 3)))]
        for name, error in errors.items()
    }


def _changes(frames: Array) -> Array:
    """(n, n_frames, n_mfcc) -> (n, n_frames - 10, 10 * n_mfcc), the change to each frame ahead."""
    n = frames.shape[1] - HORIZONS
    ahead = [frames[:, h : h + n] - frames[:, :n] for h in range(1, HORIZONS + 1)]
    return np.concatenate(ahead, axis=2)


def _classification(y: Any, logits: Any) -> Any:
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(y, tf.int32), logits=logits)
    )
