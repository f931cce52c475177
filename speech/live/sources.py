"""Where live sound comes from: a file, a pipe or a microphone, as blocks of one kind."""

import collections
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import read_blocks
from speech.errors import AudioError
from speech.live.microphone import Block, Microphone, quiet_libraries

Channel: TypeAlias = int | Literal["best"]

_BLOCK_SECONDS = 0.05
_LEVEL_BLOCKS = 100  # 5 s, which hold words and pauses
_BETTER_DB = 3.0
_DIGITAL_SILENCE_DB = -90.0


@contextlib.contextmanager
def microphone_blocks(
    device: str | int | None = None,
    sample_rate: int = 16_000,
    *,
    channels: int | None = None,
    channel: Channel | None = None,
) -> Iterator[Iterator[Block]]:
    """The blocks of a microphone while the context lasts; the first one says that it is ready.

    Args:
        device: Number or part of the name; None or "" for the default input.
        sample_rate: The rate in Hz to try first.
        channels: How many to record, as ``Microphone``; with ``channel``, all if None.
        channel: As ``pick_channel``; None for all of them.

    Raises:
        MicrophoneError: As ``Microphone``.
    """
    if isinstance(device, str):
        device = int(device) if device.isdecimal() else device or None
    if channel is not None and channels is None:
        recorder = Microphone(device, sample_rate, channels="all")
    else:
        recorder = Microphone(device, sample_rate, channels=channels)
    with quiet_libraries(), recorder as microphone:
        blocks = itertools.chain([_ready(microphone)], microphone.blocks())
        yield blocks if channel is None else pick_channel(blocks, channel)


def _ready(microphone: Microphone) -> Block:
    device = microphone.opened
    name = device.name if device else "nothing"
    nothing = np.zeros((0, 1), np.int16)
    return Block(nothing, microphone.sample_rate, "ready", f"listening to {name}", device=device)


def file_blocks(path: str | os.PathLike[str]) -> Iterator[Block]:
    """A recording of any length in blocks as a microphone gives them.

    Args:
        path: As ``read_blocks``: ``"-"`` is standard input, read to its end first.

    Raises:
        AudioError: As ``read_blocks``.
    """
    for samples, rate in read_blocks(path):
        size = round(rate * _BLOCK_SECONDS)
        for first in range(0, len(samples), size):
            yield Block(samples[first : first + size], rate)


def paced(
    blocks: Iterable[Block],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Block]:
    """The same blocks, each when a microphone would have it: after its last sample was spoken."""
    due = clock()
    for block in blocks:
        due += len(block.samples) / block.sample_rate
        sleep(max(0.0, due - clock()))
        yield block


def pick_channel(blocks: Iterable[Block], channel: Channel) -> Iterator[Block]:
    """One channel of each block, (n,).

    The mean of all channels is wrong where an array of microphones also records what the
    loudspeaker plays (a loopback channel).

    Args:
        blocks: Of any source.
        channel: Number, from 1; or ``"best"`` for the one whose speech stands out most of its noise
            in the last five seconds. One that is digital silence in its pauses, as a loopback is,
            is taken only where all others are silent too.

    Raises:
        AudioError: There is no such channel.
    """
    best = _BestChannel()
    for block in blocks:
        if block.event or block.samples.ndim < 2:
            yield block
            continue
        index = best.update(block.samples) if channel == "best" else channel - 1
        if not 0 <= index < block.samples.shape[1]:
            raise AudioError(
                f"channel {channel}: expected one of 1 to {block.samples.shape[1]}, which is what "
                "is recorded, got another one; choose one of them",
                parameter="channel",
            )
        yield block._replace(samples=np.ascontiguousarray(block.samples[:, index]))


class _BestChannel:
    def __init__(self) -> None:
        self._levels: collections.deque[npt.NDArray[np.float64]] = collections.deque(
            maxlen=_LEVEL_BLOCKS
        )
        self._index = -1

    def update(self, samples: npt.NDArray[np.int16]) -> int:
        """The index of the channel to take of this block, int16 (n, channels)."""
        if len(samples):
            power = np.mean(np.square(samples / 32768.0), axis=0)
            self._levels.append(10 * np.log10(power + 1e-12))
        if not self._levels:
            return max(self._index, 0)
        floor, level = np.percentile(np.array(self._levels), [10, 95], axis=0)
        is_silent = floor < _DIGITAL_SILENCE_DB
        score = np.where(is_silent & ~is_silent.all(), -np.inf, level - floor)
        if len(self._levels) < _LEVEL_BLOCKS // 5:  # no pause has been recorded yet
            score = np.where(np.isinf(score), score, level)
        best = int(np.argmax(score))
        if self._index < 0 or score[best] > score[self._index] + _BETTER_DB:
            self._index = best
        return self._index
