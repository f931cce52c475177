"""A search: what Optuna chooses is trained once, pruned, kept, and told to people."""

import csv
import dataclasses
import functools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from speech.cli.main import app
from speech.cluster import trials, tune
from speech.cluster.engine import ClusterError, Origin
from speech.cluster.tune import Outcome, Search
from speech.errors import CorpusError, EvidenceError, ModelError
from speech.formats.folder import ModelFolder
from speech.training.config import TrainConfig
from speech.training.recipes import read_recipe
from speech.training.space import Parameter, Space
from tests import tiny
from tests.cluster.jobs import read_tiny

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
SPACE = Space(
    (
        Parameter("learning_rate", 1e-3, 1e-1, log=True),
        Parameter("architecture.lstm_units", 4, 16, step=4),
        Parameter("architecture.conv_filters", choices=("[8]", "[8, 8]")),
    )
)


def searching(folder: Path, /, **changes: Any) -> Search:
    config = tiny.config()
    read = functools.partial(read_tiny, folder)
    search = Search(read, tiny.LABELS, config, config, SPACE, folder / "search")
    return dataclasses.replace(search, **changes)


class HereAndNow:
    """Ray as far as a search needs it, of one process that does everything at once."""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **_: Any) -> Any:
        return lambda function: Task(function)

    def wait(self, asked: list[Any]) -> tuple[list[Any], list[Any]]:
        return asked[:1], asked[1:]

    def get(self, asked: Any) -> Any:
        return asked()

    def cancel(self, asked: Any, **_: Any) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Task:
    function: Any

    def options(self, **_: Any) -> "Task":
        return self

    def remote(self, *given: Any) -> Any:
        return functools.partial(self.function, *given)


@pytest.fixture
def at_once(monkeypatch) -> list[TrainConfig]:
    """No Ray and no training: the larger network is the better one. The list is what was tried."""
    tried: list[TrainConfig] = []

    @contextmanager
    def cluster(address: str, **_: Any) -> Iterator[HereAndNow]:
        yield HereAndNow()

    def work(trial: Any, search: Search, config: TrainConfig, origin: Origin) -> Outcome:
        tried.append(config)
        facts = {"accuracy": config.architecture.lstm_units / 100, "epochs": 2, "seconds": 0.1}
        return Outcome("COMPLETE", facts)

    monkeypatch.setattr(tune, "cluster", cluster)
    monkeypatch.setattr(tune, "_work", work)
    return tried


def test_the_recipe_is_tried_first_and_nothing_is_tried_twice(tmp_path, at_once):
    search = searching(tmp_path)
    study = tune.tune(search, 3, "local")
    assert at_once[0] == search.config
    assert study.trials[0].user_attrs["recipe"]
    study = tune.tune(search, 8, "local", workers=3)
    assert len(at_once) == len(study.trials) == 8
    rates = [config.learning_rate for config in at_once]
    assert len(set(rates)) == 8, "the sampler goes on, too"
    tune.tune(search, 8, "local")
    assert len(at_once) == 8


def test_a_trial_that_was_interrupted_goes_on_as_the_same_trial(tmp_path, at_once, monkeypatch):
    search = searching(tmp_path)

    def interrupted(self: HereAndNow, asked: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HereAndNow, "get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune.tune(search, 2, "local", workers=2)
    study = tune.tune(search, 2, "local")
    assert [trial.number for trial in study.trials] == [0, 1]
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    drawn = [trial.params["lstm_units"] for trial in study.trials]
    assert sorted(c.architecture.lstm_units for c in at_once) == sorted(drawn)


def test_the_best_trial_is_written_as_a_recipe_with_the_schedule_of_the_first(tmp_path, at_once):
    search = searching(tmp_path)
    search = dataclasses.replace(search, config=dataclasses.replace(search.recipe, epochs=1))
    study = tune.tune(search, 6, "local")
    trials.write(study, search, "low,high")
    labels, config = read_recipe(str(search.folder / trials.RECIPE))
    best = study.best_trial.params
    assert labels == "low,high"
    assert config.epochs == search.recipe.epochs != search.config.epochs
    assert config.architecture.lstm_units == best["lstm_units"]
    assert list(config.architecture.conv_filters) == json.loads(best["conv_filters"])
    with (search.folder / trials.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["trial"]) for row in rows) == list(range(6))
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    trials.draw(study, search.folder)
    trials.write(study, search, "low,high")
    page = (search.folder / trials.PAGE).read_text()
    for name in ("history", "importance", "parallel"):
        assert (search.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({name}.png)" in page


def test_a_trial_worse_than_the_median_of_others_is_ended_early(tmp_path):
    search = searching(tmp_path)
    search = dataclasses.replace(search, config=dataclasses.replace(search.config, epochs=8))
    study = tune.open_study(search, {})
    for _ in range(4):
        trial = study.ask()
        search.space.draw(trial, search.config)
        for epoch in range(1, 9):
            trial.report(2.0, epoch)
        study.tell(trial, 2.0)
    trial = study.ask()
    outcome = tune._work(trial, search, search.config, Origin.here())
    assert (outcome.state, outcome.facts["epochs"]) == ("PRUNED", 2)
    tune._end(study, search, trial, outcome)
    assert study.trials[trial.number].state.name == "PRUNED"
    assert not ModelFolder(search.run(trial.number)).checkpoint.exists()
    trials.write(study, search, "low,high")
    assert "| pruned |" in (search.folder / trials.PAGE).read_text()


def test_a_training_that_fails_is_a_failed_trial_and_all_of_them_end_the_search(
    tmp_path, at_once, monkeypatch, refused
):
    def work(trial: Any, search: Search, config: TrainConfig, origin: Origin) -> Outcome:
        return Outcome("FAIL", {"error": "the gradient exploded"})

    monkeypatch.setattr(tune, "_work", work)
    message = refused(EvidenceError, lambda: tune.tune(searching(tmp_path), 2, "local"))
    assert "none of 2 (the gradient exploded)" in message


def test_a_gradient_that_explodes_fails_the_trial_alone(tmp_path):
    search = searching(tmp_path)
    config = dataclasses.replace(search.config, max_gradient_norm=1e-9)
    study = tune.open_study(search, {})
    outcome = tune._work(study.ask(), search, config, Origin.here())
    assert outcome.state == "FAIL"
    assert "exploded" in outcome.facts["error"]


def test_a_folder_of_another_search_is_refused(tmp_path, at_once, refused):
    search = searching(tmp_path)
    tune.tune(search, 1, "local")
    longer = dataclasses.replace(search.config, epochs=5)
    others = {
        "space": dataclasses.replace(search, space=Space(SPACE.parameters[:2])),
        "recipe": dataclasses.replace(search, config=longer),
        "pruner": dataclasses.replace(search, pruner="none"),
        "data": dataclasses.replace(search, read=lambda _: tiny.data(tmp_path, n_train=20)),
    }
    for name, other in others.items():
        message = refused(ModelError, lambda other=other: tune.tune(other, 1, "local"))
        assert f"another {name}" in message
    assert len(at_once) == 1


def test_a_folder_that_a_search_works_in_is_refused_to_another(tmp_path, at_once, refused):
    search = searching(tmp_path)

    def another(*_: Any) -> None:
        assert "no other search works in" in refused(
            ModelError, lambda: tune.tune(search, 1, "local")
        )

    assert len(tune.tune(search, 1, "local", report=another).trials) == 1
    assert len(tune.tune(search, 2, "local").trials) == 2, "it is free when the search has ended"


def test_a_corpus_without_validation_clips_cannot_choose(tmp_path, at_once, refused):
    search = searching(tmp_path, read=lambda _: tiny.data(tmp_path, n_validation=0))
    assert "validation" in refused(CorpusError, lambda: tune.tune(search, 1, "local"))
    assert not search.folder.exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path, at_once, refused):
    (tmp_path / "file").write_text("")
    search = searching(tmp_path, folder=tmp_path / "file" / "search")
    message = refused(ModelError, lambda: tune.tune(search, 1, "local"))
    assert "\n" not in message

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    whole = searching(tmp_path)
    assert "No space left" in refused(ModelError, lambda: tune.tune(whole, 2, "local", report=full))
    tune.tune(whole, 2, "local")
    assert len(at_once) == 2, "what was done before stays"


def test_without_optuna_the_error_names_the_package_and_how_to_get_it(
    tmp_path, monkeypatch, refused
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    message = refused(ClusterError, lambda: tune.tune(searching(tmp_path), 1, "local"))
    assert "expected Optuna" in message
    assert "cluster" in message
    assert ClusterError.exit_code == 9


def test_the_command_says_what_it_tried_and_how_to_use_the_best(
    tmp_path, tiny_corpus, at_once, capsys
):
    space = tmp_path / "space.toml"
    space.write_text("[architecture.lstm_units]\nlow = 64\nhigh = 128\nstep = 32\n")
    given = ["commands-8-quick", "--labels", "yes,no", "--epochs", "2", "--trials", "3"]
    given += ["--space", str(space), "--data", str(tiny_corpus), "--out", str(tmp_path / "out")]
    app(["tune", *given], standalone_mode=False)
    told = capsys.readouterr()
    first = told.err.splitlines()[0]
    assert first.split() == ["trial", "0", "validation", "1.2800", "best", "1.2800", "(trial", "0)"]
    assert len(told.err.splitlines()) == 3
    line = told.out.splitlines()[-1]
    assert line == f"Next: speech train --recipe {tmp_path / 'out' / 'recipe.toml'}"
    labels, config = read_recipe(line.rpartition(" ")[2])
    assert (labels, config) == ("yes,no", read_recipe("commands-8-quick")[1])
    with pytest.raises(typer.BadParameter, match="median, hyperband, none"):
        app(["tune", *given, "--pruner", "all"], standalone_mode=False)
