"""The command that makes a causal student of a model."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from speech.cli import options
from speech.cli.console import progress
from speech.cli.options import DEFAULT_DATA, DEFAULT_MODEL, DecodingOptions, examples, grouped
from speech.cli.train import export_trained, stoppable, training_progress
from speech.environment import limit_blas
from speech.errors import ModelError

app = typer.Typer()


@dataclasses.dataclass(frozen=True)
class StudentOptions:
    """How the student is made, and where it is kept."""

    recipe: Annotated[
        str, typer.Option(help="Recipe of datasets/recipes with a causal network, or a .toml.")
    ] = "commands-8-stream"
    hours: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Hours of streams to learn from.")
    ] = 8.0
    look_ahead: Annotated[
        float,
        typer.Option(min=0, max=1, help="Seconds that an answer waits behind the clip it is for."),
    ] = 0.04
    seed: options.Seed = None
    epochs: Annotated[
        int | None, typer.Option(show_default="the recipe's", min=1, help="Most epochs.")
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="runs/MODEL-stream"),
    ] = None
    resume: options.Resume = False
    overwrite: options.Overwrite = False

    def folder(self, teacher: str) -> Path:
        """The folder of the run; a model or a run in it is not written over unasked."""
        from speech.formats.folder import ModelFolder

        run = self.out or Path("runs") / f"{teacher}-stream"
        there = ModelFolder(run).keras.exists() or ModelFolder(run).checkpoint.exists()
        if there and not (self.resume or self.overwrite):
            raise ModelError(
                f"{run}: expected a new folder, but a run is there; go on with --resume, begin "
                "anew with --overwrite, or choose another --out"
            )
        return run


@app.command(
    epilog=examples(
        "speech distill commands-8 --data datasets/speech_commands_v0.02 --negative-speech radio",
        "speech distill saved_models/mine --data my_words --hours 2 --out saved_models/mine-stream",
    )
)
@grouped
def distill(
    decoding: DecodingOptions,
    student: StudentOptions,
    teacher: options.Model = DEFAULT_MODEL,
    data: options.Data = DEFAULT_DATA,
    more_words: options.MoreWords = None,
    negative_speech: options.NegativeSpeech = None,
) -> None:
    """Train a causal student of a model: it carries its state, and answers every 40 ms."""
    limit_blas()
    from speech.recognizer import load
    from speech.training import distill as distilling
    from speech.training import sources
    from speech.training.recipes import read_recipe, read_sources
    from speech.training.streams import StreamPlan

    recognizer = load(teacher)
    run = student.folder(recognizer.name)
    _, config = read_recipe(student.recipe)
    config = dataclasses.replace(
        config,
        seed=config.seed if student.seed is None else student.seed,
        epochs=student.epochs or config.epochs,
    )
    more = [sources.Source(str(path), keep_all=True) for path in more_words or []]
    more += [sources.Source(str(path), "speech") for path in negative_speech or []]
    more += read_sources(student.recipe)
    recordings = decoding.read(data, config.features)
    decoded = sources.with_sources(recordings, config.features, more, strict=decoding.strict)
    plan = StreamPlan(hours=student.hours, look_ahead_seconds=student.look_ahead)
    with (
        stoppable(run),
        training_progress(config.epochs, None) as report,
        progress("Building streams") as on_progress,
    ):
        distilling.distill(
            decoded,
            recognizer,
            config,
            plan,
            run,
            resume=student.resume,
            report=report,
            on_progress=on_progress,
        )
    export_trained(run)
    folder = shlex.quote(str(run))
    typer.echo(f"Written: {run}; next: speech tune-thresholds {folder} --store, then speech score")
