"""Where live sound comes from: a file, a pipe or a microphone, as blocks of one kind."""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from speech.audio import check_rate, read_blocks
from speech.live.microphone import Block, Microphone, quiet_libraries

_BLOCK_SECONDS = 0.05


@contextlib.contextmanager
def microphone_blocks(
    device: str | int | None = None, sample_rate: int = 16_000, channels: int | None = None
) -> Iterator[Iterator[Block]]:
    """The blocks of a microphone while the context lasts; the first one says that it is ready.

    Args:
        device: Number or part of the name; None or "" for the default input.
        sample_rate: The rate in Hz to try first.
        channels: How many to record, as ``Microphone``.

    Raises:
        MicrophoneError: As ``Microphone``.
    """
    if isinstance(device, str):
        device = int(device) if device.isdecimal() else device or None
    with quiet_libraries(), Microphone(device, sample_rate, channels=channels) as microphone:
        yield itertools.chain([_ready(microphone)], microphone.blocks())


def _ready(microphone: Microphone) -> Block:
    device = microphone.opened
    name = device.name if device else "nothing"
    nothing = np.zeros((0, 1), np.int16)
    return Block(nothing, microphone.sample_rate, "ready", f"listening to {name}", device=device)


def file_blocks(path: str | os.PathLike[str]) -> Iterator[Block]:
    """A recording of any length in blocks as a microphone gives them.

    Raises:
        AudioError: As ``read_blocks``.
    """
    for samples, rate in read_blocks(Path(path)):
        size = round(rate * _BLOCK_SECONDS)
        for first in range(0, len(samples), size):
            yield Block(samples[first : first + size], rate)


def pcm_blocks(stream: BinaryIO, sample_rate: int) -> Iterator[Block]:
    """Raw signed 16-bit little-endian mono samples, as they arrive, until the stream ends.

    Half a sample at the end is left out.

    Raises:
        AudioError: No rate that sound cards use.
    """
    size = 2 * round(check_rate(sample_rate, "the stream") * _BLOCK_SECONDS)
    rest = b""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # what is there, not all
    while data := read(size):
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        yield Block(np.frombuffer(data[:whole], "<i2").astype(np.int16), sample_rate)


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
