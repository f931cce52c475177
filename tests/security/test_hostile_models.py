"""Model files are data: whatever stands in one, it is read or refused in a sentence, and not run.

The refusals happen in a child process with little memory, which tells what it has imported.
"""

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.formats import inspection, metadata
from speech.recognizer import Recognizer
from tests.conftest import PROJECT
from tests.security import zoo_of_models as zoo

SHIPPED = PROJECT / "saved_models" / "commands-8"
# so much as a whole model takes to be opened, and little more; a bomb takes the process along
OPENING = """
    import json, os, resource, sys, time
    from pathlib import Path
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (200, 200))
    reached = []
    def watch(event, args):
        runs = event in ("os.system", "subprocess.Popen", "os.exec", "socket.connect")
        reads = event == "open" and ("/etc/hostname" in str(args[0]) or "passwd" in str(args[0]))
        if reads or runs and args[0] != "uname":  # which h5py asks for the machine
            reached.append([event, str(args)[:200]])
    sys.addaudithook(watch)
    from speech.errors import ModelError
    from speech.recognizer import load
    answers = {}
    for path in sorted(Path(sys.argv[1]).iterdir()):
        began = time.perf_counter()
        try:
            load(path)
            answers[path.name] = ["opened", 0]
        except ModelError as error:
            answers[path.name] = [str(error), time.perf_counter() - began]
    heavy = ("keras", "tensorflow", "onnxruntime", "ai_edge_litert")
    print(json.dumps([answers, reached, [m for m in heavy if m in sys.modules]]))
"""


def opened(folder: Path) -> dict[str, list[Any]]:
    """What a child process says to each file; that nothing was run is looked at here."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OPENING), str(folder)],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers, reached, loaded = json.loads(done.stdout.splitlines()[-1])
    assert not reached, "a file that was refused has done something"
    assert not loaded, "a file was given to what runs it before it was refused"
    assert not list(folder.parent.rglob("*pwned*"))
    return dict(answers)


def all_refused(files: dict[str, bytes], folder: Path, suffix: str) -> dict[str, list[Any]]:
    folder.mkdir()
    names = {f"{i}{suffix}": name for i, name in enumerate(files)}
    for file, name in names.items():
        (folder / file).write_bytes(files[name])
    answers = {names[file]: answer for file, answer in opened(folder).items()}
    assert set(answers) == set(files)
    for name, (message, _) in answers.items():
        assert message != "opened", f"taken: {name}"
        assert "expected" in message, f"{name}: {message}"
        assert "got" in message, f"{name}: {message}"
        assert len(message.splitlines()) == 1, f"{name}: {message}"
        assert len(message) < 900, f"{name}: {message}"
    return answers


def test_a_tampered_keras_file_is_refused_before_keras_is_imported(tmp_path):
    files = zoo.keras_files(SHIPPED / "model.keras")
    assert len(files) > 90
    all_refused(files, tmp_path / "zoo", ".keras")


COMMANDS = """
    import json, sys
    from pathlib import Path
    import typer
    imported = []
    def watch(event, args):
        if event == "import" and args[0].partition(".")[0] in ("keras", "tensorflow"):
            imported.append(args[0])
            raise ImportError(args[0])  # and so nobody waits for it
    sys.addaudithook(watch)
    from speech.evaluation import stream_card
    from speech.cli import main
    from speech.stream import DecoderConfig
    folder, clip, out = sys.argv[1:]
    answers = {}
    def tried(name, call):
        imported.clear()
        try:
            call()
            answers[name] = [0, list(imported)]
        except (SystemExit, main.SpeechError) as error:
            code = error.code if isinstance(error, SystemExit) else error.exit_code
            answers[name] = [code, list(imported)]
            if not isinstance(error, SystemExit):
                print(error, file=sys.stderr)
    for name, command in typer.main.get_command(main.app).commands.items():
        given = {p.name: p for p in command.params}
        if "model" in given:
            sources = [clip] if "sources" in given else []
            named = given["model"].param_type_name == "option"
            sys.argv = ["speech", name, *sources, *["--model"] * named, folder]
            tried(name, main.main)
    tried("store", lambda: stream_card.store(Path(folder), DecoderConfig()))
    Path(out).write_text(json.dumps(answers))
"""


def test_every_command_that_takes_a_model_refuses_a_hostile_keras_file_before_keras(
    tmp_path, tiny_corpus
):
    """Whatever takes a model is found in the command line itself, so that none is forgotten."""
    (tmp_path / "model").mkdir()
    hostile = zoo.keras_files(SHIPPED / "model.keras")["a Lambda as the model"]
    (tmp_path / "model" / "model.keras").write_bytes(hostile)
    clip = next(tiny_corpus.rglob("*_nohash_*.wav"))
    command = [sys.executable, "-c", textwrap.dedent(COMMANDS)]
    done = subprocess.run(
        [*command, str(tmp_path / "model"), str(clip), str(tmp_path / "answers")],
        capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads((tmp_path / "answers").read_text("utf-8"))
    # tells of the file in its table; what it asks TensorFlow about is the graphics card
    assert answers.pop("doctor") == [0, ["tensorflow"]]
    assert len(answers) > 8
    assert answers == {name: [ModelError.exit_code, []] for name in answers}, done.stderr
    refusals = done.stderr.count("expected a .keras file made by `speech train`, got")
    assert refusals == len(answers), done.stderr
    assert "cannot be used" in done.stdout


def test_there_is_one_door_for_keras_files():
    """Whoever loads one some other way forgets to look through it first."""
    for path in (PROJECT / "speech").glob("*.py"):
        if path.name not in ("runtime.py", "model.py"):
            assert "import load_model" not in path.read_text("utf-8"), path.name


def test_a_tampered_onnx_file_is_refused_even_if_its_digest_is_right(tmp_path):
    files = zoo.onnx_files(SHIPPED / "model.onnx")
    assert len(files) > 30
    all_refused(files, tmp_path / "zoo", ".onnx")


def test_a_tampered_litert_file_is_refused_even_if_its_digest_is_right(tmp_path):
    (tmp_path / "whole.tflite").write_bytes(zoo.litert_model())
    metadata.read(tmp_path / "whole.tflite")  # refused is what was changed, not how it is made
    files = zoo.litert_files()
    assert len(files) > 50
    all_refused(files, tmp_path / "zoo", ".tflite")


def test_the_model_that_ships_is_data_by_the_same_rules(tmp_path):
    inspection.check(SHIPPED / "model.keras")
    # and so the files of the zoo are refused for what was done to them, not for how they were made
    again = zoo.packed(zoo.parts(SHIPPED / "model.keras"))
    (tmp_path / "model.keras").write_bytes(again)
    inspection.check(tmp_path / "model.keras")
    content = zoo.changed_graph((SHIPPED / "model.onnx").read_bytes(), lambda model: None)
    (tmp_path / "model.onnx").write_bytes(content)
    assert metadata.read(tmp_path / "model.onnx")[0] == metadata.read(SHIPPED / "model.onnx")[0]


def test_any_damage_to_a_keras_file_is_refused_or_leaves_config_and_size_as_they_were(tmp_path):
    damaged_keras_files(tmp_path, 150, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_five_thousand_damaged_keras_files(tmp_path, record):
    record("keras files damaged at random", damaged_keras_files(tmp_path, 5_000, seed=2))


def damaged_keras_files(tmp_path: Path, n: int, seed: int) -> int:
    """Bytes changed, cut out and put in, mostly in the directory and the config, in a child."""
    program = """
        import json, random, resource, sys
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        from speech.formats import metadata
        from speech.formats import inspection
        from speech.errors import ModelError
        from tests.security import zoo_of_models as zoo
        whole, target = Path(sys.argv[1]), Path(sys.argv[2])
        n, chance = int(sys.argv[3]), random.Random(int(sys.argv[4]))
        original = zoo.parts(whole)
        taken = 0
        for number in range(n):
            parts = dict(original)
            name = chance.choice([zoo.CONFIG, zoo.WEIGHTS, zoo.WEIGHTS, "archive"])
            content = bytearray(parts.get(name) or whole.read_bytes())
            for _ in range(chance.randint(1, 6)):
                top = min(len(content), 10 ** chance.randint(2, 7))
                place = chance.randrange(top)
                place = chance.choice([place, len(content) - 1 - place])
                what = chance.randrange(4)
                if what == 0:
                    content[place] = chance.randrange(256)
                elif what == 1:
                    del content[place : place + chance.randint(1, 64)]
                elif what == 2:
                    content[place:place] = chance.randbytes(chance.randint(1, 16))
                else:
                    content[place : place + 8] = chance.choice(
                        [b"\\xff" * 8, bytes(8), b"\\xff" * 7 + b"\\x7f"])
            parts[name] = bytes(content)
            target.write_bytes(parts["archive"] if name == "archive" else zoo.packed(parts))
            try:
                inspection.check(target)
                taken += 1
            except ModelError:
                pass
        print(json.dumps([n, taken]))
    """
    done = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(program)),
            *(str(SHIPPED / "model.keras"), str(tmp_path / "m.keras"), str(n), str(seed)),
        ],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-3000:]}"
    tried, taken = json.loads(done.stdout)
    assert tried == n
    assert taken < n
    return n


def test_the_check_and_the_network_agree_how_many_weights_there_are_and_which_shapes_there_may_be():
    import keras

    from speech.model import Architecture, CommandModel

    chance = random.Random(3)
    for _ in range(12):
        shape = Architecture(
            conv_filters=tuple(chance.randint(1, 12) for _ in range(chance.randint(0, 3))),
            lstm_layers=chance.randint(1, 3),
            lstm_units=chance.randint(1, 9),
            bidirectional=chance.random() < 0.5,
            pooling=chance.choice(["attention", "mean"]),
        )
        labels = [str(i) for i in range(chance.randint(2, 9))]
        model = CommandModel(labels, FeatureConfig(n_mels=20, n_mfcc=chance.randint(2, 20)), shape)
        config = json.loads(json.dumps(model.get_config()))
        assert inspection._wanted_weights(config) == model.count_params()
    for field, value in [
        ("lstm_units", 0), ("lstm_units", 1025), ("lstm_layers", 0), ("lstm_layers", 9),
        ("conv_filters", [8] * 5), ("conv_filters", [1025]), ("pooling", "max"),
        ("dropout", 1.0), ("dropout", -0.1),
    ]:  # fmt: skip
        config["architecture"] = model.get_config()["architecture"] | {"conv_filters": [2]}
        inspection._wanted_weights(config)
        config["architecture"][field] = value
        with pytest.raises(ValueError, match=r"\w"):
            inspection._wanted_weights(config)
        with pytest.raises(ValueError, match=r"\w"):
            Architecture.from_dict(config["architecture"])
    keras.backend.clear_session()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_weights_give_no_numbers_gives_an_error_and_no_word(value, refused):
    def infer(waveforms: np.ndarray) -> np.ndarray:
        return np.full((len(waveforms), 2), value, np.float32)

    broken = Recognizer("broken", ("yes", "no"), FeatureConfig(), infer)
    clips = np.zeros((1, 16_000), np.float32)
    assert "weights are damaged" in refused(ModelError, lambda: broken.probabilities(clips))
