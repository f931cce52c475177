"""The batches of a training run: drawn, augmented and made into features ahead of the network."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from speech.audio import to_float
from speech.data.corpus import draw_evenly, indices_by_word
from speech.data.recordings import ContinuousSpeech, Recordings
from speech.errors import ModelError
from speech.features import mfcc
from speech.labels import UNKNOWN, LabelSet
from speech.training.augment import Augmenter
from speech.training.config import TrainConfig

T = TypeVar("T")
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

# in a plan: no clip, but something that is made for the batch
_SILENT, _SPOKEN, _SPLICED = -1, -2, -3


class ClipSource:
    """Draws the batches of an epoch; every batch is decided by (seed, epoch, number).

    Args:
        recordings: The decoded corpus; only clips of the training split are touched.
        labels: The classes.
        config: The recipe.
        speech: Continuous speech, windows of which join the unknown words.
    """

    def __init__(
        self,
        recordings: Recordings,
        labels: LabelSet,
        config: TrainConfig,
        speech: ContinuousSpeech | None = None,
    ) -> None:
        self.recordings = recordings
        self.speech = speech
        self.labels = labels
        self.config = config
        by_word = indices_by_word(recordings.corpus, "train")
        for word in config.excluded:
            by_word.pop(word, None)
        self._words = [by_word.pop(word, np.zeros(0, np.int64)) for word in labels.words]
        self._others = list(by_word.values())
        empty = [w for w, clips in zip(labels.words, self._words, strict=True) if not len(clips)]
        if empty or (labels.unknown and not self._others and speech is None):
            raise ModelError(
                f"{recordings.corpus.root}: expected training clips of every word, got none of "
                f"{', '.join(empty or [UNKNOWN])}; choose other --labels or add recordings"
            )
        noise = recordings.noise_for("train")
        self.augmenter = Augmenter(config.augment, config.features, noise, config.seed)
        self.fill = np.zeros(config.features.n_mfcc, np.float32)

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *place])

    def plan(self, epoch: int) -> npt.NDArray[np.int64]:
        """The clips of an epoch in order: int64 (n, 2) of (clip, label).

        Clip -1 is silence, -2 a window of continuous speech and -3 halves of two words put
        together; they are drawn when the batch is made.
        """
        config, rng = self.config, self._generator(epoch, 0)
        n_silence = round(config.epoch_clips * config.silence_share) * self.labels.silence
        n_unknown = round(config.epoch_clips * config.unknown_share) * self.labels.unknown
        sizes = np.array([len(clips) for clips in self._words], float)
        shares = np.ones(len(sizes)) if config.balanced else sizes
        counts = np.round(shares / shares.sum() * (config.epoch_clips - n_silence - n_unknown))
        drawn = [
            np.resize(np.concatenate([rng.permutation(c) for _ in range(int(n // len(c)) + 1)]), n)
            for c, n in zip(self._words, counts.astype(int), strict=True)
        ]
        if self.labels.unknown:
            share = config.speech_share if self._others else 1.0
            n_spoken = round(n_unknown * share) * (self.speech is not None)
            n_spliced = round((n_unknown - n_spoken) * config.spliced_share)
            words = draw_evenly(self._others, n_unknown - n_spoken - n_spliced, rng)
            made = np.repeat([_SPOKEN, _SPLICED], [n_spoken, n_spliced])
            drawn.append(np.concatenate([words, made]))
        if self.labels.silence:
            drawn.append(np.full(n_silence, _SILENT))
        label = np.repeat(np.arange(len(drawn)), [len(d) for d in drawn])
        return rng.permutation(np.stack([np.concatenate(drawn), label], axis=1))

    def steps(self) -> int:
        """Batches in an epoch; the last, smaller one is left out."""
        return len(self.plan(0)) // self.config.batch_size

    def batches(self, epoch: int) -> Iterator[Batch]:
        """MFCC (batch, n_frames, n_mfcc) and one-hot labels (batch, n_classes), float32."""
        size = self.config.batch_size
        plan = self.plan(epoch)
        one_hot = np.eye(len(self.labels.labels), dtype=np.float32)
        for step in range(self.steps()):
            rows = plan[step * size : (step + 1) * size]
            rng = self._generator(epoch, 1, step)
            x, y = self._features(rows[:, 0], rng), one_hot[rows[:, 1]]
            if self.config.mixup:
                share = rng.beta(self.config.mixup, self.config.mixup, (size, 1)).astype(np.float32)
                y = share * y + (1 - share) * y[::-1]
                share = share[:, :, np.newaxis]
                x = share * x + (1 - share) * x[::-1]
            yield x, y

    def _features(
        self, clips: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        silent, spoken, spliced = clips == _SILENT, clips == _SPOKEN, clips == _SPLICED
        n_samples = self.config.features.n_samples
        samples = np.empty((len(clips), n_samples), np.int16)
        samples[clips >= 0] = self.recordings.samples[clips[clips >= 0]]
        if self.speech is not None and spoken.any():
            samples[spoken] = self._windows(int(spoken.sum()), rng)
        if spliced.any():
            samples[spliced] = self._halves(int(spliced.sum()), rng)
        waveforms = np.empty(samples.shape, np.float32)
        waveforms[~silent] = self.augmenter.waveforms(to_float(samples[~silent]), rng)
        waveforms[silent] = self.augmenter.silence(int(silent.sum()), rng)
        return self.augmenter.cepstra(mfcc(waveforms, self.config.features), self.fill, rng)

    def _windows(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int16]:
        """Cut anywhere, but of two the louder one: a pause is silence and not unknown."""
        assert self.speech is not None
        every = sliding_window_view(self.speech.samples, self.config.features.n_samples)
        two = every[rng.integers(len(every), size=(2, count))]
        louder = np.square(two, dtype=np.float32).sum(axis=2).argmax(axis=0)
        chosen: npt.NDArray[np.int16] = two[louder, np.arange(count)]
        return chosen

    def _halves(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int16]:
        """The first half of a word and the second half of another, by energy."""
        words = [*self._words, *self._others]
        result = np.empty((count, self.config.features.n_samples), np.int16)
        middle = result.shape[1] // 2
        for row in range(count):
            first, second = (
                self.recordings.samples[rng.choice(words[word])]
                for word in rng.choice(len(words), 2, replace=False)
            )
            result[row, :middle] = _centred(first)[:middle]
            result[row, middle:] = _centred(second)[middle:]
        return result


def _centred(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Turned so that half of the energy lies before the middle."""
    energy = np.cumsum(np.square(samples, dtype=np.float64))
    return np.roll(samples, len(samples) // 2 - int(np.searchsorted(energy, energy[-1] / 2)))


def prefetch(items: Iterable[T], depth: int = 8) -> Generator[T, None, None]:
    """The same items, made ahead by a thread, so that the network does not wait for them."""
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def work() -> None:
        end: tuple[None, BaseException | None, bool] = (None, None, True)
        try:
            for item in items:
                ready.put((item, None, False))
                if stopped.is_set():
                    return
        except BaseException as error:  # handed over, not swallowed
            end = (None, error, True)
        ready.put(end)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while True:
            item, error, is_end = ready.get()
            if error is not None:
                raise error
            if is_end:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        while worker.is_alive():  # it may wait for a free place
            while not ready.empty():
                ready.get_nowait()
            worker.join(0.01)
