"""A ``.keras`` file, looked through before Keras is imported: data of ours, or refused."""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speech.errors import ModelError
from speech.features import FeatureConfig

MAX_BYTES = 64_000_000
_MAX_TEXT_BYTES = 1_000_000
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {"metadata.json", _CONFIG, _WEIGHTS}
_OUTSIDE = {"module", "class_name", "config", "registered_name", "build_config", "compile_config"}
_OURS = {"labels", "features", "architecture", "temperature", "decoder", "provenance"}
_OF_KERAS = {"name", "trainable", "dtype"}
_SHAPE = {"conv_filters", "lstm_layers", "lstm_units", "bidirectional", "pooling", "dropout"}
_ATTENTION_UNITS = 64
_MAX_FRAMES = 10_000  # a minute and a half of frames of 10 ms
# deeper than any layer within a layer of the network, and more than it has of them
_MAX_DEPTH, _MAX_OBJECTS = 12, 2_000


def check(path: Path) -> None:
    """Refuse whatever ``save_model`` has not written; nothing is built, run or unpacked.

    The archive holds its three files, stored as they are. The config names the one class of this
    project and nothing else that Keras would look up, and asks for no more weights than there are.
    The weights lie in the file themselves, as they are.

    Args:
        path: A ``.keras`` file.

    Raises:
        ModelError: Not such a file, damaged, too big, or with something in it that has no place
            there.
        ImportError: h5py, which Keras brings, is not installed.
    """
    expected = f"{path}: expected a .keras file made by `speech train`"
    remedy = "train it again with: speech train"
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, over the cap of {MAX_BYTES:,}")
        config, weights = _parts(path)
        wanted = _wanted_weights(_checked_config(config))
        if 4 * wanted > len(weights):
            raise ValueError(f"a network of {wanted:,} weights in {len(weights):,} bytes")
        found = _stored_weights(weights)
        if found != wanted:
            raise ValueError(f"{found:,} weights for a network of {wanted:,}")
    except OSError as error:
        reason = error.strerror or "something else"
        raise ModelError(f"{expected}, got {reason.lower()}; {remedy}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{expected}, got {reason:.300}; {remedy}") from error


def _parts(path: Path) -> tuple[bytes, bytes]:
    """The config and the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if sorted(names) != sorted(_MEMBERS):
                raise ValueError(f"an archive of {sorted(names)!r:.200}")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ValueError(f"{member.filename}, which is packed")
                if member.filename != _WEIGHTS and member.file_size > _MAX_TEXT_BYTES:
                    raise ValueError(f"{member.filename} of {member.file_size:,} bytes")
                if member.file_size > MAX_BYTES:
                    raise ValueError(f"{member.filename} of {member.file_size:,} bytes")
            return archive.read(_CONFIG), archive.read(_WEIGHTS)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"something else ({str(error) or 'it ends early'})") from error


def _checked_config(text: bytes) -> dict[str, Any]:
    """The config of the model: exactly the fields of this project, of their kinds."""
    outer = json.loads(text, parse_constant=_no_number)
    if not isinstance(outer, dict) or "class_name" not in outer:
        raise ValueError("something else")
    found = outer["class_name"], outer.get("registered_name")
    if found != ("CommandModel", "speech>CommandModel"):
        raise ValueError(f"a Keras model of class {found[0]!s:.50}")
    _exactly(outer, _OUTSIDE, set())
    config = outer["config"]
    _exactly(config, _OURS, _OF_KERAS)
    features = FeatureConfig.from_dict(config["features"])
    if features.n_frames > _MAX_FRAMES:
        raise ValueError(f"clips of {features.n_frames:,} frames, over the cap of {_MAX_FRAMES:,}")
    if outer["module"] != "speech.model" or outer["compile_config"]:
        raise ValueError("a model of another module, or one that is to be compiled")
    if outer["build_config"] != {"input_shape": [None, None, features.n_mfcc]}:
        raise ValueError(f"a network for inputs of {outer['build_config']!r:.100}")
    _check_values(config)
    return dict(config)


def _check_values(config: Mapping[str, Any]) -> None:
    policy = config.get("dtype")
    if policy is not None and (policy["module"], policy["class_name"]) != ("keras", "DTypePolicy"):
        raise ValueError("a foreign object in place of the dtype")
    if not isinstance(config.get("name", ""), str):
        raise ValueError("a foreign object in place of the name")
    labels = config["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels that are no words: {labels!r:.100}")
    if not 2 <= len(set(labels)) == len(labels) <= 1000:
        raise ValueError(f"labels that are not 2 to 1000 different ones: {labels!r:.100}")
    for name in ("decoder", "provenance"):
        if not isinstance(config[name], dict):
            raise ValueError(f"a {name} that is no JSON object")
    if not 0 < _number(config["temperature"], "temperature") <= 1e6:
        raise ValueError(f"a temperature of {config['temperature']}")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} for a number")


def _exactly(fields: Any, wanted: set[str], allowed: set[str]) -> None:
    if not isinstance(fields, dict):
        raise ValueError("a config that is no JSON object")
    unknown, missing = sorted(set(fields) - wanted - allowed), sorted(wanted - set(fields))
    if unknown or missing:
        raise ValueError(f"a config with {unknown!r:.100} unknown and {missing} missing")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r:.50}")
    return float(value)


def _check_shape(shape: Any) -> None:
    """The bounds of ``speech.model.Architecture``, which cannot be had without Keras."""
    _exactly(shape, _SHAPE, set())
    filters, layers, units = (shape[n] for n in ("conv_filters", "lstm_layers", "lstm_units"))
    if not isinstance(filters, list) or len(filters) > 4:
        raise ValueError(f"conv_filters={filters!r:.100}: they must be at most 4")
    if not all(_whole(size, 1024) for size in (*filters, units)):
        sizes = [*filters, units]
        raise ValueError(f"filters and units {sizes!r:.100}: they must be integers in [1, 1024]")
    if not _whole(layers, 8):
        raise ValueError(f"lstm_layers={layers!r:.50}: it must lie in [1, 8]")
    if not isinstance(shape["bidirectional"], bool):
        raise ValueError(f"bidirectional={shape['bidirectional']!r:.50}")
    if shape["pooling"] not in ("attention", "mean"):
        raise ValueError(f"pooling={shape['pooling']!r:.50}")
    if not 0 <= _number(shape["dropout"], "dropout") < 1:
        raise ValueError(f"dropout={shape['dropout']}: it must lie in [0, 1)")


def _whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _wanted_weights(config: Mapping[str, Any]) -> int:
    """How many numbers the network has, from the layers of ``speech.model``."""
    shape = config["architecture"]
    _check_shape(shape)
    filters, layers, units = (shape[n] for n in ("conv_filters", "lstm_layers", "lstm_units"))
    width = config["features"]["n_mfcc"]
    total = 2 * width + 1  # mean, variance and how many clips they are of
    for size in filters:
        total += 5 * width * size + 4 * size  # batch normalisation has four of each
        width = size
    directions = 1 + shape["bidirectional"]
    for _ in range(layers):
        total += directions * 4 * units * (width + units + 1)
        width = directions * units
    if shape["pooling"] == "attention":
        total += (width + 1) * _ATTENTION_UNITS + _ATTENTION_UNITS
    return int(total + (width + 1) * len(config["labels"]))


def _stored_weights(content: bytes) -> int:
    """How many numbers an HDF5 file holds, all of them plainly and in itself."""
    import h5py

    objects = total = 0

    def walk(group: Any, depth: int) -> None:
        nonlocal objects, total
        for name in group:
            objects += 1
            if depth > _MAX_DEPTH or objects > _MAX_OBJECTS:
                raise ValueError("weights that are nested too deeply, or too many")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"weights with a link to elsewhere: {name!r:.50}")
            item = group[name]
            if isinstance(item, h5py.Group):
                walk(item, depth + 1)
            elif not isinstance(item, h5py.Dataset):
                raise ValueError(f"weights with something else in them: {name!r:.50}")
            else:
                total += _plain_size(item)

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            walk(file, 0)
    except ValueError:
        raise
    except Exception as error:  # what h5py stumbles over comes as errors of any kind
        raise ValueError(f"damaged weights ({type(error).__name__})") from error
    return total


def _plain_size(dataset: Any) -> int:
    """The numbers of a dataset that lies in its file as long as it says; no file elsewhere."""
    if dataset.is_virtual or dataset.external or dataset.chunks is not None:
        raise ValueError(f"weights that are packed or lie in another file: {dataset.name:.100}")
    if dataset.dtype.kind not in "fiu":
        raise ValueError(f"weights that are no numbers: {dataset.name:.100}")
    if dataset.id.get_storage_size() != dataset.size * dataset.dtype.itemsize:
        raise ValueError(f"weights without their content: {dataset.name:.100}")
    return int(dataset.size)
