"""Files: replaced whole or not at all, and names and texts in whatever encoding they come."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_LEFT_SECONDS = 24 * 3600.0  # nothing that is still being written is this old


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path that this yields; on success it is renamed to ``path``.

    The temporary name lies in the same folder and keeps the suffix, since some writers look at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8)."""
    with replacing(path) as part:
        part.write_text(text, "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file, indented for people."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def sweep_parts(folder: Path, names: Iterable[str]) -> None:
    """Delete what ``replacing`` left beside files of these names when it was killed a day ago."""
    with contextlib.suppress(OSError):
        for name in map(Path, names):
            ours = re.compile(rf"\.{re.escape(name.stem)}\.[0-9a-f]{{8}}{re.escape(name.suffix)}")
            for path in folder.iterdir():
                if ours.fullmatch(path.name) and _is_file(path) and _is_old(path):
                    path.unlink(missing_ok=True)


def sweep_decoding(cache: Path) -> None:
    """Delete unfinished folders of decoded clips whose command was killed a day ago.

    A folder that holds anything else, or a link, is somebody else's and stays.
    """
    ours = re.compile(r"part|part/(clips\.npy|noise-\d+\.npy|digest\.json)")
    with contextlib.suppress(OSError):
        for folder in cache.glob("tmp????????"):
            if folder.is_symlink() or not folder.is_dir():
                continue
            held = list(folder.rglob("*"))
            names = [path.relative_to(folder).as_posix() for path in held]
            kinds = [
                path.is_dir() and not path.is_symlink() for path in held if path.name == "part"
            ]
            plain = all(kinds) and all(_is_file(p) for p in held if p.name != "part")
            known = "part" in names and all(map(ours.fullmatch, names))
            if known and plain and all(map(_is_old, [folder, *held])):
                shutil.rmtree(folder, ignore_errors=True)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _LEFT_SECONDS


def decode_text(content: bytes) -> str:
    """The text of a file that somebody wrote: UTF-8 or UTF-16 with its mark, UTF-8, or Latin-1."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"),
                           (b"\xfe\xff", "utf-16")):  # fmt: skip
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def readable_name(path: str | os.PathLike[str]) -> str:
    """A path as text that can be written and compared, whatever system named the file.

    Letters are composed (NFC; macOS writes the dots of a letter by themselves), and bytes that are
    no UTF-8 are read as Latin-1.
    """
    content = os.fspath(path).encode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", decode_text(content))


def sha256(path: Path) -> str:
    """The digest of a file, in 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
