"""An exported file: the graph, and a JSON text about it; read and checked without running it.

An ONNX file has the text under the key ``speech`` of its metadata, a LiteRT file in a zip archive
behind the model, which is where LiteRT's own tools attach files.
"""

import dataclasses
import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speech.errors import ModelError
from speech.features import FeatureConfig, check_fields

FORMAT = 1
PRECISIONS = ("float32", "float16", "int8")
WINDOW_HOPS = 10  # frames from window to window, where an ONNX file hears more than a clip
MAX_BYTES = 64_000_000
_MAX_TEXT_BYTES = 1_000_000
_KEY, _MEMBER = b"speech", "speech.json"
# field numbers of onnx.proto; what is in none of these sets has no place in an export
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, _GRAPH := 7, 8, _PROPERTY := 14}
_GRAPH_FIELDS = {_NODE := 1, 2, _INITIALIZER := 5, 10, 11, 12, 13}
_NODE_FIELDS = {1, 2, 3, _OPERATOR := 4, _ATTRIBUTE := 5, 6, _DOMAIN := 7}
_ATTRIBUTE_FIELDS = {1, 2, 3, 4, 7, 8, 9, 13, 20}  # numbers and texts: no tensors, no graphs
_TENSOR_FIELDS = {_DIMS := 1, 2, 4, 5, 7, 8, 9, 10, 11, 12, _EXTERNAL := 13, _LOCATION := 14}
_OPERATORS = {
    *("Add", "Cast", "Concat", "Conv", "Div", "DynamicQuantizeLSTM", "Gather", "LSTM", "Log"),
    *("MatMul", "Max", "Mul", "Range", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape"),
    *("Slice", "Softmax", "Sub", "Tanh", "Transpose", "Unsqueeze"),
}


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an exported file says of itself.

    Attributes:
        labels: Names of the classes, in the order of the outputs.
        features: The preprocessing that is part of the graph; it also decides rate and length.
        temperature: By which the graph divides the logits.
        decoder: Settings of the live decoder that were chosen for the model; empty for defaults.
        provenance: Where the model comes from.
        precision: Of the weights: one of ``PRECISIONS``.
        keras_sha256: Of the ``.keras`` file that it was made from.
        graph_sha256: Of the graph, which is all that is run.
        format: Version of these fields.
    """

    labels: tuple[str, ...]
    features: FeatureConfig
    temperature: float
    decoder: Mapping[str, Any]
    provenance: Mapping[str, Any]
    precision: str
    keras_sha256: str
    graph_sha256: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: bytes) -> "Metadata":
        """The inverse of ``to_json``: exactly the known fields, of their kinds.

        Raises:
            ValueError: Says what is wrong.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"one whose metadata is no JSON ({error})") from error
        version = fields.get("format") if isinstance(fields, dict) else None
        if version != FORMAT:
            raise ValueError(f"one whose metadata has version {version}, not {FORMAT}")
        known = check_fields(cls, fields)
        labels = known["labels"]
        if (
            not isinstance(labels, list)
            or not all(isinstance(label, str) for label in labels)
            or not 2 <= len(set(labels)) == len(labels)
        ):
            raise ValueError(f"one whose labels are not different words: {labels!r:.100}")
        for name in ("features", "decoder", "provenance"):
            if not isinstance(known[name], dict):
                raise ValueError(f"one whose {name} is no JSON object: {known[name]!r:.100}")
        temperature = known["temperature"]
        if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
            raise ValueError(f"one whose temperature is none: {temperature!r:.100}")
        if known["precision"] not in PRECISIONS:
            raise ValueError(f"one whose precision is none: {known['precision']!r:.100}")
        known["labels"] = tuple(labels)
        known["features"] = FeatureConfig.from_dict(known["features"])
        return cls(**known)


def read(path: Path) -> tuple[Metadata, bytes]:
    """The metadata of an exported file, and what a runtime is to be given.

    Args:
        path: A ``.onnx`` or ``.tflite`` file.

    Returns:
        The metadata and the bytes of the model. They are whole (their digest is the one in the
        metadata), refer to no other file, and an ONNX graph has only the operators of an export.

    Raises:
        ModelError: Too big, damaged, or not a file that ``speech export`` made.
    """
    expected = f"{path}: expected a {path.suffix} file made by `speech export`"
    remedy = "make it again with: speech export FOLDER_OF_THE_MODEL"
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{expected}, at most {MAX_BYTES:,} bytes, got {size:,}; {remedy}")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{expected}, got the error {error.strerror!r}; {remedy}") from error
    try:
        model, graph, text = (_litert if path.suffix == ".tflite" else _onnx)(content)
        if text is None:
            raise ValueError("a model without this project's metadata")
        metadata = Metadata.from_json(text)
        if hashlib.sha256(graph).hexdigest() != metadata.graph_sha256:
            raise ValueError("a damaged one: its digest is not the one that it names")
    except (ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{expected}, got {reason}; {remedy}") from error
    return metadata, model


def attach(model: bytes, metadata: Metadata, suffix: str) -> bytes:
    """The bytes of an exported file.

    Args:
        model: A model without metadata.
        metadata: What to say of it; its ``graph_sha256`` is set here.
        suffix: ``.onnx`` or ``.tflite``.

    Raises:
        ValueError: An ONNX model with operators or fields that ``read`` would refuse.
    """
    _, graph, _ = (_litert if suffix == ".tflite" else _onnx)(model)
    digest = hashlib.sha256(graph).hexdigest()
    text = dataclasses.replace(metadata, graph_sha256=digest).to_json().encode()
    if suffix == ".tflite":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(zipfile.ZipInfo(_MEMBER), text)  # with a date that is always the same
        return model + archive.getvalue()
    return model + _field(_PROPERTY, _field(1, _KEY) + _field(2, text))


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- LiteRT -------------------------------------------------------------------------------------


def _litert(content: bytes) -> tuple[bytes, bytes, bytes | None]:
    """The model, the graph (the same) and the text, if there is one."""
    if content[4:8] != b"TFL3":
        raise ValueError("something else")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content, content, None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if [member.filename for member in members] != [_MEMBER]:
                return content, content, None
            if members[0].file_size > _MAX_TEXT_BYTES or members[0].compress_type:
                raise ValueError(f"metadata that is packed, or of {members[0].file_size:,} bytes")
            model = content[: members[0].header_offset]
            return model, model, archive.read(members[0])
    except (zipfile.BadZipFile, EOFError, RuntimeError, struct.error) as error:
        raise ValueError(f"a damaged one ({str(error) or 'it ends early'})") from error


# --- ONNX: a protobuf message, walked without building anything ----------------------------------


def _onnx(content: bytes) -> tuple[bytes, memoryview, bytes | None]:
    """The model (with its metadata), the graph and the text, if there is one."""
    fields = list(_fields(memoryview(content), _MODEL_FIELDS))
    graphs = [payload for number, payload in fields if number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError("something else")
    _check_graph(graphs[0])
    entries = [dict(_fields(payload, {1, 2})) for number, payload in fields if number == _PROPERTY]
    texts = [bytes(entry.get(2, b"")) for entry in entries if bytes(entry.get(1, b"")) == _KEY]
    if len(texts) > 1 or sum(map(len, texts)) > _MAX_TEXT_BYTES:
        raise ValueError("metadata twice, or of more than a megabyte")
    return content, graphs[0], texts[0] if texts else None


def _check_graph(graph: memoryview) -> None:
    for number, payload in _fields(graph, _GRAPH_FIELDS):
        if number == _INITIALIZER:
            _check_tensor(payload)
        elif number == _NODE:
            _check_node(payload)


def _check_tensor(tensor: memoryview) -> None:
    size = 1
    for field, value in _fields(tensor, _TENSOR_FIELDS):
        if field == _EXTERNAL or (field == _LOCATION and any(value)):
            raise ValueError("a graph whose weights lie in another file")
        at = 0
        while field == _DIMS and at < len(value):
            extent, at = _varint(value, at)
            size *= extent
    if size > len(tensor):  # no number takes less than a byte
        raise ValueError(f"a graph with {size:,} weights in {len(tensor):,} bytes")


def _check_node(node: memoryview) -> None:
    for number, payload in _fields(node, _NODE_FIELDS):
        if number == _ATTRIBUTE:
            list(_fields(payload, _ATTRIBUTE_FIELDS))
        elif number == _OPERATOR and (name := bytes(payload).decode()) not in _OPERATORS:
            raise ValueError(f"a graph with the foreign operator {name:.100}")
        elif number == _DOMAIN and bytes(payload) not in (b"", b"com.microsoft"):
            raise ValueError("a graph with operators of a foreign domain")


def _fields(message: memoryview, allowed: set[int]) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message: their numbers and raw contents."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number not in allowed:
            raise ValueError(f"something else (field {number})")
        start = at
        if kind == 0:
            _, end = _varint(message, at)
        elif kind == 2:
            size, start = _varint(message, at)
            end = start + size
        elif kind in (1, 5):
            end = start + (8 if kind == 1 else 4)
        else:
            raise ValueError("something else")
        if end > len(message):
            raise ValueError("a truncated file")
        yield number, message[start:end]
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[at : at + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at + shift // 7
    raise ValueError("a truncated file")


def _field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, with its length before it."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content
