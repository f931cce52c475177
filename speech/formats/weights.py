"""A trained model as plain arrays, front end included: what an exported graph is built of."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech.features import FeatureConfig

if TYPE_CHECKING:
    from speech.model import CommandModel

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """The MFCC of a ``FeatureConfig`` as matrix operations.

    The DFT goes in two steps (Cooley and Tukey, 1965), each a small matrix: with the sample
    n = n_inner * n1 + n2 and the bin k = k1 + n_outer * k2, the outer step sums over n1 and the
    inner one over n2. One matrix for all would be seven times the work.

    The scale is chosen so that the floor of the mel power is one: mfcc = dct @ ln(max(mel @ power,
    1)) + offset.

    Attributes:
        dft_outer: float64 (n_inner, 2 * n_k1, n_outer): for each n2 the windowed DFT over n1; real
            and imaginary rows alternate.
        dft_real: float64 (n_k1, n_inner, 2 * n_inner): for each k1 the real part of the DFT over
            n2.
        dft_imaginary: The imaginary part.
        mel: float32 (n_mels, n_k1 * n_inner): librosa's filterbank, on the bins in this order.
        dct: float32 (n_mfcc, n_mels): librosa's DCT, times the factor from ln to decibels.
        offset: float32 (n_mfcc,): the MFCC of silence.
    """

    dft_outer: Array
    dft_real: Array
    dft_imaginary: Array
    mel: Array
    dct: Array
    offset: Array

    @classmethod
    def from_features(cls, features: FeatureConfig) -> "FrontEnd":
        """The matrices, made of the window, the filterbank and the DCT of librosa."""
        import librosa

        n_fft = features.n_fft
        n_inner = _inner_length(n_fft, features.hop_length)
        n_outer = n_fft // n_inner
        n1, n2 = np.arange(n_outer), np.arange(n_inner)
        k1, k2 = np.arange(n_outer // 2 + 1)[:, np.newaxis], np.arange(n_inner)

        window = librosa.filters.get_window("hann", n_fft, fftbins=True) / features.log_floor**0.5
        twiddle = _twiddle(k1 * n1, n_outer)
        outer = np.einsum(
            "kcn,nm->mkcn",
            np.stack([twiddle.real, twiddle.imag], axis=1),
            window.reshape(n_outer, n_inner),
        )

        bins = k1 + n_outer * k2
        twiddle = _twiddle(bins[:, :, np.newaxis] * n2, n_fft)
        mel = librosa.filters.mel(
            sr=features.sample_rate,
            n_fft=n_fft,
            n_mels=features.n_mels,
            fmin=features.fmin,
            fmax=features.fmax,
        )
        # the upper half of the spectrum mirrors the lower one; what is there twice counts once
        mirrored = np.minimum(bins, n_fft - bins).ravel()
        once = np.zeros(len(mirrored), bool)
        once[np.unique(mirrored, return_index=True)[1]] = True
        dct = librosa.feature.mfcc(S=np.eye(features.n_mels), n_mfcc=features.n_mfcc)
        return cls(
            dft_outer=outer.reshape(n_inner, -1, n_outer),
            dft_real=_interleaved(twiddle.real, -twiddle.imag),
            dft_imaginary=_interleaved(twiddle.imag, twiddle.real),
            mel=_float32(mel[:, mirrored] * once),
            dct=_float32(dct * (10 / np.log(10))),
            offset=_float32(dct.sum(axis=1) * 10 * np.log10(features.log_floor)),
        )

    @property
    def window(self) -> Array:
        """The scaled window, float32 (n_fft,), for formats with an FFT of their own."""
        first = self.dft_outer[:, 0]  # the bin 0 of the outer step only weighs and adds
        return _float32(first.T.ravel())

    @property
    def bands(self) -> Array:
        """librosa's filterbank on bins in their usual order, float32 (n_mels, n_fft // 2 + 1)."""
        n_inner, _, n_outer = self.dft_outer.shape
        n_fft = n_inner * n_outer
        bins = np.arange(len(self.dft_real))[:, np.newaxis] + n_outer * np.arange(n_inner)
        result = np.zeros((len(self.mel), n_fft // 2 + 1), np.float32)
        for column, position in enumerate(np.minimum(bins, n_fft - bins).ravel()):
            result[:, position] += self.mel[:, column]
        return result


@dataclasses.dataclass(frozen=True)
class WordBranch:
    """What tells any words apart: besides the pooled vector it reads what came first and last.

    The states of all LSTM layers are averaged over each part of the clip. These means and the
    pooled vector are projected to one vector, whose length is then the square root of its width.

    Attributes:
        parts: (n_parts, n_steps): the weights of the steps in each mean.
        kernel: (n_pooled + n_layers * n_parts * n_states, width), layer after layer.
        bias: (width,).
    """

    parts: Array
    kernel: Array
    bias: Array


@dataclasses.dataclass(frozen=True)
class TaughtHead:
    """Words that were taught, before the classifier: what it leaves, the classifier divides.

    Of a clip of more than a second the network reads one second every ``WINDOW_HOPS`` frames, and
    the head the vectors of some of these, side by side.

    Attributes:
        offsets: Which of a clip's seconds it reads, such as (0, 5) for those that begin at 0 s and
            0.5 s.
        kernel: (len(offsets) * width, n_words + 1).
        bias: (n_words + 1,); the last column is that of everything else.
        shares: (n_classes, n_rest): which classes of the classifier count for which of the labels
            that follow the words; each row holds a single one.
    """

    offsets: tuple[int, ...]
    kernel: Array
    bias: Array
    shares: Array


@dataclasses.dataclass(frozen=True)
class Network:
    """The weights of a ``CommandModel``, float32, as they are used: MFCC -> logits / temperature.

    Attributes:
        mean: (n_mfcc,), taken off the MFCC.
        scale: (n_mfcc,), by which the rest is multiplied.
        convolutions: Kernel (5, n_in, n_out) and bias (n_out,) of each; stride 2, padding "same",
            ReLU; batch normalisation is folded in.
        lstm_layers: For each LSTM layer, for each of its one or two directions: kernel
            (n_in, 4 * units), recurrent kernel (units, 4 * units) and bias (4 * units,); gates in
            Keras's order: input, forget, cell, output.
        attention: Kernel (n_in, n), bias (n,) and query (n, 1) of the attention; None if the states
            are pooled by their mean.
        classifier: Kernel (n_in, n_classes) and bias (n_classes,), divided by the temperature.
        branch: What taught words are told apart by; None where no words were taught.
        head: The taught words.
    """

    mean: Array
    scale: Array
    convolutions: tuple[tuple[Array, Array], ...]
    lstm_layers: tuple[tuple[tuple[Array, Array, Array], ...], ...]
    attention: tuple[Array, Array, Array] | None
    classifier: tuple[Array, Array]
    branch: WordBranch | None = None
    head: TaughtHead | None = None

    @classmethod
    def from_model(cls, model: "CommandModel") -> "Network":
        """The weights of a model."""
        import keras

        norm = model.normalization
        mean, variance = (keras.ops.convert_to_numpy(v) for v in (norm.mean, norm.variance))
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        kernel, bias = model.classifier.get_weights()
        attention = None
        if model.pooling is not None:
            weights = (*model.pooling.hidden.get_weights(), *model.pooling.score.get_weights())
            attention = (_float32(weights[0]), _float32(weights[1]), _float32(weights[2]))
        return cls(
            mean=_float32(mean.ravel()),
            scale=_float32(scale.ravel()),
            convolutions=tuple(
                _folded(*model.conv_blocks[i : i + 2]) for i in range(0, len(model.conv_blocks), 3)
            ),
            lstm_layers=tuple(tuple(map(_lstm, _directions(layer))) for layer in model.lstm_layers),
            attention=attention,
            classifier=(_float32(kernel / model.temperature), _float32(bias / model.temperature)),
        )


def same_padding(n: int, kernel: int) -> list[int]:
    """Zeros before and after n frames for TensorFlow's "same" at a stride of two."""
    total = max(0, 2 * (-(-n // 2) - 1) + kernel - n)
    return [total // 2, total - total // 2]


def _inner_length(n_fft: int, hop: int) -> int:
    """The length of the inner DFT: it divides window and hop, and makes the least work."""

    def work(n_inner: int) -> int:
        return (n_fft // n_inner // 2 + 1) * (2 * n_fft + 4 * n_inner**2)

    common = math.gcd(n_fft, hop)
    return min((n for n in range(1, common + 1) if common % n == 0), key=work)


def _twiddle(n: Array, period: int) -> Array:
    """exp(-2 pi i n / period); whole turns are taken off first, while that is exact."""
    return np.exp(-2j * np.pi * (n % period) / period)


def _interleaved(first: Array, second: Array) -> Array:
    return np.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)


def _float32(values: Array) -> Array:
    return np.ascontiguousarray(values, np.float32)


def _folded(convolution: Any, norm: Any) -> tuple[Array, Array]:
    (kernel,) = convolution.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return _float32(kernel * scale), _float32(beta - mean * scale)


def _directions(layer: Any) -> tuple[Any, ...]:
    both = hasattr(layer, "forward_layer")
    return (layer.forward_layer, layer.backward_layer) if both else (layer,)


def _lstm(layer: Any) -> tuple[Array, Array, Array]:
    kernel, recurrent, bias = layer.get_weights()
    return _float32(kernel), _float32(recurrent), _float32(bias)
