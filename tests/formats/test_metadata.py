"""What an exported file says of itself, and the files that are refused before anything runs."""

import dataclasses
import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.formats import metadata as exported
from speech.formats.backends import open_model
from speech.formats.metadata import Metadata
from speech.model import save_model
from tests import exports, tiny

SUFFIXES = (".onnx", ".tflite")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """For each suffix the bytes of a small model without metadata."""
    folder, model = tmp_path_factory.mktemp("bare"), exports.model()
    return {s: exports.write(model, folder / f"model{s}").read_bytes() for s in SUFFIXES}


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    return exports.described(exports.model(), keras_sha256="12" * 32)


@pytest.fixture
def nothing_runs(monkeypatch):
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a refused file was given to a runtime")

    monkeypatch.setattr(onnxruntime, "InferenceSession", run)
    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", run)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_attached_is_read_again(bare, metadata, suffix, tmp_path):
    path = written(tmp_path / f"m{suffix}", exported.attach(bare[suffix], metadata, suffix))
    found, model = exported.read(path)
    assert re.fullmatch("[0-9a-f]{64}", found.graph_sha256)
    assert dataclasses.replace(found, graph_sha256="") == metadata
    assert model.startswith(bare[suffix])


def test_other_onnx_tools_find_the_json_text_in_the_metadata(bare, metadata):
    model = onnx.load_from_string(exported.attach(bare[".onnx"], metadata, ".onnx"))
    onnx.checker.check_model(model)
    (entry,) = model.metadata_props
    assert entry.key == "speech"
    assert json.loads(entry.value)["labels"] == list(exports.LABELS)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert "speech" in session.get_modelmeta().custom_metadata_map


def test_other_litert_tools_find_it_in_the_archive_behind_the_model(bare, metadata):
    content = exported.attach(bare[".tflite"], metadata, ".tflite")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert json.loads(archive.read("speech.json"))["features"] == tiny.FEATURES.to_dict()
    from ai_edge_litert.interpreter import Interpreter

    for each in (content, bare[".tflite"]):
        (details,) = Interpreter(model_content=each).get_input_details()
        assert tuple(details["shape"]) == (1, 6400)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "another or a corrupt file"),
        (b"<html>not found</html>", "another or a corrupt file|truncated"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "another or a corrupt file|truncated",
        ),
        (bytes(1000), "another or a corrupt file"),
        (b"\xff" * 1000, "another or a corrupt file|truncated"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(
    nothing_runs, refused, tmp_path, suffix, content, got
):
    path = written(tmp_path / f"m{suffix}", content)
    message = refused(ModelError, lambda: open_model(path))
    assert message.startswith(f"{path}: expected a {suffix} file made by `speech export`, got ")
    assert re.search(got, message)
    assert "speech export FOLDER" in message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_of_somebody_else_is_refused(nothing_runs, bare, refused, tmp_path, suffix):
    path = written(tmp_path / f"m{suffix}", bare[suffix])
    assert "without this project's metadata" in refused(ModelError, lambda: open_model(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_refused_wherever_it_ends(
    nothing_runs, bare, metadata, refused, tmp_path, suffix
):
    content = exported.attach(bare[suffix], metadata, suffix)
    for end in (4, 100, len(content) // 2, len(bare[suffix]), len(content) - 1):
        path = written(tmp_path / f"m{suffix}", content[:end])
        refused(ModelError, lambda path=path: open_model(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bit_that_fell_over_in_the_weights_is_noticed(
    nothing_runs, bare, metadata, refused, tmp_path, suffix
):
    content = bytearray(exported.attach(bare[suffix], metadata, suffix))
    content[len(bare[suffix]) // 2] ^= 1
    path = written(tmp_path / f"m{suffix}", bytes(content))
    assert "corrupt" in refused(ModelError, lambda: open_model(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_damage_is_refused_by_a_model_error_or_leaves_the_graph_as_it_was(
    bare, metadata, tmp_path, suffix
):
    whole = exported.attach(bare[suffix], metadata, suffix)
    rng = np.random.default_rng(0)
    for round_ in range(300):
        content = bytearray(whole)
        # every other time in what stands around the graph, which is where a parser may stumble
        start = rng.choice([len(bare[suffix]), 0, 0]) if round_ % 2 else 0
        stop = len(content) if start else min(len(content), int(10 ** rng.uniform(1, 6)))
        for place in rng.integers(start, stop, rng.integers(1, 5)):
            content[place] = rng.integers(256)
        path = written(tmp_path / f"damaged{suffix}", bytes(content))
        try:
            _, model = exported.read(path)
        except ModelError:
            continue
        _, graph, _ = exported._onnx(model) if suffix == ".onnx" else (None, model, None)
        expected = exported._onnx(whole)[1] if suffix == ".onnx" else bare[suffix]
        assert bytes(graph) == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_too_big_is_refused_before_it_is_read(
    nothing_runs, refused, monkeypatch, tmp_path, suffix
):
    path = tmp_path / f"m{suffix}"
    with path.open("wb") as file:
        file.truncate(exported.MAX_BYTES + 1)  # sparse
    monkeypatch.setattr(Path, "read_bytes", None)
    message = refused(ModelError, lambda: open_model(path))
    assert "at most 64,000,000 bytes, got 64,000,001" in message


def test_a_file_that_cannot_be_read_is_refused(refused, tmp_path):
    assert "file not found" in refused(ModelError, lambda: open_model(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"format": 1}, "version 1, not 2"),
        ({"labels": ["low", "high"]}, "shapes .*probabilities"),
        ({"labels": ["low"]}, "labels must be 2 to 1000 different texts"),
        ({"labels": ["low", "low", "a", "b"]}, "labels must be 2 to 1000 different texts"),
        ({"labels": ["low", 2, "a", "b"]}, "labels must be 2 to 1000 different texts"),
        ({"labels": None}, "labels must be 2 to 1000 different texts"),
        ({"features": FeatureConfig().to_dict()}, "shapes .*waveform"),
        ({"features": {"hop_seconds": 0.01}}, "FeatureConfig: expected exactly"),
        ({"features": tiny.FEATURES.to_dict() | {"n_mels": -1}}, "n_mels=-1"),
        ({"features": []}, "FeatureConfig: expected a JSON object"),
        ({"decoder": 3}, "decoder=3 must be a JSON object"),
        ({"acceptance": {"low": 1.5}}, r"acceptance\['low'\]=1.5"),
        ({"acceptance": {"unknown": 0.5}}, r"acceptance\['unknown'\]"),
        ({"acceptance": {"elephant": 0.5}}, "must map a command"),
        ({"acceptance": ["low"]}, "acceptance=.* must be a JSON object"),
        ({"precision": "int3"}, "precision='int3' must be one of"),
        ({"temperature": 0}, "temperature=0 must be a number"),
        ({"temperature": "1"}, "temperature='1' must be a number"),
        ({"temperature": float("nan")}, "temperature=nan must be a number"),
        ({"temperature": 1e7}, "temperature=10000000.0 must be a number"),
        ({"colour": "red"}, r"unknown: \['colour'\]"),
    ],
)
def test_metadata_that_contradicts_itself_or_the_graph_is_refused(
    bare, metadata, refused, tmp_path, changes, got
):
    whole = exported.attach(bare[".onnx"], metadata, ".onnx")
    (entry,) = onnx.load_from_string(whole).metadata_props
    text = json.dumps(json.loads(entry.value) | changes)
    model = onnx.load_from_string(bare[".onnx"])
    onnx.helper.set_model_props(model, {"speech": text})
    path = written(tmp_path / "m.onnx", model.SerializeToString())
    message = refused(ModelError, lambda: open_model(path))
    assert re.search(got, message), message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 1', "{}", "[" * 100_000])
def test_metadata_that_is_no_json_object_is_refused(nothing_runs, bare, refused, tmp_path, text):
    model = onnx.load_from_string(bare[".onnx"])
    onnx.helper.set_model_props(model, {"speech": text})
    path = written(tmp_path / "m.onnx", model.SerializeToString())
    refused(ModelError, lambda: open_model(path))


def foreign(kind: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with something in it that no export has."""
    graph = model.graph
    if kind == "weights in another file":
        tensor = next(t for t in graph.initializer if t.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
    elif kind == "foreign operator":
        graph.node.append(onnx.helper.make_node("ConstantOfShape", ["constant_0"], ["big"]))
    elif kind == "foreign domain":
        graph.node[0].domain = "com.example"
    elif kind == "graph in a node":
        graph.node[0].attribute.append(onnx.helper.make_attribute("body", graph))
    else:
        model.functions.add(name="f", domain="com.example")
    return model


def whole_with_right_digest(model: onnx.ModelProto, metadata: Metadata) -> bytes:
    """What somebody writes who knows how the digest is made."""
    del model.metadata_props[:]
    graph = model.graph.SerializeToString()
    described = dataclasses.replace(metadata, graph_sha256=hashlib.sha256(graph).hexdigest())
    onnx.helper.set_model_props(model, {"speech": described.to_json()})
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "got"),
    [("foreign operator", "foreign operator 'ConstantOfShape'"), ("functions", "functions of its")],
)
def test_a_graph_that_could_run_for_ever_is_refused_whatever_it_says_of_itself(
    nothing_runs, bare, metadata, refused, tmp_path, kind, got
):
    model = foreign(kind, onnx.load_from_string(bare[".onnx"]))
    path = written(tmp_path / "m.onnx", whole_with_right_digest(model, metadata))
    assert got in refused(ModelError, lambda: open_model(path))


@pytest.mark.parametrize("kind", ["weights in another file", "foreign domain", "graph in a node"])
def test_the_runtime_refuses_what_is_left_to_it(bare, metadata, refused, tmp_path, kind):
    model = foreign(kind, onnx.load_from_string(bare[".onnx"]))
    path = written(tmp_path / "m.onnx", whole_with_right_digest(model, metadata))
    message = refused(ModelError, lambda: open_model(path))
    assert "got another ([ONNXRuntimeError]" in message
    assert "speech export" in message


def test_a_litert_file_whose_graph_is_not_that_of_its_labels_is_refused(
    bare, metadata, refused, tmp_path
):
    other = dataclasses.replace(metadata, labels=("low", "high"))
    path = written(tmp_path / "m.tflite", exported.attach(bare[".tflite"], other, ".tflite"))
    assert "probabilities" in refused(ModelError, lambda: open_model(path))


@pytest.mark.parametrize(
    ("suffix", "package", "remedy"),
    [
        (".onnx", "onnxruntime", "pip install -e "),
        (".tflite", "ai_edge_litert.interpreter", "[export]'"),
        (".keras", "keras", "[train]'"),
    ],
)
def test_without_what_runs_it_the_message_says_how_to_get_it(
    bare, metadata, refused, tmp_path, monkeypatch, suffix, package, remedy
):
    path = tmp_path / f"m{suffix}"
    if suffix == ".keras":
        save_model(exports.model(), path)
    else:
        written(path, exported.attach(bare[suffix], metadata, suffix))
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "speech.model")  # which has imported it
    assert remedy in refused(ModelError, lambda: open_model(path))


def test_the_metadata_of_all_numbers_survives_json(metadata):
    exact = dataclasses.replace(metadata, temperature=float(np.nextafter(0.7, 1)))
    assert Metadata.from_json(exact.to_json().encode()) == exact
