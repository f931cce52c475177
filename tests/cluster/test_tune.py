"""A search: what Optuna chooses is trained once, pruned, kept, and told to people."""

import csv
import dataclasses
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from speech.cluster import trials, tune
from speech.cluster.tune import Outcome, Search
from speech.errors import CorpusError, EvidenceError, ModelError
from speech.formats.folder import ModelFolder
from speech.training.config import TrainConfig
from speech.training.recipes import read_recipe
from speech.training.space import Parameter, Space
from tests import tiny
from tests.conftest import PROJECT

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


def read_tiny(folder: Path, config: TrainConfig) -> Any:
    return tiny.data(folder)


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

    def work(trial: Any, search: Search, config: TrainConfig) -> Outcome:
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
    outcome = tune._work(trial, search, search.config)
    assert (outcome.state, outcome.facts["epochs"]) == ("PRUNED", 2)
    tune._end(study, search, trial, outcome)
    assert study.trials[trial.number].state.name == "PRUNED"
    assert not ModelFolder(search.run(trial.number)).checkpoint.exists()
    trials.write(study, search, "low,high")
    assert "| pruned |" in (search.folder / trials.PAGE).read_text()


def test_a_training_that_fails_is_a_failed_trial_and_all_of_them_end_the_search(
    tmp_path, at_once, monkeypatch, refused
):
    def work(trial: Any, search: Search, config: TrainConfig) -> Outcome:
        return Outcome("FAIL", {"error": "the gradient exploded"})

    monkeypatch.setattr(tune, "_work", work)
    message = refused(EvidenceError, lambda: tune.tune(searching(tmp_path), 2, "local"))
    assert "none of 2 (the gradient exploded)" in message


def test_a_gradient_that_explodes_fails_the_trial_alone(tmp_path):
    search = searching(tmp_path)
    config = dataclasses.replace(search.config, max_gradient_norm=1e-9)
    study = tune.open_study(search, {})
    outcome = tune._work(study.ask(), search, config)
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


def command(folder: Path, corpus: Path, *more: str) -> list[str]:
    (folder / "small.toml").write_text(
        'labels = "yes,no"\n[train]\nepochs = 4\nepoch_clips = 32\nbatch_size = 16\n'
        "n_backgrounds = 4\n[train.architecture]\nconv_filters = [4]\nlstm_layers = 1\n"
        "lstm_units = 4\n"
    )
    (folder / "space.toml").write_text("[learning_rate]\nlow = 1e-3\nhigh = 1e-2\nlog = true\n")
    given = ["tune", str(folder / "small.toml"), "--space", str(folder / "space.toml")]
    given += ["--data", str(corpus), "--out", str(folder / "out"), *more]
    return [sys.executable, "-m", "speech", *given]


@pytest.mark.slow
def test_a_search_on_ray_that_is_stopped_by_ctrl_c_goes_on_with_the_same_command(
    tmp_path, tiny_corpus
):
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    line = command(tmp_path, tiny_corpus, "--trials", "2")
    history = ModelFolder(tmp_path / "out" / "trials" / "0000").history
    first = subprocess.Popen(line, cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    while not history.exists() and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate()
    assert first.returncode == 130, told
    assert "give the same command again" in told.splitlines()[-1]
    before = json.loads(history.read_text())
    second = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert json.loads(history.read_text())[: len(before)] == before, "no epoch was done twice"
    with (tmp_path / "out" / trials.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["whole", "whole"]
    read_recipe(str(tmp_path / "out" / trials.RECIPE))
    assert (tmp_path / "out" / "history.png").exists()


def test_without_optuna_the_command_names_the_package_and_how_to_get_it(tmp_path, tiny_corpus):
    program = "import sys; sys.modules['optuna'] = None; from speech.cli.main import main; main()"
    line = command(tmp_path, tiny_corpus)
    done = subprocess.run(
        [sys.executable, "-c", program, *line[3:]], capture_output=True, text=True, cwd=PROJECT
    )
    assert done.returncode == 9
    [told] = done.stderr.splitlines()
    assert "expected Optuna" in told
    assert "cluster" in told
