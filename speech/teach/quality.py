"""What a taught model can do, measured at once on the takes and on speech that holds no word of it.

Every take is judged by a head that was fitted without it. False accepts are counted on the bank's
held-out streams, with thresholds that were chosen on the other half of them.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from speech.config import check_fields
from speech.evaluation.markdown import table
from speech.teach.takes import TakeFault


@dataclasses.dataclass(frozen=True)
class WordQuality:
    """How well one word was learned.

    Attributes:
        n_takes: Takes that were learned from.
        hits: How many of them a head without them calls by their word, and accepts.
        confusions: Other words that such a head called them, and how often.
        threshold: Smoothed probability at which the word is detected.
        false_accepts: How often it was detected in the held-out speech.
    """

    n_takes: int
    hits: int
    confusions: Mapping[str, int]
    threshold: float
    false_accepts: int


@dataclasses.dataclass(frozen=True)
class Quality:
    """How good a taught model is, for its card and for people.

    Attributes:
        words: By word.
        hours: Of held-out speech.
        rate_per_hour: False accepts per hour that the thresholds were chosen for.
        false_accepts: Detections in the held-out speech, of all taught words.
        false_accepts_per_hour: The same per hour, with the ends of its 95 % interval.
        curve: Number of takes a word -> share of the other takes that are hits.
        faults: By word, what is wrong with its takes.
    """

    words: Mapping[str, WordQuality]
    hours: float
    rate_per_hour: float
    false_accepts: int
    false_accepts_per_hour: tuple[float, float, float]
    curve: Mapping[int, float]
    faults: Mapping[str, tuple[TakeFault, ...]]

    @property
    def hits(self) -> int:
        """Takes that are recognized by a head without them."""
        return sum(word.hits for word in self.words.values())

    @property
    def n_takes(self) -> int:
        """Takes that were learned from."""
        return sum(word.n_takes for word in self.words.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        fields = dataclasses.asdict(self)
        fields["curve"] = {str(n): share for n, share in self.curve.items()}
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Quality":
        """The inverse of ``to_dict``.

        Raises:
            ValueError: Not exactly the known fields.
        """
        known = check_fields(cls, fields)
        known["words"] = {
            label: WordQuality(**check_fields(WordQuality, word))
            for label, word in known["words"].items()
        }
        known["curve"] = {int(n): share for n, share in known["curve"].items()}
        known["faults"] = {
            label: tuple(TakeFault(**check_fields(TakeFault, fault)) for fault in faults)
            for label, faults in known["faults"].items()
        }
        known["false_accepts_per_hour"] = tuple(known["false_accepts_per_hour"])
        return cls(**known)

    def sentences(self) -> list[str]:
        """What people should know, the most important first."""
        return [*self._on_takes(), *self._confused(), *self._on_speech(), *self._more(),
                *self._faulty()]  # fmt: skip

    def _on_takes(self) -> Iterator[str]:
        n = self.n_takes
        yield (
            f"{self.hits} of {n} takes are recognized by a model that was taught without them "
            f"({self.hits / max(n, 1):.0%})."
        )
        few = sorted(label for label, word in self.words.items() if word.n_takes < 3)
        if few:
            yield f"Fewer than 3 takes of {_listed(few)}: record at least 3, better 8."
        for label, word in self.words.items():
            lost = word.n_takes - word.hits - sum(word.confusions.values())
            if word.n_takes >= 3 and lost * 4 >= word.n_takes:
                yield (
                    f"'{label}' is missed in {lost} of {word.n_takes}: record more takes, "
                    "as differently as you will say it."
                )

    def _confused(self) -> Iterator[str]:
        counts: dict[tuple[str, ...], int] = {}
        for label, word in self.words.items():
            for other, count in word.confusions.items():
                pair = tuple(sorted((label, other)))
                counts[pair] = counts.get(pair, 0) + count
        for (one, other), count in sorted(counts.items(), key=lambda item: -item[1]):
            n = sum(self.words[label].n_takes for label in (one, other) if label in self.words)
            yield (
                f"'{one}' and '{other}' are confused in {count} of {n}: choose another word or "
                "record more."
            )

    def _on_speech(self) -> Iterator[str]:
        rate, low, high = self.false_accepts_per_hour
        times = f"{self.false_accepts} time{'s' * (self.false_accepts != 1)}"
        yield (
            f"In {self.hours:.1f} hours of other speech it was wrongly triggered {times}: "
            f"{rate:.1f} per hour (95 % interval {low:.1f} to {high:.1f}); the thresholds were "
            f"chosen for {self.rate_per_hour:g}."
        )
        for label, word in self.words.items():
            if word.false_accepts >= 3 and word.false_accepts * 2 > self.false_accepts:
                yield f"Most of these were '{label}': a longer word is triggered less often."

    def _more(self) -> Iterator[str]:
        steps = sorted(self.curve.items())
        if len(steps) >= 2:
            told = ", ".join(f"{share:.0%} with {n}" for n, share in steps)
            gain = (steps[-1][1] - steps[-2][1]) / (steps[-1][0] - steps[-2][0])
            yield (
                f"Recognized by the number of takes of each word: {told}. "
                + (
                    f"One more take should bring about {100 * gain:.1f} points."
                    if gain >= 0.005
                    else "More takes of the same kind would bring little."
                )
            )

    def _faulty(self) -> Iterator[str]:
        for label, faults in self.faults.items():
            for fault in faults:
                left_out = ", and was left out" if fault.is_fatal else ""
                yield (
                    f"Take {fault.index + 1} of '{label}' is {fault.reason}{left_out}: "
                    f"{fault.remedy}."
                )

    def markdown(self) -> str:
        """The table of the words, for the card."""
        return table(
            ("word", "takes", "recognized without them", "threshold", "false accepts"),
            (
                (label, word.n_takes, word.hits, f"{word.threshold:.3f}", word.false_accepts)
                for label, word in self.words.items()
            ),
        )


def _listed(labels: list[str]) -> str:
    return ", ".join(f"'{label}'" for label in labels)
