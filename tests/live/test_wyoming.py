"""The wake-word service through real sockets, by the client and the events of its protocol."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("wyoming")
pytest.importorskip("zeroconf")
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

import speech
from speech.audio import load_audio
from speech.live import wyoming
from speech.live.wyoming import WakeService, serve
from tests.e2e import tones
from tests.e2e.tones import RATE, said

ROOT = Path(__file__).parents[2]
SEVEN = ROOT / "speech" / "web" / "static" / "examples" / "seven_words.flac"
WORD = said([(0.5, "low")], 1.5)

pytestmark = pytest.mark.timeout(120)
Talk = Callable[[str], Awaitable[None]]


def served(talk: Talk, recognizer: speech.Recognizer | None = None) -> list[str]:
    """Serve on a free port while a client talks; what the service noted of its clients."""
    notes: list[str] = []

    async def run() -> None:
        service = WakeService(recognizer or tones.recognizer(), "1.2.3", on_note=notes.append)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(service, "tcp://127.0.0.1:0", ready.set_result))
        await talk(await asyncio.wait_for(ready, 60))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return notes


def pcm(samples: np.ndarray, width: int) -> bytes:
    """Of any width, by arithmetic of this test's own."""
    whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        return (whole + 128).astype(np.uint8).tobytes()
    return b"".join(int(n).to_bytes(width, "little", signed=True) for n in whole.ravel())


async def send(
    client: AsyncClient,
    samples: np.ndarray,
    rate: int = RATE,
    width: int = 2,
    n: int = 1024,
    timestamp: int | None = None,
) -> None:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    await client.write_event(AudioStart(rate, width, channels).event())
    for first in range(0, len(samples), n):
        data = pcm(samples[first : first + n], width)
        at = None if timestamp is None else timestamp + 1000 * first // rate
        await client.write_event(AudioChunk(rate, width, channels, data, at).event())
    await client.write_event(AudioStop().event())


async def answers(client: AsyncClient) -> list[tuple[str, int]]:
    """Name and time of what is detected up to the answer to a ping."""
    await client.write_event(Ping("end").event())
    found = []
    while (event := await client.read_event()) is not None and not Pong.is_type(event.type):
        if Detection.is_type(event.type):
            assert event.data["timestamp"] is not None
            found.append((str(event.data["name"]), int(event.data["timestamp"])))
        else:
            found.append((event.type, 0))
    return found


def test_info_offers_each_command_as_a_model_and_a_ping_is_answered():
    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Describe().event())
            [program] = Info.from_event(await client.read_event()).wake
            assert [model.name for model in program.models] == ["low", "high"]
            assert all(model.installed and model.phrase for model in program.models)
            assert program.version == "1.2.3"
            await client.write_event(Event("unheard-of"))  # passed over, as the protocol wants it
            await client.write_event(Ping("again").event())
            assert (await client.read_event()).data["text"] == "again"

    assert served(talk) == []


def test_words_of_a_recording_are_detected_as_in_a_scan_of_it():
    model = speech.load()
    expected = [(d.label, round(1000 * d.time)) for d in speech.scan(SEVEN, model)]
    assert len(expected) == 7

    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Detect().event())
            await send(client, load_audio(SEVEN, max_seconds=60))
            assert await answers(client) == expected

    assert served(talk, model) == []


def test_only_the_words_that_were_asked_for_are_told_and_their_lack_too():
    words = said([(0.5, "low"), (2.0, "high")], 4.0)

    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Detect(names=["high"]).event())
            await send(client, words)
            assert [name for name, _ in await answers(client)] == ["high"]
            await send(client, WORD)
            assert await answers(client) == [("not-detected", 0)]
            await client.write_event(Detect(names=["high", "horse"]).event())
            event = await client.read_event()
            assert event is not None
            assert "expected some of low, high, got horse; " in Error.from_event(event).text
            await client.write_event(Detect(names=[]).event())
            await send(client, words)
            assert [name for name, _ in await answers(client)] == ["low", "high"]
            await client.write_event(AudioStop().event())
            event = await client.read_event()
            assert event is not None
            assert NotDetected.is_type(event.type)

    assert served(talk) == []


def test_times_are_those_of_the_client_and_begin_anew_with_each_stream():
    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await send(client, WORD)
            [(_, at)] = await answers(client)
            await send(client, WORD, timestamp=60_000)
            assert await answers(client) == [("low", 60_000 + at)]
            await send(client, WORD)
            assert await answers(client) == [("low", at)]
            assert 900 <= at <= 1500

    served(talk)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sound_of_any_width_rate_and_number_of_channels_is_converted(width):
    word = said([(0.5, "high")], 1.6, 44_100)
    stereo = np.stack([word, word, word], axis=1)

    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await send(client, stereo, 44_100, width, 4410)
            assert [name for name, _ in await answers(client)] == ["high"]

    assert served(talk) == []


def line(**header: Any) -> bytes:
    return json.dumps(header).encode() + b"\n"


def chunk(payload: bytes = b"", **changes: Any) -> bytes:
    data = {"rate": RATE, "width": 2, "channels": 1} | changes
    return line(type="audio-chunk", data=data, payload_length=len(payload)) + payload


REFUSED = {
    "half a header": (b'{"type": "descr', "a whole event"),
    "half of the sound": (chunk(bytes(100))[:-1], "a whole event"),
    "no JSON": (b"GET / HTTP/1.1\r\n", "a line of JSON"),
    "a line without end": (b"x" * 200_000, "a line of JSON"),
    "JSON that is no event": (b"[1, 2]\n", "a line of JSON"),
    "JSON too deep": (b"[" * 50_000 + b"\n", "a line of JSON"),
    "no type": (line(data={}), "a line of JSON"),
    "data that is a list": (line(type="detect", data=[1]), "a line of JSON"),
    "data that is no JSON": (line(type="detect", data_length=3) + b"{]}", "a line of JSON"),
    "a gigabyte": (line(type="audio-chunk", payload_length=1 << 30), "a payload_length of 0 to"),
    "a gigabyte of data": (line(type="detect", data_length=1 << 30), "a data_length of 0 to"),
    "less than nothing": (line(type="detect", payload_length=-1), "a payload_length of 0 to"),
    "a length in words": (line(type="detect", data_length="many"), "a data_length of 0 to"),
    "names that are none": (line(type="detect", data={"names": "low"}), "a list of names"),
    "only unknown names": (line(type="detect", data={"names": ["horse"]}), "some of low, high"),
    "no rate": (line(type="audio-start", data={"width": 2, "channels": 1}), "a rate of 8000 to"),
    "a rate of ten": (chunk(rate=10), "a rate of 8000 to"),
    "a rate in words": (chunk(rate="16000"), "a rate of 8000 to"),
    "a width of five": (chunk(width=5), "a width of 1 to 4 bytes"),
    "no channels": (chunk(channels=0), "1 to 32 channels"),
    "half a sample": (chunk(bytes(7)), "whole samples of 2 bytes in 1 channels"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_event_of_this_protocol_is_refused_in_a_sentence_and_disturbs_nobody(what):
    data, expected = REFUSED[what]

    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as other:
            await other.write_event(AudioStart(RATE, 2, 1).event())
            reader, writer = await asyncio.open_connection("127.0.0.1", int(uri.split(":")[-1]))
            writer.write(data)
            writer.write_eof()
            event = await async_read_event(reader)
            assert event is not None
            assert await reader.read() == b"", "it is closed"
            writer.close()
            text = Error.from_event(event).text
            assert f"expected {expected}" in text
            assert "got " in text
            assert len(text) < 300
            await send(other, WORD)
            assert [name for name, _ in await answers(other)] == ["low"]

    [note] = served(talk)
    assert expected in note
    assert note.startswith("client 127.0.0.1:")


async def send_for_ever(deaf: socket.socket, asked: bytes) -> None:
    """Until all buffers are full, and longer."""
    while True:
        try:
            deaf.send(100 * asked)
        except BlockingIOError:
            await asyncio.sleep(0.05)


def test_an_event_that_never_ends_and_answers_that_nobody_reads_end_a_client_and_no_other(
    monkeypatch,
):
    monkeypatch.setattr(wyoming, "_PATIENCE_SECONDS", 0.3)

    async def talk(uri: str) -> None:
        port = int(uri.split(":")[-1])
        half = await asyncio.open_connection("127.0.0.1", port)
        half[1].write(b'{"type": "descr')
        deaf = socket.create_connection(("127.0.0.1", port))
        deaf.setblocking(False)
        async with AsyncClient.from_uri(uri) as other:
            with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
                await send_for_ever(deaf, line(type="describe"))
            event = await async_read_event(half[0])
            assert event is not None
            assert "a whole event" in Error.from_event(event).text
            await send(other, WORD)
            assert [name for name, _ in await answers(other)] == ["low"]
        half[1].close()
        deaf.close()

    assert len(served(talk)) == 2


def test_fifty_clients_at_once_are_each_answered_as_if_alone():
    async def one(uri: str, word: str) -> list[str]:
        async with AsyncClient.from_uri(uri) as client:
            await send(client, said([(0.5, word)], 1.5))
            return [name for name, _ in await answers(client)]

    async def talk(uri: str) -> None:
        words = [("low", "high")[n % 2] for n in range(50)]
        found = await asyncio.gather(*(one(uri, word) for word in words))
        assert found == [[word] for word in words]

    assert served(talk) == []


def test_one_client_too_many_is_told_so_and_the_others_stay(monkeypatch):
    monkeypatch.setattr(wyoming, "MAX_CLIENTS", 2)

    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as first, AsyncClient.from_uri(uri) as second:
            for client in (first, second):
                assert await answers(client) == []
            async with AsyncClient.from_uri(uri) as third:
                event = await third.read_event()
                assert event is not None
                assert "expected at most 2 clients" in Error.from_event(event).text
            await send(first, WORD)
            assert [name for name, _ in await answers(first)] == ["low"]

    assert len(served(talk)) == 1


def test_what_a_client_sends_without_end_is_held_back_by_its_socket(held_by_speech):
    """It sends faster than is decoded: the rest has to wait in the sender, not in memory here."""

    async def talk(uri: str) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await send(client, WORD)
            await answers(client)
            before = held_by_speech()
            second = chunk(bytes(2 * RATE))
            writer = client._writer
            assert writer is not None
            writer.transport.set_write_buffer_limits(high=0)
            sent = 0
            while sent < 60 * len(second):
                writer.write(second)
                sent += len(second)
                await writer.drain()
            assert held_by_speech() - before < 2_000_000
            assert await answers(client) == []

    served(talk)


# --- the command ---------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.e2e.tones", "wyoming", *arguments]


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """The running command, and the address that it tells."""
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    said_at_first = process.stderr.readline()
    while "warning: others" in said_at_first:
        said_at_first = process.stderr.readline()
    assert "wake words low, high at " in said_at_first
    return process, said_at_first.split(" at ")[1].split(";")[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended_also_while_a_client_is_there(number):
    process, uri = started("--uri", "tcp://127.0.0.1:0", "--threshold", "0.75")

    async def talk() -> None:
        async with AsyncClient.from_uri(uri) as client:
            await send(client, WORD)
            assert [name for name, _ in await answers(client)] == ["low"]
            process.send_signal(number)
            assert await client.read_event() is None

    asyncio.run(talk())
    assert process.wait() == 0
    assert process.communicate()[1] == ""


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("tcp://192.0.2.77:10400", "which cannot be listened at"),
        ("http://127.0.0.1:10400", "expected an address such as tcp://127.0.0.1:10400"),
        ("tcp://127.0.0.1:70000", "expected an address such as tcp://127.0.0.1:10400"),
        ("127.0.0.1", "expected an address such as tcp://127.0.0.1:10400"),
    ],
)
def test_an_address_at_which_nothing_can_listen_is_refused(uri, expected, refused):
    service = WakeService(tones.recognizer(), "1.2.3")
    message = refused(speech.SpeechError, lambda: asyncio.run(serve(service, uri, print)))
    assert expected in message


def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        uri = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        result = subprocess.run(
            command("--uri", uri), stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert result.returncode == 1
    assert result.stderr == (
        f"speech: expected a free address of this machine, got {uri}, which is taken; "
        "choose another (--uri)\n"
    )


def test_announced_by_name_the_service_is_found_in_the_network():
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    from speech.web.address import own_numbers

    if not own_numbers():
        pytest.skip("this machine has no network")
    process, uri = started("--uri", "tcp://0.0.0.0:0", "--zeroconf", "kitchen of this test")

    async def look() -> AsyncServiceInfo:
        name = "kitchen of this test._wyoming._tcp.local."
        async with AsyncZeroconf() as network:
            info = AsyncServiceInfo("_wyoming._tcp.local.", name)
            assert await info.async_request(network.zeroconf, 10_000)
            return info

    try:
        found = asyncio.run(look())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == ""
    assert found.port == int(uri.split(":")[-1])
    assert set(found.parsed_addresses()) & set(own_numbers())


def test_an_announcement_of_an_address_that_nobody_reaches_is_refused():
    result = subprocess.run(
        command("--zeroconf", "kitchen"), stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 2
    assert "tcp://0.0.0.0:10400" in result.stderr
