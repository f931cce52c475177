"""What trains: the network with a second output that tells all words apart, and its teachers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from speech.model import CommandModel
from speech.training.config import TrainConfig
from speech.training.ops import Tensor, compiled

EMBEDDING = 128
_SCALE = 24.0  # of the cosines: a softmax of numbers in [-1, 1] would never be sure
_MARGIN = 0.15


class WordHead(keras.layers.Layer):  # type: ignore[misc]
    """Cosines between an embedding of the pooled states and one vector for each word.

    With many words to tell apart the network cannot call ``unknown`` whatever differs from its
    commands, and has to learn what makes a word (additive-margin softmax, Wang et al., arXiv
    1801.05599). Input (batch, n), output (batch, n_words), in [-1, 1].
    """

    def __init__(self, n_words: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_words = n_words
        self.projection = keras.layers.Dense(EMBEDDING, use_bias=False)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights for (batch, n)."""
        self.projection.build(input_shape)
        shape = (EMBEDDING, self.n_words)
        self.words = self.add_weight(name="words", shape=shape, initializer="glorot_uniform")
        self.built = True

    def embed(self, pooled: Tensor) -> Tensor:
        """(batch, n) -> (batch, EMBEDDING), of length one."""
        return ops.normalize(self.projection(pooled), axis=-1)

    def call(self, pooled: Tensor) -> Tensor:
        """(batch, n) -> (batch, n_words)."""
        return ops.matmul(self.embed(pooled), ops.normalize(self.words, axis=0))


class TrainingModel(keras.Model):  # type: ignore[misc]
    """A ``CommandModel`` and, while it trains, a head that tells all words apart.

    Args:
        commands: The model that is kept.
        n_words: How many words there are; 0 for no second output.

    Calling it: MFCC (batch, n_frames, n_mfcc) -> ``{"labels": logits, "words": cosines}``; of a
    causal model the logits are those of all steps, (batch, n_steps, n_classes), and it has no head.
    """

    def __init__(self, commands: CommandModel, n_words: int) -> None:
        super().__init__()
        self.commands = commands
        self.head = WordHead(n_words, name="words") if n_words else None
        features = commands.features
        self(keras.KerasTensor((None, features.n_frames, features.n_mfcc)))

    def call(self, mfcc: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        """(batch, n_frames, n_mfcc) -> the outputs by name."""
        if self.commands.architecture.causal:
            return {"labels": self.commands.steps(mfcc, training=training)}
        pooled = self.commands.embed(mfcc, training=training)
        outputs: dict[str, Tensor] = {"labels": self.commands.classifier(pooled)}
        if self.head is not None:
            outputs["words"] = self.head(pooled)
        return outputs

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return ["labels", *(["words"] if self.head is not None else [])]

    def embedding(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The head's projection (n, EMBEDDING) and word vectors (EMBEDDING, n_words)."""
        if self.head is None:
            raise ValueError("expected a model with a word head, got one that trained without")
        (projection,) = self.head.projection.get_weights()
        return projection, ops.convert_to_numpy(self.head.words)


def losses(config: TrainConfig) -> dict[str, Any]:
    """The losses of the outputs of a ``TrainingModel``, by name."""
    labels = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing
    )
    return {"labels": labels, "words": word_loss}


def word_loss(words: Tensor, cosines: Tensor) -> Tensor:
    """Cross-entropy of the word (batch,), by cosines (batch, n_words); none where it is -1."""
    words = ops.cast(ops.reshape(words, (-1,)), "int32")
    known = ops.cast(words >= 0, "float32")
    target = ops.one_hot(ops.maximum(words, 0), cosines.shape[-1])
    logits = _SCALE * (cosines - _MARGIN * target)
    log_shares = ops.log_softmax(logits, axis=-1)
    return -ops.sum(target * log_shares, axis=-1) * known


def make_teacher(
    teachers: Sequence[CommandModel], labels: Sequence[str]
) -> Callable[[Tensor], Tensor] | None:
    """What an ensemble says of MFCC: probabilities (batch, n_classes); None without teachers.

    Raises:
        ValueError: A teacher with other labels.
    """
    if not teachers:
        return None
    for teacher in teachers:
        if teacher.labels != tuple(labels):
            raise ValueError(
                f"expected teachers with the labels {', '.join(labels)}, got one with "
                f"{', '.join(teacher.labels)}"
            )

    def teach(mfcc: Tensor) -> Tensor:
        shares = [ops.softmax(teacher(mfcc, training=False)) for teacher in teachers]
        return sum(shares[1:], shares[0]) / len(shares)

    return compiled(teach)


def fields_of(outputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Only those of a mapping that a model has outputs for."""
    return {name: outputs[name] for name in names}
