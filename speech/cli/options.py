"""Every option of the command line, declared once, and the way a command takes several as one."""

import contextlib
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from speech.installation import DEFAULT_MODEL as BUNDLED
from speech.installation import bundled_models, find_model, resources

if TYPE_CHECKING:
    from speech.data.recordings import Recordings
    from speech.features import FeatureConfig
    from speech.live.microphone import Block

DEFAULT_MODEL = Path(BUNDLED)
DEFAULT_DATA = Path("datasets/speech_commands_v0.02")

Command = TypeVar("Command", bound=Callable[..., None])


def grouped(command: Command) -> Command:
    """Let a command take dataclasses whose fields are options: typer sees the fields one by one.

    So a command with many options is a function of a few parameters, and what belongs together
    travels together.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        n: hint for n, hint in hints.items() if dataclasses.is_dataclass(hint)
    }
    fields = {name: get_type_hints(group, include_extras=True) for name, group in groups.items()}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=fields[name][field.name],
                )
                for field in dataclasses.fields(groups[name])
            ]
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[name], kind=kind))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field: values.pop(field) for field in fields[name]})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run  # type: ignore[return-value]


def examples(*lines: str) -> str:
    """The end of a command's help: command lines that can be copied."""
    return "\n".join(("Examples:", *(f"  {line}" for line in lines)))


def _models(incomplete: str) -> Iterator[str]:
    """Bundled models by name, and the folders of ``saved_models``, for the shell's completion."""
    folders = sorted(str(path.parent) for path in Path("saved_models").glob("*/model.*"))
    for name in dict.fromkeys([*bundled_models(), *folders]):
        if name.startswith(incomplete) or Path(name).name.startswith(incomplete):
            yield name


def _recipes(incomplete: str) -> Iterator[str]:
    for path in sorted((resources("datasets") / "recipes").glob("*.toml")):
        if path.stem.startswith(incomplete):
            yield path.stem


def _datasets(incomplete: str) -> Iterator[str]:
    from speech.data.datasets import dataset_specs

    yield from (name for name in dataset_specs() if name.startswith(incomplete))


# --- what several commands take -----------------------------------------------------------------

MODEL_ARGUMENTS: dict[str, Any] = {
    "help": "Name of a bundled model, model folder or model file.",
    "autocompletion": _models,
    "parser": find_model,
    "metavar": "MODEL",
}
Model = Annotated[Path, typer.Argument(**MODEL_ARGUMENTS)]
Models = Annotated[
    list[Path],
    typer.Argument(
        **MODEL_ARGUMENTS | {"help": "Names of bundled models, model folders or model files."}
    ),
]
ModelOption = Annotated[Path, typer.Option("--model", **MODEL_ARGUMENTS)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=1, show_default="the model's",
        help="Detection threshold for all commands (0-1).",
    ),
]  # fmt: skip
AudioSources = Annotated[
    list[Path], typer.Argument(help="Audio files, folders of them, or - for standard input.")
]
Archives = Annotated[
    list[str],
    typer.Argument(
        help="Audio files, folders of them, or - for standard input; with --ray also patterns and "
        "addresses (s3://, gs://, hf://, http://)."
    ),
]
Ray = Annotated[
    str,
    typer.Option(
        "--ray", metavar="ADDRESS|local|auto", show_default=False,
        help="Use a cluster of Ray: its address, the one that runs here (auto), or one that is "
        "started here for this (local).",
    ),
]  # fmt: skip
Workers = Annotated[
    int, typer.Option(min=1, max=1024, help="With --ray: processes that train together.")
]
Tables = Annotated[
    str,
    typer.Option(
        "--out", show_default=False,
        help="With --ray: folder or address for the tables (Parquet). What they hold is not done "
        "again.",
    ),
]  # fmt: skip
Data = Annotated[Path, typer.Option(help="Folder of the corpus: one folder of clips per word.")]
RealClips = Annotated[
    Path | None, typer.Option("--data", help="Corpus to compare on too.", show_default=False)
]
Cache = Annotated[
    Path | None,
    typer.Option(
        envvar="SPEECH_CACHE", show_default="the user's cache folder",
        help="Folder for decoded clips.",
    ),
]  # fmt: skip
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop at a damaged file, also where it is one in a hundred or fewer."
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for the results.", show_default="the model's folder")
]
MoreWords = Annotated[
    list[Path] | None,
    typer.Option(
        "--more-words", show_default=False,
        help="Another corpus to train on, of whatever words; may be repeated.",
    ),
]  # fmt: skip
NegativeSpeech = Annotated[
    list[Path] | None,
    typer.Option(
        "--negative-speech", "--speech", show_default=False,
        help="Folder of continuous speech without the commands; may be repeated.",
    ),
]  # fmt: skip

# --- where live sound comes from ----------------------------------------------------------------

Device = Annotated[
    str,
    typer.Option(help="Number or part of the name of a microphone.", show_default="the default"),
]
Channels = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Channels to record.", show_default="one, or the fewest"),
]


def _channel(text: str) -> int | str:
    if text != "best" and not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"expected a number from 1 on or best, got {text!r}")
    return text if text == "best" else int(text)


PickedChannel = Annotated[
    Any,
    typer.Option(
        "--channel", parser=_channel, metavar="NUMBER|best", show_default="the mean of all",
        help="Channel of a microphone array to use; best is the one with the clearest speech.",
    ),
]  # fmt: skip
Stdin = Annotated[
    bool,
    typer.Option("--stdin", help="Read WAV or raw 16-bit mono PCM from standard input."),
]
Rate = Annotated[
    int | None, typer.Option(help="Sample rate of raw --stdin in Hz.", show_default="the model's")
]
Wav = Annotated[Path | None, typer.Option(help="Read an audio file.", show_default=False)]
Realtime = Annotated[bool, typer.Option("--realtime", help="Play --wav back in real time.")]
Execute = Annotated[
    str,
    typer.Option(
        "--exec",
        show_default=False,
        help="Program to start for each detection; {label}, {probability} and {time} (s) are "
        "filled in. No shell.",
    ),
]
Seconds = Annotated[float, typer.Option(min=1, max=60, help="Seconds to record.")]
Save = Annotated[
    Path | None,
    typer.Option(help="Write the sound to this WAV file, as the model gets it."),
]
Play = Annotated[bool, typer.Option("--play", help="Play the recorded sound back.")]

# --- what a scan writes -------------------------------------------------------------------------

Csv = Annotated[Path | None, typer.Option(help="Write a CSV file.", show_default=False)]
Audacity = Annotated[
    Path | None,
    typer.Option(
        help="Write a label track for Audacity; a folder where there are several recordings.",
        show_default=False,
    ),
]
Png = Annotated[
    Path | None,
    typer.Option(
        help="Write a picture of the timeline; a folder where there are several recordings.",
        show_default=False,
    ),
]

# --- what a look inside writes --------------------------------------------------------------------

ExplainedSource = Annotated[
    Path, typer.Argument(metavar="FILE", help="An audio file of one word, of at most 60 s.")
]
ExplainedLabel = Annotated[
    str, typer.Option("--label", help="Show what speaks for this class.", show_default="the answer")
]
ExplainedPng = Annotated[
    Path | None, typer.Option("--png", help="Write a picture.", show_default=False)
]
ExplainedHtml = Annotated[
    Path | None, typer.Option("--html", help="Write a page to mail and open.", show_default=False)
]

# --- words of one's own --------------------------------------------------------------------------

Language = Annotated[
    str, typer.Option(help="Language of espeak-ng; en is a mixture of English accents.")
]
KokoroFolder = Annotated[
    Path | None,
    typer.Option(
        "--kokoro", show_default=False,
        help="Folder with Kokoro's files, whose neural voices then speak (docs/teach.md).",
    ),
]  # fmt: skip

# --- corpora, training and evaluation -----------------------------------------------------------

Dataset = Annotated[
    str, typer.Option(help="Corpus to download, of datasets/.", autocompletion=_datasets)
]
DatasetsFolder = Annotated[Path, typer.Option(help="Folder in which corpora are kept.")]
ReadyData = Annotated[
    Path | None,
    typer.Option("--data", help="Use this folder instead of a download.", show_default=False),
]
KeepArchive = Annotated[
    bool, typer.Option("--keep-archive", help="Keep the archive after unpacking.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        show_default="commands-8; with --labels commands-8-quick",
        help="Training recipe of datasets/recipes, or a .toml.", autocompletion=_recipes,
    ),
]  # fmt: skip
Labels = Annotated[
    str | None,
    typer.Option(help="A label set, or your own words: yes,no,stop.", show_default="the recipe's"),
]
RunFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/LABELS-SEED")
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue a run, also a finished one with more --epochs."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew where a run or a model is already.")
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        "--from", show_default=False, help="Model whose weights the training begins with."
    ),
]
RunConfig = Annotated[
    Path | None,
    typer.Option(help="Repeat the config.json of a run.", show_default="the recipe"),
]
Seed = Annotated[
    int | None, typer.Option(show_default="1", min=0, help="Seed of every random choice.")
]
Epochs = Annotated[int | None, typer.Option(show_default="60", min=1, help="Most epochs.")]
EpochClips = Annotated[
    int | None, typer.Option(show_default="16000", min=1, help="Clips per epoch.")
]
BatchSize = Annotated[int | None, typer.Option(show_default="128", min=1, help="Clips per step.")]
LearningRate = Annotated[
    float | None, typer.Option(show_default="0.002", min=1e-7, max=1, help="Peak learning rate.")
]
Patience = Annotated[
    int | None,
    typer.Option(show_default="30", min=1, help="Epochs without a better one until it stops."),
]
Augment = Annotated[bool, typer.Option(help="Vary speed, level, noise and microphone.")]
TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", help="Also write TensorBoard logs here.", show_default=False),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--to", show_default="onnx",
        help="Format: onnx, onnx-int8, tflite, tflite-float16, tflite-int8, or web for a page; may "
        "be repeated.",
    ),
]  # fmt: skip
ExportOut = Annotated[
    Path | None,
    typer.Option(
        "--out", show_default="the model's folder; for web MODEL-web here",
        help="Folder for the results.",
    ),
]  # fmt: skip
Runtime = Annotated[
    Path | None,
    typer.Option(
        show_default="downloaded once", help="For web: the npm package onnxruntime-web, as a file.",
    ),
]  # fmt: skip
Rounds = Annotated[int, typer.Option(min=1, help="Benchmark rounds: values per metric.")]
Markdown = Annotated[
    Path | None, typer.Option(help="Also write a Markdown page here.", show_default=False)
]
AllFields = Annotated[bool, typer.Option("--all", help="Show every field.")]


@dataclasses.dataclass(frozen=True)
class DecodingOptions:
    """How a corpus is decoded."""

    cache: Cache = None
    strict: Strict = False

    def read(
        self, root: Path, features: "FeatureConfig | None" = None, words: Sequence[str] = ()
    ) -> "Recordings":
        """Index and decode a corpus, which has to hold these words.

        Raises:
            CorpusError: As ``index_corpus``, ``require_words`` and ``decode``.
        """
        from speech.cli.console import progress
        from speech.data.corpus import index_corpus, require_words
        from speech.data.recordings import decode
        from speech.environment import cache_folder
        from speech.features import FeatureConfig
        from speech.files import sweep_decoding

        sweep_decoding(self.cache or cache_folder())
        corpus = index_corpus(root)
        require_words(corpus, words)
        with progress("Decoding") as on_progress:
            return decode(
                corpus, features or FeatureConfig(), self.cache, on_progress, strict=self.strict
            )


@dataclasses.dataclass(frozen=True)
class MicrophoneOptions:
    """Which microphone, and what of it."""

    device: Device = ""
    channels: Channels = None
    channel: PickedChannel = None

    @contextlib.contextmanager
    def open(self, sample_rate: int) -> "Iterator[Iterator[Block]]":
        """Its blocks, preferably at this rate in Hz, while the context lasts.

        Raises:
            MicrophoneError: It cannot be opened.
        """
        from speech.live.sources import microphone_blocks

        with microphone_blocks(
            self.device, sample_rate, channels=self.channels, channel=self.channel
        ) as blocks:
            yield blocks


@dataclasses.dataclass(frozen=True)
class SourceOptions(MicrophoneOptions):
    """Where the sound comes from: a microphone, unless something else is given."""

    stdin: Stdin = False
    rate: Rate = None
    wav: Wav = None
    realtime: Realtime = False

    @property
    def is_microphone(self) -> bool:
        """Whether somebody has to speak now."""
        return not self.stdin and self.wav is None

    def check(self) -> None:
        """Refuse options that exclude one another."""
        for wrong, why in (
            (
                bool(self.device) + self.stdin + (self.wav is not None) > 1,
                "expected one of --device, --stdin and --wav, got several; choose one",
            ),
            (
                self.rate is not None and not self.stdin,
                "expected --rate beside --stdin, got it alone; leave it out",
            ),
            (
                self.channels is not None and not self.is_microphone,
                "expected --channels of a microphone, got --stdin or --wav; leave it out",
            ),
            (
                self.channel is not None and self.wav is not None,
                "expected --channel of a microphone or pipe, got --wav; leave it out",
            ),
            (
                self.realtime and self.wav is None,
                "expected --realtime beside --wav, got it alone; leave it out",
            ),
            (
                self.stdin and sys.stdin.isatty(),
                "expected --stdin to be a pipe, got a terminal; pipe a recorder into it",
            ),
        ):
            if wrong:
                raise typer.BadParameter(why)

    @contextlib.contextmanager
    def open(self, sample_rate: int) -> "Iterator[Iterator[Block]]":
        """The blocks, preferably at this rate in Hz, while the context lasts.

        Raises:
            AudioError: Of a file or a rate.
            MicrophoneError: Of a microphone.
        """
        from speech.live import pcm, sources

        if self.wav is not None:
            blocks = sources.file_blocks(self.wav)
            yield sources.paced(blocks) if self.realtime else blocks
        elif self.stdin:
            blocks = pcm.pcm_blocks(sys.stdin.buffer, self.rate or sample_rate)
            yield blocks if self.channel is None else sources.pick_channel(blocks, self.channel)
        else:
            with super().open(sample_rate) as blocks:
                yield blocks
