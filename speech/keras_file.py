"""Reading a ``.keras`` file as data: the fields are checked, the weights are arrays, nothing else.

A ``.keras`` file is a zip archive of ``config.json``, ``metadata.json`` and ``model.weights.h5``.
Neither Keras nor anything that the file names takes part: what comes out is a ``NetworkConfig``,
whose bounds hold, and exactly as many numbers as its network has. ``speech.model`` makes a network
of the two. What else stands in the JSON has no effect, and no other member is opened.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.architecture import NetworkConfig
from speech.errors import ModelError

MAX_BYTES = 64_000_000
_MAX_CONFIG_BYTES = 1_000_000
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_CLASS = "speech>CommandModel"
_KERAS_FIELDS = ("name", "trainable", "dtype")  # of every Keras layer; not looked at
# deeper than any layer within a layer of the network, and more than it has of them
_MAX_DEPTH, _MAX_OBJECTS = 12, 2_000

Weights = dict[str, npt.NDArray[Any]]


def read(path: Path) -> tuple[NetworkConfig, Weights]:
    """What ``speech.model.save_model`` wrote; nothing is built, run or unpacked.

    Args:
        path: A ``.keras`` file of at most 64 MB.

    Returns:
        The fields, and the weights by their paths inside the file: float32, but for a counter.

    Raises:
        ModelError: Not such a file, damaged, too big, or with links, packed or foreign data among
            the weights.
        ImportError: h5py, which Keras brings, is not installed.
    """
    expected = f"{path}: expected a .keras file made by `speech train`"
    remedy = "train it again with: speech train"
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, over the cap of {MAX_BYTES:,}")
        text, content = _members(path)
        config = _config(text)
        if 4 * config.n_weights > len(content):
            raise ValueError(f"a network of {config.n_weights:,} weights in {len(content):,} bytes")
        return config, _weights(content, config.n_weights)
    except FileNotFoundError as error:
        raise ModelError(f"{expected}, got none (file not found); {remedy}") from error
    except OSError as error:
        reason = (error.strerror or "corrupt file").lower()
        raise ModelError(f'{expected}, got the error "{reason}"; {remedy}') from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{expected}, got {reason:.300}; {remedy}") from error


def _members(path: Path) -> tuple[bytes, bytes]:
    """The config and the weights, which lie in the archive as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename for member in archive.infolist()]
            if sorted(names) != sorted(("metadata.json", _CONFIG, _WEIGHTS)):
                raise ValueError(f"another archive, of {sorted(names)!r:.200}")
            for name, most in ((_CONFIG, _MAX_CONFIG_BYTES), (_WEIGHTS, MAX_BYTES)):
                member = archive.getinfo(name)
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise ValueError(f"a compressed {name}")
                if member.file_size > most:
                    raise ValueError(f"{name} of {member.file_size:,} bytes")
            return archive.read(_CONFIG), archive.read(_WEIGHTS)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        reason = str(error) or "it ends early"
        raise ValueError(f"another or a corrupt file ({reason})") from error


def _config(text: bytes) -> NetworkConfig:
    outer = json.loads(text)
    if not isinstance(outer, dict) or "class_name" not in outer:
        raise ValueError("another or a corrupt file (no class in its config)")
    if outer.get("registered_name") != _CLASS:
        raise ValueError(f"a Keras model of class {outer['class_name']!s:.50}")
    if not isinstance(outer["config"], Mapping):
        raise ValueError("a config that is no JSON object")
    fields = {name: outer["config"][name] for name in outer["config"] if name not in _KERAS_FIELDS}
    return NetworkConfig.from_dict(fields)


def _weights(content: bytes, n_weights: int) -> Weights:
    """The arrays of an HDF5 file, which lie plainly in the file itself."""
    import h5py

    weights: Weights = {}
    total = objects = 0

    def walk(group: Any, depth: int) -> None:
        nonlocal total, objects
        for name in group:
            objects += 1
            if depth > _MAX_DEPTH or objects > _MAX_OBJECTS:
                raise ValueError("weights that are nested too deeply, or too many")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"weights with a link to elsewhere: {name!r:.50}")
            item = group[name]
            if isinstance(item, h5py.Group):
                walk(item, depth + 1)
                continue
            _check_dataset(item)
            total += item.size
            if total > n_weights:
                raise ValueError(f"more weights than the {n_weights:,} of its network")
            weights[item.name] = item[()]

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            walk(file, 0)
    except ValueError:
        raise
    except Exception as error:  # what h5py stumbles over comes as errors of any kind
        raise ValueError(f"corrupt weights ({type(error).__name__})") from error
    if total != n_weights:
        raise ValueError(f"{total:,} weights for a network of {n_weights:,}")
    return weights


def _check_dataset(item: Any) -> None:
    """Refuse all but numbers that lie in the file as long as they say; no file elsewhere."""
    dtype = np.dtype(getattr(item, "dtype", object))  # there are also named types
    if dtype.kind not in "fiu":
        raise ValueError(f"weights that are no numbers: {item.name:.100}")
    if item.is_virtual or item.external or item.chunks is not None:
        raise ValueError(f"weights that are packed or lie in another file: {item.name:.100}")
    if item.id.get_storage_size() != item.size * dtype.itemsize:
        raise ValueError(f"weights without their content: {item.name:.100}")
