"""Tampered model files, made from the whole ones that ship; no Keras is needed to make them."""

import functools
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Config = dict[str, Any]
# What stands where nobody looks: these files open, and have the answers of the whole one.
KERAS_WITHOUT_EFFECT = {
    *("a field more outside", "a function of os as the dtype", "a Lambda as the dtype"),
    *("a function of os as the name", "a loss of one's own", "an input of a terabyte"),
    *("a shape of an object", "another module", "another class_name"),
}
ONNX_WITHOUT_EFFECT = {"training"}
CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
NO_MODEL = {
    "empty": b"",
    "html": b"<!doctype html><html><body>404: not found</body></html>\n" * 20,
    "pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(4_000),
    "pickle": b"\x80\x04\x95\x1d\x00\x00\x00cos\nsystem\n(S'touch pwned'\ntR.",
    "gzip": b"\x1f\x8b\x08" + bytes(4_000),
    "zeros": bytes(4_000),
    "ones": b"\xff" * 4_000,
    "zip without anything": b"PK\x05\x06" + bytes(18),
}
CALL = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {
        "name": "lambda",
        "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA=\n"}},
    },
    "registered_name": None,
}


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(content: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return file.getvalue()


def keras_files(whole: Path) -> dict[str, bytes]:
    """Every tampered .keras file by what is wrong with it."""
    content = whole.read_bytes()
    made = dict(NO_MODEL)
    made |= {f"cut at {c:.0%}": content[: int(c * len(content))] for c in (0.001, 0.3, 0.9, 0.999)}
    made["a byte too few"] = content[:-1]
    original = parts(whole)
    for name, change in _changed_configs().items():
        config = json.loads(original[CONFIG])
        changed = change(config)
        text = json.dumps(config if changed is None else changed).encode()
        made[name] = packed(original | {CONFIG: text})
    for name, text in _changed_texts(original[CONFIG]).items():
        made[name] = packed(original | {CONFIG: text})
    return made | _changed_archives(original) | _changed_weights(original)


def _at(*keys: str, value: Any) -> Callable[[Config], Any]:
    def change(config: Config) -> None:
        place = config
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def _changed_configs() -> dict[str, Callable[[Config], Any]]:
    huge = {"clip_seconds": 60.0, "sample_rate": 192_000, "hop_seconds": 1 / 192_000}
    shape = ("config", "architecture")
    made: dict[str, Callable[[Config], Any]] = {
        "a Lambda as the model": lambda _: LAMBDA,
        "a Sequential with a Lambda": lambda _: {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"name": "s", "layers": [LAMBDA]},
            "registered_name": None,
        },
        "a function of os as the model": lambda _: CALL | {"config": "system"},
        "safe mode switched off": lambda _: {
            "module": "keras.config",
            "class_name": "function",
            "config": "enable_unsafe_deserialization",
            "registered_name": "enable_unsafe_deserialization",
        },
        "a list": lambda config: [config],
        "null": lambda _: [None],
        "a field more": _at("config", "custom_objects", value=CALL),
        "a field less": lambda config: config["config"].pop("features") and None,
        "a field more outside": _at("shared_object_id", value=1),
        "a function of os as the dtype": _at("config", "dtype", value=CALL),
        "a Lambda as the dtype": _at("config", "dtype", value=LAMBDA),
        "a function of os as the name": _at("config", "name", value=CALL),
        "a loss of one's own": _at("compile_config", value={"loss": CALL}),
        "an input of a terabyte": _at("build_config", value={"input_shape": [2**20, 2**20, 40]}),
        "a shape of an object": _at("build_config", value={"shapes_dict": CALL}),
        "hours of a clip": lambda config: config["config"]["features"].update(huge),
        "100,000 labels": _at("config", "labels", value=[f"w{i}" for i in range(100_000)]),
        "the same label twice": _at("config", "labels", value=["yes"] * 10),
        "labels of objects": _at("config", "labels", value=[CALL, LAMBDA]),
        "one label less": lambda config: config["config"]["labels"].pop() and None,
        "a decoder that is a text": _at("config", "decoder", value="x"),
        "layers of a billion units": _at(*shape, "lstm_units", value=10**9),
        "layers of 1e9 units": _at(*shape, "lstm_units", value=1e9),
        "layers of true units": _at(*shape, "lstm_units", value=True),
        "layers of an object": _at(*shape, "lstm_units", value=CALL),
        "the largest layers": lambda config: config["config"]["architecture"].update(
            lstm_units=1024, lstm_layers=8, conv_filters=[1024] * 4
        ),
        "a billion layers": _at(*shape, "lstm_layers", value=10**9),
        "a thousand convolutions": _at(*shape, "conv_filters", value=[64] * 1000),
        "convolutions of text": _at(*shape, "conv_filters", value="ab"),
        "another pooling": _at(*shape, "pooling", value="Lambda"),
        "a dropout of two": _at(*shape, "dropout", value=2),
    }
    temperatures: tuple[Any, ...] = (0, -1.0, "1", True, None, [], float("nan"), float("inf"))
    for value in temperatures:
        made[f"a temperature of {value!r}"] = _at("config", "temperature", value=value)
    for name in ("module", "class_name", "registered_name"):
        made[f"another {name}"] = _at(name, value="builtins>eval")
    return made


def _changed_texts(text: bytes) -> dict[str, bytes]:
    return {
        "a config that is no text": b"\xff\xfe" + text,
        "half a config": text[: len(text) // 2],
        "a config nested 200,000 deep": b'{"class_name":' * 200_000,
        "a config of a number of 100,000 digits": b'{"class_name": ' + b"9" * 100_000 + b"}",
        "a config of two megabytes": text + b" " * 2_000_000,
    }


def _changed_archives(original: dict[str, bytes]) -> dict[str, bytes]:
    bomb = original | {CONFIG: original[CONFIG] + b" " * 70_000_000}
    flat = original | {WEIGHTS: bytes(70_000_000)}
    made = {
        "a bomb of a config": packed(bomb, zipfile.ZIP_DEFLATED),
        "a bomb of weights": packed(flat, zipfile.ZIP_DEFLATED),
        "packed": packed(original, zipfile.ZIP_BZIP2),
        "nothing in it": packed({}),
    }
    for name in ("../../pwned", "/pwned", "assets/../../pwned", "assets/vocabulary.txt", "_"):
        made[f"a file {name} more"] = packed(original | {name: b"x"})
    for name in (CONFIG, WEIGHTS, METADATA):
        made[f"without {name}"] = packed({k: v for k, v in original.items() if k != name})
    twice = io.BytesIO(packed(original))
    with zipfile.ZipFile(twice, "a") as archive:
        archive.filelist, archive.NameToInfo = [*archive.filelist], {}
        archive.writestr(CONFIG, json.dumps(LAMBDA))
    made["two configs"] = twice.getvalue()
    weights = {k: v for k, v in original.items() if k != WEIGHTS}
    made["weights of NumPy"] = packed(weights | {"model.weights.npz": b"PK\x05\x06" + bytes(18)})
    lying = bytearray(packed(original))
    directory = lying.rfind(b"PK\x01\x02")  # the last one is that of the weights
    struct.pack_into("<II", lying, directory + 20, 2**32 - 2, 2**32 - 2)
    made["weights that claim 4 GB"] = bytes(lying)
    return made


def _changed_weights(original: dict[str, bytes]) -> dict[str, bytes]:
    def written(change: Callable[[h5py.File], None]) -> bytes:
        file = io.BytesIO(original[WEIGHTS])
        with h5py.File(file, "r+") as weights:
            change(weights)
        return packed(original | {WEIGHTS: file.getvalue()})

    def replaced(make: Callable[[h5py.Group], None]) -> bytes:
        def change(weights: h5py.File) -> None:
            group = weights["classifier/vars"]
            del group["1"]
            make(group)

        return written(change)

    def virtual(group: h5py.Group) -> None:
        layout = h5py.VirtualLayout((10,), "f4")
        layout[:] = h5py.VirtualSource("/etc/hostname", "1", (10,))
        group.create_virtual_dataset("1", layout)

    def looped(weights: h5py.File) -> None:
        weights["classifier/again"] = weights["/"]

    raw = original[WEIGHTS]
    return {
        "weights that are html": packed(original | {WEIGHTS: NO_MODEL["html"]}),
        "half the weights": packed(original | {WEIGHTS: raw[: len(raw) // 2]}),
        "no weights": packed(original | {WEIGHTS: b""}),
        "weights outside": replaced(
            lambda g: (
                g.create_dataset("1", (10,), "f4", external=[("/etc/hostname", 0, 40)]) and None
            )
        ),
        "weights of a link outside": replaced(
            lambda g: g.__setitem__("1", h5py.ExternalLink("/etc/hostname", "/"))
        ),
        "weights of a link inside": replaced(
            lambda g: g.__setitem__("1", h5py.SoftLink("/classifier/vars/0"))
        ),
        "virtual weights": replaced(virtual),
        "weights of a shape without content": replaced(
            lambda g: g.create_dataset("1", (2**40,), "f4") and None
        ),
        "weights that unfold": replaced(
            lambda g: g.create_dataset("1", (10,), "f4", chunks=(10,), compression="gzip") and None
        ),
        "weights of text": replaced(
            lambda g: g.create_dataset("1", data=np.array([b"x" * 4] * 10)) and None
        ),
        "weights of objects": replaced(
            lambda g: g.create_dataset("1", (10,), h5py.special_dtype(vlen=str)) and None
        ),
        "weights of another shape": replaced(
            lambda g: g.create_dataset("1", data=np.zeros(11, "f4")) and None
        ),
        "weights more": written(lambda w: w.create_dataset("x", data=np.zeros(9, "f4")) and None),
        "weights less": written(lambda w: w.__delitem__("classifier/vars/1")),
        "weights in a ring": written(looped),
    }


def changed_graph(whole: bytes, change: Callable[[Any], object]) -> bytes:
    """An ONNX file whose graph was tampered with by somebody who knows how the digest is made."""
    import onnx

    from speech.formats import metadata

    model = onnx.load_from_string(whole)
    change(model)
    (entry,) = model.metadata_props
    fields = json.loads(entry.value)
    for number, payload in metadata._fields(memoryview(model.SerializeToString())):
        if number == metadata._GRAPH:
            fields["graph_sha256"] = hashlib.sha256(payload).hexdigest()
    entry.value = json.dumps(fields)
    return bytes(model.SerializeToString())


def _more(node: Any, model: Any) -> None:
    model.graph.node.append(node)


def _longer(extent: int, model: Any) -> None:
    model.graph.initializer[0].dims[0] = extent


def _loop_for_ever(model: Any) -> None:
    """The probabilities are added to by a loop whose condition stays true."""
    import onnx
    from onnx import helper, numpy_helper

    kind = onnx.TensorProto
    value = functools.partial(helper.make_tensor_value_info, shape=[])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["sum", "sum"], ["summed"]),
        ],
        "body",
        [value("i", kind.INT64), value("go_on", kind.BOOL), value("sum", kind.FLOAT)],
        [value("goes_on", kind.BOOL), value("summed", kind.FLOAT)],
    )
    for array, name in ((np.int64(2**62), "rounds"), (np.True_, "true"), (np.float32(0), "zero")):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Loop", ["rounds", "true", "zero"], ["s"], body=body))
    model.graph.node.append(helper.make_node("Add", ["before", "s"], ["probabilities"]))


def _fill_a_terabyte(model: Any) -> None:
    from onnx import helper, numpy_helper

    extent = numpy_helper.from_array(np.array([2**40], np.int64), "extent")
    model.graph.initializer.append(extent)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["extent"], ["filled"]))
    model.graph.node[-2].output[0] = "before"
    model.graph.node.append(helper.make_node("ReduceMax", ["filled"], ["largest"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["before", "largest"], ["probabilities"]))


def _call_a_function(model: Any) -> None:
    """A function of the file's own by the name of an allowed operator."""
    from onnx import helper

    opset = helper.make_opsetid("", 17)
    node = helper.make_node("Hardmax", ["x"], ["y"])
    model.functions.append(helper.make_function("own", "Relu", ["x"], ["y"], [node], [opset]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Relu", ["before"], ["probabilities"], domain="own"))


def onnx_files(whole: Path) -> dict[str, bytes]:
    """Every tampered .onnx file by what is wrong with it; their digests are right."""
    import onnx

    content = whole.read_bytes()
    made = dict(NO_MODEL)
    made |= {f"cut at {c:.0%}": content[: int(c * len(content))] for c in (0.001, 0.3, 0.9, 0.999)}
    made["a byte too few"] = content[:-1]

    def tampered(name: str, change: Callable[[Any], object]) -> None:
        made[name] = changed_graph(content, change)

    def outside(location: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            tensor = next(t for t in model.graph.initializer if t.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=location)

        return change

    for location in ("../secret", "/etc/passwd", "a/../../secret", "weights.bin"):
        tampered(f"weights in {location}", outside(location))
    for name in ("ConstantOfShape", "Loop", "If", "Scan", "PyOp", "ReadFile", "Add\0"):
        node = onnx.helper.make_node(name, ["waveform"], ["y"])
        made[f"the operator {name!r}"] = changed_graph(content, functools.partial(_more, node))
    node = onnx.helper.make_node("Add", ["waveform", "waveform"], ["y"], domain="ai.onnx.contrib")
    tampered("a domain of one's own", functools.partial(_more, node))
    tampered("a loop without an end", _loop_for_ever)
    tampered("a constant of a terabyte", _fill_a_terabyte)
    tampered("an operator in a function", _call_a_function)
    tampered("training", lambda m: m.training_info.add())
    tampered("another graph inside", lambda m: m.graph.node[0].attribute.append(
        onnx.helper.make_attribute("body", onnx.GraphProto(name="g"))))  # fmt: skip
    for extent in (2**40, 2**62, -1):
        tampered(f"weights of {extent} numbers", functools.partial(_longer, extent))
    return made


def litert_model(change: Callable[[Any, Any], object] = lambda model, schema: None) -> bytes:
    """One RESHAPE with this project's metadata and a right digest, as flatbuffers writes it."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    from speech.features import FeatureConfig
    from speech.formats import metadata

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    tensors = [schema.TensorT(), schema.TensorT()]
    for tensor in tensors:
        tensor.shape, tensor.type, tensor.buffer = [1, 16_000], schema.TensorType.FLOAT32, 0
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    change(model, schema)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    raw = bytes(builder.Output())
    digest = hashlib.sha256(raw).hexdigest()
    text = metadata.Metadata(
        labels=("yes", "no"),
        features=FeatureConfig(),
        precision="float32",
        keras_sha256="0" * 64,
        graph_sha256=digest,
    )
    return raw + packed({"speech.json": text.to_json().encode()})


def _operator(name: str, custom: str | None, model: Any, schema: Any) -> None:
    """A second operator of that kind, with variables where the kind is about them."""
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(127, code.builtinCode)
    code.customCode = custom
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 1, [0], [1]
    model.subgraphs[0].operators.append(operator)


def _set(place: Callable[[Any], Any], name: str, value: object, model: Any, schema: Any) -> None:
    setattr(place(model), name, value)


def litert_files() -> dict[str, bytes]:
    """Every tampered .tflite file by what is wrong with it; the digests of most are right."""
    whole = litert_model()
    made = dict(NO_MODEL)
    made |= {f"cut at {c:.0%}": whole[: int(c * len(whole))] for c in (0.001, 0.3, 0.9, 0.999)}
    made["only its name"] = b"\x1c\0\0\0TFL3" + bytes(100)
    made["offsets behind the end"] = b"\xf0\xff\xff\x7fTFL3" + bytes(100)
    foreign = (
        *("IF", "CALL_ONCE", "CALL", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"),
        *("HASHTABLE", "HASHTABLE_IMPORT", "EMBEDDING_LOOKUP", "DELEGATE", "FILL", "RANGE"),
        *("RANDOM_UNIFORM", "STABLEHLO_CUSTOM_CALL", "STABLEHLO_WHILE", "LSTM"),
    )
    for name in foreign:
        change = functools.partial(_operator, name, None)
        made[f"the operator {name}"] = litert_model(change)
    for custom in ("FlexReadFile", "FlexPyFunc", "FlexWriteFile", "TFLite_Detection_PostProcess"):
        made[f"the custom operator {custom}"] = litert_model(
            functools.partial(_operator, "CUSTOM", custom)
        )
    made["a custom name for a known one"] = litert_model(
        functools.partial(_operator, "ADD", "FlexReadFile")
    )

    def tampered(what: str, place: Callable[[Any], Any], name: str, value: object) -> None:
        made[what] = litert_model(functools.partial(_set, place, name, value))

    code = lambda model: model.operatorCodes[0]  # noqa: E731
    operator = lambda model: model.subgraphs[0].operators[0]  # noqa: E731
    tensor = lambda model: model.subgraphs[0].tensors[1]  # noqa: E731
    buffer = lambda model: model.buffers[0]  # noqa: E731
    for number in (211, 9_999, 2**31 - 1):
        tampered(f"the unknown operator {number}", code, "builtinCode", number)
    tampered("a negative operator", code, "deprecatedBuiltinCode", -3)
    tampered("an operator that is not there", operator, "opcodeIndex", 7)
    tampered("options of one's own", operator, "customOptions", [1, 2, 3])
    tampered("large options of one's own", operator, "largeCustomOptionsOffset", 64)
    tampered("a variable", tensor, "isVariable", True)
    for kind, number in (("texts", 5), ("a resource", 13), ("a variant", 14)):
        tampered(f"a tensor of {kind}", tensor, "type", number)
    tampered("a tensor of a terabyte", tensor, "shape", [2**20, 2**20])
    tampered("a negative shape", tensor, "shape", [1, -5])
    tampered("weights that are nowhere", tensor, "buffer", 9)
    tampered("weights behind the graph", buffer, "offset", 2**33)
    tampered("no graph", lambda model: model, "subgraphs", [])
    return made
