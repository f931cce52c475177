"""Search spaces: what a file may say, and that a recipe is written as it is read."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from speech.errors import ModelError
from speech.training.config import TrainConfig
from speech.training.recipes import read_recipe, read_sources, write_recipe
from speech.training.space import changed, read_space
from tests.conftest import PROJECT

RECIPES = sorted(path.stem for path in (PROJECT / "datasets" / "recipes").glob("*.toml"))


def leaves(config: dict[str, Any]) -> list[str]:
    return [
        leaf
        for name, value in config.items()
        for leaf in (leaves(value) if isinstance(value, dict) else [name])
    ]


def test_the_default_space_holds_the_quick_recipe_and_gives_what_stands_in_it():
    _, config = read_recipe("commands-8-quick")
    space = read_space("default", config)
    point = space.point(config)
    assert point is not None
    assert space.draw(optuna.trial.FixedTrial(point), config) == config
    lowest = {each.short: each.told(each.ends()[0]) for each in space.parameters}
    drawn = space.draw(optuna.trial.FixedTrial(lowest), config)
    assert drawn.architecture.conv_filters == (32, 64)
    assert drawn.architecture.lstm_units == 64
    assert isinstance(drawn.batch_size, int)
    assert space.point(changed(config, {"batch_size": 1024})) is None
    assert space.point(changed(config, {"architecture.lstm_units": 100})) is None, "off the grid"


def test_no_two_fields_of_a_recipe_end_in_the_same_name():
    names = leaves(TrainConfig().to_dict())
    assert len(names) == len(set(names)), "Parameter.short tells them apart"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[learning_rat]\nlow = 1e-4\nhigh = 1e-3", "the field learning_rat"),
        ("[architecture.units]\nlow = 1\nhigh = 2", "the field architecture.units"),
        ("[seed]\nlow = 1\nhigh = 9", "the field seed"),
        ("[learning_rate]\nlow = 1e-2\nhigh = 1e-3", "low below high"),
        ("[learning_rate]\nlow = 0.0\nhigh = 1e-3\nlog = true", "above 0"),
        ("[learning_rate]\nlow = 0.1\nhigh = 0.2\nstep = 1.0", "step inside the range"),
        ("[learning_rate]\nlow = 1e-4", "low and high, or choices"),
        ("[learning_rate]\nlow = 1e-4\nhigh = '1'", "low and high, or choices"),
        ("[learning_rate]\nmin = 1e-4\nmax = 1", "a table with low and high"),
        ("[batch_size]\nlow = 16.5\nhigh = 64", "whole numbers"),
        ("[batch_size]\nchoices = [64]", "two or more choices"),
        ("[batch_size]\nchoices = [16, 20000]", "got 20000"),
        ("[architecture.bidirectional]\nlow = 0\nhigh = 1", "choices are expected"),
        ("[architecture.dropout]\nlow = 0.1\nhigh = 1.5", "got 1.5"),
        ("[architecture.pooling]\nchoices = ['mean', 'max']", "got 'max'"),
        ("learning_rate = 0.1", "a table with low and high"),
        ("", "no field to change"),
        ("[learning_rate", "search space, got"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_its_line(tmp_path, refused, text, said):
    path = tmp_path / "space.toml"
    path.write_text(text)
    message = refused(ModelError, lambda: read_space(str(path), TrainConfig()))
    assert said in message
    assert str(path) in message
    assert "\n" not in message


def test_a_space_that_is_not_there_is_told_with_those_that_are(refused):
    assert "default" in refused(ModelError, lambda: read_space("nothing", TrainConfig()))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_read_as_it_was_written(tmp_path, name):
    labels, config = read_recipe(name)
    sources = read_sources(str(PROJECT / "experiments" / "many_sources.toml"))
    path = tmp_path / "written.toml"
    write_recipe(path, labels, config, sources, "from a test")
    assert read_recipe(str(path)) == (labels, config)
    written = read_sources(str(path))
    assert [s.to_dict() | {"path": ""} for s in written] == [
        s.to_dict() | {"path": ""} for s in sources
    ]
    assert [Path(s.path).resolve() for s in written] == [Path(s.path).resolve() for s in sources]
