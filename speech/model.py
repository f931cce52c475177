"""The network: a stacked bidirectional LSTM over MFCC frames, with attention on top."""

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
from keras import ops

from speech.config import Config
from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.files import replacing

_MAX_CONFIG_BYTES = 1_000_000


@dataclasses.dataclass(frozen=True)
class Architecture(Config):
    """The shape of the network.

    Attributes:
        conv_filters: Filters of each convolution in time (kernel 5, stride 2, batch
            normalisation, ReLU) before the LSTM; empty for none. Each halves the number of steps.
        lstm_layers: Depth of the stack.
        lstm_units: Units of each direction.
        bidirectional: Whether each layer also reads backwards.
        pooling: How the outputs over time become one vector: ``attention`` (learned weights) or
            ``mean``.
        dropout: Share of outputs dropped after each LSTM layer and after pooling.
    """

    conv_filters: tuple[int, ...] = (64, 128)
    lstm_layers: int = 2
    lstm_units: int = 128
    bidirectional: bool = True
    pooling: Literal["attention", "mean"] = "attention"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "conv_filters", tuple(self.conv_filters))
        sizes = (*self.conv_filters, self.lstm_units)
        # the caps keep a tampered file from asking for a terabyte
        if any(n not in range(1, 1025) for n in sizes):
            raise ValueError(f"filters and units must be integers in [1, 1024], got {sizes}")
        if not (1 <= self.lstm_layers <= 8 and len(self.conv_filters) <= 4):
            raise ValueError(
                f"expected 1 to 8 LSTM layers and at most 4 convolutions, got {self.lstm_layers} "
                f"and {len(self.conv_filters)}"
            )
        if self.pooling not in ("attention", "mean"):
            raise ValueError(f"pooling must be attention or mean, got {self.pooling!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


@keras.saving.register_keras_serializable(package="speech")
class AttentionPooling(keras.layers.Layer):  # type: ignore[misc]
    """Weighted mean over time, with weights that the network learns.

    score_t = v . tanh(W h_t + b), softmax over t (additive attention with a learned query,
    Bahdanau et al., arXiv 1409.0473). Input (batch, n_frames, units), output (batch, units).
    """

    def __init__(self, units: int = 64, **kwargs: Any) -> None:
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

    Calling it: float32 (batch, n_frames, n_mfcc) -> logits (batch, n_classes). The number of frames
    is free, that of the coefficients is not.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)
        self.features = features
        self.architecture = architecture or Architecture()
        self.temperature = float(temperature)
        self.decoder = dict(decoder or {})
        self.provenance = dict(provenance or {})
        if not 2 <= len(self.labels) <= 1000 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"expected 2 to 1000 different labels, got {self.labels}")
        architecture = self.architecture
        self.normalization = keras.layers.Normalization(axis=-1, name="normalization")
        self.conv_blocks = [
            layer
            for i, filters in enumerate(architecture.conv_filters)
            for layer in (
                keras.layers.Conv1D(
                    filters, 5, strides=2, padding="same", use_bias=False, name=f"conv_{i}"
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
        self(keras.KerasTensor((None, None, features.n_mfcc)))  # creates all other weights

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
        states = self.normalization(mfcc)
        for layer in self.conv_blocks:
            states = layer(states, training=training) if "norm" in layer.name else layer(states)
        for recurrent, dropout in zip(self.lstm_layers, self.dropouts, strict=True):
            states = dropout(recurrent(states), training=training)
        states = ops.mean(states, axis=1) if self.pooling is None else self.pooling(states)
        return self.classifier(self.pooled_dropout(states, training=training))

    def get_config(self) -> dict[str, Any]:
        """Everything but the weights, JSON-able."""
        return {
            **super().get_config(),
            "labels": list(self.labels),
            "features": self.features.to_dict(),
            "architecture": dataclasses.asdict(self.architecture),
            "temperature": self.temperature,
            "decoder": self.decoder,
            "provenance": self.provenance,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CommandModel":
        """The inverse of ``get_config``.

        Raises:
            ValueError: A field is missing or unknown; none ever takes a default silently.
        """
        expected = {"labels", "features", "architecture", "temperature", "decoder", "provenance"}
        keras_own = {"name", "trainable", "dtype"}
        unknown, missing = set(config) - expected - keras_own, expected - set(config)
        if unknown or missing:
            raise ValueError(
                f"CommandModel: expected exactly {sorted(expected)}; unknown: "
                f"{sorted(unknown) or 'none'}, missing: {sorted(missing) or 'none'}"
            )
        return cls(
            config["labels"],
            FeatureConfig.from_dict(config["features"]),
            Architecture.from_dict(config["architecture"]),
            temperature=config["temperature"],
            decoder=config["decoder"],
            provenance=config["provenance"],
            name=config.get("name"),
        )


def save_model(model: CommandModel, path: Path) -> None:
    """Write a .keras file, without the optimiser; never half of one."""
    bare = CommandModel.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    with replacing(path) as part:
        bare.save(part)


def load_model(path: Path) -> CommandModel:
    """Read a .keras file that ``save_model`` wrote; nothing else is built or executed.

    Raises:
        ModelError: Not such a file, damaged, or fields that do not fit.
    """
    _check_archive(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises what its layers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: expected a model of this project, got: {reason}") from error
    assert isinstance(model, CommandModel)  # by _check_archive
    return model


def _check_archive(path: Path) -> None:
    expected = f"{path}: expected a .keras file made by `speech train`"
    if not path.is_file():
        raise ModelError(f"{expected}, got nothing there")
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo("config.json").file_size
            if size > _MAX_CONFIG_BYTES:
                raise ModelError(f"{expected}, got a config of {size:,} bytes")
            config = json.loads(archive.read("config.json"))
            found = config["class_name"], config["registered_name"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{expected}, got something else ({error})") from error
    if found != ("CommandModel", "speech>CommandModel"):
        raise ModelError(f"{expected}, got a Keras model of class {found[0]}")
