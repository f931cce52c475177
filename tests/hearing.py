"""A recogniser without a network, for tests of what stands around one."""

from typing import Any

import numpy as np
import numpy.typing as npt

from speech.architecture import ModelConfig
from speech.features import FeatureConfig
from speech.recognizer import Recognizer

LABELS = ("yes", "no", "unknown", "silence")


def by_loudness(heard: list[npt.NDArray[Any]] | None = None) -> Recognizer:
    """Loud is ``yes``, soft is ``no``, next to nothing is ``silence``; clips are kept in heard."""

    def infer(waveforms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if heard is not None:
            heard.extend(waveforms)
        loudness = np.sqrt(np.mean(waveforms**2, axis=1))
        best = np.where(loudness > 0.1, 0, np.where(loudness > 0.001, 1, 3))
        rows = np.full((len(waveforms), len(LABELS)), 0.01, np.float32)
        rows[np.arange(len(rows)), best] = 0.97
        return rows

    return Recognizer("by-loudness", ModelConfig(labels=LABELS, features=FeatureConfig()), infer)
