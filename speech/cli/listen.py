"""The commands that use a model: recognize, listen and scan."""

import contextlib
import dataclasses
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from speech.cli import options
from speech.cli.console import console, progress, table, warn
from speech.cli.options import DEFAULT_MODEL, SourceOptions, examples, grouped
from speech.errors import AudioError

if TYPE_CHECKING:
    from speech.live.microphone import Block
    from speech.live.scan import Timeline

app = typer.Typer()


@app.command(epilog=examples("speech recognize yes.wav", "speech recognize recordings/ --json"))
def recognize(
    sources: options.AudioSources,
    model: options.ModelOption = DEFAULT_MODEL,
    as_json: options.JsonLines = False,
) -> None:
    """Classify each recording as one command. Of a long one, the loudest second counts."""
    from speech.data.folders import find_audio
    from speech.files import readable_name
    from speech.recognizer import load

    recognizer = load(model)
    if recognizer.causality is not None:
        ahead = round(1000 * recognizer.causality.look_ahead_seconds)
        warn(
            f"{recognizer.name} is a causal model with a look-ahead of {ahead} ms: each recording "
            "is padded with as much silence at its end"
        )
    rows = table("File", "Label", "Probability")
    failed = False
    for path in find_audio(sources):
        try:
            prediction = recognizer.recognize(path)
        except AudioError as error:
            failed = True
            warn(str(error))
            continue
        if as_json:
            typer.echo(json.dumps({"file": readable_name(path), **dataclasses.asdict(prediction)}))
        else:
            hint = "" if prediction.accepted else f" (perhaps {prediction.label})"
            label = f"{prediction.answer}{hint}"
            rows.add_row(readable_name(path), label, f"{prediction.probability:.3f}")
    if rows.row_count:
        console().print(rows)
    if failed:
        raise typer.Exit(AudioError.exit_code)


@app.command(
    epilog=examples(
        "speech listen",
        "speech listen --device usb --exec 'echo {label} {probability} {time}'",
        "speech listen --wav words.wav --json",
        "arecord -q -f cd -t wav | speech listen --stdin",
    )
)
@grouped
def listen(
    source: SourceOptions,
    model: options.ModelOption = DEFAULT_MODEL,
    threshold: options.Threshold = None,
    execute: options.Execute = "",
    as_json: options.JsonLines = False,
) -> None:
    """Detect commands live from a microphone, pipe or file. Ctrl-C ends it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        from speech.cli.corrections import Talk
        from speech.cli.detections import CLEAR, Launcher, live_lines
        from speech.detection import Detection
        from speech.labels import commands
        from speech.live import session
        from speech.recognizer import load
        from speech.teach.saving import TAKES

        source.check()
        launcher = stack.enter_context(Launcher(execute)) if execute else None
        recognizer = load(model)
        decoder = session.decoder_for(recognizer, threshold)
        blocks = stack.enter_context(source.open(recognizer.features.sample_rate))
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() and not as_json else 0
        stack.callback(typer.echo, CLEAR if width else "", nl=False, err=True)
        words = commands(recognizer.labels)
        if not as_json and source.wav is None:
            blocks = _inviting(blocks, words)
        talk = None
        if width and sys.stdin.isatty() and (model / TAKES).is_file():
            talk = stack.enter_context(Talk(model, recognizer.provenance.get("taught", words)))
            blocks = talk.remembering(blocks)
        for item in session.run(blocks, decoder):
            items = [item]
            if launcher is not None and isinstance(item, Detection):
                items += launcher.run(item)
            for each in items:
                out, err = live_lines(each, as_json, width)
                typer.echo(err, nl=False, err=True)
                typer.echo(out, nl=False)
            if talk is not None:
                talk.attend(item)


def _inviting(blocks: "Iterator[Block]", words: Sequence[str]) -> "Iterator[Block]":
    """The same blocks; when sound comes, the user is told what to say."""
    for number, block in enumerate(blocks):
        if number == 0:
            warn(f"say {', '.join(words)}; Ctrl-C ends it")
        yield block


@dataclasses.dataclass(frozen=True)
class TimelineFiles:
    """What a scan writes besides its table."""

    csv: options.Csv = None
    audacity: options.Audacity = None
    png: options.Png = None

    def write(self, timelines: "Sequence[Timeline]", commands: list[str], several: bool) -> None:
        """Write what was asked for; of several recordings, labels and pictures are folders."""
        from speech.data.annotations import audacity_text
        from speech.files import write_text
        from speech.live.scan import csv_of, words_of

        if self.csv is not None:
            write_text(self.csv, csv_of(timelines))
        for target, timeline in _targets(self.audacity, ".txt", timelines, several):
            write_text(target, audacity_text(words_of(timeline)))
        for target, timeline in _targets(self.png, ".png", timelines, several):
            from speech.evaluation import plots

            detections = [(d.time, d.label) for d in timeline.detections]
            figure = plots.timeline(
                detections, timeline.seconds, commands, title=timeline.path.name
            )
            plots.save(figure, target)


@dataclasses.dataclass(frozen=True)
class Archive:
    """Where a scan that is too much for one machine is done, and where its tables go."""

    ray: options.Ray = ""
    out: options.Tables = ""


@app.command(
    epilog=examples(
        "speech scan meeting.flac",
        "speech scan recordings/ --csv commands.csv --png pictures",
        "speech scan s3://archive/2026 --ray auto --out s3://archive/commands",
    )
)
@grouped
def scan(
    sources: options.Archives,
    files: TimelineFiles,
    archive: Archive,
    model: options.ModelOption = DEFAULT_MODEL,
    threshold: options.Threshold = None,
    as_json: options.JsonLines = False,
) -> None:
    """Find commands and their times in long recordings."""
    if archive.ray or archive.out:
        if as_json or any(dataclasses.astuple(files)) or not (archive.ray and archive.out):
            raise typer.BadParameter(
                "expected --ray together with --out and without --json, --csv, --audacity and "
                "--png, got another choice; the tables hold it all"
            )
        _scan_archive(sources, archive, model, threshold)
        return
    from speech.data.folders import find_audio
    from speech.labels import commands
    from speech.live import scan as scanning
    from speech.live.session import decoder_for
    from speech.recognizer import load

    recognizer = load(model)
    config = decoder_for(recognizer, threshold).config
    paths = find_audio([Path(source) for source in sources])
    rows = table("File", "Time", "Label", "Probability")
    timelines = []
    failed = False
    for path in paths:
        try:
            with progress(path.name, in_bytes=True) as on_progress:
                timelines.append(
                    scanning.scan_file(recognizer, path, config, on_progress=on_progress)
                )
        except AudioError as error:
            failed = True
            warn(str(error))
            continue
        for row in scanning.fields(timelines[-1]):
            if as_json:
                typer.echo(json.dumps(row))
            at = scanning.clock(row["time"])
            rows.add_row(row["file"], at, row["label"], f"{row['probability']:.2f}")
    if not as_json and timelines:
        console().print(rows)
    files.write(timelines, list(commands(recognizer.labels)), len(paths) > 1)
    if failed:
        raise typer.Exit(AudioError.exit_code)


def _scan_archive(
    sources: list[str], archive: Archive, model: Path, threshold: float | None
) -> None:
    from speech.cluster.scan import Job, Tally
    from speech.cluster.scan import scan as scan_on_ray

    job = Job(tuple(sources), model, archive.out, threshold)
    with progress("listing", in_bytes=True) as on_progress:

        def show(tally: Tally) -> None:
            hours = tally.sound_seconds / 3600
            text = f"{hours:.1f} h, {hours / max(tally.seconds, 1e-3):.3f} h/s"
            on_progress(tally.n_bytes, tally.total_bytes, text)

        tally = scan_on_ray(job, archive.ray, on_progress=show, on_note=warn)
    rows = table("Recordings", "Hours", "Detections", "Unreadable", "Done before", "Hours/s")
    hours = tally.sound_seconds / 3600
    counts = (tally.detections, tally.unreadable, tally.skipped)
    speed = f"{hours / tally.seconds:.3f}"
    rows.add_row(str(tally.recordings), f"{hours:.2f}", *map(str, counts), speed)
    console().print(rows)
    if tally.unreadable:
        raise typer.Exit(AudioError.exit_code)


def _targets(
    where: Path | None, suffix: str, timelines: "Sequence[Timeline]", several: bool
) -> "Iterator[tuple[Path, Timeline]]":
    from speech.live.scan import file_names

    if where is None or not timelines:
        return
    names = file_names([timeline.path for timeline in timelines], suffix)
    for name, timeline in zip(names, timelines, strict=True):
        yield (where / name if several else where), timeline
