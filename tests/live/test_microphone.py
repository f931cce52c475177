"""Microphones and what happens to them, with a PortAudio that does what the test says."""

import importlib
import re
import sys
import threading
import time
import types
from typing import Any

import numpy as np
import pytest

from speech.errors import MicrophoneError
from speech.installation import install_command
from speech.live import microphone
from speech.live.microphone import Block, Device, Microphone, devices

SPEAKER = ("Speaker", 0, 48_000)
BUILT_IN = ("Built-in microphone", 1, 44_100)
USB = ("USB headset: Audio (hw:1,0)", 2, 48_000)
BUSY, WRONG_RATE, WRONG_CHANNELS = -9985, -9997, -9998


class PortAudioError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("sounddevice asks PortAudio here")


class Flags(types.SimpleNamespace):
    input_overflow = False


class Stream:
    """An input stream; the test is the sound card and calls ``hear``."""

    def __init__(self, fake: "FakeSoundDevice", **given: Any) -> None:
        self.given, self.active, self.closed = given, False, False
        number, channels, rate = given["device"], given["channels"], given["samplerate"]
        fake.refuse(number, channels, rate)
        self.close_waits_for: threading.Event | None = None

    def start(self) -> None:
        self.active = True

    def close(self, ignore_errors: bool = True) -> None:
        if self.close_waits_for:
            self.close_waits_for.wait()
        self.active, self.closed = False, True

    def hear(self, value: int, overflow: bool = False) -> None:
        buffer = np.full((self.given["blocksize"], self.given["channels"]), value, np.int16)
        self.given["callback"](buffer, len(buffer), None, Flags(input_overflow=overflow))
        buffer[:] = -1  # PortAudio uses it again


class FakeSoundDevice(types.ModuleType):
    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.present = [SPEAKER, BUILT_IN, USB]
        self.default = 1
        self.after_looking: list[list[tuple[str, int, int]] | Exception] = []
        self.looks = 0
        self.streams: list[Stream] = []
        self.refusals: dict[str, Any] = {}

    def refuse(self, number: int, channels: int, rate: int) -> None:
        if "busy" in self.refusals:
            raise PortAudioError("Device unavailable", BUSY)
        if rate not in self.refusals.get("rates", (rate,)):
            raise PortAudioError("Invalid sample rate", WRONG_RATE)
        if channels not in self.refusals.get("channels", (channels,)):
            raise PortAudioError("Invalid number of channels", WRONG_CHANNELS)

    def query_devices(self, device: int | None = None, kind: str = "") -> Any:
        known = [
            {"name": n, "index": i, "max_input_channels": c, "default_samplerate": float(r)}
            for i, (n, c, r) in enumerate(self.present)
        ]
        if not kind:
            return known
        if self.default >= len(known):
            raise PortAudioError("Error querying device -1")
        return known[self.default]

    def InputStream(self, **given: Any) -> Stream:
        self.streams.append(Stream(self, **given))
        return self.streams[-1]

    def _terminate(self) -> None: ...

    def _initialize(self) -> None:
        self.looks += 1
        if self.after_looking:
            found = self.after_looking.pop(0)
            if isinstance(found, Exception):
                raise found
            self.present = found


@pytest.fixture
def card(monkeypatch):
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(microphone, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(microphone, "_LOOK_SECONDS", 0.01)
    return fake


def opened(device: int | str | None = None, **given: Any) -> Microphone:
    return Microphone(device, **given).__enter__()


def take(found, count: int) -> list[Block]:
    return [next(found) for _ in range(count)]


def test_only_inputs_are_listed(card):
    assert devices() == [Device(1, *BUILT_IN), Device(2, *USB)]


@pytest.mark.parametrize(
    ("chosen", "number"),
    [(None, 1), (1, 1), (2, 2), ("usb", 2), ("BUILT-IN MICROPHONE", 1), ("headset", 2)],
)
def test_a_device_is_chosen_by_number_or_by_part_of_its_name(card, chosen, number):
    assert opened(chosen).opened == devices()[number - 1]
    assert card.streams[-1].given["device"] == number


def test_a_whole_name_wins_over_a_part_of_another_one(card):
    card.present = [("pulse", 32, 44_100), ("pulse (old)", 2, 44_100)]
    assert opened("Pulse").opened == Device(0, "pulse", 32, 44_100)


def test_the_first_rate_to_be_tried_is_the_models(card):
    with Microphone(1, 16_000, block_seconds=0.05):
        given = card.streams[-1].given
    assert (given["samplerate"], given["blocksize"], given["channels"]) == (16_000, 800, 1)
    assert card.streams[-1].closed


def test_a_device_that_refuses_the_models_rate_records_at_its_own(card):
    card.refusals["rates"] = (48_000,)
    with Microphone("usb", 16_000) as heard:
        card.streams[-1].hear(5)
        block = next(heard.blocks())
    assert (block.sample_rate, len(block.samples)) == (48_000, 2400)


def test_a_device_that_refuses_mono_records_all_its_channels(card):
    card.refusals["channels"] = (2,)
    with Microphone("usb") as heard:
        card.streams[-1].hear(5)
        assert next(heard.blocks()).samples.shape == (800, 2)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (7, "device 7: expected one of 1 'Built-in microphone', 2 'USB .* got no such input"),
        ("piano", "device 'piano': expected one of 1 .* got no such input"),
        ("o", "got more than one of that name"),
        (0, "device 0: .* got one that has no input channels"),
        ("speaker", "got one that has no input channels"),
    ],
)
def test_a_device_that_is_none_is_refused_and_the_others_are_named(card, refused, chosen, said):
    assert re.search(said, refused(MicrophoneError, lambda: opened(chosen)))


@pytest.mark.parametrize("channels", [0, 3])
def test_a_wrong_number_of_channels_is_refused(card, refused, channels):
    said = refused(MicrophoneError, lambda: opened("usb", channels=channels))
    assert f"expected 1 to 2 channels, got {channels}" in said
    assert not card.streams


def test_a_busy_device_is_called_busy(card, refused):
    card.refusals["busy"] = True
    assert "got one that is busy; close other" in refused(MicrophoneError, opened)


def test_a_device_that_takes_nothing_is_refused_with_portaudios_reason(card, refused):
    card.refusals["rates"] = ()
    assert "'Invalid sample rate'" in refused(MicrophoneError, opened)


def test_without_any_device_one_has_to_be_plugged_in(card, refused):
    card.present = [SPEAKER]
    for call in (devices, opened, lambda: opened("usb")):
        assert "expected a microphone, got none; plug one in" in refused(MicrophoneError, call)


def test_a_device_whose_all_channels_are_wanted_records_them(card):
    with Microphone("usb", channels="all"):
        assert card.streams[-1].given["channels"] == 2


def test_without_any_device_what_linux_knows_of_them_is_told(card, refused, monkeypatch, tmp_path):
    card.present = [SPEAKER]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(microphone, "_DEVICES", tmp_path / "snd")
    assert "snd does not exist" in refused(MicrophoneError, devices)
    (tmp_path / "snd").mkdir()
    assert "plug one in" in refused(MicrophoneError, devices)
    (tmp_path / "snd" / "pcmC0D0c").touch()
    assert "plug one in" in refused(MicrophoneError, devices)
    monkeypatch.setattr("os.access", lambda *_: False)
    message = refused(MicrophoneError, devices)
    assert "pcmC0D0c: join the group audio" in message
    assert "usermod -aG audio" in message


def test_without_a_default_the_others_are_named(card, refused):
    card.default = 9
    assert "choose one of 1 'Built-in" in refused(MicrophoneError, opened)


def test_without_a_sound_system_there_is_a_sentence(card, refused, monkeypatch):
    def query_devices() -> None:
        raise PortAudioError("PortAudio not initialized")

    monkeypatch.setattr(card, "query_devices", query_devices)
    assert "'PortAudio not initialized'; start" in refused(MicrophoneError, devices)


def test_without_the_package_or_its_library_their_installation_is_told(
    refused, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for call in (devices, opened):
        assert install_command("mic") in refused(MicrophoneError, call)
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for call in (devices, opened):
        assert "apt-get install libportaudio2" in refused(MicrophoneError, call)


def test_the_blocks_are_what_the_callback_got_in_its_order(card):
    with Microphone() as heard:
        for value in range(5):
            card.streams[-1].hear(value)
        blocks = take(heard.blocks(), 5)
    for value, block in enumerate(blocks):
        assert block.samples.dtype == np.int16
        assert (block.samples == value).all()
        assert not block.event


def test_a_slow_reader_loses_the_oldest_blocks_and_they_are_counted(card):
    with Microphone(block_seconds=0.1, queue_seconds=1.0) as heard:
        for value in range(1000):
            card.streams[-1].hear(value)  # would never return if it waited for the reader
        blocks = take(heard.blocks(), 10)
    assert [int(block.samples[0, 0]) for block in blocks] == [*range(990, 1000)]
    assert heard.dropped == blocks[-1].dropped == 990


def test_overflows_of_the_sound_system_are_counted(card):
    with Microphone() as heard:
        for overflow in (False, True, True):
            card.streams[-1].hear(1, overflow)
        assert take(heard.blocks(), 3)[-1].overflows == 2


def lose(card: FakeSoundDevice, found) -> Block:
    card.streams[-1].active = False
    return next(found)


def recover(card: FakeSoundDevice, found) -> Block:
    """The block that says so; what the device says after that is heard."""
    block = next(found)
    card.streams[-1].hear(42)
    assert (next(found).samples == 42).all()
    return block


def test_a_lost_device_is_told_and_looked_for_until_it_is_back(card):
    with Microphone("usb") as heard:
        found = heard.blocks()
        card.streams[-1].hear(1)
        assert not next(found).event
        first = card.streams[-1]
        lost = lose(card, found)
        assert (lost.event, lost.message) == (
            "lost",
            "the microphone was lost; waiting for it",
        )
        assert not lost.samples.size
        unplugged = [SPEAKER, BUILT_IN]
        card.after_looking = [unplugged, [], PortAudioError("no server"), unplugged, card.present]
        back = recover(card, found)
    assert back.event == "back"
    assert back.message == f"the microphone is back: {USB[0]}"
    assert first.closed
    assert card.looks == 5


def test_what_was_recorded_before_the_loss_is_heard_before_it_is_told(card):
    with Microphone() as heard:
        for value in range(3):
            card.streams[-1].hear(value)
        card.streams[-1].active = False
        assert [block.event for block in take(heard.blocks(), 4)] == ["", "", "", "lost"]


def test_callbacks_that_stop_while_the_stream_is_called_active_are_a_loss(card, monkeypatch):
    with Microphone() as heard:
        found = heard.blocks()
        monkeypatch.setattr(microphone, "_STALLED_SECONDS", 0.0)
        assert next(found).event == "lost"
        monkeypatch.setattr(microphone, "_STALLED_SECONDS", 1e9)
        assert recover(card, found).event == "back"


def test_a_stream_that_cannot_be_asked_is_a_loss(card, monkeypatch):
    def active(_stream: Stream) -> bool:
        raise PortAudioError("Invalid stream pointer")

    with Microphone() as heard, monkeypatch.context() as patch:
        patch.setattr(Stream, "active", property(active, lambda *_: None), raising=False)
        assert next(heard.blocks()).event == "lost"


@pytest.mark.parametrize("chosen", [2, "usb"])
def test_a_lost_device_is_found_by_its_name_when_numbers_have_changed(card, chosen):
    with Microphone(chosen) as heard:
        found = heard.blocks()
        lose(card, found)
        moved = ("USB headset: Audio (hw:2,0)", 2, 48_000)
        card.after_looking = [[SPEAKER, ("Camera", 1, 48_000), BUILT_IN, moved]]
        recover(card, found)
        assert heard.opened == Device(3, *moved)


def test_of_two_devices_of_one_name_the_number_decides_also_when_it_is_back(card):
    card.present = [USB, USB]
    with Microphone(1) as heard:
        found = heard.blocks()
        lose(card, found)
        recover(card, found)
        assert heard.opened == Device(1, *USB)


def test_the_default_may_be_another_device_after_a_loss(card):
    with Microphone() as heard:
        found = heard.blocks()
        lose(card, found)
        card.after_looking = [[SPEAKER, USB]]
        assert USB[0] in recover(card, found).message


def test_every_block_says_the_rate_at_which_it_was_recorded(card):
    with Microphone(1, 16_000) as heard:
        found = heard.blocks()
        card.streams[-1].hear(1)
        assert next(found).sample_rate == 16_000
        lose(card, found)
        card.refusals["rates"] = (44_100,)
        late = card.streams[-1]
        late.hear(7)  # of the old stream, when the loss has been told already
        assert next(found).event == "back"
        assert next(found).sample_rate == 16_000
        card.streams[-1].hear(8)
        assert next(found).sample_rate == 44_100


def test_a_sound_server_that_hangs_does_not_hold_up_the_end(card, monkeypatch):
    monkeypatch.setattr(microphone, "_CLOSE_SECONDS", 0.01)
    hanging = threading.Event()
    with Microphone():
        card.streams[-1].close_waits_for = hanging
    assert not card.streams[-1].closed
    hanging.set()


def test_a_sound_system_that_never_lets_go_of_a_lost_device_ends_the_wait_with_one_line(
    card, monkeypatch
):
    monkeypatch.setattr(microphone, "_CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(microphone, "_LET_GO_SECONDS", 0.01)
    hanging = threading.Event()
    with Microphone() as heard:
        found = heard.blocks()
        lose(card, found)
        card.streams[-1].close_waits_for = hanging
        with pytest.raises(MicrophoneError, match=r"let go of the lost microphone .* start the"):
            next(found)
    hanging.set()


def test_an_interrupt_ends_the_wait_for_a_device(card, monkeypatch):
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)

    def wait_for_it() -> None:
        with Microphone() as heard:
            found = heard.blocks()
            lose(card, found)
            card.present = []
            next(found)

    with pytest.raises(KeyboardInterrupt):
        wait_for_it()
    assert card.streams[-1].closed
