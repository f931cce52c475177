"""Detections from a microphone or a file, for programs: one line of code, and it closes itself."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Generator, Iterator

from speech.audio import OnNote, warn
from speech.detection import Detection
from speech.installation import DEFAULT_MODEL
from speech.live.microphone import Block
from speech.live.session import Event, Item, decoder_for, run
from speech.live.sources import Channel, file_blocks, microphone_blocks
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder

_QUIET_EVENTS = ("ready", "exec")


def listen(
    source: str | os.PathLike[str] | None = None,
    model: Recognizer | str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    threshold: float | None = None,
    device: str | int | None = None,
    channel: Channel | None = None,
    on_note: OnNote = warn,
) -> Generator[Detection, None, None]:
    """Detect commands as they are spoken, until the loop is left.

    The microphone is opened when the loop begins, and closed when it ends, whether by ``break``, an
    exception or Ctrl-C. One that is lost is waited for.

    Args:
        source: A recording to listen to instead of a microphone.
        model: As ``load`` takes it, or a model that is loaded.
        threshold: Smoothed probability in (0, 1] that every command has to reach; by default those
            of the model.
        device: Number of a microphone or part of its name; None for the default one.
        channel: Which channel of an array of microphones, from 1, or ``"best"``; None for the mean.
        on_note: Told in a sentence when the microphone is lost or back, muted, too quiet or
            clipping, or when sound is lost.

    Yields:
        Detections, with times in seconds since the beginning.

    Raises:
        AudioError: The recording cannot be read; there is no such channel.
        MicrophoneError: The microphone cannot be opened.
        ModelError: As ``load``.
        ValueError: Source and device are given, or the threshold is out of range.

    Example:
        >>> for detection in speech.listen("seven_words.flac"):  # without a name: the microphone
        ...     print(detection.label, round(detection.time, 1))
        ...     if detection.label == "stop":
        ...         break
        yes 2.0
        left 4.3
        stop 6.2
    """
    decoder = _decoder(source, model, threshold, device, channel)

    def detections() -> Generator[Detection, None, None]:
        with contextlib.closing(_items(source, decoder, device, channel, on_note)) as items:
            for item in items:
                if isinstance(item, Detection):
                    yield item

    return detections()


async def listen_async(
    source: str | os.PathLike[str] | None = None,
    model: Recognizer | str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    threshold: float | None = None,
    device: str | int | None = None,
    channel: Channel | None = None,
    on_note: OnNote = warn,
) -> AsyncGenerator[Detection, None]:
    """The same for ``async for``: the sound is decoded in a thread, and the event loop goes on.

    Args, errors and results are those of ``listen``. ``on_note`` is called from that thread. Use
    ``contextlib.aclosing`` to close the microphone at once where the loop is left early.

    Example:
        >>> import asyncio
        >>> async def first_word(recording):
        ...     async for detection in speech.listen_async(recording):
        ...         return detection.label
        >>> asyncio.run(first_word("seven_words.flac"))
        'yes'
    """
    decoder = _decoder(source, model, threshold, device, channel)
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[Detection | BaseException | None] = asyncio.Queue()
    is_over = threading.Event()

    def tell(result: Detection | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
            loop.call_soon_threadsafe(results.put_nowait, result)

    def decode() -> None:
        try:
            with contextlib.closing(_items(source, decoder, device, channel, on_note)) as items:
                for item in items:
                    if is_over.is_set():
                        return
                    if isinstance(item, Detection):
                        tell(item)
            tell(None)
        except BaseException as error:
            tell(error)

    threading.Thread(target=decode, name="listen", daemon=True).start()
    try:
        while (result := await results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        is_over.set()


def _decoder(
    source: str | os.PathLike[str] | None,
    model: Recognizer | str | os.PathLike[str],
    threshold: float | None,
    device: str | int | None,
    channel: Channel | None,
) -> StreamDecoder:
    if source is not None and (device is not None or channel is not None):
        raise ValueError("expected a recording or a microphone, got both; leave one out")
    return decoder_for(model if isinstance(model, Recognizer) else load(model), threshold)


def _items(
    source: str | os.PathLike[str] | None,
    decoder: StreamDecoder,
    device: str | int | None,
    channel: Channel | None,
    on_note: OnNote,
) -> Generator[Item, None, None]:
    with contextlib.ExitStack() as stack:
        if source is not None:
            blocks: Iterator[Block] = file_blocks(source)
        else:
            rate = decoder.recognizer.features.sample_rate
            blocks = stack.enter_context(microphone_blocks(device, rate, channel=channel))
        for item in run(blocks, decoder):
            if isinstance(item, Event) and item.kind not in _QUIET_EVENTS:
                on_note(item.message)
            yield item
