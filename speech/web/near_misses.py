"""Commands that were almost detected, so that a page can say what was missing."""

from typing import NamedTuple

from speech.detection import DecoderConfig
from speech.labels import commands

BEGINS = 0.6  # of the threshold: below it nobody would call it almost
ENDS = 0.5  # of the threshold


class NearMiss(NamedTuple):
    """A command whose probability rose, did not suffice, and fell again.

    Attributes:
        label: The command.
        probability: The highest smoothed probability, in [0, 1].
        threshold: What it would have needed; where the probability is higher, it was so for too
            short a time.
        time: Of the highest probability, in seconds of the stream.
    """

    label: str
    probability: float
    threshold: float
    time: float


class NearMissFinder:
    """Watches the smoothed probabilities of a stream, step by step.

    A near miss begins where a command has 60 % of its threshold and more than any other command,
    and ends where it falls below half of its threshold. A detection settles it, and all until the
    probabilities have fallen: while a word is detected, another one that sounds like it rises too.

    Args:
        labels: All classes, in the order of the probabilities.
        config: The thresholds.
    """

    def __init__(self, labels: tuple[str, ...], config: DecoderConfig) -> None:
        self._thresholds = {
            labels.index(label): config.thresholds.get(label, config.threshold)
            for label in commands(labels)
        }
        self._labels = labels
        self._open: NearMiss | None = None
        self._is_settled = False

    def settle(self) -> None:
        """Something was detected, or sound was lost: what is going on is no near miss."""
        self._open = None
        self._is_settled = True

    def push(self, time: float, probabilities: list[float]) -> NearMiss | None:
        """The near miss that this step ends, if any.

        Args:
            time: End of the step, in seconds of the stream.
            probabilities: Smoothed probability of each class.
        """
        shares = {index: probabilities[index] / t for index, t in self._thresholds.items()}
        if self._is_settled:
            self._is_settled = max(shares.values()) >= ENDS
            return None
        ended = None
        if self._open and shares[self._labels.index(self._open.label)] < ENDS:
            ended, self._open = self._open, None
        best = max(shares, key=lambda index: probabilities[index])
        is_higher = self._open is None or probabilities[best] > self._open.probability
        if shares[best] >= BEGINS and is_higher:
            label, threshold = self._labels[best], self._thresholds[best]
            self._open = NearMiss(label, probabilities[best], threshold, time)
        return ended
