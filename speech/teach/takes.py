"""Takes: recordings of a word of one's own, as they are read, looked over and kept."""

import dataclasses
import io
import unicodedata
import wave
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from speech.audio import OnNote, Waveform, load_audio, rms, to_int16, warn
from speech.audio_files import SUFFIXES
from speech.data.folders import PassedOver, walk
from speech.errors import AudioError, TeachError
from speech.files import readable_name, replacing
from speech.labels import SILENCE, UNKNOWN

RATE = 16_000
Takes = Mapping[str, Sequence[Waveform]]  # label -> takes, float32 (n,) at RATE, as spoken
MAX_TAKES, MAX_WORDS = 400, 50  # of a word; of a model
MAX_WORD_SECONDS = 2.0
_MAX_TAKE_SECONDS = 60.0
_MAX_LABEL = 50
_FORBIDDEN = "/\\\"'`<>&,;:|*?[]{}$"  # of paths, of markup, of lists of words
_MAX_ZIP_BYTES = 400_000_000  # unpacked: 400 takes of a minute would be more
_MIN_RMS = 10 ** (-60 / 20)
_FULL_SCALE = 0.995
_MARGIN_SECONDS, _FRAME_SECONDS = 0.1, 0.01
_MIN_SECONDS = 0.1
# what zipfile raises of damaged, locked or foreign archives
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError)


@dataclasses.dataclass(frozen=True)
class TakeFault:
    """What is wrong with one take.

    Attributes:
        index: Which take of its word, from 0 on.
        reason: Such as "silent" or "cut off at its end".
        remedy: What to do about it, as a sentence without a stop.
        is_fatal: Whether the take cannot be learned from at all.
    """

    index: int
    reason: str
    remedy: str
    is_fatal: bool = False


def check_label(label: str) -> str:
    """A word that a model can be taught, with its letters composed (NFC).

    Raises:
        TeachError: Empty, more than 50 characters, characters that paths, markup or lists of words
            need for themselves, invisible ones, or a name that every model has already.

    Example:
        >>> check_label("hey robot")
        'hey robot'
    """
    name = unicodedata.normalize("NFC", label).strip()
    reason = ""
    if not name or len(name) > _MAX_LABEL:
        reason = f"{len(name)} characters"
    elif found := [c for c in name if c in _FORBIDDEN or not c.isprintable()]:
        reason = f"the character {found[0]!r}"
    elif name.startswith((".", "_", "-")):
        reason = f"{name[0]!r} as its first"
    elif name.lower() in (UNKNOWN, SILENCE):
        reason = "a name that every model has for what is none of its words"
    if reason:
        raise TeachError(
            f"the word {label!r:.60}: expected 1 to {_MAX_LABEL} letters, digits and spaces, "
            f"got {reason}; choose another name"
        )
    return name


def check_takes(takes: Sequence[Waveform]) -> list[TakeFault]:
    """What can be said of the takes of one word by themselves, in their order.

    Args:
        takes: float32 (n,) at 16 kHz each, as spoken.

    Example:
        >>> import numpy as np
        >>> [fault.reason for fault in check_takes([np.zeros(16_000, np.float32)])]
        ['silent']
    """
    faults: list[TakeFault] = []
    seen: dict[bytes, int] = {}
    for index, take in enumerate(takes):
        content = to_int16(take).tobytes()
        earlier = seen.setdefault(content, index)
        if fault := _fault(index, take):
            faults.append(fault)
        elif earlier != index:
            faults.append(
                TakeFault(index, f"the same recording as take {earlier + 1}", "delete one", True)
            )
    return faults


def _fault(index: int, take: Waveform) -> TakeFault | None:
    """What is wrong with a take by itself; the worst of it."""
    word = extent(take)
    if word is None:
        return TakeFault(index, "silent", "record it again, nearer to the microphone", True)
    start, end = word
    seconds = (end - start) / RATE
    if seconds > MAX_WORD_SECONDS + 0.1:
        reason = f"{seconds:.1f} s of sound"
        return TakeFault(index, reason, "record one word or phrase of at most 2 s", True)
    if seconds < _MIN_SECONDS:
        return TakeFault(index, "a click rather than a word", "record it again", True)
    edge = round(0.02 * RATE)
    if len(take) - end < edge and _is_loud(take[-edge:], take):
        return TakeFault(index, "cut off at its end", "record it again, with a pause behind it")
    if start < edge and _is_loud(take[:edge], take):
        return TakeFault(index, "cut off at its beginning", "record it again, with a pause before")
    if np.count_nonzero(np.abs(take) >= _FULL_SCALE) > 0.002 * (end - start):
        return TakeFault(index, "clipped", "record it again, softer or farther away")
    return None


def _is_loud(edge: Waveform, take: Waveform) -> bool:
    """Whether the edge of a take is in the middle of a sound: within 12 dB of the loudest."""
    return float(rms(edge)[0]) > 0.25 * float(_levels(take).max())


def trim(waveform: Waveform) -> Waveform:
    """The word in a take, with a tenth of a second around it; all of it where it is silent.

    Args:
        waveform: float32 (n,) at 16 kHz.
    """
    word = extent(waveform)
    if word is None:
        return waveform
    margin = round(_MARGIN_SECONDS * RATE)
    return waveform[max(0, word[0] - margin) : word[1] + margin]


def _levels(waveform: Waveform) -> npt.NDArray[np.float64]:
    """The RMS of every 10 ms, float64 (n,); of a shorter take that of all."""
    frame = round(_FRAME_SECONDS * RATE)
    whole = waveform[: max(1, len(waveform) // frame) * frame]
    frames = whole.reshape(-1, frame) if len(whole) >= frame else whole.reshape(1, -1)
    levels: npt.NDArray[np.float64] = rms(frames.astype(np.float64))[:, 0]
    return levels


def extent(waveform: Waveform) -> tuple[int, int] | None:
    """Where the word is: its first sample and that behind its last one; None where all is silent.

    Args:
        waveform: float32 (n,) at 16 kHz.
    """
    if not waveform.size:
        return None
    levels = _levels(waveform)
    peak, quiet = float(levels.max()), float(np.quantile(levels, 0.1))
    if peak < _MIN_RMS:
        return None
    # 30 dB under the loudest, or 10 dB over the quiet, but never above a quarter of the loudest
    threshold = min(max(peak * 10**-1.5, 3 * quiet), 0.25 * peak)
    loud = np.flatnonzero(levels >= threshold)
    frame = round(_FRAME_SECONDS * RATE)
    return int(loud[0]) * frame, min(len(waveform), (int(loud[-1]) + 1) * frame)


def read_takes(folder: Path, on_note: OnNote = warn) -> dict[str, list[Waveform]]:
    """The takes in a folder that has a folder for each word, or in the zip of ``save_takes``.

    Files may have any name and any format that can be read here, and lie as deep as they like.

    Args:
        folder: The folder or the ``.zip`` file.
        on_note: Is told in one sentence what was passed over and why.

    Returns:
        For each word its takes, float32 (n,) at 16 kHz, in the order of their names.

    Raises:
        TeachError: No takes, too many, or a zip file of another kind.
        AudioError: A recording cannot be read.
    """
    if folder.is_file() and zipfile.is_zipfile(folder):
        return _read_zip(folder, on_note)
    name = readable_name(folder)
    if not folder.is_dir():
        raise TeachError(
            f"{name}: expected a folder with one folder of takes a word, or a zip file of takes, "
            f"got {'another file' if folder.exists() else 'no such folder'}; record some with: "
            "speech record WORD"
        )
    passed_over = PassedOver()
    takes: dict[str, list[Waveform]] = {}
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or place.name.startswith((".", "_")):
            continue
        label = check_label(readable_name(place.name))
        paths = walk(place, passed_over)
        _check_number(f"{name}/{label}", len(paths))
        takes[label] = [
            load_audio(path, RATE, max_seconds=_MAX_TAKE_SECONDS, on_note=on_note) for path in paths
        ]
    passed_over.report(folder, on_note)
    return _some(name, {label: of_word for label, of_word in takes.items() if of_word})


def save_takes(takes: Takes, path: Path) -> None:
    """Keep takes as a zip of WAV files, ``LABEL/1.wav`` and so on, which ``read_takes`` reads.

    Args:
        takes: The takes of each word.
        path: Receives the file, whole or not at all.

    Raises:
        TeachError: It cannot be written.
    """
    try:
        with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for label, of_word in takes.items():
                for number, take in enumerate(of_word, 1):
                    # with a date that is always the same
                    member = zipfile.ZipInfo(f"{check_label(label)}/{number}.wav")
                    archive.writestr(member, wav_bytes(take), zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise TeachError(
            f"{path}: expected to write the takes, got: {error.strerror or error}; choose another "
            "folder or make room"
        ) from error


def wav_bytes(waveform: Waveform) -> bytes:
    """A WAV file, 16 bit, of samples float32 (n,) at 16 kHz."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(to_int16(waveform).tobytes())
    return content.getvalue()


def _read_zip(path: Path, on_note: OnNote) -> dict[str, list[Waveform]]:
    """Every member is read in memory, within bounds, and nothing is unpacked to a folder."""
    name = readable_name(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            size = sum(member.file_size for member in members)
            if size > _MAX_ZIP_BYTES:
                raise TeachError(
                    f"{name}: expected at most {_MAX_ZIP_BYTES:,} bytes of takes, got {size:,}; "
                    "keep fewer takes"
                )
            takes: dict[str, list[Waveform]] = {}
            for member, label in _labelled(name, members):
                _check_number(f"{name}/{label}", len(takes.setdefault(label, [])) + 1)
                with archive.open(member) as file:
                    content = file.read(member.file_size + 1)
                takes[label].append(
                    load_audio(content, RATE, max_seconds=_MAX_TAKE_SECONDS, on_note=on_note)
                )
    except _DAMAGED as error:
        raise TeachError(
            f"{name}: expected a zip file of takes, got a corrupt or a locked one "
            f"({str(error) or 'it ends early'}); save it again"
        ) from error
    except AudioError as error:
        raise TeachError(
            f"{name}: expected a recording in {member.filename!r:.100}, got none: {error}"
        ) from error
    return _some(name, takes)


def _labelled(
    name: str, members: Sequence[zipfile.ZipInfo]
) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """The recordings of a zip file with their words, in the order in which they were saved."""
    if len(members) > MAX_TAKES * MAX_WORDS:
        raise TeachError(
            f"{name}: expected at most {MAX_TAKES} takes of at most {MAX_WORDS} words, got "
            f"{len(members):,} files; keep fewer takes"
        )
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if len(parts) != 2 or not parts[1].lower().endswith(SUFFIXES):
            raise TeachError(
                f"{name}: expected recordings named WORD/1.wav, got {member.filename!r:.100}; "
                "save the takes again, or unpack the file and choose its folder"
            )
        yield member, check_label(parts[0])


def _check_number(name: str, n: int) -> None:
    if n > MAX_TAKES:
        raise TeachError(
            f"{name}: expected at most {MAX_TAKES} takes of a word, got {n:,} or more; choose "
            "fewer, or train on all of them with: speech train"
        )


def _some(name: str, takes: dict[str, list[Waveform]]) -> dict[str, list[Waveform]]:
    if not takes:
        raise TeachError(
            f"{name}: expected one folder a word with recordings in it, got none; record some "
            "with: speech record WORD"
        )
    if len(takes) > MAX_WORDS:
        raise TeachError(
            f"{name}: expected at most {MAX_WORDS} words, got {len(takes)}; choose fewer"
        )
    return takes
