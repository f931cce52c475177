"""Where a model comes from: the data, the code and the versions that decide its weights."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from speech.training.sources import TrainingData

# Paths below the package: a module that moves is another module for the digest.
_DECIDING_MODULES = (
    "audio.py",
    "features.py",
    "model.py",
    "data/corpus.py",
    "data/recordings.py",
    "training/augment.py",
    "training/batches.py",
    "training/config.py",
    "training/front_end.py",
    "training/network.py",
    "training/ops.py",
    "training/rooms.py",
    "training/sources.py",
    "training/trainer.py",
)
_DECIDING_PACKAGES = (
    "tensorflow-cpu",
    "tensorflow",
    "jax",
    "keras",
    "librosa",
    "numba",
    "numpy",
    "soxr",
    "soundfile",
)


def provenance(data: TrainingData) -> dict[str, Any]:
    """What has to be the same for the same weights to come again, JSON-able.

    Args:
        data: The decoded sources.
    """
    recordings = data.recordings
    speech = [speech for _, speech in data.speech]
    return {
        "corpus": {
            "sha256": recordings.digest,
            "clips": len(recordings.corpus.clips),
            "name": recordings.corpus.root.name,
        },
        "speech": None
        if not speech
        else {
            "sha256": " ".join(each.digest for each in speech),
            "names": [name for each in speech for name in each.names],
        },
        "sources": data.provenance(),
        "code": code_digest(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def code_digest() -> str:
    """SHA-256 over the modules that decide the weights."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in _DECIDING_MODULES:
        digest.update(f"{path}\0".encode() + (package / path).read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _DECIDING_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
