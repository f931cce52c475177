"""The labels of a model: its commands, and the two classes that are none."""

import dataclasses
from collections.abc import Sequence

UNKNOWN, SILENCE = "unknown", "silence"


def commands(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that are commands, in their order: all but ``unknown`` and ``silence``.

    Example:
        >>> commands(("yes", "no", "unknown", "silence"))
        ('yes', 'no')
    """
    return tuple(label for label in labels if label not in (UNKNOWN, SILENCE))


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a model: words in order, then ``unknown`` and ``silence`` where wanted."""

    name: str
    words: tuple[str, ...]
    unknown: bool = True
    silence: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes, in the order of the network's outputs."""
        extra = (UNKNOWN,) * self.unknown + (SILENCE,) * self.silence
        return self.words + extra

    @classmethod
    def of_model(cls, name: str, labels: Sequence[str]) -> "LabelSet":
        """The label set of a trained model, from the labels of its outputs."""
        return cls(name, commands(labels), UNKNOWN in labels, SILENCE in labels)
