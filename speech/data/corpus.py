"""Folders of clips in the layout of Speech Commands: words, speakers, official splits."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio_files import SUFFIXES
from speech.errors import CorpusError

Split: TypeAlias = Literal["train", "validation", "test"]

UNKNOWN_FOLDER, NOISE_FOLDER = "_unknown_", "_background_noise_"
_LISTS: dict[str, Split] = {"validation_list.txt": "validation", "testing_list.txt": "test"}


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
        split_conflicts: Clips whose list and whose speaker hash name different splits. They train
            only where both say so.
    """

    root: Path
    clips: tuple[Clip, ...]
    noise: tuple[str, ...]
    split_conflicts: tuple[str, ...]

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


def index_corpus(root: Path) -> Corpus:
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
    clips, split_conflicts = [], []
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
                split_conflicts.append(path)
            clips.append(Clip(path, folder.name, split))
    if not clips:
        raise CorpusError(
            f"{root}: expected folders of recordings, one a word ({', '.join(SUFFIXES)}), "
            "got none; choose the folder that holds the folders of the words"
        )
    noise = root / NOISE_FOLDER
    files = [f"{NOISE_FOLDER}/{name}" for name in _audio_files(noise)] if noise.is_dir() else []
    return Corpus(root, tuple(clips), tuple(files), tuple(split_conflicts))


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


def indices_by_word(corpus: Corpus, split: Split) -> dict[str, npt.NDArray[np.int64]]:
    """For each word, the positions of its clips of this split in ``corpus.clips``."""
    found: dict[str, list[int]] = {}
    for index, clip in enumerate(corpus.clips):
        if clip.split == split:
            found.setdefault(clip.word, []).append(index)
    return {word: np.array(index, np.int64) for word, index in sorted(found.items())}
