"""The command line: the only place that prints and exits.

Exit codes: 0 done, 1 unexpected, 2 usage, 3 audio, 4 corpus, 5 model, 6 microphone, 130 Ctrl-C.
Heavy packages are imported by the command that needs them, so that --help answers at once.
"""

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speech.cli import listen, page
from speech.cli.console import DEFAULT_MODEL, AsJson, console, progress, table
from speech.environment import share_cores
from speech.errors import CorpusError, ModelError, SpeechError
from speech.installation import install_command

if TYPE_CHECKING:
    from speech.data.corpus import Corpus
    from speech.data.recordings import Recordings
    from speech.features import FeatureConfig
    from speech.training.config import TrainConfig

app = typer.Typer(
    name="speech",
    help="Train, evaluate and use a recogniser of spoken commands.",
    epilog="Exit codes: 0 done, 1 unexpected, 2 usage, 3 audio, 4 corpus, 5 model, 6 microphone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
app.add_typer(listen.app)
app.add_typer(page.app)

Data = Annotated[
    Path, typer.Option("--data", help="Folder of the corpus: one folder of clips a word.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        envvar="SPEECH_CACHE", show_default="the user's cache folder", help="For decoded clips."
    ),
]
Model = Annotated[Path, typer.Argument(help="Folder of a model, or its file.")]
DEFAULT_DATA = Path("datasets/speech_commands_v0.02")
# which extra brings a package that some commands can do without
_EXTRAS = {"matplotlib": "app", "gradio": "app"} | dict.fromkeys(
    ("keras", "librosa", "numba", "tensorflow", "threadpoolctl"), "train"
)


def main() -> None:
    """Run the command line; turn every error into one line and an exit code."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")  # accepted behind the command too, where people type it
    try:
        app()
    except SpeechError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except Exception as error:
        if debug:
            raise
        _fail(_unexpected(error), 1)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train, evaluate and use a recogniser of spoken commands."""


@app.command()
def prepare(
    recipe: Annotated[
        str, typer.Option(help="Corpus to download; recipes lie in datasets/.")
    ] = "speech_commands_v0.02",
    folder: Annotated[Path, typer.Option(help="Where corpora are kept.")] = Path("datasets"),
    data: Annotated[
        Path | None, typer.Option(help="Use this folder instead of a download.", show_default=False)
    ] = None,
    keep_archive: Annotated[bool, typer.Option(help="Keep the archive after unpacking.")] = False,
    cache: Cache = None,
) -> None:
    """Download a corpus, check and unpack it, decode its clips once."""
    from speech.data.datasets import dataset_specs
    from speech.data.download import download, unpack

    root = data or folder / recipe
    if data is None and not root.exists():
        if recipe not in dataset_specs():
            raise CorpusError(f"recipe {recipe!r}: expected one of {', '.join(dataset_specs())}")
        with progress("Downloading", in_bytes=True) as tell:
            archive = download(dataset_specs()[recipe].archive, folder, tell)
        with progress("Unpacking") as tell:
            unpack(archive, root, tell)
        if not keep_archive:
            archive.unlink()
    recordings = _decode(root, None, cache)
    _print_corpus(recordings.corpus)
    typer.echo(f"Contents: SHA-256 {recordings.digest}")
    typer.echo(f"Next: speech train --data {shlex.quote(str(root))} --labels commands-8")


@app.command()
def train(
    data: Data = DEFAULT_DATA,
    recipe: Annotated[
        str,
        typer.Option(
            help="commands-8, with the defaults below, commands-12, words-35, or a .toml."
        ),
    ] = "commands-8",
    labels: Annotated[
        str | None,
        typer.Option(help="A set of labels, or your own: yes,no,stop", show_default="the recipe's"),
    ] = None,
    speech: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of speech without these words, for unknown; may be given repeatedly.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/LABELS-SEED")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run cut short.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="Repeat the config.json of a run.", show_default="the recipe"),
    ] = None,
    seed: Annotated[int | None, typer.Option(show_default="1", min=0)] = None,
    epochs: Annotated[int | None, typer.Option(show_default="60", min=1)] = None,
    epoch_clips: Annotated[int | None, typer.Option(show_default="16000", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(show_default="128", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(show_default="0.002")] = None,
    patience: Annotated[int | None, typer.Option(show_default="30", min=1)] = None,
    augment: Annotated[bool, typer.Option(help="Vary speed, level, noise, microphone.")] = True,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Also write TensorBoard logs here.", show_default=False)
    ] = None,
    cache: Cache = None,
) -> None:
    """Train a model; the run's folder is a model's folder when it is done."""
    share_cores()
    from speech.data.datasets import parse_labels
    from speech.data.recordings import read_speech
    from speech.evaluation import model_card
    from speech.recognizer import load
    from speech.training import trainer
    from speech.training.recipes import read_config, read_recipe

    recipe_labels, chosen = read_recipe(recipe)
    label_set = parse_labels(labels or recipe_labels)
    given = {
        "seed": seed,
        "epochs": epochs,
        "epoch_clips": epoch_clips,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
    }
    chosen = _changed(read_config(config) if config else chosen, given, augment)
    run = out or Path("runs") / f"{label_set.name.replace(' ', '-')}-{chosen.seed}"
    if (run / trainer.MODEL).exists() and not resume:
        raise ModelError(f"{run}: expected a new folder, got a model; use --resume, another --out")
    recordings = _decode(data, chosen.features, cache)
    command = shlex.join(["speech", *sys.argv[1:]])
    with _training_progress(chosen.epochs) as tell:
        trainer.train(
            recordings,
            label_set,
            chosen,
            run,
            speech=read_speech(speech, chosen.features) if speech else None,
            resume=resume,
            report=tell,
            tensorboard=tensorboard,
            command=command,
        )
    _export_trained(run)
    metrics = model_card.evaluate(load(run), recordings, run)
    typer.echo(_summary(metrics.accuracy, metrics.accuracy_low, metrics.accuracy_high, run))


@app.command()
def evaluate(
    model: Model = DEFAULT_MODEL,
    data: Data = DEFAULT_DATA,
    split: Annotated[str, typer.Option(help="validation or test")] = "validation",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for figures and report.", show_default="the model's folder"),
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also in noise, other levels, empty rooms ...")
    ] = False,
    seed_run: Annotated[
        list[Path] | None,
        typer.Option(help="The same recipe with another seed, to compare; may be repeated."),
    ] = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on speakers it was not trained on; write figures, pictures and a report."""
    from speech.evaluation import model_card
    from speech.recognizer import load

    if split not in ("validation", "test"):
        raise typer.BadParameter(f"expected validation or test, got {split!r}")
    recognizer = load(model)
    recordings = _decode(data, recognizer.features, cache)
    target = out or (model if model.is_dir() else model.parent)
    metrics = model_card.evaluate(
        recognizer,
        recordings,
        target,
        "test" if split == "test" else "validation",
        robustness=robustness,
        others=[load(run) for run in seed_run or []],
    )
    if as_json:
        typer.echo(json.dumps(metrics.to_dict()))
        return
    rows = table("Label", "Clips", "Precision", "Recall", "F1")
    for row in zip(
        metrics.labels, metrics.support, metrics.precision, metrics.recall, metrics.f1, strict=True
    ):
        rows.add_row(row[0], str(row[1]), *(f"{share:.3f}" for share in row[2:]))
    console().print(rows)
    typer.echo(_summary(metrics.accuracy, metrics.accuracy_low, metrics.accuracy_high, target))


@app.command()
def export(
    model: Model = DEFAULT_MODEL,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="onnx, onnx-int8, tflite, tflite-float16 or tflite-int8; may be repeated.",
            show_default="onnx",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder.", show_default="the model's folder")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Corpus to compare on, besides synthesised clips.", show_default=False),
    ] = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Make one self-contained file of a model, which runs without TensorFlow and librosa."""
    from speech.files import sweep_parts
    from speech.formats import export as exporting
    from speech.recognizer import load

    kinds = to or ["onnx"]
    for kind in kinds:
        if kind not in exporting.FORMATS:
            raise typer.BadParameter(f"expected {', '.join(exporting.FORMATS)}, got {kind!r}")
    folder = out or (model if model.is_dir() else model.parent)
    sweep_parts(folder, [form.file for form in exporting.FORMATS.values()])
    clips = None
    if data is not None:
        trained = load(model / "model.keras" if model.is_dir() else model)
        recordings = _decode(data, trained.features, cache)
        clips = exporting.validation_clips(recordings, trained.labels)
    rows = table("File", "Bytes", "Compared on", "MFCC", "Probability", "Labels moved", "Accuracy")
    for kind in kinds:
        made = exporting.export(model, kind, out, clips)
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(made) | {"path": str(made.path)}))
        for c in made.comparisons:
            accuracy = "" if c.accuracy is None else f"{c.accuracy_before:.2%} > {c.accuracy:.2%}"
            differences = f"{c.mfcc:.1e} dB", f"{c.probability:.1e}", str(c.moved), accuracy
            rows.add_row(str(made.path), f"{made.size:,}", f"{c.n:,} {c.clips}", *differences)
    if not as_json:
        console().print(rows)
    if clips is None:
        typer.echo("speech: no --data given, so speech was not among what was compared", err=True)


@app.command()
def benchmark(
    model: Model = DEFAULT_MODEL,
    rounds: Annotated[int, typer.Option(help="Values per metric.", min=1)] = 5,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write a page here.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a model costs on this machine: size, start, memory, latency, throughput."""
    from speech.evaluation import benchmark as bench
    from speech.files import write_text

    with progress("Measuring") as tell:
        measures = bench.benchmark(model, rounds, tell)
    if markdown is not None:
        write_text(markdown, bench.markdown(measures, shlex.join(["speech", *sys.argv[1:]])))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(m) for m in measures]))
        return
    rows = table("Metric", "Variant", "Median", "Spread")
    for row in bench.table(measures):
        rows.add_row(*row[:4])
    console().print(rows)


@app.command()
def info(model: Model = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Show what a model knows of itself: labels, features, where it comes from."""
    from speech.recognizer import load

    recognizer = load(model)
    known = {
        "name": recognizer.name,
        "file": recognizer.file,
        "labels": list(recognizer.labels),
        "features": recognizer.features.to_dict(),
        "provenance": recognizer.provenance,
    }
    if as_json:
        typer.echo(json.dumps(known))
        return
    rows = table("Field", "Value")
    for field, value in _flatten(known):
        rows.add_row(field, value)
    console().print(rows)


@app.command()
def doctor(
    model: Annotated[Path, typer.Option(help="Model to check.")] = DEFAULT_MODEL,
    as_json: AsJson = False,
) -> None:
    """Report versions, audio devices, GPU and model, and what to do about what is missing."""
    from speech.cli.diagnose import examine

    findings = examine(model)
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
        return
    rows = table("What", "Found", "What to do")
    for finding in findings:
        rows.add_row(*finding)
    console().print(rows)


# --- what the commands share --------------------------------------------------------------------


def _export_trained(run: Path) -> None:
    """Write ``model.onnx`` beside a model that was just trained, or say how to."""
    from speech.formats.export import FORMATS, export, missing_packages

    for form in FORMATS.values():
        (run / form.file).unlink(missing_ok=True)  # of the model that was here before
    missing = ", ".join(missing_packages())
    try:
        if not missing:
            export(run)
    except ModelError as error:  # the training was long, and its model is whole
        missing = str(error)
    if missing:
        typer.echo(
            f"speech: no model.onnx was made ({missing}); install it with: "
            f"{install_command('export')}; then run: speech export {shlex.quote(str(run))}",
            err=True,
        )


def _unexpected(error: Exception) -> str:
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in _EXTRAS:
        return (
            f"expected the package {package} for this, got none; install it with: "
            f"{install_command(_EXTRAS[package])}"
        )
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def _fail(message: str, code: int) -> None:
    typer.echo(f"speech: {message}", err=True)
    raise SystemExit(code)


def _summary(accuracy: float, low: float, high: float, folder: Path) -> str:
    interval = f"95 % interval {low:.2%} to {high:.2%}"
    return f"Accuracy {accuracy:.2%} ({interval}); report: {folder / 'README.md'}"


def _decode(root: Path, features: "FeatureConfig | None", cache: Path | None) -> "Recordings":
    from speech.data.corpus import index_corpus
    from speech.data.recordings import decode, default_cache
    from speech.features import FeatureConfig
    from speech.files import sweep_decoding

    sweep_decoding(cache or default_cache())
    corpus = index_corpus(root)
    if corpus.split_conflicts:
        typer.echo(
            f"speech: {len(corpus.split_conflicts)} clips whose list and speaker hash name "
            f"different splits, for example {corpus.split_conflicts[0]}; "
            "they train only where both say so",
            err=True,
        )
    with progress("Decoding") as tell:
        return decode(corpus, features or FeatureConfig(), cache, tell)


def _print_corpus(corpus: "Corpus") -> None:
    rows = table("Word", "Train", "Validation", "Test")
    for word in corpus.words():
        splits = [clip.split for clip in corpus.clips if clip.word == word]
        counts = (splits.count(s) for s in ("train", "validation", "test"))
        rows.add_row(word, *map(str, counts))
    console().print(rows)


def _changed(config: "TrainConfig", given: Mapping[str, Any], augment: bool) -> "TrainConfig":
    from speech.training.augment import AugmentConfig

    changes = {name: value for name, value in given.items() if value is not None}
    if not augment:
        changes["augment"] = AugmentConfig.none()
    return dataclasses.replace(config, **changes)


@contextlib.contextmanager
def _training_progress(epochs: int) -> Iterator[Any]:
    """A bar with the time left on a terminal, and a line an epoch everywhere."""
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        bars.TextColumn("Epoch {task.fields[epoch]}"),
        bars.BarColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=None, epoch=1)

        def tell(row: Mapping[str, Any]) -> None:
            if "step" in row:
                done = row["epoch"] * row["steps"] + row["step"]
                bar.update(
                    task, completed=done, total=epochs * row["steps"], epoch=row["epoch"] + 1
                )
            else:
                console.print(
                    f"epoch {row['epoch']:3d}  loss {row['loss']:.3f}"
                    f"  validation {row['val_accuracy']:.4f}"
                    f"  gradient {row['gradient_norm']:.2f}  {row['clips_per_second']:.0f} clips/s",
                    highlight=False,
                )

        yield tell


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)
