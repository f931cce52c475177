"""The command line as people run it: another process, its output and its exit code."""

import dataclasses
import importlib.metadata
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import typer

from speech.architecture import Architecture, Causality
from speech.cli import (
    diagnose,
    evaluate,
    explain,
    listen,
    main,
    page,
    record,
    score,
    teach,
    train,
    wyoming,
)
from speech.model import CommandModel, save_model
from speech.training.config import TrainConfig
from tests import exports, tiny

ROOT = Path(__file__).parents[2]
LABELS = ("low", "high", "unknown", "silence")


def speech(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "speech", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tones"
    keras.utils.set_random_seed(1)
    save_model(
        CommandModel(LABELS, tiny.FEATURES, tiny.config().architecture), folder / "model.keras"
    )
    return folder


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    return tiny.write_corpus(tmp_path_factory.mktemp("corpus"))


def test_help_lists_the_commands_without_any_heavy_package():
    result = speech("--help")
    assert result.returncode == 0
    for command in ("prepare", "train", "evaluate", "recognize", "listen", "info", "doctor"):
        assert re.search(rf"\b{command}\b", result.stdout)
    script = (
        "import sys; sys.argv = ['speech', '--help']\n"
        "from speech.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'librosa', 'numba', 'scipy', 'matplotlib', 'gradio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert result.stderr.strip() == "[]"


def test_the_defaults_that_help_shows_are_those_of_the_recipe():
    shown = speech("train", "--help", COLUMNS="200").stdout
    recipe = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    for name in ("seed", "epochs", "epoch_clips", "batch_size", "learning_rate", "patience"):
        line = next(line for line in shown.splitlines() if f"--{name.replace('_', '-')}" in line)
        assert f"({recipe[name]})" in line, line


def test_recognize_prints_a_table_and_json_lines(model_folder, corpus_folder):
    folder = corpus_folder / "low"
    table = speech("recognize", folder, "--model", model_folder)
    assert table.returncode == 0, table.stderr
    assert table.stdout.count("_nohash_0.wav") == 30
    lines = speech("recognize", folder, "--model", model_folder, "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 30
    for row in found:
        assert set(row) == {"file", "label", "probability", "probabilities", "accepted"}
        assert tuple(row["probabilities"]) == LABELS
        assert row["probability"] == max(row["probabilities"].values())


def test_of_a_causal_model_recognize_says_the_look_ahead_in_one_sentence(corpus_folder, tmp_path):
    made = exports.model(
        Architecture((6, 8), 1, 10, bidirectional=False, pooling="state", causal=True)
    )
    made.causality = Causality(4, 0.04)
    folder = exports.folder(tmp_path, made)
    clip = corpus_folder / "low" / "00000000_nohash_0.wav"
    for options in ((), ("--json",)):
        result = speech("recognize", clip, "--model", folder, *options)
        assert result.returncode == 0, result.stderr
        assert result.stdout
        assert result.stderr == (
            f"speech: {tmp_path.name} is a causal model with a look-ahead of 40 ms: each recording "
            "is padded with as much silence at its end\n"
        )


def test_a_bad_file_among_good_ones_is_named_and_the_others_are_recognised(
    model_folder, corpus_folder, tmp_path
):
    bad = tmp_path / "letter.wav"
    bad.write_text("Dear sir or madam")
    good = corpus_folder / "low" / "00000000_nohash_0.wav"
    result = speech("recognize", bad, good, "--model", model_folder, "--json")
    assert result.returncode == 3
    assert "letter.wav: expected" in result.stderr
    assert json.loads(result.stdout)["file"] == str(good)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("recognize", "nothing.wav", "--model", "MODEL"),
            3,
            "nothing.wav: expected an audio file",
        ),
        (
            ("recognize", "x.wav", "--model", "/nowhere"),
            5,
            "/nowhere: expected a folder with a model",
        ),
        (
            ("evaluate", "MODEL", "--data", "/nowhere"),
            4,
            "/nowhere: expected the folder of a corpus",
        ),
        (("train", "--data", "/nowhere"), 4, "/nowhere: expected the folder of a corpus"),
        (("train", "--labels", "yes,yes"), 4, "labels 'yes,yes': expected one of"),
        (("train", "--config", "pyproject.toml"), 5, "expected the config.json of a run"),
        (("prepare", "--dataset", "songs"), 4, "dataset 'songs': expected one of"),
        (("evaluate", "MODEL", "--split", "some"), 2, "expected validation, test or all"),
        (("sing",), 2, "No such command"),
        (("train", "--epochs", "0"), 2, "greater than or equal to 1"),
        (("train", "--learning-rate", "-0.1"), 2, "greater than or equal to"),
        (("train", "--batch-size", "64", "--epoch-clips", "32"), 2, "at most --epoch-clips, 32"),
    ],
)
def test_bad_input_gives_one_clear_line_and_its_exit_code(arguments, code, message, model_folder):
    arguments = [str(model_folder) if a == "MODEL" else a for a in arguments]
    result = speech(*arguments)
    assert result.returncode == code, result.stderr
    assert message in re.sub(r"[│\s]+", " ", result.stderr)
    assert "Traceback" not in result.stderr
    if code != 2:
        assert len(result.stderr.strip().splitlines()) == 1


GROUP: Any = typer.main.get_command(main.app)


@pytest.mark.parametrize("name", GROUP.commands)
def test_help_ends_with_examples_that_the_parser_takes(name):
    title, *lines = (GROUP.commands[name].epilog or "").splitlines()
    assert title == "Examples:"
    assert lines
    for line in lines:
        program, command, *arguments = shlex.split(line.rpartition("| ")[2])
        assert (program, command) == ("speech", name), line
        GROUP.commands[command].make_context(command, arguments)


def test_every_option_has_a_sentence_of_help():
    for name, command in GROUP.commands.items():
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            assert text, f"{name}: {parameter.name}"
            assert text[0].isupper(), f"{name}: {parameter.name}: {text}"
            assert text.endswith("."), f"{name}: {parameter.name}: {text}"


def test_no_command_takes_more_than_eight_parameters_of_its_own():
    for module in (
        *(diagnose, evaluate, explain, listen, page, record, score, teach, train, wyoming),
    ):
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                own = inspect.unwrap(function)
                assert len(inspect.signature(own).parameters) <= 8, own


def test_the_version_is_that_of_the_package():
    shown = speech("--version")
    assert shown.stdout == f"speech {importlib.metadata.version('speech-commands')}\n"


@pytest.mark.parametrize(
    ("line", "position", "found"),
    [
        ("speech info comm", 2, "commands-8"),
        ("speech listen --model ", 3, "commands-8"),
        ("speech train --recipe words", 3, "words-35"),
        ("speech prepare --dataset ", 3, "speech_commands_v0.02"),
    ],
)
def test_the_shell_completes_names(line, position, found):
    program = [sys.executable, "-c", "from speech.cli.main import app; app(prog_name='speech')"]
    asked = {
        "_SPEECH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(position),
    }
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=os.environ | asked)
    assert found in done.stdout.splitlines(), done.stderr


def test_debug_shows_the_traceback(model_folder):
    result = speech("recognize", "nothing.wav", "--model", "/nowhere", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_info_tells_labels_features_and_provenance(model_folder):
    known = json.loads(speech("info", model_folder, "--json").stdout)
    assert known["labels"] == list(LABELS)
    assert known["features"] == tiny.FEATURES.to_dict()
    assert "features.hop_seconds" in speech("info", model_folder, "--all").stdout
    short = speech("info", model_folder).stdout
    assert ", ".join(LABELS) in short
    assert len(short.splitlines()) < 20


def test_doctor_says_what_is_there_and_what_to_do(tmp_path):
    result = speech("doctor", "--json", "--model", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {row["what"]: row for row in json.loads(result.stdout)}
    assert rows["Python"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert "speech train" in rows[f"Model {tmp_path}"]["advice"]
    assert "GPU" in rows


def test_of_several_models_one_that_cannot_be_measured_is_named_and_the_others_are_measured(
    model_folder, corpus_folder, tmp_path
):
    broken = tmp_path / "broken" / "model.keras"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    given = "--data", corpus_folder, "--out", tmp_path / "out"
    done = speech("evaluate", broken.parent, model_folder, *given)
    assert done.returncode == 5
    [line] = done.stderr.splitlines()
    assert line.startswith(f"speech: {broken}: expected")
    assert f"{model_folder}: Accuracy" in done.stdout
    assert (tmp_path / "out" / "tones" / "README.md").is_file()
    same = speech("evaluate", model_folder, model_folder, *given)
    assert same.returncode == 2
    assert "expected models of different names" in same.stderr


@pytest.mark.slow
def test_train_makes_a_model_folder_that_evaluate_and_recognize_use(corpus_folder, tmp_path):
    recipe = tiny.config(epochs=6, epoch_clips=128).to_dict()
    (tmp_path / "config.json").write_text(json.dumps(recipe))
    run = tmp_path / "run"
    arguments = ("--data", corpus_folder, "--labels", "low,high", "--out", run)
    trained = speech("train", *arguments, "--config", tmp_path / "config.json")
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.count("epoch ") == 6
    for name in ("README.md", "metrics.json", "clips.csv", "confusion.png", "learning_curves.png"):
        assert (run / name).stat().st_size > 100, name
    again = speech("train", *arguments)
    assert again.returncode == 5
    assert "--resume" in again.stderr

    measured = speech("evaluate", run, "--data", corpus_folder, "--out", tmp_path / "e", "--json")
    assert measured.returncode == 0, measured.stderr
    metrics = json.loads(measured.stdout)
    assert metrics["accuracy"] == json.loads((run / "metrics.json").read_text())["accuracy"]
    assert metrics["accuracy"] > 0.6, "six short epochs: far above chance, no more is asked"
    clip = corpus_folder / "low" / "00000000_nohash_0.wav"
    assert json.loads(speech("recognize", clip, "--model", run, "--json").stdout)["label"] == "low"
    card = (run / "README.md").read_text()
    digest = json.loads((run / "metrics.json").read_text())["corpus_sha256"]
    for fact in (digest, "the license of these recordings", "What it cannot do", "confusion.png"):
        assert fact in card
