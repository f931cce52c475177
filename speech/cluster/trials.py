"""What a search leaves for people: a recipe, a table of the trials, and Optuna's pictures."""

import contextlib
import csv
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech.cluster.tune import Search
from speech.environment import command_line
from speech.evaluation.markdown import code, table
from speech.files import replacing, write_text
from speech.training.recipes import write_recipe
from speech.training.space import changed

if TYPE_CHECKING:
    import optuna

RECIPE, TABLE, PAGE = "recipe.toml", "trials.csv", "README.md"
_STATES = {"COMPLETE": "whole", "PRUNED": "pruned", "FAIL": "failed"}
_PICTURES = {
    "history": "Accuracy of each trial",
    "importance": "What the accuracy depends on",
    "parallel": "Values and accuracy of each trial",
}
_NUMBERS = ("accuracy", "epochs", "seconds", "weights")


def write(study: "optuna.Study", search: Search, labels: str) -> None:
    """Write the table of the trials that have ended, as CSV and as a page, and the best recipe.

    Args:
        study: As ``tune`` returns it, or reports it meanwhile.
        search: What was searched.
        labels: The classes as a recipe names them.
    """
    ended = [trial for trial in study.get_trials() if trial.state.is_finished()]
    ended.sort(key=lambda t: (t.state.name != "COMPLETE", -t.user_attrs.get("accuracy", -1.0)))
    names = [each.short for each in search.space.parameters]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["trial", "state", *_NUMBERS, *names, "error"])
    for trial in ended:
        facts = [trial.user_attrs.get(name, "") for name in _NUMBERS]
        values = [trial.params.get(name, "") for name in names]
        state, error = _STATES[trial.state.name], trial.user_attrs.get("error", "")
        lines.writerow([trial.number, state, *facts, *values, error])
    write_text(search.folder / TABLE, text.getvalue())
    write_text(search.folder / PAGE, _page(ended, search, names))
    if ended and ended[0].state.name == "COMPLETE":
        best = ended[0]
        space = search.space.parameters
        chosen = {each.name: each.taken(best.params[each.short]) for each in space}
        note = (
            f"Trial {best.number} of a search: {best.value:.2%} of the validation clips, after "
            f"{search.config.epochs} epochs of {search.config.epoch_clips} clips."
        )
        config = changed(search.recipe, chosen)
        write_recipe(search.folder / RECIPE, labels, config, search.sources, note)


def _page(ended: "list[optuna.trial.FrozenTrial]", search: Search, names: list[str]) -> str:
    config = search.config
    rows = [
        [
            f"{trial.number}{' (the recipe)' if trial.user_attrs.get('recipe') else ''}",
            trial.user_attrs.get("error") or _STATES[trial.state.name],
            f"{trial.user_attrs['accuracy']:.2%}" if "accuracy" in trial.user_attrs else "",
            *(trial.user_attrs.get(name, "") for name in ("epochs", "seconds")),
            _short(trial.user_attrs.get("weights", "")),
            *(_short(trial.params.get(name, "")) for name in names),
        ]
        for trial in ended
    ]
    header = ["trial", "state", *_NUMBERS, *(code(name) for name in names)]
    pictures = "".join(
        f"\n![{title}]({name}.png)\n" for name, title in _PICTURES.items()
        if (search.folder / f"{name}.png").exists()
    )  # fmt: skip
    return (
        f"# Trials\n\n`{command_line()}`\n\nEach trial: at most {config.epochs} epochs of "
        f"{config.epoch_clips:,} clips. Accuracy is that of the best epoch on the validation "
        "clips, which have also chosen the best trial, so a little of it is luck; the test clips "
        f"have chosen nothing.\n\n{table(header, rows)}\n{pictures}"
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw(study: "optuna.Study", folder: Path) -> None:
    """Draw Optuna's pictures: ``history.png``, ``importance.png`` and ``parallel.png``.

    Those that so few trials cannot make are left out: each wants a whole trial, the importance of
    the parameters two of different accuracy.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna says that these are experimental
        from optuna.visualization import matplotlib as pictures

        wanted: dict[str, Callable[[], Any]] = {
            "history": lambda: pictures.plot_optimization_history(study, target_name="accuracy"),
            "importance": lambda: pictures.plot_param_importances(study, target_name="accuracy"),
            "parallel": lambda: pictures.plot_parallel_coordinate(study, target_name="accuracy"),
        }
        values = {trial.value for trial in study.get_trials(deepcopy=False) if _is_whole(trial)}
        for name, make in wanted.items():
            if values and (name != "importance" or len(values) > 1):
                with _style(2 + len(study.best_params)):
                    _save(make(), folder / f"{name}.png")


def _is_whole(trial: "optuna.trial.FrozenTrial") -> bool:
    return trial.state.name == "COMPLETE"


@contextlib.contextmanager
def _style(columns: int) -> Iterator[None]:
    """Room for so many columns; what Optuna changes in matplotlib's style is as before outside."""
    import matplotlib as mpl

    size = max(12.0, 1.5 * columns), 6.0
    with mpl.rc_context({"figure.figsize": size}):
        yield


def _save(axes: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    for label in axes.get_xticklabels():
        if label.get_rotation():  # a name goes on from its column, not across it
            label.set_horizontalalignment("left")
    try:
        with replacing(path) as part:
            axes.figure.savefig(part, dpi=100, bbox_inches="tight")
    finally:
        plt.close(axes.figure)
