"""Where recordings lie: folders, patterns and addresses, listed and fetched through fsspec."""

import contextlib
import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from speech.audio_files import FORMATS, SUFFIXES
from speech.data.folders import find_audio
from speech.errors import AudioError
from speech.files import readable_name, sha256
from speech.installation import install_command

_PATTERN = "*?["


class Found(NamedTuple):
    """A recording that a source holds.

    Attributes:
        name: Its path or address.
        n_bytes: Its size; 0 where the place does not say.
    """

    name: str
    n_bytes: int


def is_address(source: str) -> bool:
    """Whether a source is an address, such as ``s3://bucket/folder``, and no path."""
    return "://" in source


def find(sources: Sequence[str]) -> Iterator[Found | str]:
    """The recordings of all sources, one after the other, and sentences on what is odd there.

    Args:
        sources: Files, folders and patterns (``recordings/**/*.flac``) of this machine, and
            addresses of all three kinds that fsspec knows: ``s3://``, ``gs://``, ``hf://``,
            ``http://``.

    Yields:
        Recordings; of each source in the order of the names.

    Raises:
        AudioError: A source that holds no recording or cannot be read.
    """
    for source in sources:
        yield from _remote(source) if is_address(source) else _local(source)


def _local(source: str) -> Iterator[Found | str]:
    paths = [Path(source)]
    if glob.has_magic(source) and not paths[0].exists():
        paths = [Path(name) for name in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207
    if not paths or not all(each.exists() for each in paths):
        raise _nothing(source)
    notes: list[str] = []
    for each in find_audio(paths, on_note=notes.append):
        yield Found(os.fspath(each), each.stat().st_size)
    yield from notes


def _remote(source: str) -> Iterator[Found]:
    with _reading(source):
        system, path = _open(source)
        if any(sign in urlsplit(source).path for sign in _PATTERN):
            entries = system.glob(path, detail=True)
        elif PurePosixPath(path).suffix.lower() in SUFFIXES:
            entries = {path: system.info(path)}
        else:
            entries = system.find(path, detail=True)
    n = 0
    for name, entry in sorted(entries.items()):
        if entry["type"] == "file" and PurePosixPath(name).suffix.lower() in SUFFIXES:
            n += 1
            yield Found(system.unstrip_protocol(name), entry.get("size") or 0)
    if not n:
        raise _nothing(source)


def _nothing(source: str) -> AudioError:
    return AudioError(
        f"{readable_name(source)}: expected recordings ({', '.join(SUFFIXES)}), got none; "
        "check the path or address"
    )


@contextlib.contextmanager
def at_hand(name: str) -> Iterator[tuple[Path, str]]:
    """A recording as a file of this machine, for as long as the context lasts, and its digest.

    A path is that file itself; what lies elsewhere is read once, to a temporary file. What is
    raised inside names the recording by its address.

    Yields:
        The file, and the SHA-256 of its content in 64 hexadecimal digits.

    Raises:
        AudioError: It cannot be read.
    """
    if not is_address(name):
        path = Path(name)
        try:
            digest = sha256(path)
        except OSError as error:
            raise AudioError(
                f"{readable_name(name)}: expected an audio file ({FORMATS}) that can be read, got "
                f"the error {error.strerror!r}; check the path on all machines of the cluster"
            ) from error
        yield path, digest
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PurePosixPath(urlsplit(name).path).name
        digests = hashlib.sha256()
        with _reading(name):
            system, place = _open(name)
            with system.open(place, "rb", cache_type="none") as source, path.open("wb") as file:
                while block := source.read(1 << 20):
                    digests.update(block)
                    file.write(block)
        try:
            yield path, digests.hexdigest()
        except AudioError as error:
            raise AudioError(str(error).replace(os.fspath(path), name)) from error


def _open(address: str) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.url_to_fs(address)
    return system, path


@contextlib.contextmanager
def _reading(address: str) -> Iterator[None]:
    """Turn what the libraries of all the services raise into one line."""
    try:
        yield
    except ImportError as error:
        raise AudioError(
            f"{address}: expected the package that reads such addresses, got none ({error}); "
            f"install it on all machines, for s3 with: {install_command('cluster')}"
        ) from error
    except Exception as error:  # each service has classes of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AudioError(
            f"{address}: expected recordings that can be read, got {type(error).__name__} "
            f"({reason}); check the address and the rights to it"
        ) from error
