"""What a stream score leaves behind: JSON, a picture, a section for the model card, thresholds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speech.data.recordings import ContinuousSpeech, Recordings
from speech.detection import DecoderConfig
from speech.errors import ModelError
from speech.evaluation import plots
from speech.evaluation.scoring import RATES
from speech.evaluation.synthetic_streams import Plan, condition_name
from speech.evaluation.tuning import LONGEST_LATENCY, Choice
from speech.files import write_json
from speech.formats.backends import load_keras
from speech.recognizer import Recognizer

FILE, PICTURE = "stream.json", "stream_det.png"
_SECTION = """## As a live decoder

`{command}` built streams of validation speakers, who chose the epoch but no threshold, of noise
that never trains, and of continuous speech. {decoder}

| Condition | Commands hit | 95 % interval | Wrong word | False alarms an hour of speech | \
95 % interval | Unknown words taken for a command | Latency, median and 95 % |
| --- | ---: | --- | ---: | ---: | --- | ---: | ---: |
{rows}

{noise}Latency is counted from the end of the word, {longest} ms being wanted. Continuous speech:
{speech}.

![Misses against false alarms]({picture})

| Condition | {rates} |
| --- | {rules} |
{read}

Read from that curve, which moves all thresholds together: the best there is, not what was set.
"""


def trained_on(recognizer: Recognizer, folder: Path) -> bool:
    """Whether a folder of this name was among the continuous speech that trained the model."""
    spoken = recognizer.provenance.get("speech") or {}
    return folder.resolve().name in {Path(name).name for name in spoken.get("names", ())}


def content(
    recognizer: Recognizer,
    recordings: Recordings,
    speech: Sequence[ContinuousSpeech],
    plan: Plan,
    config: DecoderConfig,
    measured: Mapping[str, Any],
    choice: Choice | None,
    command: str,
) -> dict[str, Any]:
    """Everything that ``stream.json`` holds.

    Args:
        recognizer: The model.
        recordings: The corpus.
        speech: Each folder of continuous speech.
        plan: How the streams were built.
        config: The decoder that was measured.
        measured: By ``stream_score.measure`` on the measuring streams.
        choice: By ``stream_choice.choose`` on the choosing streams, if the decoder was chosen.
        command: The command line.
    """
    rate = recognizer.features.sample_rate
    return {
        "model": recognizer.name,
        "command": command,
        "seed": plan.seed,
        "conditions": [condition_name(snr) for snr in plan.snrs],
        "gap_seconds": list(plan.gap_seconds),
        "corpus_sha256": recordings.digest,
        "speech": [
            {
                "name": Path(one.names[0]).name,
                "sha256": one.digest,
                "seconds": len(one.samples) / rate,
                "trained_on": trained_on(recognizer, Path(one.names[0])),
            }
            for one in speech
        ],
        "decoder": config.to_dict(),
        "choosing": choice and choice.to_dict(),
        "measuring": dict(measured),
    }


def write(data: Mapping[str, Any], out: Path) -> None:
    """Write ``stream.json`` and ``stream_det.png`` into a folder."""
    write_json(out / FILE, data)
    curves = {
        f"{condition}, {of['det_alarms']}": of["det"]
        for condition, of in data["measuring"].items()
        if "det" in of
    }
    if curves:
        plots.save(plots.det_curves(curves), out / PICTURE)


def read(folder: Path) -> dict[str, Any] | None:
    """What ``write`` left in the folder of a model, if anything."""
    path = folder / FILE
    if not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def markdown(data: Mapping[str, Any]) -> str:
    """A section for the model card, from what ``content`` returned and JSON gave back."""
    conditions = [c for c in data["measuring"] if "commands" in data["measuring"][c]]
    noise = data["measuring"].get("alone", {}).get("noise")
    return _SECTION.format(
        command=data["command"],
        decoder=_decoder_sentence(data),
        rows="\n".join(_row(name, data["measuring"][name]) for name in conditions),
        noise=_noise_sentence(noise) if noise else "",
        longest=round(1000 * LONGEST_LATENCY),
        speech="; ".join(map(_speech_phrase, data["speech"])) or "none",
        picture=PICTURE,
        rates=" | ".join(f"Hit at {rate:g} an hour" for rate in RATES),
        rules=" | ".join("---:" for _ in RATES),
        read="\n".join(_read_row(name, data["measuring"][name]) for name in conditions),
    )


def _decoder_sentence(data: Mapping[str, Any]) -> str:
    decoder, choice = data["decoder"], data["choosing"]
    each = ", ".join(f"`{label}` {value:g}" for label, value in decoder["thresholds"].items())
    settings = (
        f"threshold {decoder['threshold']:g}{f' ({each})' if each else ''}, smoothing "
        f"{decoder['smoothing_seconds']:g} s, {decoder['min_consecutive_windows']} windows in a row"
    )
    if choice is None:
        return f"The decoder: {settings}."
    return (
        f"The decoder was chosen on other such streams for {choice['rate']:g} false alarms an hour "
        f"of continuous speech (on {choice['hours']:.2f} hours of it, which can show "
        f"{choice['smallest_rate']:.1f} at best; below that the tail of the counts is extended): "
        f"{settings}."
    )


def _row(name: str, of: Mapping[str, Any]) -> str:
    words, speech, unknown = of["commands"], of.get("speech"), of.get("unknown words")
    cells = [
        name,
        f"{words['hit_rate']:.1%} of {words['words']}",
        f"{words['hit_rate_low']:.1%} to {words['hit_rate_high']:.1%}",
        str(words["wrong_words"]),
        f"{speech['false_alarms_per_hour']:.1f}" if speech else "",
        _alarm_interval(speech) if speech else "",
        str(unknown["false_alarms"]) if unknown else "",
        f"{_milliseconds(words['latency_median'])}, {_milliseconds(words['latency_p95'])}",
    ]
    return f"| {' | '.join(cells)} |"


def _alarm_interval(of: Mapping[str, Any]) -> str:
    low, high = of["false_alarms_per_hour_low"], of["false_alarms_per_hour_high"]
    return f"{low:.1f} to {high:.1f} ({of['false_alarms']} in {of['seconds'] / 3600:.2f} h)"


def _noise_sentence(noise: Mapping[str, Any]) -> str:
    return (
        f"Noise alone, {noise['seconds'] / 60:.0f} minutes of it made from "
        f"{noise['distinct_seconds']:.0f} s at many levels: {noise['false_alarms_per_hour']:.1f} "
        f"false alarms an hour, 95 % interval {_alarm_interval(noise)}. "
    )


def _speech_phrase(one: Mapping[str, Any]) -> str:
    trained = ", **trained on**" if one["trained_on"] else ""
    return f"{one['name']}, half of {one['seconds'] / 60:.0f} minutes{trained}"


def _read_row(name: str, of: Mapping[str, Any]) -> str:
    points = [of.get("at_rate", {}).get(f"{rate:g}") for rate in RATES]
    hits = [f"{1 - point['miss_rate']:.1%}" if point else "" for point in points]
    return f"| {name} | {' | '.join(hits)} |"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"


def store(model: Path, config: DecoderConfig) -> list[Path]:
    """Write a decoder's settings into a model, and into what was exported from it.

    Args:
        model: The folder of a model, or its ``.keras`` file.
        config: The settings.

    Returns:
        The files written.

    Raises:
        ModelError: No ``.keras`` file there, or what writes it is not installed.
    """
    path = model / "model.keras" if model.is_dir() else model
    if path.suffix != ".keras" or not path.is_file():
        raise ModelError(
            f"{path}: expected the folder of a model or its .keras file, to write to, got "
            f"{'another file' if path.exists() else 'nothing there'}; leave out --store"
        )
    trained = load_keras(path)
    from speech.model import save_model

    trained.decoder = config.to_dict()
    save_model(trained, path)
    written = [path]
    if model.is_dir():
        from speech.formats.export import FORMATS, export

        for kind, form in FORMATS.items():
            if (model / form.file).is_file():
                written.append(export(model, kind).path)
    return written
