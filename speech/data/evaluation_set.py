"""Evaluation sets: the clips of a split with their labels, the same list for everybody."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from speech.audio import fit_length, to_float
from speech.data.corpus import (
    Split,
    SplitOrAll,
    draw_evenly,
    indices_by_word,
    require_words,
    speaker_of,
)
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
        split_by_clip: Whether some of the words were divided clip by clip, so that their speakers
            may have trained too.
    """

    names: tuple[str, ...]
    waveforms: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    split_by_clip: bool = False


def evaluation_set(
    recordings: Recordings, labels: LabelSet, split: SplitOrAll = "validation", seed: int = 0
) -> ClipSet:
    """All clips of the words, and of unknown and silence as many as of a word on average.

    Of all splits together, silence is still cropped from the part of the noise that evaluates.

    Unknown is drawn evenly over the words that are left; silence is cropped from the end of the
    noise files at an RMS drawn log-uniformly from 0.001 to 0.33, about what the official test
    archive holds.

    Raises:
        CorpusError: The corpus does not have these words, or the split holds no clip of them.
    """
    if not set(labels.words) & set(recordings.corpus.words()):
        require_words(recordings.corpus, labels.words)
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
        crops = _silence_crops(recordings, "test" if split == "all" else split, n_extra, rng)
        names += [name for name, _ in crops]
        waveforms.append(np.stack([waveform for _, waveform in crops]))
        truth += [len(labels.labels) - 1] * n_extra
    by_clip = bool(set(recordings.corpus.split_by_clip) & set(indices))
    return ClipSet(tuple(names), np.concatenate(waveforms), np.array(truth, np.int64), by_clip)


def calibration_half(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which clips fit the temperature; the others, of other speakers, measure it.

    Where the speakers are so few that one half would be empty, clips are divided one by one.

    Args:
        names: Paths of clips, or names of silence, as ``ClipSet.names``.

    Returns:
        bool (n,): True for the clips that fit it.
    """
    files = [PurePosixPath(name).name for name in names]
    by_speaker = _halves([speaker_of(name) or name for name in files])
    if len(names) > 1 and by_speaker.all() | ~by_speaker.any():
        return _halves(list(names))
    return by_speaker


def _halves(groups: Sequence[str]) -> npt.NDArray[np.bool_]:
    hashes = [hashlib.sha256(group.encode("utf-8", "surrogateescape")) for group in groups]
    return np.array([one.digest()[0] % 2 == 0 for one in hashes], bool)


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
