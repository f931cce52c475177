"""Training recipes: a name or a file, and every wrong one named."""

import json

import pytest

from speech.data.datasets import parse_labels
from speech.errors import ModelError
from speech.training.config import TrainConfig
from speech.training.recipes import read_config, read_recipe, read_sources


@pytest.mark.parametrize("name", ["commands-8", "commands-8-quick", "commands-12", "words-35"])
def test_a_shipped_recipe_names_a_label_set_of_the_corpus_and_fits_the_config(name):
    labels, config = read_recipe(name)
    assert parse_labels(labels).name == name.removesuffix("-quick")
    assert config.architecture.lstm_units >= TrainConfig().architecture.lstm_units
    assert (config == TrainConfig()) == name.endswith("-quick"), "the default is the short one"


def test_a_recipe_of_ones_own_changes_what_it_names_and_nothing_else(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('labels = "yes,no"\n[train]\nseed = 7\n[train.augment]\nspeed = 0.1\n')
    labels, config = read_recipe(str(path))
    assert labels == "yes,no"
    default = TrainConfig().to_dict()
    changed = config.to_dict()
    assert changed.pop("seed") == 7
    assert changed["augment"].pop("speed") == 0.1
    del default["seed"], default["augment"]["speed"]
    assert changed == default


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("labels = ", "expected a training recipe"),
        ("[train]\nseed = 1\n", "must hold labels"),
        ('labels = "commands-8"\nspeed = 2\n', "must hold labels"),
        ('labels = "commands-8"\n[train]\nsped = 2\n', r"unknown: \['sped'\]"),
        ('labels = "commands-8"\n[train.architecture]\nlstm_units = 1e9\n', "must be integers"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "bad.toml").write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_recipe(str(tmp_path / "bad.toml"))
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    known = "commands-8-stream, commands-8-tiny, words-35 or a .toml file"
    with pytest.raises(ModelError, match=known):
        read_recipe("commands-9")


def test_the_config_of_a_run_comes_back_whole(tmp_path):
    config = TrainConfig(seed=4, held_out_words=("bed", "cat"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict() | {"labels": ["yes", "no"]}))
    assert read_config(path) == config


def test_the_sources_of_a_recipe_lie_beside_it_and_a_wrong_one_is_named(tmp_path):
    path = tmp_path / "many.toml"
    path.write_text(
        'labels = "yes,no"\n[[sources]]\npath = "talk"\nrole = "speech"\nweight = 0.5\n'
        '[[sources]]\npath = "words"\nleave_out = ["zh_*/*"]\n'
    )
    speech, words = read_sources(str(path))
    assert (speech.path, speech.role, speech.weight) == (str(tmp_path / "talk"), "speech", 0.5)
    assert (words.role, words.leave_out) == ("words", ("zh_*/*",))
    assert read_recipe(str(path))[0] == "yes,no"
    assert read_sources("commands-8") == ()
    path.write_text('labels = "yes,no"\n[[sources]]\npath = "x"\nrole = "music"\n')
    with pytest.raises(ModelError, match="words, speech, noise"):
        read_sources(str(path))


def test_the_config_of_the_shipped_model_can_be_trained_again():
    from speech.formats.folder import ModelFolder
    from speech.installation import DEFAULT_MODEL, find_model

    assert read_config(ModelFolder(find_model(DEFAULT_MODEL)).config).parts == 1
