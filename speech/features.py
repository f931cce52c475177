"""MFCC features: the single definition of the front end."""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.config import Config
from speech.environment import give_numba_a_cache

_BATCH = 32  # the spectra of so many clips stay in the cache of the processor
_MAX_FRAMES = 10_000  # of a clip: a minute and a half of frames of 10 ms


@dataclasses.dataclass(frozen=True)
class FeatureConfig(Config):
    """Every number of the preprocessing. Times are in seconds; samples are derived exactly.

    Attributes:
        sample_rate: Rate of the waveform in Hz.
        clip_seconds: Length of the clip that the network sees.
        window_seconds: Length of the Hann window, which is also the length of the FFT.
        hop_seconds: Step from frame to frame.
        n_mels: Number of mel bands (Slaney's mel scale and area normalisation, as in librosa).
        n_mfcc: Number of cepstral coefficients kept, the zeroth included.
        fmin: Lower edge of the lowest mel band in Hz.
        fmax: Upper edge of the highest mel band in Hz, at most half the sample rate.
        log_floor: Smallest mel power, in [1e-30, 1]; anything below is taken as this. 1e-7 lies
            under the noise of a good microphone (white noise of RMS 1.4e-4), so that digital
            silence and a quiet room look alike.

    Raises:
        ValueError: A number out of range, a time that is not a whole number of samples, or a clip
            of more than 10,000 frames.

    Example:
        >>> config = speech.FeatureConfig(hop_seconds=0.02)
        >>> config.n_samples, config.hop_length, config.n_frames
        (16000, 320, 49)
    """

    sample_rate: int = 16_000
    clip_seconds: float = 1.0
    window_seconds: float = 0.03
    hop_seconds: float = 0.01
    n_mels: int = 80
    n_mfcc: int = 40
    fmin: float = 20.0
    fmax: float = 7_600.0
    log_floor: float = 1e-7

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = (int,) if field.type is int else (int, float)
            if not isinstance(value, kind) or isinstance(value, bool) or not abs(value) < 1e12:
                raise ValueError(
                    f"{field.name}={value!r} must be a finite {getattr(field.type, '__name__', '')}"
                )
            # equal configs share a digest: 1 becomes 1.0
            object.__setattr__(self, field.name, field.type(value))  # type: ignore[operator]
        if not 8_000 <= self.sample_rate <= 192_000:
            raise ValueError(f"sample_rate={self.sample_rate} must lie in [8000, 192000] Hz")
        if not 1 <= self.n_mfcc <= self.n_mels <= 512:
            raise ValueError(f"1 <= n_mfcc={self.n_mfcc} <= n_mels={self.n_mels} <= 512 must hold")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"0 <= fmin={self.fmin} < fmax={self.fmax} <= {self.sample_rate / 2} Hz must hold"
            )
        if not 1e-30 <= self.log_floor <= 1:  # float32 has to hold it
            raise ValueError(f"log_floor={self.log_floor} must lie in [1e-30, 1]")
        if not 0 < self.hop_length <= self.n_fft <= self.n_samples <= 60 * self.sample_rate:
            raise ValueError(
                f"0 < hop_seconds={self.hop_seconds} <= window_seconds={self.window_seconds} <= "
                f"clip_seconds={self.clip_seconds} <= 60 must hold"
            )
        if self.n_frames > _MAX_FRAMES:
            raise ValueError(
                f"clip_seconds={self.clip_seconds} with hop_seconds={self.hop_seconds} makes "
                f"{self.n_frames:,} frames, more than {_MAX_FRAMES:,}"
            )

    def _samples(self, name: str) -> int:
        exact: float = getattr(self, name) * self.sample_rate
        if abs(exact - round(exact)) > 1e-6:
            raise ValueError(
                f"{name}={getattr(self, name)} must be a whole number of samples at "
                f"{self.sample_rate} Hz, got {exact:g}"
            )
        return round(exact)

    @property
    def n_samples(self) -> int:
        """Samples in a clip."""
        return self._samples("clip_seconds")

    @property
    def n_fft(self) -> int:
        """Samples in a window."""
        return self._samples("window_seconds")

    @property
    def hop_length(self) -> int:
        """Samples from frame to frame."""
        return self._samples("hop_seconds")

    @property
    def n_frames(self) -> int:
        """Frames in a clip: only whole windows count (no padding at the edges)."""
        return 1 + (self.n_samples - self.n_fft) // self.hop_length

    def digest(self) -> str:
        """SHA-256 of the fields, the key under which features may be kept."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def mfcc(
    waveforms: npt.NDArray[np.floating[Any]], config: FeatureConfig
) -> npt.NDArray[np.float32]:
    """Mel-frequency cepstral coefficients by librosa, in decibels.

    Hann window, power spectrum, mel filterbank, 10 log10 with a fixed floor, orthonormal DCT-II.
    Neither centred frames nor ``top_db`` are used: both make a frame depend on audio outside its
    window, so that a stream and a file would differ (and in a batch, ``top_db`` makes one clip
    depend on another). Davis and Mermelstein, IEEE TASSP 28(4), 1980.

    Args:
        waveforms: Samples, ``(n,)`` or ``(batch, n)``, float in [-1, 1), n >= ``config.n_fft``.
        config: The numbers of the preprocessing.

    Returns:
        float32 of shape ``(n_frames, n_mfcc)`` or ``(batch, n_frames, n_mfcc)`` with
        n_frames = 1 + (n - n_fft) // hop_length: time first, as a recurrent network reads it.

    Raises:
        ValueError: Another number of dimensions, integers, or fewer samples than one window.

    Example:
        >>> import numpy as np
        >>> second = np.zeros(16_000, np.float32)
        >>> speech.mfcc(second, speech.FeatureConfig()).shape
        (98, 40)
    """
    given = np.asarray(waveforms)
    if given.dtype.kind != "f" or given.ndim not in (1, 2) or given.shape[-1] < config.n_fft:
        raise ValueError(
            f"expected float waveforms (n,) or (batch, n) with n >= {config.n_fft}, "
            f"got {given.dtype} of shape {given.shape}"
        )
    waveforms = given.astype(np.float32, copy=False)
    if waveforms.ndim == 1:
        return mfcc(waveforms[np.newaxis], config).squeeze(0)
    n_frames = 1 + (waveforms.shape[1] - config.n_fft) // config.hop_length
    result = np.empty((len(waveforms), n_frames, config.n_mfcc), np.float32)
    for start in range(0, len(waveforms), _BATCH):
        result[start : start + _BATCH] = _mfcc_batch(waveforms[start : start + _BATCH], config)
    return result


def vtlp_matrix(config: FeatureConfig, factor: float) -> npt.NDArray[np.float32]:
    """The matrix that moves the formants in MFCC to ``factor`` times their frequency.

    Another length of the vocal tract scales the formants and leaves the pitch (Jaitly and Hinton,
    "Vocal tract length perturbation improves speech recognition", ICML workshop 2013); on cepstra
    that is a linear map (Panchapagesan and Alwan, Computer Speech and Language 23, 2009).

    Returns:
        float32 (n_mfcc, n_mfcc); ``mfcc @ matrix.T`` is the other voice. What would come from
        beyond the mel bands is the nearest band's.
    """
    librosa = _librosa()
    centres = librosa.mel_frequencies(config.n_mels + 2, fmin=config.fmin, fmax=config.fmax)[1:-1]
    dct = librosa.feature.mfcc(S=np.eye(config.n_mels), n_mfcc=config.n_mfcc)
    rows = [np.interp(centres / factor, centres, band) for band in np.eye(config.n_mels)]
    matrix: npt.NDArray[np.float32] = (dct @ np.stack(rows, axis=1) @ dct.T).astype(np.float32)
    return matrix


def _mfcc_batch(
    waveforms: npt.NDArray[np.float32], config: FeatureConfig
) -> npt.NDArray[np.float32]:
    librosa = _librosa()
    power = librosa.feature.melspectrogram(
        y=waveforms,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        window="hann",
        center=False,
        power=2.0,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    decibels = librosa.power_to_db(power, ref=1.0, amin=config.log_floor, top_db=None)
    cepstra = librosa.feature.mfcc(S=decibels, n_mfcc=config.n_mfcc, dct_type=2, norm="ortho")
    frames: npt.NDArray[np.float32] = np.swapaxes(cepstra, -1, -2).astype(np.float32, copy=False)
    return frames


def _librosa() -> Any:
    give_numba_a_cache()
    import librosa

    return librosa
