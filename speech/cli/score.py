"""The command that scores the live decoder: score-stream."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speech.cli.console import console, progress, table
from speech.cli.options import DEFAULT_MODEL, AsJson

if TYPE_CHECKING:
    from speech.evaluation.synthetic_streams import Plan
    from speech.recognizer import Recognizer

app = typer.Typer()


@app.command("score-stream")
def score_stream(
    model: Annotated[Path, typer.Argument(help="Folder of a model, or its file.")] = DEFAULT_MODEL,
    data: Annotated[Path, typer.Option(help="Folder of the corpus.")] = Path(
        "datasets/speech_commands_v0.02"
    ),
    speech: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of speech without the commands, for false alarms; may be repeated.",
            show_default=False,
        ),
    ] = None,
    snr: Annotated[
        str, typer.Option(help="Conditions: clean, or dB of signal to noise, with commas.")
    ] = "clean,10",
    gap: Annotated[
        tuple[float, float], typer.Option(help="Shortest and longest pause between words, in s.")
    ] = (0.5, 1.5),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    max_false_alarms_per_hour: Annotated[
        float | None,
        typer.Option(
            help="Choose thresholds for this rate, on other streams.", show_default=False, min=0.001
        ),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Write the chosen thresholds into the model.")
    ] = False,
    recording: Annotated[
        Path | None, typer.Option(help="Score a long recording instead.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="What it says: CSV (start,end,label) or Audacity's.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for JSON and picture.", show_default="the model's folder"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            envvar="SPEECH_CACHE", show_default="the user's cache folder", help="For decoded clips."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the live decoder: hits, false alarms an hour, latency; choose its thresholds."""
    from speech.detection import DecoderConfig
    from speech.evaluation import stream_card
    from speech.evaluation.synthetic_streams import Plan
    from speech.recognizer import load

    _refuse(
        (recording is None) != (labels is None),
        "expected --recording and --labels together, got one of them",
    )
    _refuse(
        recording is not None and max_false_alarms_per_hour is not None,
        "expected no --recording where thresholds are chosen, got both",
    )
    _refuse(
        store and max_false_alarms_per_hour is None,
        "expected --max-false-alarms-per-hour beside --store, got --store alone",
    )
    _refuse(
        max_false_alarms_per_hour is not None and not speech,
        "expected --speech to choose thresholds on, got none",
    )
    try:
        plan = Plan(_conditions(snr), gap, seed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    recognizer = load(model)
    command = shlex.join(["speech", *sys.argv[1:]])
    if recording is not None and labels is not None:
        content = _of_recording(recognizer, recording, labels, command)
    else:
        content = _of_corpus(
            recognizer, data, speech or [], plan, max_false_alarms_per_hour, cache, command
        )
        out = out or (model if model.is_dir() else model.parent)
    if out is not None:
        stream_card.write(content, out)
    if store:
        for path in stream_card.store(model, DecoderConfig.from_dict(content["decoder"])):
            typer.echo(f"speech: the settings are stored in {path}", err=True)
    if as_json:
        typer.echo(json.dumps(content))
        return
    _print(content["measuring"])
    if out is not None:
        typer.echo(f"Written: {out / stream_card.FILE}, {out / stream_card.PICTURE}")


def _refuse(when: bool, why: str) -> None:
    if when:
        raise typer.BadParameter(why)


def _conditions(text: str) -> tuple[float | None, ...]:
    try:
        return tuple(None if part.strip() == "clean" else float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"expected clean, or numbers of dB, got {text!r}") from error


def _of_recording(
    recognizer: "Recognizer", recording: Path, labels: Path, command: str
) -> dict[str, Any]:
    from speech.data.annotations import read_labels
    from speech.evaluation import scoring
    from speech.stream import chosen_for

    config = chosen_for(recognizer)
    words = read_labels(labels)
    heard = scoring.hear_recording(recognizer, recording, words, config.step_seconds)
    return {
        "model": recognizer.name,
        "command": command,
        "decoder": config.to_dict(),
        "measuring": scoring.measure(recognizer, [heard], config),
    }


def _of_corpus(
    recognizer: "Recognizer",
    data: Path,
    folders: Sequence[Path],
    plan: "Plan",
    rate: float | None,
    cache: Path | None,
    command: str,
) -> dict[str, Any]:
    from speech.data.corpus import index_corpus
    from speech.data.recordings import decode, read_speech
    from speech.evaluation import scoring, stream_card, tuning
    from speech.evaluation.synthetic_streams import Part, streams
    from speech.stream import chosen_for

    for folder in folders:
        if stream_card.trained_on(recognizer, folder):
            _warn(
                f"{folder}: the model was trained on a folder of this name; false alarms there "
                "say nothing about other speech"
            )
    corpus = index_corpus(data)
    with progress("Decoding") as tell:
        recordings = decode(corpus, recognizer.features, cache, tell)
    spoken = [read_speech([folder], recognizer.features) for folder in folders]
    config = chosen_for(recognizer)

    def heard(part: Part) -> list[scoring.Heard]:
        rate = recognizer.features.sample_rate
        made = streams(recordings, spoken, recognizer.labels, rate, plan, part)
        with progress(f"Hearing the {part} streams") as tell:
            return scoring.hear(recognizer, made, config.step_seconds, tell)

    choice = None
    if rate is not None:
        streams_to_choose_on = heard("choosing")
        with progress("Choosing") as tell:
            choice = tuning.choose(recognizer, streams_to_choose_on, rate, config, tell)
        config = choice.config
        if rate < choice.smallest_rate:
            _warn(
                f"{choice.hours:.2f} hours of continuous speech to choose on can show "
                f"{choice.smallest_rate:.1f} false alarms an hour at best, not {rate:g}: the tail "
                "of the counts was extended; give more --speech to be sure"
            )
    measured = scoring.measure(recognizer, heard("measuring"), config)
    return stream_card.content(
        recognizer, recordings, spoken, plan, config, measured, choice, command
    )


def _warn(message: str) -> None:
    typer.echo(f"speech: {message}", err=True)


def _print(measuring: Mapping[str, Any]) -> None:
    rows = table(
        *("Condition", "Stream", "Minutes", "Hit", "Wrong", "False alarms", "An hour"),
        *("95 % interval", "Latency", "95 %"),
    )
    for condition, of in measuring.items():
        for kind, found in of.items():
            if not isinstance(found, dict) or "hits" not in found:
                continue
            low, high = (found[f"false_alarms_per_hour_{end}"] for end in ("low", "high"))
            latency = [found[f"latency_{name}"] for name in ("median", "p95")]
            rows.add_row(
                condition,
                kind,
                f"{found['seconds'] / 60:.1f}",
                f"{found['hit_rate']:.1%} of {found['words']}" if found["words"] else "",
                str(found["wrong_words"]) if found["words"] else "",
                str(found["false_alarms"]),
                f"{found['false_alarms_per_hour']:.1f}",
                f"{low:.1f} to {high:.1f}",
                *("" if late is None else f"{1000 * late:.0f} ms" for late in latency),
            )
    console().print(rows)
