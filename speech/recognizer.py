"""The one object that infers: whatever the model's file, the same answers."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.audio import AudioSource, Waveform, fit_length, load_audio
from speech.errors import ModelError
from speech.features import FeatureConfig, mfcc

Batch = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What was heard.

    Attributes:
        label: The most probable class.
        probability: Its probability, in [0, 1].
        probabilities: That of every class, in the order of the model's labels.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class Recognizer:
    """A trained model, ready to be asked. Made by ``load``.

    Args:
        name: Name of the model.
        labels: Names of the classes.
        features: The preprocessing that the model was trained on; it also decides rate and length.
        infer: Waveforms (n, n_samples) float32 -> probabilities (n, n_classes) float32.
        decoder: Settings of the live decoder that were chosen for this model; empty for defaults.
        provenance: Where the model comes from.
    """

    def __init__(
        self,
        name: str,
        labels: tuple[str, ...],
        features: FeatureConfig,
        infer: Callable[[Batch], Batch],
        *,
        decoder: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.labels = labels
        self.features = features
        self.decoder = dict(decoder or {})
        self.provenance = dict(provenance or {})
        self._infer = infer

    def probabilities(self, waveforms: Batch) -> Batch:
        """Probabilities of clips that already have the model's rate and length.

        Args:
            waveforms: float32 (n, n_samples) in [-1, 1), at ``features.sample_rate``.

        Returns:
            float32 (n, n_classes), each row summing to one.

        Raises:
            ModelError: Another shape or dtype, NaN or infinity.
        """
        expected = f"expected float32 waveforms (n, {self.features.n_samples})"
        if waveforms.ndim != 2 or waveforms.shape[1] != self.features.n_samples:
            raise ModelError(
                f"{expected}, got shape {waveforms.shape}; see speech.audio.fit_length"
            )
        if waveforms.dtype != np.float32 or not np.isfinite(waveforms).all():
            raise ModelError(f"{expected}, got {waveforms.dtype} or values that are not finite")
        if not len(waveforms):
            return np.zeros((0, len(self.labels)), np.float32)
        return self._infer(waveforms)

    def recognize(self, source: AudioSource) -> Prediction:
        """What a recording of one word says; of a longer one, its loudest second.

        Args:
            source: Anything that ``load_audio`` accepts.

        Raises:
            AudioError: The recording could not be read.
        """
        return self.recognize_waveform(load_audio(source, self.features.sample_rate))

    def recognize_waveform(self, waveform: Waveform) -> Prediction:
        """The same for samples (n,) float32 that are already at the model's rate."""
        clip = fit_length(waveform, self.features.n_samples)
        row = self.probabilities(clip[np.newaxis])[0]
        best = int(row.argmax())
        each = dict(zip(self.labels, map(float, row), strict=True))
        return Prediction(self.labels[best], float(row[best]), each)


def load(path: str | os.PathLike[str]) -> Recognizer:
    """Open a model: a folder of ``saved_models/`` or a ``.keras`` file.

    Raises:
        ModelError: Nothing there, not a model of this project, or TensorFlow is missing.
    """
    path = Path(path)
    if path.is_dir():
        name, file = path.name, path / "model.keras"
    else:
        name, file = path.stem, path
    if not file.is_file():
        raise ModelError(
            f"{path}: expected the folder of a model or a .keras file, got nothing there; "
            "make one with: speech train"
        )
    return _load_keras(name, file)


def _load_keras(name: str, file: Path) -> Recognizer:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its notices about the processor
    try:
        import keras

        from speech.model import load_model
    except ImportError as error:
        raise ModelError(
            f"{file}: expected Keras to be installed to run it, got: {error}; "
            "install it with: pip install 'speech-commands[train]'"
        ) from error
    model = load_model(file)
    temperature = model.temperature

    def infer(waveforms: Batch) -> Batch:
        logits = model.predict_on_batch(mfcc(waveforms, model.features))
        return np.asarray(keras.ops.softmax(logits / temperature), np.float32)

    return Recognizer(
        name,
        model.labels,
        model.features,
        infer,
        decoder=model.decoder,
        provenance=model.provenance,
    )
