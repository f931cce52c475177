"""The folder of a model: which files it has, what they are called, which of them answers."""

import dataclasses
from pathlib import Path

from speech.errors import ModelError
from speech.files import sha256
from speech.formats.metadata import read

SUFFIXES = (".onnx", ".tflite", ".keras")  # the first of them is preferred


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """The files of one model, whether they are there or not.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def around(cls, model: Path) -> "ModelFolder":
        """The folder that was given, or the one in which a given file lies."""
        return cls(model if model.is_dir() else model.parent)

    @property
    def keras(self) -> Path:
        """The trained model."""
        return self.path / "model.keras"

    @property
    def onnx(self) -> Path:
        """Its export in float32, which is what runs where nothing else is asked for."""
        return self.path / "model.onnx"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def metrics(self) -> Path:
        """Figures of ``speech evaluate``."""
        return self.path / "metrics.json"

    @property
    def clips(self) -> Path:
        """The clips that these were measured on."""
        return self.path / "clips.csv"

    @property
    def stream_metrics(self) -> Path:
        """Figures of streams."""
        return self.path / "stream.json"

    @property
    def stream_picture(self) -> Path:
        """Their DET curves."""
        return self.path / "stream_det.png"

    @property
    def tuning(self) -> Path:
        """How the thresholds of the decoder and of clips were chosen."""
        return self.path / "tuning.json"

    @property
    def config(self) -> Path:
        """The recipe of the training."""
        return self.path / "config.json"

    @property
    def history(self) -> Path:
        """A row for each epoch."""
        return self.path / "history.json"

    @property
    def checkpoint(self) -> Path:
        """What goes on with an interrupted training."""
        return self.path / "checkpoint.npz"

    @property
    def cluster(self) -> Path:
        """What Ray keeps of a training on a cluster until it is done, a folder."""
        return self.path / "ray"

    @property
    def model_files(self) -> list[Path]:
        """The files of the model that are there, exports included, by name."""
        return sorted(path for path in self.path.glob("model*") if path.suffix in SUFFIXES)

    @property
    def preferred(self) -> Path | None:
        """The file that answers for the folder: ONNX before LiteRT before Keras; None without."""
        files = (self.path / f"model{suffix}" for suffix in SUFFIXES)
        return next((file for file in files if file.is_file()), None)

    def refuse_stale(self, file: Path) -> None:
        """Raise a ModelError for an export of another ``model.keras`` than the one beside it."""
        if file.suffix == ".keras" or not self.keras.is_file():
            return
        metadata, _ = read(file)
        if metadata.keras_sha256 != sha256(self.keras):
            raise ModelError(
                f"{file}: expected the export of the model.keras beside it, got that of another "
                f"one; make it again with: speech export {self.path}"
            )
