"""A sound card in user space: a PulseAudio server of its own, whose monitor is the microphone."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = ("pulseaudio", "pactl", "pacat", "paplay")
DEVICE = "pulse"  # what ALSA, and so PortAudio, calls the server
RATE = 48_000
_SCRIPT = f"""
.fail
load-module module-native-protocol-unix
load-module module-null-sink sink_name=card rate={RATE} channels=2 format=s16le
set-default-sink card
set-default-source card.monitor
"""
_KEEP_ALIVE = (
    *("pacat", "-p", "-d", "card", "--latency-msec=20", "--process-time-msec=10"),
    *("--format=s16le", f"--rate={RATE}", "--channels=2", "--raw", "/dev/zero"),
)
_START_SECONDS = 20.0


def missing() -> str:
    """The programs that are not installed, or ""."""
    return ", ".join(name for name in PROGRAMS if shutil.which(name) is None)


class SoundCard:
    """What is played into it is what its microphone hears.

    Args:
        folder: Where its files lie; a short path, since a socket's may have 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir(parents=True)
        (folder / "card.pa").write_text(_SCRIPT)
        self.variables = {
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "HOME": str(folder / "home"),
            "PULSE_SERVER": f"unix:{folder}/run/pulse/native",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the server, and a silent player: an idle null sink renders in bursts of 2 s."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(mode=0o700)
        arguments = "--daemonize=no --exit-idle-time=-1 --use-pid-file=no --realtime=no"
        self._launch(
            *("pulseaudio", "-n", "-F", str(self.folder / "card.pa"), *arguments.split()),
            *("--high-priority=no", "--log-target=stderr"),
        )
        give_up = time.monotonic() + _START_SECONDS
        while self._call("pactl", "info").returncode:
            assert time.monotonic() < give_up, (self.folder / "log").read_text()
            time.sleep(0.1)
        self._launch(*_KEEP_ALIVE)
        while not self._call("pactl", "list", "short", "sink-inputs").stdout.strip():
            assert time.monotonic() < give_up, "the silent player does not play"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a crash would: at once, without a goodbye."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()

    def freeze(self) -> None:
        """Let the server hang until ``thaw``: it is there, and answers nobody."""
        self._processes[0].send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._processes[0].send_signal(signal.SIGCONT)

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Begin to play a file; wait() for the end of it."""
        return self._launch("paplay", "--device=card", str(path), kept=False)

    def _launch(self, *command: str, kept: bool = True) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment())
        if kept:
            self._processes.append(process)
        return process

    def _call(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, capture_output=True, env=self._environment(), check=False)

    def _environment(self) -> dict[str, str]:
        return os.environ | self.variables
