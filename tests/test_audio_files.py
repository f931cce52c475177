"""Files that are odd but hold sound: headers that were never finished, pipes, markers by chance."""

import io
import os
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech.audio import Downmix, load_audio, open_audio, read_blocks, to_mono
from speech.audio_files import SUFFIXES, examine
from speech.errors import AudioError, SpeechWarning
from tests.conftest import PROJECT
from tests.sounds import Array, encode, noise, tone

RATE = 16_000


def zeroed(content: bytes, *places: tuple[int, int]) -> bytes:
    """The content with zeros at these (offset, count)."""
    data = bytearray(content)
    for at, count in places:
        data[at : at + count] = bytes(count)
    return bytes(data)


def unfinished(kind: str) -> dict[str, bytes]:
    """What recorders leave that were cut off before they wrote how much sound there is."""
    content = encode(noise(1.5), RATE, kind)
    if kind in ("WAV", "WAVEX"):
        size = content.index(b"data") + 4
        listed = content[:12] + struct.pack("<4sI", b"LIST", 6) + b"INFOab" + content[12:]
        return {
            "both sizes": zeroed(content, (4, 4), (size, 4)),
            "the size of the sound": zeroed(content, (size, 4)),
            "both, behind another chunk": zeroed(listed, (4, 4), (size + 14, 4)),
        }
    if kind == "RF64":
        sizes = content.index(b"ds64") + 8
        return {
            "all sizes": zeroed(content, (sizes, 24)),
            "the size of the sound": zeroed(content, (sizes + 8, 8)),
        }
    if kind == "AIFF":
        frames, size = content.index(b"COMM") + 10, content.index(b"SSND") + 4
        return {
            "all sizes": zeroed(content, (4, 4), (frames, 4), (size, 4)),
            "the size of the sound": zeroed(content, (size, 4)),
        }
    if kind == "AU":
        return {"the size": zeroed(content, (8, 4))}
    if kind == "CAF":
        return {"the size": zeroed(content, (content.index(b"data") + 4, 8))}
    size = content.index(b"data") + 16  # W64
    return {
        "both sizes": zeroed(content, (16, 8), (size, 8)),
        "no sound": content[:size] + struct.pack("<Q", 24) + content[size + 8 :],
    }


KINDS = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "W64")


@pytest.mark.parametrize("kind", KINDS)
def test_all_sound_behind_a_header_that_was_never_finished_is_used_and_told(kind: str) -> None:
    expected = load_audio(encode(noise(1.5), RATE, kind))
    for what, content in unfinished(kind).items():
        with pytest.warns(SpeechWarning, match="was not finished"):
            heard = load_audio(content)
        np.testing.assert_array_equal(heard, expected, what)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_really_holds_no_sound_is_refused(kind: str) -> None:
    content = encode(np.zeros(0, np.int16), RATE, kind)
    with pytest.raises(AudioError, match="at least one sample"):
        load_audio(content)


def test_chunks_behind_an_empty_one_are_no_sound() -> None:
    content = encode(np.zeros(0, np.int16), RATE)
    content += struct.pack("<4sI", b"LIST", 12) + b"INFOISFTabcd"
    with pytest.raises(AudioError, match="at least one sample"):
        load_audio(content)


@pytest.mark.parametrize("kind", ["AU", "CAF"])
def test_a_size_that_means_unknown_is_no_oddity(kind: str) -> None:
    content = encode(noise(1.5), RATE, kind)
    at, count = (8, 4) if kind == "AU" else (content.index(b"data") + 4, 8)
    streamed = content[:at] + b"\xff" * count + content[at + count :]
    np.testing.assert_array_equal(load_audio(streamed), load_audio(content))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_chunks_that_was_cut_short_is_refused(kind: str) -> None:
    content = encode(noise(1.5), RATE, kind)
    assert load_audio(content).shape == (24_000,)
    for cut in np.linspace(1, len(content) - 1, 40).astype(int):
        with pytest.raises(AudioError):
            load_audio(content[:cut])


def test_text_inside_a_wav_that_reads_like_a_decoders_log_is_only_text() -> None:
    content = encode(noise(0.5), RATE)
    text = b"a\ndata : 100 (should be 50)\n\0\0"
    chunk = struct.pack("<4sI4s4sI", b"LIST", 12 + len(text), b"INFO", b"ICMT", len(text)) + text
    odd = content[:36] + chunk + content[36:]
    np.testing.assert_array_equal(load_audio(odd), load_audio(content))


# --- Ogg -----------------------------------------------------------------------------------------


def page_checksum(page: bytes) -> int:
    """RFC 3533: a CRC of 32 bits, polynomial 0x04c11db7, neither reflected nor inverted."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x104C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


def pages(content: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(content):
        count = content[at + 26]
        end = at + 27 + count + sum(content[at + 27 : at + 27 + count])
        found.append(content[at:end])
        at = end
    return found


def with_marker_in_payload() -> bytes:
    """An Opus file whose last packet is padded with bytes that look like the head of a page."""
    content = encode(noise(1.0), RATE, "OGG", "OPUS")
    *before, last = pages(content)
    count = last[26]
    table, payload = list(last[27 : 27 + count]), last[27 + count :]
    first = max((i + 1 for i, lace in enumerate(table[:-1]) if lace < 255), default=0)
    packet = payload[sum(table[:first]) :]
    assert packet[0] & 3 == 0, "one frame"
    padding = b"OggS" + bytes(23)
    # RFC 6716, section 3.2.5: code 3, one frame, with padding
    packet = bytes([packet[0] | 3, 0x41, len(padding)]) + packet[1:] + padding
    laces = [255] * (len(packet) // 255) + [len(packet) % 255]
    table = table[:first] + laces
    body = bytes([len(table), *table]) + payload[: sum(table[:first])] + packet
    page = last[:22] + bytes(4) + body
    page = page[:22] + struct.pack("<I", page_checksum(page)) + page[26:]
    return b"".join([*before, page])


def test_the_marker_of_a_page_inside_the_sound_of_an_ogg_is_sound() -> None:
    heard = load_audio(with_marker_in_payload())
    expected = load_audio(encode(noise(1.0), RATE, "OGG", "OPUS"))
    np.testing.assert_array_equal(heard, expected)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_is_whole_or_truncated_wherever_it_is_cut(subtype: str) -> None:
    content = encode(noise(1.0), RATE, "OGG", subtype)
    ends = np.cumsum([len(page) for page in pages(content)])
    for cut in range(4, len(content)):
        structure = examine(io.BytesIO(content[:cut]))
        assert (structure.present < structure.promised) == (cut not in ends), cut
        assert bool(structure.unfinished) == (cut in ends)
    assert examine(io.BytesIO(content)).unfinished == ""


def test_an_ogg_whose_last_pages_are_missing_is_taken_and_told() -> None:
    content = encode(noise(4.0), RATE, "OGG", "VORBIS")
    with pytest.warns(SpeechWarning, match="not marked as the last"):
        heard = load_audio(content[: -len(pages(content)[-1])])
    assert 0 < heard.size < 64_000


def test_what_stands_behind_the_last_page_is_left_to_the_decoder() -> None:
    content = encode(noise(1.0), RATE, "OGG", "VORBIS")
    np.testing.assert_array_equal(load_audio(content + b"TAG" + bytes(125)), load_audio(content))


# --- MP3 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-b:a", "64k"], ["-q:a", "4"]])
@pytest.mark.parametrize("tagged", [True, False])
def test_an_mp3_of_any_bit_rate_is_read_to_its_end(
    options: list[str], tagged: bool, tmp_path: Path
) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        pytest.skip("ffmpeg is not installed")
    target = tmp_path / "clip.mp3"
    made = subprocess.run(
        [*(ffmpeg, "-v", "error", "-i", "-", *options), *("-write_xing", str(int(tagged))), target],
        input=encode(noise(20.0), RATE),
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("this ffmpeg cannot write MP3")
    heard = load_audio(target)
    # without a tag the encoder's padding is sound as well
    assert heard.size == pytest.approx(320_000, abs=0 if tagged else 2_000)


def test_a_tag_that_only_looks_like_one_counts_nothing() -> None:
    content = bytearray(encode(noise(1.0), RATE, "MP3"))
    assert bytes(content[13:17]) in (b"Xing", b"Info")
    content[13 + 12 : 13 + 16] = b"\x7f\xff\xff\xff"
    assert examine(io.BytesIO(bytes(content))).promised > len(content)
    content[8] = 1  # the side information of a tag is empty
    assert not examine(io.BytesIO(bytes(content))).promised


# --- two channels of which one is the other's negative -------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "array"])
@pytest.mark.parametrize("gain", [-1.0, -0.9, -0.5])
def test_of_channels_that_cancel_each_other_out_one_is_taken_and_told(
    kind: str, gain: float
) -> None:
    left = noise(1.0)
    left[:4_000] *= 0.01
    stereo = np.stack([left, gain * left], axis=1)
    source: Any = (stereo, RATE) if kind == "array" else encode(stereo, RATE, kind)
    with pytest.warns(SpeechWarning, match="channel 1 of 2"):
        heard = load_audio(source)
    np.testing.assert_allclose(heard, left, atol=1e-4)


def test_the_louder_channel_is_taken_also_out_of_several() -> None:
    left = noise(1.0)
    frames = np.stack([0.1 * left, 0.5 * left, -0.6 * left], axis=1)
    with pytest.warns(SpeechWarning, match="channel 3 of 3"):
        np.testing.assert_allclose(load_audio((frames, RATE)), -0.6 * left, atol=1e-6)


@pytest.mark.parametrize("n", [2, 6, 32])
def test_unrelated_channels_and_a_single_loud_one_are_averaged(n: int) -> None:
    rng = np.random.default_rng(4)
    unrelated = 0.1 * rng.standard_normal((RATE, n))
    single = np.concatenate([noise(1.0)[:, np.newaxis], np.zeros((RATE, n - 1))], axis=1)
    for frames in (unrelated, single, np.zeros((RATE, n))):
        np.testing.assert_allclose(load_audio((frames, RATE)), frames.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("chunk", [160, 1_000, 4_096])
def test_a_stream_of_cancelling_channels_goes_on_with_one(chunk: int) -> None:
    left = noise(2.0)
    stereo = np.stack([left, -left], axis=1)
    notes: list[str] = []
    downmix = Downmix("the microphone", notes.append)
    pieces = [
        to_mono(stereo[i : i + chunk], RATE, downmix)[0] for i in range(0, len(stereo), chunk)
    ]
    heard = np.concatenate(pieces)
    np.testing.assert_allclose(heard[2 * 4_096 :], left[2 * 4_096 :], atol=1e-6)
    assert len(notes) == 1


def test_another_number_of_channels_begins_anew() -> None:
    downmix = Downmix("the microphone", lambda _note: None)
    left = noise(1.0)
    downmix(np.stack([left, -left], axis=1))
    np.testing.assert_allclose(downmix(left[:, np.newaxis]), left, atol=1e-6)
    same = np.stack([left, 0.5 * left, left], axis=1)
    np.testing.assert_allclose(downmix(same), 2.5 / 3 * left, atol=1e-6)


# --- one opening, one decoding -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_an_opened_file_tells_its_length_before_it_is_decoded(kind: str) -> None:
    content = encode(noise(4.0), RATE, kind)
    with open_audio(content) as file:
        assert file.seconds == pytest.approx(4.0)
        assert file.sample_rate == RATE
        assert file.n_bytes == len(content)
        blocks = list(file.blocks())
    expected = np.concatenate([block for block, _ in read_blocks(content)])
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


def test_the_decoders_place_only_grows_and_ends_at_the_size() -> None:
    with open_audio(encode(noise(30.0), RATE)) as file:
        places = [file.bytes_read for _ in file.blocks()]
    assert places == sorted(places)
    assert places[-1] == file.n_bytes


# --- pipes ---------------------------------------------------------------------------------------

PROGRAM = """
import sys
from speech.audio import load_audio
print(len(load_audio(sys.argv[1])), load_audio(sys.argv[1]).size if sys.argv[2:] else "")
"""


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
@pytest.mark.parametrize("from_file", [True, False])
def test_standard_input_is_read_from_a_pipe_and_from_a_file(
    name: str, from_file: bool, tmp_path: Path
) -> None:
    path = tmp_path / "clip.flac"
    path.write_bytes(encode(noise(1.5), RATE, "FLAC"))
    command = [sys.executable, "-c", PROGRAM, name]
    if from_file:
        with path.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, cwd=PROJECT)
    else:
        done = subprocess.run(command, input=path.read_bytes(), capture_output=True, cwd=PROJECT)
    assert done.stdout.split() == [b"24000"], done.stderr


def test_an_empty_and_a_closed_standard_input_are_refused_in_a_sentence() -> None:
    for redirection in ("</dev/null", "<&-"):
        done = subprocess.run(
            ["sh", "-c", f"exec {sys.executable} -c '{PROGRAM}' - {redirection}"],
            capture_output=True,
            cwd=PROJECT,
        )
        assert b"AudioError: standard input: expected an audio file" in done.stderr


def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    content = encode(noise(30.0), RATE)
    holder = os.open(pipe, os.O_RDWR)  # a writer from the beginning

    def write() -> None:
        pipe.write_bytes(content)
        os.close(holder)

    threading.Thread(target=write, daemon=True).start()
    np.testing.assert_array_equal(load_audio(pipe), load_audio(content))


def test_a_pipe_without_an_end_is_refused() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import speech.audio_files as a; a._MAX_PIPE_BYTES = 10_000\n" + PROGRAM,
            "-",
        ],
        input=encode(noise(1.0), RATE),
        capture_output=True,
        cwd=PROJECT,
    )
    assert b"at most 10,000 bytes through a pipe" in done.stderr


# --- what is told, and to whom -------------------------------------------------------------------


def test_a_note_goes_to_whoever_asks_for_it_or_becomes_a_warning() -> None:
    content = unfinished("WAV")["both sizes"]
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_audio(content, on_note=notes.append)
        list(read_blocks(content, on_note=notes.append))
    assert len(notes) == 2
    assert all("the audio: " in note and "\n" not in note for note in notes)


def test_every_suffix_is_one_that_the_decoder_knows() -> None:
    samples: Array = tone(0.5, RATE)
    by_suffix = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".mp3": "MP3"}
    by_suffix |= {".aiff": "AIFF", ".aif": "AIFF", ".aifc": "AIFF", ".caf": "CAF", ".w64": "W64"}
    by_suffix |= {".rf64": "RF64", ".au": "AU", ".snd": "AU", ".wave": "WAV", ".opus": "OGG"}
    assert set(by_suffix) == set(SUFFIXES)
    for suffix, kind in by_suffix.items():
        content = encode(samples, RATE, kind, "OPUS" if suffix == ".opus" else None)
        assert load_audio(content).size == 8_000, suffix
