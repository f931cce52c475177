"""What a model is besides its weights: the shape of its network, and what inference has to know.

Keras is not needed here, so that the fields of a model's file are checked before it is imported.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from speech.config import Config
from speech.features import FeatureConfig
from speech.labels import commands

ATTENTION_UNITS = 64
KERNEL = 5  # steps that a convolution sees


@dataclasses.dataclass(frozen=True)
class Architecture(Config):
    """The shape of the network.

    Attributes:
        conv_filters: Filters of each convolution in time (kernel 5, stride 2, batch
            normalization, ReLU) before the LSTM, at most 4; empty for none. Each halves the number
            of steps.
        lstm_layers: Depth of the stack, 1 to 8.
        lstm_units: Units of each direction, as many as 1024 (so have filters).
        bidirectional: Whether each layer also reads backwards.
        pooling: How the outputs over time become one vector: ``attention`` (learned weights) or
            ``mean``; a causal network takes the ``state`` after each step.
        dropout: Share of outputs dropped after each LSTM layer and after pooling, in [0, 1).
        causal: Whether no step depends on sound that comes after it, so that a stream is computed
            once, from step to step: one direction, ``pooling="state"``, and convolutions that are
            padded before the first frame only. The network then answers at every step.

    Raises:
        ValueError: A field of another type or out of range: nobody builds a network of a terabyte
            because a file says so.
    """

    conv_filters: tuple[int, ...] = (64, 128)
    lstm_layers: int = 2
    lstm_units: int = 128
    bidirectional: bool = True
    pooling: Literal["attention", "mean", "state"] = "attention"
    dropout: float = 0.2
    causal: bool = False

    EARLIER: ClassVar[Mapping[str, Any]] = {"causal": False}

    def __post_init__(self) -> None:
        filters: Any = self.conv_filters
        if not isinstance(filters, list | tuple) or len(filters) > 4:
            raise ValueError(f"conv_filters={filters!r:.100} must be at most 4 integers")
        object.__setattr__(self, "conv_filters", tuple(filters))
        sizes = (*self.conv_filters, self.lstm_units)
        if not all(_is_whole(size, 1024) for size in sizes):
            raise ValueError(f"filters and units must be integers in [1, 1024], got {sizes!r:.100}")
        if not _is_whole(self.lstm_layers, 8):
            raise ValueError(f"lstm_layers={self.lstm_layers!r:.50} must be an integer in [1, 8]")
        if not isinstance(self.bidirectional, bool):
            raise ValueError(f"bidirectional={self.bidirectional!r:.50} must be true or false")
        if not isinstance(self.causal, bool):
            raise ValueError(f"causal={self.causal!r:.50} must be true or false")
        poolings = ("state",) if self.causal else ("attention", "mean")
        if self.pooling not in poolings or (self.causal and self.bidirectional):
            raise ValueError(
                f"pooling={self.pooling!r:.50} must be {' or '.join(poolings)} where "
                f"causal={self.causal}, and a causal network reads in one direction"
            )
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r:.50} must lie in [0, 1)")

    @property
    def step_hops(self) -> int:
        """Frames from one step of the LSTM to the next: each convolution halves their number."""
        return 1 << len(self.conv_filters)

    def n_weights(self, n_mfcc: int, n_classes: int) -> int:
        """How many numbers ``CommandModel`` keeps, without building it."""
        total, width = 2 * n_mfcc + 1, n_mfcc  # the mean, the variance, and of how many clips
        for filters in self.conv_filters:
            total += KERNEL * width * filters + 4 * filters  # batch normalization has four of each
            width = filters
        directions = 1 + self.bidirectional
        for _ in range(self.lstm_layers):
            total += directions * 4 * self.lstm_units * (width + self.lstm_units + 1)
            width = directions * self.lstm_units
        if self.pooling == "attention":
            total += (width + 1) * ATTENTION_UNITS + ATTENTION_UNITS
        return total + (width + 1) * n_classes


@dataclasses.dataclass(frozen=True)
class Causality(Config):
    """What inference has to know of a model that carries its state from step to step.

    The answer after a step is that for the clip that ended ``look_ahead_seconds`` before.

    Attributes:
        step_hops: Frames in a step, 1 to 16.
        look_ahead_seconds: How much sound after the end of a clip its answer waits for, in [0, 1].

    Raises:
        ValueError: A field of another type or out of range.
    """

    step_hops: int
    look_ahead_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not _is_whole(self.step_hops, 16):
            raise ValueError(f"step_hops={self.step_hops!r:.50} must be an integer in [1, 16]")
        if not _is_number(self.look_ahead_seconds) or not 0 <= self.look_ahead_seconds <= 1:
            raise ValueError(
                f"look_ahead_seconds={self.look_ahead_seconds!r:.50} must be a number in [0, 1]"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """What inference has to know of a model besides its network.

    Attributes:
        labels: Names of the classes, in the order of the outputs: 2 to 1000 different ones.
        features: The preprocessing that the network was trained on.
        temperature: Divides the logits before the softmax (Guo et al., arXiv 1706.04599), in
            (0, 1e6].
        decoder: Settings of the live decoder that were chosen for this model; empty for the
            defaults. ``speech.detection.DecoderConfig`` checks them.
        acceptance: For single commands the probability, in [0, 1], that a clip has to reach; below
            it the answer is "unknown". A command without a threshold is always accepted.
        provenance: Where the model comes from: corpus digest, seed, versions, command.
        causality: Of a model that answers at every step of a stream; None of one that is given
            whole clips.

    Raises:
        ValueError: A field of another type or out of range.
    """

    labels: tuple[str, ...]
    features: FeatureConfig
    temperature: float = 1.0
    decoder: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    acceptance: Mapping[str, float] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    causality: Causality | None = None

    EARLIER: ClassVar[Mapping[str, Any]] = {"acceptance": {}, "causality": None}

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        object.__setattr__(self, "labels", tuple(self.labels))
        if not _is_number(self.temperature) or not 0 < self.temperature <= 1e6:
            raise ValueError(f"temperature={self.temperature!r:.50} must be a number in (0, 1e6]")
        object.__setattr__(self, "temperature", float(self.temperature))
        for name in ("decoder", "acceptance", "provenance"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name}={getattr(self, name)!r:.100} must be a JSON object")
            object.__setattr__(self, name, dict(getattr(self, name)))
        causality: Any = self.causality  # a mapping, where it comes from JSON
        if causality is not None and not isinstance(causality, Causality):
            object.__setattr__(self, "causality", Causality.from_dict(causality))
        known = commands(self.labels)
        for label, threshold in self.acceptance.items():
            if label not in known or not _is_number(threshold) or not 0 <= threshold <= 1:
                raise ValueError(
                    f"acceptance[{label!r:.50}]={threshold!r:.50} must map a command "
                    f"({', '.join(known):.100}) to a probability in [0, 1]"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(ModelConfig):
    """All of a model but its weights: what a ``.keras`` file says of itself."""

    architecture: Architecture

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = None if self.causality is None else self.causality.step_hops
        if steps != (self.architecture.step_hops if self.architecture.causal else None):
            raise ValueError(
                f"causality={self.causality} must be that of the network, which has "
                f"causal={self.architecture.causal} and {self.architecture.step_hops} hops a step"
            )

    @property
    def n_weights(self) -> int:
        """How many numbers the file has to hold."""
        return self.architecture.n_weights(self.features.n_mfcc, len(self.labels))


def _check_labels(labels: Sequence[str]) -> None:
    are_texts = isinstance(labels, list | tuple) and all(isinstance(one, str) for one in labels)
    if not are_texts or not 2 <= len(set(labels)) == len(labels) <= 1000:
        raise ValueError(f"labels must be 2 to 1000 different texts, got {labels!r:.100}")


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
