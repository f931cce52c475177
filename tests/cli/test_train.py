"""What ``speech train`` does with a folder in which something is already."""

import os
import signal
import threading

import pytest
import typer

from speech.cli.train import RecipeOptions, RunOptions, stoppable
from speech.errors import ModelError
from speech.formats.folder import ModelFolder
from speech.labels import LabelSet

LABELS = LabelSet("two", ("yes", "no"))


def test_a_new_folder_begins_a_run(tmp_path):
    assert RunOptions(out=tmp_path / "run").folder(LABELS, 1) == (tmp_path / "run", False)
    assert RunOptions().folder(LABELS, 7)[0].name == "two-7"


def test_an_interrupted_run_goes_on_with_a_note_and_is_not_begun_anew(tmp_path, capsys):
    ModelFolder(tmp_path).checkpoint.write_bytes(b"")
    assert RunOptions(out=tmp_path).folder(LABELS, 1) == (tmp_path, True)
    assert "--overwrite" in capsys.readouterr().err
    assert RunOptions(out=tmp_path, overwrite=True).folder(LABELS, 1) == (tmp_path, False)


def test_a_finished_model_is_never_overwritten_unasked(tmp_path):
    ModelFolder(tmp_path).keras.write_bytes(b"")
    with pytest.raises(ModelError, match="--overwrite"):
        RunOptions(out=tmp_path).folder(LABELS, 1)
    assert RunOptions(out=tmp_path, resume=True).folder(LABELS, 1) == (tmp_path, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_stopped_says_how_to_go_on(tmp_path, capsys, number):
    def training():
        with stoppable(tmp_path):
            os.kill(os.getpid(), number)
            threading.Event().wait(5)

    with pytest.raises(typer.Exit) as ended:
        training()
    assert ended.value.exit_code == 130
    assert "give the same command again" in capsys.readouterr().err


def test_own_labels_take_the_quick_schedule_and_a_wrong_number_is_a_usage_error():
    _, quick = RecipeOptions(labels="a,b").read()
    _, whole = RecipeOptions().read()
    assert quick.epochs * quick.epoch_clips < whole.epochs * whole.epoch_clips / 10
    with pytest.raises(typer.BadParameter, match="learning_rate must be above 0"):
        RecipeOptions(learning_rate=-1.0).read()
    with pytest.raises(typer.BadParameter, match="--batch-size of at most"):
        RecipeOptions(epoch_clips=10).read()
