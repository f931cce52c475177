"""What the server keeps for the Teach tab of one page: takes of words, and the model of them."""

import contextlib
import dataclasses
import io
import itertools
import logging
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import MAX_RATE, Waveform, check_rate, resample, to_float, to_int16
from speech.environment import private_folder
from speech.errors import AudioError, SpeechError, TeachError
from speech.recognizer import Recognizer
from speech.teach.saving import TAKES, TaughtModel
from speech.teach.takes import RATE, Takes, check_label, check_takes, read_takes, save_takes
from speech.teach.teaching import teach
from speech.web.open_pages import OpenPages
from speech.web.sessions import model_settings

MAX_WORDS = 20
MAX_TAKES = 50  # of a word
MAX_SECONDS = 600.0  # of all takes of a page
MAX_TAKE_SECONDS = 4.0  # a page records up to 3 s
MAX_TAKE_BYTES = round(MAX_TAKE_SECONDS * MAX_RATE) * 2
MAX_ZIP_BYTES = 64 << 20  # all takes as WAV are a third of it
MAX_LESSONS = 16
NEGATIVES = "negatives.zip"  # beside the takes, as speech.teach.again has it
NO_WORD = ""  # the label of what was taken for a word and is none
_IDLE_SECONDS = 1800.0  # a page sends its takes again where they are gone

_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)
_log = logging.getLogger("speech.web")

Message: TypeAlias = dict[str, Any]
Teach: TypeAlias = Callable[..., TaughtModel]


@dataclasses.dataclass(frozen=True)
class _Take:
    id: int
    pcm: npt.NDArray[np.int16]  # (n,) at RATE


@dataclasses.dataclass
class _Word:
    takes: list[_Take] = dataclasses.field(default_factory=list)
    faults: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)  # by id of take

    @property
    def waveforms(self) -> list[Waveform]:
        return [to_float(take.pcm) for take in self.takes]

    def check(self) -> None:
        found = check_takes(self.waveforms)
        self.faults = {self.takes[f.index].id: (f.reason, f.remedy) for f in found}


class Lesson:
    """The words of one page, their takes, and the last model that was taught; in memory only.

    Args:
        turn: Held while a model is taught, since several at once would be slow for all.
        teach: Takes become a model: ``speech.teach.teaching.teach``.
    """

    def __init__(self, turn: threading.Lock, teach: Teach = teach) -> None:
        self._turn = turn
        self._teach = teach
        self._lock = threading.RLock()
        self._words: dict[str, _Word] = {}
        self._ids = itertools.count(1)
        self._version = 0  # of the takes
        self._taught: TaughtModel | None = None
        self._work: Message = {"state": "idle"}
        self._is_closed = False

    def state(self) -> Message:
        """Everything that the page shows: the words with their takes, and how teaching goes on."""
        with self._lock:
            words = [
                {
                    "label": label,
                    "takes": [
                        {
                            "id": take.id,
                            "seconds": round(len(take.pcm) / RATE, 2),
                            "fault": word.faults.get(take.id),
                        }
                        for take in word.takes
                    ],
                }
                for label, word in self._words.items()
            ]
            return {"words": words, "version": self._version, "work": dict(self._work)}

    def add_word(self, label: str) -> None:
        """A word without takes yet; one that is there already stays as it is.

        Raises:
            SpeechError: Not a name for a word, or there are as many as there may be.
        """
        label = check_label(label)
        with self._lock:
            names = {*self._words} - {NO_WORD}
            if label not in names and len(names) >= MAX_WORDS:
                raise TeachError(
                    f"expected at most {MAX_WORDS} words, got one more; delete another one first"
                )
            self._words.setdefault(label, _Word())

    def add_take(self, label: str, pcm: bytes, rate: float) -> int:
        """Keep a recording of a word; returns its number.

        Args:
            label: The word, which is added if it is not there; or ``NO_WORD``.
            pcm: Signed 16-bit little-endian mono samples.
            rate: Their rate in Hz, 8,000 to 192,000.

        Raises:
            SpeechError: Another rate, half a sample, or more than may be kept; nothing has changed.
        """
        hertz = check_rate(rate, "the microphone")
        if not pcm or len(pcm) % 2 or len(pcm) > 2 * MAX_TAKE_SECONDS * hertz:
            raise AudioError(
                f"expected whole 16-bit samples of at most {MAX_TAKE_SECONDS:g} s, "
                f"got {len(pcm)} bytes; record the word again"
            )
        waveform = resample(to_float(np.frombuffer(pcm, "<i2").astype(np.int16)), hertz, RATE)
        label = check_label(label) if label else NO_WORD
        with self._lock:
            self._make_room(label, [waveform])
            return self._keep(label, [waveform])

    def _make_room(self, label: str, waveforms: Sequence[Waveform]) -> None:
        held = self._words.get(label, _Word()).takes
        if len(held) + len(waveforms) > MAX_TAKES:
            raise TeachError(
                f"expected at most {MAX_TAKES} takes of a word, got more; delete some of them first"
            )
        samples = sum(len(take.pcm) for word in self._words.values() for take in word.takes)
        if samples + sum(map(len, waveforms)) > MAX_SECONDS * RATE:
            raise TeachError(
                f"expected at most {MAX_SECONDS:g} s of takes, got more; delete some of them first"
            )

    def _keep(self, label: str, waveforms: Sequence[Waveform]) -> int:
        if label != NO_WORD:
            self.add_word(label)
        word = self._words.setdefault(label, _Word())
        word.takes += [_Take(next(self._ids), to_int16(waveform)) for waveform in waveforms]
        if label != NO_WORD:
            word.check()
        self._version += 1
        return word.takes[-1].id

    def sound(self, take: int) -> bytes:
        """A take as signed 16-bit little-endian samples at ``RATE``.

        Raises:
            TeachError: There is none of this number.
        """
        with self._lock:
            for word in self._words.values():
                for kept in word.takes:
                    if kept.id == take:
                        return kept.pcm.astype("<i2").tobytes()
        raise TeachError(f"expected the number of a take, got {take!r}; reload the page")

    def remove(self, label: str, take: int | None = None) -> None:
        """Delete a take of a word, or the word with all of its takes; what is not there is gone."""
        with self._lock:
            if take is None:
                self._words.pop(label, None)
            elif word := self._words.get(label):
                word.takes = [kept for kept in word.takes if kept.id != take]
                word.check()
            self._version += 1

    def load(self, content: bytes) -> None:
        """Add what a zip holds that this tab saved: takes, or a model with its takes.

        Raises:
            SpeechError: No such zip, or more than may be kept; nothing has changed then.
        """
        found: dict[str, list[Waveform]] = _read(_within(content, TAKES) or content)
        if wrong := _within(content, NEGATIVES):
            found[NO_WORD] = [take for of_word in _read(wrong).values() for take in of_word]
        with self._lock:
            before = {label: _Word([*w.takes], w.faults) for label, w in self._words.items()}
            try:
                for label, waveforms in found.items():
                    held = {take.pcm.tobytes() for take in self._words.get(label, _Word()).takes}
                    new = [w for w in waveforms if to_int16(w).tobytes() not in held]
                    self._make_room(label, new)
                    if new:
                        self._keep(label, new)
            except SpeechError:
                self._words = before
                raise

    def takes(self) -> Takes:
        """The takes of all words that have some, by label."""
        with self._lock:
            words = {**self._words}
            words.pop(NO_WORD, None)
            return {label: word.waveforms for label, word in words.items() if word.takes}

    def negatives(self) -> list[Waveform]:
        """What was taken for one of the words and is none."""
        with self._lock:
            return self._words.get(NO_WORD, _Word()).waveforms

    def saved(self) -> bytes:
        """A zip to keep: of the takes, or, where they were taught, of the model with them.

        Raises:
            SpeechError: There are no takes, or no room on the disk for what becomes the zip.
        """
        with self._lock:
            taught = self._taught if self._work.get("version") == self._version else None
            takes, negatives = self.takes(), self.negatives()
        if not takes:
            raise TeachError("expected takes to save, got none; record some first")
        with _temporary_folder() as folder:
            if taught is None:
                save_takes(takes, folder / TAKES)
                return (folder / TAKES).read_bytes()
            taught.save(folder / "model")
            if negatives:
                save_takes({"wrong": negatives}, folder / "model" / NEGATIVES)
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted((folder / "model").iterdir()):
                    archive.write(path, f"my-words/{path.name}")
            return content.getvalue()

    def start(self, keep: Sequence[str] = ()) -> None:
        """Begin to teach, in a thread; ``state`` tells how it goes on.

        Args:
            keep: Commands of the bundled model that the new one has too.

        Raises:
            TeachError: It is being taught already, or ``keep`` is no list of names.
        """
        if not isinstance(keep, list | tuple) or not all(isinstance(name, str) for name in keep):
            raise TeachError(f"expected names of commands to keep, got {keep!r}; choose them again")
        with self._lock:
            if self._work["state"] in ("waiting", "teaching"):
                raise TeachError("expected one model at a time, got another one; wait for it")
            takes, negatives, version = self.takes(), self.negatives(), self._version
            self._work = {"state": "waiting"}

        def progress(done: int, total: int) -> None:
            if self._is_closed:
                raise TeachError("the page was closed")
            self._work = {"state": "teaching", "done": done, "total": total}

        def work() -> None:
            options = {"keep": tuple(keep), "negatives": negatives, "on_progress": progress}
            self._work = self._outcome(takes, options) | {"version": version}

        threading.Thread(target=work, name="teach", daemon=True).start()

    def _outcome(self, takes: Takes, options: Mapping[str, Any]) -> Message:
        try:
            with self._turn:
                began = time.perf_counter()
                options["on_progress"](0, 0)
                taught = self._teach(takes, **options)
        except SpeechError as error:
            return {"state": "failed", "error": str(error)}
        except Exception as error:
            _log.exception("a model could not be taught")
            kind = type(error).__name__
            sentence = f"expected a model of the takes, got {kind}: {error}; see the server's log"
            return {"state": "failed", "error": sentence}
        self._taught = taught
        return {
            "state": "taught",
            "seconds": round(time.perf_counter() - began, 1),
            "sentences": taught.quality.sentences(),
            "quality": taught.quality.to_dict(),
            "model": model_settings(taught.recognizer) | {"model": "your words"},
        }

    def recognizer(self) -> Recognizer:
        """The last model that was taught.

        Raises:
            TeachError: There is none yet.
        """
        if self._taught is None:
            raise TeachError("expected a model of your words, got none yet; press Teach first")
        return self._taught.recognizer

    def close(self) -> None:
        """The page is gone: what is being taught is given up."""
        self._is_closed = True


class Lessons(OpenPages[Lesson]):
    """The lessons of all pages, each under a key that nobody else can guess; safe for threads.

    Args:
        limit: How many there may be at once.
        teach: Takes become a model.
    """

    def __init__(self, limit: int = MAX_LESSONS, teach: Teach = teach) -> None:
        super().__init__(limit, _IDLE_SECONDS, "teach", "press Teach again")
        self._turn = threading.Lock()
        self._teach = teach

    def begin(self) -> str:
        """A lesson for a new page; returns its key.

        Raises:
            SpeechError: There are as many as there may be.
        """
        return self.add(Lesson(self._turn, self._teach))


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for a zip; a disk that is full becomes a sentence for the page."""
    try:
        with tempfile.TemporaryDirectory(dir=private_folder("teach")) as name:
            yield Path(name)
    except (OSError, TeachError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise TeachError(
            "expected room for the zip in the server's folder for temporary files, got the error "
            f"{str(cause.strerror or cause)!r}; make room there and try again"
        ) from error


def _read(content: bytes) -> dict[str, list[Waveform]]:
    """The takes in a zip of ``save_takes``, or a sentence on what is wrong with it."""
    if (archive := _archive(content)) and _size(archive.infolist()) > MAX_ZIP_BYTES:
        raise TeachError(
            f"the file: expected at most {MAX_SECONDS:g} s of takes, got a zip that unpacks to "
            f"{_size(archive.infolist()):,} bytes; choose one that this tab saved"
        )
    with _temporary_folder() as folder:
        path = folder / TAKES
        path.write_bytes(content)
        try:
            return read_takes(path, on_note=lambda _note: None)
        except SpeechError as error:
            # the folder is a temporary one of the server and means nothing to the user
            raise TeachError(str(error).replace(str(path), "the file")) from error


def _within(content: bytes, name: str) -> bytes | None:
    """A file of this name in a folder of a zip; None where there is none that can be read."""
    archive = _archive(content)
    found = [i for i in archive.infolist() if i.filename.endswith(f"/{name}")] if archive else []
    if archive is None or len(found) != 1 or _size(found) > MAX_ZIP_BYTES:
        return None
    try:
        return archive.read(found[0])
    except _UNREADABLE:
        return None


def _archive(content: bytes) -> zipfile.ZipFile | None:
    """None where it is no zip, of which ``read_takes`` says what is wrong with it."""
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except _UNREADABLE:
        return None


def _size(members: Sequence[zipfile.ZipInfo]) -> int:
    return sum(member.file_size for member in members)
