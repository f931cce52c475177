"""The encoder: the network of a shipped model up to the vectors by which words are told apart."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech.errors import TeachError
from speech.formats.folder import ModelFolder
from speech.formats.from_onnx import read_onnx
from speech.formats.metadata import WINDOW_HOPS, Metadata, attach
from speech.formats.to_onnx import write_onnx
from speech.formats.weights import FrontEnd, Network, TaughtHead
from speech.installation import find_model
from speech.labels import SILENCE, UNKNOWN, commands
from speech.recognizer import Recognizer, load
from speech.teach.bank import FILE, Bank, Vectors
from speech.teach.takes import RATE

STEP = 1_600  # samples from vector to vector of longer sound: WINDOW_HOPS hops
# the seconds of a clip whose vectors are read, in steps; a clip is as long as the last one's end
LENGTHS = ((0,), (0, 5), (0, 5, 10))


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What words are taught with.

    Attributes:
        metadata: Of the model that it was taken from.
        front: Its front end.
        network: Its network, with the branch of the bank.
        bank: Other speech, as this encoder sees it.
        recognizer: Runs it.
    """

    metadata: Metadata
    front: FrontEnd
    network: Network
    bank: Bank
    recognizer: Recognizer

    @classmethod
    def of_model(cls, base: str | os.PathLike[str]) -> "Encoder":
        """The encoder of a model that has a bank beside it.

        Raises:
            TeachError: There is no bank, or the model was taught its words itself.
            ModelError: No model there that can be read.
        """
        folder = ModelFolder.around(find_model(base))
        metadata, front, network = read_onnx(folder.onnx)
        if network.head is not None:
            raise TeachError(
                f"{folder.path}: expected a model that was trained, got one that was taught; "
                "teach its takes, which lie beside it in takes.zip, once more",
                parameter="base",
            )
        bank = Bank.read(folder.path / FILE)
        network = dataclasses.replace(network, branch=bank.branch)
        recognizer = open_encoder(front, network, metadata)
        return cls(metadata, front, network, bank, recognizer)

    @property
    def width(self) -> int:
        """Numbers in the vector of one second."""
        return len(self.bank.branch.bias)

    def embed(self, clips: npt.NDArray[np.float32], offsets: tuple[int, ...]) -> Vectors:
        """The vectors of clips, float32 (n, len(offsets) * width)."""
        second = self.metadata.features.n_samples
        parts = [
            self.recognizer.embed(np.ascontiguousarray(clips[:, o * STEP : o * STEP + second]))
            for o in offsets
        ]
        return np.concatenate(parts, axis=1)

    def n_samples(self, offsets: tuple[int, ...]) -> int:
        """The length of a clip that is read at these offsets."""
        return self.metadata.features.n_samples + offsets[-1] * STEP

    def taught(
        self, head: TaughtHead, labels: tuple[str, ...], settings: Mapping[str, Any], path: Path
    ) -> None:
        """Write a model with these words before the classifier's classes.

        Args:
            head: The words' head.
            labels: The words, the commands that are kept, unknown and silence.
            settings: ``decoder``, ``acceptance`` and ``provenance`` of its metadata.
            path: Receives the ``.onnx`` file.
        """
        seconds = self.n_samples(head.offsets) / RATE
        features = dataclasses.replace(self.metadata.features, clip_seconds=seconds)
        metadata = dataclasses.replace(
            self.metadata, labels=labels, features=features, keras_sha256="", **settings
        )
        network = dataclasses.replace(self.network, head=head)
        _write(self.front, network, metadata, path)


def side_by_side(stream: Vectors, offsets: tuple[int, ...], steps: int = 1) -> Vectors:
    """The vectors of a stream (n, width) as a head with offsets reads them.

    Args:
        stream: A vector every ``steps`` steps.
        offsets: Multiples of ``steps``.
        steps: How far the vectors lie from one another.
    """
    every = [offset // steps for offset in offsets]
    count = max(0, len(stream) - every[-1])
    return np.concatenate([stream[o : o + count] for o in every], axis=1)


def shares_of(labels: tuple[str, ...], keep: tuple[str, ...]) -> Vectors:
    """Which classes of the base count for which label behind the taught words.

    Returns:
        float32 (len(labels), len(keep) + 2): what is not kept counts as unknown.
    """
    rest = (*keep, UNKNOWN, SILENCE)
    shares = np.zeros((len(labels), len(rest)), np.float32)
    for row, label in enumerate(labels):
        shares[row, rest.index(label if label in rest else UNKNOWN)] = 1
    return shares


def check_keep(keep: tuple[str, ...], metadata: Metadata) -> None:
    """Refuse commands that the base does not know."""
    known = commands(metadata.labels)
    if strange := [label for label in keep if label not in known]:
        raise TeachError(
            f"expected commands of the model to keep ({', '.join(known)}), got "
            f"{', '.join(map(repr, strange)):.200}; choose some of these",
            parameter="keep",
        )


def _write(front: FrontEnd, network: Network, metadata: Metadata, path: Path) -> None:
    write_onnx(front, network, metadata.features, path, metadata.precision)
    path.write_bytes(attach(path.read_bytes(), metadata, path.suffix))


def open_encoder(front: FrontEnd, network: Network, metadata: Metadata) -> Recognizer:
    """A network up to its vectors, ready to run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        _write(front, network, metadata, path)
        return load(path)


assert STEP == WINDOW_HOPS * 160  # of the front end that shipped models have
