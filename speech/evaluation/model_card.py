"""The page of a model: measured, drawn and written. Nothing on it is typed in by hand."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from speech.data.corpus import SplitOrAll, speaker_of
from speech.data.evaluation_set import ClipSet
from speech.data.recordings import Recordings
from speech.evaluation import plots, stream_card, unseen_card
from speech.evaluation.markdown import code, interval, table
from speech.evaluation.measure import Evaluation, measure
from speech.evaluation.metrics import ClipMetrics, calibration_is_thin, wilson_interval
from speech.evaluation.training_data import device_phrase, license_section, voices_sentences
from speech.files import sha256, write_json, write_text
from speech.formats.folder import ModelFolder
from speech.recognizer import Recognizer

WEAK_BELOW = 0.95  # recall of a label that the card names as weak
FEW_CLIPS = 30  # of a label, below which a share says little
MOST_MISTAKES = 20
_DIGEST_LINE = r"^([0-9a-f]{64})  (model[^/\s]*)$"
_DIGESTS = """## Files

SHA-256 of the model's files when this page was written; `speech doctor --model .` in this folder
compares them, and so does `sha256sum -c README.md`.

```text
{lines}```
"""


def evaluate(
    recognizer: Recognizer,
    recordings: Recordings,
    out: Path,
    split: SplitOrAll = "validation",
    *,
    robustness: bool = False,
    others: Sequence[Recognizer] = (),
    unseen: Sequence[Path] = (),
) -> ClipMetrics:
    """Measure a model, draw its pictures and write its page, as ``measure`` and ``write`` do.

    Args:
        recognizer: The model.
        recordings: The decoded corpus.
        out: Receives the files of ``write``.
        split: As for ``measure``, as are the rest.
        robustness: Also in worse conditions.
        others: Models of other seeds.
        unseen: Folders of unseen sources.

    Returns:
        The figures on the clips of the split, which are those in ``metrics.json``.

    Raises:
        CorpusError: As ``measure``.
        ModelError: As ``measure``.
    """
    evaluation = measure(
        recognizer, recordings, split, robustness=robustness, others=others, unseen=unseen
    )
    write(evaluation, out)
    return evaluation.metrics


def write(evaluation: Evaluation, out: Path) -> None:
    """Write ``metrics.json``, ``clips.csv`` (the list), PNGs and ``README.md`` (the card)."""
    out.mkdir(parents=True, exist_ok=True)
    _write_clips(ModelFolder(out).clips, evaluation.clips, evaluation.recognizer.labels)
    history = _history(out)
    pictures = draw(evaluation, history)
    for file, figure in pictures.values():
        plots.save(figure, out / file)
    write_json(ModelFolder(out).metrics, evaluation.to_dict())
    captions = {caption: file for caption, (file, _) in pictures.items()}
    sections = [*card(evaluation, history, captions)]
    scored = stream_card.read(ModelFolder(out).stream_metrics)
    if scored:
        tuned = stream_card.read(ModelFolder(out).tuning)
        sections.append(stream_card.markdown(scored, tuned))
    if evaluation.conditions:
        sections.append(_robustness_section(evaluation))
    sections += [*_digests(out), limits_section(evaluation)]
    sections.append(license_section(evaluation.recognizer.provenance))
    write_text(ModelFolder(out).card, "\n".join(sections))


def draw(
    evaluation: Evaluation, history: Sequence[Mapping[str, float]] = ()
) -> dict[str, tuple[str, Any]]:
    """The pictures of a card: for each caption the name of its file and the Figure."""
    metrics = evaluation.metrics
    figures = {
        "Confusion matrix": ("confusion.png", plots.confusion_matrix(metrics)),
        "Reliability diagram": ("reliability.png", plots.reliability_diagram(metrics)),
    }
    if history:
        figures["Learning curves"] = ("learning_curves.png", plots.learning_curves(history))
    return figures


def card(
    evaluation: Evaluation, history: Sequence[Mapping[str, float]], pictures: Mapping[str, str]
) -> Iterator[str]:
    """The sections of the card that tell of the clips, in their order.

    Args:
        evaluation: What was measured.
        history: Of the training, if it is at hand.
        pictures: For each caption the path of its file from the card.
    """
    metrics = evaluation.metrics
    yield f"# {evaluation.recognizer.name}\n"
    for warning in warnings(evaluation):
        yield f"> [!CAUTION]\n> {warning}\n"
    if evaluation.unseen:
        yield unseen_card.section(evaluation.unseen)
    yield (
        f"## On {evaluation.split} speakers\n\n"
        f"**Accuracy {metrics.accuracy:.2%}** on {metrics.n:,} clips "
        f"(95% interval {interval(metrics.accuracy_low, metrics.accuracy_high, '.2%')}). "
        f"Macro F1 {metrics.macro_f1:.3f}, negative log likelihood {metrics.nll:.3f}, "
        f"expected calibration error {metrics.ece:.3f}.\n"
    )
    yield table(("Fact", "Value"), _facts(evaluation, history).items(), "ll") + "\n"
    yield "\n\n".join(f"![{caption}]({quote(path)})" for caption, path in pictures.items()) + "\n"
    yield "## Labels\n\n" + _label_table(metrics) + "\n"
    yield _mistakes_section(evaluation)
    yield _weaknesses(evaluation)


def warnings(evaluation: Evaluation) -> Iterator[str]:
    """Sentences on what the figures do not show, the gravest first."""
    metrics = evaluation.metrics
    by_label = zip(metrics.labels, metrics.support, strict=True)
    if few := {label: n for label, n in by_label if n < FEW_CLIPS}:
        counts = ", ".join(f"{n} of {code(label)}" for label, n in few.items())
        fewest = max(1, min(few.values()))
        yield (
            f"There are few clips to measure on: {counts}. Even {fewest} right out of {fewest} "
            f"only shows that at least {wilson_interval(fewest, fewest)[0]:.0%} are. Record more, "
            "of more people."
        )
    n, mistakes = evaluation.calibration
    if calibration_is_thin(n, mistakes):
        yield (
            f"The confidence is not calibrated: {n} held-out clips with {mistakes} mistakes are "
            "too few to show how far it can be trusted."
        )
    speakers = {name for name in map(speaker_of, evaluation.clips.names) if name}
    if evaluation.split == "train" or getattr(evaluation.clips, "split_by_clip", False):
        yield (
            "The clips measured on are of speakers who also trained the model: it may do worse for "
            "everybody else."
        )
    elif len(speakers) < 3:
        yield (
            f"The clips measured on are of {len(speakers) or 'no'} known speakers: that says "
            "little about other people."
        )
    if evaluation.left_out:
        yield (
            f"{len(evaluation.left_out)} files were left out because they could not be decoded, "
            f"for example {code(evaluation.left_out[0])}."
        )


def changed_files(folder: Path) -> list[str] | None:
    """The model files of a folder that are not as its card says: others, missing or not on it.

    Args:
        folder: Of a model; ``evaluate`` has written its card.

    Returns:
        Their names, sorted; None where there is no card with digests.
    """
    page = ModelFolder(folder).card
    text = page.read_text("utf-8", "replace") if page.is_file() else ""
    named = {name: digest for digest, name in re.findall(_DIGEST_LINE, text, re.MULTILINE)}
    if not named:
        return None
    found = {path.name: sha256(path) for path in ModelFolder(folder).model_files}
    return sorted(name for name in named | found if named.get(name) != found.get(name))


def _digests(folder: Path) -> list[str]:
    """A section of lines that ``sha256sum -c`` understands; none where no model lies there."""
    lines = [f"{sha256(path)}  {path.name}\n" for path in ModelFolder(folder).model_files]
    return [_DIGESTS.format(lines="".join(lines))] if lines else []


# --- what the page says --------------------------------------------------------------------------


def _facts(evaluation: Evaluation, history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    trained = evaluation.recognizer.provenance
    versions = trained.get("versions", {})
    ece = evaluation.ece_other_half
    half = "on the half of the speakers that did not set the temperature"
    if "streams" in trained:  # a student's confidence is that of its teacher
        half = "on half of the speakers; no temperature was fitted"
    facts = {
        "Labels": ", ".join(evaluation.recognizer.labels),
        "Trained on": _trained_on(trained),
        "Measured on": f"the {evaluation.split} speakers of the corpus with SHA-256 "
        f"`{evaluation.corpus_sha256}`, the clips listed in `clips.csv`",
        "Seed": str(trained.get("seed")),
        "Parameters": f"{trained.get('parameters', 0):,}",
        "Training": _training_time(history, device_phrase(trained), trained.get("kept_epoch")),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        **_beginning(trained.get("start_from")),
        "Made by": f"`{trained.get('command')}`",
        "Code that trained it": f"SHA-256 `{trained['code']}`"
        if "code" in trained
        else "not recorded; the command makes a model of this recipe, not these very weights",
        "Measured by": "`speech evaluate`",
        "Calibration error": "no other speakers to measure it on"
        if ece is None
        else f"{ece:.3f} {half}",
    }
    if len(evaluation.accuracy_of_seeds) > 1:
        facts["Seeds"] = _spread(evaluation.accuracy_of_seeds)
    return facts


def _beginning(other: Mapping[str, Any] | None) -> dict[str, str]:
    """Whose weights the training began with, if they were not drawn."""
    if not other:
        return {}
    text = f"the weights of a model made by `{other.get('command')}`{device_phrase(other)}"
    return {"Began with": f"{text}, trained on {_trained_on(other)}"}


def _trained_on(provenance: Mapping[str, Any]) -> str:
    """The data of the training: each source, or the corpus and the speech of older models."""
    if sources := provenance.get("sources"):
        return "; ".join(
            f"{source['name']} ({source['role']}, "
            + (f"{source['clips']:,} clips, " if "clips" in source else "")
            + f"SHA-256 `{source['sha256'][:12]}`)"
            for source in sources
        )
    corpus = provenance.get("corpus") or {}
    if not corpus:
        return "not recorded"
    text = (
        f"the training speakers of {corpus.get('name')}, whose {corpus.get('clips', 0):,} clips of "
        f"all splits have SHA-256 `{corpus.get('sha256')}`"
    )
    if spoken := provenance.get("speech"):
        names = ", ".join(map(str, spoken["names"]))
        text += f"; continuous speech for unknown: {names}, SHA-256 `{spoken['sha256']}`"
    return text


def _history(folder: Path) -> list[dict[str, float]]:
    path = ModelFolder(folder).history
    rows: list[dict[str, float]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return rows


def _training_time(
    history: Sequence[Mapping[str, float]], device: str, kept: int | None = None
) -> str:
    if not history:
        return f"the history of the run is not here; it ran{device}" if device else "not recorded"
    seconds = sum(row["seconds"] for row in history)
    waited = sum(row["waiting"] * row["seconds"] for row in history) / seconds
    best = max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    return (
        f"{len(history)} epochs in {seconds / 60:.0f} minutes{device}, {waited:.1%} of them "
        "waiting for data; "
        + (f"epoch {kept} was kept" if kept else f"epoch {best['epoch']} was the best")
    )


def _spread(seeds: Mapping[str, float]) -> str:
    points = 100 * (max(seeds.values()) - min(seeds.values()))
    each = ", ".join(f"{accuracy:.2%} with seed {seed}" for seed, accuracy in seeds.items())
    return f"{each}: {points:.2f} points apart"


def _label_table(metrics: ClipMetrics) -> str:
    shares = zip(metrics.precision, metrics.recall, metrics.f1, strict=True)
    rows = (
        (code(label), n, *(f"{share:.3f}" if n else "" for share in row))
        for label, n, row in zip(metrics.labels, metrics.support, shares, strict=True)
    )
    return table(("Label", "Clips", "Precision", "Recall", "F1"), rows)


def _mistakes_section(evaluation: Evaluation) -> str:
    wrong = evaluation.wrong
    if not wrong:
        return "## Most confident mistakes\n\nNone.\n"
    rows = (
        (code(w.path), code(w.truth), code(w.predicted), f"{w.confidence:.3f}")
        for w in wrong[:MOST_MISTAKES]
    )
    listed = table(("Clip", "Truth", "Predicted", "Confidence"), rows, "lllr")
    count = f"{min(MOST_MISTAKES, len(wrong))} of {len(wrong)}."
    return f"## Most confident mistakes\n\n{count}\n\n{listed}\n"


def _weaknesses(evaluation: Evaluation) -> str:
    """What it gets wrong, in sentences: the labels, what they are taken for, the speakers."""
    metrics = evaluation.metrics
    lines = ["## Error analysis", ""]
    for i in np.argsort(metrics.recall):
        label, n, row = metrics.labels[i], metrics.support[i], metrics.confusion[i]
        if not n or metrics.recall[i] >= WEAK_BELOW:
            continue
        low, high = wilson_interval(row[i], n)
        taken = sorted(((c, metrics.labels[j]) for j, c in enumerate(row) if c and j != i))[::-1]
        others = ", ".join(f"`{other}` ({count})" for count, other in taken)
        lines.append(
            f"- `{label}` is recognized in {row[i]} of {n} clips, {metrics.recall[i]:.1%} "
            f"({interval(low, high)}); the rest is taken for {others}."
        )
    if lines[-1] == "":
        lines.append(f"- Every label is recognized in at least {WEAK_BELOW:.0%} of its clips.")
    spoken = {speaker_of(name) for name in evaluation.clips.names} - {None}
    mistakes = Counter(speaker_of(clip.path) for clip in evaluation.wrong)
    del mistakes[None]
    if mistakes:
        most = [count for _, count in mistakes.most_common(10)]
        lines.append(
            f"- It does not suit every voice: {len(most)} of {len(spoken)} speakers have "
            f"{sum(most)} of the {mistakes.total()} mistakes in words, and "
            f"{len(spoken) - len(mistakes)} have none."
        )
    return "\n".join(lines) + "\n"


def _robustness_section(evaluation: Evaluation) -> str:
    worse, noise = evaluation.conditions, evaluation.noise
    weakest = min(worse, key=lambda c: c.accuracy)
    loudest = max(noise, key=lambda c: c.false_accepts / c.n)
    support = dict(zip(evaluation.metrics.labels, evaluation.metrics.support, strict=True))
    rows = []
    for c in worse:
        label, recall = min((r, label) for label, r in c.recall.items() if support[label])[::-1]
        share = f"{c.accuracy:.2%}", interval(c.low, c.high, ".2%")
        rows.append((c.name, *share, f"`{label}`, recall {recall:.1%}"))
    silent = [
        (c.name, f"{c.rms:g}", c.n, f"{c.false_accepts / c.n:.1%}", f"{c.high:.1%}") for c in noise
    ]
    return (
        "\n\n".join(
            (
                "## In worse conditions",
                f"Weakest: {weakest.name}, with {weakest.accuracy:.1%}, and {loudest.name} at RMS "
                f"{loudest.rms:g}, of which {loudest.false_accepts / loudest.n:.0%} is falsely "
                "accepted as a command.",
                "The same clips, changed; the noise is the part of the corpus's noise files that "
                "never trains.",
                table(("Condition", "Accuracy", "95 % interval", "Worst label"), rows, "lrll"),
                "## Background noise only",
                "Synthetic backgrounds without speech, each through four microphone responses: the "
                "share that is falsely accepted as a command.",
                table(
                    ("Background", "RMS", "Clips", "False accepts", "95 % interval up to"), silent
                ),
            )
        )
        + "\n"
    )


def limits_section(evaluation: Evaluation) -> str:
    """What the model cannot do, as far as its own data and this measurement tell."""
    recognizer = evaluation.recognizer
    lines = [
        f"- It knows {recognizer.features.clip_seconds:g} s of audio at a time and answers with "
        "one of its labels, always; `unknown` and `silence` are learned classes, and a word that "
        "sounds like a command may be taken for one.",
        *(f"- {sentence}" for sentence in voices_sentences(recognizer.provenance)),
    ]
    if "unknown" in recognizer.provenance:
        lines.append(
            f"- What it calls `unknown` was learned from {recognizer.provenance['unknown']} alone: "
            "no other word and no speech was there to train on. Expect other words to be taken for "
            "commands."
        )
    if evaluation.split == "validation":
        lines.append(
            "- The validation speakers took no part in training, but they chose the epoch, and no "
            "test speakers were measured here. Expect somewhat less on others."
        )
    if not evaluation.unseen:
        lines.append(
            "- It was not measured on any other source of recordings (`speech evaluate --unseen`): "
            "other people, rooms and microphones may be harder than the figures above say."
        )
    lines.append("- It is no safety device: do not let it stop a machine that can hurt somebody.")
    return "\n".join(("## What it cannot do", "", *lines)) + "\n"


def _write_clips(path: Path, clips: ClipSet, labels: tuple[str, ...]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("clip", "label"))
    writer.writerows(zip(clips.names, (labels[i] for i in clips.truth), strict=True))
    write_text(path, text.getvalue())
