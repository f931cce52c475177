"""Unseen sources: recordings by other people, in other rooms, that nothing was trained or tuned on.

A folder holds ``SOURCE/WORD/*.ogg`` or ``WORD/*.ogg``. What a word's folder is called says what is
wanted: the label itself where it is a command of the model; no command where it is another word, or
a room (``ROOMS``). A folder of long recordings is continuous speech, run through the live decoder.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import Waveform, fit_length, load_audio, warn
from speech.data.folders import PassedOver, walk
from speech.errors import AudioError, CorpusError
from speech.evaluation.metrics import wilson_interval
from speech.evaluation.open_set import accepted_commands, open_set_figures
from speech.evaluation.scoring import StreamPosteriors, score
from speech.evaluation.stream_card import training_names
from speech.files import readable_name
from speech.labels import commands
from speech.recognizer import Recognizer
from speech.stream import chosen_for, classifier_for

Kind: TypeAlias = Literal["commands", "other words", "rooms", "speech"]

ROOMS = frozenset({"_background_noise_", "_silence_", "background", "noise", "room", "silence"})
LONG_SECONDS = 2.5  # a folder whose recordings are longer on average holds continuous speech
_MAX_SECONDS = 3600.0
_BATCH = 256


class WordFolder(NamedTuple):
    """The recordings of one word, or of one room, of one source."""

    source: str
    word: str
    paths: tuple[Path, ...]


class UnseenClips(NamedTuple):
    """The clips of one word folder and what the model says of them.

    Attributes:
        source: Whose recordings.
        kind: What they hold.
        word: Name of the folder.
        probabilities: float32 (n, n_classes).
    """

    source: str
    kind: Kind
    word: str
    probabilities: npt.NDArray[np.float32]


def find_word_folders(folders: Sequence[Path]) -> list[WordFolder]:
    """The folders that hold recordings, in the order of their names.

    Raises:
        CorpusError: A folder that is not there, or has no recordings at any depth.
    """
    found: list[WordFolder] = []
    for root in folders:
        passed_over = PassedOver()
        files = walk(root, passed_over) if root.is_dir() else []
        passed_over.report(root, warn)
        for folder, paths in itertools.groupby(files, lambda path: path.parent):
            source = folder if folder == root else folder.parent
            name, word = (readable_name(place.resolve().name) for place in (source, folder))
            found.append(WordFolder(name, word, tuple(paths)))
        if not files:
            raise CorpusError(
                f"{root}: expected SOURCE/WORD/ or WORD/ with recordings in it, got "
                f"{'none' if root.is_dir() else 'no such folder'}; choose another folder"
            )
    return found


def measure_unseen(
    recognizer: Recognizer,
    folders: Sequence[Path],
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Measure a model on sources that nothing was trained or tuned on.

    Args:
        recognizer: The model.
        folders: See the module.
        on_progress: Told how many folders of how many are done.

    Returns:
        JSON-able: ``clips``, a row for each source and kind; ``total``, one for each kind; of
        ``speech`` a row a source; ``open_set`` where there are commands and other words;
        ``trained_on``, sources whose name is among the data of the training; ``unreadable``, files
        left out with the reason.

    Raises:
        CorpusError: No recordings, or none that can be read.
    """
    word_folders = find_word_folders(folders)
    clips: list[UnseenClips] = []
    speech: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for number, folder in enumerate(word_folders, 1):
        waveforms = list(_load(recognizer, folder, unreadable))
        if waveforms:
            kind = _kind(recognizer, folder, waveforms)
            if kind == "speech":
                speech.append(_speech_row(recognizer, folder, waveforms))
            else:
                batch = _cut(waveforms, recognizer.features.n_samples, kind)
                answers = recognizer.probabilities(batch)
                clips.append(UnseenClips(folder.source, kind, folder.word, answers))
        on_progress(number, len(word_folders))
    if not clips and not speech:
        raise CorpusError(f"expected recordings that can be read, got none: {unreadable[0]}")
    names = {folder.source for folder in word_folders} | {row["source"] for row in speech}
    return {
        "clips": [
            row
            for source, kind in dict.fromkeys((c.source, c.kind) for c in clips)
            for row in [_row(recognizer, clips, kind, source)]
        ],
        "total": [_row(recognizer, clips, kind) for kind in dict.fromkeys(c.kind for c in clips)],
        "speech": speech,
        "open_set": _open_set(recognizer, clips),
        "trained_on": sorted(names & training_names(recognizer.provenance)),
        "unreadable": unreadable,
    }


def _load(recognizer: Recognizer, folder: WordFolder, unreadable: list[str]) -> Iterator[Waveform]:
    for path in folder.paths:
        try:
            yield load_audio(path, recognizer.features.sample_rate, max_seconds=_MAX_SECONDS)
        except AudioError as error:
            unreadable.append(f"{folder.source}/{folder.word}/{path.name}: {error}")


def _kind(recognizer: Recognizer, folder: WordFolder, waveforms: Sequence[Waveform]) -> Kind:
    if folder.word in ROOMS:
        return "rooms"
    if folder.word in commands(recognizer.labels):
        return "commands"
    seconds = float(np.mean([len(w) for w in waveforms])) / recognizer.features.sample_rate
    return "speech" if seconds >= LONG_SECONDS else "other words"


def _cut(waveforms: Sequence[Waveform], n_samples: int, kind: Kind) -> npt.NDArray[np.float32]:
    """The loudest clip of each recording; of a long one of a room, every clip."""
    pieces: list[Waveform] = []
    for waveform in waveforms:
        if kind == "rooms" and len(waveform) > LONG_SECONDS * n_samples:
            whole = len(waveform) // n_samples * n_samples
            pieces += list(waveform[:whole].reshape(-1, n_samples))
        else:
            pieces.append(fit_length(waveform, n_samples))
    return np.stack(pieces)


def _row(
    recognizer: Recognizer, clips: Sequence[UnseenClips], kind: Kind, source: str | None = None
) -> dict[str, Any]:
    """How many clips of a kind are right, of one source or of all; by word too."""
    by_word: dict[str, tuple[int, int, int]] = {}
    for c in clips:
        if c.kind != kind or source not in (None, c.source):
            continue
        called = [recognizer.labels[i] for i in c.probabilities.argmax(axis=1)]
        accepted = accepted_commands(c.probabilities, recognizer.labels, recognizer.acceptance)
        is_command = np.isin(called, commands(recognizer.labels))
        if kind == "commands":
            right = np.array(called) == c.word
            sure = right & accepted
        else:
            right, sure = ~is_command, ~accepted
        n, before, before_sure = by_word.get(c.word, (0, 0, 0))
        by_word[c.word] = n + len(right), before + int(right.sum()), before_sure + int(sure.sum())
    n, right_n, sure_n = (sum(column) for column in zip(*by_word.values(), strict=True))
    low, high = wilson_interval(right_n, n)
    sure_low, sure_high = wilson_interval(sure_n, n)
    return {
        "source": source or "all",
        "kind": kind,
        "n": n,
        "right": right_n,
        "rate": right_n / n,
        "low": low,
        "high": high,
        "right_with_acceptance": sure_n,
        "rate_with_acceptance": sure_n / n,
        "low_with_acceptance": sure_low,
        "high_with_acceptance": sure_high,
        "by_word": {word: list(counts) for word, counts in by_word.items()},
    }


def _speech_row(
    recognizer: Recognizer, folder: WordFolder, waveforms: Sequence[Waveform]
) -> dict[str, Any]:
    """False accepts per hour of the decoder that the model carries."""
    config = chosen_for(recognizer)
    windows = classifier_for(recognizer, config.step_seconds, _BATCH)
    rows = [windows.push(waveform) for waveform in waveforms]
    rows.append(windows.flush())
    seconds, joined = windows.seconds, np.concatenate(rows).astype(np.float32)
    name = folder.word
    stream = StreamPosteriors(
        "speech", "clean", (), seconds, seconds, joined, windows.silence_posterior, name
    )
    metrics = score(recognizer, stream, config)
    return {
        "source": name,
        "hours": seconds / 3600,
        "false_accepts": metrics.false_accepts,
        "false_accepts_per_hour": metrics.false_accepts_per_hour,
        "low": metrics.false_accepts_per_hour_low,
        "high": metrics.false_accepts_per_hour_high,
    }


def _open_set(recognizer: Recognizer, clips: Sequence[UnseenClips]) -> dict[str, Any] | None:
    known = [c.probabilities for c in clips if c.kind == "commands"]
    other = [c.probabilities for c in clips if c.kind == "other words"]
    if not known or not other:
        return None
    return open_set_figures(np.concatenate(known), np.concatenate(other), recognizer.labels)
