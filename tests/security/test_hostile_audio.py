"""Any bytes as audio give samples or one clear error, in bounded memory and time.

The door is attacked in a child process with little memory and processor time, so that a crash, a
hang and a bomb are all the same to see: the child does not come back with its count.
"""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT

SMALL, CAMPAIGN = 400, 25_000


def attacked(mode: str, n: int, seed: int, folder: Path) -> dict[str, Any]:
    """What tests/security/attack_audio.py tells of n attacks."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.security.attack_audio"),
            *(mode, str(n), str(seed), str(folder)),
        ],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    last = folder / "last"
    where = f"; the last one is {last.read_text()}" if last.exists() else ""
    assert done.returncode == 0, f"status {done.returncode}{where}: {done.stderr[-3000:]}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_files_damaged_at_random_give_samples_or_one_clear_error(tmp_path):
    counts = attacked("files", SMALL, 1, tmp_path)
    assert counts["tried"] == SMALL
    assert min(counts["taken"], counts["refused"]) > SMALL // 20, counts


def test_arrays_made_at_random_give_samples_or_one_clear_error(tmp_path):
    counts = attacked("arrays", SMALL, 1, tmp_path)
    assert counts["tried"] == SMALL
    assert min(counts["taken"], counts["refused"]) > SMALL // 20, counts


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["files", "arrays"])
def test_the_campaign_of_damaged_audio(mode, tmp_path, record):
    counts = attacked(mode, CAMPAIGN, 2, tmp_path)
    record(f"audio: {mode} made or damaged at random", counts)
    assert counts["tried"] == CAMPAIGN


def wav(rate: int, channels: int, bits: int, form: int, promised: int, data: bytes) -> bytes:
    block = channels * bits // 8
    fields = (form, channels, rate, rate * block % 2**32, block % 2**16, bits)
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, *fields) + struct.pack("<4sI", b"data", promised)
    return b"RIFF" + struct.pack("<I", (promised + 36) % 2**32) + b"WAVE" + chunk + data


def bombs(folder: Path) -> None:
    """Files that are small on disk and large, slow or strange for who believes them."""
    data = bytes(32_000)
    for name, content in {
        "a rate of 1 Hz": wav(1, 1, 16, 1, len(data), data),
        "a rate of 4 GHz": wav(2**32 - 1, 1, 16, 1, len(data), data),
        "1,024 channels": wav(16_000, 1024, 16, 1, len(data), data),
        "65,535 channels": wav(16_000, 65_535, 64, 3, len(data), data),
        "no channels": wav(16_000, 0, 16, 1, len(data), data),
        "samples of 0 bits": wav(16_000, 1, 0, 1, len(data), data),
        "samples of 65,535 bits": wav(16_000, 1, 65_535, 1, len(data), data),
        "2 GB promised": wav(16_000, 1, 16, 1, 2**31 - 2**17, data),
        "an unknown coding": wav(16_000, 1, 16, 0xFFFE, len(data), data),
        "a chunk that is longer than the file": data.join([b"RIFF\xff\xff\xff\xffWAVEfmt ", b""]),
        "an ID3 tag of 256 MB": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + data,
        "a FLAC of empty blocks": b"fLaC" + b"\x01\x00\x00\x00" * 100_000,
        "an Ogg of empty pages": (b"OggS" + bytes(23)) * 10_000,
        "MP3 headers only": b"\xff\xfb\x90\x00" * 100_000,
    }.items():
        (folder / f"{name}.wav").write_bytes(content)
    with (folder / "4 GB of silence.wav").open("wb") as file:
        file.write(wav(16_000, 1, 16, 1, 2**31 - 2**17, b""))
        file.truncate(2**32)  # sparse
    with (folder / "4 GB of zeros.wav").open("wb") as file:
        file.truncate(2**32)


def test_bombs_are_refused_within_the_limits(tmp_path):
    (tmp_path / "bombs").mkdir()
    bombs(tmp_path / "bombs")
    counts = attacked("folder", 0, 0, tmp_path)
    assert counts == {"tried": 16, "taken": 0, "refused": 16}
