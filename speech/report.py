"""From a trained model to its page: figures, pictures and the model card, all of them computed."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speech import plots
from speech.corpus import ClipSet, LabelSet, Recordings, Split, calibration_half, evaluation_set
from speech.errors import ModelError
from speech.evaluation import (
    ClipMetrics,
    clip_metrics,
    expected_calibration_error,
    markdown_report,
    wrong_clips,
)
from speech.files import write_json, write_text
from speech.recognizer import Recognizer

LIMITS = """## What it cannot do

- It knows one second of audio at a time and answers with one of its labels, always; `unknown`
  and `silence` are learned classes, and a word that sounds like a command may be taken for one.
- The voices are those of volunteers who recorded single English words in 2017 and 2018 at their
  own computers. Children, strong accents, far microphones and other languages are rare among them.
- The figures above are of speakers who took no part in training, but they chose the epoch; the
  official test speakers were not at hand. Expect somewhat less on them.
- It is no safety device: do not let it stop a machine that can hurt somebody.
"""
LICENCE = """## Licence

The weights are MIT, as the code is. The recordings they were trained on are from Speech Commands
(Pete Warden, Google, 2018, arXiv 1804.03209), Creative Commons BY 4.0.
"""


def evaluate(
    recognizer: Recognizer, recordings: Recordings, out: Path, split: Split = "validation"
) -> ClipMetrics:
    """Measure a model on the fixed list of clips of a split and write its page.

    Args:
        recognizer: The model.
        recordings: The decoded corpus.
        out: Receives ``metrics.json``, ``clips.csv`` (the list), four PNGs and ``README.md``.
        split: Whose clips.

    Returns:
        The figures, which are those in ``metrics.json``.

    Raises:
        ModelError: The model's labels do not come from a label set.
    """
    labels = _label_set(recognizer)
    clips = evaluation_set(recordings, labels, split)
    probabilities = recognizer.probabilities(clips.waveforms)
    metrics = clip_metrics(probabilities, clips.truth, recognizer.labels)
    wrong = wrong_clips(probabilities, clips.truth, recognizer.labels, clips.names)
    reported = ~calibration_half(clips.names)
    ece = expected_calibration_error(probabilities[reported], clips.truth[reported])
    out.mkdir(parents=True, exist_ok=True)
    _write_clips(out / "clips.csv", clips, recognizer.labels)
    facts = _facts(recognizer, recordings, split) | {
        "Calibration error on the half of the speakers that did not set the temperature": f"{ece:.3f}"
    }
    content = {
        "model": recognizer.name,
        "split": split,
        "corpus_sha256": recordings.digest,
        "clips": "clips.csv",
        "ece_other_half": ece,
        **metrics.to_dict(),
        "wrong": [vars(clip) for clip in wrong],
    }
    write_json(out / "metrics.json", content)
    pictures = _pictures(metrics, out)
    page = markdown_report(metrics, wrong, recognizer.name, facts, pictures)
    write_text(out / "README.md", f"{page}\n{LIMITS}\n{LICENCE}")
    return metrics


def _label_set(recognizer: Recognizer) -> LabelSet:
    words = tuple(w for w in recognizer.labels if w not in ("unknown", "silence"))
    labels = LabelSet(
        str(recognizer.provenance.get("label_set", "own words")),
        words,
        "unknown" in recognizer.labels,
        "silence" in recognizer.labels,
    )
    if labels.labels != recognizer.labels:
        raise ModelError(
            f"{recognizer.name}: expected words, then unknown and silence, as labels; "
            f"got {', '.join(recognizer.labels)}"
        )
    return labels


def _facts(recognizer: Recognizer, recordings: Recordings, split: Split) -> dict[str, str]:
    trained: Mapping[str, Any] = recognizer.provenance
    corpus = trained.get("corpus", {})
    versions = trained.get("versions", {})
    return {
        "Labels": ", ".join(recognizer.labels),
        "Trained on": f"{corpus.get('name')}, {corpus.get('clips', 0):,} clips of all splits, "
        f"SHA-256 `{corpus.get('sha256')}`",
        "Measured on": f"the {split} speakers of the corpus with SHA-256 `{recordings.digest}`, "
        "the clips listed in `clips.csv`",
        "Seed": str(trained.get("seed")),
        "Parameters": f"{trained.get('parameters', 0):,}",
        "Training": f"{trained.get('epochs')} epochs in {trained.get('minutes', 0):.0f} minutes, "
        f"{trained.get('clips_per_second', 0):.0f} clips/s",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Made by": f"`{trained.get('command')}`",
        "Measured by": "`speech evaluate`",
    }


def _pictures(metrics: ClipMetrics, out: Path) -> dict[str, str]:
    figures = {
        "Confusion matrix": ("confusion.png", plots.confusion_matrix(metrics)),
        "Reliability diagram": ("reliability.png", plots.reliability_diagram(metrics)),
    }
    history = out / "history.json"
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
