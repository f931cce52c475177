"""The command that searches for a better recipe."""

import dataclasses
import functools
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from speech.cli import options
from speech.cli.console import console, table
from speech.cli.options import DEFAULT_DATA, DecodingOptions, examples, grouped
from speech.cli.train import RecipeOptions, stoppable, training_data
from speech.environment import share_cores

app = typer.Typer()


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What is tried, how often and where."""

    trials: Annotated[
        int, typer.Option(min=1, max=100_000, help="Trials in the end, earlier ones included.")
    ] = 30
    space: Annotated[
        str, typer.Option(help="Search space of datasets/recipes/spaces, or a .toml.")
    ] = "default"
    pruner: Annotated[
        str, typer.Option(help="What ends hopeless trials early: median, hyperband or none.")
    ] = "median"
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the search.", show_default="runs/tune-RECIPE"),
    ] = None
    ray: options.Ray = "local"
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Trials at the same time; they share the cores.")
    ] = 1


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """How long a trial trains."""

    labels: options.Labels = None
    seed: options.Seed = None
    epochs: Annotated[
        int | None, typer.Option(show_default="the recipe's", min=1, help="Epochs of a trial.")
    ] = None
    epoch_clips: Annotated[
        int | None, typer.Option(show_default="the recipe's", min=1, help="Clips per epoch.")
    ] = None


@app.command(
    epilog=examples(
        "speech tune commands-8-quick --trials 40 --epochs 6 --data my_words",
        "speech tune mine.toml --space space.toml --trials 200 --ray auto --workers 8",
    )
)
@grouped
def tune(
    decoding: DecodingOptions,
    search: SearchOptions,
    schedule: ScheduleOptions,
    recipe: Annotated[
        str, typer.Argument(help="Recipe of datasets/recipes to begin with, or a .toml.")
    ] = "commands-8-quick",
    data: options.Data = DEFAULT_DATA,
    more_words: options.MoreWords = None,
    negative_speech: options.NegativeSpeech = None,
) -> None:
    """Search for a better recipe by many short trainings; validation clips choose."""
    share_cores()
    from speech.cluster import trials
    from speech.cluster.tune import PRUNERS, Search, kept_in
    from speech.cluster.tune import tune as run_search
    from speech.data.datasets import parse_labels
    from speech.training.recipes import read_sources
    from speech.training.sources import Source
    from speech.training.space import read_space

    if search.pruner not in PRUNERS:
        raise typer.BadParameter(f"expected {', '.join(PRUNERS)}, got {search.pruner!r}")
    labels, config = RecipeOptions(recipe, **dataclasses.asdict(schedule)).read()
    _, whole = RecipeOptions(recipe, labels=schedule.labels, seed=schedule.seed).read()
    label_set = parse_labels(labels)
    more = [Source(str(path), keep_all=True) for path in more_words or []]
    more += [Source(str(path), "speech") for path in negative_speech or []]
    more += read_sources(recipe)
    wanted = Search(
        read=functools.partial(training_data, decoding, data, labels=label_set, more=more),
        labels=label_set,
        recipe=whole,
        config=config,
        space=read_space(search.space, config),
        folder=search.out or Path("runs") / f"tune-{Path(recipe).stem}",
        sources=tuple(more),
        pruner=search.pruner,
    )

    def report(study: Any, number: int) -> None:
        trials.write(study, wanted, labels)
        _tell(study, number)

    with stoppable(wanted.folder), kept_in(wanted.folder):
        study = run_search(wanted, search.trials, search.ray, workers=search.workers, report=report)
        trials.draw(study, wanted.folder)
        trials.write(study, wanted, labels)
    _summarize(study, wanted.folder)


def _tell(study: Any, number: int) -> None:
    """A line on a trial that has ended."""
    trial = study.trials[number]
    facts = trial.user_attrs
    words = {"COMPLETE": "", "PRUNED": f"  pruned after epoch {facts.get('epochs')}"}
    ended = words.get(trial.state.name, f"  failed: {facts.get('error')}")
    accuracy = f"  validation {facts['accuracy']:.4f}" if "accuracy" in facts else ""
    try:
        best = f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    except ValueError:
        best = ""
    console(stderr=True).print(f"trial {number:3d}{accuracy}{ended}{best}", highlight=False)


def _summarize(study: Any, folder: Path) -> None:
    best = study.best_trial
    rows = table("Parameter", "Best trial", *(["Recipe"] if _recipe(study) else []))
    for name, value in best.params.items():
        rows.add_row(name, *(f"{t.params[name]:.4g}" if isinstance(value, float) else
                             str(t.params[name]) for t in [best, *_recipe(study)]))  # fmt: skip
    rows.add_row("validation", *(f"{t.value:.4f}" for t in [best, *_recipe(study)]))
    console().print(rows)
    typer.echo(f"Written: {folder / 'README.md'}; trial {best.number} of {len(study.trials)}")
    typer.echo(f"Next: speech train --recipe {shlex.quote(str(folder / 'recipe.toml'))}")


def _recipe(study: Any) -> list[Any]:
    """The trial of the recipe as it was, if it was tried to its end."""
    return [t for t in study.trials if t.user_attrs.get("recipe") and t.state.name == "COMPLETE"]
