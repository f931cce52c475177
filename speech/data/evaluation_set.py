"""What is evaluated: the clips of a split with their labels, the same list for everybody."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from speech.audio import fit_length, to_float
from speech.data.corpus import Split, draw_evenly, indices_by_word
from speech.data.recordings import Recordings
from speech.errors import CorpusError
from speech.labels import LabelSet


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """Clips with their labels, fixed by a seed: the same list for everybody.

    Attributes:
        names: For each clip its path, or for silence ``FILE@START*GAIN``.
        waveforms: float32 (n, n_samples).
        truth: int64 (n,), index into the labels.
    """

    names: tuple[str, ...]
    waveforms: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]


def evaluation_set(
    recordings: Recordings, labels: LabelSet, split: Split = "validation", seed: int = 0
) -> ClipSet:
    """All clips of the words, and of unknown and silence as many as of a word on average.

    Unknown is drawn evenly over the words that are left; silence is cropped from the end of the
    noise files at an RMS drawn log-uniformly from 0.001 to 0.33, about what the official test
    archive holds.

    Raises:
        CorpusError: The split holds no clip of these labels.
    """
    rng = np.random.default_rng([seed, 0xE7A1])
    indices = indices_by_word(recordings.corpus, split)
    names, waveforms, truth = [], [], []
    per_word = [indices.get(word, np.zeros(0, int)) for word in labels.words]
    n_extra = round(sum(map(len, per_word)) / max(1, len(per_word)))
    if not n_extra:
        raise CorpusError(
            f"{recordings.corpus.root}: expected {split} clips of {', '.join(labels.words)}, "
            "got none; choose other labels or another corpus"
        )
    groups = list(per_word)
    if labels.unknown:
        others = [index for word, index in indices.items() if word not in labels.words]
        groups.append(np.sort(draw_evenly(others, n_extra, rng)))
    for label, group in enumerate(groups):
        names += [recordings.corpus.clips[i].path for i in group]
        waveforms.append(to_float(recordings.samples[group]))
        truth += [label] * len(group)
    if labels.silence and recordings.noise:
        crops = _silence_crops(recordings, split, n_extra, rng)
        names += [name for name, _ in crops]
        waveforms.append(np.stack([waveform for _, waveform in crops]))
        truth += [len(labels.labels) - 1] * n_extra
    return ClipSet(tuple(names), np.concatenate(waveforms), np.array(truth, np.int64))


def calibration_half(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which clips fit the temperature, bool (n,); the others, of other speakers, measure it."""
    speakers = [re.sub(r"_nohash_.*$", "", PurePosixPath(name).name) for name in names]
    return np.array([hashlib.sha256(s.encode()).digest()[0] % 2 == 0 for s in speakers], bool)


def _silence_crops(
    recordings: Recordings, split: Split, count: int, rng: np.random.Generator
) -> list[tuple[str, npt.NDArray[np.float32]]]:
    n_samples = recordings.samples.shape[1]
    parts = recordings.noise_for(split)
    crops = []
    for index in range(count):
        which = index % len(parts)
        part = parts[which]
        start = int(rng.integers(max(1, len(part) - n_samples)))
        crop = fit_length(to_float(part[start : start + n_samples]), n_samples)
        wanted = 10 ** rng.uniform(-3, np.log10(0.33))
        gain = wanted / max(float(np.sqrt(np.mean(crop**2))), 1e-6)
        offset = start if split == "train" else start + len(recordings.noise[which]) - len(part)
        name = f"{recordings.corpus.noise[which]}@{offset}*{gain:.4g}"
        crops.append((name, np.clip(crop * np.float32(gain), -1, 1)))
    return crops
