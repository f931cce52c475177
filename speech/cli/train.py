"""The commands that make models: prepare, train and export."""

import contextlib
import dataclasses
import functools
import json
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from speech.cli import options
from speech.cli.console import console, progress, table, warn
from speech.cli.options import DEFAULT_DATA, DEFAULT_MODEL, DecodingOptions, examples, grouped
from speech.environment import share_cores
from speech.errors import CorpusError, ModelError
from speech.installation import install_command

if TYPE_CHECKING:
    from speech.data.corpus import Corpus
    from speech.evaluation.metrics import ClipMetrics
    from speech.labels import LabelSet
    from speech.training.config import TrainConfig
    from speech.training.sources import Source, TrainingData

app = typer.Typer()
_WEB = "web"  # a folder, beside the files of FORMATS
Report = Callable[[Mapping[str, Any]], None]


@app.command(epilog=examples("speech prepare", "speech prepare --data my_words"))
@grouped
def prepare(
    decoding: DecodingOptions,
    dataset: options.Dataset = "speech_commands_v0.02",
    folder: options.DatasetsFolder = Path("datasets"),
    data: options.ReadyData = None,
    keep_archive: options.KeepArchive = False,
) -> None:
    """Download a corpus, check and unpack it, and decode its clips once."""
    from speech.data.datasets import dataset_specs
    from speech.data.download import download, unpack

    root = data or folder / dataset
    if data is None and not root.exists():
        if dataset not in dataset_specs():
            raise CorpusError(f"dataset {dataset!r}: expected one of {', '.join(dataset_specs())}")
        with progress("Downloading", in_bytes=True) as on_progress:
            archive = download(dataset_specs()[dataset].archive, folder, on_progress)
        with progress("Unpacking") as on_progress:
            unpack(archive, root, on_progress)
        if not keep_archive:
            archive.unlink()
    recordings = decoding.read(root)
    _print_corpus(recordings.corpus)
    typer.echo(f"Contents: SHA-256 {recordings.digest}")
    typer.echo(f"Next: speech train --data {shlex.quote(str(root))} --labels commands-8")


@dataclasses.dataclass(frozen=True)
class RecipeOptions:
    """What to train: a recipe or the config of a run, and the fields of it to change."""

    recipe: options.Recipe = None
    config: options.RunConfig = None
    labels: options.Labels = None
    augment: options.Augment = True
    seed: options.Seed = None
    epochs: options.Epochs = None
    epoch_clips: options.EpochClips = None
    batch_size: options.BatchSize = None
    learning_rate: options.LearningRate = None
    patience: options.Patience = None

    def read(self) -> "tuple[str, TrainConfig]":
        """The labels as text, and the config."""
        from speech.training.augment import AugmentConfig
        from speech.training.recipes import read_config, read_recipe

        default = "commands-8-quick" if self.labels else "commands-8"
        labels, config = read_recipe(self.recipe or default)
        if self.config:
            config = read_config(self.config)
        names = {field.name for field in dataclasses.fields(config)} - {"augment"}
        changes = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name in names and value is not None
        }
        if not self.augment:
            changes["augment"] = AugmentConfig.none()
        size, clips = (changes.get(n, getattr(config, n)) for n in ("batch_size", "epoch_clips"))
        if size > clips:
            raise typer.BadParameter(
                f"expected --batch-size of at most --epoch-clips, {clips}, got {size}; lower it"
            )
        return self.labels or labels, self.changed(config, **changes)

    @staticmethod
    def changed(config: "TrainConfig", **changes: Any) -> "TrainConfig":
        """The config with other fields, which the user has chosen."""
        try:
            return dataclasses.replace(config, **changes)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    def sources(self) -> "tuple[Source, ...]":
        """What the recipe trains on besides the corpus."""
        from speech.training.recipes import read_sources

        return read_sources(self.recipe) if self.recipe else ()


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a training keeps its files, and what it does with those that are there."""

    out: options.RunFolder = None
    resume: options.Resume = False
    overwrite: options.Overwrite = False
    start_from: options.StartFrom = None
    tensorboard: options.TensorBoard = None

    def folder(self, labels: "LabelSet", seed: int) -> tuple[Path, bool]:
        """The folder of the run, and whether a run in it goes on.

        Raises:
            ModelError: A finished model is there, and nothing was said about it.
        """
        from speech.formats.folder import ModelFolder

        run = self.out or Path("runs") / f"{labels.name.replace(' ', '-')}-{seed}"
        interrupted = ModelFolder(run).checkpoint.exists() or ModelFolder(run).cluster.exists()
        if self.overwrite or self.resume:
            return run, self.resume and not self.overwrite
        if ModelFolder(run).keras.exists():
            raise ModelError(
                f"{run}: expected a new folder, but a model is there; go on with --resume and more "
                "--epochs, begin anew with --overwrite, or choose another --out"
            )
        if interrupted:
            warn(f"{run}: going on with the run that was interrupted; begin anew with --overwrite")
        return run, interrupted


@dataclasses.dataclass(frozen=True)
class Machines:
    """Where a training runs, if not here and in this process."""

    ray: options.Ray = ""
    workers: options.Workers = 1


@app.command(
    epilog=examples(
        "speech train --data datasets/speech_commands_v0.02",
        "speech train --data my_words --labels start,stop --out saved_models/mine",
        "speech train --out runs/mine --resume",
        "speech train --ray auto --workers 4 --data /shared/corpus --out /shared/runs/mine",
    )
)
@grouped
def train(
    decoding: DecodingOptions,
    recipe: RecipeOptions,
    place: RunOptions,
    machines: Machines,
    data: options.Data = DEFAULT_DATA,
    more_words: options.MoreWords = None,
    negative_speech: options.NegativeSpeech = None,
) -> None:
    """Train a model. The folder of the run is the folder of the model when it is done."""
    if machines.workers > 1 and not machines.ray:
        raise typer.BadParameter("expected --ray with --workers, got none; add --ray local")
    share_cores()
    from speech.data.datasets import parse_labels
    from speech.evaluation import model_card
    from speech.recognizer import load
    from speech.training import sources, trainer

    labels, config = recipe.read()
    label_set = parse_labels(labels)
    more = [sources.Source(str(path), keep_all=True) for path in more_words or []]
    more += [sources.Source(str(path), "speech") for path in negative_speech or []]
    more += recipe.sources()
    run, resume = place.folder(label_set, config.seed)
    recordings = decoding.read(data, config.features, label_set.words)
    log = trainer.tensorboard_writer(place.tensorboard) if place.tensorboard else None
    with stoppable(run), training_progress(config.epochs, log) as report:
        if machines.ray:
            from speech.cluster import train as together

            config = recipe.changed(config, parts=machines.workers)
            read = functools.partial(training_data, decoding, data, config, label_set, more)
            training = together.Training(read, label_set, config, place.start_from)
            count = machines.workers
            together.train(training, run, machines.ray, workers=count, resume=resume, report=report)
        else:
            trainer.train(
                sources.with_sources(recordings, config.features, more, strict=decoding.strict),
                label_set,
                config,
                run,
                start_from=place.start_from,
                resume=resume,
                report=report,
            )
    export_trained(run)
    metrics = model_card.evaluate(load(run), recordings, run)
    typer.echo(summary(metrics, run))


@app.command(
    epilog=examples(
        "speech export saved_models/mine",
        "speech export saved_models/mine --to tflite-int8 --data my_words",
        "speech export saved_models/mine --to web",
    )
)
@grouped
def export(
    decoding: DecodingOptions,
    model: options.Model = DEFAULT_MODEL,
    to: options.Formats = None,
    out: options.ExportOut = None,
    data: options.RealClips = None,
    runtime: options.Runtime = None,
    as_json: options.AsJson = False,
) -> None:
    """Make one self-contained file of a model, or a page that listens without a server."""
    from speech.formats.export import FORMATS

    known = [*FORMATS, _WEB]
    kinds = to or ["onnx"]
    for kind in kinds:
        if kind not in known:
            raise typer.BadParameter(f"expected {', '.join(known)}, got {kind!r}")
    if files := [kind for kind in kinds if kind != _WEB]:
        _export_files(decoding, model, files, out, data, as_json)
    if _WEB in kinds:
        _export_page(model, out, runtime, as_json)


def _export_files(
    decoding: DecodingOptions,
    model: Path,
    kinds: list[str],
    out: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    from speech.files import sweep_parts
    from speech.formats import export as exporting
    from speech.formats.folder import ModelFolder
    from speech.recognizer import load

    folder = out or ModelFolder.around(model).path
    sweep_parts(folder, [form.file for form in exporting.FORMATS.values()])
    clips = None
    if data is not None:
        trained = load(ModelFolder(model).keras if model.is_dir() else model)
        recordings = decoding.read(data, trained.features)
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
        warn("no --data given, so speech was not among what was compared")


def _export_page(model: Path, out: Path | None, runtime: Path | None, as_json: bool) -> None:
    from speech.web.export import export_page

    with progress("Downloading", in_bytes=True) as on_progress:
        page = export_page(model, out, runtime, on_progress)
    if as_json:
        typer.echo(json.dumps(page._asdict() | {"path": str(page.path)}))
        return
    folder = shlex.quote(str(page.path))
    typer.echo(f"{page.path}: {page.files} files, {page.size / 1e6:.1f} MB, for any static server")
    typer.echo(f"Try it: python -m http.server -b 127.0.0.1 -d {folder}")
    typer.echo("and open http://127.0.0.1:8000 (Ctrl-C ends it)")


# --- what the commands share --------------------------------------------------------------------


def training_data(
    decoding: DecodingOptions,
    data: Path,
    config: "TrainConfig",
    labels: "LabelSet",
    more: "list[Source]",
) -> "TrainingData":
    """Decode a corpus, which has to hold the words of the labels, and the sources beside it."""
    from speech.training.sources import with_sources

    recordings = decoding.read(data, config.features, labels.words)
    return with_sources(recordings, config.features, more, strict=decoding.strict)


def export_trained(run: Path) -> None:
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
        warn(
            f"no model.onnx was made ({missing}); install it with: {install_command('export')}; "
            f"then run: speech export {shlex.quote(str(run))}"
        )


@contextlib.contextmanager
def stoppable(run: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM end a training with a sentence about how to go on."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        warn(f"stopped; all whole epochs are kept in {run}; to go on, give the same command again")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def summary(metrics: "ClipMetrics", folder: Path) -> str:
    """One line on what was measured of a model."""
    interval = f"95 % interval {metrics.accuracy_low:.2%} to {metrics.accuracy_high:.2%}"
    return f"Accuracy {metrics.accuracy:.2%} ({interval}); report: {folder / 'README.md'}"


def _print_corpus(corpus: "Corpus") -> None:
    rows = table("Word", "Train", "Validation", "Test")
    for word in corpus.words():
        splits = [clip.split for clip in corpus.clips if clip.word == word]
        counts = (splits.count(s) for s in ("train", "validation", "test"))
        rows.add_row(word, *map(str, counts))
    console().print(rows)


@contextlib.contextmanager
def training_progress(epochs: int, log: Report | None) -> Iterator[Report]:
    """A bar with the time left on a terminal, and a line an epoch everywhere."""
    from rich import progress as bars

    screen = console(stderr=True)
    columns = (
        bars.TextColumn("Epoch {task.fields[epoch]}"),
        bars.BarColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task("train", total=None, epoch=1)

        def report(row: Mapping[str, Any]) -> None:
            if log is not None and "step" not in row:
                log(row)
            if "step" in row:
                done = row["epoch"] * row["steps"] + row["step"]
                bar.update(
                    task, completed=done, total=epochs * row["steps"], epoch=row["epoch"] + 1
                )
            else:
                screen.print(
                    f"epoch {row['epoch']:3d}  loss {row['loss']:.3f}"
                    f"  validation {row['val_accuracy']:.4f}"
                    f"  gradient {row['gradient_norm']:.2f}  {row['clips_per_second']:.0f} clips/s",
                    highlight=False,
                )

        yield report
