"""Decoded corpora: every clip once, cached on disk, in memory that does not grow with them."""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from speech.audio import (
    OnNote,
    fit_length,
    load_audio,
    open_audio,
    resample_blocks,
    to_float,
    to_int16,
    warn,
)
from speech.data.corpus import Clip, Corpus, Split
from speech.data.folders import find_audio
from speech.environment import cache_folder
from speech.errors import AudioError, CorpusError
from speech.features import FeatureConfig, mfcc
from speech.files import readable_name
from speech.progress import OnProgress, no_progress

EVALUATION_NOISE = 0.2  # the end of each noise file, never trained on
MAX_SKIPPED = 0.01  # share of a corpus's files that may be damaged
_MAX_CLIP_SECONDS = 600.0

P = ParamSpec("P")
T = TypeVar("T")


class Skipped(NamedTuple):
    """A file of a corpus that could not be decoded, by its path below the root, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{readable_name(self.path)} ({self.reason})"


@dataclasses.dataclass(frozen=True)
class Recordings:
    """A corpus decoded once, on disk: memory does not grow with its size.

    Attributes:
        corpus: What was decoded, without what was skipped.
        samples: int16 memory map (n_clips, n_samples), in the order of ``corpus.clips``.
        noise: For each noise file, int16 (n,).
        digest: SHA-256 over the names and contents of all files that were decoded.
        folder: Where the caches lie.
        skipped: Files that could not be decoded.
        duplicates: Pairs of clips with the same content under different words.
        notes: What is odd about clips that were decoded all the same, a sentence each.
    """

    corpus: Corpus
    samples: npt.NDArray[np.int16]
    noise: tuple[npt.NDArray[np.int16], ...]
    digest: str
    folder: Path
    skipped: tuple[Skipped, ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was skipped, a text each: path and reason."""
        return tuple(map(str, self.skipped))

    def features(self, config: FeatureConfig) -> npt.NDArray[np.float32]:
        """MFCC of every clip, float32 memory map (n_clips, n_frames, n_mfcc).

        Computed once and kept under the digest of data and config: another hop, another file.
        """
        path = self.folder / f"mfcc-{config.digest()[:32]}.npy"
        with _writing(self.folder):
            if not path.exists():
                self._compute_features(config, path)
            return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def _compute_features(self, config: FeatureConfig, path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            part = Path(scratch) / path.name
            with _GrowingArray(part, "<f4", (config.n_frames, config.n_mfcc)) as rows:
                for start in range(0, len(self.samples), 1024):
                    rows.append(mfcc(to_float(self.samples[start : start + 1024]), config))
            part.replace(path)

    def noise_for(self, split: Split) -> list[npt.NDArray[np.int16]]:
        """The part of each noise file for a split: the end evaluates, the rest trains."""
        cuts = [round(len(noise) * (1 - EVALUATION_NOISE)) for noise in self.noise]
        pairs = zip(self.noise, cuts, strict=True)
        return [noise[:cut] if split == "train" else noise[cut:] for noise, cut in pairs]


def decode(
    corpus: Corpus,
    config: FeatureConfig,
    cache: Path | None = None,
    on_progress: OnProgress = no_progress,
    *,
    strict: bool = False,
    on_note: OnNote = warn,
) -> Recordings:
    """Decode every clip to one length and rate, once; later calls only open the result.

    The cache is keyed by the name, size and time of change of every file, the rate and the length.

    Args:
        corpus: What to decode.
        config: Gives rate and length.
        cache: Folder for the result; by default ``cache_folder()``.
        on_progress: Told how many clips of how many are done.
        strict: Accept no file that cannot be decoded, not even one in a hundred.
        on_note: Is told in one sentence each which files were skipped, and which clips have the
            same content under different words.

    Raises:
        CorpusError: Names every file that cannot be decoded, if they are more than one in a
            hundred; or the cache cannot be written.
    """
    paths = [clip.path for clip in corpus.clips] + list(corpus.noise)
    try:
        listing = [(p, (s := (corpus.root / p).stat()).st_size, s.st_mtime_ns) for p in paths]
    except OSError as error:
        raise CorpusError(
            f"{error.filename}: expected the recording that was indexed, got the error "
            f"{error.strerror!r}; index the corpus again"
        ) from error
    key = json.dumps([listing, config.sample_rate, config.n_samples])
    cache = cache_folder() if cache is None else cache
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    with _writing(cache):
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                part = Path(scratch) / "part"
                part.mkdir()
                _decode_into(part, corpus, config, on_progress, strict)
                try:
                    part.rename(folder)
                except OSError:
                    if not folder.exists():  # else another process was faster
                        raise
        recordings = _opened(corpus, folder)
    root = readable_name(corpus.root)
    _judge_skipped(corpus.root, len(paths), recordings.skipped, strict)
    _tell_skipped(corpus.root, len(paths), recordings.skipped, on_note)
    if recordings.duplicates:
        one, other = map(readable_name, recordings.duplicates[0])
        on_note(
            f"{root}: {len(recordings.duplicates)} clips are under two words with the same "
            f"content, for example {one} and {other}"
        )
    if recordings.notes:
        on_note(f"{root}: of {len(recordings.notes)} clips: {recordings.notes[0]}")
    return recordings


def _opened(corpus: Corpus, folder: Path) -> Recordings:
    facts = json.loads((folder / "digest.json").read_text("utf-8"))
    skipped = tuple(Skipped(*one) for one in facts.get("skipped", ()))
    if skipped:
        without = {one.path for one in skipped}
        corpus = dataclasses.replace(
            corpus,
            clips=tuple(clip for clip in corpus.clips if clip.path not in without),
            noise=tuple(path for path in corpus.noise if path not in without),
        )
    noise = [np.load(folder / f"noise-{i}.npy", mmap_mode="r") for i in range(len(corpus.noise))]
    samples = np.load(folder / "clips.npy", mmap_mode="r")
    duplicates = tuple((one, other) for one, other in facts.get("duplicates", ()))
    notes = tuple(facts.get("notes", ()))
    return Recordings(
        corpus, samples, tuple(noise), facts["sha256"], folder, skipped, duplicates, notes
    )


def _judge_skipped(root: Path, n_files: int, skipped: Sequence[Skipped], strict: bool) -> None:
    """Raise where too many files cannot be decoded; the error names them all."""
    if len(skipped) <= (0 if strict else MAX_SKIPPED * n_files):
        return
    if len(skipped) == 1:
        [(path, reason)] = skipped
        raise CorpusError(
            f"{readable_name(root / path)}: expected a recording, got: {reason}; remove or replace "
            "this file"
        )
    allowed = "no damaged file" if strict else f"at most {MAX_SKIPPED:.0%} of files damaged"
    raise CorpusError(
        f"{readable_name(root)}: expected {allowed}, got {len(skipped)} of {n_files:,}; remove or "
        "replace these files:\n  " + _listed(skipped, "\n  ")
    )


def _tell_skipped(root: Path, n_files: int, skipped: Sequence[Skipped], on_note: OnNote) -> None:
    if skipped:
        on_note(
            f"{readable_name(root)}: {len(skipped)} of {n_files:,} files cannot be decoded and are "
            f"left out: {_listed(skipped, '; ')}"
        )


def _listed(skipped: Sequence[Skipped], separator: str) -> str:
    return separator.join(map(str, skipped))


@contextlib.contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Errors of the cache's file system as one sentence."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"{cache}: expected a folder for decoded clips that can be read and written, got the "
            f"error {error.strerror or error!r}; make room there, or choose another folder",
            parameter="cache",
        ) from error


class _GrowingArray:
    """A .npy file whose first axis grows; its header is written again when it is closed."""

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...] = ()) -> None:
        self._file, self._dtype, self._row, self._length = path.open("wb"), dtype, row, 0
        self._write_header()

    def _write_header(self) -> None:
        shape = (self._length, *self._row)
        fields = {"descr": self._dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, fields)  # of one length for all shapes

    def __enter__(self) -> Self:
        return self

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add an array of shape (n, *row)."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._length += len(rows)

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()


class _Findings:
    """What turns up while a corpus is decoded."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.skipped: list[Skipped] = []
        self.duplicates: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._first: dict[str, Clip] = {}  # of each content

    def take(self, path: str, content: str) -> None:
        """A file was decoded whose content has this SHA-256."""
        self.digest.update(_digest_line(path, content))

    def compare(self, clip: Clip, content: str) -> None:
        """Look whether the same content came under another word."""
        first = self._first.setdefault(content, clip)
        if first.word != clip.word:
            self.duplicates.append((first.path, clip.path))

    def write(self, path: Path) -> None:
        """Keep all that beside the samples."""
        facts = {
            "sha256": self.digest.hexdigest(),
            "skipped": self.skipped,
            "duplicates": self.duplicates,
            "notes": sorted(self.notes),
        }
        path.write_text(json.dumps(facts), "utf-8")


def _decode_into(
    part: Path, corpus: Corpus, config: FeatureConfig, on_progress: OnProgress, strict: bool
) -> None:
    findings = _Findings()

    def read_clip(path: str) -> tuple[str, npt.NDArray[np.int16]]:
        content = _read_bytes(corpus.root / path)
        waveform = load_audio(
            content,
            config.sample_rate,
            max_seconds=_MAX_CLIP_SECONDS,
            on_note=lambda note: findings.notes.append(f"{readable_name(path)}: {note}"),
        )
        clip = to_int16(fit_length(waveform, config.n_samples))
        return hashlib.sha256(content).hexdigest(), clip

    paths = [clip.path for clip in corpus.clips]
    with _GrowingArray(part / "clips.npy", "<i2", (config.n_samples,)) as clips:
        results = zip(corpus.clips, _in_parallel(read_clip, paths), strict=True)
        for number, (clip, result) in enumerate(results, 1):
            if isinstance(result, str):
                findings.skipped.append(Skipped(clip.path, result))
            else:
                content, samples = result
                findings.take(clip.path, content)
                findings.compare(clip, content)
                clips.append(samples[np.newaxis])
            on_progress(number, len(paths))
    n_noise = 0
    for path in corpus.noise:
        target = part / f"noise-{n_noise}.npy"
        written = _attempt(_write_long, corpus.root / path, config.sample_rate, target)
        if isinstance(written, str):
            findings.skipped.append(Skipped(path, written))
            target.unlink(missing_ok=True)
        else:
            findings.take(path, *written)
            n_noise += 1
    _judge_skipped(corpus.root, len(paths) + len(corpus.noise), findings.skipped, strict)
    findings.write(part / "digest.json")


def _digest_line(path: str, content: str) -> bytes:
    """What a file adds to the digest of a corpus: its name and the SHA-256 of its content."""
    return f"{readable_name(path)}\0{content}\n".encode()


def _write_long(path: Path, sample_rate: int, target: Path) -> tuple[str]:
    """Decode a recording of any length into a file; a tuple of its SHA-256."""
    with _GrowingArray(target, "<i2") as samples:
        for block in _long_blocks(path, sample_rate):
            samples.append(block)
    return (_sha256(path),)


def _long_blocks(path: Path, sample_rate: int) -> Iterator[npt.NDArray[np.int16]]:
    """A recording of any length at this rate, piece by piece."""
    n_samples = 0
    with open_audio(path, on_note=lambda _note: None) as file:
        for block in resample_blocks(file.blocks(), file.sample_rate, sample_rate):
            n_samples += len(block)
            yield to_int16(block)
    if not n_samples:
        raise AudioError("expected at least one sample, got none; record it again")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"expected a file, got the error {error.strerror!r}") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(f"expected a file, got the error {error.strerror!r}") from error


def _attempt(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | str:
    """What reading gives, or the sentence why it gives nothing."""
    try:
        return read(*args, **kwargs)
    except AudioError as error:
        return str(error).removeprefix("the audio: ")


def _in_parallel(read: Callable[[str], T], paths: Sequence[str]) -> Iterator[T | str]:
    """What reading each path gives, or why nothing, in order and by all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # submitted piece by piece: 105,829 results at once would not fit into memory
        for start in range(0, len(paths), 512):
            yield from pool.map(lambda path: _attempt(read, path), paths[start : start + 512])


def _recordings_below(folder: Path, root: Path, on_note: OnNote) -> list[str]:
    """Their paths below the root."""
    try:
        files = find_audio([folder], on_note=on_note)
    except AudioError as error:
        raise CorpusError(str(error)) from error
    return [path.relative_to(root).as_posix() for path in files]


def _read_long(root: Path, sample_rate: int, path: str) -> tuple[str, npt.NDArray[np.int16]]:
    """The SHA-256 and the samples of a recording of any length."""
    samples = np.concatenate(list(_long_blocks(root / path, sample_rate)))
    return _sha256(root / path), samples


@dataclasses.dataclass(frozen=True)
class ContinuousSpeech:
    """Speech in which none of the words is said: the unknown of a live microphone.

    Attributes:
        samples: int16 (n,), all recordings one after the other.
        digest: SHA-256 over the names and contents of all files.
        names: The folders, as given.
        skipped: Files that could not be decoded.
    """

    samples: npt.NDArray[np.int16]
    digest: str
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


def read_speech(
    folders: Sequence[Path],
    config: FeatureConfig,
    *,
    strict: bool = False,
    on_note: OnNote = warn,
) -> ContinuousSpeech:
    """Read all recordings below some folders, of any length and in any layout.

    Args:
        folders: In which none of the words is said.
        config: Gives the rate.
        strict: As for ``decode``.
        on_note: Is told which files were passed over or skipped.

    Raises:
        CorpusError: A folder without recordings, more than one in a hundred that cannot be decoded,
            or less than a clip in all.
    """
    digest = hashlib.sha256()
    pieces: list[npt.NDArray[np.int16]] = []
    skipped: list[Skipped] = []
    for folder in folders:
        root = folder if folder.is_dir() else folder.parent
        paths = _recordings_below(folder, root, on_note)
        read = partial(_read_long, root, config.sample_rate)
        damaged = []
        for path, result in zip(paths, _in_parallel(read, paths), strict=True):
            if isinstance(result, str):
                damaged.append(Skipped(path, result))
            else:
                content, samples = result
                digest.update(_digest_line(path, content))
                pieces.append(samples)
        _judge_skipped(root, len(paths), damaged, strict)
        _tell_skipped(root, len(paths), damaged, on_note)
        skipped += damaged
    if sum(map(len, pieces)) <= config.n_samples:
        raise CorpusError("expected more than one clip of continuous speech, got less; add some")
    names = tuple(map(str, folders))
    return ContinuousSpeech(np.concatenate(pieces), digest.hexdigest(), names, tuple(skipped))
