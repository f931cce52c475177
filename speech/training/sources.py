"""Many sources in one training: corpora of words, folders of speech, folders of noise."""

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from speech.audio import OnNote, warn
from speech.config import Config
from speech.data.corpus import Corpus, index_corpus
from speech.data.recordings import ContinuousSpeech, Recordings, decode, read_speech
from speech.features import FeatureConfig
from speech.progress import OnProgress, no_progress

Role: TypeAlias = Literal["words", "speech", "noise"]
ROLES: tuple[Role, ...] = ("words", "speech", "noise")


@dataclasses.dataclass(frozen=True)
class Source(Config):
    """A folder that a training draws from.

    Attributes:
        path: The folder: of words one folder a word, else recordings in any layout.
        role: ``words``, ``speech`` (continuous, without the words of the label set: unknown) or
            ``noise`` (backgrounds).
        weight: How often it is drawn from, compared with a source of as many clips and weight 1.
        keep_all: Train on all of its speakers; else only on those of the training split. Only of
            the first source of words the validation speakers are measured on.
        leave_out: Patterns of paths below the folder (``zh_*/*``) that do not train.
    """

    path: str
    role: Role = "words"
    weight: float = 1.0
    keep_all: bool = False
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "leave_out", tuple(self.leave_out))
        if self.role not in ROLES:
            raise ValueError(f"expected a role of {', '.join(ROLES)}, got {self.role!r}")
        if not 0 < self.weight < 1e6:
            raise ValueError(f"the weight of a source must lie above 0, got {self.weight}")

    @classmethod
    def from_table(cls, fields: Mapping[str, Any]) -> "Source":
        """From a table of a recipe; fields that are not named have their defaults."""
        return cls.from_dict(cls("").to_dict() | dict(fields))

    @property
    def name(self) -> str:
        """The last part of the path, which figures by source show."""
        return Path(self.path).name


@dataclasses.dataclass(frozen=True)
class WordClips:
    """The training clips of one source of words, as positions in its recordings.

    Attributes:
        source: Where they come from.
        recordings: The decoded corpus.
        rows: int64 (n,), which of the recordings train.
    """

    source: Source
    recordings: Recordings
    rows: npt.NDArray[np.int64]

    def words(self) -> list[str]:
        """The word of each of ``rows``."""
        return [self.recordings.corpus.clips[i].word for i in self.rows]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """All sources of a training, decoded.

    Attributes:
        words: Sources of words; the validation speakers are those of the first.
        speech: Sources of continuous speech, with their weights.
        noise: Recorded backgrounds, int16 (n,).
    """

    words: tuple[WordClips, ...]
    speech: tuple[tuple[Source, ContinuousSpeech], ...] = ()
    noise: tuple[npt.NDArray[np.int16], ...] = ()

    @property
    def recordings(self) -> Recordings:
        """The corpus whose validation speakers choose the epoch."""
        return self.words[0].recordings

    def provenance(self) -> list[dict[str, Any]]:
        """For each source its name, role, weight, digest and number of clips, JSON-able."""
        rows = [
            _description(clips.source, clips.recordings.digest, clips=len(clips.rows))
            for clips in self.words
        ]
        return rows + [
            _description(source, speech.digest, samples=len(speech.samples))
            for source, speech in self.speech
        ]


def _description(source: Source, digest: str, **sizes: int) -> dict[str, Any]:
    fields = {"name": source.name, "role": source.role, "weight": source.weight}
    return {**fields, "leave_out": list(source.leave_out), "sha256": digest, **sizes}


def with_sources(
    recordings: Recordings,
    features: FeatureConfig,
    more: Sequence[Source] = (),
    *,
    strict: bool = False,
) -> TrainingData:
    """A corpus that is decoded already, and sources beside it, as training data.

    Args:
        recordings: The corpus of the validation speakers.
        features: Rate and length of the clips.
        more: What else to train on.
        strict: Accept no file that cannot be decoded.
    """
    source = Source(str(recordings.corpus.root))
    first = WordClips(source, recordings, training_rows(recordings.corpus, source))
    rest = load_sources(more, features, recordings.folder.parent, strict=strict)
    noise = (*recordings.noise_for("train"), *rest.noise)
    return TrainingData((first, *rest.words), rest.speech, noise)


def load_sources(
    sources: Sequence[Source],
    features: FeatureConfig,
    cache: Path | None = None,
    on_progress: OnProgress = no_progress,
    *,
    strict: bool = False,
    on_note: OnNote = warn,
) -> TrainingData:
    """Decode all sources; what was decoded before is only opened.

    Args:
        sources: Of those with the role ``words`` the corpus of the validation speakers first.
        features: Rate and length of the clips.
        cache: Folder of the decoded clips; the user's cache folder if None.
        on_progress: Told of the clips decoded so far, source by source.
        strict: Accept no file that cannot be decoded, not even one in a hundred.
        on_note: Told in one sentence each what was passed over.

    Raises:
        CorpusError: A folder without recordings, or one that does not decode.
    """
    words, speech, noise = [], [], []
    for source in sources:
        path = Path(source.path)
        if source.role == "words":
            # how its words would be divided says nothing where all of them train
            told = (lambda _: None) if source.keep_all else on_note
            corpus = index_corpus(path, on_note=told)
            recordings = decode(
                corpus, features, cache, on_progress, strict=strict, on_note=on_note
            )
            rows = training_rows(recordings.corpus, source)
            words.append(WordClips(source, recordings, rows))
            noise += recordings.noise_for("train")
        elif source.role == "speech":
            speech.append((source, read_speech([path], features, strict=strict, on_note=on_note)))
        else:
            noise.append(read_speech([path], features, strict=strict, on_note=on_note).samples)
    return TrainingData(tuple(words), tuple(speech), tuple(noise))


def training_rows(corpus: Corpus, source: Source) -> npt.NDArray[np.int64]:
    """Which clips of a corpus train, int64 (n,)."""
    rows = [
        index
        for index, clip in enumerate(corpus.clips)
        if (source.keep_all or clip.split == "train")
        and not any(fnmatch(clip.path, pattern) for pattern in source.leave_out)
    ]
    return np.array(rows, np.int64)
