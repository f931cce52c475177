"""Open-set recognition of clips: which answers to accept, and how well words are told from others.

A model has to name one of its labels, and a word that it never learned may look like a command. A
clip is accepted as a command where the probability of its label reaches that command's threshold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.audio import to_float
from speech.data.evaluation_set import calibration_half
from speech.data.recordings import Recordings
from speech.errors import CorpusError, EvidenceError
from speech.evaluation.metrics import as_probabilities, auroc
from speech.evaluation.scoring import RULE_OF_THREE, sigmoid
from speech.evaluation.stream_card import training_names
from speech.labels import commands
from speech.recognizer import Recognizer

SHOWN_FALSE_ACCEPT_RATE = 0.01
_LOGITS = np.arange(-1.5, 7.01, 0.1)
_OWN_RANGE = 1.5  # how far, in logits, a command's threshold may lie from the common one
_FEWEST_OWN = 30  # with fewer clips a command takes the common threshold


def command_scores(
    probabilities: npt.ArrayLike, labels: Sequence[str]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """For each clip the column of its most probable label, (n,), and how sure a command it is.

    The score, float64 (n,), is the probability of the most probable command.
    """
    p = as_probabilities(probabilities, len(labels))
    columns = [labels.index(label) for label in commands(labels)]
    return p.argmax(axis=1), p[:, columns].max(axis=1)


def accepted_commands(
    probabilities: npt.ArrayLike, labels: Sequence[str], acceptance: Mapping[str, float]
) -> npt.NDArray[np.bool_]:
    """Which clips are accepted as a command, bool (n,).

    The most probable label is a command, and its probability reaches its threshold in
    ``acceptance``; a command without one is always accepted.
    """
    p = as_probabilities(probabilities, len(labels))
    limits = np.array(
        [acceptance.get(label, 0.0) if label in commands(labels) else np.inf for label in labels]
    )
    called = p.argmax(axis=1)
    accepted: npt.NDArray[np.bool_] = p[np.arange(len(p)), called] >= limits[called]
    return accepted


def choose_acceptance(
    command_probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    other_probabilities: npt.ArrayLike,
    labels: Sequence[str],
    rate: float,
) -> dict[str, float]:
    """A threshold for each command, so that few clips of other words are accepted.

    Of all thresholds near a common one, each command takes the one that accepts most of its clips
    where a falsely accepted clip costs ``w`` of them; ``w`` is raised until no more than ``rate``
    of the other clips are accepted.

    Args:
        command_probabilities: (n, c), of clips of the commands.
        truth: (n,), index of each one's label.
        other_probabilities: (m, c), of clips of words that are no commands, which never trained.
        labels: Of the model.
        rate: Wanted share of the other clips that are accepted as a command, in (0, 1).

    Returns:
        By command, in (0, 1).

    Raises:
        EvidenceError: So few other clips cannot show this rate.
    """
    p, other = (
        as_probabilities(x, len(labels)) for x in (command_probabilities, other_probabilities)
    )
    y = np.asarray(truth)
    if not 0 < rate < 1 or rate < RULE_OF_THREE / len(other):
        raise EvidenceError(
            f"expected a share of false accepts from {RULE_OF_THREE / len(other):.3f}, which is "
            f"what {len(other)} clips of other words can show, to 1, got {rate:g}; add clips"
        )
    hits, false = _curves(p, y, other, labels)
    columns = np.arange(hits.shape[1])
    common = int(np.argmax(false.sum(axis=1) <= rate * len(other)))
    near = np.abs(_LOGITS - _LOGITS[common])[:, np.newaxis] <= _OWN_RANGE
    own = np.bincount(y, minlength=len(labels))[[labels.index(c) for c in commands(labels)]]
    chosen = np.full(len(columns), common)
    for weight in np.geomspace(0.01, 100, 81):
        utility = np.where(near, hits - weight * false, -np.inf)
        indices = len(_LOGITS) - 1 - utility[::-1].argmax(axis=0)  # of equal ones the strictest
        indices = np.where(own >= _FEWEST_OWN, indices, common)
        if false[indices, columns].sum() <= rate * len(other):
            if hits[indices, columns].sum() > hits[chosen, columns].sum():
                chosen = indices
            break
    return {c: sigmoid(_LOGITS[i]) for c, i in zip(commands(labels), chosen, strict=True)}


def tune_acceptance(
    recognizer: Recognizer, sources: Sequence[Recordings], rate: float
) -> dict[str, Any]:
    """Choose acceptance thresholds on clips that never trained, and say what they give there.

    Args:
        recognizer: The model.
        sources: The corpus, of which the speakers count who fit the temperature too; then further
            ones, of which only words that are no commands count: all of them, or, where a folder
            of this name trained the model, those of the speakers who do not train.
        rate: Wanted share of the clips of other words that are accepted as a command.

    Returns:
        JSON-able: ``thresholds`` by command; how many ``commands`` and ``other_words`` there were,
        and which share of them is accepted, ``command_accepted`` (and right), ``other_accepted``.

    Raises:
        CorpusError: No clips of commands.
        EvidenceError: As ``choose_acceptance``.
    """
    labels = recognizer.labels
    known: list[npt.NDArray[np.float32]] = []
    other: list[npt.NDArray[np.float32]] = []
    truth: list[int] = []
    for number, recordings in enumerate(sources):
        for word, index in _untrained(recognizer, recordings, first=number == 0).items():
            p = recognizer.probabilities(to_float(recordings.samples[index]))
            if word not in commands(labels):
                other.append(p)
            elif number == 0:
                known.append(p)
                truth += [labels.index(word)] * len(p)
    if not known or not other:
        raise CorpusError(
            f"{sources[0].corpus.root}: expected validation clips of commands and of other words, "
            "got none; take a larger corpus, or add words"
        )
    p, q, y = np.concatenate(known), np.concatenate(other), np.array(truth)
    thresholds = choose_acceptance(p, y, q, labels, rate)
    right = accepted_commands(p, labels, thresholds) & (p.argmax(axis=1) == y)
    return {
        "thresholds": thresholds,
        "commands": len(p),
        "other_words": len(q),
        "command_accepted": float(right.mean()),
        "command_right": float((p.argmax(axis=1) == y).mean()),
        "other_accepted": float(accepted_commands(q, labels, thresholds).mean()),
        "other_called": float(accepted_commands(q, labels, {}).mean()),
    }


def _untrained(
    recognizer: Recognizer, recordings: Recordings, *, first: bool
) -> dict[str, npt.NDArray[np.int64]]:
    """By word the clips that may tune: positions in the recordings."""
    clips = recordings.corpus.clips
    paths = [clip.path for clip in clips]
    if first:
        fits = calibration_half(paths)
        wanted = [clip.split == "validation" and fit for clip, fit in zip(clips, fits, strict=True)]
    elif recordings.corpus.root.resolve().name in training_names(recognizer.provenance):
        wanted = [clip.split != "train" for clip in clips]
    else:
        wanted = [True] * len(clips)
    by_word: dict[str, list[int]] = {}
    for index in np.flatnonzero(wanted):
        by_word.setdefault(clips[index].word, []).append(int(index))
    return {word: np.array(indices, np.int64) for word, indices in by_word.items()}


def _curves(
    p: npt.NDArray[np.float64],
    y: npt.NDArray[Any],
    other: npt.NDArray[np.float64],
    labels: Sequence[str],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Accepted clips, right and false, at each of ``_LOGITS`` for each command."""
    hits, false = [], []
    for label in commands(labels):
        column = labels.index(label)
        limits = np.array([sigmoid(x) for x in _LOGITS])[:, np.newaxis]
        right = p[(p.argmax(axis=1) == column) & (y == column), column]
        wrong = other[other.argmax(axis=1) == column, column]
        hits.append((right >= limits).sum(axis=1))
        false.append((wrong >= limits).sum(axis=1))
    return np.array(hits, np.float64).T, np.array(false, np.float64).T


def open_set_figures(
    command_probabilities: npt.ArrayLike, other_probabilities: npt.ArrayLike, labels: Sequence[str]
) -> dict[str, Any]:
    """How well clips of commands are told from clips of other words, whatever the threshold.

    Returns:
        ``auroc``, and ``false_reject_rate``: the share of the commands' clips that a common
        threshold rejects which accepts 1 % of the others.
    """
    _, known = command_scores(command_probabilities, labels)
    _, other = command_scores(other_probabilities, labels)
    threshold = float(np.quantile(other, 1 - SHOWN_FALSE_ACCEPT_RATE, method="higher"))
    return {
        "auroc": auroc(known, other),
        "false_accept_rate": SHOWN_FALSE_ACCEPT_RATE,
        "false_reject_rate": float(np.mean(known <= threshold)),
        "commands": len(known),
        "other_words": len(other),
    }
