"""A model whose weights are read, a clip, and all that can be shown of the two."""

import dataclasses
import os
from typing import Any

import numpy as np

from speech.architecture import ModelConfig
from speech.audio import AudioSource, OnNote, Waveform, fit_length, load_audio, warn
from speech.errors import AudioError, ModelError
from speech.formats.backends import load_keras
from speech.formats.carried import refuse_causal
from speech.formats.folder import ModelFolder
from speech.formats.from_onnx import read_onnx
from speech.formats.weights import Array, FrontEnd, Network
from speech.inside.trace import DIRECTIONS, Trace, decibels, log_mel, step_times, trace
from speech.installation import DEFAULT_MODEL, find_model

_COLUMNS = 500  # of the drawn waveform
_FRAMES = 4_000  # of all clips that are computed at once
_MOST_STEPS = 300  # for each of which the clip is asked for again
_MOST_NUMBERS = 50_000_000  # of a trace


@dataclasses.dataclass(frozen=True)
class OpenModel:
    """A model of which every number is known.

    Attributes:
        name: Name of the model.
        config: Labels, features, and all else that inference has to know.
        front: The matrices of its front end.
        network: Its weights.
    """

    name: str
    config: ModelConfig
    front: FrontEnd
    network: Network


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a model does with one clip.

    Attributes:
        model: The model.
        waveform: float32 (n_samples,), the clip at the model's rate.
        log_mel: float32 (n_frames, n_mels), as ``speech.inside.trace.log_mel``.
        mfcc: float32 (n_frames, n_mfcc), in dB.
        trace: All that the network computed of them.
        unfolding: float32 (n_steps, n_classes), as ``unfold``; None where it was not asked for.
    """

    model: OpenModel
    waveform: Waveform
    log_mel: Array
    mfcc: Array
    trace: Trace
    unfolding: Array | None = None

    def header(self) -> dict[str, Any]:
        """What the arrays are of, JSON-able; docs of the fields: ``speech.inside.packing``."""
        features, trace = self.model.config.features, self.trace
        probabilities = trace.probabilities
        best = int(probabilities.argmax())
        steps = step_times(len(self.mfcc), self.model.network, features)
        return {
            "model": self.model.name,
            "labels": list(self.model.config.labels),
            "answer": self.model.config.labels[best],
            "probability": float(probabilities[best]),
            "sample_rate": features.sample_rate,
            "seconds": len(self.waveform) / features.sample_rate,
            "frame_times": [features.window_seconds / 2, features.hop_seconds],
            "step_times": [float(steps[0]), float(steps[1] - steps[0]) if len(steps) > 1 else 0.0],
            "frequencies": [features.fmin, features.fmax],
            "layers": [
                {"directions": list(DIRECTIONS[: len(layer)]), "units": layer[0].cell.shape[-1]}
                for layer in trace.lstm_layers
            ],
        }

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, of one clip; ``speech.inside.packing`` lists them with shapes."""
        trace = self.trace
        starts = np.linspace(0, len(self.waveform), _COLUMNS, endpoint=False).astype(int)
        peaks = [part.reduceat(self.waveform, starts) for part in (np.minimum, np.maximum)]
        found = {
            "waveform": np.stack(peaks, axis=1),
            "mel": decibels(self.log_mel, self.model.config.features),
            "mfcc": self.mfcc,
            "attention": trace.attention,
            "logits": trace.logits,
        }
        found |= {f"convolution.{i}": array for i, array in enumerate(trace.convolutions)}
        for i, layer in enumerate(trace.lstm_layers):
            for direction, cells in zip(DIRECTIONS, layer, strict=False):
                prefix = f"layer.{i}.{direction}"
                for field in dataclasses.fields(cells):
                    found[f"{prefix}.{field.name}"] = getattr(cells, field.name)
                found[f"{prefix}.order"] = cells.unit_order().astype(np.uint16)
        if self.unfolding is not None:
            found["probabilities"] = self.unfolding
        return found


def open_model(path: str | os.PathLike[str] = DEFAULT_MODEL) -> OpenModel:
    """Read the weights of a model; TensorFlow is needed only for a ``.keras`` file.

    Args:
        path: The name of a bundled model; the folder of a model, of which ``model.onnx`` is taken,
            or ``model.keras`` where there is none; or such a file.

    Raises:
        ModelError: A file without an LSTM of this project that could be looked at: made by another
            program, quantized, or LiteRT.

    Example:
        >>> from speech.inside.explanation import open_model
        >>> model = open_model()
        >>> model.name, len(model.network.lstm_layers)
        ('commands-8', 2)
    """
    path = find_model(path)
    file, name = path, path.stem
    if path.is_dir():
        folder = ModelFolder(path)
        file = folder.onnx if folder.onnx.is_file() else folder.keras
        name = path.absolute().name
        folder.refuse_stale(file) if file.is_file() else None
    if file.suffix == ".keras" and file.is_file():
        trained = load_keras(file)
        refuse_causal(file, trained.config())
        front = FrontEnd.from_features(trained.features)
        return OpenModel(name, trained.config(), front, Network.from_model(trained))
    try:
        metadata, front, network = read_onnx(file)
    except ModelError as error:
        raise ModelError(
            f"{error} (only an LSTM in a model.keras, or in its model.onnx in float32, can be "
            "explained)"
        ) from error
    model = OpenModel(name, metadata, front, network)
    _check(model, file)
    return model


def _check(model: OpenModel, file: os.PathLike[str]) -> None:
    """Refuse weights that do not fit one another or the metadata, or of which a trace is huge."""
    features, network = model.config.features, model.network
    silence = np.zeros((8, features.n_mfcc), np.float32) + model.front.offset
    try:
        small = trace(network, silence)
        steps = len(step_times(features.n_frames, network, features))
        cells = sum(6 * c.cell.shape[-1] for layer in small.lstm_layers for c in layer)
        if model.front.dct.shape != (features.n_mfcc, features.n_mels):
            raise ValueError(f"a front end of shape {model.front.dct.shape}")
        if small.logits.shape != (len(model.config.labels),) or not np.isfinite(small.logits).all():
            raise ValueError("other logits than one finite number a label")
        if steps * cells > _MOST_NUMBERS:
            raise ValueError(f"a network of {steps * cells:,} gates and states a clip")
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{file}: expected weights that fit one another and their metadata, got others "
            f"({error}); make the file again with: speech export FOLDER_OF_THE_MODEL"
        ) from error


def read_clip(source: AudioSource, model: OpenModel, on_note: OnNote = warn) -> Waveform:
    """The clip of a recording that ``speech.Recognizer.recognize`` would answer for.

    Args:
        source: Anything that ``speech.load_audio`` accepts, at most 60 s.
        model: Decides rate and length.
        on_note: Told in a sentence if the recording is longer than a clip: then its loudest part is
            explained.

    Returns:
        float32 (n_samples,).

    Raises:
        AudioError: Not audio, too long, or shorter than a window of the front end.
    """
    features = model.config.features
    waveform = load_audio(source, features.sample_rate, on_note=on_note)
    seconds = len(waveform) / features.sample_rate
    if len(waveform) < features.n_fft:
        raise AudioError(
            f"expected at least {features.window_seconds:g} s of sound, one frame of the network, "
            f"got {seconds:.3g} s; only a longer recording can be explained"
        )
    if len(waveform) > features.n_samples:
        on_note(
            f"the recording lasts {seconds:.3g} s, the network sees {features.clip_seconds:g} s: "
            "the loudest part is explained"
        )
    return fit_length(waveform, features.n_samples)


def explain(model: OpenModel, clip: Waveform, *, unfolded: bool = True) -> Explanation:
    """Look inside, while the model answers for a clip.

    Args:
        model: As ``open_model`` gives it.
        clip: float32 (n_samples,) at the model's rate, as ``read_clip`` gives it.
        unfolded: Whether also to ask, for each step, what the answer had been had the clip fallen
            silent there; it takes ten times as long as the rest, and is left out if there are more
            than 300 steps.

    Raises:
        AudioError: A clip of another length.

    Example:
        >>> from speech.inside.explanation import explain, open_model, read_clip
        >>> model = open_model()
        >>> clip = read_clip("left.wav", model, on_note=lambda note: None)
        >>> explained = explain(model, clip)
        >>> explained.header()["answer"], explained.trace.lstm_layers[0][0].cell.shape
        ('left', (25, 128))
    """
    features = model.config.features
    if clip.shape != (features.n_samples,):
        raise AudioError(
            f"expected a clip ({features.n_samples},) at {features.sample_rate} Hz, got shape "
            f"{clip.shape}; cut it to one clip first"
        )
    mel = log_mel(model.front, features, clip)
    mfcc = mel @ model.front.dct.T + model.front.offset
    steps = len(step_times(len(mfcc), model.network, features))
    rows = unfold(model, mfcc) if unfolded and steps <= _MOST_STEPS else None
    return Explanation(model, clip, mel, mfcc, trace(model.network, mfcc), rows)


def unfold(model: OpenModel, mfcc: Array) -> Array:
    """The answer for a clip that falls silent after a step, for each of its steps.

    Args:
        model: As ``open_model`` gives it.
        mfcc: float32 (n_frames, n_mfcc).

    Returns:
        float32 (n_steps, n_classes), each row summing to one; the last is the answer for the clip.
    """
    n_frames = len(mfcc)
    n_steps = len(step_times(n_frames, model.network, model.config.features))
    ends = -(-n_frames * np.arange(1, n_steps + 1) // n_steps)
    known = np.arange(n_frames) < ends[:, np.newaxis]  # (n_steps, n_frames)
    at_once = rows_at_once(n_frames)
    rows = [
        trace(
            model.network,
            np.where(known[start : start + at_once, :, np.newaxis], mfcc, model.front.offset),
        ).probabilities
        for start in range(0, n_steps, at_once)
    ]
    return np.concatenate(rows)


def rows_at_once(n_frames: int) -> int:
    """How many clips of so many frames are computed together: more would only fill the memory."""
    return max(1, _FRAMES // n_frames)
