"""A wake-word service for Home Assistant and others that speak the Wyoming protocol.

An event is a line of JSON with its type, and the lengths of more JSON and of sound that follow it:
https://github.com/OHF-Voice/wyoming. Each client has a task and a decoder of its own. Sound is
decoded in threads, in pieces that take turns, and no more is read from a client before its last
chunk is decoded: so a client that is too fast or too slow delays nobody else, and memory is
bounded.
"""

import asyncio
import contextlib
import dataclasses
import errno
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import Attribution, Describe, Info, WakeModel, WakeProgram
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, NotDetected
from wyoming.wake import Detection as WakeDetection

from speech.audio import MAX_CHANNELS, OnNote, check_rate, warn
from speech.detection import Detection
from speech.errors import SpeechError
from speech.labels import commands
from speech.live.pcm import pcm_samples
from speech.live.session import decoder_for
from speech.recognizer import Recognizer
from speech.stream import StreamDecoder

MAX_CLIENTS = 64
_HEADER_BYTES = _DATA_BYTES = 1 << 16
_PAYLOAD_BYTES = 1 << 20  # 32 s at 16 kHz; a satellite sends a tenth of a second
_PATIENCE_SECONDS = 10.0  # for the rest of an event, and for a client that does not read
_LINGER_SECONDS = 1.0
_PIECE_SECONDS = 0.1
_THREADS = 2
_SERVICE = "_wyoming._tcp.local."
_ABOUT = Attribution("the speech-commands authors", "")


@dataclasses.dataclass(frozen=True)
class Announcement:
    """What is told to the local network by mDNS, so that Home Assistant finds the service.

    Attributes:
        name: Name of the service, at most 63 bytes.
        hosts: The numbers (IPv4 or IPv6) at which others reach this machine.
    """

    name: str
    hosts: Sequence[str]


async def serve(
    service: "WakeService", uri: str, on_ready: OnNote, announcement: Announcement | None = None
) -> None:
    """Serve wake words until the task is canceled.

    Args:
        service: What to serve.
        uri: ``tcp://HOST:PORT``; port 0 takes a free one.
        on_ready: Told the address when clients can connect.
        announcement: What to tell the local network; None for nothing.

    Raises:
        SpeechError: It is no such address, the port is taken, or the network cannot be told.
    """
    host, port = _address(uri)
    try:
        server = await asyncio.start_server(service.attend, host, port, limit=_HEADER_BYTES)
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else "cannot be listened at"
        raise SpeechError(
            f"expected a free address of this machine, got {uri}, which {why}; choose another",
            parameter="uri",
        ) from error
    try:
        port = server.sockets[0].getsockname()[1]
        async with _announced(announcement, port):
            on_ready(f"tcp://{host}:{port}")
            await asyncio.Event().wait()
    finally:
        server.close()
        service.close()


def _address(uri: str) -> tuple[str, int]:
    try:
        parts = urlsplit(uri)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None and not parts.path:
            return parts.hostname, parts.port
    except ValueError:  # a port beyond 65535
        pass
    raise SpeechError(
        f"expected an address such as tcp://127.0.0.1:10400, got {uri!r}; write one",
        parameter="uri",
    )


@contextlib.asynccontextmanager
async def _announced(announcement: Announcement | None, port: int) -> AsyncIterator[None]:
    if announcement is None:
        yield
        return
    from zeroconf import Error as ZeroconfError
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    name = announcement.name
    try:
        network = AsyncZeroconf()
    except OSError as error:
        raise SpeechError(
            f"expected a network to announce the service in, got none ({error}); leave it out",
            parameter="zeroconf",
        ) from error
    async with network:
        try:
            info = AsyncServiceInfo(
                _SERVICE, f"{name}.{_SERVICE}", port, parsed_addresses=list(announcement.hosts)
            )
            await network.async_register_service(info)
        except (ZeroconfError, OSError, ValueError) as error:
            raise SpeechError(
                f"expected a name for the service that is short and not in use, got {name!r} "
                f"({type(error).__name__}); choose another",
                parameter="zeroconf",
            ) from error
        yield


class WakeService:
    """The commands of a model as wake words, for any number of clients up to ``MAX_CLIENTS``.

    Args:
        recognizer: The model.
        version: Of the program, for ``info``.
        threshold: Smoothed probability that every command has to reach; None for the model's.
        on_note: Told in a sentence which client was refused and why.

    Raises:
        ModelError: As ``StreamDecoder``.
        ValueError: The threshold is not in (0, 1].
    """

    def __init__(
        self,
        recognizer: Recognizer,
        version: str,
        threshold: float | None = None,
        on_note: OnNote = warn,
    ) -> None:
        decoder_for(recognizer, threshold)  # with what is wrong at once, and to warm up
        self.words = commands(recognizer.labels)
        self._recognizer, self._threshold = recognizer, threshold
        self._version, self._on_note = version, on_note
        self._threads = ThreadPoolExecutor(_THREADS, "wyoming")
        self._tasks: set[asyncio.Task[Any]] = set()

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it goes, or until what it sends is refused."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = _Client(self, reader, writer)
        try:
            if len(self._tasks) > MAX_CLIENTS:
                raise SpeechError(
                    f"expected at most {MAX_CLIENTS} clients, got another one; try it later"
                )
            await client.run()
        except SpeechError as error:
            self._on_note(f"{_name_of(writer)}: {error}")
            await client.refuse(str(error))
        except TimeoutError:
            self._on_note(f"{_name_of(writer)}: expected a client that reads, got none; it is gone")
        except OSError:
            pass  # it went without a goodbye
        except asyncio.CancelledError:
            pass  # of close(); a canceled handler would be reported as an error
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def close(self) -> None:
        """Let all clients go."""
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def info(self) -> Event:
        """What is offered: a program with a model for each command."""
        models = [
            WakeModel(
                name=word,
                description=f"The word {word!r}",
                phrase=word,
                attribution=_ABOUT,
                installed=True,
                version=self._version,
                languages=[],  # those of whoever taught the word, which no model says
            )
            for word in self.words
        ]
        program = WakeProgram(
            name="speech-commands",
            description=f"Spoken commands of the model {self._recognizer.name}",
            attribution=_ABOUT,
            installed=True,
            version=self._version,
            models=models,
        )
        return Info(wake=[program]).event()

    def decoder(self) -> StreamDecoder:
        """A decoder for another stream."""
        return decoder_for(self._recognizer, self._threshold)

    async def compute(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it in a thread, when it is this one's turn."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


class _Client:
    def __init__(
        self, service: WakeService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._service, self._reader, self._writer = service, reader, writer
        self._decoder: StreamDecoder | None = None
        self._wanted = set(service.words)
        self._begin(None)
        # a machine that was switched off says no goodbye
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _begin(self, timestamp: Any) -> None:
        """Another stream of sound, whose first sample has this time in ms, if that is known."""
        self._timestamp = timestamp if isinstance(timestamp, int) else None
        self._has_detected = False
        if self._decoder is not None:
            self._decoder.reset()

    async def run(self) -> None:
        while (event := await _read_event(self._reader)) is not None:
            if Describe.is_type(event.type):
                await self._write(self._service.info())
            elif Ping.is_type(event.type):
                await self._write(Pong(Ping.from_event(event).text).event())
            elif Detect.is_type(event.type):
                await self._choose(event.data.get("names"))
            elif AudioStart.is_type(event.type):
                _check_format(event)
                self._begin(event.data.get("timestamp"))
            elif AudioChunk.is_type(event.type):
                await self._push(event)
            elif AudioStop.is_type(event.type):
                await self._end()
            # the protocol wants events of other types to be passed over

    async def _choose(self, names: Any) -> None:
        if names is not None and (
            not isinstance(names, list) or not all(isinstance(name, str) for name in names)
        ):
            raise SpeechError(f"detect: expected a list of names, got {str(names)[:50]!r}; send it")
        known = self._service.words
        self._wanted = set(names or known) & set(known)
        if strange := sorted(set(names or ()) - set(known)):
            text = (
                f"detect: expected some of {', '.join(known)}, got {', '.join(strange)[:200]}; "
                "ask for words of the model"
            )
            if not self._wanted:
                raise SpeechError(text)
            await self._tell(Error(text))

    async def _push(self, event: Event) -> None:
        rate, width, channels = _check_format(event)
        data = event.payload or b""
        if len(data) % (width * channels):
            raise SpeechError(
                f"audio-chunk: expected whole samples of {width} bytes in {channels} channels, got "
                f"{len(data)} bytes; send all channels of a sample together"
            )
        if self._timestamp is None and isinstance(began := event.data.get("timestamp"), int):
            self._timestamp = began
        if self._decoder is None:
            self._decoder = await self._service.compute(self._service.decoder)
        samples: npt.NDArray[np.generic] = pcm_samples(data, 8 * width).reshape(-1, channels)
        size = round(rate * _PIECE_SECONDS)
        for first in range(0, len(samples), size):
            piece = samples[first : first + size]
            await self._report(await self._service.compute(self._decoder.push, piece, rate))

    async def _end(self) -> None:
        if self._decoder is not None:
            await self._report(await self._service.compute(self._decoder.flush))
        if not self._has_detected:
            await self._tell(NotDetected())
        self._begin(None)

    async def _report(self, detections: list[Detection]) -> None:
        for detection in detections:
            if detection.label in self._wanted:
                self._has_detected = True
                at = round((self._timestamp or 0) + 1000 * detection.time)
                await self._tell(WakeDetection(name=detection.label, timestamp=at))

    async def _tell(self, message: Eventable) -> None:
        await self._write(message.event())

    async def _write(self, event: Event) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await async_write_event(event, self._writer)

    async def refuse(self, text: str) -> None:
        """Say why, and give the client the time to read it: a reset would take it away."""
        with contextlib.suppress(OSError, TimeoutError):
            await self._tell(Error(text))
            self._writer.write_eof()
            async with asyncio.timeout(_LINGER_SECONDS):
                while await self._reader.read(_HEADER_BYTES):
                    pass


async def _read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event; None where the client has gone.

    ``wyoming.event.async_read_event`` would wait for a gigabyte if a header says so.

    Raises:
        SpeechError: It is none, too long, or not all of it comes.
    """
    first = await reader.read(1)
    if not first:
        return None
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            line = first + await reader.readline()
            if not line.endswith(b"\n"):
                raise asyncio.IncompleteReadError(line, None)
            header = json.loads(line)
            kind, data = header["type"], header.get("data") or {}
            more = _length(header, "data_length", _DATA_BYTES)
            size = _length(header, "payload_length", _PAYLOAD_BYTES)
            if more:
                data = data | json.loads(await reader.readexactly(more))
            payload = await reader.readexactly(size) if size else None
        if not isinstance(kind, str) or not isinstance(data, dict):
            raise TypeError(kind)
    except (asyncio.IncompleteReadError, TimeoutError) as error:
        raise SpeechError("expected a whole event, got a part of one; send all of it") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SpeechError(
            f"expected a line of JSON with a type, at most {_HEADER_BYTES} bytes, got something "
            "else; is this a Wyoming client?"
        ) from error
    return Event(kind, data, payload)


def _length(header: dict[str, Any], name: str, most: int) -> int:
    length = header.get(name) or 0
    if not isinstance(length, int) or not 0 <= length <= most:
        raise SpeechError(
            f"expected a {name} of 0 to {most}, got {str(length)[:20]}; send shorter pieces"
        )
    return length


def _check_format(event: Event) -> tuple[int, int, int]:
    """Rate in Hz, bytes of a sample, and channels."""
    name, form = event.type, event.data
    rate, width, channels = (form.get(key) for key in ("rate", "width", "channels"))
    hertz = check_rate(rate, name)
    if width not in (1, 2, 3, 4):
        raise SpeechError(
            f"{name}: expected a width of 1 to 4 bytes, got {str(width)[:20]}; convert the sound"
        )
    if not isinstance(channels, int) or not 1 <= channels <= MAX_CHANNELS:
        raise SpeechError(
            f"{name}: expected 1 to {MAX_CHANNELS} channels, got {str(channels)[:20]}; "
            "send some of them"
        )
    return hertz, int(width), channels


def _name_of(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return f"client {peer[0]}:{peer[1]}" if peer else "a client"
