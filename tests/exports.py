"""Small models and their exports, made in this process: quick, and of every shape of network."""

from pathlib import Path

import keras
import numpy as np

from speech.features import FeatureConfig, mfcc
from speech.files import sha256
from speech.formats.export import synthetic_clips, writer
from speech.formats.metadata import Metadata, attach
from speech.formats.weights import FrontEnd, Network
from speech.model import Architecture, CommandModel, save_model
from tests import tiny

LABELS = ("low", "high", "unknown", "silence")


def model(
    architecture: Architecture | None = None, features: FeatureConfig = tiny.FEATURES
) -> CommandModel:
    """Not trained, but not undecided either; batch normalisation has something to do."""
    keras.utils.set_random_seed(1)
    made = CommandModel(
        LABELS,
        features,
        architecture or tiny.config().architecture,
        temperature=2.0,
        decoder={"threshold": 0.9},
        provenance={"seed": 7},
        acceptance={"low": 0.4},
    )
    rng = np.random.default_rng(1)
    for layer in made.conv_blocks:
        if "norm" in layer.name:
            size = layer.get_weights()[0].shape
            layer.set_weights([rng.uniform(0.5, 1.5, size) for _ in range(4)])
    made.normalization.adapt(mfcc(synthetic_clips(features, 20, seed=2), features))
    kernel, bias = made.classifier.get_weights()
    made.classifier.set_weights([8 * kernel, bias])
    return made


def described(made: CommandModel, precision: str = "float32", keras_sha256: str = "") -> Metadata:
    return Metadata.describing(made.config(), precision, keras_sha256)


def write(made: CommandModel, path: Path, precision: str = "float32") -> Path:
    """The model as a file without metadata; the suffix says of which kind."""
    writer(path.suffix, causal=made.causality is not None)(
        FrontEnd.from_features(made.features),
        Network.from_model(made),
        made.features,
        path,
        precision,
    )
    return path


def write_described(
    made: CommandModel, path: Path, metadata: Metadata | None = None, precision: str = "float32"
) -> Path:
    """The model as a file with metadata, its own if none is given."""
    write(made, path, precision)
    metadata = metadata or described(made, precision)
    path.write_bytes(attach(path.read_bytes(), metadata, path.suffix))
    return path


def folder(root: Path, made: CommandModel) -> Path:
    """A model's folder with ``model.keras`` and its export as ``model.onnx``."""
    save_model(made, root / "model.keras")
    digest = sha256(root / "model.keras")
    write_described(made, root / "model.onnx", described(made, keras_sha256=digest))
    return root
