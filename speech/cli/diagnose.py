"""The commands that say what is there: doctor, info, devices, mic-check and benchmark."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from speech.cli import options
from speech.cli.console import console, progress, table, warn
from speech.cli.options import DEFAULT_MODEL, SourceOptions, examples, grouped
from speech.environment import command_line
from speech.errors import MicrophoneError, SpeechError
from speech.installation import find_model, install_command

if TYPE_CHECKING:
    from speech.recognizer import Recognizer

app = typer.Typer()

# where a package comes from: the extra that installs it, or "" for the core
_PACKAGES = {
    "numpy": "",
    "onnxruntime": "",
    "soundfile": "",
    "keras": "train",
    "librosa": "train",
    "tensorflow": "train",
    "onnx": "export",
    "ai-edge-litert": "export",
    "gradio": "app",
    "sounddevice": "mic",
    "wyoming": "wyoming",
}


@app.command(epilog=examples("speech doctor", "speech doctor --model saved_models/mine --json"))
def doctor(
    model: options.ModelOption = DEFAULT_MODEL,
    as_json: options.AsJson = False,
) -> None:
    """Report versions, microphones, GPU and model, and what to do about what is missing."""
    findings = examine(model)
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
        return
    rows = table("What", "Found", "What to do")
    for finding in findings:
        rows.add_row(*finding)
    console().print(rows)


@app.command(epilog=examples("speech info", "speech info saved_models/mine --all"))
def info(
    model: options.Model = DEFAULT_MODEL,
    everything: options.AllFields = False,
    as_json: options.AsJson = False,
) -> None:
    """Show a model's labels, features and provenance."""
    from speech.recognizer import load

    recognizer = load(model)
    known = {
        "name": recognizer.name,
        "file": recognizer.file,
        "labels": list(recognizer.labels),
        "features": recognizer.features.to_dict(),
        "decoder": recognizer.decoder,
        "provenance": recognizer.provenance,
    }
    if as_json:
        typer.echo(json.dumps(known))
        return
    rows = table("Field", "Value")
    for field, value in _flatten(known) if everything else _in_short(recognizer):
        rows.add_row(field, value)
    console().print(rows)


@app.command(epilog=examples("speech devices", "speech devices --json"))
def devices(as_json: options.JsonLines = False) -> None:
    """List the microphones: the number or a part of the name chooses one with --device."""
    from speech.live import microphone

    rows = table("Number", "Name", "Channels", "Rate")
    for device in microphone.devices():
        rows.add_row(*map(str, device))
        if as_json:
            typer.echo(json.dumps(device._asdict()))
    if not as_json:
        console().print(rows)


@app.command(
    "mic-check", epilog=examples("speech mic-check", "speech mic-check --device usb --save me.wav")
)
@grouped
def mic_check(
    source: SourceOptions,
    model: options.ModelOption = DEFAULT_MODEL,
    seconds: options.Seconds = 5.0,
    save: options.Save = None,
    play: options.Play = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure a microphone for a few seconds, and say what to change in one sentence."""
    from speech.files import replacing
    from speech.live import mic_check as checking
    from speech.live import microphone
    from speech.recognizer import load

    with contextlib.suppress(KeyboardInterrupt):
        source.check()
        rate = load(model).features.sample_rate
        with source.open(rate) as blocks:
            if source.is_microphone:
                warn(f"say a few words, for {seconds:g} s")
            recorded = checking.record(blocks, seconds)
        levels = checking.measure(recorded.samples, recorded.sample_rate)
        fields = checking.fields(recorded, levels)
        waveform = checking.as_model_input(recorded, rate)
        if save is not None:
            with replacing(save) as part:
                part.write_bytes(checking.wav_bytes(waveform, rate))
        if as_json:
            typer.echo(json.dumps(fields))
        else:
            rows = table("What", "Measured")
            for what, measured in checking.described(fields):
                rows.add_row(what, measured)
            console().print(rows)
            typer.echo(fields["advice"])
        if play:
            with microphone.quiet_libraries():
                microphone.play(waveform, rate)


@app.command(
    epilog=examples(
        "speech benchmark",
        "speech benchmark commands-8 --beside commands-8-stream",
        "speech benchmark --rounds 3 --markdown costs.md",
    )
)
def benchmark(
    model: options.Model = DEFAULT_MODEL,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another model to measure in the same rounds; may be repeated.", show_default=False
        ),
    ] = None,
    rounds: options.Rounds = 5,
    markdown: options.Markdown = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure what a model costs on this machine: size, start, memory, latency, throughput."""
    from speech.evaluation import benchmark as bench
    from speech.files import write_text

    with progress("Measuring") as on_progress:
        others = [find_model(path) for path in beside or []]
        measures = bench.benchmark(model, rounds, on_progress, others=others)
    if markdown is not None:
        write_text(markdown, bench.markdown(measures, command_line()))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(m) for m in measures]))
        return
    columns = 5 if beside else 4  # a single model is compared with nothing
    rows = table(*("Metric", "Variant", "Median", "Spread", "Better")[:columns])
    for row in bench.table(measures):
        rows.add_row(*row[:columns])
    console().print(rows)


def _in_short(recognizer: "Recognizer") -> Iterator[tuple[str, str]]:
    """What a user of the model wants to know; a model of another maker may lack some of it."""
    features, provenance = recognizer.features, recognizer.provenance
    yield "Name", recognizer.name
    yield "File", recognizer.file
    yield "Labels", ", ".join(recognizer.labels)
    yield "Input", f"{features.clip_seconds:g} s of sound at {features.sample_rate} Hz"
    yield (
        "Features",
        f"{features.n_mfcc} MFCC of {features.n_mels} mel bands, "
        f"{1000 * features.window_seconds:g} ms every {1000 * features.hop_seconds:g} ms",
    )
    thresholds = (recognizer.decoder.get("thresholds") or {}).items()
    if thresholds:
        yield "Live thresholds", ", ".join(f"{label} {value:g}" for label, value in thresholds)
    corpus = provenance.get("corpus")
    if isinstance(corpus, Mapping):
        yield "Trained on", f"{corpus.get('name', '?')}, {corpus.get('clips', '?')} clips"
    for name in ("parameters", "seed", "command"):
        if name in provenance:
            yield name.capitalize(), str(provenance[name])


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)


# --- what the doctor looks at --------------------------------------------------------------------


class Finding(NamedTuple):
    """One thing that was looked at, what was found, and what to do; "" for nothing."""

    what: str
    found: str
    advice: str = ""


def examine(model: Path) -> list[Finding]:
    """Look at versions, microphones, graphics card and a model; nothing is ever raised."""
    found = _model(model)  # before TensorFlow is imported: the file may be anybody's
    return [*_versions(), _sound(), _gpu(), found, *_files(model)]


def _versions() -> Iterator[Finding]:
    yield Finding("Python", platform.python_version())
    for package, extra in _PACKAGES.items():
        for name in (package, f"{package}-cpu"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                yield Finding(package, importlib.metadata.version(name))
                break
        else:
            yield Finding(package, "not installed", _install(extra))


def _sound() -> Finding:
    from speech.live.microphone import devices

    try:
        names = [device.name for device in devices()]
    except MicrophoneError as error:
        return Finding("Microphones", "unknown", str(error))
    if not names:
        return Finding("Microphones", "none", "plug one in, or start the sound server")
    return Finding("Microphones", ", ".join(names))


def _gpu() -> Finding:
    try:
        import tensorflow as tf
    except ImportError:
        return Finding("GPU", "unknown", _install("train"))
    names = [device.name for device in tf.config.list_physical_devices("GPU")]
    if names:
        return Finding("GPU", ", ".join(names))
    return Finding("GPU", "none", f"not needed; for an NVIDIA card: {_install('train-cuda')}")


def _model(path: Path) -> Finding:
    from speech.recognizer import load

    try:
        recognizer = load(path)
    except SpeechError as error:
        return Finding(f"Model {path}", "cannot be used", str(error))
    return Finding(f"Model {path}", f"{len(recognizer.labels)} labels")


def _files(model: Path) -> Iterator[Finding]:
    from speech.evaluation.model_card import changed_files

    changed = changed_files(model)
    if changed is None:
        return
    what = f"Files of {model}"
    if not changed:
        yield Finding(what, "those on its card")
        return
    yield Finding(
        what,
        f"not those on its card: {', '.join(changed)}",
        "if you changed them, run: speech evaluate; if not, get them again",
    )


def _install(extra: str) -> str:
    return install_command(extra) if extra else install_command()
