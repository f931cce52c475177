"""Folders of clips in the layout of Speech Commands: words, speakers, splits."""

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import OnNote, warn
from speech.audio_files import SUFFIXES
from speech.data.folders import PassedOver, walk
from speech.errors import CorpusError
from speech.files import decode_text, readable_name

Split: TypeAlias = Literal["train", "validation", "test"]
SplitOrAll: TypeAlias = Split | Literal["all"]

UNKNOWN_FOLDER, NOISE_FOLDER = "_unknown_", "_background_noise_"
# A tenth of the speakers validates and a tenth tests: of fewer than ten that is nobody.
MIN_SPEAKERS = 10
_LISTS: dict[str, Split] = {"validation_list.txt": "validation", "testing_list.txt": "test"}
_SPEAKER_MARK = "_nohash_"
_MOST_NAMES = 40


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording of a word.

    Attributes:
        path: Below the root of the corpus, POSIX, as the file system has it.
        word: Its word, in composed letters (NFC).
        split: Its split.
        source: Name of the corpus that it comes from.
    """

    path: str
    word: str
    split: Split
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A folder in the layout of Speech Commands.

    Attributes:
        root: The folder.
        clips: All clips, sorted by path.
        noise: Paths of the noise files below the root, sorted.
        split_conflicts: Clips whose list and whose speaker hash name different splits. They train
            only where both say so.
        split_by_clip: Words whose clips were divided one by one, since their speakers are too few
            or not known: the same person may be in training and in validation.
    """

    root: Path
    clips: tuple[Clip, ...]
    noise: tuple[str, ...]
    split_conflicts: tuple[str, ...] = ()
    split_by_clip: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """The words that have clips, sorted."""
        return tuple(sorted({clip.word for clip in self.clips}))

    @property
    def n_speakers(self) -> int:
        """How many speakers the names of the clips tell apart."""
        return len({speaker_of(clip.path) for clip in self.clips} - {None})

    @property
    def speakers_known(self) -> bool:
        """Whether the name of every clip says who speaks."""
        return all(speaker_of(clip.path) is not None for clip in self.clips)

    def describe_split(self) -> str:
        """One sentence on how the clips were divided, for cards and terminals."""
        if not self.split_by_clip:
            return f"Clips were divided by speaker ({self.n_speakers:,} speakers)."
        every = len(self.split_by_clip) == len(self.words())
        which = "all words" if every else _joined(self.split_by_clip)
        why = (
            "their speakers are too few to divide by speaker"
            if self.speakers_known
            else f"file names without SPEAKER{_SPEAKER_MARK} do not say who speaks"
        )
        return (
            f"The clips of {which} were divided clip by clip, since {why}: figures hold for these "
            "speakers, not for new ones."
        )


def speaker_of(path: str) -> str | None:
    """Who speaks in a clip: its file name up to ``_nohash_``; None where the name has no such mark.

    Example:
        >>> speaker_of("left/0132a06d_nohash_2.wav")
        '0132a06d'
    """
    speaker, mark, _ = readable_name(PurePosixPath(path).name).partition(_SPEAKER_MARK)
    return speaker if mark else None


def speaker_split(filename: str) -> Split:
    """The official split of a clip, by its speaker.

    SHA-1 of the speaker modulo 2**27, as a percentage: below 10 validation, below 20 test (Warden,
    2018, arXiv 1804.03209, section 5.7). A name without speaker is hashed without suffix.
    """
    stem = readable_name(PurePosixPath(filename).stem)
    speaker = speaker_of(filename)
    return _split_of(_percentage(stem if speaker is None else speaker))


def _percentage(text: str) -> float:
    largest = 2**27 - 1
    hashed = int(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), 16)
    return hashed % (largest + 1) * (100.0 / largest)


def _split_of(percentage: float) -> Split:
    return "validation" if percentage < 10 else "test" if percentage < 20 else "train"


def index_corpus(root: Path, *, on_note: OnNote = warn) -> Corpus:
    """Read the layout ``WORD/SPEAKER_nohash_N.wav`` (or .flac, .ogg ...), whole or partial.

    Folders that differ in capitals only, or in how their letters are encoded, are one word. Clips
    are divided as the lists of the corpus say, else by speaker; a word whose speakers are not known
    or too few is divided clip by clip.

    Args:
        root: The folder of the corpus.
        on_note: Is told in one sentence each what was passed over, which folders were joined, and
            which words were not divided by speaker.

    Raises:
        CorpusError: No such folder, or no clips in it.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "a folder that is not found"
        raise CorpusError(
            f"{root}: expected the folder of a corpus, got {what}; speech prepare makes one"
        )
    passed_over = PassedOver()
    try:
        folders = [path for path in sorted(root.iterdir()) if _is_word(path, passed_over)]
    except OSError as error:
        raise CorpusError(
            f"{root}: expected a folder that can be read, got the error {error.strerror!r}; check "
            "its permissions"
        ) from error
    spellings = _spellings(folders, on_note)
    paths = {
        path.relative_to(root).as_posix(): spellings[folder.name]
        for folder in folders
        for path in walk(folder, passed_over, levels=1)
    }
    noise = root / NOISE_FOLDER
    files = walk(noise, passed_over) if noise.is_dir() else []
    passed_over.report(root, on_note)
    if not paths:
        raise CorpusError(
            f"{root}: expected folders of recordings, one a word ({', '.join(SUFFIXES)}), "
            "got none; choose the folder that holds the folders of the words"
        )
    splits, conflicts, by_clip = _assign_splits(paths, _read_lists(root))
    clips = [Clip(path, word, splits[path], root.name) for path, word in paths.items()]
    corpus = Corpus(
        root,
        tuple(clips),
        tuple(sorted(path.relative_to(root).as_posix() for path in files)),
        tuple(conflicts),
        tuple(sorted(by_clip)),
    )
    if conflicts:
        on_note(
            f"{readable_name(root)}: {len(conflicts)} clips whose list and speaker hash name "
            f"different splits, for example {readable_name(conflicts[0])}; they train only where "
            "both say so"
        )
    if by_clip:
        on_note(f"{readable_name(root)}: {corpus.describe_split()}")
    return corpus


def _is_word(path: Path, passed_over: PassedOver) -> bool:
    if not path.is_dir():
        if path.name.lower().endswith(SUFFIXES):
            passed_over.add("beside the folders of the words", path)
        return False
    if path.name == NOISE_FOLDER:
        return False
    if path.name.startswith("."):
        passed_over.add("hidden", path)
        return False
    if path.name.startswith("_") and path.name != UNKNOWN_FOLDER:
        passed_over.add("name begins with _", path)
        return False
    return True


def _spellings(folders: Sequence[Path], on_note: OnNote) -> dict[str, str]:
    """The word of each folder: one spelling for those that differ in capitals or encoding only."""
    same: dict[str, list[str]] = {}
    for folder in folders:
        same.setdefault(readable_name(folder.name).casefold(), []).append(folder.name)
    words: dict[str, str] = {}
    for names in same.values():
        readable = [readable_name(name) for name in names]
        word = max(readable)  # small letters stand behind capitals
        if len(names) > 1:
            shown = _joined([ascii(name) if name != text else name
                             for name, text in zip(names, readable, strict=True)])  # fmt: skip
            on_note(f"{folders[0].parent}: the folders {shown} are taken for one word, {word}")
        words |= dict.fromkeys(names, word)
    return words


def _key(path: str) -> str:
    """A clip's place in a list: without suffix, capitals, or differences of encoding."""
    text = PurePosixPath(readable_name(path)).as_posix().casefold()
    stem, _, suffix = text.rpartition(".")
    return stem if stem and "/" not in suffix else text


def _read_lists(root: Path) -> dict[str, Split]:
    """The splits that the lists of a corpus name, by ``_key``, from whatever editor."""
    return {
        _key(line.strip().replace("\\", "/")): split
        for name, split in _LISTS.items()
        if (root / name).is_file()
        for line in decode_text((root / name).read_bytes()).splitlines()
        if line.strip()
    }


def _assign_splits(
    paths: Mapping[str, str], listed: Mapping[str, Split]
) -> tuple[dict[str, Split], list[str], set[str]]:
    """The split of each path, the paths in conflict, and the words that are divided by clip."""
    lists = set(listed.values())
    by_hash = {path: speaker_split(path) for path in paths}
    speakers = {speaker_of(path) for path in paths} - {None}
    present = set(by_hash.values())
    enough = len(speakers) >= MIN_SPEAKERS and "validation" in present
    by_word: dict[str, list[str]] = {}
    for path, word in paths.items():
        by_word.setdefault(word, []).append(path)
    splits: dict[str, Split] = {}
    conflicts: list[str] = []
    by_clip: set[str] = set()
    for word, members in by_word.items():
        # a list that exists must name every clip of its split
        is_listed = {path: _key(path) in listed for path in members}
        missed = {path for path in members if by_hash[path] in lists and not is_listed[path]}
        known = all(speaker_of(path) is not None for path in members)
        # many speakers of whom none trains are a corpus to measure on
        trains = "train" not in present or "train" in {by_hash[path] for path in members}
        if any(is_listed.values()) or (lists and known and not missed):
            for path in members:
                splits[path] = listed.get(_key(path), by_hash[path])
                if splits[path] != by_hash[path] or path in missed:
                    conflicts.append(path)
        elif known and enough and trains:
            splits |= {path: by_hash[path] for path in members}
        else:
            splits |= _split_by_clip(members)
            by_clip.add(word)
    return splits, sorted(conflicts), by_clip


def _split_by_clip(paths: Sequence[str]) -> dict[str, Split]:
    """By the hash of each path, but at least one clip in each split, as far as there are any."""
    percentages = {path: _percentage(_key(path)) for path in paths}
    order = sorted(paths, key=percentages.__getitem__)
    splits = {path: _split_of(percentages[path]) for path in order}
    if len(order) == 1:
        return {order[0]: "train"}
    if "train" not in splits.values():
        splits[order[-1]] = "train"
    if "validation" not in splits.values():
        splits[order[0]] = "validation"
    if "test" not in splits.values() and len(order) > 2:
        spare = [path for path in order if splits[path] == "validation"][1:]
        spare += [path for path in order if splits[path] == "train"]
        splits[spare[0]] = "test"
    return splits


def require_words(corpus: Corpus, words: Iterable[str]) -> None:
    """Refuse words that a corpus has no folder for.

    Raises:
        CorpusError: Names them, the nearest words of the corpus, and which there are.
    """
    known = corpus.words()
    missing = [word for word in words if word not in known]
    if not missing:
        return
    folded = {word.casefold(): word for word in known}
    near = {
        word: [folded[k] for k in difflib.get_close_matches(word.casefold(), folded, 1, 0.6)]
        for word in missing
    }
    hints = [f"{names[0]} for {word}" for word, names in near.items() if names]
    raise CorpusError(
        f"{readable_name(corpus.root)}: expected folders of the words {_joined(missing)}, got none"
        + (f" (nearest: {_joined(hints)})" if hints else "")
        + f"; choose among {_joined(known)}, or add recordings"
    )


def _joined(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


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


def indices_by_word(corpus: Corpus, split: SplitOrAll) -> dict[str, npt.NDArray[np.int64]]:
    """For each word, the positions of its clips of this split, or of all, in ``corpus.clips``."""
    positions: dict[str, list[int]] = {}
    for index, clip in enumerate(corpus.clips):
        if split in ("all", clip.split):
            positions.setdefault(clip.word, []).append(index)
    return {word: np.array(index, np.int64) for word, index in sorted(positions.items())}
