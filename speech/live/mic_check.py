"""Microphone check: levels of a few seconds of sound, what is wrong with them, what to change."""

import dataclasses
import io
import math
import wave
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.audio import load_audio, scale_to_float, to_int16
from speech.errors import AudioError, MicrophoneError
from speech.live.microphone import Block, Device
from speech.live.session import HINTS

_FRAME_SECONDS = 0.02
_SPEECH_PERCENTILE, _FLOOR_PERCENTILE = 95, 10
_SILENT_DB = -120.0
_CLIPPED = 0.999
_CLIPPED_SAMPLES = 3  # fewer may be a click
_PEAK_DB = -6.0  # where the peaks of speech should lie
_QUIET_DB = -45.0  # of the loud frames; a word at a desk has -35 dB or more
_NOISY_DB = 15.0  # 10 dB of signal to noise still do, but not for every voice
_NO_SPEECH_DB = 6.0  # a steady sound has less between its loud and its soft frames
_OFFSET = 0.02


class Recorded(NamedTuple):
    """Sound as it came.

    Attributes:
        samples: int16 or float32, (n, channels).
        sample_rate: In Hz, at which it was recorded.
        device: What recorded it; None for a file or a pipe.
        dropped: Blocks lost since this machine was too slow.
        overflows: Losses that the sound system reported.
    """

    samples: npt.NDArray[Any]
    sample_rate: int
    device: Device | None
    dropped: int
    overflows: int


@dataclasses.dataclass(frozen=True)
class Levels:
    """What a recording measures; dB are of full scale, -120 for digital silence.

    Attributes:
        seconds: Its length.
        peak_db: Its highest sample.
        level_db: Root mean square of its loud frames of 20 ms (the 95th percentile).
        floor_db: That of its soft frames (the 10th percentile), which is the noise of the room and
            of the microphone where somebody pauses.
        snr_db: The one less the other: signal to noise, estimated.
        clipped: Samples at full scale.
        offset: Mean of the samples, in [-1, 1]: direct current, which carries no sound. The levels
            do not count it.
        channels_db: Root mean square of each channel.
    """

    seconds: float
    peak_db: float
    level_db: float
    floor_db: float
    snr_db: float
    clipped: int
    offset: float
    channels_db: tuple[float, ...]


def record(blocks: Iterable[Block], seconds: float) -> Recorded:
    """Take so many seconds from a source; less where it ends before.

    Raises:
        MicrophoneError: The microphone was lost meanwhile.
        AudioError: There was no sound at all.
    """
    taken: list[npt.NDArray[Any]] = []
    device: Device | None = None
    n = rate = dropped = overflows = 0
    for block in blocks:
        if block.event == "ready":
            device = block.device
        elif block.event:
            raise MicrophoneError(
                f"expected {seconds:g} s of sound, got the microphone lost after "
                f"{n / max(rate, 1):.1f} s; check its cable and the sound server"
            )
        else:
            rate, dropped, overflows = block.sample_rate, block.dropped, block.overflows
            taken.append(block.samples.reshape(len(block.samples), -1))
            n += len(block.samples)
            if n >= round(seconds * rate):
                break
    if not n:
        raise AudioError("expected sound, got none; check where it comes from")
    samples = np.concatenate(taken)[: round(seconds * rate)]
    return Recorded(samples, rate, device, dropped, overflows)


def measure(samples: npt.NDArray[Any], sample_rate: int) -> Levels:
    """The levels of a recording.

    Args:
        samples: (n,) or (n, channels), n > 0, of a dtype that ``scale_to_float`` takes.
        sample_rate: In Hz.

    Raises:
        AudioError: Not such samples.
        ValueError: No samples.
    """
    if not len(samples):
        raise ValueError("expected at least one sample, got none")
    each = scale_to_float(samples.reshape(len(samples), -1)).astype(np.float64)
    mono = each.mean(axis=1)
    offset = float(mono.mean())
    size = min(round(_FRAME_SECONDS * sample_rate), len(mono))
    frames = (mono - offset)[: len(mono) // size * size].reshape(-1, size)
    power = np.mean(frames**2, axis=1)
    level, floor = (
        _decibels(math.sqrt(float(np.percentile(power, percentile))))
        for percentile in (_SPEECH_PERCENTILE, _FLOOR_PERCENTILE)
    )
    return Levels(
        seconds=len(mono) / sample_rate,
        peak_db=_decibels(float(np.abs(each).max())),
        level_db=level,
        floor_db=floor,
        snr_db=level - floor,
        clipped=int(np.count_nonzero(np.abs(each) >= _CLIPPED)),
        offset=offset,
        channels_db=tuple(_decibels(float(x)) for x in np.std(each, axis=0)),
    )


def advice(levels: Levels, dropped: int = 0, overflows: int = 0) -> str:
    """What to change, as one sentence; the gravest first."""
    silent = [i for i, level in enumerate(levels.channels_db) if level <= _SILENT_DB]
    if levels.peak_db <= _SILENT_DB:
        return HINTS["muted"]
    if levels.clipped >= _CLIPPED_SAMPLES:
        return f"Turn the input down by 10 dB or so: {levels.clipped} samples are clipped."
    if dropped or overflows:
        return (
            f"Close other programs: this machine was too slow, {dropped} blocks were lost here and "
            f"samples {overflows} times in the sound system."
        )
    if silent and len(silent) < len(levels.channels_db):
        return (
            f"Channel {silent[0] + 1} is silent: record another channel alone, or check the cable."
        )
    if abs(levels.offset) > _OFFSET:
        return (
            f"Try another input or sound card: the signal lies {levels.offset:+.1%} of full scale "
            "off its middle."
        )
    if levels.snr_db < _NO_SPEECH_DB:
        return "Say a few words while it records: there was nothing but a steady sound."
    if levels.level_db < _QUIET_DB:
        more = min(_PEAK_DB - levels.peak_db, 40.0)
        return f"Turn the input up by about {more:.0f} dB, or come closer: it is too quiet."
    if levels.snr_db < _NOISY_DB:
        return (
            f"Come closer to the microphone or find a quieter place: speech is only "
            f"{levels.snr_db:.0f} dB above the noise."
        )
    return "Nothing: this microphone is fine."


def _decibels(amplitude: float) -> float:
    return max(20 * math.log10(amplitude), _SILENT_DB) if amplitude > 0 else _SILENT_DB


def as_model_input(recorded: Recorded, sample_rate: int) -> npt.NDArray[np.float32]:
    """The sound as the model gets it: float32 (n,), mono, at its rate in Hz."""
    pair = (recorded.samples, recorded.sample_rate)
    return load_audio(pair, sample_rate, max_seconds=len(recorded.samples))  # any length is right


def wav_bytes(waveform: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """A WAV file of 16 bits, mono."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(to_int16(waveform).astype("<i2").tobytes())
    return content.getvalue()


def fields(recorded: Recorded, levels: Levels) -> dict[str, Any]:
    """Everything that was found out, JSON-able."""
    device = recorded.device
    return {
        "device": device and device.name,
        "native_rate": device and device.sample_rate,
        "native_channels": device and device.channels,
        "recorded_rate": recorded.sample_rate,
        "recorded_channels": recorded.samples.shape[1],
        **dataclasses.asdict(levels),
        "dropped": recorded.dropped,
        "overflows": recorded.overflows,
        "advice": advice(levels, recorded.dropped, recorded.overflows),
    }


def described(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows of a table of these fields, for people."""
    if found["device"] is not None:
        native = f"{found['native_rate']} Hz, {found['native_channels']} channels"
        yield "Microphone", f"{found['device']} ({native})"
    recorded = f"{found['seconds']:.1f} s, {found['recorded_rate']} Hz"
    yield "Recorded", f"{recorded}, {found['recorded_channels']} channels"
    yield "Peak", f"{found['peak_db']:.0f} dB, {found['clipped']} samples clipped"
    yield "Speech", f"{found['level_db']:.0f} dB"
    yield "Noise floor", f"{found['floor_db']:.0f} dB"
    yield "Signal to noise", f"about {found['snr_db']:.0f} dB"
    yield "Offset", f"{found['offset']:+.2%} of full scale"
    yield "Lost", f"{found['dropped']} blocks here, {found['overflows']} times in the sound system"
