"""Learning from mistakes: a model is taught again, and replaced only by a better one.

Versions that were replaced are kept beside the model, and the last one can be brought back.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from speech.audio import Waveform
from speech.errors import TeachError
from speech.files import replacing
from speech.formats.folder import ModelFolder
from speech.progress import OnProgress, no_progress
from speech.recognizer import Recognizer, load
from speech.stream import StreamDecoder
from speech.teach.corrections import Corrections
from speech.teach.quality import Quality
from speech.teach.saving import TAKES, TaughtModel
from speech.teach.takes import RATE, read_takes, save_takes
from speech.teach.teaching import teach

_NEGATIVES = "negatives.zip"
_VERSIONS = "versions"
_LEAD_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The model as it was and as it would be, each pair in this order.

    Attributes:
        n_takes: Takes, with those of the corrections.
        hits: How many of them are recognized by a model that was not taught them. The old model was
            not taught those of the corrections.
        n_wrong: Wrong detections that were kept, now and before.
        wrong: How many of them still trigger. The new model was taught that they are none.
        false_accepts: Wrong detections in other speech, which neither model was fitted to.
    """

    n_takes: int
    hits: tuple[int, int]
    n_wrong: int
    wrong: tuple[int, int]
    false_accepts: tuple[int, int]

    @property
    def is_better(self) -> bool:
        """Better on takes or on wrong detections, and worse in nothing."""
        hits, wrong = self.hits[1] - self.hits[0], self.wrong[0] - self.wrong[1]
        no_worse = self.false_accepts[1] <= self.false_accepts[0]
        return no_worse and min(hits, wrong) >= 0 and max(hits, wrong) > 0

    def sentence(self) -> str:
        """What changed, for people."""
        return (
            f"of {self.n_takes} takes {self.hits[1]} are recognized by a model that was not taught "
            f"them (before {self.hits[0]}); of {self.n_wrong} wrong detections {self.wrong[1]} "
            f"come again ({self.wrong[0]}); other speech triggers it {self.false_accepts[1]} times "
            f"({self.false_accepts[0]})"
        )


def teach_again(
    folder: Path, *, on_progress: OnProgress = no_progress
) -> tuple[TaughtModel, Verdict]:
    """Teach a model anew with its takes and its corrections; nothing is written.

    Args:
        folder: That of a taught model, with corrections of ``speech listen``.
        on_progress: As ``teach``.

    Returns:
        The new model, and whether it is better.

    Raises:
        TeachError: It is no taught model, there are no corrections, or as ``teach``.
    """
    quality, takes = _taught(folder)
    corrections = Corrections(folder)
    said, wrong = corrections.takes(), corrections.negatives()
    if not said and not wrong:
        raise TeachError(
            f"{folder}: expected corrections, got none; press w or s in: speech listen --model "
            f"{folder}"
        )
    old = load(folder)
    negatives = [*_negatives(folder), *wrong]
    all_takes = {word: [*takes.get(word, ()), *said.get(word, ())] for word in {**takes, **said}}
    new = teach(
        all_takes,
        keep=old.provenance.get("kept", ()),
        rate_per_hour=quality.rate_per_hour,
        negatives=negatives,
        voices=old.provenance.get("voices", ""),
        on_progress=on_progress,
    )
    spoken = sum(_is_detected(old, take, word) for word in said for take in said[word])
    return new, Verdict(
        n_takes=new.quality.n_takes,
        hits=(quality.hits + spoken, new.quality.hits),
        n_wrong=len(negatives),
        wrong=(_triggered(old, negatives), _triggered(new.recognizer, negatives)),
        false_accepts=(quality.false_accepts, new.quality.false_accepts),
    )


def accept(folder: Path, model: TaughtModel) -> None:
    """Replace a model by one of ``teach_again``; the old one is kept, the corrections are learned.

    Raises:
        TeachError: It cannot be written.
    """
    corrections = Corrections(folder)
    negatives = [*_negatives(folder), *corrections.negatives()]
    try:
        _copy(folder, folder / _VERSIONS / str(_last_version(folder) + 1))
        model.save(folder)
        if negatives:
            save_takes({"wrong": negatives}, folder / _NEGATIVES)
    except OSError as error:
        raise TeachError(
            f"{folder}: expected to keep the old model, got: {error.strerror or error}; make room"
        ) from error
    corrections.forget()


def bring_back(folder: Path) -> int:
    """Exchange a model and the version before it, so that a second call brings the newer one back.

    Returns:
        The number of the version that is in use now.

    Raises:
        TeachError: There is no version before, or it cannot be written.
    """
    number = _last_version(folder)
    if not number:
        raise TeachError(
            f"{folder}: expected a version before this one, got none; it was never taught again"
        )
    version = folder / _VERSIONS / str(number)
    try:
        kept = version.with_name(f".{number}")
        shutil.rmtree(kept, ignore_errors=True)
        _copy(folder, kept)
        _copy(version, folder)
        shutil.rmtree(version)
        kept.rename(version)
    except OSError as error:
        raise TeachError(
            f"{folder}: expected to exchange versions, got: {error.strerror or error}; make room"
        ) from error
    return number


def _taught(folder: Path) -> tuple[Quality, dict[str, list[Waveform]]]:
    files = ModelFolder(folder)
    try:
        quality = Quality.from_dict(json.loads(files.metrics.read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TeachError(
            f"{folder}: expected the folder of a taught model, got another one; make one with: "
            "speech teach"
        ) from error
    return quality, read_takes(folder / TAKES)


def _negatives(folder: Path) -> list[Waveform]:
    path = folder / _NEGATIVES
    return read_takes(path)["wrong"] if path.is_file() else []


def _triggered(recognizer: Recognizer, negatives: Sequence[Waveform]) -> int:
    return sum(any(_detected(recognizer, wrong)) for wrong in negatives)


def _is_detected(recognizer: Recognizer, take: Waveform, word: str) -> bool:
    return word in _detected(recognizer, take)


def _detected(recognizer: Recognizer, take: Waveform) -> Iterator[str]:
    """The words that are detected in a take, with silence before it as where a stream begins."""
    decoder = StreamDecoder(recognizer)
    lead = np.zeros(round(_LEAD_SECONDS * RATE), np.float32)
    for detection in decoder.push(np.concatenate([lead, take]), RATE) + decoder.flush():
        yield detection.label


def _last_version(folder: Path) -> int:
    places = (folder / _VERSIONS).iterdir() if (folder / _VERSIONS).is_dir() else ()
    return max((int(place.name) for place in places if place.name.isdecimal()), default=0)


def _copy(source: Path, target: Path) -> None:
    """The files of a version, each whole or not at all."""
    files = ModelFolder(source)
    for path in (files.onnx, files.card, files.metrics, source / TAKES, source / _NEGATIVES):
        copy = target / path.name
        if path.is_file():
            with replacing(copy) as part:
                shutil.copyfile(path, part)
        else:
            copy.unlink(missing_ok=True)
