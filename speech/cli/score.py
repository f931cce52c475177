"""The commands that measure the live decoder and choose its thresholds."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speech.cli import options
from speech.cli.console import console, progress, table, warn
from speech.cli.evaluate import end, result_folders
from speech.cli.options import DEFAULT_DATA, DEFAULT_MODEL, DecodingOptions, examples, grouped
from speech.environment import command_line
from speech.errors import SpeechError
from speech.formats.folder import ModelFolder

if TYPE_CHECKING:
    from speech.data.recordings import ContinuousSpeech, Recordings
    from speech.evaluation.scoring import StreamPosteriors
    from speech.evaluation.synthetic_streams import Part, Plan
    from speech.evaluation.tuning import Tuning
    from speech.recognizer import Recognizer

app = typer.Typer()
_FAST = "fast words"


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    """How the streams are built."""

    snr: Annotated[
        str, typer.Option(help="Conditions: clean, or signal-to-noise ratios in dB, with commas.")
    ] = "clean,10"
    seed: Annotated[int, typer.Option(min=0, help="Decides order, pauses and noise.")] = 0


@app.command(
    epilog=examples(
        "speech score --data my_words --negative-speech radio",
        "speech score saved_models/* --data /shared/words --ray auto",
    )
)
@grouped
def score(
    decoding: DecodingOptions,
    streams: StreamOptions,
    models: options.Models = [DEFAULT_MODEL],  # noqa: B006  # typer copies it
    data: options.Data = DEFAULT_DATA,
    speech: options.NegativeSpeech = None,
    out: options.Out = None,
    ray: options.Ray = "",
    as_json: options.AsJson = False,
) -> None:
    """Measure the live decoder: words found, fast words, false accepts per hour, latency."""
    from speech.cluster.each import each
    from speech.evaluation import stream_card
    from speech.recognizer import load

    targets = result_folders(models, out)
    for model in models:
        tuned = stream_card.read(ModelFolder.around(model).tuning)
        with contextlib.suppress(SpeechError):  # one that cannot be read is named in its turn
            _warn_of_speech(load(model), speech or [], tuned)
    measurement = StreamMeasurement(
        decoding, data, tuple(speech or ()), _plan(streams.snr, streams.seed), command_line()
    )
    names = measurement.parts()
    parts: dict[Path, dict[str, Any]] = {model: {} for model in models}
    failed: dict[Path, SpeechError] = {}
    tasks = [(model, name) for model in models for name in names]
    for (model, name), answer in each(measurement, tasks, ray):
        if isinstance(answer, SpeechError):
            failed.setdefault(model, answer)
            continue
        parts[model][name] = answer
        if len(parts[model]) < len(names):
            continue
        content = stream_card.joined([parts[model][name] for name in names])
        stream_card.write(content, targets[model])
        if as_json:
            typer.echo(json.dumps(content))
            continue
        _print(content["evaluation"])
        _print_fast(content["fast_words"])
        written = ModelFolder(targets[model])
        typer.echo(f"Written: {written.stream_metrics}, {written.stream_picture}")
    end(failed, len(models))


@dataclasses.dataclass(frozen=True)
class StreamMeasurement:
    """Measures a part of what ``speech score`` says of a model. It travels to the workers.

    Attributes:
        decoding: How the corpus is decoded.
        data: The corpus.
        speech: Folders of continuous speech.
        plan: How the streams are built.
        command: The command line that asked.
    """

    decoding: DecodingOptions
    data: Path
    speech: tuple[Path, ...]
    plan: "Plan"
    command: str

    def parts(self) -> tuple[str, ...]:
        """Their names: each condition, noise alone, and words said fast."""
        from speech.evaluation.synthetic_streams import ALONE, condition_name

        return (*map(condition_name, self.plan.snrs), ALONE, _FAST)

    def __call__(self, task: tuple[Path, str]) -> dict[str, Any]:
        """The content of ``stream.json`` that this part of a model gives."""
        from speech.evaluation import scoring, stream_card
        from speech.evaluation.fast_words import fast_word_streams
        from speech.stream import chosen_for

        model, name = task
        recognizer, recordings, spoken = _opened(self, model)
        config = chosen_for(recognizer)
        rate = recognizer.features.sample_rate
        measured: dict[str, Any] = {"evaluation": {}, "fast_words": {}}
        if name == _FAST:
            fast = fast_word_streams(
                recordings, recognizer.labels, rate, "evaluation", self.plan.seed
            )
            with progress("Scoring fast words") as on_progress:
                posteriors = scoring.compute_posteriors(
                    recognizer, fast, config.step_seconds, on_progress
                )
            measured["fast_words"] = scoring.measure_fast_words(recognizer, posteriors, config)
        else:
            streams = _posteriors(recognizer, recordings, spoken, self.plan, "evaluation", (name,))
            measured["evaluation"] = scoring.measure_streams(recognizer, streams, config)
        return stream_card.content(
            recognizer, recordings, spoken, self.plan, config, measured, self.command
        )


@functools.lru_cache(maxsize=1)  # the parts of a model come one after the other
def _opened(
    part: StreamMeasurement, model: Path
) -> "tuple[Recognizer, Recordings, list[ContinuousSpeech]]":
    from speech.recognizer import load

    recognizer = load(model)
    return recognizer, *_read(recognizer, part.data, part.speech, part.decoding)


@app.command(epilog=examples("speech score-recording meeting.flac labels.csv"))
def score_recording(
    recording: Annotated[Path, typer.Argument(help="A recording of any length.")],
    labels: Annotated[
        Path, typer.Argument(help="What is said in it: CSV (start,end,label) or Audacity's.")
    ],
    model: options.ModelOption = DEFAULT_MODEL,
    as_json: options.AsJson = False,
) -> None:
    """Measure the live decoder on a long recording whose words are known."""
    from speech.data.annotations import read_labels
    from speech.evaluation import scoring
    from speech.recognizer import load
    from speech.stream import chosen_for

    recognizer = load(model)
    config = chosen_for(recognizer)
    words = read_labels(labels)
    stream = scoring.posteriors_of_file(recognizer, recording, words, config.step_seconds)
    content: dict[str, Any] = {
        "model": recognizer.name,
        "command": command_line(),
        "decoder": config.to_dict(),
        "evaluation": scoring.measure_streams(recognizer, [stream], config),
    }
    if as_json:
        typer.echo(json.dumps(content))
    else:
        _print(content["evaluation"])


@dataclasses.dataclass(frozen=True)
class WantedOptions:
    """What thresholds are chosen for."""

    rate: Annotated[
        float, typer.Option(min=0.001, help="Wanted false accepts per hour of speech.")
    ] = 5.0
    accept_rate: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Wanted share of other words accepted.")
    ] = 0.05
    latency: Annotated[
        float,
        typer.Option(
            min=0.05, max=1.0, help="Longest median time from the end of a word, in seconds."
        ),
    ] = 0.3


@app.command(
    epilog=examples(
        "speech tune-thresholds --data my_words --negative-speech radio --store",
        "speech tune-thresholds --data my_words --negative-speech radio --rate 1 --latency 0.15",
    )
)
@grouped
def tune_thresholds(
    decoding: DecodingOptions,
    wanted: WantedOptions,
    model: options.Model = DEFAULT_MODEL,
    data: options.Data = DEFAULT_DATA,
    speech: options.NegativeSpeech = None,
    words: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of words that are no commands, to choose acceptance on; may be repeated.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Write the thresholds into the model.")
    ] = False,
) -> None:
    """Choose thresholds, of the live decoder and for clips, on data that never trained.

    Exits with 7 where the data cannot show the wanted rates; then nothing is chosen.
    """
    from speech.evaluation import scoring, stream_card, tuning
    from speech.evaluation.fast_words import fast_word_streams
    from speech.files import write_json
    from speech.recognizer import load
    from speech.stream import chosen_for

    if not speech:
        raise typer.BadParameter("expected --negative-speech to choose thresholds on, got none")
    plan = _plan("clean,10", 0)
    recognizer = load(model)
    _warn_of_speech(recognizer, speech, None)
    recordings, spoken = _read(recognizer, data, speech, decoding)
    samples = sum(len(source.samples) for source in spoken)
    tuning.refuse_unresolvable(wanted.rate, samples / recognizer.features.sample_rate)
    acceptance = _choose_acceptance(
        recognizer, recordings, words or [], wanted.accept_rate, decoding
    )
    config = dataclasses.replace(
        chosen_for(recognizer), refractory_seconds=tuning.REFRACTORY_SECONDS
    )
    streams = _posteriors(recognizer, recordings, spoken, plan, "tuning")
    fast = fast_word_streams(
        recordings, recognizer.labels, recognizer.features.sample_rate, "tuning", gaps=(0.2,)
    )
    streams += scoring.compute_posteriors(recognizer, fast, config.step_seconds)
    with progress("Choosing") as on_progress:
        chosen = tuning.tune(
            recognizer, streams, wanted.rate, config, on_progress, latency=wanted.latency
        )
    _print_tuning(chosen, acceptance)
    if not store:
        typer.echo("Nothing is written without --store.")
        return
    content = stream_card.tuning_content(recognizer, spoken, plan, chosen, command_line())
    content["acceptance"] = acceptance | {
        "accept_rate": wanted.accept_rate,
        "words": [folder.name for folder in words or []],
    }
    settings = {"decoder": chosen.config.to_dict(), "acceptance": acceptance["thresholds"]}
    for path in stream_card.store(model, settings):
        typer.echo(f"Stored in {path}")
    write_json(ModelFolder.around(model).tuning, content)


# --- what the commands share --------------------------------------------------------------------


def _plan(snr: str, seed: int) -> "Plan":
    from speech.evaluation.synthetic_streams import Plan

    try:
        parts = [part.strip() for part in snr.split(",")]
        snrs = tuple(None if part == "clean" else float(part) for part in parts)
    except ValueError as error:
        raise typer.BadParameter(f"expected clean, or numbers of dB, got {snr!r}") from error
    try:
        return Plan(snrs, seed=seed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _read(
    recognizer: "Recognizer", data: Path, folders: Sequence[Path], decoding: DecodingOptions
) -> "tuple[Recordings, list[ContinuousSpeech]]":
    from speech.data.recordings import read_speech

    features = recognizer.features
    recordings = decoding.read(data, features)
    return recordings, [
        read_speech([folder], features, strict=decoding.strict) for folder in folders
    ]


def _posteriors(
    recognizer: "Recognizer",
    recordings: "Recordings",
    spoken: "Sequence[ContinuousSpeech]",
    plan: "Plan",
    part: "Part",
    only: Collection[str] | None = None,
) -> "list[StreamPosteriors]":
    from speech.evaluation import scoring
    from speech.evaluation.synthetic_streams import streams
    from speech.stream import chosen_for

    rate = recognizer.features.sample_rate
    built = (
        stream
        for stream in streams(recordings, spoken, recognizer.labels, rate, plan, part, only)
        if part == "evaluation" or stream.kind != "unknown words"  # which do not choose
    )
    with progress(f"Computing the {part} streams") as on_progress:
        return scoring.compute_posteriors(
            recognizer, built, chosen_for(recognizer).step_seconds, on_progress
        )


def _choose_acceptance(
    recognizer: "Recognizer",
    recordings: "Recordings",
    folders: Sequence[Path],
    rate: float,
    decoding: DecodingOptions,
) -> dict[str, Any]:
    """Thresholds for clips and what they give, by ``speech.evaluation.open_set``."""
    from speech.evaluation.open_set import tune_acceptance

    others = [decoding.read(folder, recognizer.features) for folder in folders]
    return tune_acceptance(recognizer, [recordings, *others], rate)


def _warn_of_speech(
    recognizer: "Recognizer", folders: Sequence[Path], tuned: Mapping[str, Any] | None
) -> None:
    """Say where continuous speech cannot measure, since it trained or tuned the model."""
    from speech.evaluation.stream_card import trained_on

    tuning_names = {source["name"] for source in (tuned or {}).get("speech", ())}
    for folder in folders:
        what = "trained" if trained_on(recognizer, folder) else ""
        what = what or ("tuned" if folder.resolve().name in tuning_names else "")
        if what:
            warn(
                f"{folder}: the model was {what} on a folder of this name; false accepts there say "
                "nothing about other speech"
            )


def _print(evaluation: Mapping[str, Any]) -> None:
    rows = table(
        *("Condition", "Stream", "Minutes", "Found", "Substitutions", "False accepts"),
        *("Per hour", "95 % interval", "Latency", "95 %"),
    )
    for condition, kinds in evaluation.items():
        for kind, metrics in kinds.items():
            if not isinstance(metrics, dict) or "hits" not in metrics:
                continue
            low, high = (metrics[f"false_accepts_per_hour_{end}"] for end in ("low", "high"))
            latency = [metrics[f"latency_{name}"] for name in ("median", "p95")]
            rows.add_row(
                condition,
                kind,
                f"{metrics['seconds'] / 60:.1f}",
                f"{metrics['hit_rate']:.1%} of {metrics['words']}" if metrics["words"] else "",
                str(metrics["substitutions"]) if metrics["words"] else "",
                str(metrics["false_accepts"]),
                f"{metrics['false_accepts_per_hour']:.1f}",
                f"{low:.1f} to {high:.1f}",
                *("" if late is None else f"{1000 * late:.0f} ms" for late in latency),
            )
    console().print(rows)


def _print_fast(fast: Mapping[str, Any]) -> None:
    rows = table("Words said fast", *next(iter(fast.values()), ()))
    for kind, by_pause in fast.items():
        rows.add_row(kind, *(f"{metrics['hit_rate']:.0%}" for metrics in by_pause.values()))
    console().print(rows)


def _print_tuning(tuning: "Tuning", acceptance: Mapping[str, Any]) -> None:
    config = tuning.config
    typer.echo(
        f"Decoder: {tuning.hit_rate:.1%} of the words found at "
        f"{tuning.false_accepts_per_hour:.1f} false accepts per hour, in {tuning.hours:.2f} hours "
        f"of speech, which can show {tuning.resolvable_rate:.1f} at best; smoothing "
        f"{config.smoothing_seconds:g} s, {config.min_consecutive_windows} windows in a row"
    )
    rows = table("Command", "Threshold, live", "Threshold, clips")
    for label, threshold in acceptance["thresholds"].items():
        live = config.thresholds.get(label, config.threshold)
        rows.add_row(label, f"{live:.3f}", f"{threshold:.3f}")
    console().print(rows)
    typer.echo(
        f"Clips: {acceptance['command_accepted']:.1%} of {acceptance['commands']} clips of "
        f"commands are right and accepted, and {acceptance['other_accepted']:.1%} of "
        f"{acceptance['other_words']} clips of other words are accepted"
    )
