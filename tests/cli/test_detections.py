"""What a terminal does with a live session: lines to print, programs to start."""

import json
import os
import signal
import sys

import pytest
import typer

from speech.cli.detections import CLEAR, Launcher, live_lines
from speech.detection import Detection
from speech.live.session import Event, Status

HIGH = Detection("high", 0.9, 1.3, 0.4)

# --- programs ------------------------------------------------------------------------------------

SAVE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def test_a_detection_starts_the_command_with_its_label_and_no_shell(tmp_path):
    target = tmp_path / "heard"
    command = f"'{sys.executable}' -c '{SAVE}' '{target}' 'said {{label}}; rm -r $HOME & `id`'"
    with Launcher(command) as launcher:
        assert launcher.run(HIGH) == []
    assert target.read_text() == "said high; rm -r $HOME & `id`"


def test_commands_that_have_ended_leave_no_zombies_and_too_many_are_not_started():
    sleeping = f"'{sys.executable}' -c 'import time; time.sleep(600)'"
    launcher = Launcher(sleeping)
    assert [launcher.run(HIGH) for _ in range(8)] == [[]] * 8
    running = [child.pid for child in launcher._children]
    [refusal] = launcher.run(HIGH)
    assert "was not started: 8 of them still run" in refusal.message
    for child in launcher._children:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
    launcher.reap()
    for pid in running:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert launcher.run(HIGH) == []
    launcher._children[0].kill()
    launcher.__exit__()


def test_a_command_that_cannot_be_started_is_an_event(tmp_path):
    [event] = Launcher(f"{tmp_path}/{{label}}").run(HIGH)
    assert (event.kind, event.time) == ("exec", HIGH.time)
    assert "could not be started" in event.message


def test_label_probability_and_time_are_filled_in_wherever_they_stand(tmp_path):
    target = tmp_path / "heard"
    command = f"'{sys.executable}' -c '{SAVE}' '{target}' {{time}}:{{label}}={{probability}}{{x}}"
    with Launcher(command) as launcher:
        assert launcher.run(HIGH) == []
    assert target.read_text() == "1.300:high=0.9000{x}"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("echo {label} && ls", "'&&'"),
        ("echo {label} | wc", "'|'"),
        ("echo {label} > /dev/null", "'>'"),
        ("echo {label};ls", "';'"),
        ("echo $HOME", "'$HOME'"),
        ("echo `id`", "'`'"),
        ("cd /tmp", "script"),
        ("echo {lable}", "{label}"),
    ],
)
def test_what_only_a_shell_understands_is_refused_with_a_sentence(command, word, refused):
    assert word in refused(typer.BadParameter, lambda: Launcher(command))


def test_what_stands_in_quotes_is_meant_as_it_stands():
    with Launcher("true '&&' \"a; b\" c\\;d 'http://x/?a=1&b=2'") as launcher:
        assert launcher.run(HIGH) == []


@pytest.mark.parametrize("command", ["say '{label}", "   ", "no-such-program-here {label}"])
def test_a_command_that_never_could_be_started_is_refused_at_once(command, refused):
    refused(typer.BadParameter, lambda: Launcher(command))


# --- lines ---------------------------------------------------------------------------------------

LEFT = Detection("left", 0.9712345, 12.34, 11.5)
LOST = Event("lost", 3.0, "the microphone was lost")
QUIET = Event("quiet", 3.0, "too quiet")
STATUS = Status(12.3, 0.1, "left", 0.45, "clipping", 3, 1)


def test_detections_go_to_standard_output_and_events_beside_it():
    assert live_lines(LEFT) == ("12.3 s  left  0.97\n", "")
    assert live_lines(LOST) == ("", "speech: the microphone was lost\n")
    assert live_lines(QUIET) == ("", "speech: too quiet\n")
    assert live_lines(STATUS) == ("", "")


def test_json_lines_are_detections_and_events():
    assert json.loads(live_lines(LEFT, as_json=True)[0]) == {
        "type": "detection",
        "label": "left",
        "probability": 0.9712,
        "time": 12.34,
        "start": 11.5,
    }
    assert json.loads(live_lines(LOST, as_json=True)[0]) == {
        "type": "event",
        "event": "lost",
        "time": 3.0,
        "message": "the microphone was lost",
    }
    assert live_lines(STATUS, as_json=True) == ("", "")


def test_a_terminal_has_one_line_that_is_written_over():
    out, line = live_lines(STATUS, columns=200)
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
    assert len(live_lines(STATUS, columns=40)[1]) <= len(CLEAR) + 39
    assert live_lines(LEFT, columns=80) == ("12.3 s  left  0.97\n", CLEAR)
    assert live_lines(LOST, columns=80) == ("", f"{CLEAR}speech: the microphone was lost\n")
    assert live_lines(QUIET, columns=80) == ("", "")
