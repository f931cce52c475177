"""The commands that hear: recognize, listen and scan."""

import contextlib
import dataclasses
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli import score
from speech.cli.console import DEFAULT_MODEL, ModelOption, console, progress, table
from speech.errors import AudioError

if TYPE_CHECKING:
    from speech.live.scan import Timeline
    from speech.live.session import Source

app = typer.Typer()
app.add_typer(score.app)


@app.command()
def recognize(
    sources: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    model: ModelOption = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Say which word each recording holds (of a long one: its loudest second)."""
    from speech.recognizer import load

    recognizer = load(model)
    rows = table("File", "Label", "Probability")
    failed = False
    for path in _audio_files(sources):
        try:
            heard = recognizer.recognize(path)
        except AudioError as error:
            failed = True
            typer.echo(f"speech: {error}", err=True)
            continue
        if as_json:
            typer.echo(json.dumps({"file": str(path), **dataclasses.asdict(heard)}))
        else:
            rows.add_row(str(path), heard.label, f"{heard.probability:.3f}")
    if rows.row_count:
        console().print(rows)
    if failed:
        raise typer.Exit(AudioError.exit_code)


@app.command()
def listen(
    model: ModelOption = DEFAULT_MODEL,
    device: Annotated[str, typer.Option(help="Number or part of a microphone's name.")] = "",
    show: Annotated[bool, typer.Option("--list", help="Only show the microphones.")] = False,
    stdin: Annotated[bool, typer.Option("--stdin", help="Hear raw 16-bit mono PCM.")] = False,
    rate: Annotated[int | None, typer.Option(help="Of --stdin.", show_default="model's")] = None,
    wav: Annotated[Path | None, typer.Option(help="Hear a file.", show_default=False)] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="At the pace of --wav.")] = False,
    threshold: Annotated[float | None, typer.Option(min=0.01, max=1, help="For all words.")] = None,
    execute: Annotated[str, typer.Option("--exec", help="Start 'COMMAND {label}' each time.")] = "",
    channels: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Of the microphone.", show_default="one, or the fewest"),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only measure the microphone.")] = False,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Length of --check.")] = 5.0,
    save: Annotated[
        Path | None,
        typer.Option(help="A WAV file for what --check heard, as the model hears it."),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play what --check heard.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Tell commands as they are spoken into a microphone, a pipe or a file; Ctrl-C ends it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        from speech.live import session as live
        from speech.recognizer import load

        if show:
            _print_microphones(as_json)
            return
        try:
            launcher = stack.enter_context(live.Launcher(execute)) if execute else None
            pcm = sys.stdin.buffer if stdin else None
            source = live.Source(device, pcm, rate, wav, realtime, channels)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        recognizer = load(model)
        if check or save or play:
            _check(source, recognizer.features.sample_rate, seconds, save, play, as_json)
            return
        decoder = live.decoder_for(recognizer, threshold)
        blocks = stack.enter_context(source.open(recognizer.features.sample_rate))
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() and not as_json else 0
        stack.callback(typer.echo, live.CLEAR if width else "", nl=False, err=True)
        for item in live.listen(blocks, decoder, launcher):
            out, err = live.rendered(item, as_json, width)
            typer.echo(err, nl=False, err=True)
            typer.echo(out, nl=False)


@app.command()
def scan(
    sources: Annotated[list[Path], typer.Argument(help="Long recordings, or folders of them.")],
    model: ModelOption = DEFAULT_MODEL,
    threshold: Annotated[float | None, typer.Option(min=0.01, max=1, help="For all words.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file.", show_default=False)] = None,
    audacity: Annotated[
        Path | None,
        typer.Option(help="Write labels for Audacity; of several files, this is a folder."),
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write a picture; of several files, this is a folder.")
    ] = None,
) -> None:
    """Find the commands in long recordings: when each of them is said."""
    from speech.files import write_text
    from speech.labels import commands
    from speech.live import scan as scanning
    from speech.live.session import decoder_for
    from speech.recognizer import load

    recognizer = load(model)
    config = decoder_for(recognizer, threshold).config
    paths = list(_audio_files(sources))
    rows = table("File", "Time", "Label", "Probability")
    timelines = []
    failed = False
    for path in paths:
        try:
            with progress(path.name, in_bytes=True) as tell:
                timelines.append(scanning.scan(recognizer, path, config, tell))
        except AudioError as error:
            failed = True
            typer.echo(f"speech: {error}", err=True)
            continue
        for found in scanning.fields(timelines[-1]):
            if as_json:
                typer.echo(json.dumps(found))
            at = scanning.clock(found["time"])
            rows.add_row(found["file"], at, found["label"], f"{found['probability']:.2f}")
    if not as_json and timelines:
        console().print(rows)
    if csv is not None:
        write_text(csv, scanning.csv_of(timelines))
    _write_each(timelines, list(commands(recognizer.labels)), len(paths) > 1, audacity, png)
    if failed:
        raise typer.Exit(AudioError.exit_code)


def _write_each(
    timelines: "list[Timeline]",
    commands: list[str],
    several: bool,
    audacity: Path | None,
    png: Path | None,
) -> None:
    from speech.data.annotations import audacity_text
    from speech.files import write_text
    from speech.live.scan import file_names, words_of

    def targets(where: Path | None, suffix: str) -> "Iterator[tuple[Path, Timeline]]":
        if where is None:
            return
        names = file_names([t.path for t in timelines], suffix) if timelines else []
        for name, timeline in zip(names, timelines, strict=True):
            yield (where / name if several else where), timeline

    for target, timeline in targets(audacity, ".txt"):
        write_text(target, audacity_text(words_of(timeline)))
    for target, timeline in targets(png, ".png"):
        from speech.evaluation import plots

        found = [(d.time, d.label) for d in timeline.detections]
        figure = plots.timeline(found, timeline.seconds, commands, title=timeline.path.name)
        plots.save(figure, target)


def _check(
    source: "Source", rate: int, seconds: float, save: Path | None, play: bool, as_json: bool
) -> None:
    from speech.files import replacing
    from speech.live import mic_check, microphone

    with source.open(rate) as blocks:
        if source.wav is None and source.pcm is None:
            typer.echo(f"speech: say a few words, for {seconds:g} s", err=True)
        recorded = mic_check.record(blocks, seconds)
    found = mic_check.fields(recorded, mic_check.measure(recorded.samples, recorded.sample_rate))
    heard = mic_check.as_heard(recorded, rate)
    if save is not None:
        with replacing(save) as part:
            part.write_bytes(mic_check.wav_bytes(heard, rate))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        rows = table("What", "Measured")
        for what, measured in mic_check.described(found):
            rows.add_row(what, measured)
        console().print(rows)
        typer.echo(found["advice"])
    if play:
        with microphone.quiet_libraries():
            microphone.play(heard, rate)


def _print_microphones(as_json: bool) -> None:
    from speech.live.microphone import devices

    rows = table("Number", "Name", "Channels", "Rate")
    for found in devices():
        rows.add_row(*map(str, found))
        if as_json:
            typer.echo(json.dumps(found._asdict()))
    if not as_json:
        console().print(rows)


def _audio_files(sources: list[Path]) -> Iterator[Path]:
    from speech.audio import SUFFIXES

    for source in sources:
        if source.is_dir():
            found = [p for p in sorted(source.rglob("*")) if p.suffix.lower() in SUFFIXES]
            if not found:
                raise AudioError(
                    f"{source}: expected audio files ({', '.join(SUFFIXES)}), got none"
                )
            yield from found
        else:
            yield source
