"""Model files are data: whatever stands in one, it is read or refused in a sentence, and not run.

The refusals happen in a child process with little memory, which tells what it has imported.
"""

import ast
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

from speech import keras_file
from speech.architecture import Architecture, ModelConfig
from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.formats import metadata
from speech.recognizer import Recognizer, load
from tests.conftest import PROJECT
from tests.security import hostile_models

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
    import numpy as np
    clip = np.sin(np.arange(16_000, dtype=np.float32)[np.newaxis] ** 1.5)
    answers = {}
    for path in sorted(Path(sys.argv[1]).iterdir()):
        began = time.perf_counter()
        try:
            rows = load(path).probabilities(clip)
            answers[path.name] = ["opened", rows.tolist()]
        except ModelError as error:
            answers[path.name] = [str(error), time.perf_counter() - began]
    heavy = ("keras", "tensorflow", "onnxruntime", "ai_edge_litert")
    print(json.dumps([answers, reached, [m for m in heavy if m in sys.modules]]))
"""


def opened(folder: Path, may_load: set[str]) -> dict[str, list[Any]]:
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
    assert set(loaded) <= may_load, "a file was given to what runs it before it was refused"
    assert not list(folder.parent.rglob("*pwned*"))
    return dict(answers)


def written(files: dict[str, bytes], folder: Path, suffix: str) -> dict[str, str]:
    """The files under names without a meaning; returns what is wrong with each."""
    folder.mkdir()
    names = {f"{i}{suffix}": name for i, name in enumerate(files)}
    for file, name in names.items():
        (folder / file).write_bytes(files[name])
    return names


def all_refused(
    files: dict[str, bytes], folder: Path, suffix: str, may_load: frozenset[str] = frozenset()
) -> None:
    names = written(files, folder, suffix)
    answers = {names[file]: answer for file, answer in opened(folder, set(may_load)).items()}
    assert set(answers) == set(files)
    for name, (message, _) in answers.items():
        assert message != "opened", f"taken: {name}"
        assert "expected" in message, f"{name}: {message}"
        assert "got" in message, f"{name}: {message}"
        assert len(message.splitlines()) == 1, f"{name}: {message}"
        assert len(message) < 900, f"{name}: {message}"


def all_without_effect(files: dict[str, bytes], whole: Path, folder: Path, runtimes: set[str]):
    """They open, and answer as the whole file does, bit for bit."""
    names = written({"whole": whole.read_bytes()} | files, folder, whole.suffix)
    answers = {names[file]: answer for file, answer in opened(folder, runtimes).items()}
    assert set(answers) == {"whole", *files}
    for name, answer in answers.items():
        assert answer == answers["whole"], name
    assert answers["whole"][0] == "opened"


def split(
    files: dict[str, bytes], without_effect: set[str]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Those to be refused, and those that are known to do nothing."""
    assert without_effect <= set(files)
    chosen = {name: files[name] for name in without_effect}
    return {name: files[name] for name in set(files) - without_effect}, chosen


def test_a_tampered_keras_file_is_refused_before_keras_is_imported(tmp_path):
    files = hostile_models.keras_files(SHIPPED / "model.keras")
    refused, _ = split(files, hostile_models.KERAS_WITHOUT_EFFECT)
    assert len(refused) > 80
    all_refused(refused, tmp_path / "hostile", ".keras")


def test_what_stands_where_keras_would_look_for_objects_has_no_effect(tmp_path):
    whole = SHIPPED / "model.keras"
    files = hostile_models.keras_files(whole)
    _, ignored = split(files, hostile_models.KERAS_WITHOUT_EFFECT)
    all_without_effect(ignored, whole, tmp_path / "hostile", {"keras", "tensorflow"})


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
            sources = [clip] if {"sources", "source"} & set(given) else []
            later = [clip, f"{folder}/words.txt"] if "recording" in given else []
            if any("--negative-speech" in p.opts for p in command.params):
                later += ["--negative-speech", str(Path(clip).parent)]
            named = given["model"].param_type_name == "option"
            sys.argv = ["speech", name, *sources, *["--model"] * named, folder, *later]
            tried(name, main.main)
    tried("store", lambda: stream_card.store(Path(folder), DecoderConfig()))
    Path(out).write_text(json.dumps(answers))
"""


def test_every_command_that_takes_a_model_refuses_a_hostile_keras_file_before_keras(
    tmp_path, tiny_corpus
):
    """Whatever takes a model is found in the command line itself, so that none is forgotten."""
    (tmp_path / "model").mkdir()
    hostile = hostile_models.keras_files(SHIPPED / "model.keras")["a Lambda as the model"]
    (tmp_path / "model" / "model.keras").write_bytes(hostile)
    (tmp_path / "model" / "words.txt").write_text("0.2\t0.6\tyes\n")  # as Audacity writes labels
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


def test_keras_is_given_no_file_but_the_one_that_is_written_for_it():
    """Its own readers of models build what a file names, and follow its links."""
    calls: dict[str, set[tuple[str, str]]] = {}
    for path in sorted((PROJECT / "speech").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                calls.setdefault(node.func.attr, set()).add((path.name, ast.unparse(node.func)))
    readers = "load_model", "load_weights", "deserialize_keras_object", "model_from_json"
    found = set().union(*(calls.get(name, set()) for name in readers))
    assert found == {("model.py", "model.load_weights")}


def test_a_tampered_onnx_file_is_refused_even_if_its_digest_is_right(tmp_path):
    files = hostile_models.onnx_files(SHIPPED / "model.onnx")
    refused, _ = split(files, hostile_models.ONNX_WITHOUT_EFFECT)
    assert len(refused) > 30
    all_refused(refused, tmp_path / "hostile", ".onnx", frozenset({"onnxruntime"}))


def test_what_onnx_runtime_does_not_look_at_has_no_effect(tmp_path):
    whole = SHIPPED / "model.onnx"
    files = hostile_models.onnx_files(whole)
    _, ignored = split(files, hostile_models.ONNX_WITHOUT_EFFECT)
    all_without_effect(ignored, whole, tmp_path / "hostile", {"onnxruntime"})


def test_no_onnx_file_takes_its_weights_from_a_file_beside_it(tmp_path, monkeypatch, refused):
    """Such a file is there, of the right size, and in the working folder."""
    import onnx

    model = onnx.load_from_string((SHIPPED / "model.onnx").read_bytes())
    names = [tensor.name for tensor in model.graph.initializer if len(tensor.raw_data) > 4]
    monkeypatch.chdir(tmp_path)
    for name in names:

        def outside(model: Any, name: str = name) -> None:
            tensor = next(t for t in model.graph.initializer if t.name == name)
            Path("weights.bin").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")

        content = hostile_models.changed_graph((SHIPPED / "model.onnx").read_bytes(), outside)
        Path("model.onnx").write_bytes(content)
        message = refused(ModelError, lambda: load(Path("model.onnx")))
        assert "external data" in message.lower()


def test_a_tampered_litert_file_is_refused_even_if_its_digest_is_right(tmp_path):
    (tmp_path / "whole.tflite").write_bytes(hostile_models.litert_model())
    metadata.read(tmp_path / "whole.tflite")  # refused is what was changed, not how it is made
    files = hostile_models.litert_files()
    assert len(files) > 50
    all_refused(files, tmp_path / "hostile", ".tflite")


def test_the_model_that_ships_is_data_by_the_same_rules(tmp_path):
    keras_file.read(SHIPPED / "model.keras")
    # and so the hostile files are refused for what was done to them, not for how they were made
    again = hostile_models.packed(hostile_models.parts(SHIPPED / "model.keras"))
    (tmp_path / "model.keras").write_bytes(again)
    keras_file.read(tmp_path / "model.keras")
    content = hostile_models.changed_graph(
        (SHIPPED / "model.onnx").read_bytes(), lambda model: None
    )
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
        from speech import keras_file
        from speech.errors import ModelError
        from tests.security import hostile_models
        whole, target = Path(sys.argv[1]), Path(sys.argv[2])
        n, chance = int(sys.argv[3]), random.Random(int(sys.argv[4]))
        original = hostile_models.parts(whole)
        taken = 0
        for number in range(n):
            parts = dict(original)
            name = chance.choice(["config.json", *["model.weights.h5"] * 2, "archive"])
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
            if name != "archive":
                content = hostile_models.packed(parts)
            target.write_bytes(content)
            try:
                keras_file.read(target)
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


def test_the_weights_are_counted_as_the_network_has_them():
    import keras

    from speech.model import CommandModel

    chance = random.Random(3)
    for _ in range(12):
        architecture = Architecture(
            conv_filters=tuple(chance.randint(1, 12) for _ in range(chance.randint(0, 3))),
            lstm_layers=chance.randint(1, 3),
            lstm_units=chance.randint(1, 9),
            bidirectional=chance.random() < 0.5,
            pooling=chance.choice(["attention", "mean"]),
        )
        labels = [str(i) for i in range(chance.randint(2, 9))]
        features = FeatureConfig(n_mels=20, n_mfcc=chance.randint(2, 20))
        model = CommandModel(labels, features, architecture)
        assert model.config().n_weights == model.count_params()
    keras.backend.clear_session()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_weights_give_no_numbers_gives_an_error_and_no_word(value, refused):
    def infer(waveforms: np.ndarray) -> np.ndarray:
        return np.full((len(waveforms), 2), value, np.float32)

    config = ModelConfig(labels=("yes", "no"), features=FeatureConfig())
    broken = Recognizer("broken", config, infer)
    clips = np.zeros((1, 16_000), np.float32)
    assert "weights are damaged" in refused(ModelError, lambda: broken.probabilities(clips))
