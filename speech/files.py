"""Files that are either the old one or the new one, whatever happens in between."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
