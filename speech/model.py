"""The network: a stacked bidirectional LSTM over MFCC frames, with attention on top.

Of the family of Att-RNN (de Andrade et al., arXiv 1808.08929), with additive attention.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from speech import keras_file
from speech.architecture import (
    ATTENTION_UNITS,
    KERNEL,
    Architecture,
    Causality,
    NetworkConfig,
)
from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.files import replacing

__all__ = ["Architecture", "AttentionPooling", "CommandModel", "load_model", "save_model"]


@keras.saving.register_keras_serializable(package="speech")
class AttentionPooling(keras.layers.Layer):  # type: ignore[misc]
    """Weighted mean over time, with weights that the network learns.

    score_t = v . tanh(W h_t + b), softmax over t (additive attention with a learned query,
    Bahdanau et al., arXiv 1409.0473). Input (batch, n_frames, units), output (batch, units).
    """

    def __init__(self, units: int = ATTENTION_UNITS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.score = keras.layers.Dense(1, use_bias=False)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights for (batch, n_frames, units)."""
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))
        self.built = True

    def weights_over_time(self, states: Any) -> Any:
        """The attention itself: (batch, n_frames, 1), each clip summing to one."""
        return ops.softmax(self.score(self.hidden(states)), axis=1)

    def call(self, states: Any) -> Any:
        """(batch, n_frames, units) -> (batch, units)."""
        return ops.sum(self.weights_over_time(states) * states, axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="speech")
class CommandModel(keras.Model):  # type: ignore[misc]
    """MFCC in, logits out, with everything that inference has to know.

    The recurrent layers start as Keras's LSTM does, stated here since the craft depends on it:
    Glorot-uniform input kernels (Glorot and Bengio, 2010), orthogonal recurrent kernels (Saxe et
    al., arXiv 1312.6120), so that the state neither explodes nor vanishes in the first steps, and
    a forget-gate bias of one (Gers et al., 2000; Jozefowicz et al., 2015), so that the memory cell
    remembers before it has learned what to forget.

    Clips of varying length are padded with zeros, not masked: the corpus is padded so, the live
    window is never short, and docs/recipe.md holds the measurement.

    Args:
        labels: Names of the classes, in the order of the outputs.
        features: The preprocessing that the network was trained on.
        architecture: The shape of the network.
        temperature: Divides the logits before the softmax (Guo et al., arXiv 1706.04599).
        decoder: Settings of the live decoder that were chosen for this model.
        provenance: Where the model comes from: corpus digest, seed, versions, command.
        acceptance: For single commands the probability that a clip has to reach.
        causality: Of a causal architecture; by default one that looks ahead by nothing.

    Raises:
        ValueError: A field out of range; ``speech.architecture`` has the ranges.

    Calling it: float32 (batch, n_frames, n_mfcc) -> logits (batch, n_classes), of a causal network
    those after the last step. The number of frames is free, that of the coefficients is not.
    """

    def __init__(
        self,
        labels: Sequence[str],
        features: FeatureConfig,
        architecture: Architecture | None = None,
        *,
        temperature: float = 1.0,
        decoder: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        acceptance: Mapping[str, float] | None = None,
        causality: Causality | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)
        self.features = features
        self.architecture = architecture = architecture or Architecture()
        self.temperature = float(temperature)
        self.decoder = dict(decoder or {})
        self.provenance = dict(provenance or {})
        self.acceptance = dict(acceptance or {})
        if causality is None and architecture.causal:
            causality = Causality(architecture.step_hops)
        self.causality = causality
        self.config()  # checks the fields
        self.normalization = keras.layers.Normalization(axis=-1, name="normalization")
        self.conv_blocks = [
            layer
            for i, filters in enumerate(architecture.conv_filters)
            for layer in (
                keras.layers.Conv1D(
                    filters,
                    KERNEL,
                    strides=2,
                    padding="valid" if architecture.causal else "same",
                    use_bias=False,
                    name=f"conv_{i}",
                ),
                keras.layers.BatchNormalization(name=f"conv_norm_{i}"),
                keras.layers.ReLU(name=f"conv_relu_{i}"),
            )
        ]
        self.lstm_layers = [self._recurrent(i) for i in range(architecture.lstm_layers)]
        self.dropouts = [
            keras.layers.Dropout(architecture.dropout, name=f"dropout_{i}")
            for i in range(architecture.lstm_layers)
        ]
        self.pooling = (
            AttentionPooling(name="attention") if architecture.pooling == "attention" else None
        )
        self.pooled_dropout = keras.layers.Dropout(architecture.dropout, name="dropout_pooled")
        self.classifier = keras.layers.Dense(len(self.labels), name="logits")
        # built by itself, since it keeps tensors that the symbolic call would leave in its graph
        self.normalization.build((None, None, features.n_mfcc))
        # creates all other weights; JAX cannot tell whether an unknown length fits unpadded filters
        n_frames = features.n_frames if architecture.causal else None
        self(keras.KerasTensor((None, n_frames, features.n_mfcc)))

    def _recurrent(self, index: int) -> keras.layers.Layer:
        lstm = keras.layers.LSTM(
            self.architecture.lstm_units,
            return_sequences=True,
            kernel_initializer="glorot_uniform",
            recurrent_initializer="orthogonal",
            unit_forget_bias=True,
            name=f"lstm_{index}",
        )
        if self.architecture.bidirectional:
            return keras.layers.Bidirectional(lstm, name=f"bilstm_{index}")
        return lstm

    def call(self, mfcc: Any, training: bool | None = None) -> Any:
        """(batch, n_frames, n_mfcc) -> logits (batch, n_classes)."""
        return self.classifier(self.embed(mfcc, training=training))

    def embed(self, mfcc: Any, training: bool | None = None) -> Any:
        """(batch, n_frames, n_mfcc) -> what the logits are made of: (batch, n)."""
        states = self._states(mfcc, training)
        if self.architecture.causal:
            states = states[:, -1]
        else:
            states = ops.mean(states, axis=1) if self.pooling is None else self.pooling(states)
        return self.pooled_dropout(states, training=training)

    def steps(self, mfcc: Any, training: bool | None = None) -> Any:
        """What a causal network says at each step of a stream, from its beginning.

        Args:
            mfcc: float32 (batch, n_frames, n_mfcc); what is left of a step at the end is not used.
            training: Whether dropout is active.

        Returns:
            Logits (batch, n_frames // step_hops, n_classes).
        """
        states = self._states(mfcc, training)
        return self.classifier(self.pooled_dropout(states, training=training))

    def _states(self, mfcc: Any, training: bool | None) -> Any:
        """(batch, n_frames, n_mfcc) -> the last LSTM layer's outputs (batch, n_steps, n)."""
        states = self.normalization(mfcc)
        for layer in self.conv_blocks:
            if self.architecture.causal and isinstance(layer, keras.layers.Conv1D):
                # the second of a convolution's two new frames is the last that it sees
                states = ops.pad(states, [[0, 0], [KERNEL - 2, 0], [0, 0]])
            states = layer(states, training=training) if "norm" in layer.name else layer(states)
        for recurrent, dropout in zip(self.lstm_layers, self.dropouts, strict=True):
            states = dropout(recurrent(states), training=training)
        return states

    def config(self) -> NetworkConfig:
        """All of it but the weights, checked."""
        return NetworkConfig(
            labels=self.labels,
            features=self.features,
            architecture=self.architecture,
            temperature=self.temperature,
            decoder=self.decoder,
            provenance=self.provenance,
            acceptance=self.acceptance,
            causality=self.causality,
        )

    def get_config(self) -> dict[str, Any]:
        """Everything but the weights, JSON-able."""
        return {**super().get_config(), **self.config().to_dict(), "labels": list(self.labels)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CommandModel":
        """The inverse of ``get_config``.

        Raises:
            ValueError: A field is missing, unknown or out of range; none ever takes a default
                silently.
        """
        own = {"name", "trainable", "dtype"}  # of every Keras layer
        fields = {name: value for name, value in config.items() if name not in own}
        return cls.of(NetworkConfig.from_dict(fields), name=config.get("name"))

    @classmethod
    def of(cls, config: NetworkConfig, name: str | None = None) -> "CommandModel":
        """A network with fresh weights."""
        fields = {field: getattr(config, field) for field in config.to_dict()}
        return cls(**fields, name=name)


def save_model(model: CommandModel, path: Path) -> None:
    """Write a .keras file, without the optimizer; never half of one."""
    bare = CommandModel.of(model.config())
    bare.set_weights(model.get_weights())
    with replacing(path) as part:
        bare.save(part)


def load_model(path: Path) -> CommandModel:
    """Read a .keras file that ``save_model`` wrote, as data: Keras never sees the file.

    Raises:
        ModelError: Not such a file, damaged, or fields or weights that do not fit.
    """
    return build_model(path, *keras_file.read(path))


def build_model(path: Path, config: NetworkConfig, weights: keras_file.Weights) -> CommandModel:
    """The network of what ``keras_file.read`` found; ``path`` is for the message.

    Raises:
        ModelError: The weights are those of another network.
    """
    import h5py

    model = CommandModel.of(config)
    with tempfile.TemporaryDirectory() as folder:
        # Keras reads a file that is written here, of checked arrays and no attributes
        clean = Path(folder) / "model.weights.h5"
        try:
            with h5py.File(clean, "w") as file:
                for name, array in weights.items():
                    file[name] = array
            model.load_weights(clean)
        except Exception as error:  # Keras raises what its layers raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{path}: expected a .keras file made by `speech train`, got weights of another "
                f"network ({reason:.300}); train it again with: speech train"
            ) from error
    return model
