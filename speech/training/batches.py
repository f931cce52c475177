"""The batches of a training run: drawn, augmented and made into features ahead of the network."""

import dataclasses
import enum
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from speech.data.corpus import UNKNOWN_FOLDER
from speech.errors import ModelError
from speech.features import mfcc
from speech.labels import UNKNOWN, LabelSet
from speech.training.augment import Augmenter
from speech.training.config import TrainConfig
from speech.training.front_end import make_mfcc
from speech.training.ops import Tensor, compiled, has_accelerator
from speech.training.rooms import make_rooms
from speech.training.sources import TrainingData

T = TypeVar("T")
Indices = npt.NDArray[np.int64]

_ROOM_WORDS = 12_000  # clips whose pauses and babble make rooms: enough, and seconds of work
_RAMP = 80  # samples
_UNKNOWN_WORDS = 20  # how many words the folder of unnamed ones stands for


class Kind(enum.IntEnum):
    """What a row of a plan is made of."""

    WORD = 0  # a clip
    SPEECH = 1  # a window of continuous speech
    SILENCE = 2  # background alone
    PIECES = 3  # a clip whose word is cut to pieces and mixed up: a voice, but no word


class Batch(NamedTuple):
    """What the network learns from in one step.

    Attributes:
        features: MFCC (batch, n_frames, n_mfcc).
        labels: One-hot (batch, n_classes), float32.
        words: int32 (batch,): which of all words it is, -1 where that is not known.
    """

    features: Tensor
    labels: npt.NDArray[np.float32]
    words: npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The clips of an epoch in order, each field of shape (n,).

    Attributes:
        kind: ``Kind`` of each row.
        clip: Position among the training clips of all sources; 0 where there is none.
        label: Index into the labels.
    """

    kind: Indices
    clip: Indices
    label: Indices


class ClipSource:
    """Draws the batches of an epoch; every batch is decided by (seed, epoch, number).

    Args:
        data: The decoded sources.
        labels: The classes.
        config: The recipe.

    Attributes:
        vocabulary: All words that are told apart by the second output.
        source_names: The source of each training clip, (n,).
        words_alone: Whether there are no other words and no speech, so that ``unknown`` is learned
            from pieces of the words.

    Raises:
        ModelError: A word without a training clip.
    """

    def __init__(self, data: TrainingData, labels: LabelSet, config: TrainConfig) -> None:
        self.data, self.labels, self.config = data, labels, config
        words = np.array([w for clips in data.words for w in clips.words()])
        kept = ~np.isin(words, config.held_out_words)
        self._where = np.concatenate(
            [np.stack([np.full(len(c.rows), i), c.rows], 1) for i, c in enumerate(data.words)]
        )[kept]
        words = words[kept]
        weights = np.concatenate(
            [np.full(len(c.rows), c.source.weight) for c in data.words]
        )[kept]  # fmt: skip
        names = np.array([c.source.name for c in data.words])
        self.source_names = names[self._where[:, 0]]
        self.vocabulary = tuple(sorted(set(words.tolist()) - {UNKNOWN_FOLDER}))
        numbers = {word: i for i, word in enumerate(self.vocabulary)}
        self._word = np.array([numbers.get(w, -1) for w in words.tolist()], np.int32)
        others = set(words.tolist()) - set(labels.words)
        self.words_alone = labels.unknown and not others and not data.speech
        self._chances = self._label_chances(words, weights)
        self._banks = _Banks(data, self._where, config.features.n_samples)
        sample = np.random.default_rng([config.seed, 2]).permutation(len(self._where))
        rooms = make_rooms(
            config.features,
            data.noise,
            self._banks.on_host(np.sort(sample[:_ROOM_WORDS])),
            config.seed,
            n_synthetic=config.n_backgrounds,
        )
        self.augmenter = Augmenter(config.augment, config.features, rooms)
        self.fill: Tensor = np.zeros(config.features.n_mfcc, np.float32)
        self._waveforms = compiled(self.augmenter.waveforms)
        self._cepstra = compiled(self.augmenter.cepstra)
        self._mfcc = make_mfcc(config.features) if has_accelerator() else None

    def _label_chances(
        self, words: npt.NDArray[np.str_], weights: npt.NDArray[np.float64]
    ) -> dict[int, tuple[Indices, npt.NDArray[np.float64]]]:
        """For each label its clips and how likely each of them is drawn.

        A source has a share of a command, and a word one of unknown, by the square root of its
        clips, so that neither the largest nor a hundred small ones stand for all. A source whose
        clips were unknown far more often than a command would teach that its voices say none.
        """
        chances = {}
        for index, label in enumerate(self.labels.words):
            rows = np.flatnonzero(words == label)
            _, source, counts = np.unique(
                self._where[rows, 0], return_inverse=True, return_counts=True
            )
            chances[index] = rows, weights[rows] / np.sqrt(counts[source])
        if self.labels.unknown:
            rows = np.flatnonzero(~np.isin(words, self.labels.words) | self.words_alone)
            _, word, counts = np.unique(words[rows], return_inverse=True, return_counts=True)
            many = np.where(words[rows] == UNKNOWN_FOLDER, _UNKNOWN_WORDS, 1)
            chances[len(self.labels.words)] = rows, weights[rows] * np.sqrt(many / counts[word])
        empty = [
            self.labels.labels[label]
            for label, (rows, _) in chances.items()
            if not len(rows) and not (self.labels.labels[label] == UNKNOWN and self.data.speech)
        ]
        if empty:
            raise ModelError(
                f"expected training clips of every word, got none of {', '.join(empty)}; "
                "choose other labels or add recordings"
            )
        return {label: (rows, self._capped(chance)) for label, (rows, chance) in chances.items()}

    def _capped(self, chance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not len(chance):
            return chance
        limit = max(self.config.max_repeat, 1.0) / len(chance)
        result: npt.NDArray[np.float64] = chance / chance.sum()
        while result.max() > limit * (1 + 1e-9):  # what is cut off goes to all others
            above = result >= limit
            rest = 1 - limit * np.count_nonzero(above)
            result = np.where(above, limit, result / result[~above].sum() * rest)
        return result

    def _generator(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *place])

    def plan(self, epoch: int) -> Plan:
        """The clips of an epoch in order: every command equally often."""
        config, rng = self.config, self._generator(epoch, 0)
        n_silence = round(config.epoch_clips * config.silence_share) * self.labels.silence
        n_unknown = round(config.epoch_clips * config.unknown_share) * self.labels.unknown
        n_words = len(self.labels.words)
        ends = np.linspace(0, config.epoch_clips - n_silence - n_unknown, n_words + 1)
        counts = dict(enumerate(np.diff(np.round(ends).astype(int))))
        n_speech = 0
        if self.labels.unknown:
            share = config.speech_share if len(self._chances[n_words][0]) else 1.0
            n_speech = round(n_unknown * share) * bool(self.data.speech)
            counts[n_words] = n_unknown - n_speech
        clips = [_drawn(*self._chances[label], n, rng) for label, n in counts.items()]
        labels = np.repeat(list(counts), list(counts.values()))
        drawn = np.where((labels == n_words) & self.words_alone, Kind.PIECES, Kind.WORD)
        rest = np.repeat([Kind.SPEECH, Kind.SILENCE], [n_speech, n_silence])
        kinds = np.concatenate([drawn, rest])
        labels = np.concatenate(
            [labels, np.full(n_speech, n_words), np.full(n_silence, len(self.labels.labels) - 1)]
        )
        clip = np.concatenate([*clips, np.zeros(n_speech + n_silence, np.int64)])
        order = rng.permutation(len(kinds))
        return Plan(kinds[order].astype(np.int64), clip[order], labels[order].astype(np.int64))

    def steps(self) -> int:
        """Batches in an epoch; the last, smaller one is left out."""
        return self.config.epoch_clips // self.config.batch_size

    def batches(self, epoch: int, parts: Sequence[int] | None = None) -> Iterator[Batch]:
        """The batches of an epoch, one after the other.

        Args:
            epoch: Its number.
            parts: The parts of each batch that are wanted; all by default.
        """
        mine = range(self.config.parts) if parts is None else parts
        plan = self.plan(epoch)
        for step in range(self.steps()):
            drawn = [self._part(plan, epoch, step, part) for part in mine]
            if len(drawn) == 1:
                yield drawn[0]
            else:
                features, *targets = zip(*drawn, strict=True)
                yield Batch(ops.concatenate(features), *map(np.concatenate, targets))

    def _part(self, plan: Plan, epoch: int, step: int, part: int) -> Batch:
        size = self.config.batch_size // self.config.parts
        first = step * self.config.batch_size + part * size
        part_of = slice(first, first + size)
        rows = Plan(plan.kind[part_of], plan.clip[part_of], plan.label[part_of])
        place = (part,) if part else ()  # an undivided batch is drawn as before there were parts
        features = self._features(rows, self._generator(epoch, 1, step, *place))
        words = np.where(rows.kind == Kind.WORD, self._word[rows.clip], -1)
        one_hot = np.eye(len(self.labels.labels), dtype=np.float32)
        return Batch(features, one_hot[rows.label], words.astype(np.int32))

    def _features(self, rows: Plan, rng: np.random.Generator) -> Tensor:
        k = round(len(rows.kind) * self.config.augment.neighbor_probability)
        others = rng.integers(len(self._where), size=2 * k)
        kind = np.concatenate([rows.kind, np.full(2 * k, Kind.WORD)])
        clips, spans = self._banks.gather(kind, np.concatenate([rows.clip, others]), rng)
        silent = (rows.kind == Kind.SILENCE).astype(np.float32)
        seeds = rng.integers(2**31, size=2).astype(np.uint32)
        tables = self.augmenter.tables
        waveforms, stretch = self._waveforms(tables, clips, spans, silent, seeds[0])
        if self._mfcc is not None:
            features = self._mfcc(waveforms)
        else:
            features = mfcc(keras.ops.convert_to_numpy(waveforms), self.config.features)
        return self._cepstra(tables, features, stretch, self.fill, seeds[1])


def _drawn(
    rows: Indices, chance: npt.NDArray[np.float64], count: int, rng: np.random.Generator
) -> Indices:
    """Systematic sampling: no clip comes twice before its share of the draws is due."""
    if not count:
        return np.zeros(0, np.int64)
    order = rng.permutation(len(rows))
    places = (np.arange(count) + rng.random()) / count
    index = np.searchsorted(np.cumsum(chance[order]), places * (1 - 1e-12))
    return rows[order[np.minimum(index, len(rows) - 1)]]


class _Banks:
    """The clips and the speech of all sources, on the accelerator if there is one."""

    def __init__(self, data: TrainingData, where: Indices, n_samples: int) -> None:
        self._data, self._where, self._n = data, where, n_samples
        self._speech = [speech.samples for _, speech in data.speech]
        weights = np.array([s.weight * np.sqrt(len(x.samples)) for s, x in data.speech])
        self._speech_chance = weights / weights.sum() if len(weights) else weights
        self._spans = np.concatenate(
            [spoken_spans(self.on_host(block)) for block in _blocks(len(where), 2048)]
        )
        self._device = None
        if has_accelerator():
            clips = ops.convert_to_tensor(self.on_host(np.arange(len(where))))
            joined = np.concatenate([*self._speech, np.zeros(n_samples, np.int16)])
            self._device = clips, ops.convert_to_tensor(joined), compiled(self._take)
        self._offsets = np.cumsum([0, *map(len, self._speech)])

    def on_host(self, clips: Indices) -> npt.NDArray[np.int16]:
        """int16 (n, n_samples) of positions among the training clips."""
        result = np.empty((len(clips), self._n), np.int16)
        where = self._where[clips]
        for index, words in enumerate(self._data.words):
            mine = where[:, 0] == index
            result[mine] = words.recordings.samples[where[mine, 1]]
        return result

    def gather(
        self, kind: Indices, clip: Indices, rng: np.random.Generator
    ) -> tuple[Tensor, npt.NDArray[np.float32]]:
        """The samples of some rows, int16 (n, n_samples), and where their words begin and end."""
        spans = self._spans[clip]
        spoken = kind == Kind.SPEECH
        spans[spoken] = 0, self._n
        which = rng.choice(max(1, len(self._speech)), spoken.sum(), p=self._speech_chance_or_none())
        lengths = np.diff(self._offsets)[which] if self._speech else np.zeros(0)
        starts = (rng.random((2, len(which))) * (lengths - self._n)).astype(np.int64)
        pieces = kind == Kind.PIECES
        if self._device is None or pieces.any():
            samples = np.empty((len(kind), self._n), np.int16)
            samples[~spoken] = self.on_host(clip[~spoken])
            samples[pieces] = mixed_up(samples[pieces], spans[pieces].astype(int), rng)
            if len(which):
                samples[spoken] = self._louder(which, starts)
            return samples, spans
        clips, speech, take = self._device
        begins = np.zeros((2, len(kind)), np.int32)
        begins[:, spoken] = self._offsets[which] + starts
        return take(clips, speech, clip.astype(np.int32), begins, spoken), spans

    def _speech_chance_or_none(self) -> npt.NDArray[np.float64] | None:
        return self._speech_chance if len(self._speech_chance) else None

    def _louder(self, which: Indices, starts: Indices) -> npt.NDArray[np.int16]:
        """Of two windows the louder one: a pause is silence and not unknown."""
        result = np.empty((len(which), self._n), np.int16)
        for row, source in enumerate(which):
            two = [self._speech[source][s : s + self._n] for s in starts[:, row]]
            result[row] = max(two, key=lambda x: float(np.square(x, dtype=np.float32).sum()))
        return result

    def _take(
        self, clips: Tensor, speech: Tensor, clip: Tensor, begins: Tensor, spoken: Tensor
    ) -> Tensor:
        """The same on the accelerator, for all rows."""
        places = begins[:, :, None] + ops.arange(self._n, dtype="int32")
        windows = ops.take(speech, places, axis=0)
        energy = ops.sum(ops.square(ops.cast(windows, "float32")), axis=2)
        louder = ops.where((energy[0] > energy[1])[:, None], windows[0], windows[1])
        return ops.where(spoken[:, None], louder, ops.take(clips, clip, axis=0))


def _blocks(n: int, size: int) -> Iterator[Indices]:
    for start in range(0, max(n, 1), size):
        yield np.arange(start, min(start + size, n))


def mixed_up(
    clips: npt.NDArray[np.int16], spans: Indices, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Words cut to pieces, of which some run backwards, in another order: a voice, but no word.

    Args:
        clips: int16 (n, n_samples).
        spans: (n, 2), first and last sample of the word in each.
        rng: Decides the pieces and their order.

    Returns:
        int16 (n, n_samples), the same outside of the spans.
    """
    result = clips.copy()
    for clip, (first, last) in zip(result, spans, strict=True):
        count = int(rng.integers(3, 6))
        ends = first + np.sort(rng.integers(0, max(1, last - first), count - 1))
        pieces = np.split(clip[first:last].astype(np.float32), ends - first)
        order = rng.permutation(count)
        if (order == np.arange(count)).all():
            order = order[::-1]
        mixed = []
        for piece in (pieces[i][:: rng.choice((-1, 1))].copy() for i in order):
            ramp = np.linspace(0, 1, min(_RAMP, len(piece) // 2), dtype=np.float32)
            piece[: len(ramp)] *= ramp  # so that no joint is a click
            piece[len(piece) - len(ramp) :] *= ramp[::-1]
            mixed.append(piece)
        clip[first:last] = np.concatenate(mixed)
    return result


def spoken_spans(clips: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Where a word begins and ends: float32 (n, 2), in samples.

    From the first to the last 10 ms within 26 dB of the loudest, and 20 ms around them.
    """
    n, length = clips.shape
    frame = max(1, length // 100)
    frames = clips[:, : length // frame * frame].reshape(n, -1, frame).astype(np.float32)
    power = np.mean(np.square(frames), axis=2)
    loud = power >= power.max(axis=1, keepdims=True, initial=0) * 10**-2.6
    first, last = loud.argmax(axis=1) - 2, loud.shape[1] - loud[:, ::-1].argmax(axis=1) + 2
    spans = np.stack([first, last], axis=1) * frame
    clipped: npt.NDArray[np.float32] = np.clip(spans, 0, length).astype(np.float32)
    return clipped


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
