"""The loop behind ``speech listen``, without a sound card, a terminal or a trained network."""

import io
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import soundfile

from speech.audio import JUST_BELOW_ONE, load_audio, read_blocks
from speech.detection import Detection
from speech.errors import AudioError
from speech.features import FeatureConfig
from speech.live.microphone import Block
from speech.live.session import (
    CLEAR,
    Event,
    Launcher,
    Source,
    Status,
    decoder_for,
    file_blocks,
    listen,
    paced,
    pcm_blocks,
    rendered,
)
from speech.recognizer import Recognizer
from tests import sounds
from tests.e2e.tones import LABELS, RATE, recognizer, said

WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]
SPOKEN = [word for _, word in WORDS]


def blocks_of(samples: np.ndarray, rate: int = RATE, **more) -> Iterator[Block]:
    whole = np.round(32767 * samples).astype(np.int16)[:, np.newaxis]
    size = rate // 20
    return (Block(whole[i : i + size], rate, **more) for i in range(0, len(whole), size))


def heard(blocks: Iterable[Block], launcher: Launcher | None = None) -> list:
    return list(listen(blocks, decoder_for(recognizer()), launcher))


def only(kind, items: Iterable) -> list:
    return [item for item in items if isinstance(item, kind)]


def wav(path, samples: np.ndarray, rate: int = RATE):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def test_each_word_is_one_detection_at_its_time():
    found = only(Detection, heard(blocks_of(said(WORDS, 5.0))))
    assert [d.label for d in found] == SPOKEN
    for (start, _), detection in zip(WORDS, found, strict=True):
        assert start < detection.time < start + 1.0


def test_a_microphone_a_pipe_and_a_file_are_heard_alike(tmp_path):
    samples = np.round(32767 * said(WORDS, 5.0)).astype(np.int16)
    from_microphone = blocks_of(samples / 32767)
    from_pipe = pcm_blocks(io.BytesIO(samples.astype("<i2").tobytes()), RATE)
    from_file = file_blocks(wav(tmp_path / "a.wav", samples))
    first, *others = [only(Detection, heard(b)) for b in (from_microphone, from_pipe, from_file)]
    assert len(first) == len(WORDS)
    assert others == [first, first]


def test_a_file_of_another_rate_and_two_channels_says_the_same_words(tmp_path):
    stereo = np.repeat(said(WORDS, 5.0, 44_100)[:, np.newaxis], 2, axis=1)
    found = only(Detection, heard(file_blocks(wav(tmp_path / "a.wav", stereo, 44_100))))
    assert [d.label for d in found] == SPOKEN


def test_a_word_at_the_very_end_of_a_file_is_heard(tmp_path):
    found = only(Detection, heard(file_blocks(wav(tmp_path / "a.wav", said([(0.5, "low")], 0.9)))))
    assert [d.label for d in found] == ["low"]


def test_two_halves_of_a_word_around_a_loss_are_no_word_and_the_times_go_on():
    word = said([(0.0, "low")], 0.4)
    quiet = said([], 1.2)
    lost = Block(np.zeros((0, 1), np.int16), RATE, "lost", "it was lost")
    back = Block(np.zeros((0, 1), np.int16), RATE, "back", "it is back")
    for cut in (3200, len(word)):  # half of the word, the whole word
        items = heard(
            [
                *blocks_of(np.concatenate([quiet, word[:cut]])),
                *(lost, back),
                *blocks_of(np.concatenate([word[cut:], quiet])),
                *blocks_of(np.concatenate([word, quiet])),
            ]
        )
        detections, events = only(Detection, items), only(Event, items)
        assert [(e.kind, e.message) for e in events] == [
            ("lost", "it was lost"),
            ("back", "it is back"),
        ]
        assert events[0].time == events[1].time == pytest.approx(1.2 + cut / RATE)
        assert len(detections) == (1 if cut == 3200 else 2)
        assert 2.8 < detections[-1].time < 3.8
        assert only(Status, items)[-1].time == pytest.approx(4.4)


def test_status_comes_every_tenth_of_a_second_and_tells_peak_and_best_label():
    status = only(Status, heard(blocks_of(said([(0.5, "low")], 2.0))))
    assert [s.time for s in status] == pytest.approx([0.1 * i for i in range(1, 21)])
    assert [s.label for s in status if s.probability > 0.9 and s.label == "low"]
    assert status[0].peak < 0.05
    assert max(s.peak for s in status) == pytest.approx(0.25, abs=0.02)


def hints(samples: np.ndarray) -> list[str]:
    return [event.kind for event in only(Event, heard(blocks_of(samples)))]


def test_clipping_muted_and_quiet_microphones_are_told_once():
    words = said(WORDS, 7.0)
    assert hints(words) == []
    assert hints(np.clip(8 * words, -1, 1)) == ["clipping"]
    assert hints(words / 50) == ["quiet"]
    assert hints(0 * words) == ["muted"]


def test_a_hint_is_shown_for_as_long_as_it_holds():
    loud = np.clip(8 * said([(0.2, "low")], 1.0), -1, 1)
    status = only(Status, heard(blocks_of(np.concatenate([loud, said(WORDS, 9.0)]))))
    assert status[9].hint == "clipping"
    assert status[-1].hint == ""


def test_losses_are_told_at_most_once_a_second_and_none_is_forgotten():
    blocks = [
        block._replace(dropped=number, overflows=number // 30)
        for number, block in enumerate(blocks_of(said([], 5.0)), 1)
    ]
    events = only(Event, heard(blocks))
    dropped = [e for e in events if e.kind == "dropped"]
    assert 4 <= len(dropped) <= 5
    told = sum(int(e.message.split()[0]) for e in dropped)
    assert 100 - 20 < told <= 100
    assert [e for e in events if e.kind == "overflow"]


def test_ten_minutes_of_stream_do_not_make_the_memory_grow(held_by_speech):
    def infer(waveforms: np.ndarray) -> np.ndarray:
        loud = (waveforms[:, -100:].max(axis=1) > 0.1).astype(np.float32)
        return np.stack([loud, 0 * loud, 0 * loud, 1 - loud], axis=1)

    blocks = list(blocks_of(said([(second, "low") for second in range(0, 60, 5)], 60.0)))
    decoder = decoder_for(Recognizer("loud", LABELS, FeatureConfig(), infer))
    sizes = []

    def ten() -> Iterator[Block]:
        for _ in range(10):
            yield from blocks
            sizes.append(held_by_speech())

    n_detections = sum(isinstance(item, Detection) for item in listen(ten(), decoder))
    assert n_detections == 120
    assert sizes[-1] - sizes[1] < 300_000  # ten minutes of samples are 19,200,000 bytes


# --- sources -------------------------------------------------------------------------------------


def test_pcm_in_pieces_of_any_size_is_the_same_sound_and_half_a_sample_is_left_out():
    samples = np.random.default_rng(1).integers(-32768, 32767, 5000, np.int16)
    data = samples.astype("<i2").tobytes() + b"\x07"

    class Dribbling(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read(1 + self.tell() % 7)

    for stream in (io.BytesIO(data), Dribbling(data)):
        blocks = list(pcm_blocks(stream, 8000))
        assert np.array_equal(np.concatenate([b.samples for b in blocks]), samples)
        assert {b.sample_rate for b in blocks} == {8000}
        assert max(len(b.samples) for b in blocks) <= 400


def test_a_rate_of_no_sound_card_is_refused(refused):
    assert "got 7;" in refused(AudioError, lambda: next(pcm_blocks(io.BytesIO(b"ab"), 7)))


@pytest.mark.parametrize(("kind", "subtype", "_tolerance"), sounds.FORMATS)
def test_a_file_in_blocks_is_the_file_as_a_whole(kind, subtype, _tolerance):
    rate = 48_000
    data = sounds.encode(sounds.tone(3.2, rate), rate, kind, subtype)
    blocks = list(read_blocks(data))
    assert {r for _, r in blocks} == {rate}
    joined = np.clip(np.concatenate([b for b, _ in blocks]), -1, JUST_BELOW_ONE)
    assert np.array_equal(joined, load_audio(data, rate))


def test_a_file_in_blocks_is_refused_as_a_whole_one_is(refused, tmp_path):
    cut = sounds.encode(sounds.tone(1.0, RATE), RATE)[:-100]
    for source in (b"", b"Dear sir or madam", cut, tmp_path, tmp_path / "nothing.wav"):
        said_of_blocks = refused(AudioError, lambda source=source: list(read_blocks(source)))
        assert said_of_blocks == refused(AudioError, lambda source=source: load_audio(source))


def test_a_paced_file_gives_each_block_when_its_last_sample_was_spoken():
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    blocks = list(blocks_of(said([], 1.0)))
    times = []
    for number, _ in enumerate(paced(blocks, sleep, lambda: now[0])):
        times.append(now[0] - 100)
        now[0] += 0.3 if number == 5 else 0.01  # a slow network is caught up with
    assert times[:6] == pytest.approx([0.05 * i for i in range(1, 7)])
    assert times[-1] == pytest.approx(1.0)
    assert min(slept) == 0.0


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "given",
    [
        {"device": "usb", "pcm": io.BytesIO()},
        {"device": "0", "wav": "a.wav"},
        {"pcm": io.BytesIO(), "wav": "a.wav"},
        {"rate": 8000},
        {"realtime": True},
        {"pcm": Terminal()},
    ],
)
def test_sources_that_exclude_one_another_are_refused(given, refused):
    refused(ValueError, lambda: Source(**given))


# --- commands ------------------------------------------------------------------------------------

SAVE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def test_a_detection_starts_the_command_with_its_label_and_no_shell(tmp_path):
    target = tmp_path / "heard"
    command = f"'{sys.executable}' -c '{SAVE}' '{target}' 'said {{label}}; rm -r $HOME & `id`'"
    with Launcher(command) as launcher:
        items = heard(blocks_of(said([(0.5, "high")], 2.0)), launcher)
    assert target.read_text() == "said high; rm -r $HOME & `id`"
    assert not only(Event, items)


def test_commands_that_have_ended_leave_no_zombies_and_too_many_are_not_started():
    sleeping = f"'{sys.executable}' -c 'import time; time.sleep(600)'"
    launcher = Launcher(sleeping)
    assert [launcher.run("low") for _ in range(8)] == [""] * 8
    running = [child.pid for child in launcher._children]
    assert "was not started: 8 of them still run" in launcher.run("low")
    for child in launcher._children:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
    launcher.reap()
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert launcher.run("low") == ""
    launcher._children[0].kill()
    launcher.__exit__()


def test_a_command_that_cannot_be_started_is_an_event_and_listening_goes_on(tmp_path):
    items = heard(blocks_of(said(WORDS, 5.0)), Launcher(f"{tmp_path}/{{label}}"))
    assert [d.label for d in only(Detection, items)] == SPOKEN
    assert [e.kind for e in only(Event, items)] == ["exec"] * 3
    assert "could not be started" in only(Event, items)[0].message


@pytest.mark.parametrize("command", ["say '{label}", "   ", "no-such-program-here {label}"])
def test_a_command_that_never_could_be_started_is_refused_at_once(command, refused):
    refused(ValueError, lambda: Launcher(command))


# --- what is shown -------------------------------------------------------------------------------

HEARD = Detection("left", 0.9712345, 12.34, 11.5)
LOST = Event("lost", 3.0, "the microphone was lost")
QUIET = Event("quiet", 3.0, "too quiet")
STATUS = Status(12.3, 0.1, "left", 0.45, "clipping", 3, 1)


def test_detections_go_to_standard_output_and_events_beside_it():
    assert rendered(HEARD) == ("12.3 s  left  0.97\n", "")
    assert rendered(LOST) == ("", "speech: the microphone was lost\n")
    assert rendered(QUIET) == ("", "speech: too quiet\n")
    assert rendered(STATUS) == ("", "")


def test_json_lines_are_detections_and_events():
    assert json.loads(rendered(HEARD, as_json=True)[0]) == {
        "type": "detection",
        "label": "left",
        "probability": 0.9712,
        "time": 12.34,
        "start": 11.5,
    }
    assert json.loads(rendered(LOST, as_json=True)[0]) == {
        "type": "event",
        "event": "lost",
        "time": 3.0,
        "message": "the microphone was lost",
    }
    assert rendered(STATUS, as_json=True) == ("", "")


def test_a_terminal_has_one_line_that_is_written_over():
    out, line = rendered(STATUS, columns=200)
    assert not out
    assert line.startswith(CLEAR)
    for part in (
        "12.3 s",
        "[#############       ]",
        "-20 dB",
        "left 0.45",
        "clipping",
        "3 dropped",
    ):
        assert part in line
    assert "1 overflows" in line
    assert "\n" not in line
    assert len(rendered(STATUS, columns=40)[1]) <= len(CLEAR) + 39
    assert rendered(HEARD, columns=80) == ("12.3 s  left  0.97\n", CLEAR)
    assert rendered(LOST, columns=80) == ("", f"{CLEAR}speech: the microphone was lost\n")
    assert rendered(QUIET, columns=80) == ("", "")


def test_a_threshold_of_the_user_is_that_of_all_commands():
    assert decoder_for(recognizer()).config.thresholds == {"low": 0.7}
    config = decoder_for(recognizer(), 0.3).config
    assert (config.threshold, config.thresholds) == (0.3, {})
    assert config.release_threshold <= 0.3
    assert LABELS[0] == "low"
