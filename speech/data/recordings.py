"""Corpora decoded once, into caches on disk: memory does not grow with their size."""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.audio import fit_length, load_audio, to_float, to_int16
from speech.audio_files import SUFFIXES
from speech.data.corpus import Corpus, Split
from speech.environment import cache_folder
from speech.errors import AudioError, CorpusError
from speech.features import FeatureConfig, mfcc
from speech.progress import OnProgress, no_progress

EVALUATION_NOISE = 0.2  # the end of each noise file, never trained on
_MAX_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Recordings:
    """A corpus decoded once, on disk: memory does not grow with its size.

    Attributes:
        corpus: What was decoded.
        samples: int16 memory map (n_clips, n_samples), in the order of ``corpus.clips``.
        noise: For each noise file, int16 (n,).
        digest: SHA-256 over the names and contents of all files.
        folder: Where the caches lie.
    """

    corpus: Corpus
    samples: npt.NDArray[np.int16]
    noise: tuple[npt.NDArray[np.int16], ...]
    digest: str
    folder: Path

    def features(self, config: FeatureConfig) -> npt.NDArray[np.float32]:
        """MFCC of every clip, float32 memory map (n_clips, n_frames, n_mfcc).

        Computed once and kept under the digest of data and config: another hop, another file.
        """
        path = self.folder / f"mfcc-{config.digest()[:32]}.npy"
        if not path.exists():
            shape = (len(self.samples), config.n_frames, config.n_mfcc)
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                rows = np.lib.format.open_memmap(Path(scratch) / path.name, "w+", np.float32, shape)
                for start in range(0, len(rows), 1024):
                    block = slice(start, start + 1024)
                    rows[block] = mfcc(to_float(self.samples[block]), config)
                rows.flush()
                (Path(scratch) / path.name).replace(path)
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def noise_for(self, split: Split) -> list[npt.NDArray[np.int16]]:
        """The part of each noise file that a split may hear: the end evaluates, the rest trains."""
        cuts = [round(len(noise) * (1 - EVALUATION_NOISE)) for noise in self.noise]
        pairs = zip(self.noise, cuts, strict=True)
        return [noise[:cut] if split == "train" else noise[cut:] for noise, cut in pairs]


def decode(
    corpus: Corpus,
    config: FeatureConfig,
    cache: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> Recordings:
    """Decode every clip to one length and rate, once; later calls only open the result.

    The cache is keyed by the name, size and time of change of every file, the rate and the length.

    Raises:
        CorpusError: Names the first file that cannot be decoded.
    """
    paths = [clip.path for clip in corpus.clips] + list(corpus.noise)
    listing = [(p, (s := (corpus.root / p).stat()).st_size, s.st_mtime_ns) for p in paths]
    key = json.dumps([listing, config.sample_rate, config.n_samples])
    cache = cache_folder() if cache is None else cache
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            part = Path(scratch) / "part"
            part.mkdir()
            _decode_into(part, corpus, config, on_progress)
            try:
                part.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    noise = [np.load(folder / f"noise-{i}.npy", mmap_mode="r") for i in range(len(corpus.noise))]
    samples = np.load(folder / "clips.npy", mmap_mode="r")
    digest = json.loads((folder / "digest.json").read_text())["sha256"]
    return Recordings(corpus, samples, tuple(noise), digest, folder)


def _decode_into(
    part: Path, corpus: Corpus, config: FeatureConfig, on_progress: OnProgress
) -> None:
    shape = (len(corpus.clips), config.n_samples)
    rows = np.lib.format.open_memmap(part / "clips.npy", "w+", np.int16, shape)
    _claim(part / "clips.npy")
    digest = hashlib.sha256()
    paths = [clip.path for clip in corpus.clips]
    for index, waveform in enumerate(_read_all(corpus.root, paths, config, digest)):
        rows[index] = to_int16(fit_length(waveform, config.n_samples))
        on_progress(index + 1, len(paths))
    for index, waveform in enumerate(_read_all(corpus.root, corpus.noise, config, digest)):
        np.save(part / f"noise-{index}.npy", to_int16(waveform))
    rows.flush()
    (part / "digest.json").write_text(json.dumps({"sha256": digest.hexdigest()}))


def _claim(path: Path) -> None:
    """Take the room for a file now: writing to a map of it on a full disk ends the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise CorpusError(
            f"{path.parents[2]}: expected room for {size:,} bytes of decoded clips, got the error "
            f"{error.strerror!r}; make room, or choose another folder with --cache"
        ) from error


def _read_all(
    root: Path, paths: Sequence[str], config: FeatureConfig, digest: Any
) -> Iterator[npt.NDArray[np.float32]]:
    """The waveforms in order, decoded by all cores; names and contents go into the digest."""

    def read(path: str) -> tuple[str, npt.NDArray[np.float32]]:
        try:
            content = (root / path).read_bytes()
            waveform = load_audio(content, config.sample_rate, max_seconds=_MAX_SECONDS)
        except (AudioError, OSError) as error:
            raise CorpusError(
                f"{root / path}: expected a recording, got: {error}; remove or replace this file"
            ) from error
        return hashlib.sha256(content).hexdigest(), waveform

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # submitted piece by piece: 105,829 results at once would not fit into memory
        for start in range(0, len(paths), 512):
            piece = paths[start : start + 512]
            for path, (content, waveform) in zip(piece, pool.map(read, piece), strict=True):
                digest.update(f"{path}\0{content}\n".encode())
                yield waveform


@dataclasses.dataclass(frozen=True)
class ContinuousSpeech:
    """Speech in which none of the words is said: the unknown of a live microphone.

    Attributes:
        samples: int16 (n,), all recordings one after the other.
        digest: SHA-256 over the names and contents of all files.
        names: The folders, as given.
    """

    samples: npt.NDArray[np.int16]
    digest: str
    names: tuple[str, ...]


def read_speech(folders: Sequence[Path], config: FeatureConfig) -> ContinuousSpeech:
    """Read all recordings below some folders, in any layout.

    Raises:
        CorpusError: A folder without recordings, or one that cannot be decoded.
    """
    digest = hashlib.sha256()
    waveforms: list[npt.NDArray[np.int16]] = []
    for folder in folders:
        found = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*"))]
        paths = [p for p in found if p.lower().endswith(SUFFIXES)]
        if not paths:
            raise CorpusError(f"{folder}: expected recordings of speech, got none; check the path")
        waveforms += [to_int16(w) for w in _read_all(folder, paths, config, digest)]
    samples = np.concatenate(waveforms)
    if len(samples) <= config.n_samples:
        raise CorpusError("expected more than one clip of continuous speech, got less; add some")
    return ContinuousSpeech(samples, digest.hexdigest(), tuple(map(str, folders)))
