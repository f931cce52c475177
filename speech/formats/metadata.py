"""An exported file: the graph, and a JSON text about it, read before anything runs.

An ONNX file has the text under the key ``speech`` of its metadata, a LiteRT file in a zip archive
behind the model, which is where LiteRT's own tools attach files.

What ONNX Runtime refuses by itself is left to it: weights in other files, operators that it does
not know, tensors that are larger than the file (tests/security sees it do so). Operators that it
knows and that could run for ever or fill the memory are refused here. LiteRT's interpreter trusts
its files, and so they are looked through.
"""

import dataclasses
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.architecture import ModelConfig
from speech.errors import ModelError

FORMAT = 2
PRECISIONS = ("float32", "float16", "int8")
WINDOW_HOPS = 10  # frames from window to window, where an ONNX file is given more than a clip
MAX_BYTES = 64_000_000
_MAX_TEXT_BYTES = 1_000_000
_KEY, _MEMBER = b"speech", "speech.json"
# field numbers of onnx.proto
_GRAPH, _METADATA, _FUNCTIONS = 7, 14, 25  # of a model
_NODE, _CONSTANT, _OPERATOR = 1, 5, 4  # of a graph, of a graph, of a node
_DIMS, _KIND, _NAME, _RAW = 1, 2, 8, 9  # of a constant
_NUMPY = {1: "<f4", 7: "<i8", 11: "<f8"}  # TensorProto.FLOAT, INT64, DOUBLE
# What an export is made of. Without loops and branches a run ends, and without constants that are
# filled in it needs no more memory than its weights and clips ask for.
_OPERATORS = {
    *("Add", "Cast", "Concat", "Conv", "Div", "DynamicQuantizeLSTM", "Gather", "LSTM", "Log"),
    *("MatMul", "Max", "Mul", "Range", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape"),
    *("Slice", "Softmax", "Sqrt", "Sub", "Tanh", "Transpose", "Unsqueeze"),
}
# numbers of schema.fbs, of what export_litert writes: no custom or Flex operators, no variables
_BUILTINS = {
    *(0, 2, 3, 6, 9),  # ADD, CONCATENATION, CONV_2D, DEQUANTIZE, FULLY_CONNECTED
    *(14, 18, 22, 25, 28),  # LOGISTIC, MUL, RESHAPE, SOFTMAX, TANH
    *(36, 39, 40, 41, 45),  # GATHER, TRANSPOSE, MEAN, SUB, STRIDED_SLICE
    *(49, 55, 58, 65, 73, 74),  # SPLIT, MAXIMUM, LESS, SLICE, LOG, SUM
    *(92, 105, 119),  # SQUARE, REVERSE_V2, WHILE
    *(122, 126, 130),  # SCATTER_ND, BATCH_MATMUL, BROADCAST_TO
    *(131, 133, 134),  # RFFT2D, IMAG, REAL
}
_NUMBERS = {0, 1, 2, 4, 6, 8, 9}  # FLOAT32, FLOAT16, INT32, INT64, BOOL, COMPLEX64, INT8
_PLACEHOLDER = 127  # of the builtin code in its first, too narrow field
_MAX_PARTS, _MAX_EXTENT = 20_000, 64_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata(ModelConfig):
    """What an exported file says of itself, the model's own fields among it.

    Attributes:
        precision: Of the weights: one of ``PRECISIONS``.
        keras_sha256: Of the ``.keras`` file that it was made from.
        graph_sha256: Of the graph, which is all that is run.
        format: Version of these fields.
    """

    precision: str
    keras_sha256: str
    graph_sha256: str = ""
    format: int = FORMAT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r:.50} must be one of {PRECISIONS}")

    @classmethod
    def describing(cls, config: ModelConfig, precision: str, keras_sha256: str) -> "Metadata":
        """What to say of an export of a model, whose network it leaves out."""
        fields = {
            field.name: getattr(config, field.name) for field in dataclasses.fields(ModelConfig)
        }
        return cls(**fields, precision=precision, keras_sha256=keras_sha256)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: bytes) -> "Metadata":
        """The inverse of ``to_json``: exactly the known fields, in their ranges.

        Raises:
            ValueError: Says what is wrong.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a file whose metadata is no JSON ({error})") from error
        version = fields.get("format") if isinstance(fields, dict) else None
        if version != FORMAT:
            raise ValueError(f"a file whose metadata has version {version!r:.50}, not {FORMAT}")
        try:
            return cls.from_dict(fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"a file whose metadata does not fit: {error}") from error


def read(path: Path) -> tuple[Metadata, bytes]:
    """The metadata of an exported file, and what a runtime is to be given.

    Args:
        path: A ``.onnx`` or ``.tflite`` file of at most 64 MB.

    Returns:
        The metadata and the bytes of the model. They are whole (their digest is the one in the
        metadata) and have only the operators of an export.

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
        missing = isinstance(error, FileNotFoundError)
        reason = "none (file not found)" if missing else f'the error "{error.strerror}"'
        raise ModelError(f"{expected}, got {reason}; {remedy}") from error
    try:
        model, graph, text = (_litert if path.suffix == ".tflite" else _onnx)(content)
        if text is None:
            raise ValueError("a model without this project's metadata")
        metadata = Metadata.from_json(text)
        if hashlib.sha256(graph).hexdigest() != metadata.graph_sha256:
            raise ValueError("a corrupt file: its digest is not the one that it names")
    except (ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{expected}, got {reason:.400}; {remedy}") from error
    return metadata, model


def attach(model: bytes, metadata: Metadata, suffix: str) -> bytes:
    """The bytes of an exported file.

    Args:
        model: A model without metadata.
        metadata: What to say of it; its ``graph_sha256`` is set here.
        suffix: ``.onnx`` or ``.tflite``.

    Raises:
        ValueError: A model with operators or fields that ``read`` would refuse.
    """
    _, graph, _ = (_litert if suffix == ".tflite" else _onnx)(model)
    digest = hashlib.sha256(graph).hexdigest()
    text = dataclasses.replace(metadata, graph_sha256=digest).to_json().encode()
    if suffix == ".tflite":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(zipfile.ZipInfo(_MEMBER), text)  # with a date that is always the same
        return model + archive.getvalue()
    return model + _field(_METADATA, _field(1, _KEY) + _field(2, text))


# --- LiteRT -------------------------------------------------------------------------------------


def _litert(content: bytes) -> tuple[bytes, bytes, bytes | None]:
    """The model, the graph (the same) and the text, if there is one."""
    if content[4:8] != b"TFL3":
        raise ValueError("another or a corrupt file")
    _check_flatbuffer(content)
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
        raise ValueError(f"a corrupt file ({str(error) or 'it ends early'})") from error


def _check_flatbuffer(content: bytes) -> None:
    """Refuse what no export has; the numbers of the fields are those of schema.fbs."""
    model = _unsigned(content, 0)
    codes = _tables(content, model, 1)
    for code in codes:
        _check_operator_code(content, code)
    buffers = _tables(content, model, 4)
    for buffer in buffers:
        if _scalar(content, buffer, 1, 8) or _scalar(content, buffer, 2, 8):
            raise ValueError("a graph whose weights lie outside of it")
    subgraphs = _tables(content, model, 2)
    if not subgraphs or _slot(content, model, 8) or _slot(content, model, 9):
        raise ValueError("another or a corrupt file")
    parts = len(subgraphs)
    for subgraph in subgraphs:
        tensors, operators = _tables(content, subgraph, 0), _tables(content, subgraph, 3)
        parts += len(tensors) + len(operators)
        if parts > _MAX_PARTS:
            raise ValueError(f"a graph of more than {_MAX_PARTS:,} parts")
        for operator in operators:
            custom = any(_slot(content, operator, number) for number in (5, 9, 10, 11, 12))
            if custom or _scalar(content, operator, 0, 4) >= len(codes):
                raise ValueError("a graph with a foreign operator")
        for tensor in tensors:
            _check_litert_tensor(content, tensor, len(buffers))


def _check_operator_code(content: bytes, code: int) -> None:
    old, new = _scalar(content, code, 0, 1), _scalar(content, code, 3, 4)
    custom = _slot(content, code, 1)
    if custom or old > _PLACEHOLDER or max(old, new) not in _BUILTINS:
        name = "a custom one" if custom else f"builtin {max(old, new)}"
        raise ValueError(f"a graph with a foreign operator ({name})")


def _check_litert_tensor(content: bytes, tensor: int, n_buffers: int) -> None:
    if _scalar(content, tensor, 1, 1) not in _NUMBERS or _scalar(content, tensor, 5, 1):
        raise ValueError("a graph with variables, or with tensors that are no numbers")
    size, extents = 1, _vector(content, tensor, 0)
    for place in extents:
        size *= _unsigned(content, place)
        if size > _MAX_EXTENT:  # of a negative extent too, which is read as a huge one
            raise ValueError(f"a graph with a tensor of more than {_MAX_EXTENT:,} numbers")
    elsewhere = any(_slot(content, tensor, number) for number in (6, 9, 10))
    if _scalar(content, tensor, 2, 4) >= n_buffers or elsewhere:
        raise ValueError("a graph with weights that are nowhere, sparse, or outside of it")


def _unsigned(content: bytes, at: int, size: int = 4) -> int:
    if not 0 <= at <= len(content) - size:
        raise ValueError("a truncated file")
    return int.from_bytes(content[at : at + size], "little")


def _slot(content: bytes, table: int, number: int) -> int:
    """Where a field of a table lies; 0 where the table has none of that number."""
    back = _unsigned(content, table)
    fields = table - (back - 2**32 if back >= 2**31 else back)
    if 6 + 2 * number > _unsigned(content, fields, 2):
        return 0
    offset = _unsigned(content, fields + 4 + 2 * number, 2)
    return table + offset if offset else 0


def _scalar(content: bytes, table: int, number: int, size: int) -> int:
    slot = _slot(content, table, number)
    return _unsigned(content, slot, size) if slot else 0


def _vector(content: bytes, table: int, number: int) -> range:
    """Where the elements lie, of four bytes each."""
    slot = _slot(content, table, number)
    if not slot:
        return range(0)
    start = slot + _unsigned(content, slot)
    count = _unsigned(content, start)
    if count > _MAX_PARTS:
        raise ValueError(f"a graph of more than {_MAX_PARTS:,} parts")
    return range(start + 4, start + 4 + 4 * count, 4)


def _tables(content: bytes, table: int, number: int) -> list[int]:
    return [place + _unsigned(content, place) for place in _vector(content, table, number)]


# --- ONNX: a protobuf message, of which only the operators and the text are looked at ------------


def _onnx(content: bytes) -> tuple[bytes, memoryview, bytes | None]:
    """The model (with its metadata), the graph and the text, if there is one."""
    fields = list(_fields(memoryview(content)))
    graphs = [payload for number, payload in fields if number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError("another or a corrupt file")
    if any(number == _FUNCTIONS for number, _ in fields):
        raise ValueError("a graph with functions of its own")
    nodes = (payload for number, payload in _fields(graphs[0]) if number == _NODE)
    for number, payload in (field for node in nodes for field in _fields(node)):
        if number == _OPERATOR and (name := bytes(payload).decode()) not in _OPERATORS:
            raise ValueError(f"a graph with the foreign operator {name!r:.100}")
    entries = [dict(_fields(payload)) for number, payload in fields if number == _METADATA]
    texts = [bytes(entry.get(2, b"")) for entry in entries if bytes(entry.get(1, b"")) == _KEY]
    if len(texts) > 1 or sum(map(len, texts)) > _MAX_TEXT_BYTES:
        raise ValueError("metadata twice, or of more than a megabyte")
    return content, graphs[0], texts[0] if texts else None


def constants(model: bytes) -> dict[str, npt.NDArray[Any]]:
    """The named constants of an ONNX graph that ``read`` gave: its weights.

    Those of other kinds than float32, float64 and int64 are left out.

    Raises:
        ValueError: A constant whose numbers do not fill its shape.
    """
    _, graph, _ = _onnx(model)
    arrays = {}
    for number, payload in _fields(graph):
        if number != _CONSTANT:
            continue
        fields = list(_fields(payload))
        entry = dict(fields)
        shape = [_varint(extent, 0)[0] for field, extent in fields if field == _DIMS]
        kind = _NUMPY.get(_varint(entry.get(_KIND, memoryview(b"\0")), 0)[0])
        if kind is not None and _RAW in entry:
            name = bytes(entry.get(_NAME, b"")).decode()
            arrays[name] = np.frombuffer(entry[_RAW], kind).reshape(shape)
    return arrays


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message: their numbers and raw contents."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        start, kind = at, tag & 7
        if kind == 0:
            _, end = _varint(message, at)
        elif kind == 2:
            size, start = _varint(message, at)
            end = start + size
        elif kind in (1, 5):
            end = start + (8 if kind == 1 else 4)
        else:
            raise ValueError("another or a corrupt file")
        if end > len(message):
            raise ValueError("a truncated file")
        yield tag >> 3, message[start:end]
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
