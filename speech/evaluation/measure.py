"""Measuring a model on clips: everything that the model card says, before it is written."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.data.corpus import SplitOrAll
from speech.data.evaluation_set import ClipSet, calibration_half, evaluation_set
from speech.data.recordings import Recordings
from speech.errors import ModelError
from speech.evaluation.metrics import (
    ClipMetrics,
    WrongClip,
    clip_metrics,
    expected_calibration_error,
    wrong_clips,
)
from speech.evaluation.robustness import (
    Condition,
    NoiseCondition,
    conditions,
    false_accepts_on_noise,
)
from speech.evaluation.unseen import measure_unseen
from speech.formats.folder import ModelFolder
from speech.labels import LabelSet
from speech.recognizer import Recognizer


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of a model on the clips of a split, and on more where that was wanted.

    Attributes:
        recognizer: The model.
        split: Whose clips.
        corpus_sha256: Digest of the corpus.
        clips: The list.
        metrics: On these clips.
        wrong: Those that were misjudged, the most confident first.
        calibration: Number of clips that fitted the temperature, and of the mistakes among them.
        ece_other_half: Expected calibration error on the other speakers; None where there are none.
        accuracy_of_seeds: By seed, this model's first.
        conditions: The clips in worse conditions.
        noise: Backgrounds without speech.
        unseen: By ``measure_unseen``.
        left_out: Files that could not be decoded, with the reason.
    """

    recognizer: Recognizer
    split: SplitOrAll
    corpus_sha256: str
    clips: ClipSet
    metrics: ClipMetrics
    wrong: tuple[WrongClip, ...]
    calibration: tuple[int, int]
    ece_other_half: float | None
    accuracy_of_seeds: Mapping[str, float]
    conditions: tuple[Condition, ...] = ()
    noise: tuple[NoiseCondition, ...] = ()
    unseen: Mapping[str, Any] | None = None
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        content: dict[str, Any] = {"model": self.recognizer.name}
        if self.unseen:
            content["unseen"] = dict(self.unseen)
        content |= {
            "split": self.split,
            "corpus_sha256": self.corpus_sha256,
            "clips": ModelFolder(Path()).clips.name,
            "calibration": {"clips": self.calibration[0], "mistakes": self.calibration[1]},
            "ece_other_half": self.ece_other_half,
            "accuracy_of_seeds": dict(self.accuracy_of_seeds),
            **self.metrics.to_dict(),
            "wrong": [vars(clip) for clip in self.wrong],
            "left_out": list(self.left_out),
        }
        if self.conditions:
            content["conditions"] = [vars(condition) for condition in self.conditions]
            content["false_accepts_on_noise"] = [vars(condition) for condition in self.noise]
        return content


def measure(
    recognizer: Recognizer,
    recordings: Recordings,
    split: SplitOrAll = "validation",
    *,
    robustness: bool = False,
    others: Sequence[Recognizer] = (),
    unseen: Sequence[Path] = (),
) -> Evaluation:
    """Measure a model on the fixed list of clips of a split.

    Args:
        recognizer: The model.
        recordings: The decoded corpus.
        split: Whose clips.
        robustness: Also measure the clips in worse conditions, and noise without speech.
        others: Models of the same recipe and other seeds, to see how far they lie apart.
        unseen: Folders of sources that nothing was trained or tuned on.

    Raises:
        CorpusError: No clips of this split or in these folders.
        ModelError: The model's labels do not come from a label set, or another model has other
            labels or a seed that was there before.
    """
    clips = evaluation_set(recordings, _label_set(recognizer), split)
    probabilities = recognizer.probabilities(clips.waveforms)
    metrics = clip_metrics(probabilities, clips.truth, recognizer.labels)
    seeds = {str(recognizer.provenance.get("seed")): metrics.accuracy}
    for other in others:
        seeds |= _another_seed(other, recognizer, seeds, clips)
    fitted = calibration_half(clips.names)
    mistakes = int((probabilities[fitted].argmax(axis=1) != clips.truth[fitted]).sum())
    return Evaluation(
        recognizer,
        split,
        recordings.digest,
        clips,
        metrics,
        tuple(wrong_clips(probabilities, clips.truth, recognizer.labels, clips.names)),
        (int(fitted.sum()), mistakes),
        _ece(probabilities[~fitted], clips.truth[~fitted]),
        seeds,
        tuple(conditions(recognizer, recordings, clips)) if robustness else (),
        tuple(false_accepts_on_noise(recognizer)) if robustness else (),
        measure_unseen(recognizer, unseen) if unseen else None,
        tuple(getattr(recordings, "left_out", ())),
    )


def _ece(probabilities: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float | None:
    return expected_calibration_error(probabilities, truth) if len(truth) else None


def _another_seed(
    other: Recognizer, first: Recognizer, seeds: Mapping[str, float], clips: ClipSet
) -> dict[str, float]:
    seed = str(other.provenance.get("seed"))
    if other.labels != first.labels or seed in seeds:
        raise ModelError(
            f"{other.name}: expected the labels of {first.name} and another seed than "
            f"{', '.join(seeds)}, got {', '.join(other.labels)} with seed {seed}"
        )
    called = other.probabilities(clips.waveforms).argmax(axis=1)
    return {seed: float(np.mean(called == clips.truth))}


def _label_set(recognizer: Recognizer) -> LabelSet:
    name = str(recognizer.provenance.get("label_set", "own words"))
    labels = LabelSet.of_model(name, recognizer.labels)
    if labels.labels != recognizer.labels:
        raise ModelError(
            f"{recognizer.name}: expected words, then unknown and silence, as labels; "
            f"got {', '.join(recognizer.labels)}"
        )
    return labels
