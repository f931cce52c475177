"""Faults: killed at any moment, a full disk, no home, no rights, no network, no ffmpeg.

Afterwards every file is the old one or the new one, what failed said so in a line, and the same
command can simply be given again.
"""

import contextlib
import ctypes
import ctypes.util
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from speech.files import write_json
from tests.conftest import PROJECT, write
from tests.security.conftest import MODEL

Outcome: TypeAlias = subprocess.CompletedProcess[str]


def speech(*arguments: object, before: tuple[str, ...] = (), **env: str) -> Outcome:
    """A command of the terminal; an environment variable of "" is taken away."""
    chosen = {k: v for k, v in (os.environ | env).items() if v}
    return subprocess.run(
        [*before, sys.executable, "-m", "speech", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=chosen,
    )


def one_line(outcome: Outcome) -> str:
    """What a command that failed says: one line, no traceback."""
    assert outcome.returncode not in (0, None), outcome.stdout
    assert outcome.returncode > 0, f"ended by signal {-outcome.returncode}"
    assert "Traceback" not in outcome.stderr
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    assert lines[0].startswith("speech: ")
    return lines[0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write(folder / "clip.wav", np.random.default_rng(0).normal(0, 0.05, 16_000))
    return folder / "clip.wav"


def kills(program: str, arguments: list[str], n: int, whole: float, seed: int) -> Iterator[int]:
    """Start a program n times and kill it: once in each n-th of the time, at a random moment."""
    chance = random.Random(seed)
    for number in range(n):
        child = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        child.stdout.readline()  # it has begun
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(whole * (number + chance.random()) / n)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        yield number


WRITER = """
import sys
from pathlib import Path
from speech.files import write_json
print("begun", flush=True)
number = int(sys.argv[2])
while True:
    number += 1
    write_json(Path(sys.argv[1]), {"number": number, "filling": [number] * 20_000})
"""


def killed_writers(folder: Path, n: int, seed: int) -> int:
    target = folder / "file.json"
    write_json(target, {"number": 0, "filling": [0] * 20_000})
    reached = 0
    for _ in kills(WRITER, [str(target), "0"], n, 0.3, seed):
        content = json.loads(target.read_text("utf-8"))
        assert content["filling"] == [content["number"]] * 20_000
        reached = max(reached, content["number"])
    # what was being written has a name of its own, which no command takes for a file of its
    assert all(p == target or p.name.startswith(".") for p in folder.iterdir())
    assert reached > 0
    return n


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    killed_writers(tmp_path, 8, seed=1)


UNPACKER = """
import shutil, sys, time
from pathlib import Path
from speech.data.download import unpack
copy = shutil.copyfileobj
# slower, so that most moments lie in the middle of it
shutil.copyfileobj = lambda *files: (copy(*files), time.sleep(0.005))
print("begun", flush=True)
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def killed_unpackers(folder: Path, corpus: Path, n: int, seed: int) -> int:
    archive, target = folder / "corpus.tar", folder / "unpacked"
    subprocess.run(["tar", "-cf", archive, "-C", corpus, "."], check=True)
    wanted = {p.relative_to(corpus): p.read_bytes() for p in corpus.rglob("*") if p.is_file()}
    whole = 0
    for _ in kills(UNPACKER, [str(archive), str(target)], n, 0.4, seed):
        if target.exists():
            found = {p.relative_to(target): p.read_bytes() for p in target.rglob("*.*")}
            assert {k: v for k, v in found.items() if k in wanted} == wanted
            target.rename(folder / f"whole-{whole}")
            whole += 1
    subprocess.run(
        [sys.executable, "-c", UNPACKER, archive, target], cwd=PROJECT, check=True,
        capture_output=True,
    )  # fmt: skip
    assert target.is_dir()
    return n


def test_an_unpacker_killed_at_any_moment_leaves_all_or_nothing(tmp_path, tiny_corpus):
    killed_unpackers(tmp_path, tiny_corpus, 5, seed=1)


PREPARE = """
import sys, time
import speech.data.corpus
from speech.cli.main import main
fit = speech.data.corpus.fit_length
speech.data.corpus.fit_length = lambda *each: (time.sleep(0.01), fit(*each))[1]  # as above
print("begun", flush=True)
sys.argv = ["speech", "prepare", "--data", sys.argv[1], "--cache", sys.argv[2]]
main()
"""


def killed_prepares(folder: Path, corpus: Path, n: int, seed: int) -> int:
    expected = speech("prepare", "--data", corpus, "--cache", folder / "other")
    assert expected.returncode == 0, expected.stderr
    for _ in kills(PREPARE, [str(corpus), str(folder / "cache")], n, 0.8, seed):
        pass
    again = speech("prepare", "--data", corpus, "--cache", folder / "cache")
    assert again.returncode == 0, again.stderr
    assert again.stdout == expected.stdout

    def kept(name: str) -> dict[str, bytes]:
        root = folder / name
        files = (p for p in root.rglob("*") if p.is_file())
        found = {str(p.relative_to(root)): p.read_bytes() for p in files}
        # what a killed one had begun has a name that no later one asks for
        return {name: content for name, content in found.items() if not name.startswith("tmp")}

    assert kept("cache") == kept("other")
    return n


def test_prepare_killed_at_any_moment_can_simply_be_repeated(tmp_path, tiny_corpus):
    killed_prepares(tmp_path, tiny_corpus, 4, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_many_kills_of_writers_unpackers_and_prepare(tmp_path, tiny_corpus, record):
    counts = {}
    for what, kill in (("unpack", killed_unpackers), ("prepare", killed_prepares)):
        (tmp_path / what).mkdir()
        counts[what] = kill(tmp_path / what, tiny_corpus, 30, seed=2)
    (tmp_path / "write").mkdir()
    counts["write"] = killed_writers(tmp_path / "write", 200, seed=2)
    record("SIGKILL at random moments", counts)


# --- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 300 KB in memory; only root may have one."""
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or library.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=300k"):
        pytest.skip("no right to mount a small disk")
    yield folder
    assert library.umount2(bytes(folder), 2) == 0


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_on_a_full_disk_the_old_file_stays_and_nothing_is_left_half_written(small_disk):
    write_json(small_disk / "kept.json", [1])
    with pytest.raises(OSError, match="No space left"):
        write_json(small_disk / "kept.json", ["x" * 1000] * 1000)
    assert (small_disk / "kept.json").read_text("utf-8") == "[\n  1\n]\n"
    assert visible(small_disk) == ["kept.json"]
    write_json(small_disk / "next.json", [2])  # and what was taken is free again


def test_prepare_on_a_full_disk_says_so_in_a_line_and_works_with_room(
    small_disk, tmp_path, tiny_corpus
):
    outcome = speech("prepare", "--data", tiny_corpus, "--cache", small_disk)
    line = one_line(outcome)
    assert "No space left" in line
    again = speech("prepare", "--data", tiny_corpus, "--cache", tmp_path / "room")
    assert again.returncode == 0, again.stderr
    assert not list(small_disk.iterdir()), "a full disk was left full"


# --- who and where -------------------------------------------------------------------------------


def said(outcome: Outcome) -> object:
    """The answer to the clip; stderr may hold a notice but no traceback."""
    assert outcome.returncode == 0, outcome.stderr
    assert "Traceback" not in outcome.stderr
    return json.loads(outcome.stdout)["label"]


@pytest.fixture(scope="module")
def label(clip) -> object:
    return said(speech("recognize", clip, "--json", "--model", MODEL))


def without_home(clip: Path) -> Outcome:
    return speech("recognize", clip, "--json", "--model", MODEL, HOME="", XDG_CACHE_HOME="")


def with_a_home_that_is_not_there(clip: Path) -> Outcome:
    return speech("recognize", clip, "--json", "--model", MODEL, HOME="/nonexistent")


def without_programs(clip: Path) -> Outcome:
    return speech("recognize", clip, "--json", "--model", MODEL, PATH="/nonexistent")


def without_a_network(clip: Path) -> Outcome:
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to take the network away")
    before = ("unshare", "-n")
    return speech("recognize", clip, "--json", "--model", MODEL, before=before)


def as_an_ordinary_user(clip: Path) -> Outcome:
    environment = {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    before = ordinary_user()
    return speech("recognize", clip, "--json", "--model", MODEL, before=before, **environment)


def ordinary_user() -> tuple[str, ...]:
    """What makes root a user who is not allowed everything."""
    before = () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    if before and subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no way to be an ordinary user")
    return before


@pytest.mark.parametrize(
    "how",
    [
        without_home,
        with_a_home_that_is_not_there,
        without_programs,
        without_a_network,
        as_an_ordinary_user,
    ],
)
def test_recognising_works_without_what_it_does_not_need(how: Callable, clip, label):
    assert said(how(clip)) == label


def test_prepare_without_a_network_is_one_line_and_leaves_nothing(tmp_path):
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to take the network away")
    line = one_line(speech("prepare", "--folder", tmp_path / "new", before=("unshare", "-n")))
    assert "run the same command again" in line
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, tiny_corpus):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    before = ordinary_user()
    outcome = speech("prepare", "--data", tiny_corpus, "--cache", folder, before=before)
    assert re.search("[Pp]ermission denied", one_line(outcome))
    assert not visible(folder)
    outcome = speech("recognize", tiny_corpus / "nothing.wav", "--model", MODEL, before=before)
    assert "nothing.wav" in one_line(outcome)
