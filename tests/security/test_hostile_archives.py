"""Archives of strangers: whatever was done to one, all of it comes out inside, or nothing.

The zoo of single tricks (out of the folder, links, devices, holes, duplicates, caps, cut short) is
in tests/data/test_download.py; here they come in any number, order and combination, and damaged.
"""

import io
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from speech.data.download import unpack
from speech.errors import CorpusError

NAMES = (
    *("yes/a.wav", "yes/b.wav", "no/c.wav", "list.txt", "./yes/a.wav", "yes", "no/../yes/d.wav"),
    *(
        "../evil",
        "yes/../../evil",
        "a/b/c/../../../../evil",
        "..",
        ".",
        "",
        "/",
        "//evil",
        "evil/..",
    ),
    *("..\\evil", "C:\\evil", "yes/\0evil", "x" * 260, "yes/" + "y/" * 200 + "z", "\u202egnp.wav"),
)
KINDS = (
    *(tarfile.REGTYPE,) * 20,
    *(tarfile.DIRTYPE,) * 5,
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
    *(tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"Z"),
)
LINKS = ("/etc/passwd", "..", "../evil", "yes/a.wav", "yes", "/")


def archive(chance: random.Random, outside: Path) -> bytes:
    """An archive of up to twelve members, half of the time without any trick."""
    file = io.BytesIO()
    honest = chance.random() < 0.5
    mode: Any = chance.choice(["w", "w:gz", "w:xz"])
    with tarfile.open(fileobj=file, mode=mode, format=chance.choice([0, 1, 2])) as tar:
        for number in range(chance.randint(0, 12)):
            name = f"word/{number}.wav"
            if not honest and chance.random() < 0.5:
                name = chance.choice([*NAMES, str(outside / "evil")])
            member = tarfile.TarInfo(name)
            member.type = tarfile.REGTYPE if honest else chance.choice(KINDS)
            member.linkname = chance.choice([*LINKS, str(outside / "evil")])
            member.mode = chance.choice([0o644, 0o4777, 0])
            member.size = chance.choice([0, 1, 511, 512, 513, 5_000]) if member.isreg() else 0
            try:
                tar.addfile(member, io.BytesIO(b"x" * member.size))
            except ValueError:  # a name that this format has no room for
                continue
    content = bytearray(file.getvalue())
    for _ in range(chance.choice([0, 0, 1, 3])):
        if chance.random() < 0.3:
            content = content[: chance.randrange(len(content) + 1)]
        elif content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def unpacked(folder: Path, n: int, seed: int) -> dict[str, int]:
    """Unpack n archives; what was there before has to be there afterwards, and nothing else."""
    counts = {"tried": 0, "taken": 0, "refused": 0}
    outside = folder / "outside"
    for inside in ("outside/kept", "home"):
        (folder / inside).mkdir(parents=True)
    (folder / "kept.txt").write_text("kept")
    before = sorted(folder.rglob("*"))
    path, target = folder / "archive.tar", folder / "home" / "corpus"
    for number in range(n):
        chance = random.Random(f"{seed} {number}")
        path.write_bytes(archive(chance, outside))
        try:
            unpack(path, target)
        except CorpusError:
            counts["refused"] += 1
        else:
            counts["taken"] += 1
            for each in sorted(target.rglob("*"), reverse=True):
                assert not each.is_symlink(), number
                assert each.is_file() or each.is_dir(), number
                assert each.stat().st_nlink == 1 or each.is_dir(), number
                assert not each.stat().st_mode & 0o7000, number
                each.unlink() if each.is_file() else each.rmdir()
            target.rmdir()
        path.unlink()
        assert sorted(folder.rglob("*")) == before, f"archive {seed} {number}"
        counts["tried"] += 1
    return counts


def test_archives_made_and_damaged_at_random_come_out_inside_or_not_at_all(tmp_path):
    counts = unpacked(tmp_path, 200, seed=1)
    assert min(counts["taken"], counts["refused"]) > 20, counts


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_the_campaign_of_archives(tmp_path, record):
    record("archives made and damaged at random", unpacked(tmp_path, 10_000, seed=2))
