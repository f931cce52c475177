"""What tuning and scoring leave behind: JSON, the DET plot, a model-card section, thresholds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speech.data.recordings import ContinuousSpeech, Recordings
from speech.detection import DecoderConfig
from speech.errors import ModelError
from speech.evaluation import plots
from speech.evaluation.markdown import code, interval, table
from speech.evaluation.scoring import RATES
from speech.evaluation.synthetic_streams import ALONE, Plan, condition_name
from speech.evaluation.tuning import LONGEST_LATENCY, Tuning
from speech.files import write_json
from speech.formats.backends import load_keras
from speech.formats.folder import ModelFolder
from speech.recognizer import Recognizer

_COLUMNS = (
    *("Condition", "Commands found", "95 % interval", "Mean over the commands", "Substitutions"),
    *("False accepts per hour of speech", "95 % interval", "Unknown words taken for a command"),
    "Latency, median and 95 %",
)


def trained_on(recognizer: Recognizer, folder: Path) -> bool:
    """Whether a folder of this name was among the data that trained the model."""
    return folder.resolve().name in training_names(recognizer.provenance)


def training_names(provenance: Mapping[str, Any]) -> set[str]:
    """The names of all folders that trained a model, as its provenance tells them."""
    corpus, speech = provenance.get("corpus") or {}, provenance.get("speech") or {}
    names = {corpus.get("name"), *speech.get("names", ())}
    names |= {source.get("name") for source in provenance.get("sources") or ()}
    begun = provenance.get("start_from")  # what its first weights were made from counts too
    return {Path(str(name)).name for name in names if name} | (
        training_names(begun) if begun else set()
    )


def tuning_content(
    recognizer: Recognizer,
    speech: Sequence[ContinuousSpeech],
    plan: Plan,
    tuning: Tuning,
    command: str,
) -> dict[str, Any]:
    """Everything that ``tuning.json`` holds: the settings and what they rest on."""
    return {
        "model": recognizer.name,
        "command": command,
        "seed": plan.seed,
        "conditions": [condition_name(snr) for snr in plan.snrs],
        "speech": [_speech(recognizer, source) for source in speech],
        **tuning.to_dict(),
    }


def content(
    recognizer: Recognizer,
    recordings: Recordings,
    speech: Sequence[ContinuousSpeech],
    plan: Plan,
    config: DecoderConfig,
    measured: Mapping[str, Any],
    command: str,
) -> dict[str, Any]:
    """Everything that ``stream.json`` holds.

    Args:
        recognizer: The model.
        recordings: The corpus.
        speech: Each folder of continuous speech.
        plan: How the streams were built.
        config: The decoder that was measured.
        measured: ``evaluation`` by ``measure_streams``, ``fast_words`` by ``measure_fast_words``.
        command: The command line.
    """
    return {
        "model": recognizer.name,
        "command": command,
        "seed": plan.seed,
        "conditions": [condition_name(snr) for snr in plan.snrs],
        "gap_seconds": list(plan.gap_seconds),
        "corpus_sha256": recordings.digest,
        "speech": [_speech(recognizer, source) for source in speech],
        "decoder": config.to_dict(),
        **measured,
    }


def joined(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One ``stream.json`` of those that hold a part of the conditions each, in their order."""
    whole = dict(contents[0])
    for name in ("evaluation", "fast_words"):
        whole[name] = {key: row for part in contents for key, row in part.get(name, {}).items()}
    return whole


def _speech(recognizer: Recognizer, source: ContinuousSpeech) -> dict[str, Any]:
    return {
        "name": Path(source.names[0]).name,
        "sha256": source.digest,
        "seconds": len(source.samples) / recognizer.features.sample_rate,
        "trained_on": trained_on(recognizer, Path(source.names[0])),
    }


def write(data: Mapping[str, Any], out: Path) -> None:
    """Write ``stream.json`` and ``stream_det.png`` into a folder."""
    folder = ModelFolder(out)
    write_json(folder.stream_metrics, data)
    curves = {
        f"{condition}, {row['det_false_accepts_of']}": row["det"]
        for condition, row in data["evaluation"].items()
        if "det" in row
    }
    if curves:
        plots.save(plots.det_curves(curves), folder.stream_picture)


def read(path: Path) -> dict[str, Any] | None:
    """The figures of streams in a model's folder, or how it was tuned, if that is there."""
    if not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def markdown(data: Mapping[str, Any], tuning: Mapping[str, Any] | None = None) -> str:
    """A section for the model card, from what ``stream.json`` and ``tuning.json`` hold."""
    measured = data["evaluation"]
    conditions = [c for c in measured if "commands" in measured[c]]
    noise = measured.get(ALONE, {}).get("noise")
    sources = "; ".join(map(_speech_phrase, data["speech"])) or "none"
    wanted = (tuning or {}).get("latency", LONGEST_LATENCY)
    parts = [
        "## As a live decoder",
        f"`{data['command']}` built streams of validation speakers, who chose the epoch but no "
        "threshold, of noise that never trains, and of continuous speech. "
        + _decoder_sentence(data["decoder"], tuning),
        table(
            _COLUMNS,
            [_row(name, measured[name]) for name in conditions],
        ),
        (_noise_sentence(noise) if noise else "")
        + f"Latency is counted from the end of the word, {1000 * wanted:.0f} ms being "
        f"wanted. Continuous speech: {sources}.",
        *_by_source(measured),
        _by_command(measured, conditions),
        f"![Misses against false accepts]({ModelFolder(Path()).stream_picture})",
        *_at_rates(measured, conditions),
    ]
    if data.get("fast_words"):
        parts += fast_words_section(data["fast_words"])
    return "\n\n".join(part for part in parts if part) + "\n"


def _decoder_sentence(decoder: Mapping[str, Any], tuning: Mapping[str, Any] | None) -> str:
    each = ", ".join(f"`{label}` {value:g}" for label, value in decoder["thresholds"].items())
    settings = (
        f"threshold {decoder['threshold']:g}{f' ({each})' if each else ''}, smoothing "
        f"{decoder['smoothing_seconds']:g} s, {decoder['min_consecutive_windows']} windows in a row"
    )
    if tuning is None or tuning["config"] != decoder:
        return f"The decoder: {settings}."
    sources = "; ".join(map(_speech_phrase, tuning["speech"]))
    return (
        f"The decoder was chosen by `{tuning['command']}` on other speakers and other speech "
        f"({sources}) for at most {tuning['rate']:g} false accepts per hour; its "
        f"{tuning['hours']:.2f} hours can show {tuning['resolvable_rate']:.1f} at best: {settings}."
    )


def _row(name: str, kinds: Mapping[str, Any]) -> list[str]:
    words, speech, unknown = kinds["commands"], kinds.get("speech"), kinds.get("unknown words")
    return [
        name,
        f"{words['hit_rate']:.1%} of {words['words']}",
        interval(words["hit_rate_low"], words["hit_rate_high"]),
        f"{words['macro_hit_rate']:.1%}",
        str(words["substitutions"]),
        f"{speech['false_accepts_per_hour']:.1f}" if speech else "",
        _rate_interval(speech) if speech else "",
        str(unknown["false_accepts"]) if unknown else "",
        f"{_milliseconds(words['latency_median'])}, {_milliseconds(words['latency_p95'])}",
    ]


def _rate_interval(row: Mapping[str, Any]) -> str:
    low, high = row["false_accepts_per_hour_low"], row["false_accepts_per_hour_high"]
    return f"{low:.1f} to {high:.1f} ({row['false_accepts']} in {row['seconds'] / 3600:.2f} h)"


def _noise_sentence(noise: Mapping[str, Any]) -> str:
    return (
        f"Noise alone, {noise['seconds'] / 60:.0f} minutes of it made from "
        f"{noise['distinct_seconds']:.0f} s at many levels: {noise['false_accepts_per_hour']:.1f} "
        f"false accepts per hour, 95 % interval {_rate_interval(noise)}. "
    )


def _speech_phrase(source: Mapping[str, Any]) -> str:
    trained = ", **trained on**" if source["trained_on"] else ""
    return f"{source['name']}, {source['seconds'] / 60:.0f} minutes{trained}"


def _by_source(measured: Mapping[str, Any]) -> list[str]:
    rows = [
        (condition, name, f"{row['false_accepts_per_hour']:.1f}", _rate_interval(row))
        for condition, kinds in measured.items()
        for name, row in kinds.get("speech_by_source", {}).items()
    ]
    header = ("Condition", "Speech", "False accepts per hour", "95 % interval")
    return [table(header, rows, "llrr")] if rows else []


def _by_command(measured: Mapping[str, Any], conditions: Sequence[str]) -> str:
    """The share of each command that is found, the weakest first."""
    found = {c: measured[c]["commands"]["by_label"] for c in conditions}
    if not found:
        return ""
    shares = {
        label: [hits / said for said, hits in (found[c][label] for c in conditions)]
        for label in found[conditions[0]]
    }
    ranked = sorted(shares, key=lambda label: min(shares[label]))
    rows = [
        (code(label), found[conditions[0]][label][0], *(f"{share:.1%}" for share in shares[label]))
        for label in ranked
    ]
    return table(("Command", "Said", *(f"Found, {c}" for c in conditions)), rows)


def _at_rates(measured: Mapping[str, Any], conditions: Sequence[str]) -> list[str]:
    rows = [
        (name, *(_at_rate_cell(measured[name]["at_rate"][f"{rate:g}"]) for rate in RATES))
        for name in conditions
        if "at_rate" in measured[name]
    ]
    if not rows:
        return []
    header = ("Condition", *(f"Found at {rate:g} per hour" for rate in RATES))
    return [
        table(header, rows, "llll"),
        "Read from that curve, the mean over the commands, which moves all thresholds together: "
        "the best there is, not what was set. No rate is named that the hours of speech cannot "
        "show.",
    ]


def _at_rate_cell(point: Mapping[str, Any]) -> str:
    if not point["shown"]:
        return f"not shown: it takes {point['hours_needed']:.2g} h, here are {point['hours']:.2f}"
    low, high = point["false_accepts_per_hour_low"], point["false_accepts_per_hour_high"]
    return (
        f"{1 - point['miss_rate']:.1%}, at {point['false_accepts_per_hour']:.1f} "
        f"({low:.1f} to {high:.1f})"
    )


def fast_words_section(fast: Mapping[str, Any]) -> list[str]:
    """The table of words said one right after the other."""
    pauses = next(iter(fast.values())).keys()
    rows = [
        (kind, *(f"{row['hit_rate']:.0%}" for row in by_pause.values()))
        for kind, by_pause in fast.items()
    ]
    n = {kind: next(iter(by_pause.values()))["words"] for kind, by_pause in fast.items()}
    words = ", ".join(f"{count} words in {kind!r}" for kind, count in n.items())
    return [
        "### Words said fast",
        "The same word three times and four different words, cut to the word, with a pause between "
        f"them: the share that is found ({words}).",
        table(("Words", *pauses), rows),
    ]


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"


def store(model: Path, settings: Mapping[str, Any]) -> list[Path]:
    """Write settings into a model, and into what was exported from it.

    Args:
        model: The folder of a model, or its ``.keras`` file.
        settings: ``decoder``, ``acceptance`` or both, as the model's attributes of these names.

    Returns:
        The files written.

    Raises:
        ModelError: No ``.keras`` file there, or what writes it is not installed.
    """
    path = ModelFolder(model).keras if model.is_dir() else model
    if path.suffix != ".keras" or not path.is_file():
        raise ModelError(
            f"{path}: expected the folder of a model or its .keras file, to write to, got "
            f"{'another file' if path.exists() else 'no file there'}; store them nowhere",
            parameter="store",
        )
    trained = load_keras(path)
    from speech.model import save_model

    for name, value in settings.items():
        setattr(trained, name, value)
    save_model(trained, path)
    written = [path]
    if model.is_dir():
        from speech.formats.export import FORMATS, export

        for kind, form in FORMATS.items():
            if (model / form.file).is_file():
                written.append(export(model, kind).path)
    return written
