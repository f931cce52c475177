"""The microphone as a stream of blocks that survives what happens to microphones."""

import atexit
import contextlib
import functools
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import MAX_CHANNELS
from speech.errors import MicrophoneError
from speech.installation import install_command

_LOOK_SECONDS = 0.2
_STALLED_SECONDS = 3.0  # callbacks can stop while PortAudio still calls the stream active
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 2.0
_LET_GO_SECONDS = 20.0  # for a stream that is lost, before another one can be opened
_DEVICES = Path("/dev/snd")
_BUSY = -9985  # paDeviceUnavailable
_HW = re.compile(r"\s*\((plug)?hw:\d+,\d+\)$")  # where ALSA found it, which changes on replugging


class Device(NamedTuple):
    """An input that PortAudio knows: number, name, channels, and its own rate in Hz."""

    number: int
    name: str
    channels: int
    sample_rate: int


class Block(NamedTuple):
    """A piece of sound, or word of what happened to it.

    Attributes:
        samples: int16 or float32, (n,) or (n, channels); empty when ``event`` is set.
        sample_rate: Rate in Hz at which they were recorded.
        event: "" for sound; "ready" when it begins, "lost" when there will be none until "back",
            "note" for a remark that interrupts nothing.
        message: The event as a sentence for the user.
        dropped: Blocks that were lost so far since the reader was too slow.
        overflows: How often the sound system said so far that it had lost samples itself.
        device: What records, beside "ready"; None where it is no device.
    """

    samples: npt.NDArray[Any]
    sample_rate: int
    event: Literal["", "ready", "lost", "back", "note"] = ""
    message: str = ""
    dropped: int = 0
    overflows: int = 0
    device: Device | None = None


def devices() -> list[Device]:
    """All inputs, at least one.

    Raises:
        MicrophoneError: sounddevice or PortAudio is missing, no sound system answers, or it has no
            input.
    """
    found = [device for device in _query_devices() if device.channels > 0]
    if not found:
        raise MicrophoneError(f"expected a microphone, got none; {_why_none()}")
    return found


def _why_none() -> str:
    """What to do where no input is found; on Linux the devices of the kernel tell."""
    if not sys.platform.startswith("linux"):
        return "plug one in"
    if not _DEVICES.is_dir():
        return (
            f"plug one in, or start the sound server ({_DEVICES} does not exist: a container or "
            "virtual machine has no sound card unless it is given one)"
        )
    inputs = [path for path in _DEVICES.glob("pcm*c") if not os.access(path, os.R_OK | os.W_OK)]
    if inputs:
        return (
            f"this user may not open {inputs[0]}: join the group audio with "
            "'sudo usermod -aG audio $USER' and log in again"
        )
    return "plug one in, or start the sound server"


def play(samples: npt.NDArray[np.float32], sample_rate: int) -> None:
    """Play mono samples (n,) through the default output, to their end; Ctrl-C ends it.

    Raises:
        MicrophoneError: sounddevice or PortAudio is missing, or there is no output.
    """
    sd = _sounddevice()
    try:
        sd.play(samples, sample_rate)
        sd.wait()
    except sd.PortAudioError as error:
        raise MicrophoneError(
            f"expected a loudspeaker to play to, got the error {_portaudio_error(error)[0]!r}; "
            "plug one in"
        ) from error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what PortAudio and ALSA write to descriptor 2 from the terminal."""
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(2), "w", buffering=1) as ours,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(ours),
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(ours.fileno(), 2)


class Microphone:
    """Records from a device until it is closed; a context manager.

    PortAudio's callback only copies and queues. A reader that is too slow loses the oldest blocks,
    which are counted, and never holds the callback up. What PortAudio is asked to do is done in
    another thread, since a sound server that hangs would keep Ctrl-C waiting.

    Args:
        device: Number or part of the name; None for the default input. One that is lost is looked
            for by its name, since numbers change when something is plugged in.
        sample_rate: The rate in Hz to try first; a device that refuses it records at its own.
        channels: How many to record; None for one, or all of a device that refuses one.
        block_seconds: Length of a block.
        queue_seconds: How much may wait for the reader.

    Attributes:
        opened: The device in use; None before it is opened.
        sample_rate: The rate in Hz at which it records.
        dropped: Blocks lost since the reader was too slow.
        overflows: Losses that the sound system reported.
    """

    def __init__(
        self,
        device: int | str | None = None,
        sample_rate: int = 16_000,
        *,
        channels: int | Literal["all"] | None = None,
        block_seconds: float = 0.05,
        queue_seconds: float = 3.0,
    ) -> None:
        self.opened: Device | None = None
        self.sample_rate = sample_rate
        self.dropped = 0
        self.overflows = 0
        self._wanted = device
        self._wanted_rate = sample_rate
        self._wanted_channels = channels
        self._block_seconds = block_seconds
        self._queue: queue.Queue[tuple[npt.NDArray[np.int16], int]] = queue.Queue(
            max(1, round(queue_seconds / block_seconds))
        )
        self._last_callback = 0.0
        self._stream: Any = None

    def __enter__(self) -> "Microphone":
        """Open the device.

        Raises:
            MicrophoneError: As ``devices``; no such device, more than one of that name, fewer
                channels than wanted, or it cannot be opened, for example since it is busy.
        """
        _run_interruptible(self._open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _run_interruptible(self._close, _CLOSE_SECONDS)

    def blocks(self) -> Iterator[Block]:
        """Sound as it comes, for ever; a device that is lost is looked for until it is back.

        Raises:
            MicrophoneError: The sound system does not let go of a device that is lost.
        """
        rate = self.sample_rate
        while True:
            try:
                samples, rate = self._queue.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._alive():
                    continue
                yield self._event(rate, "lost", "the microphone was lost; waiting for it")
                self._reopen()
                name = self.opened.name if self.opened else "?"
                yield self._event(rate, "back", f"the microphone is back: {name}")
            else:
                yield Block(samples, rate, dropped=self.dropped, overflows=self.overflows)

    def _event(self, rate: int, event: Literal["lost", "back"], message: str) -> Block:
        nothing = np.zeros((0, 1), np.int16)
        return Block(nothing, rate, event, message, self.dropped, self.overflows)

    def _alive(self) -> bool:
        if self._stream is None:
            return False
        try:
            active = bool(self._stream.active)
        except Exception:  # asked of a stream that PortAudio has given up
            active = False
        return active and time.monotonic() - self._last_callback < _STALLED_SECONDS

    def _open(self) -> None:
        sd = _sounddevice()
        device = self._choose(sd)
        failure: Exception | None = None
        for rate in dict.fromkeys((self._wanted_rate, device.sample_rate)):
            for channels in self._channels(device):
                try:
                    self._start(sd, device, rate, channels)
                except sd.PortAudioError as error:
                    failure = error
                else:
                    return
        reason, code = _portaudio_error(failure)
        got = "one that is busy" if code == _BUSY else f"the error {reason!r}"
        raise MicrophoneError(
            f"device {device.number} {device.name!r}: expected a microphone that can be opened, "
            f"got {got}; close other programs that use it, or choose another",
            parameter="device",
        ) from failure

    def _channels(self, device: Device) -> tuple[int, ...]:
        wanted = self._wanted_channels
        if wanted is None:
            return tuple(dict.fromkeys((1, min(device.channels, MAX_CHANNELS))))
        if wanted == "all":
            return (min(device.channels, MAX_CHANNELS),)
        if not 1 <= wanted <= min(device.channels, MAX_CHANNELS):
            raise MicrophoneError(
                f"device {device.number} {device.name!r}: expected 1 to "
                f"{min(device.channels, MAX_CHANNELS)} channels, got {wanted}; choose as many",
                parameter="channels",
            )
        return (wanted,)

    def _start(self, sd: Any, device: Device, rate: int, channels: int) -> None:
        stream = sd.InputStream(
            device=device.number,
            samplerate=rate,
            channels=channels,
            dtype="int16",
            blocksize=round(rate * self._block_seconds),
            callback=functools.partial(self._receive, rate),
        )
        self._last_callback = time.monotonic()
        try:
            stream.start()
        except sd.PortAudioError:
            stream.close()
            raise
        self.opened, self.sample_rate, self._stream = device, rate, stream

    def _choose(self, sd: Any) -> Device:
        found = devices()
        listed = ", ".join(f"{device.number} {device.name!r}" for device in found)
        wanted = self._wanted
        if wanted is None:
            try:
                wanted = int(sd.query_devices(None, "input")["index"])
            except (sd.PortAudioError, ValueError) as error:
                raise MicrophoneError(
                    f"expected a default input, got none; choose one of {listed}",
                    parameter="device",
                ) from error
        elif self.opened is not None and isinstance(wanted, int):
            wanted = _HW.sub("", self.opened.name)
        chosen = _find_devices(found, wanted)
        if self.opened is not None and len(chosen) > 1:
            chosen = [d for d in chosen if d.number == self.opened.number] or chosen[:1]
        if len(chosen) == 1:
            return chosen[0]
        got = "more than one of that name" if chosen else "no such input"
        if not chosen and _find_devices(_query_devices(), wanted):
            got = "one that has no input channels"
        raise MicrophoneError(
            f"device {wanted!r}: expected one of {listed}, got {got}; "
            "choose by number, or with more of the name",
            parameter="device",
        )

    def _receive(
        self, rate: int, samples: npt.NDArray[np.int16], _frames: int, _time: Any, status: Any
    ) -> None:
        # PortAudio's thread: copy, queue, return
        self._last_callback = time.monotonic()
        if status.input_overflow:
            self.overflows += 1
        block = samples.copy(), rate
        while True:
            try:
                return self._queue.put_nowait(block)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.dropped += 1

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(Exception):  # a server that is gone cannot be told goodbye
                stream.close(ignore_errors=True)

    def _reopen(self) -> None:
        if not _run_interruptible(self._close, _LET_GO_SECONDS):
            # ALSA's plugin for PulseAudio can lock itself up when its server dies, and PortAudio
            # with it: nothing in this process opens a device any more
            raise MicrophoneError(
                "expected the sound system to let go of the lost microphone within "
                f"{_LET_GO_SECONDS:g} s, got no answer; start the program again"
            )
        while True:
            try:
                _run_interruptible(self._look_again)
            except MicrophoneError:
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _look_again(self) -> None:
        sd = _sounddevice()
        # only this makes PortAudio look for devices again
        with contextlib.suppress(sd.PortAudioError):
            sd._terminate()
        with contextlib.suppress(sd.PortAudioError):
            sd._initialize()
        self._open()


def _portaudio_error(error: Exception | None) -> tuple[str, int]:
    # the str of a PortAudioError asks PortAudio, which may be what is gone
    args = error.args if error else ()
    return str(args[0]) if args else "unknown", args[1] if len(args) > 1 else 0


def _find_devices(found: list[Device], wanted: int | str) -> list[Device]:
    if isinstance(wanted, int):
        return [device for device in found if device.number == wanted]
    name = wanted.lower()
    exact = [device for device in found if device.name.lower() == name]
    return exact or [device for device in found if name in device.name.lower()]


def _query_devices() -> list[Device]:
    sd = _sounddevice()
    try:
        found = sd.query_devices()
    except sd.PortAudioError as error:
        raise MicrophoneError(
            f"expected a sound system, got the error {_portaudio_error(error)[0]!r}; "
            "start the sound server"
        ) from error
    return [
        Device(number, d["name"], d["max_input_channels"], round(d["default_samplerate"]))
        for number, d in enumerate(found)
    ]


def _run_interruptible(action: Callable[[], None], seconds: float | None = None) -> bool:
    """Do it in another thread and wait for it, which Ctrl-C interrupts; whether it is done."""
    done = threading.Event()
    failure: list[Exception] = []

    def act() -> None:
        try:
            action()
        except Exception as error:
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=act, name="microphone", daemon=True).start()
    try:
        done.wait(seconds)
    finally:
        if not done.is_set():
            # it would hang in the same way when Python ends
            atexit.unregister(
                getattr(sys.modules.get("sounddevice"), "_exit_handler", _run_interruptible)
            )
    if failure:
        raise failure[0]
    return done.is_set()


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MicrophoneError(
            "expected the package sounddevice to record from a microphone, got none; "
            f"install it with: {install_command('mic')}"
        ) from error
    except OSError as error:  # the package is there, its library is not
        raise MicrophoneError(
            "expected the PortAudio library, got none; "
            "install it: apt-get install libportaudio2, or brew install portaudio"
        ) from error
    return sounddevice
