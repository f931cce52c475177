"""Running a causal model's file: a state and some sound in, answers and the next state out."""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from speech.architecture import Causality
from speech.errors import ModelError
from speech.features import FeatureConfig
from speech.formats.causal_onnx import GIVEN, NEXT
from speech.formats.metadata import Metadata

Batch = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[np.float32]]
#: Sound (batch, samples) and a state -> probabilities (batch, steps, n_classes), MFCC (batch,
#: frames, n_mfcc) and the next state.
Run = Callable[[Batch, Arrays], tuple[Batch, Batch, dict[str, npt.NDArray[np.float32]]]]

_MAX_STATE = 1_000_000  # numbers; that of the bundled model has fewer than two thousand
_STEPS = 250  # in one run: more do not stay in the cache of the processor


@dataclasses.dataclass(frozen=True)
class StreamState:
    """All that a causal model remembers of a stream.

    Attributes:
        model: Digest of the model that it belongs to.
        arrays: float32 by name, (1, ...).
    """

    model: str
    arrays: Arrays = dataclasses.field(repr=False)


class CarriedModel:
    """A causal model that answers at every step of a stream.

    Args:
        causality: Length of a step, and how far it looks ahead.
        features: The preprocessing.
        run: Runs the file.
        shapes: Of the state, without the batch, by name.
        digest: Of the model, which its states carry.
        most: Streams at once that ``run`` takes.

    Attributes:
        step: Samples in a step.
    """

    def __init__(
        self,
        causality: Causality,
        features: FeatureConfig,
        run: Run,
        shapes: Mapping[str, Sequence[int]],
        digest: str,
        most: int,
    ) -> None:
        self.step = causality.step_hops * features.hop_length
        self._causality = causality
        self._features, self._run, self._most = features, run, most
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._digest = digest
        self._last: StreamState | None = None  # which nobody has to look at again

    def begin(self) -> StreamState:
        """The state of a stream that begins now."""
        return StreamState(self._digest, self._zeros(1))

    def _zeros(self, batch: int) -> dict[str, npt.NDArray[np.float32]]:
        return {name: np.zeros((batch, *s), np.float32) for name, s in self._shapes.items()}

    def advance(self, waveform: Batch, state: StreamState) -> tuple[Batch, StreamState]:
        """The answers to the next sound of a stream.

        Args:
            waveform: float32 (n,), a whole number of steps.
            state: As ``begin`` or the last call gave it.

        Returns:
            Probabilities float32 (n // step, n_classes), and the state behind them.

        Raises:
            ModelError: A state of another model, of another shape, or with NaN or infinity; or no
                whole number of steps.
        """
        self._check(waveform, state)
        size = _STEPS * self.step
        arrays, rows = state.arrays, []
        for first in range(0, len(waveform), size):
            part = np.ascontiguousarray(waveform[np.newaxis, first : first + size])
            answers, _, arrays = self._run(part, arrays)
            rows.append(answers[0])
        self._last = StreamState(self._digest, arrays)
        return np.concatenate(rows), self._last

    def _check(self, waveform: Batch, state: StreamState) -> None:
        if not len(waveform) or len(waveform) % self.step:
            raise ModelError(
                f"expected a whole number of steps of {self.step} samples, got {len(waveform)}; "
                "keep the rest for the next call"
            )
        if state is self._last:
            return
        remedy = "begin the stream anew with: recognizer.begin()"
        if state.model != self._digest:
            raise ModelError(f"expected a state of this model, got one of another; {remedy}")
        found = {name: array.shape[1:] for name, array in state.arrays.items()}
        if found != self._shapes or any(len(a) != 1 for a in state.arrays.values()):
            raise ModelError(
                f"expected a state of the shapes {self._shapes}, got {found}; {remedy}"
            )
        if not all(np.isfinite(array).all() for array in state.arrays.values()):
            raise ModelError(f"expected a state of finite numbers, got NaN or infinity; {remedy}")

    def infer(self, waveforms: Batch) -> Batch:
        """The answers to clips (n, n_samples): those of the last step, ``look_ahead`` behind."""
        tail = self._features.n_fft - self._features.hop_length  # which is part of the state
        padded = stream_of(waveforms, self._causality, self._features)[:, tail:]
        parts = (padded[i : i + self._most] for i in range(0, len(padded), self._most))
        return np.concatenate([self._run(part, self._zeros(len(part)))[0][:, -1] for part in parts])

    def mfcc(self, waveforms: Batch) -> Batch:
        """MFCC of clips (n, n_samples), as librosa computes them: no frame before the clip."""
        features = self._features
        tail = features.n_fft - features.hop_length
        after = -(waveforms.shape[1] - tail) % self.step
        padded = np.pad(waveforms, ((0, 0), (0, after)))
        rows = []
        for first in range(0, len(padded), self._most):
            part = padded[first : first + self._most]
            state = self._zeros(len(part)) | {"samples": np.ascontiguousarray(part[:, :tail])}
            frames = self._run(np.ascontiguousarray(part[:, tail:]), state)[1]
            rows.append(frames[:, : features.n_frames])
        return np.concatenate(rows)


def stream_of(waveforms: Batch, causality: Causality, features: FeatureConfig) -> Batch:
    """Clips as streams whose last step ends ``look_ahead`` behind the clip.

    Args:
        waveforms: float32 (n, n_samples).
        causality: Length of a step, and how far it looks ahead.
        features: The preprocessing.

    Returns:
        float32 (n, longer): before the clip the silence that the first window begins with, and what
        is lacking to whole steps; behind it silence for the look-ahead.
    """
    step = causality.step_hops * features.hop_length
    ahead = round(causality.look_ahead_seconds * features.sample_rate)
    before = -(waveforms.shape[1] + ahead) % step + features.n_fft - features.hop_length
    return np.pad(waveforms, ((0, 0), (before, ahead)))


class _Causal(Protocol):
    @property
    def causality(self) -> Causality | None: ...


def refuse_causal(path: object, model: _Causal) -> None:
    """For what works on whole clips only.

    Raises:
        ModelError: The model is causal.
    """
    if model.causality is not None:
        raise ModelError(
            f"{path}: expected a model that is given whole clips, such as commands-8, got a causal "
            "one, which carries a state from step to step; choose another model"
        )


def carried_onnx(session: Any, metadata: Metadata) -> CarriedModel:
    """The model of an ONNX session.

    Raises:
        ValueError: A graph that does not fit its metadata.
    """
    given = {t.name: t.shape for t in session.get_inputs()}
    made = {t.name: t.shape for t in session.get_outputs()}
    shapes = {name.removeprefix(GIVEN): s[1:] for name, s in given.items() if name != "waveform"}
    features = metadata.features
    expected = {
        "probabilities": ["batch", "steps", len(metadata.labels)],
        "mfcc": ["batch", "frames", features.n_mfcc],
        **{f"{NEXT}{name}": ["batch", *shape] for name, shape in shapes.items()},
    }
    batches = [shape[:1] for shape in given.values()]
    whole = all(isinstance(n, int) and 0 < n <= _MAX_STATE for s in shapes.values() for n in s)
    fits = given.get("waveform") == ["batch", "samples"] and batches == [["batch"]] * len(given)
    tail = [features.n_fft - features.hop_length]
    if made != expected or not (whole and fits) or shapes.get("samples") != tail:
        raise ValueError(f"shapes {given} and {made} instead of {expected}")
    names = ["probabilities", "mfcc", *(f"{NEXT}{name}" for name in shapes)]

    def run(
        waveforms: Batch, state: Arrays
    ) -> tuple[Batch, Batch, dict[str, npt.NDArray[np.float32]]]:
        inputs = {f"{GIVEN}{name}": array for name, array in state.items()}
        answers, frames, *following = session.run(names, {"waveform": waveforms, **inputs})
        return answers, frames, dict(zip(shapes, following, strict=True))

    if metadata.precision == "float32":
        return _model(metadata, run, shapes, 8)
    # in 8 bits an answer would depend on the sound that is in the same call
    assert metadata.causality is not None
    step = metadata.causality.step_hops * features.hop_length
    return _model(metadata, _step_by_step(run, step), shapes, 1)


def carried_litert(runner: Any, metadata: Metadata) -> CarriedModel:
    """The model of a LiteRT runner, which takes one step of one stream at a time.

    Raises:
        ValueError: A graph that does not fit its metadata.
    """
    assert metadata.causality is not None
    features = metadata.features
    given = {name: [*map(int, t["shape"])] for name, t in runner.get_input_details().items()}
    made = {name: [*map(int, t["shape"])] for name, t in runner.get_output_details().items()}
    hops = metadata.causality.step_hops
    shapes = {name.removeprefix(GIVEN): s[1:] for name, s in given.items() if name != "waveform"}
    expected = {
        "waveform": [1, hops * features.hop_length],
        "probabilities": [1, 1, len(metadata.labels)],
        "mfcc": [1, hops, features.n_mfcc],
        **{f"{NEXT}{name}": [1, *shape] for name, shape in shapes.items()},
    }
    found = {"waveform": given.get("waveform"), **made}
    if found != expected or shapes.get("samples") != [features.n_fft - features.hop_length]:
        raise ValueError(f"shapes {found} instead of {expected}")
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(
        waveforms: Batch, state: Arrays
    ) -> tuple[Batch, Batch, dict[str, npt.NDArray[np.float32]]]:
        inputs = {f"{GIVEN}{name}": array for name, array in state.items()}
        with lock:
            made = runner(waveform=waveforms, **inputs)
        following = {name: made[f"{NEXT}{name}"].copy() for name in shapes}
        return made["probabilities"].copy(), made["mfcc"].copy(), following

    return _model(metadata, _step_by_step(run, expected["waveform"][1]), shapes, 1)


def _step_by_step(run: Run, step: int) -> Run:
    """For a graph that takes one step at a call: the steps of some sound, one after the other."""

    def run_steps(
        waveforms: Batch, state: Arrays
    ) -> tuple[Batch, Batch, dict[str, npt.NDArray[np.float32]]]:
        following = dict(state)
        answers, frames = [], []
        for first in range(0, waveforms.shape[1], step):
            part = np.ascontiguousarray(waveforms[:, first : first + step])
            rows, cepstra, following = run(part, following)
            answers.append(rows)
            frames.append(cepstra)
        return np.concatenate(answers, axis=1), np.concatenate(frames, axis=1), following

    return run_steps


def _model(
    metadata: Metadata, run: Run, shapes: Mapping[str, Sequence[int]], most: int
) -> CarriedModel:
    assert metadata.causality is not None
    digest = hashlib.sha256(metadata.to_json().encode()).hexdigest()
    return CarriedModel(metadata.causality, metadata.features, run, shapes, digest, most)
