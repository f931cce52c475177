"""The one object that infers: the same answers, whatever the format of the model's file."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from speech.architecture import ModelConfig
from speech.audio import AudioSource, Waveform, fit_length, load_audio
from speech.errors import AudioError, ModelError
from speech.features import FeatureConfig, mfcc
from speech.formats.backends import open_model
from speech.formats.carried import CarriedModel, StreamState
from speech.formats.folder import SUFFIXES, ModelFolder
from speech.formats.metadata import WINDOW_HOPS
from speech.installation import DEFAULT_MODEL, bundled_models, find_model
from speech.labels import UNKNOWN

Batch = npt.NDArray[np.float32]
_BATCH = 32  # recordings in one call of the network


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a recording of one word says.

    Attributes:
        label: The most probable class.
        probability: Its probability, in [0, 1].
        probabilities: That of every class, in the order of the model's labels.
        accepted: Whether the probability reaches the threshold that the model has for this class;
            true where it has none.

    Example:
        >>> prediction = speech.load().recognize("left.wav")
        >>> prediction.label, prediction.probability == prediction.probabilities["left"]
        ('left', True)
        >>> print(speech.Prediction("up", 0.34, {"up": 0.34, "no": 0.66}, accepted=False))
        unknown (perhaps up, 34 %)
    """

    label: str
    probability: float
    probabilities: dict[str, float] = dataclasses.field(repr=False)
    accepted: bool = True

    @property
    def answer(self) -> str:
        """The label if it is accepted, else "unknown"."""
        return self.label if self.accepted else UNKNOWN

    def __str__(self) -> str:
        percent = f"{100 * self.probability:.0f} %"
        if self.accepted:
            return f"{self.label} ({percent})"
        return f"{UNKNOWN} (perhaps {self.label}, {percent})"


class Recognizer:
    """A trained model, ready to be asked. Made by ``load``.

    Args:
        name: Name of the model.
        config: Labels, preprocessing, which also decides rate and length, and the settings that
            were chosen for this model.
        infer: Waveforms (n, n_samples) float32 -> probabilities (n, n_classes) float32.
        mfcc: Waveforms (n, n_samples) float32 -> MFCC (n, n_frames, n_mfcc) float32; librosa's if
            None.
        windows: Waveform (n,) float32 -> probabilities of the windows that begin every
            ``WINDOW_HOPS`` hops; if None, each is asked as a clip.
        file: The name of the file that answers, and its precision; "" if there is none.
        embed: Waveforms (n, n_samples) float32 -> what the classifier reads, (n, width) float32;
            None if the file does not give it.

    Example:
        >>> recognizer = speech.load("commands-8")
        >>> recognizer.labels[:3], recognizer.features.sample_rate
        (('yes', 'no', 'up'), 16000)
        >>> recognizer.recognize("left.wav").label
        'left'
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        infer: Callable[[Batch], Batch],
        *,
        mfcc: Callable[[Batch], Batch] | None = None,
        windows: Callable[[Waveform], Batch] | None = None,
        file: str = "",
        embed: Callable[[Batch], Batch] | None = None,
        carried: CarriedModel | None = None,
    ) -> None:
        self.name = name
        self.labels: tuple[str, ...] = config.labels
        self.features: FeatureConfig = config.features
        self.decoder: dict[str, Any] = dict(config.decoder)
        self.acceptance: dict[str, float] = dict(config.acceptance)
        self.provenance: dict[str, Any] = dict(config.provenance)
        self.file = file
        self._infer = infer
        self._mfcc = mfcc
        self._windows = windows
        self._embed = embed
        self.causality = config.causality
        self._carried = carried

    def __repr__(self) -> str:
        file = f" from {self.file}" if self.file else ""
        return f"<Recognizer {self.name}{file}: {', '.join(self.labels)}>"

    def probabilities(self, waveforms: Batch) -> Batch:
        """Probabilities of clips that already have the model's rate and length.

        Args:
            waveforms: float32 (n, n_samples) in [-1, 1), at ``features.sample_rate``.

        Returns:
            float32 (n, n_classes), each row summing to one.

        Raises:
            ModelError: Another shape or dtype, NaN or infinity, there or in the answer.
        """
        self._check(waveforms)
        if not len(waveforms):
            return np.zeros((0, len(self.labels)), np.float32)
        return self._finite(self._infer(waveforms))

    def windows(self, waveform: Waveform, step: int) -> Batch:
        """Probabilities of the windows of a stretch of audio.

        Args:
            waveform: float32 (n,), n >= n_samples, as for ``probabilities``.
            step: From window to window, in samples. At ``WINDOW_HOPS`` hops, which is the decoder's
                default, an ONNX file computes what the windows share once.

        Returns:
            float32 (1 + (n - n_samples) // step, n_classes).

        Raises:
            ModelError: As ``probabilities``.
        """
        every = sliding_window_view(waveform, self.features.n_samples)[::step]
        if self._windows is None or step != WINDOW_HOPS * self.features.hop_length:
            return self.probabilities(np.ascontiguousarray(every))
        self._check(every)
        return self._finite(self._windows(waveform))

    @property
    def step_seconds(self) -> float | None:
        """From answer to answer of a causal model; None of one that is given clips."""
        if self.causality is None:
            return None
        return self.causality.step_hops * self.features.hop_seconds

    def begin(self) -> StreamState:
        """The state of a stream that begins now, for ``advance``.

        Raises:
            ModelError: The model is given clips, or is a ``.keras`` file, which carries no state.
        """
        return self._stateful.begin()

    def advance(self, waveform: Waveform, state: StreamState) -> tuple[Batch, StreamState]:
        """What a causal model says at each step of the next sound of a stream.

        Args:
            waveform: float32 (n,) in [-1, 1) at ``features.sample_rate``, a whole number of steps.
            state: As ``begin`` or the call before gave it.

        Returns:
            Probabilities float32 (n_steps, n_classes), and the state behind them.

        Raises:
            ModelError: As ``begin``; a state of another model or with other numbers than finite
                ones; sound that is not finite, or no whole number of steps.

        Example:
            >>> model = speech.load("commands-8-stream")
            >>> sound = speech.load_audio("left.wav")[: 35 * 640]  # of steps of 640 samples, 0.04 s
            >>> state, said = model.begin(), set()
            >>> for first in range(0, len(sound), 5 * 640):  # as it comes, in any whole steps
            ...     answers, state = model.advance(sound[first : first + 5 * 640], state)
            ...     said |= {model.labels[answer.argmax()] for answer in answers}
            >>> answers.shape, "left" in said
            ((5, 10), True)
        """
        if waveform.dtype != np.float32 or not np.isfinite(waveform).all():
            raise ModelError(
                f"expected float32 sound (n,), got {waveform.dtype} or values that are not finite"
            )
        rows, state = self._stateful.advance(waveform, state)
        return self._finite(rows), state

    @property
    def _stateful(self) -> CarriedModel:
        if self._carried is None:
            got = "one that is given clips; choose another model"
            if self.causality is not None:
                got = f"{self.file}; make model.onnx with: speech export"
            raise ModelError(f"{self.name}: expected a causal model that was exported, got {got}")
        return self._carried

    def _finite(self, rows: Batch) -> Batch:
        if not np.isfinite(rows).all():
            raise ModelError(
                f"{self.name}: expected probabilities from the model, got NaN or infinity: "
                "its weights are damaged; train or export it again"
            )
        return rows

    def mfcc(self, waveforms: Batch) -> Batch:
        """The features that the network is given of such clips, in dB.

        Args:
            waveforms: As for ``probabilities``.

        Returns:
            float32 (n, n_frames, n_mfcc).

        Raises:
            ModelError: As ``probabilities``.
        """
        self._check(waveforms)
        if self._mfcc is None or not len(waveforms):
            return mfcc(waveforms, self.features)
        return self._mfcc(waveforms)

    def embed(self, waveforms: Batch) -> Batch:
        """What the classifier reads of such clips: their sound as one vector each.

        Args:
            waveforms: As for ``probabilities``.

        Returns:
            float32 (n, width); 256 numbers for the bundled model.

        Raises:
            ModelError: As ``probabilities``, or the model's file has no such output: only ONNX
                files have it, and only since it was added.

        Example:
            >>> import numpy as np
            >>> speech.load().embed(np.zeros((1, 16_000), np.float32)).shape
            (1, 256)
        """
        if self._embed is None:
            raise ModelError(
                f"{self.name}: expected an ONNX file with the output `embedding`, got "
                f"{self.file or 'a model without a file'}; make it with: speech export "
                "FOLDER_OF_THE_MODEL"
            )
        self._check(waveforms)
        # one silent clip more: no clips have a width, too
        padded = waveforms if len(waveforms) else np.zeros((1, self.features.n_samples), np.float32)
        return self._finite(self._embed(padded))[: len(waveforms)]

    def _check(self, waveforms: Batch) -> None:
        expected = f"expected float32 waveforms (n, {self.features.n_samples})"
        if waveforms.ndim != 2 or waveforms.shape[1] != self.features.n_samples:
            raise ModelError(
                f"{expected}, got shape {waveforms.shape}; see speech.audio.fit_length"
            )
        if waveforms.dtype != np.float32 or not np.isfinite(waveforms).all():
            raise ModelError(f"{expected}, got {waveforms.dtype} or values that are not finite")

    def recognize(
        self, source: AudioSource | npt.NDArray[Any], sample_rate: int | None = None
    ) -> Prediction:
        """What a recording of one word says; of a longer one, its loudest second.

        Args:
            source: Anything that ``load_audio`` accepts; or samples (n,) or (n, channels), int8,
                int16, int32 or floats in [-1, 1], with their rate.
            sample_rate: Rate of such samples in Hz.

        Raises:
            AudioError: The recording could not be read.
            ValueError: Samples without a rate, or a rate beside something that has its own.
        """
        if isinstance(source, np.ndarray) != (sample_rate is not None):
            raise ValueError(
                "expected sample_rate beside an array, and nowhere else, got "
                f"{type(source).__name__} and sample_rate={sample_rate}"
            )
        sound: Any = source if sample_rate is None else (source, sample_rate)
        return self.recognize_waveform(load_audio(sound, self.features.sample_rate))

    def recognize_waveform(self, waveform: Waveform) -> Prediction:
        """The same for samples (n,) float32 that are already at the model's rate."""
        clip = fit_length(waveform, self.features.n_samples)
        return self.prediction(self.probabilities(clip[np.newaxis])[0])

    def recognize_many(self, sources: Iterable[AudioSource]) -> Iterator[Prediction]:
        """The predictions of many recordings in their order, several in one call of the network.

        Args:
            sources: As ``recognize`` takes them; they are read when their turn comes.

        Raises:
            AudioError: A recording could not be read; those before it have been answered.
        """
        features = self.features
        sources = iter(sources)
        while chosen := list(itertools.islice(sources, _BATCH)):
            clips: list[Waveform] = []
            error: AudioError | None = None
            for source in chosen:
                try:
                    waveform = load_audio(source, features.sample_rate)
                except AudioError as unreadable:
                    error = unreadable
                    break
                clips.append(fit_length(waveform, features.n_samples))
            if clips:
                yield from map(self.prediction, self.probabilities(np.stack(clips)))
            if error is not None:
                raise error

    def prediction(self, probabilities: npt.NDArray[np.floating[Any]]) -> Prediction:
        """One row of ``probabilities``, (n_classes,), as a prediction."""
        best = int(probabilities.argmax())
        label, probability = self.labels[best], float(probabilities[best])
        by_label = dict(zip(self.labels, map(float, probabilities), strict=True))
        accepted = probability >= self.acceptance.get(label, 0.0)
        return Prediction(label, probability, by_label, accepted)


def recognize_many(
    sources: Iterable[AudioSource],
    model: Recognizer | str | os.PathLike[str] = DEFAULT_MODEL,
) -> Iterator[Prediction]:
    """Recognize many recordings of one word each, in their order.

    Args:
        sources: Anything that ``load_audio`` accepts; read when their turn comes.
        model: As ``load`` takes it, or a model that is loaded.

    Raises:
        AudioError: A recording could not be read; those before it have been answered.
        ModelError: As ``load``.

    Example:
        >>> [prediction.label for prediction in speech.recognize_many(["left.wav", "left.wav"])]
        ['left', 'left']
    """
    recognizer = model if isinstance(model, Recognizer) else load(model)
    return recognizer.recognize_many(sources)


def load(path: str | os.PathLike[str] = DEFAULT_MODEL, *, threads: int = 1) -> Recognizer:
    """Open a model.

    Args:
        path: The name of a bundled model, found from any working folder; or the folder of a model,
            of which the first of ``model.onnx``, ``model.tflite`` and ``model.keras`` is taken; or
            such a file.
        threads: Threads among which ONNX Runtime divides the clips of a batch, or of LiteRT; one
            clip is answered soonest by one.

    Example:
        >>> speech.load().name
        'commands-8'

    Raises:
        ModelError: No such file, not a model of this project, an export of another ``model.keras``
            than the one beside it, or what runs it is not installed.
    """
    path = find_model(path)
    folder = ModelFolder(path)
    file = path if path.is_file() else folder.preferred
    if file is None or file.suffix not in SUFFIXES:
        raise ModelError(
            f"{path}: expected a folder with a model, a {', '.join(SUFFIXES)} file or a bundled "
            f"model's name ({', '.join(bundled_models())}), got "
            f"{'another file' if file else 'no file there'}; make one with: speech train"
        )
    if path.is_dir():
        folder.refuse_stale(file)
    model = open_model(file, threads)
    return Recognizer(
        path.absolute().name if path.is_dir() else path.stem,
        model.config,
        model.infer,
        mfcc=model.mfcc,
        windows=model.windows,
        file=f"{file.name} ({model.precision})",
        embed=model.embed,
        carried=model.carried,
    )
