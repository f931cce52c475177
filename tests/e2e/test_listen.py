"""``speech listen`` as people run it, and a microphone whose sound really comes from a server."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speech.audio import load_audio
from speech.cli.detections import CLEAR
from speech.live.microphone import Microphone
from tests.e2e import sound_card
from tests.e2e.tones import RATE, said

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "saved_models" / "commands-8"
WORDS = [(0.5, "low"), (2.0, "high"), (3.5, "low")]
SPOKEN = [word for _, word in WORDS]
TONE = 437.0  # no whole number of periods in a block, so that a lost one breaks the phase

pytestmark = pytest.mark.timeout(180)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("words") / "words.wav", said(WORDS, 5.0))


def command(
    *arguments: object, name: str = "listen", program: str = "tests.e2e.tones"
) -> list[str]:
    return [sys.executable, "-m", program, name, *map(str, arguments)]


def speech(name: str, *arguments: object, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, name=name), capture_output=True, text=True, cwd=ROOT, **given
    )


def listen(*arguments: object, **given: Any) -> subprocess.CompletedProcess[str]:
    return speech("listen", *arguments, **given)


class Listener:
    """A running ``speech listen --json``, whose lines are read as they come."""

    def __init__(self, *arguments: object, program: str = "tests.e2e.tones", **given: Any) -> None:
        self.process = subprocess.Popen(
            command(*arguments, "--json", program=program),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            **given,
        )

    def next(self, kind: str) -> dict[str, Any]:
        """The next detection, or event of a kind; those of other kinds are passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            item = json.loads(line)
            if kind in (item["type"], item.get("event")):
                return item
        raise AssertionError(self.process.communicate()[1])

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.process.wait(), self.process.communicate()[1]


@pytest.fixture
def start() -> Iterator[Callable[..., Listener]]:
    running: list[Listener] = []

    def start_one(*arguments: object, **given: Any) -> Listener:
        running.append(Listener(*arguments, **given))
        return running[-1]

    yield start_one
    for listener in running:
        listener.process.kill()
        listener.process.communicate()


# --- files and pipes -----------------------------------------------------------------------------


def test_a_file_gives_a_line_for_each_word(words):
    result = listen("--wav", words)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert all(re.fullmatch(r"\d+\.\d s  \w+  [01]\.\d\d", line) for line in lines), lines
    assert [line.split()[2] for line in lines] == SPOKEN
    assert result.stderr == ""


def test_a_pipe_gives_the_same_detections_as_the_file(words, tmp_path):
    samples, _ = soundfile.read(words, dtype="int16")
    from_file = listen("--wav", words, "--json")
    piped = subprocess.run(
        command("--stdin", "--rate", RATE, "--json"),
        input=samples.astype("<i2").tobytes(),
        capture_output=True,
        cwd=ROOT,
    )
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.decode() == from_file.stdout
    assert [json.loads(line)["label"] for line in from_file.stdout.splitlines()] == SPOKEN


def test_a_wav_pipe_says_its_own_rate_and_channels(words, tmp_path):
    stereo = np.repeat(said(WORDS, 5.0, 44_100)[:, np.newaxis], 2, axis=1)
    cd = write(tmp_path / "cd.wav", stereo, 44_100).read_bytes()
    piped = subprocess.run(command("--stdin"), input=cd, capture_output=True, cwd=ROOT)
    assert piped.returncode == 0, piped.stderr
    assert [line.split()[2] for line in piped.stdout.decode().splitlines()] == SPOKEN
    [invitation] = piped.stderr.decode().splitlines()
    assert invitation == "speech: say low, high; Ctrl-C ends it"
    first = subprocess.run(
        command("--stdin", "--channel", "1", "--json"), input=cd, capture_output=True, cwd=ROOT
    )
    assert [json.loads(line)["label"] for line in first.stdout.splitlines()] == SPOKEN


def test_a_raw_pipe_at_a_wrong_rate_gets_one_sentence_that_names_the_option(words):
    sound = np.round(32767 * said(WORDS, 5.0, 48_000)).astype("<i2")
    stereo = np.repeat(sound[:, np.newaxis], 2, axis=1).tobytes()
    piped = subprocess.run(command("--stdin"), input=stereo, capture_output=True, cwd=ROOT)
    assert piped.returncode == 0, piped.stderr
    _, note = piped.stderr.decode().splitlines()
    assert "two channels" in note
    assert "--rate" in note


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_a_file_may_come_through_standard_input(words, source):
    piped = subprocess.run(
        command("--wav", source), input=words.read_bytes(), capture_output=True, cwd=ROOT
    )
    assert piped.returncode == 0, piped.stderr
    assert [line.split()[2] for line in piped.stdout.decode().splitlines()] == SPOKEN


def test_the_same_file_is_heard_alike_at_its_own_pace(words, tmp_path):
    short = write(tmp_path / "short.wav", said([(0.2, "high")], 1.2))
    assert listen("--wav", short, "--realtime").stdout == listen("--wav", short).stdout != ""


def test_each_detection_starts_the_command(words, tmp_path):
    script = f"open({str(tmp_path)!r} + '/{{label}}', 'w'); print('noted')"
    result = listen("--wav", words, "--exec", f'"{sys.executable}" -c "{script}"', "--json")
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"low", "high"}
    assert len(result.stdout.splitlines()) == 3, "what commands print is no detection"
    assert result.stderr.count("noted") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_request_to_end_are_a_clean_end(start, number):
    listener = start("--stdin", stdin=subprocess.PIPE)
    samples = np.round(32767 * said([(0.5, "low")], 3.0)).astype("<i2")
    listener.process.stdin.buffer.write(samples.tobytes())
    listener.process.stdin.flush()
    assert listener.next("detection")["label"] == "low"
    assert listener.end(number) == (0, "")


def test_a_terminal_shows_one_live_line_beside_the_detections(words):
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command("--wav", words), stdout=subprocess.PIPE, stderr=theirs, text=True, cwd=ROOT
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:  # how Linux says that the other side is closed
            pass
        lines = process.communicate()[0].splitlines()
    os.close(ours)
    assert process.returncode == 0
    assert len(lines) == 3
    text = shown.decode()
    assert text.count(CLEAR) > 40
    assert "low 0.9" in text
    assert "\n" not in text
    assert text.endswith(CLEAR), "the shell's prompt is to stand at the beginning of a line"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--wav", "nothing.wav"), 3, "nothing.wav: expected an audio file"),
        (("--stdin", "--rate", "1"), 3, "expected a rate of 8000 to 192000 Hz, got 1"),
        (("--stdin", "--wav", "a.wav"), 2, "expected one of --device, --stdin and --wav"),
        (("--rate", "8000"), 2, "expected --rate beside --stdin"),
        (("--realtime",), 2, "expected --realtime beside --wav"),
        (("--stdin", "--exec", "no-such-program {label}"), 2, "got 'no-such-program'"),
        (("--stdin", "--threshold", "2"), 2, "less than or equal to 1"),
        (("--stdin", "--channels", "2"), 2, "expected --channels of a microphone"),
        (("--wav", "a.wav", "--channel", "2"), 2, "expected --channel of a microphone or pipe"),
        (("--stdin", "--channel", "left"), 2, "expected a number from 1 on or best, got 'left'"),
        (("--stdin", "--exec", "echo {label} | wc"), 2, "which only a shell understands"),
    ],
)
def test_bad_input_gives_one_line_and_its_exit_code(arguments, code, message):
    result = listen(*arguments, stdin=subprocess.DEVNULL)
    is_one_line(result, code, message)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--stdin",), 3, "expected sound, got none"),
        (("--wav", "nothing.wav"), 3, "nothing.wav: expected an audio file"),
        (("--seconds", "0"), 2, "greater than or equal to 1"),
    ],
)
def test_a_check_of_bad_input_gives_one_line_and_its_exit_code(arguments, code, message):
    is_one_line(speech("mic-check", *arguments, stdin=subprocess.DEVNULL), code, message)


def is_one_line(result: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert result.returncode == code, result.stderr
    assert message in re.sub(r"[│\s]+", " ", result.stderr)
    assert "Traceback" not in result.stderr
    if code != 2:
        assert len(result.stderr.splitlines()) == 1


def test_a_check_says_what_was_heard_and_saves_it_as_the_model_hears_it(words, tmp_path):
    saved = tmp_path / "heard.wav"
    found = json.loads(speech("mic-check", "--wav", words, "--json", "--save", saved).stdout)
    assert found["seconds"] == pytest.approx(5.0)
    assert found["recorded_rate"] == RATE
    assert found["clipped"] == found["dropped"] == 0
    assert found["snr_db"] == pytest.approx(found["level_db"] - found["floor_db"])
    samples, rate = soundfile.read(saved, dtype="float32")
    np.testing.assert_allclose(samples, load_audio(words, rate), atol=1 / 32768)
    shown = speech("mic-check", "--wav", words, "--seconds", "2")
    assert shown.returncode == 0, shown.stderr
    assert "2.0 s" in shown.stdout
    assert shown.stdout.splitlines()[-1] == found["advice"]


@pytest.mark.parametrize(
    "arguments", [("listen",), ("devices",), ("listen", "--device", "usb"), ("mic-check",)]
)
def test_without_portaudio_its_installation_is_told(arguments, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = speech(*arguments, env=os.environ | {"PYTHONPATH": path})
    assert result.returncode == 6
    assert "apt-get install libportaudio2" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- a sound card --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tone(folder) -> Path:
    rate = sound_card.RATE
    time = np.arange(round(3.0 * rate)) / rate
    return write(folder / "tone.wav", 0.5 * np.sin(2 * np.pi * TONE * time), rate)


def record(microphone: Microphone, n_loud: int) -> tuple[np.ndarray, int]:
    """The sound of so many blocks from the first loud one on, and its rate."""
    loud: list[np.ndarray] = []
    for block in microphone.blocks():
        if not block.event and (loud or np.abs(block.samples).max() > 8000):
            loud.append(block.samples)
        if len(loud) == n_loud:
            assert block.dropped == 0
            return np.concatenate(loud)[:, 0], block.sample_rate
    raise AssertionError("the microphone came to an end")


def is_whole_tone(samples: np.ndarray, rate: int) -> bool:
    """Whether one sine of the right pitch, amplitude and phase explains all of it."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    if abs(np.argmax(spectrum) * rate / len(samples) - TONE) > rate / len(samples):
        return False
    phase = 2 * np.pi * TONE * np.arange(len(samples)) / rate
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=1)
    parts, *_ = np.linalg.lstsq(waves, samples / 32768, rcond=None)
    rest = samples / 32768 - waves @ parts
    return abs(np.hypot(*parts) - 0.5) < 0.02 and float(np.abs(rest).max()) < 0.02


@pytest.mark.sound
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_tone_that_is_played_is_heard_at_its_pitch_and_without_a_gap(card, tone, rate):
    with Microphone(sound_card.DEVICE, rate) as microphone:
        player = card.play(tone)
        samples, heard_at = record(microphone, 42)
        assert player.wait() == 0
    assert heard_at == rate
    assert microphone.overflows == 0
    assert is_whole_tone(samples[rate // 20 :], rate)


@pytest.mark.sound
def test_a_reader_that_sleeps_loses_the_oldest_blocks_and_hears_on_without_a_gap(card, tone):
    with Microphone(sound_card.DEVICE, queue_seconds=0.5) as microphone:
        blocks = microphone.blocks()
        next(blocks)
        while microphone.dropped < 20:
            pass
        player = card.play(tone)
        loud = [np.zeros(0)]
        while len(loud) < 40:
            block = next(blocks)
            if len(loud) > 1 or np.abs(block.samples).max() > 8000:
                loud.append(block.samples[:, 0])
        assert player.wait() == 0
        assert block.dropped >= 20
    assert is_whole_tone(np.concatenate(loud[2:]), 16_000)


def outlived_its_server(card: sound_card.SoundCard, words: Path, listener: Listener) -> bool:
    """Whether a listener whose sound server was killed records again once there is another one.

    Now and then ALSA's plugin for PulseAudio locks itself up when its server dies, and PortAudio
    with it. Then no device can be opened in that process any more, and it ends with a sentence.
    """
    assert listener.next("ready")["message"] == "listening to pulse"
    card.play(words).wait()
    before = [listener.next("detection") for _ in WORDS]
    assert [detection["label"] for detection in before] == SPOKEN
    card.kill()
    try:
        assert "lost" in listener.next("lost")["message"]
    finally:
        card.start()
    assert listener.process.stdout is not None
    lines = iter(listener.process.stdout.readline, "")
    events = (json.loads(line).get("event") for line in lines)
    if next((event for event in events if event == "back"), None):
        return True
    out, err = listener.process.communicate(timeout=30)
    assert (listener.process.returncode, out) == (6, "")
    assert "let go of the lost microphone within 20 s, got no answer; start the program" in err
    return False


@pytest.mark.sound
def test_words_are_heard_from_the_card_also_after_its_server_was_killed(card, words, folder, start):
    listeners = (start("--device", sound_card.DEVICE) for _ in range(3))
    listener = next(each for each in listeners if outlived_its_server(card, words, each))
    card.play(write(folder / "word.wav", said([(0.5, "high")], 1.5))).wait()
    after = listener.next("detection")
    assert after["label"] == "high"
    assert after["time"] > 5, "the time goes on"
    assert listener.end(signal.SIGINT) == (0, ""), "no chatter of the libraries either"


@pytest.mark.sound
def test_a_sound_server_that_hangs_does_not_hold_up_ctrl_c(card, start):
    listener = start("--device", sound_card.DEVICE)
    listener.next("ready")
    card.freeze()
    try:
        listener.next("lost")
        assert listener.end(signal.SIGINT) == (0, "")
    finally:
        card.thaw()


@pytest.mark.sound
def test_list_shows_the_card_and_an_unknown_device_is_refused_with_those_there_are(card):
    shown = [json.loads(line) for line in speech("devices", "--json").stdout.splitlines()]
    assert sound_card.DEVICE in [device["name"] for device in shown]
    assert set(shown[0]) == {"number", "name", "channels", "sample_rate"}
    assert sound_card.DEVICE in speech("devices").stdout
    refused = listen("--device", "piano")
    assert refused.returncode == 6
    assert "device 'piano': expected one of " in refused.stderr
    assert "'pulse'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.sound
def test_a_check_measures_the_card_and_plays_to_it_what_it_heard(card, tone, folder):
    heard = folder / "heard.wav"
    arguments = ("--seconds", "5", "--device", sound_card.DEVICE, "--json")
    checking = subprocess.Popen(
        command(*arguments, "--save", heard, name="mic-check"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert checking.stderr is not None
    assert checking.stderr.readline() == "speech: say a few words, for 5 s\n"
    assert card.play(tone).wait() == 0
    out, err = checking.communicate()
    assert (checking.returncode, err) == (0, "")
    found = json.loads(out)
    assert found["device"] == sound_card.DEVICE
    assert found["native_channels"] >= 2
    assert found["peak_db"] == pytest.approx(-6.0, abs=0.5)
    assert found["dropped"] == found["overflows"] == found["clipped"] == 0
    samples, rate = soundfile.read(heard)
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    assert is_whole_tone(32768 * samples[loud[0] + rate // 20 : loud[-1] - rate // 20], rate)
    with Microphone(sound_card.DEVICE) as microphone:
        playing = subprocess.Popen(command("--wav", tone, "--play", name="mic-check"), cwd=ROOT)
        again, heard_at = record(microphone, 20)
        assert playing.wait() == 0
    # a player that is short of time leaves gaps, but plays no other pitch
    spectrum = np.abs(np.fft.rfft(again * np.hanning(len(again))))
    assert np.argmax(spectrum) * heard_at / len(again) == pytest.approx(TONE, abs=2)


@pytest.mark.sound
def test_more_channels_than_the_card_has_are_refused_with_how_many_there_are(card):
    refused = listen("--device", sound_card.DEVICE, "--channels", "64")
    assert refused.returncode == 6
    assert re.search(r"'pulse': expected 1 to \d+ channels, got 64", refused.stderr)
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.sound
@pytest.mark.slow
def test_the_shipped_model_hears_real_words_from_the_card(card, speech_commands, folder, start):
    if not (MODEL / "model.keras").exists():
        pytest.skip("no model is shipped yet")
    commands = ("yes", "left", "stop", "go")
    names = (speech_commands / "validation_list.txt").read_text().split()
    clips = [next(n for n in names if n.startswith(f"{word}/")) for word in commands]
    parts = [np.pad(soundfile.read(speech_commands / c)[0], (0, RATE // 2)) for c in clips]
    silence = np.zeros(RATE)
    said_by_people = write(folder / "real.wav", np.concatenate([*parts, silence]))

    listener = start("--device", sound_card.DEVICE, "--model", MODEL, program="speech")
    listener.next("ready")
    assert card.play(said_by_people).wait() == 0
    listener.process.send_signal(signal.SIGINT)
    shown, problems = listener.process.communicate()
    assert listener.process.returncode == 0, problems
    items = [json.loads(line) for line in shown.splitlines()]
    found = [item["label"] for item in items if item["type"] == "detection"]
    assert len(set(found) & set(commands)) >= 3, found  # one may be mistaken
