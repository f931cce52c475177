"""The bank: what the encoder says of other speech, words, music and rooms, without the sound.

It lies beside the model whose encoder it is of. One part is what taught words are told apart from;
the other, of other voices and sources, measures how often they are detected where nobody said them.
"""

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.errors import TeachError
from speech.files import replacing
from speech.formats.weights import WordBranch

Vectors = npt.NDArray[np.float32]
FILE = "bank.npz"
TRAINING_STEPS = 5  # from vector to vector of a stream that trains, in steps of 0.1 s
_KEPT = 2  # of the held-out vectors each second one is kept, and that between them interpolated
_STEP = 1.0  # of the rounding, for numbers whose mean square is one
_MAX_BYTES = 20_000_000


@dataclasses.dataclass(frozen=True)
class Bank:
    """Vectors of one second each, streams of them that follow one another.

    Attributes:
        branch: Makes the vectors of what the network gives.
        training: Streams float32 (n, width), a vector every half second.
        held_out: The same of other sources, a vector every tenth of a second.
    """

    branch: WordBranch
    training: tuple[Vectors, ...]
    held_out: tuple[Vectors, ...]

    @property
    def hours(self) -> float:
        """Of speech that is held out."""
        return sum(map(len, self.held_out)) / 36_000

    def write(self, path: Path) -> None:
        """Keep the bank, its vectors in 8 bits.

        Args:
            path: Receives the ``.npz`` file.
        """
        # each column in 8 bits of its own scale
        scale = np.abs(self.branch.kernel).max(axis=0).astype(np.float32) / 127
        arrays: dict[str, Any] = {
            "parts": self.branch.parts.astype(np.float32),
            "kernel": np.rint(self.branch.kernel / scale).astype(np.int8),
            "kernel_scale": scale,
            "bias": self.branch.bias.astype(np.float32),
        }
        held_out = tuple(stream[::_KEPT] for stream in self.held_out)
        for name, streams in (("training", self.training), ("held_out", held_out)):
            numbers = np.clip(np.rint(np.concatenate(streams) / _STEP), -127, 127).astype(np.int8)
            arrays[name] = np.ascontiguousarray(numbers.T)  # compresses better
            arrays[f"{name}_lengths"] = np.array([len(stream) for stream in streams], np.int32)
        with replacing(path) as part:
            np.savez_compressed(part, **arrays)

    @classmethod
    def read(cls, path: Path) -> "Bank":
        """The inverse of ``write``, but for the rounding.

        Raises:
            TeachError: No such file, or not a bank.
        """
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError("a much larger file")
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                kernel = arrays["kernel"].astype(np.float32) * arrays["kernel_scale"]
                branch = WordBranch(arrays["parts"], kernel, arrays["bias"])
                training, held_out = (_streams(arrays, n) for n in ("training", "held_out"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise TeachError(
                f"{path}: expected the bank of other speech beside the model, got "
                f"{'no such file' if missing else f'another one ({error})'}; take the bundled "
                "model, or make its bank with experiments/make_bank.py",
                parameter="base",
            ) from error
        return cls(branch, training, tuple(map(_interpolated, held_out)))


def _streams(arrays: Any, name: str) -> tuple[Vectors, ...]:
    rows = _of_length(np.asarray(arrays[name].T, np.float32))
    return tuple(np.split(rows, np.cumsum(arrays[f"{name}_lengths"])[:-1]))


def _interpolated(rows: Vectors) -> Vectors:
    """The vectors between those that were kept, too."""
    between = np.repeat(rows, _KEPT, axis=0)[: 1 - _KEPT]
    between[1::_KEPT] = _of_length((rows[:-1] + rows[1:]) * np.float32(0.5))
    return between


def _of_length(rows: Vectors) -> Vectors:
    """With the length that the branch gives: a mean square of one."""
    result: Vectors = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-6)
    return result
