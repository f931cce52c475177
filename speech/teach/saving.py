"""A taught model in memory, and the folder in which it is kept."""

import contextlib
import dataclasses
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from speech.audio import Waveform
from speech.errors import TeachError
from speech.evaluation.markdown import code
from speech.files import write_json
from speech.formats.folder import ModelFolder
from speech.labels import commands
from speech.recognizer import Recognizer
from speech.teach.quality import Quality
from speech.teach.takes import save_takes

TAKES = "takes.zip"
_CARD = """# {title}

A model that was taught words of its user's own: {words}.{kept} It was made by `speech teach` from
{n_takes} takes, with the encoder of a shipped model, and needs neither TensorFlow nor librosa.

{sentences}

{table}

{voices}Each take was judged by a head that was fitted without it. The false accepts were counted in
{hours:.1f} hours of other speech that nothing was fitted to, with thresholds chosen on the other
half of it. Whoever did not speak the takes may be understood less well.
The takes lie beside this page in `{takes}`, by which the model can be taught again.
"""
_SYNTHETIC = """The voices of these takes are synthetic ({voices}), at least in part: the figures
say how well such voices are recognized, not how well people are. Record some takes of those who
will use it, and teach it again.

"""


@dataclasses.dataclass(frozen=True)
class TaughtModel:
    """A model with words of one's own, ready to be used and kept.

    Attributes:
        labels: The taught words, the commands that were kept, unknown and silence.
        quality: How good it is.
        recognizer: Answers for clips, and decodes streams, at once.
        content: The bytes of its ``model.onnx``.
        takes: What it was taught.
    """

    labels: tuple[str, ...]
    quality: Quality
    recognizer: Recognizer
    content: bytes = dataclasses.field(repr=False)
    takes: Mapping[str, Sequence[Waveform]] = dataclasses.field(repr=False)

    def save(self, folder: Path) -> None:
        """Write ``model.onnx``, the card, ``metrics.json`` and ``takes.zip``, all or none.

        Args:
            folder: A new one, or that of a taught model, which is replaced.

        Raises:
            TeachError: It holds a trained model, or cannot be written.
        """
        files = ModelFolder(folder)
        if files.keras.exists():
            raise TeachError(
                f"{folder}: expected a new folder or that of a taught model, got that of a trained "
                "one; choose another folder",
                parameter="out",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".taught-", dir=folder) as name:
                made = ModelFolder(Path(name))
                made.onnx.write_bytes(self.content)
                made.card.write_text(self.card(folder.absolute().name), "utf-8")
                write_json(made.metrics, self.quality.to_dict())
                save_takes(self.takes, made.path / TAKES)
                with _alone(folder):
                    for path in sorted(made.path.iterdir()):
                        path.replace(folder / path.name)
        except OSError as error:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if there is nothing in it
            raise TeachError(
                f"{folder}: expected to write the model, got: {error.strerror or error}; choose "
                "another folder or make room",
                parameter="out",
            ) from error

    def card(self, title: str) -> str:
        """The model card, in Markdown."""
        taught = tuple(self.quality.words)
        voices = self.recognizer.provenance.get("voices", "")
        kept = [label for label in commands(self.labels) if label not in taught]
        return _CARD.format(
            title=title,
            words=", ".join(map(code, taught)),
            kept=f" Of the shipped model it kept {', '.join(map(code, kept))}." if kept else "",
            n_takes=self.quality.n_takes,
            sentences="\n".join(f"- {sentence}" for sentence in self.quality.sentences()),
            voices=_SYNTHETIC.format(voices=voices) if voices else "",
            table=self.quality.markdown(),
            hours=self.quality.hours,
            takes=TAKES,
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two that save into one folder do so one after the other, and their files do not mix."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
