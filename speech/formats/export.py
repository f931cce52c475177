"""From a ``.keras`` file to one self-contained ONNX or LiteRT file, compared before it is named.

The work is done by a child process, since a converter that fails may take its process along: it
writes the file, runs it, and reports how far its answers lie from those of librosa and Keras. The
parent decides, and only then does the file get its name.
"""

import dataclasses
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speech import child, keras_file
from speech.data.evaluation_set import ClipSet, evaluation_set
from speech.data.recordings import Recordings
from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.files import replacing, sha256
from speech.formats.backends import Runnable, load_keras, open_model
from speech.formats.folder import ModelFolder
from speech.formats.metadata import Metadata, attach
from speech.installation import install_command
from speech.labels import LabelSet

Batch = npt.NDArray[np.float32]
Wave = npt.NDArray[np.float64]


class Format(NamedTuple):
    """A kind of file: the name it gets, the precision of its weights, and what may differ.

    ``mfcc`` is the largest difference to librosa's MFCC, in dB; None where it is not looked at.
    """

    file: str
    precision: str
    mfcc: float | None


FORMATS = {
    "onnx": Format("model.onnx", "float32", 1e-3),
    "onnx-int8": Format("model-int8.onnx", "int8", None),
    # LiteRT multiplies in float32 only, whose rounding shows beside a loud pure tone
    "tflite": Format("model.tflite", "float32", 1e-2),
    "tflite-float16": Format("model-float16.tflite", "float16", None),
    "tflite-int8": Format("model-int8.tflite", "int8", None),
}
MAX_PROBABILITY_DIFFERENCE = 1e-4  # of a file that is not quantized
MAX_ACCURACY_LOSS = 0.003  # of a quantized one
MAX_LABELS_MOVED = 0.005
_N_SYNTHETIC = 1000
_TOSS_UP = 0.1
# the LSTM of a graphics card does not convert
_CHILD = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How the answers of a file differ from those of librosa and Keras.

    Attributes:
        clips: Which clips: ``validation`` or ``synthetic``.
        n: Number of clips.
        mfcc: Largest absolute difference of an MFCC, in dB.
        probability: Largest absolute difference of a probability.
        moved: Clips with another label.
        accuracy_before: Accuracy of Keras, in [0, 1]; None where the clips have no labels.
        accuracy: Accuracy of the file.
    """

    clips: str
    n: int
    mfcc: float
    probability: float
    moved: int
    accuracy_before: float | None = None
    accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was made, and how it compares, on the clips of a corpus first."""

    path: Path
    size: int
    comparisons: tuple[Comparison, ...]


def validation_clips(recordings: Recordings, labels: Sequence[str]) -> ClipSet:
    """The validation clips of a corpus for a model with these labels.

    Raises:
        CorpusError: The corpus has none of the words.
    """
    label_set = LabelSet.of_model("of the model", labels)
    if label_set.labels != tuple(labels):
        raise ModelError(
            f"expected labels that are words, then unknown and silence, got {', '.join(labels)}; "
            "export without validation clips"
        )
    return evaluation_set(recordings, label_set)


def export(
    model: Path, kind: str = "onnx", out: Path | None = None, clips: ClipSet | None = None
) -> Exported:
    """Make a file that maps waveforms to probabilities, without librosa, Keras or TensorFlow.

    It holds the front end, the network, its temperature, and ``Metadata``. Its outputs are
    ``probabilities`` and ``mfcc``, its input is ``waveform``, float32 (n, n_samples); of LiteRT n
    is one.

    Args:
        model: The folder of a model, or its ``.keras`` file.
        kind: One of ``FORMATS``.
        out: Folder of the file; that of the model if None.
        clips: Validation clips to compare on, besides synthetic ones.

    Raises:
        ModelError: Not a model, what converts it is not installed, or the answers of the file
            differ: by more than rounding if it is not quantized, else by more than 0.3 points of
            accuracy or by more than 0.5 % of the labels.
    """
    trained = ModelFolder(model).keras if model.is_dir() else model
    if kind not in FORMATS:
        raise ModelError(
            f"expected a format of {', '.join(FORMATS)}, got {kind!r}; choose one of these"
        )
    if not trained.is_file():
        if ModelFolder.around(model).onnx.is_file():
            raise ModelError(
                f"{trained}: expected a .keras file to export, got a model that is exported or was "
                "taught, whose model.onnx runs as it is; use that"
            )
        raise ModelError(
            f"{trained}: expected a .keras file to export, got no file there; "
            "make one with: speech train"
        )
    if lacking := missing_packages(kind):
        raise ModelError(
            f"{trained}: expected what exports it to {kind}, got no {', '.join(lacking)}; "
            f"install it with: {install_command('train', 'export')}"
        )
    keras_file.read(trained)  # refused here, in a moment
    target = (out or trained.parent) / FORMATS[kind].file
    with replacing(target) as part:
        try:
            comparisons = child.call(_convert, trained, kind, part, clips, environment=_CHILD)
        except child.ChildError as error:
            raise ModelError(
                f"{trained}: expected to become {target.name}, got {error}; choose another format "
                f"of {', '.join(FORMATS)}"
            ) from error
        _refuse_other_answers(target, FORMATS[kind], comparisons)
        size = part.stat().st_size
    return Exported(target, size, comparisons)


def missing_packages(kind: str = "onnx") -> tuple[str, ...]:
    """The packages that making this format wants and that are not installed."""
    wanted = ("tensorflow", "ai_edge_litert") if kind.startswith("tflite") else ("onnx",)
    return tuple(name for name in ("keras", "librosa", *wanted) if find_spec(name) is None)


def synthetic_clips(features: FeatureConfig, n: int = _N_SYNTHETIC, seed: int = 0) -> Batch:
    """Clips that are unlike each other: noise, tones, sweeps, pulses, clipped, with DC, silent.

    Args:
        features: Decides rate and length.
        n: How many.
        seed: Decides which.

    Returns:
        float32 (n, n_samples) in [-1, 1], levels from far below the floor to full scale.
    """
    rng = np.random.default_rng([seed, 0xC11B])
    time = np.arange(features.n_samples) / features.sample_rate
    nyquist = features.sample_rate / 2

    def noise(exponent: float) -> Wave:
        spectrum = np.fft.rfft(rng.standard_normal(len(time)))
        frequency = np.maximum(np.fft.rfftfreq(len(time), 1 / features.sample_rate), 20)
        wave: Wave = np.fft.irfft(spectrum * frequency**exponent, len(time))
        wave /= np.abs(wave).max()
        return wave

    def tone() -> Wave:
        low, high = np.sort(rng.uniform(20, nyquist, 2))
        sweep = (high - low) * rng.integers(2) / (2 * time[-1])
        wave: Wave = np.sin(2 * np.pi * (low + sweep * time) * time + rng.uniform(0, 6))
        return wave

    def voice() -> Wave:
        """A buzz that comes and goes, with two resonances: a vowel of a kind."""
        pulses = np.sin(np.pi * rng.uniform(80, 300) * time) ** rng.integers(8, 60)
        formed = sum(
            pulses * np.cos(2 * np.pi * rng.uniform(300, nyquist / 2) * time) for _ in range(2)
        )
        middle, width = rng.uniform(0.2, 0.8) * time[-1], rng.uniform(0.05, 0.4)
        wave: Wave = formed * np.exp(-(((time - middle) / width) ** 2))
        return wave + 10 ** rng.uniform(-5, -1) * rng.standard_normal(len(time))

    def pulses() -> Wave:
        wave = np.zeros(len(time))
        wave[rng.integers(0, len(time), rng.integers(1, 30))] = 1
        return wave

    makers = (lambda: noise(0), lambda: noise(rng.uniform(-1.5, 1)), tone, voice, pulses)
    clips = np.empty((n, features.n_samples), np.float32)
    for row in range(n):
        wave = makers[row % len(makers)]() * 10 ** rng.uniform(-4, 0)
        wave = wave * rng.choice([1, 1, 1, 20])  # louder than full scale: clipped
        wave = wave + rng.choice([0, 0, 0, rng.uniform(-0.5, 0.5)])  # DC
        clips[row] = np.clip(wave, -1, 1)
    clips[0], clips[1] = 0, 0.5  # digital silence, and nothing but DC
    return clips


def _refuse_other_answers(target: Path, wanted: Format, comparisons: Sequence[Comparison]) -> None:
    exact = wanted.mfcc is not None
    for c in comparisons if exact else comparisons[:1]:
        limits = {
            "MFCC": (c.mfcc, wanted.mfcc if wanted.mfcc is not None else np.inf),
            "probability": (c.probability, MAX_PROBABILITY_DIFFERENCE if exact else np.inf),
            "share of labels moved": (c.moved / c.n, 0 if exact else MAX_LABELS_MOVED),
            "loss of accuracy": (
                (c.accuracy_before or 0) - (c.accuracy or 0),
                MAX_ACCURACY_LOSS,
            ),
        }
        beyond = [
            f"{name} {value:.3g} (at most {limit:g})"
            for name, (value, limit) in limits.items()
            if not value <= limit  # NaN is beyond, too
        ]
        if beyond:
            raise ModelError(
                f"{target}: expected the answers of librosa and Keras on {c.n:,} {c.clips} clips, "
                f"got other ones: {', '.join(beyond)}; nothing was written; choose another format "
                f"of {', '.join(FORMATS)}"
            )


# --- in the child -------------------------------------------------------------------------------


def _convert(trained: Path, kind: str, part: Path, clips: ClipSet | None) -> tuple[Comparison, ...]:
    """Write the file and compare it."""
    from speech.formats.weights import FrontEnd, Network

    digest = sha256(trained)  # before reading: a file that changes is not this one
    model = load_keras(trained)
    config, precision = model.config(), FORMATS[kind].precision
    write = writer(part.suffix, causal=config.causality is not None)
    front = FrontEnd.from_features(config.features)
    write(front, Network.from_model(model), config.features, part, precision)
    metadata = Metadata.describing(config, precision, digest)
    part.write_bytes(attach(part.read_bytes(), metadata, part.suffix))
    expected, made = open_model(trained), open_model(part)
    comparisons = []
    if clips is not None:
        comparisons.append(_compare(expected, made, clips.waveforms, clips.truth))
    # noise without a meaning is a toss-up thirty times as often as speech; a label that Keras gives
    # by chance says nothing, unless the model is a toss-up throughout
    synthetic = synthetic_clips(config.features)
    best = np.sort(_in_batches(expected.infer, synthetic), axis=1)
    decided = best[:, -1] - best[:, -2] >= _TOSS_UP
    synthetic = synthetic[decided] if decided.mean() > 0.5 else synthetic
    comparisons.append(_compare(expected, made, synthetic, None))
    return tuple(comparisons)


def writer(suffix: str, causal: bool) -> Callable[..., None]:
    """What writes such a file; the formats are imported where they are needed."""
    if suffix == ".onnx":
        from speech.formats.causal_onnx import write_causal_onnx
        from speech.formats.to_onnx import write_onnx

        return write_causal_onnx if causal else write_onnx
    from speech.formats.causal_litert import write_causal_litert
    from speech.formats.to_litert import write_litert

    return write_causal_litert if causal else write_litert


def _in_batches(function: Callable[[Batch], Batch], waveforms: Batch) -> Batch:
    return np.concatenate([function(waveforms[i : i + 128]) for i in range(0, len(waveforms), 128)])


def _compare(
    expected: Runnable, made: Runnable, waveforms: Batch, truth: npt.NDArray[np.int64] | None
) -> Comparison:
    right, found = (_in_batches(one.infer, waveforms) for one in (expected, made))
    before, after = right.argmax(axis=1), found.argmax(axis=1)
    return Comparison(
        clips="synthetic" if truth is None else "validation",
        n=len(waveforms),
        mfcc=float(
            np.abs(_in_batches(made.mfcc, waveforms) - _in_batches(expected.mfcc, waveforms)).max()
        ),
        probability=float(np.abs(found - right).max()),
        moved=int(np.count_nonzero(before != after)),
        accuracy_before=None if truth is None else float(np.mean(before == truth)),
        accuracy=None if truth is None else float(np.mean(after == truth)),
    )
