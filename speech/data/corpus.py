"""Speech Commands and folders like it: recipes, download, official splits, label sets, caches."""

import dataclasses
import functools
import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import platformdirs

from speech.audio import SUFFIXES, fit_length, load_audio
from speech.data.download import Archive, Progress, no_progress
from speech.errors import AudioError, CorpusError
from speech.features import FeatureConfig, mfcc

Split: TypeAlias = Literal["train", "validation", "test"]

UNKNOWN, SILENCE = "unknown", "silence"
UNKNOWN_FOLDER, NOISE_FOLDER = "_unknown_", "_background_noise_"
EVALUATION_NOISE = 0.2  # the end of each noise file, never trained on
_LISTS: dict[str, Split] = {"validation_list.txt": "validation", "testing_list.txt": "test"}
_MAX_SECONDS = 600.0


# --- recipes and label sets ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a model: words in order, then ``unknown`` and ``silence`` where wanted."""

    name: str
    words: tuple[str, ...]
    unknown: bool = True
    silence: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes, in the order of the network's outputs."""
        extra = (UNKNOWN,) * self.unknown + (SILENCE,) * self.silence
        return self.words + extra

    def label_of(self, word: str) -> str | None:
        """The label of a word's clips; None where this label set has no place for them."""
        if word in self.words:
            return word
        return UNKNOWN if self.unknown else None

    @classmethod
    def parse(cls, text: str) -> "LabelSet":
        """``"commands-8"`` or another set named in a recipe, or words: ``"yes,no,stop"``.

        Raises:
            CorpusError: Not a known name and not at least two different words.
        """
        known = {name: s for recipe in recipes().values() for name, s in recipe.label_sets.items()}
        if text in known:
            return known[text]
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        if len(words) < 2 or len(set(words)) < len(words) or {UNKNOWN, SILENCE} & set(words):
            raise CorpusError(
                f"labels {text!r}: expected one of {', '.join(sorted(known))} or at least two "
                f"different words separated by commas, got {', '.join(words) or 'none'}; "
                "unknown and silence are added to them"
            )
        return cls("own words", words)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Where a corpus comes from and how to know that it is the right one."""

    name: str
    archive: Archive
    licence: str
    attribution: str
    citation: str
    label_sets: Mapping[str, LabelSet]


@functools.cache
def recipes() -> dict[str, Recipe]:
    """All recipes, by name: the ``datasets/*.toml`` of the project."""
    package = Path(__file__).parent
    folder = next(p for p in (package / "_datasets", package.parent / "datasets") if p.is_dir())
    found = {}
    for path in sorted(folder.glob("*.toml")):
        fields = tomllib.loads(path.read_text("utf-8"))
        sets = {
            name: LabelSet(name, tuple(s["words"]), s["unknown"], s["silence"])
            for name, s in fields.get("label_sets", {}).items()
        }
        archive = Archive(fields["url"], fields["sha256"], fields.get("bytes"))
        texts = {key: fields[key] for key in ("name", "licence", "attribution", "citation")}
        found[path.stem] = Recipe(**texts, archive=archive, label_sets=sets)
    return found


# --- clips and their splits ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording: its path below the root of the corpus (POSIX), its word, its split."""

    path: str
    word: str
    split: Split


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A folder in the layout of Speech Commands.

    Attributes:
        root: The folder.
        clips: All clips, sorted by path.
        noise: Paths of the noise files below the root, sorted.
        disagreements: Clips whose list and whose speaker hash name different splits. They train
            only where both say so.
    """

    root: Path
    clips: tuple[Clip, ...]
    noise: tuple[str, ...]
    disagreements: tuple[str, ...]

    def words(self) -> tuple[str, ...]:
        """The words that have clips, sorted."""
        return tuple(sorted({clip.word for clip in self.clips}))


def speaker_split(filename: str) -> Split:
    """The official split of a clip, by its speaker: the name up to ``_nohash_``.

    SHA-1 of the speaker modulo 2**27, as a percentage: below 10 validation, below 20 test (Warden,
    2018, arXiv 1804.03209, section 5.7). A name without ``_nohash_`` is hashed without suffix.
    """
    speaker = re.sub(r"_nohash_.*$", "", PurePosixPath(filename).name)
    if speaker == PurePosixPath(filename).name:
        speaker = PurePosixPath(filename).stem
    largest = 2**27 - 1
    hashed = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    percentage = hashed % (largest + 1) * (100.0 / largest)
    return "validation" if percentage < 10 else "test" if percentage < 20 else "train"


def scan(root: Path) -> Corpus:
    """Read the layout ``WORD/SPEAKER_nohash_N.wav`` (or .flac, .ogg ...), whole or partial.

    Raises:
        CorpusError: No such folder, or no clips in it.
    """
    if not root.is_dir():
        raise CorpusError(
            f"{root}: expected the folder of a corpus, got "
            f"{'a file' if root.exists() else 'nothing'}; see: speech prepare --help"
        )
    listed = {
        PurePosixPath(line.strip()).with_suffix("").as_posix(): split
        for name, split in _LISTS.items()
        if (root / name).is_file()
        for line in (root / name).read_text("utf-8").splitlines()
        if line.strip()
    }
    lists = set(listed.values())
    clips, disagreements = [], []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or (folder.name[0] in "._" and folder.name != UNKNOWN_FOLDER):
            continue
        for name in _audio_files(folder):
            path = f"{folder.name}/{name}"
            stem = PurePosixPath(path).with_suffix("").as_posix()
            by_hash = speaker_split(name)
            split = listed.get(stem, by_hash)
            # a list that exists must name every clip of its split
            if split != by_hash or (by_hash in lists and stem not in listed):
                disagreements.append(path)
            clips.append(Clip(path, folder.name, split))
    if not clips:
        raise CorpusError(
            f"{root}: expected folders of recordings, one a word ({', '.join(SUFFIXES)}), "
            "got none; choose the folder that holds the folders of the words"
        )
    noise = root / NOISE_FOLDER
    files = [f"{NOISE_FOLDER}/{name}" for name in _audio_files(noise)] if noise.is_dir() else []
    return Corpus(root, tuple(clips), tuple(files), tuple(disagreements))


def _audio_files(folder: Path) -> list[str]:
    return sorted(
        e.name
        for e in os.scandir(folder)
        if e.is_file() and not e.name.startswith(".") and e.name.lower().endswith(SUFFIXES)
    )


def draw_evenly(
    groups: Sequence[npt.NDArray[np.integer[Any]]], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw without replacement, equally many from each group as long as it lasts.

    Args:
        groups: Disjoint arrays of indices.
        count: How many in all; fewer come where all groups together hold fewer.
        rng: Decides the order.

    Returns:
        The indices drawn, int64, shuffled.
    """
    pools = [rng.permutation(group) for group in groups if len(group)]
    turns = np.concatenate([np.arange(len(pool)) for pool in pools] or [np.zeros(0, int)])
    members = np.concatenate(pools or [np.zeros(0, int)])
    order = np.lexsort((rng.random(len(members)), turns))
    return rng.permutation(members[order[:count]].astype(np.int64))


# --- decoded recordings -------------------------------------------------------------------------


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

    def noise_part(self, split: Split) -> list[npt.NDArray[np.int16]]:
        """The part of each noise file that a split may hear: the end evaluates, the rest trains."""
        cuts = [round(len(noise) * (1 - EVALUATION_NOISE)) for noise in self.noise]
        pairs = zip(self.noise, cuts, strict=True)
        return [noise[:cut] if split == "train" else noise[cut:] for noise, cut in pairs]


def to_float(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """int16 to float32 in [-1, 1), exactly."""
    return samples.astype(np.float32) / np.float32(32768)


def to_int16(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """The inverse of ``to_float``, rounded and clipped."""
    return np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.int16)


def default_cache() -> Path:
    """The user's cache folder for decoded corpora (``SPEECH_CACHE`` overrides it)."""
    chosen = os.environ.get("SPEECH_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("speech-commands"))


def decode(
    corpus: Corpus,
    config: FeatureConfig,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> Recordings:
    """Decode every clip to one length and rate, once; later calls only open the result.

    The cache is keyed by the name, size and time of change of every file, the rate and the length.

    Raises:
        CorpusError: Names the first file that cannot be decoded.
    """
    paths = [clip.path for clip in corpus.clips] + list(corpus.noise)
    listing = [(p, (s := (corpus.root / p).stat()).st_size, s.st_mtime_ns) for p in paths]
    key = json.dumps([listing, config.sample_rate, config.n_samples])
    cache = default_cache() if cache is None else cache
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            part = Path(scratch) / "part"
            part.mkdir()
            _decode_into(part, corpus, config, progress)
            try:
                part.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    noise = [np.load(folder / f"noise-{i}.npy", mmap_mode="r") for i in range(len(corpus.noise))]
    samples = np.load(folder / "clips.npy", mmap_mode="r")
    digest = json.loads((folder / "digest.json").read_text())["sha256"]
    return Recordings(corpus, samples, tuple(noise), digest, folder)


def _decode_into(part: Path, corpus: Corpus, config: FeatureConfig, progress: Progress) -> None:
    shape = (len(corpus.clips), config.n_samples)
    rows = np.lib.format.open_memmap(part / "clips.npy", "w+", np.int16, shape)
    _claim(part / "clips.npy")
    digest = hashlib.sha256()
    paths = [clip.path for clip in corpus.clips]
    for index, waveform in enumerate(_read_all(corpus.root, paths, config, digest)):
        rows[index] = to_int16(fit_length(waveform, config.n_samples))
        progress(index + 1, len(paths))
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


# --- what is evaluated --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """Clips with their labels, fixed by a seed: the same list for everybody.

    Attributes:
        names: For each clip its path, or for silence ``FILE@START*GAIN``.
        waveforms: float32 (n, n_samples).
        truth: int64 (n,), index into the labels.
    """

    names: tuple[str, ...]
    waveforms: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]


def evaluation_set(
    recordings: Recordings, labels: LabelSet, split: Split = "validation", seed: int = 0
) -> ClipSet:
    """All clips of the words, and of unknown and silence as many as of a word on average.

    Unknown is drawn evenly over the words that are left; silence is cropped from the end of the
    noise files at an RMS drawn log-uniformly from 0.001 to 0.33, about what the official test
    archive holds.

    Raises:
        CorpusError: The split holds no clip of these labels.
    """
    rng = np.random.default_rng([seed, 0xE7A1])
    indices = indices_by_word(recordings.corpus, split)
    names, waveforms, truth = [], [], []
    per_word = [indices.get(word, np.zeros(0, int)) for word in labels.words]
    n_extra = round(sum(map(len, per_word)) / max(1, len(per_word)))
    if not n_extra:
        raise CorpusError(
            f"{recordings.corpus.root}: expected {split} clips of {', '.join(labels.words)}, "
            "got none; choose other labels or another corpus"
        )
    groups = list(per_word)
    if labels.unknown:
        others = [index for word, index in indices.items() if word not in labels.words]
        groups.append(np.sort(draw_evenly(others, n_extra, rng)))
    for label, group in enumerate(groups):
        names += [recordings.corpus.clips[i].path for i in group]
        waveforms.append(to_float(recordings.samples[group]))
        truth += [label] * len(group)
    if labels.silence and recordings.noise:
        crops = _silence_crops(recordings, split, n_extra, rng)
        names += [name for name, _ in crops]
        waveforms.append(np.stack([waveform for _, waveform in crops]))
        truth += [len(labels.labels) - 1] * n_extra
    return ClipSet(tuple(names), np.concatenate(waveforms), np.array(truth, np.int64))


def calibration_half(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which clips fit the temperature, bool (n,); the others, of other speakers, measure it."""
    speakers = [re.sub(r"_nohash_.*$", "", PurePosixPath(name).name) for name in names]
    return np.array([hashlib.sha256(s.encode()).digest()[0] % 2 == 0 for s in speakers], bool)


def indices_by_word(corpus: Corpus, split: Split) -> dict[str, npt.NDArray[np.int64]]:
    """For each word, the positions of its clips of this split in ``corpus.clips``."""
    found: dict[str, list[int]] = {}
    for index, clip in enumerate(corpus.clips):
        if clip.split == split:
            found.setdefault(clip.word, []).append(index)
    return {word: np.array(index, np.int64) for word, index in sorted(found.items())}


def _silence_crops(
    recordings: Recordings, split: Split, count: int, rng: np.random.Generator
) -> list[tuple[str, npt.NDArray[np.float32]]]:
    n_samples = recordings.samples.shape[1]
    parts = recordings.noise_part(split)
    crops = []
    for index in range(count):
        which = index % len(parts)
        part = parts[which]
        start = int(rng.integers(max(1, len(part) - n_samples)))
        crop = fit_length(to_float(part[start : start + n_samples]), n_samples)
        wanted = 10 ** rng.uniform(-3, np.log10(0.33))
        gain = wanted / max(float(np.sqrt(np.mean(crop**2))), 1e-6)
        offset = start if split == "train" else start + len(recordings.noise[which]) - len(part)
        name = f"{recordings.corpus.noise[which]}@{offset}*{gain:.4g}"
        crops.append((name, np.clip(crop * np.float32(gain), -1, 1)))
    return crops
