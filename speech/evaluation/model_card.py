"""From a trained model to its page: figures, pictures and the model card, all of them computed."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from speech.data.corpus import Split
from speech.data.evaluation_set import ClipSet, calibration_half, evaluation_set
from speech.data.recordings import Recordings
from speech.errors import ModelError
from speech.evaluation import plots, stream_card
from speech.evaluation.metrics import (
    ClipMetrics,
    WrongClip,
    clip_metrics,
    expected_calibration_error,
    markdown_report,
    wilson_interval,
    wrong_clips,
)
from speech.evaluation.robustness import Condition, Room, conditions, rooms
from speech.files import write_json, write_text
from speech.formats import metadata
from speech.formats.backends import SUFFIXES
from speech.labels import LabelSet
from speech.recognizer import Recognizer

WEAK_BELOW = 0.95  # recall of a label that the card names as weak
CARD, HISTORY = "README.md", "history.json"
LIMITS = """## What it cannot do

- It knows one second of audio at a time and answers with one of its labels, always; `unknown`
  and `silence` are learned classes, and a word that sounds like a command may be taken for one.
- The voices are those of volunteers who recorded single English words in 2017 and 2018 at their
  own computers. Children, strong accents, far microphones and other languages are rare among them.
- The figures above are of speakers who took no part in training, but they chose the epoch; the
  official test speakers were not at hand. Expect somewhat less on them.
- It is no safety device: do not let it stop a machine that can hurt somebody.
"""
_DIGEST_LINE = r"^([0-9a-f]{64})  (model[^/\s]*)$"
_DIGESTS = """## Files

SHA-256 of the model's files when this page was written; `speech doctor --model .` in this folder
compares them, and so does `sha256sum -c README.md`.

```text
{lines}```
"""
LICENCE = """## Licence

The weights are MIT, as the code is. The recordings they were trained on are from Speech Commands
(Pete Warden, Google, 2018, arXiv 1804.03209), Creative Commons BY 4.0.
"""


def evaluate(
    recognizer: Recognizer,
    recordings: Recordings,
    out: Path,
    split: Split = "validation",
    *,
    robustness: bool = False,
    others: Sequence[Recognizer] = (),
) -> ClipMetrics:
    """Measure a model on the fixed list of clips of a split and write its page.

    Args:
        recognizer: The model.
        recordings: The decoded corpus.
        out: Receives ``metrics.json``, ``clips.csv`` (the list), PNGs and ``README.md``.
        split: Whose clips.
        robustness: Also measure the clips in worse conditions and rooms with nobody in them.
        others: Models of the same recipe and other seeds: the page says how far they lie apart.

    Returns:
        The figures, which are those in ``metrics.json``.

    Raises:
        ModelError: The model's labels do not come from a label set, or another model has other
            labels or a seed that was there before.
    """
    labels = _label_set(recognizer)
    clips = evaluation_set(recordings, labels, split)
    probabilities = recognizer.probabilities(clips.waveforms)
    metrics = clip_metrics(probabilities, clips.truth, recognizer.labels)
    seeds = {str(recognizer.provenance.get("seed")): metrics.accuracy}
    for other in others:
        seeds |= _another_seed(other, recognizer, seeds, clips)
    wrong = wrong_clips(probabilities, clips.truth, recognizer.labels, clips.names)
    reported = ~calibration_half(clips.names)
    ece = expected_calibration_error(probabilities[reported], clips.truth[reported])
    out.mkdir(parents=True, exist_ok=True)
    _write_clips(out / "clips.csv", clips, recognizer.labels)
    facts = _facts(recognizer, recordings, split, out / HISTORY) | {
        "Calibration error": f"{ece:.3f} on the half of the speakers that did not set the "
        "temperature",
    }
    if others:
        facts["Seeds"] = _spread(seeds)
    content = {
        "model": recognizer.name,
        "split": split,
        "corpus_sha256": recordings.digest,
        "clips": "clips.csv",
        "ece_other_half": ece,
        "accuracy_of_seeds": seeds,
        **metrics.to_dict(),
        "wrong": [vars(clip) for clip in wrong],
    }
    sections = [*_digests(out), LIMITS, LICENCE]
    weak = _weaknesses(metrics, wrong, clips.names)
    if robustness:
        worse = list(conditions(recognizer, recordings, clips))
        empty = list(rooms(recognizer))
        content["conditions"] = [vars(condition) for condition in worse]
        content["rooms"] = [vars(room) for room in empty]
        sections.insert(0, _robustness_section(worse, empty))
    if (out / stream_card.FILE).is_file():
        scored = json.loads((out / stream_card.FILE).read_text("utf-8"))
        sections.insert(0, stream_card.markdown(scored))
    sections.insert(0, weak)
    write_json(out / "metrics.json", content)
    pictures = _pictures(metrics, out)
    page = markdown_report(metrics, wrong, recognizer.name, facts, pictures)
    write_text(out / CARD, "\n".join([page, *sections]))
    return metrics


def changed_files(folder: Path) -> list[str] | None:
    """The model files of a folder that are not as its card says: others, missing or not on it.

    Args:
        folder: Of a model; ``evaluate`` has written its card.

    Returns:
        Their names, sorted; None where there is no card with digests.
    """
    card = folder / CARD
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    named = {name: digest for digest, name in re.findall(_DIGEST_LINE, text, re.MULTILINE)}
    if not named:
        return None
    found = {path.name: metadata.sha256(path) for path in _model_files(folder)}
    return sorted(name for name in named | found if named.get(name) != found.get(name))


def _model_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("model*") if path.suffix in SUFFIXES)


def _digests(folder: Path) -> list[str]:
    """A section of lines that ``sha256sum -c`` understands; none where no model lies there."""
    lines = [f"{metadata.sha256(path)}  {path.name}\n" for path in _model_files(folder)]
    return [_DIGESTS.format(lines="".join(lines))] if lines else []


def _another_seed(
    other: Recognizer, first: Recognizer, seeds: Mapping[str, float], clips: ClipSet
) -> dict[str, float]:
    seed = str(other.provenance.get("seed"))
    if other.labels != first.labels or seed in seeds:
        raise ModelError(
            f"{other.name}: expected the labels of {first.name} and another seed than "
            f"{', '.join(seeds)}, got {', '.join(other.labels)} with seed {seed}"
        )
    called = other.probabilities(clips.waveforms).argmax(axis=1)
    return {seed: float(np.mean(called == clips.truth))}


def _spread(seeds: Mapping[str, float]) -> str:
    points = 100 * (max(seeds.values()) - min(seeds.values()))
    each = ", ".join(f"{accuracy:.2%} with seed {seed}" for seed, accuracy in seeds.items())
    return f"{each}: {points:.2f} points apart"


def _weaknesses(metrics: ClipMetrics, wrong: Sequence[WrongClip], names: Sequence[str]) -> str:
    """What it gets wrong, in sentences: the labels, what they are taken for, the speakers."""
    lines = ["## Where it is weak", ""]
    for i in np.argsort(metrics.recall):
        label, n, row = metrics.labels[i], metrics.support[i], metrics.confusion[i]
        if not n or metrics.recall[i] >= WEAK_BELOW:
            continue
        low, high = wilson_interval(row[i], n)
        taken = sorted(((c, metrics.labels[j]) for j, c in enumerate(row) if c and j != i))[::-1]
        others = ", ".join(f"`{other}` ({count})" for count, other in taken)
        lines.append(
            f"- `{label}` is recognised in {row[i]} of {n} clips, {metrics.recall[i]:.1%} "
            f"({low:.1%} to {high:.1%}); the rest is taken for {others}."
        )
    if lines[-1] == "":
        lines.append(f"- Every label is recognised in at least {WEAK_BELOW:.0%} of its clips.")
    spoken = {_speaker(name) for name in names} - {None}
    mistakes = Counter(_speaker(clip.path) for clip in wrong)
    del mistakes[None]
    if mistakes:
        most = [count for _, count in mistakes.most_common(10)]
        lines.append(
            f"- It does not suit every voice: {len(most)} of {len(spoken)} speakers have "
            f"{sum(most)} of the {mistakes.total()} mistakes in words, and "
            f"{len(spoken) - len(mistakes)} have none."
        )
    return "\n".join(lines) + "\n"


def _speaker(name: str) -> str | None:
    """Who said a clip of the official naming; None for crops of noise and other names."""
    speaker, mark, _ = PurePosixPath(name).name.partition("_nohash_")
    return speaker if mark else None


def _robustness_section(worse: Sequence[Condition], empty: Sequence[Room]) -> str:
    weakest = min(worse, key=lambda condition: condition.accuracy)
    loudest = max(empty, key=lambda room: room.false_commands / room.n)
    lines = [
        "## In worse conditions",
        "",
        f"Weakest: {weakest.name}, with {weakest.accuracy:.1%}, and {loudest.name} at RMS "
        f"{loudest.rms:g}, of which {loudest.false_commands / loudest.n:.0%} is called a command.",
        "",
        "The same clips, changed; the noise is the part of the corpus's noise files that never "
        "trains.",
        "",
        "| Condition | Accuracy | 95 % interval | Worst label |",
        "| --- | ---: | --- | --- |",
    ]
    for c in worse:
        label, recall = min(c.recall.items(), key=lambda item: item[1])
        lines.append(
            f"| {c.name} | {c.accuracy:.2%} | {c.low:.2%} to {c.high:.2%} "
            f"| `{label}`, recall {recall:.1%} |"
        )
    lines += [
        "",
        "## Rooms with nobody in them",
        "",
        "Synthesised backgrounds, each through four microphone responses, called a command.",
        "",
        "| Background | RMS | Clips | Called a command | 95 % interval up to |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.name} | {r.rms:g} | {r.n} | {r.false_commands / r.n:.1%} | {r.high:.1%} |"
        for r in empty
    ]
    return "\n".join(lines) + "\n"


def _label_set(recognizer: Recognizer) -> LabelSet:
    name = str(recognizer.provenance.get("label_set", "own words"))
    labels = LabelSet.of_model(name, recognizer.labels)
    if labels.labels != recognizer.labels:
        raise ModelError(
            f"{recognizer.name}: expected words, then unknown and silence, as labels; "
            f"got {', '.join(recognizer.labels)}"
        )
    return labels


def _facts(
    recognizer: Recognizer, recordings: Recordings, split: Split, history: Path
) -> dict[str, str]:
    trained: Mapping[str, Any] = recognizer.provenance
    corpus = trained.get("corpus", {})
    versions = trained.get("versions", {})
    spoken = trained.get("speech")
    return {
        "Labels": ", ".join(recognizer.labels),
        "Trained on": f"the training speakers of {corpus.get('name')}, whose "
        f"{corpus.get('clips', 0):,} clips of all splits have SHA-256 `{corpus.get('sha256')}`",
        "Continuous speech for unknown": f"{', '.join(map(str, spoken['names']))}, "
        f"SHA-256 `{spoken['sha256']}`"
        if spoken
        else "none",
        "Measured on": f"the {split} speakers of the corpus with SHA-256 `{recordings.digest}`, "
        "the clips listed in `clips.csv`",
        "Seed": str(trained.get("seed")),
        "Parameters": f"{trained.get('parameters', 0):,}",
        "Training": _training_time(history),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Made by": f"`{trained.get('command')}`",
        "Code that trained it": f"SHA-256 `{trained['code']}`"
        if "code" in trained
        else "not recorded; the command makes a model of this recipe, not these very weights",
        "Measured by": "`speech evaluate`",
    }


def _training_time(path: Path) -> str:
    if not path.is_file():
        return "the history of the run is not here"
    history = json.loads(path.read_text("utf-8"))
    seconds = sum(row["seconds"] for row in history)
    waited = sum(row["waiting"] * row["seconds"] for row in history) / seconds
    best = max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    return (
        f"{len(history)} epochs in {seconds / 60:.0f} minutes on the CPU, {waited:.1%} of them "
        f"waiting for data; epoch {best['epoch']} was the best"
    )


def _pictures(metrics: ClipMetrics, out: Path) -> dict[str, str]:
    figures = {
        "Confusion matrix": ("confusion.png", plots.confusion_matrix(metrics)),
        "Reliability diagram": ("reliability.png", plots.reliability_diagram(metrics)),
    }
    history = out / HISTORY
    if history.is_file():
        curves = plots.learning_curves(json.loads(history.read_text("utf-8")))
        figures["Learning curves"] = ("learning_curves.png", curves)
    for file, figure in figures.values():
        plots.save(figure, out / file)
    return {caption: file for caption, (file, _) in figures.items()}


def _write_clips(path: Path, clips: ClipSet, labels: tuple[str, ...]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("clip", "label"))
    writer.writerows(zip(clips.names, (labels[i] for i in clips.truth), strict=True))
    write_text(path, text.getvalue())
