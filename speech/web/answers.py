"""An uploaded recording becomes what the File tab shows; nothing here knows of a web framework."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from PIL import Image

from speech.audio import FORMATS, Waveform, fit_length
from speech.errors import SpeechError
from speech.files import readable_name
from speech.labels import UNKNOWN, commands
from speech.live.scan import Timeline, document, word_or_timeline
from speech.progress import OnProgress, no_progress
from speech.recognizer import Prediction, Recognizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_MARK = "⚠"
MAX_SECONDS = 3600.0  # of a recording
MAX_MEGABYTES = 250
INVITATION = (
    f"Upload {FORMATS}, at most {MAX_SECONDS / 60:g} minutes and {MAX_MEGABYTES} MB: one word, or "
    "a long recording to find the commands in."
)
_PERHAPS = 0.1  # a command less probable than this is not worth a word
# Set in the width of a telephone, so that the words in a picture stay legible there.
_FIGSIZE = (5.0, 2.7)
_PIXELS_PER_INCH = 240


class Answer(NamedTuple):
    """What the page shows for one recording: the values of its five outputs.

    Attributes:
        probabilities: Probability of each label, or None where no clip was recognized.
        waveform: Picture of the clip that was recognized.
        mfcc: Picture of that clip's features.
        status: One sentence for the user; an error begins with ``ERROR_MARK``.
        recording: Where to play it (``audio``), and of a long one its ``timeline``, which is
            what ``speech.live.scan.document`` returns.
    """

    probabilities: dict[str, float] | None
    waveform: Image.Image | None
    mfcc: Image.Image | None
    status: str
    recording: dict[str, Any] | None

    @classmethod
    def of_error(cls, message: str) -> "Answer":
        """Nothing but the sentence, marked as an error."""
        return cls(None, None, None, f"{ERROR_MARK} {message}", None)


def answer_file(
    recognizer: Recognizer, path: str | None, on_progress: OnProgress = no_progress
) -> Answer:
    """Recognize the recording in a file; whatever is wrong with it becomes the status.

    Args:
        recognizer: The model.
        path: The file; None where none is chosen.
        on_progress: Told how many bytes of how many were read.
    """
    if path is None:
        return Answer(None, None, None, INVITATION, None)
    audio = {"audio": f"gradio_api/file={quote(path)}"}
    notes: list[str] = []
    try:
        found = word_or_timeline(
            recognizer,
            Path(path),
            max_seconds=MAX_SECONDS,
            on_progress=on_progress,
            on_note=notes.append,
        )
        if not isinstance(found, Timeline):
            answer = answer_waveform(recognizer, found)
            status = _with_notes(answer.status, notes, path)
            return answer._replace(recording=audio, status=status)
    except SpeechError as error:
        # the folder is a temporary one of the server and means nothing to the user
        return Answer.of_error(str(error).replace(path, Path(path).name))
    timeline = document(found)
    count = len(found.detections)
    status = f"{count} command{'' if count == 1 else 's'} in {timeline['seconds']:.1f} s."
    status = _with_notes(status, notes, path)
    return Answer(None, None, None, status, {**audio, "timeline": timeline})


def _with_notes(status: str, notes: list[str], path: str) -> str:
    said = [f"Note: {note.removeprefix(f'{readable_name(path)}: ')}." for note in notes]
    return " ".join([f"{status.removesuffix('.')}.", *said]) if said else status


def answer_waveform(recognizer: Recognizer, waveform: Waveform) -> Answer:
    """Recognize one word and draw its clip and features.

    Args:
        recognizer: The model.
        waveform: Samples (n,) float32 in [-1, 1) at the model's rate; of more than a clip the
            loudest clip is taken.
    """
    from speech.evaluation import plots  # not for the first page to wait for

    features = recognizer.features
    clip = fit_length(waveform, features.n_samples)
    prediction = recognizer.recognize_waveform(clip)
    status = _sentence(prediction)
    if len(waveform) > len(clip):
        seconds = len(waveform) / features.sample_rate
        status += f" (the loudest {features.clip_seconds:g} s of {seconds:.2f} s)"
    mfcc = recognizer.mfcc(clip[None])[0]
    return Answer(
        prediction.probabilities,
        _picture(plots.waveform(clip, features.sample_rate, figsize=_FIGSIZE)),
        _picture(plots.mfcc_image(mfcc, features, figsize=_FIGSIZE)),
        status,
        None,
    )


def _sentence(prediction: Prediction) -> str:
    """The answer; where no command is accepted, the most probable one that it may have been."""
    label, probability = prediction.label, prediction.probability
    names = commands(list(prediction.probabilities))
    if prediction.accepted and label != UNKNOWN:
        return f"{label}, {_percent(probability)}"
    if label == UNKNOWN and names:
        label = max(names, key=prediction.probabilities.__getitem__)
        probability = prediction.probabilities[label]
    if probability < _PERHAPS:
        return f"{UNKNOWN}, {_percent(prediction.probability)}"
    return f"{UNKNOWN} (perhaps {label}, {_percent(probability)})"


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %"


def _picture(figure: "Figure") -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PIXELS_PER_INCH)
    return Image.open(buffer)
