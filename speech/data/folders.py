"""Folders of recordings: one walk for everybody, which says what it passed over and why."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from speech.audio import OnNote, warn
from speech.audio_files import STANDARD_INPUT, SUFFIXES
from speech.errors import AudioError
from speech.files import readable_name

# What holds sound and cannot be decoded here: worth more than a line "is no recording".
UNREADABLE_SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mov", ".amr", ".3gp", ".3ga"),
    *(".ape", ".wv", ".spx", ".ac3", ".dsf", ".alac", ".weba", ".qta"),
)
_DOCUMENTS = ("readme", "license", "licence", "copying")  # nobody takes them for sound
_EXAMPLES = 2


class PassedOver:
    """What a walk through folders left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, path: Path) -> None:
        """Remember a file or folder."""
        self._names.setdefault(reason, []).append(readable_name(path.name))

    def report(self, root: Path, on_note: OnNote) -> None:
        """Say it in one sentence, if there is anything to say."""
        if not self._names:
            return
        reasons = []
        for reason, names in self._names.items():
            shown = ", ".join(names[:_EXAMPLES]) + ", ..." * (len(names) > _EXAMPLES)
            reasons.append(f"{len(names)} ({reason}): {shown}")
        on_note(f"{readable_name(root)}: passed over {'; '.join(reasons)}")


def find_audio(sources: Sequence[Path], *, on_note: OnNote = warn) -> list[Path]:
    """The recordings that are meant by paths: files as they are, folders with all below them.

    Links to folders are followed, each folder once. Hidden files and folders are left out, and so
    is what is no recording by its suffix; each folder's ``on_note`` says how many and why.

    Args:
        sources: Files, folders, or ``-`` for standard input.
        on_note: Is told in one sentence what a folder holds besides.

    Raises:
        AudioError: A folder without recordings.
    """
    paths: list[Path] = []
    for source in sources:
        if str(source) == STANDARD_INPUT or not source.is_dir():
            paths.append(source)
            continue
        passed_over = PassedOver()
        inside = walk(source, passed_over)
        passed_over.report(source, on_note)
        if not inside:
            raise AudioError(
                f"{readable_name(source)}: expected recordings ({', '.join(SUFFIXES)}), got none; "
                "choose another folder"
            )
        paths += inside
    return paths


def walk(folder: Path, passed_over: PassedOver, *, levels: int | None = None) -> list[Path]:
    """The recordings in a folder, sorted.

    Args:
        folder: Where to begin.
        passed_over: Is given everything else.
        levels: How deep; 1 is the folder itself alone, None is everything below it.
    """
    paths: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # links last, so that a folder goes by its own name and not by a link to it
    folders, links = [(folder, 1)], list[tuple[Path, int]]()
    while folders or links:
        place, level = folders.pop() if folders else links.pop()
        identity = _identity(place)
        if identity in seen:
            passed_over.add("link to a folder that was already read", place)
            continue
        seen.add(identity)
        for path, is_folder in _entries(place, passed_over):
            if not is_folder:
                paths.append(path)
            elif levels is not None and level >= levels:
                passed_over.add("folder inside another", path)
            else:
                (links if path.is_symlink() else folders).append((path, level + 1))
    return sorted(paths)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path, passed_over: PassedOver) -> Iterator[tuple[Path, bool]]:
    """The recordings and folders directly in a folder, and whether each is a folder."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        passed_over.add(f"cannot be opened: {error.strerror}", folder)
        return
    for entry in entries:
        path, name = folder / entry.name, entry.name.lower()
        is_folder = is_file = False
        with contextlib.suppress(OSError):  # a link that leads to itself
            is_folder, is_file = entry.is_dir(), entry.is_file()
        if name.startswith("."):
            passed_over.add("hidden", path)
        elif is_folder:
            yield path, True
        elif not is_file:
            passed_over.add("neither a file nor a folder", path)
        elif name.endswith(SUFFIXES):
            yield path, False
        elif name.endswith(UNREADABLE_SUFFIXES):
            passed_over.add("a format that cannot be read here, convert it to WAV", path)
        elif not name.startswith(_DOCUMENTS):
            passed_over.add("no recording", path)
