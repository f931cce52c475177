"""librosa's MFCC as array code, for training on an accelerator; a test holds both equal."""

from collections.abc import Callable

import numpy as np
from keras import ops

from speech.features import FeatureConfig
from speech.training.ops import Tensor, compiled


def make_mfcc(config: FeatureConfig) -> Callable[[Tensor], Tensor]:
    """A compiled function: float32 (batch, n_samples) -> MFCC (batch, n_frames, n_mfcc).

    The same numbers as ``speech.features.mfcc``, to the rounding of float32.
    """
    import librosa

    window = librosa.filters.get_window("hann", config.n_fft, fftbins=True)
    mel = librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    dct = librosa.feature.mfcc(S=np.eye(config.n_mels), n_mfcc=config.n_mfcc)
    scale = 1 / np.sqrt(config.log_floor)  # the floor becomes one
    window = (window * scale).astype(np.float32)
    matrix = (dct.T * (10 / np.log(10))).astype(np.float32)
    offset = (dct.sum(axis=1) * 10 * np.log10(config.log_floor)).astype(np.float32)
    starts = np.arange(config.n_frames)[:, np.newaxis] * config.hop_length
    index = (starts + np.arange(config.n_fft)).astype(np.int32)

    def mfcc(waveforms: Tensor) -> Tensor:
        frames = ops.take(waveforms, index, axis=1) * window  # (batch, n_frames, n_fft)
        real, imaginary = ops.rfft(frames, config.n_fft)
        power = ops.square(real) + ops.square(imaginary)
        mels = ops.matmul(power, mel.T.astype(np.float32))
        return ops.matmul(ops.log(ops.maximum(mels, 1.0)), matrix) + offset

    return compiled(mfcc)
