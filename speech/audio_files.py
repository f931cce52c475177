"""Audio files: opening them, and whether they hold all the sound that their structure promises.

libsndfile shortens a file that ends early without a word, and takes a header that a recorder never
finished at its word: no sound. What it does say, this module does not look for again. Containers
are followed by their structure, from the first byte, never by a search for a marker: four bytes of
sound may look like one.

Followed are the chunks of WAV (RIFF, RIFX, RF64, BW64), AIFF, CAF and W64, the header of AU, the
pages of Ogg, and in MP3 whether its first frame counts the frames.
"""

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from speech.errors import AudioError
from speech.files import readable_name

FileSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".caf", ".w64", ".rf64", ".au", ".snd"),
)
FORMATS = "WAV, FLAC, Ogg, Opus, MP3, AIFF, CAF, W64 or AU"
STANDARD_INPUT = "-"
_STANDARD_INPUT_PATHS = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_MAX_PIPE_BYTES = 2**29  # an hour and a half of 48 kHz mono, in memory
# An encoder that cannot seek back promises about as much as the field holds: arecord 0x7FFFFF00,
# sox 0x7FFFF000, ffmpeg 0xFFFFFFFF.
_STREAMED_BYTES = 0x7FFF0000
_ENDLESS = 1 << 40
_MOST_CHUNKS, _MOST_PAGES = 10_000, 1_000_000  # pages of two weeks; more is no recording
_ID3V1_BYTES = 128


@contextlib.contextmanager
def opened(source: FileSource) -> Iterator[tuple[BinaryIO, str]]:
    """A source as a binary file that can seek, and its name for messages.

    Args:
        source: A path, ``"-"`` for standard input, bytes, or a binary file object that can seek,
            which is left open. What comes through a pipe is read into memory.

    Raises:
        AudioError: No such path, no file, or it cannot be read.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source), "the audio"
    elif isinstance(source, str | os.PathLike):
        with _open_path(source) as opened:
            yield opened
    else:
        name = str(getattr(source, "name", "the audio"))
        try:
            source.seek(0)
            binary = isinstance(source.read(0), bytes)
        except (AttributeError, TypeError, ValueError, OSError):
            binary = False
        if not binary:
            raise AudioError(
                f"{name}: expected a path, bytes, (samples, rate) or a binary file object that can "
                f"seek, got {type(source).__name__}; of a stream pass the bytes: stream.read()"
            )
        yield source, name


@contextlib.contextmanager
def _open_path(source: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    is_input = os.fspath(source) in (STANDARD_INPUT, *_STANDARD_INPUT_PATHS)
    name = "standard input" if is_input else readable_name(source)
    expected = f"{name}: expected an audio file ({FORMATS})"
    try:
        mode = (os.fstat(0) if is_input else Path(source).stat()).st_mode
        is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        if not (is_pipe or stat.S_ISREG(mode)):
            what = "a folder" if stat.S_ISDIR(mode) else "a terminal or another device"
            raise AudioError(f"{expected}, got {what}; check the path")
        # a pipe that nobody writes to would be waited for
        wait = os.O_NONBLOCK if is_pipe and not is_input else 0
        descriptor = os.dup(0) if is_input else os.open(source, os.O_RDONLY | wait)
        os.set_blocking(descriptor, True)
        handle = os.fdopen(descriptor, "rb")
    except (FileNotFoundError, ValueError) as error:
        raise AudioError(f"{expected}, got a file that is not found; check the path") from error
    except OSError as error:
        raise AudioError(
            f"{expected} that can be read, got the error {error.strerror!r}; check the path and "
            "its permissions"
        ) from error
    with handle:
        yield (io.BytesIO(_read_pipe(handle, name)) if is_pipe else handle), name


def _read_pipe(pipe: BinaryIO, name: str) -> bytes:
    content = pipe.read(_MAX_PIPE_BYTES + 1)
    if len(content) > _MAX_PIPE_BYTES:
        raise AudioError(
            f"{name}: expected at most {_MAX_PIPE_BYTES:,} bytes through a pipe, got more; write "
            "them to a file first"
        )
    return content


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a file's structure says of its own length.

    Attributes:
        promised: Bytes up to the end of the sound, as the header has it; 0 where it does not say.
        present: Bytes of the file that belong to that.
        unfinished: Why the file looks as if its recorder was cut off, if it does; else "".
        patches: Bytes to be read instead of those at these offsets, so that a decoder takes all.
        length: Length of the file to report to the decoder.
        counts_frames: Whether a decoder can tell the number of samples from the header.
    """

    promised: int = 0
    present: int = 0
    unfinished: str = ""
    patches: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    length: int = 0
    counts_frames: bool = True

    def patched(self, size: int) -> bool:
        """Whether a decoder needs a ``PatchedFile`` of a file of that size."""
        return bool(self.patches) or self.length != size


def examine(file: BinaryIO) -> Structure:
    """Follow the structure of an audio file; a file of another kind gets an empty answer.

    Args:
        file: Can seek; stands at any place, also afterwards.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(12)
    if magic.startswith(b"OggS"):
        structure = _examine_ogg(file, size)
    elif magic.startswith(b".snd"):
        structure = _examine_au(magic, size)
    elif layout := _layout_of(magic):
        structure = _examine_chunks(file, size, layout)
    elif magic.startswith((b"ID3", b"\xff")):
        structure = _examine_mpeg(file, size)
    else:
        structure = Structure()
    return dataclasses.replace(structure, length=max(size, structure.length))


# --- containers made of chunks: WAV, AIFF, CAF, W64 ----------------------------------------------


class _Layout(NamedTuple):
    """How a container writes its chunks."""

    first: int  # offset of the first chunk
    id_bytes: int
    size_bytes: int
    order: Literal["little", "big"]
    aligned: int  # chunks begin at multiples of this
    size_has_header: bool
    sound: bytes  # id of the chunk that holds the sound
    empty: int = 0  # size of that chunk without any sound

    @property
    def header(self) -> int:
        return self.id_bytes + self.size_bytes


_RIFF = _Layout(12, 4, 4, "little", 2, False, b"data")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the GUID of all its chunks but the first


def _layout_of(magic: bytes) -> _Layout | None:
    kind, form = magic[:4], magic[8:12]
    if kind in (b"RIFF", b"RF64", b"BW64") and form == b"WAVE":
        return _RIFF
    if kind == b"RIFX" and form == b"WAVE":
        return _RIFF._replace(order="big")
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        # the chunk begins with an offset and a block size
        return _RIFF._replace(order="big", sound=b"SSND", empty=8)
    if kind == b"caff":
        # the chunk begins with a count of edits
        return _Layout(8, 4, 8, "big", 1, False, b"data", empty=4)
    if kind == b"riff":
        return _Layout(40, 16, 8, "little", 8, True, b"data" + _W64_TAIL)
    return None


class _Chunk(NamedTuple):
    name: bytes
    start: int  # of its content
    size: int  # of its content, as its header has it
    size_at: int  # where that is written


def _chunks(file: BinaryIO, size: int, layout: _Layout, start: int) -> Iterator[_Chunk]:
    for _ in range(_MOST_CHUNKS):
        if start + layout.header > size:
            break
        file.seek(start)
        head = file.read(layout.header)
        written = int.from_bytes(head[layout.id_bytes :], layout.order)
        content = written - layout.header * layout.size_has_header
        first = start + layout.header
        yield _Chunk(head[: layout.id_bytes], first, content, start + layout.id_bytes)
        start = -(-(first + max(content, 0)) // layout.aligned) * layout.aligned


def _examine_chunks(file: BinaryIO, size: int, layout: _Layout) -> Structure:
    extended = None  # where RF64 keeps the size of its sound
    for chunk in _chunks(file, size, layout, layout.first):
        if chunk.name == b"ds64":
            extended = chunk
        if chunk.name == layout.sound:
            break
    else:
        return Structure()
    promised, at, n_bytes = chunk.size, chunk.size_at, layout.size_bytes
    if extended is not None and promised == 0xFFFFFFFF:
        at, n_bytes = extended.start + 8, 8
        file.seek(at)
        promised = int.from_bytes(file.read(n_bytes), layout.order)
    present = size - chunk.start
    streamed = promised >= _STREAMED_BYTES if n_bytes == 4 else promised >= 1 << 63
    if not streamed and promised > layout.empty:
        return Structure(chunk.start + promised, size)
    patches: dict[int, bytes] = {}
    if n_bytes == 8 or not streamed:  # libsndfile knows the large sizes of four bytes
        whole = present + layout.header * layout.size_has_header
        patches[at] = min(whole, 256**n_bytes - 1).to_bytes(n_bytes, layout.order)
    if streamed:
        return Structure(patches=patches)
    if present <= layout.empty or _is_chunks(file, size, layout, chunk.start + max(promised, 0)):
        return Structure()  # really no sound
    return Structure(unfinished="its header says that it holds no sound", patches=patches)


def _is_chunks(file: BinaryIO, size: int, layout: _Layout, start: int) -> bool:
    """Whether a file goes on with chunks up to its end, and not with sound."""
    for chunk in _chunks(file, size, layout, start):
        start = chunk.start + chunk.size
        if chunk.size < 0 or start > size or not chunk.name[:4].isascii():
            return False
        if not chunk.name[:4].decode("ascii").isprintable():
            return False
    return size - start <= layout.aligned


def _examine_au(head: bytes, size: int) -> Structure:
    first, promised = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
    if promised >= _STREAMED_BYTES:
        return Structure()
    if promised:
        return Structure(first + promised, size)
    if size <= first:
        return Structure()
    unknown = {8: b"\xff\xff\xff\xff"}
    return Structure(unfinished="its header says that it holds no sound", patches=unknown)


# --- Ogg and MP3 ---------------------------------------------------------------------------------


def _examine_ogg(file: BinaryIO, size: int) -> Structure:
    """Follow the pages (RFC 3533, section 6); libsndfile leaves out one that ends early."""
    at, flags = 0, 0
    for _ in range(_MOST_PAGES):
        if at >= size:
            break
        file.seek(at)
        head = file.read(27)
        if head[:4] != b"OggS"[: len(head)]:
            return Structure()  # something else between or behind the pages: the decoder's matter
        table = file.read(head[26]) if len(head) == 27 else b""
        length = 27 + (head[26] if len(head) == 27 else 0) + sum(table)
        if at + length > size:
            return Structure(at + length, size)
        at, flags = at + length, head[5]
    return Structure(unfinished="" if flags & 4 else "its last page is not marked as the last")


def _examine_mpeg(file: BinaryIO, size: int) -> Structure:
    """See whether the first frame counts the frames and bytes (a Xing or Info tag).

    Without that, libsndfile guesses the number of samples from the length of the file and the first
    frame, and stops there: half of a recording with a variable bit rate can be missing. For a file
    that seems to have no end it decodes what there is.
    """
    file.seek(0)
    tag = file.read(10)
    first = 0
    if tag.startswith(b"ID3") and len(tag) == 10:
        first = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        first += 10 * bool(tag[5] & 0x10)  # a footer
    file.seek(first)
    frame = file.read(64)
    if len(frame) == 64 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2:  # layer III
        is_version_1, is_mono = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3
        at = 4 + (32, 17, 9)[(not is_version_1) + is_mono]  # behind the side information
        counts, is_tag = frame[at + 7] & 3, frame[at : at + 4] in (b"Xing", b"Info")
        if is_tag and counts & 1 and not any(frame[4:at]):
            promised = int.from_bytes(frame[at + 12 : at + 16], "big") if counts & 2 else 0
            return Structure(first + promised, size)
    return Structure(length=_ENDLESS, counts_frames=False)


class PatchedFile(io.RawIOBase):
    """A file as a decoder shall see it: some bytes replaced, and as long as ``Structure`` says."""

    def __init__(self, file: BinaryIO, structure: Structure) -> None:
        super().__init__()
        self._file, self._structure, self._at = file, structure, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also behind the end."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._structure.length}
        self._at = max(0, origin[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """The bytes of the file, or their replacements."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        content = bytearray(self._file.read(len(view)))
        for at, patch in self._structure.patches.items():
            for offset, byte in enumerate(patch, at - self._at):
                if 0 <= offset < len(content):
                    content[offset] = byte
        if not content and self._at >= self._structure.length - _ID3V1_BYTES:
            # a decoder that looks for a tag at an end that is not there finds none
            content = bytearray(min(len(view), max(0, self._structure.length - self._at)))
        view[: len(content)] = content
        self._at += len(content)
        return len(content)
